"""An ordinary Faust app that learns: events -> take() -> [counts in memory] -> a file, now and then.

    python -m faults.plain_app BOOTSTRAP_SERVERS APP_ID TOPIC FILE

What it has learned is saved once a second and loaded at the start; what it has read is committed by Faust's defaults.
Nothing ties the two together, as in any app that keeps a model beside Faust.
"""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import faust

SAVE_S = 1.0


def app(bootstrap_servers: str, app_id: str, topic_name: str, file: Path) -> faust.App:
    """The app; the group's times are the service's own, all else is default."""
    learned: Counter[str] = Counter(json.loads(file.read_text()) if file.exists() else {})
    made = faust.App(
        app_id,
        broker=f"kafka://{bootstrap_servers}",
        store="memory://",
        datadir=str(file.parent / "faust"),
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=6.0,
        broker_rebalance_timeout=10.0,
        broker_heartbeat_interval=1.0,
        web_enabled=False,
    )

    @made.agent(made.topic(topic_name, value_serializer="raw", key_serializer="raw"))
    async def learn(stream: Any) -> None:
        async for batch in stream.take(100, within=0.2):
            learned.update(said["id"] for value in batch if "label" in (said := json.loads(value)))

    @made.task  # type: ignore[untyped-decorator]
    async def save() -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            fresh = file.with_suffix(".new")
            fresh.write_text(json.dumps(learned))
            fresh.replace(file)

    return made


if __name__ == "__main__":
    servers, name, topic, path = sys.argv[1:]
    faust.Worker(app(servers, name, topic, Path(path)), loglevel="error").execute_from_commandline()
