"""A plain Faust agent that does nothing: the peer that bench.ingest measures beside ours, in a process of its own.

python -m bench._faust_noop BOOTSTRAP_SERVERS TOPIC RECORDS     prints records/s on its last line
"""

import os
import sys
import tempfile
import time
import uuid
from typing import Any

import faust

servers, topic_name, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])
app = faust.App(
    f"noop-{uuid.uuid4().hex[:8]}",
    broker=[f"kafka://{server}" for server in servers.split(",")],
    store="memory://",
    datadir=tempfile.mkdtemp(),
    web_enabled=False,
    topic_disable_leader=True,
    topic_allow_declare=False,
    consumer_auto_offset_reset="earliest",
    broker_session_timeout=6.0,
    broker_rebalance_timeout=10.0,
    broker_heartbeat_interval=1.0,
    stream_wait_empty=False,
)
topic = app.topic(topic_name, value_serializer="raw", key_serializer="raw", acks=False)


@app.agent(topic)
async def nothing(values: Any) -> None:
    count, started_s = 0, 0.0
    async for _ in values:
        if count == 0:
            started_s = time.perf_counter()
        count += 1
        if count == wanted:
            print(f"\n{(count - 1) / (time.perf_counter() - started_s)}", flush=True)
            os._exit(0)


faust.Worker(app, loglevel="ERROR", override_logging=False, quiet=True).execute_from_commandline()
