"""Does anything that can be sent take a server down, or get a status that blames the server?

    python -m bench.fuzz [--each N] [--seed S]

A real server (``stream-app serve``, gRPC and HTTP) gets, of every call and route, N requests that are random bytes,
true ones with bytes changed, and true ones with fields changed; then messages of 100 MB, plain and as bombs of gzip,
1,000 connections at once, and readers that do not read. Any status but those of ALLOWED is an error, as is a server
that no longer answers right. The last line is one JSON object: statuses by count, and the server's memory in between.
"""

import argparse
import gzip
import http.client
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from stream_app.broker import EmbeddedBroker, die_with_parent
from stream_app.wire import open_inference_pb2 as oip
from stream_app.wire import stream_app_pb2 as pb
from tests.stream_app.versions import artefact, looking, spec_of, writing

NAME = "fuzz"
ALLOWED = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
}
HUGE_BYTES = 100 << 20
CONNECTIONS = 1_000
STALLED = 32
"""Readers that do not read."""
_NUMBERS = (0.0, 1.0, -1.5, 1e308, 1e39, float("nan"), float("inf"), -float("inf"), 2.0**63)
_NAMES = ("features", "distance", "hour", "carrier", "flight", "time_s", "distence", "", "\x00", "é" * 100)
_TYPES = ("FP32", "FP64", "FP16", "BF16", "INT8", "INT64", "UINT64", "BOOL", "BYTES", "", "fp32")
_SIZES = (0, 1, 2, 4, 5000, -1, 2**62)


class Asked(NamedTuple):
    """A server's addresses."""

    grpc: str
    http: str
    pid: int


@contextmanager
def served(folder: Path) -> Iterator[Asked]:
    """A server process with one version live."""
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker())
        writer = stack.enter_context(writing(broker.bootstrap_servers, spec_of(NAME)))
        writer.announce(artefact(writer.spec, graph=looking(writer.spec)))
        (folder / "model.toml").write_text(_SPEC)
        argv = [sys.executable, "-m", "stream_app", "serve", "--spec", str(folder / "model.toml")]
        argv += ["--bootstrap-servers", broker.bootstrap_servers, "--registry", str(folder)]
        argv += ["--listen", "127.0.0.1:0", "--rest", "127.0.0.1:0", "--reflection"]
        with (folder / "server.log").open("w") as log:
            process = stack.enter_context(
                subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=die_with_parent)
            )
        stack.callback(process.terminate)
        assert process.stdout is not None
        http_at, grpc_at = (re.findall(r"127\.0\.0\.1:\d+", process.stdout.readline())[0] for _ in range(2))
        asked = Asked(grpc_at, http_at, process.pid)
        _until(lambda: _http(asked, "GET", "/v2/health/ready", None, {}) == "OK")
        yield asked


_SPEC = f"""
name = "{NAME}"
task = "binary"
label = {{ name = "delay", classes = ["on time", "late"] }}
features = {{ numeric = {{ distance = {{}} }} }}
"""
"""Of what it says a server only looks at the name."""


def _until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60.0
    while not true():
        if time.monotonic() > deadline_s:
            raise SystemExit("the server does not get ready")
        time.sleep(0.05)


# What is sent -------------------------------------------------------------------------------------


def row(rng: random.Random) -> dict[str, Any]:
    value: dict[str, Any] = rng.choice(({"number": rng.choice(_NUMBERS)}, {"text": rng.choice(_NAMES)}, {}))
    return {"features": {rng.choice(_NAMES[1:5]): value}}


def predict(rng: random.Random) -> Message:
    rows = [row(rng) for _ in range(rng.choice((0, 1, 3)))]
    columns = pb.Columns(
        rows=rng.choice((0, 1, 3, 2**32 - 1)),
        columns=[
            pb.Column(
                name=rng.choice(_NAMES),
                numbers=rng.randbytes(rng.choice((0, 8, 9, 24))),
                texts=rng.choices(_NAMES, k=rng.choice((0, 1, 3))),
                at=rng.choices((0, 1, 2, 2**32 - 1), k=rng.choice((0, 1, 3))),
            )
            for _ in range(rng.choice((0, 1, 2)))
        ],
        times_s=rng.randbytes(rng.choice((0, 8, 24, 3))),
    )
    return pb.PredictRequest(rows=rows, explain=rng.choice((0, 1, 2, 9)), columns=rng.choice((None, columns)))


def infer(rng: random.Random) -> Message:
    inputs, raws = [], []
    for _ in range(rng.choice((0, 1, 1, 2))):
        shape = rng.choices(_SIZES, k=rng.choice((0, 1, 2, 2, 9)))
        tensor = oip.ModelInferRequest.InferInputTensor(
            name=rng.choice(_NAMES), datatype=rng.choice(_TYPES), shape=shape
        )
        if rng.random() < 0.5:
            tensor.contents.fp32_contents.extend(rng.choices(_NUMBERS, k=rng.choice((0, 1, 4))))
            tensor.contents.bytes_contents.extend([b"\xff"] * rng.choice((0, 0, 1, 2)))
        else:
            raws.append(rng.randbytes(rng.choice((0, 4, 8, 16, 17))))
        tensor.parameters["missing"].string_param = rng.choice(_NAMES)
        inputs.append(tensor)
    return oip.ModelInferRequest(
        model_name=rng.choice((NAME, NAME, NAME, "", "other")),
        model_version=rng.choice(("", "", "1", "-1", "x" * 1000)),
        id=rng.choice(_NAMES),
        inputs=inputs,
        raw_input_contents=raws,
        outputs=[{"name": rng.choice(("scores", "label", "value", ""))} for _ in range(rng.choice((0, 0, 1, 2)))],
    )


def good_infer() -> Message:
    tensor = oip.ModelInferRequest.InferInputTensor(name="features", datatype="FP32", shape=[1, 4])
    return oip.ModelInferRequest(model_name=NAME, inputs=[tensor], raw_input_contents=[bytes(16)])


TRUE: dict[str, Message] = {
    "/stream_app.v1.StreamModel/Predict": pb.PredictRequest(
        rows=[{"features": {"distance": {"number": 1.0}, "carrier": {"text": "UA"}}, "time_s": 1.0}] * 2
    ),
    "/stream_app.v1.StreamModel/PredictStream": pb.PredictRequest(rows=[{"features": {"hour": {"number": 1.0}}}]),
    "/stream_app.v1.StreamModel/GetModel": pb.GetModelRequest(),
    "/inference.GRPCInferenceService/ModelInfer": good_infer(),
    "/inference.GRPCInferenceService/ModelMetadata": oip.ModelMetadataRequest(name=NAME),
    "/inference.GRPCInferenceService/ModelReady": oip.ModelReadyRequest(name=NAME),
    "/inference.GRPCInferenceService/RepositoryModelLoad": oip.RepositoryModelLoadRequest(model_name=NAME),
    "/grpc.health.v1.Health/Check": oip.ModelReadyRequest(),
    "/nothing.Service/Nothing": oip.ModelReadyRequest(name="x"),
}
for _service in (*pb.DESCRIPTOR.services_by_name.values(), *oip.DESCRIPTOR.services_by_name.values()):
    for _method in _service.methods:
        TRUE.setdefault(f"/{_service.full_name}/{_method.name}", GetMessageClass(_method.input_type)())
FIELDS = {
    "/stream_app.v1.StreamModel/Predict": predict,
    "/stream_app.v1.StreamModel/PredictStream": predict,
    "/inference.GRPCInferenceService/ModelInfer": infer,
}
HTTP: dict[str, Any] = {
    "/v1/predict": {"rows": [{"features": {"distance": 1.0, "carrier": "UA"}, "time_s": 1.0}], "explain": "score"},
    f"/v2/models/{NAME}/infer": {
        "id": "a",
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, None]}],
    },
    "/v2/repository/index": {},
    "/v1/nothing": {},
}


def changed(rng: random.Random, data: bytes) -> bytes:
    """Some bytes flipped, cut out, doubled or put in."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(4):
            case 0 if at < len(found):
                found[at] = rng.randrange(256)
            case 1:
                del found[at : at + rng.randint(1, 8)]
            case 2:
                found[at:at] = found[at : at + rng.randint(1, 20)]
            case _:
                found[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(found)


# Asking -------------------------------------------------------------------------------------------


def ask_grpc(channel: grpc.Channel, method: str, request: bytes, **more: Any) -> str:
    try:
        if method.endswith("/PredictStream"):
            list(channel.stream_stream(method)(iter([request]), timeout=30, **more))
        elif method.endswith("/WatchModel"):
            watching = channel.unary_stream(method)(request, timeout=30, **more)
            next(watching)
            watching.cancel()
        else:
            channel.unary_unary(method)(request, timeout=30, **more)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def _http(asked: Asked, verb: str, path: str, body: bytes | None, headers: dict[str, str]) -> str:
    """Name of the status; of gRPC's, if the body says it."""
    connection = http.client.HTTPConnection(asked.http, timeout=30)
    try:
        connection.request(verb, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        if response.status == 200:
            return "OK"
        return (
            str(json.loads(text)["status"]) if text.startswith(b"{") and b'"status"' in text else f"{response.status}"
        )
    except (BrokenPipeError, ConnectionResetError):  # an answer before all was sent, as to 100 MB
        return "CLOSED"
    finally:
        connection.close()


def raw_http(asked: Asked, data: bytes) -> str:
    """What becomes of bytes that may be no HTTP at all: it is answered, or closed."""
    with socket.create_connection(asked.http.split(":"), timeout=5) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            said = connection.recv(100)
        except (ConnectionError, TimeoutError):
            return "CLOSED"
    found = re.match(rb"HTTP/1\.[01] (\d+)", said)
    return f"HTTP {found[1].decode()}" if found else "CLOSED"


def fuzz_grpc(asked: Asked, rng: random.Random, each: int) -> Counter[str]:
    statuses: Counter[str] = Counter()
    with grpc.insecure_channel(asked.grpc) as channel:
        for method, true in TRUE.items():
            data = true.SerializeToString() or b"\x0a\x01a"
            for _ in range(each):
                statuses[ask_grpc(channel, method, rng.randbytes(rng.randint(0, 200)))] += 1
                statuses[ask_grpc(channel, method, changed(rng, data))] += 1
                if method in FIELDS:
                    statuses[ask_grpc(channel, method, FIELDS[method](rng).SerializeToString())] += 1
    return statuses


def fuzz_http(asked: Asked, rng: random.Random, each: int) -> Counter[str]:
    statuses: Counter[str] = Counter()
    for path, true in HTTP.items():
        data = json.dumps(true).encode()
        for _ in range(each):
            headers = rng.choice(({}, {"Inference-Header-Content-Length": str(rng.choice((-1, 0, 10, 10**9)))}))
            verb = rng.choice(("POST", "POST", "POST", "GET", "PUT"))
            statuses[_http(asked, verb, path, changed(rng, data), dict(headers))] += 1
    true_request = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n" + b'{"rows":[{}]}'
    for _ in range(each):
        for data in (rng.randbytes(rng.randint(1, 300)), changed(rng, true_request)):
            said = raw_http(asked, data)
            statuses["HTTP 5xx" if said.startswith("HTTP 50") and said != "HTTP 501" else "no HTTP"] += 1
    return statuses


def huge(asked: Asked) -> dict[str, str]:
    """Far more than is taken, plain and packed."""
    method, zeros = "/stream_app.v1.StreamModel/Predict", bytes(HUGE_BYTES)
    packed = gzip.compress(zeros, 1)
    with grpc.insecure_channel(asked.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
        return {
            "grpc": ask_grpc(channel, method, zeros),
            "grpc gzip": ask_grpc(channel, method, zeros, compression=grpc.Compression.Gzip),
            "http": _http(asked, "POST", "/v1/predict", zeros, {}),
            "http gzip": _http(asked, "POST", "/v1/predict", packed, {"Content-Encoding": "gzip"}),
        }


def crowd(asked: Asked) -> None:
    """Connections that say nothing, or half of something, while others ask."""
    sockets = []
    for i in range(CONNECTIONS):
        address = (asked.grpc, asked.http)[i % 2]
        sockets.append(socket.create_connection(address.split(":"), timeout=30))
        if i % 3 == 0:
            sockets[-1].sendall(b"PRI * HTTP/2.0\r\n" if i % 2 == 0 else b"POST /v1/predict HTTP/1.1\r\nHost: local")
    right(asked)
    for connection in sockets:
        connection.close()


def stall(asked: Asked) -> None:
    """Readers of large answers and of streams that do not read, while others ask."""
    rows = json.dumps({"rows": [{}] * 4096}).encode()
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(rows)
    watch = b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sockets = []
    for i in range(STALLED):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.connect((asked.http.split(":")[0], int(asked.http.split(":")[1])))
        connection.sendall(watch if i % 2 else head + rows)
        sockets.append(connection)
    with grpc.insecure_channel(asked.grpc) as channel:
        streams = [channel.unary_stream("/stream_app.v1.StreamModel/WatchModel")(b"") for _ in range(STALLED)]
        right(asked)
        for stream in streams:
            stream.cancel()
    for connection in sockets:
        connection.close()


def right(asked: Asked) -> None:
    """Raises SystemExit: a true question does not get its answer."""
    with grpc.insecure_channel(asked.grpc) as channel:
        for method in FIELDS:
            if (status := ask_grpc(channel, method, TRUE[method].SerializeToString())) != "OK":
                raise SystemExit(f"{method} got {status}, wanted OK")
    body = json.dumps(HTTP["/v1/predict"]).encode()
    if (status := _http(asked, "POST", "/v1/predict", body, {})) != "OK":
        raise SystemExit(f"POST /v1/predict got {status}, wanted OK")


def memory_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return round(int(found[1]) / 1024, 1) if found else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=500, help="requests of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as asked:
        right(asked)
        before_mb = memory_mb(asked.pid)
        over_grpc, over_http = fuzz_grpc(asked, rng, args.each), fuzz_http(asked, rng, args.each)
        fuzzed_mb = memory_mb(asked.pid)
        too_much = huge(asked)
        huge_mb = memory_mb(asked.pid)
        crowd(asked)
        stall(asked)
        right(asked)
        after_mb = memory_mb(asked.pid)
        log = (Path(folder) / "server.log").read_text()
    wrong = {s: n for s, n in (over_grpc + over_http).items() if s not in ALLOWED | {"no HTTP"}}
    result = {
        "requests": sum((over_grpc + over_http).values()),
        "grpc": dict(over_grpc.most_common()),
        "http": dict(over_http.most_common()),
        "wrong": wrong,
        "huge": too_much,
        "connections": CONNECTIONS,
        "memory_mb": [before_mb, fuzzed_mb, huge_mb, after_mb],
        "tracebacks": log.count("Traceback"),
    }
    print(log[-3000:] if wrong or result["tracebacks"] else "")
    print(json.dumps(result))
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
