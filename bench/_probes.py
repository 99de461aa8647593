"""A steady load, and probes amid it: flights as bytes -> [one batch every SLOT_S] -> events topic. A process.

    python -m bench._probes BOOTSTRAP_SERVERS TOPIC RECORDS_PER_S SECONDS PROBES

With 0 records a second there are only probes: flights whose features and label come in one record, sent one by one
through another connection. The last line is JSON: how many records a second went out, and each probe's time before it
was sent (the system's monotonic clock, seconds) and offset.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence

import aiokafka
import msgspec

from examples.flights.data import FeaturesRecord, Flight, load, stream

SLOT_S = 0.01
YEAR_S = 365 * 86_400
FLIGHTS = 336_776


def values(flights: Sequence[Flight], count: int) -> Iterator[bytes]:
    """The flights' records, year after year of them, until there are ``count``."""
    encode, replace = msgspec.json.Encoder().encode, msgspec.structs.replace
    for year in range(count):
        for record in stream(flights):
            if count == 0:
                return
            count -= 1
            id_, later_s = f"{record.id}+{year}", year * YEAR_S
            if isinstance(record, FeaturesRecord):
                yield encode(replace(record, id=id_, time=record.time + later_s))
            else:
                yield encode(replace(record, id=id_, label_time=record.label_time + later_s))


def probe(number: int, like: bytes) -> bytes:
    """The features, or the label, of ``like`` with the other beside them, at its time."""
    record = msgspec.json.decode(like)
    at_s = record.get("time", record.get("label_time"))
    features = record.get("features", {"carrier": "UA"})
    return msgspec.json.encode(
        {"id": f"probe-{number}", "time": at_s, "features": features, "label": number % 2, "label_time": at_s}
    )


async def load_(producer: aiokafka.AIOKafkaProducer, topic: str, records: Sequence[bytes], per_s: float) -> float:
    """Send all at an even pace; how many records a second that was."""
    started_s, sent, acks = time.monotonic(), 0, set[asyncio.Future[object]]()
    while sent < len(records):
        due = min(len(records), int((time.monotonic() - started_s) * per_s))
        batch = producer.create_batch()
        while sent < due and batch.append(timestamp=None, key=None, value=records[sent]) is not None:
            sent += 1
        if batch.record_count():
            acks.add(await producer.send_batch(batch, topic, partition=0))
        acks = {ack for ack in acks if not ack.done()}
        if sent >= due:
            await asyncio.sleep(SLOT_S)
    await asyncio.gather(*acks)
    return sent / (time.monotonic() - started_s)


async def probes(
    producer: aiokafka.AIOKafkaProducer, topic: str, records: Sequence[bytes], count: int, every_s: float
) -> list[tuple[float, int]]:
    """Send probes at an even pace, each as of the record that the load sends at that moment."""
    found, started_s = [], time.monotonic()
    for i in range(count):
        # Not a multiple of what else happens regularly.
        await asyncio.sleep(max(0.0, started_s + (i + (i * 0.618) % 1.0) * every_s - time.monotonic()))
        value = probe(i, records[len(records) * i // count])
        sent_s = time.monotonic()
        ack = await producer.send_and_wait(topic, value, partition=0)
        found.append((sent_s, int(ack.offset)))
    return found


async def run(servers: str, topic: str, per_s: float, seconds: float, count: int) -> None:
    flights = load()
    records = [*values(flights, max(1000, int(per_s * seconds)))]
    clients = [
        aiokafka.AIOKafkaProducer(bootstrap_servers=servers, linger_ms=0, max_batch_size=1 << 20, compression_type=kind)
        for kind in ("lz4", None)
    ]
    for client in clients:
        await client.start()
    print("begun", flush=True)
    probing = asyncio.create_task(probes(clients[1], topic, records, count, seconds / count))
    sent_per_s = await load_(clients[0], topic, records, per_s) if per_s else 0.0
    found = await probing
    for client in clients:
        await client.stop()
    print(json.dumps({"sent_per_s": sent_per_s, "probes": found}))


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:5]), int(sys.argv[5])))
