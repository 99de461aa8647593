"""The load that bench.serving puts on every server alike; a process of its own, which prints one JSON object.

    python -m bench._serving_load TARGET REQUESTS --method Predict --connections 2 --depth 8 --seconds 4 [--per_s 2000]

Without ``--per_s`` the loop is closed: each of connections x depth callers asks again as soon as it is answered. With
it the loop is open: calls begin on schedule whether or not others are answered, and a latency counts from the moment
the call *should* have begun, so that a server that stalls cannot hide it (coordinated omission). Every answer is
parsed, and on each connection no answer may come from an older version than one that was there before it was asked.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import msgspec
import numpy as np

from stream_app.wire import stream_app_pb2 as pb

SERVICE = "/stream_app.v1.StreamModel"
DEADLINE_S = 5.0
WINDOW = 8
"""Requests under way on one stream."""


class Seen:
    """What one connection was told, and how often it was told something older than before."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, int]] = {}
        self.backwards = 0

    def before(self) -> dict[str, tuple[int, int]]:
        """What was known when a call began."""
        return dict(self._newest)

    def add(self, answer: pb.PredictResponse, before: dict[str, tuple[int, int]]) -> None:
        at = (answer.epoch, answer.version)
        self.backwards += at < before.get(answer.variant, (0, 0))
        self._newest[answer.variant] = max(at, self._newest.get(answer.variant, (0, 0)))


class Connection(NamedTuple):
    """One TCP connection, never shared."""

    channel: grpc.aio.Channel
    seen: Seen


class Load:
    """Calls to one server.

    Args:
        requests: serialised; asked in turns.
        token: sent as a bearer token, if any.
    """

    def __init__(self, target: str, method: str, requests: list[bytes], connections: int, token: str | None) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20))
        made = (grpc.aio.insecure_channel(target, options=options) for _ in range(connections))
        self.connections = [Connection(channel, Seen()) for channel in made]
        self._method, self._requests = f"{SERVICE}/{method}", requests
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.latencies_s: list[float] = []
        self.failed: dict[str, int] = {}

    async def call(self, connection: Connection, turn: int, since_s: float) -> None:
        before, call = connection.seen.before(), connection.channel.unary_unary(self._method)
        try:
            data = self._requests[turn % len(self._requests)]
            answer = await call(data, timeout=DEADLINE_S, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            self._fail(error)
            return
        self.latencies_s.append(time.perf_counter() - since_s)
        connection.seen.add(pb.PredictResponse.FromString(answer), before)

    async def closed(self, connection: Connection, until_s: float) -> None:
        turn = 0
        while (now_s := time.perf_counter()) < until_s:
            await self.call(connection, turn, now_s)
            turn += 1

    async def stream(self, connection: Connection, until_s: float) -> None:
        """One stream with WINDOW requests under way."""
        room, sent_s = asyncio.Semaphore(WINDOW), list[tuple[float, dict[str, tuple[int, int]]]]()

        async def requests() -> AsyncIterator[bytes]:
            while time.perf_counter() < until_s:
                await room.acquire()
                sent_s.append((time.perf_counter(), connection.seen.before()))
                yield self._requests[len(sent_s) % len(self._requests)]

        try:
            answered = 0
            async for data in connection.channel.stream_stream(self._method)(requests(), metadata=self._metadata):
                since_s, before = sent_s[answered]
                answered += 1
                room.release()
                answer = pb.PredictStreamResponse.FromString(data)
                if answer.HasField("error"):
                    self._fail(answer.error.status)
                    continue
                self.latencies_s.append(time.perf_counter() - since_s)
                connection.seen.add(answer.response, before)
        except grpc.aio.AioRpcError as error:
            self._fail(error)

    async def open(self, per_s: float, seconds: float) -> None:
        began_s, under_way = time.perf_counter(), set[asyncio.Task[None]]()
        for turn in range(int(per_s * seconds)):
            due_s = began_s + turn / per_s
            if (left_s := due_s - time.perf_counter()) > 0.0:
                await asyncio.sleep(left_s)
            connection = self.connections[turn % len(self.connections)]
            task = asyncio.ensure_future(self.call(connection, turn, due_s))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    def _fail(self, error: grpc.aio.AioRpcError | str) -> None:
        name = error if isinstance(error, str) else error.code().name
        self.failed[name] = self.failed.get(name, 0) + 1


async def run(load: Load, args: argparse.Namespace) -> dict[str, Any]:
    ready = asyncio.gather(*(connection.channel.channel_ready() for connection in load.connections))
    await asyncio.wait_for(ready, DEADLINE_S)
    began_s = time.perf_counter()
    until_s = began_s + args.seconds
    if args.per_s:
        await load.open(args.per_s, args.seconds)
    else:
        one = load.stream if args.method == "PredictStream" else load.closed
        callers: list[Coroutine[Any, Any, None]] = [
            one(connection, until_s) for connection in load.connections for _ in range(args.depth)
        ]
        await asyncio.gather(*callers)
    took_s = time.perf_counter() - began_s
    await asyncio.gather(*(c.channel.close() for c in load.connections))
    p50_ms, p99_ms, most_ms = 1e3 * np.percentile(load.latencies_s or [np.nan], [50, 99, 100])
    return {
        "calls": len(load.latencies_s),
        "per_s": len(load.latencies_s) / took_s,
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "most_ms": most_ms,
        "failed": load.failed,
        "backwards": sum(c.seen.backwards for c in load.connections),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("requests", type=Path, help="a msgpack list of serialised requests")
    parser.add_argument("--method", default="Predict")
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--depth", type=int, default=8, help="callers per connection")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--per_s", type=float, default=0.0, help="calls per second of an open loop")
    parser.add_argument("--token")
    args = parser.parse_args()
    requests = msgspec.msgpack.decode(args.requests.read_bytes(), type=list[bytes])

    async def measured() -> dict[str, Any]:
        return await run(Load(args.target, args.method, requests, args.connections, args.token), args)

    print(json.dumps(asyncio.run(measured())))


if __name__ == "__main__":
    main()
