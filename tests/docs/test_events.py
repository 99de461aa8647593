"""The examples of docs/events.md are events, and its producer delivers."""

import re
from pathlib import Path

import numpy as np
import pytest
from kafka.admin import NewTopic

import stream_app.events
from models.spec import read_spec
from stream_app import kafka_clients
from stream_app.codecs.mixed import Codec
from stream_app.events import ContentType
from tests.stream_app.codecs.test_mixed import sent

ROOT = Path(stream_app.events.__file__).parents[1]
TEXT = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
CODEC = Codec(read_spec(ROOT / "examples" / "flights" / "model.toml"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_json() -> None:
    (lines,) = blocks("json")
    columns, bad = CODEC.decode([sent(i, line.encode()) for i, line in enumerate(lines.splitlines())])
    assert bad == []
    assert columns.ids == ["a1", "a1", "a2"]
    np.testing.assert_array_equal(columns.target, [np.nan, 1.0, 0.0])


@pytest.mark.parametrize(
    ("name", "kind", "ids"),
    [("protobuf_record", ContentType.PROTOBUF, ["a1"]), ("columnar_record", ContentType.BATCH, ["a1", "a2"])],
)
def test_records_made_by_hand(name: str, kind: str, ids: list[str]) -> None:
    (code,) = (block for block in blocks("python") if name in block)
    made: dict[str, bytes] = {}
    exec(code, made)
    columns, bad = CODEC.decode([sent(0, made[name], kind)])
    assert bad == []
    assert columns.ids == ids
    assert columns.numeric[0, 0] == 1400.0
    assert columns.lengths[0].tolist().count(-1) == 3  # of five, carrier and hour are given


def test_the_producer(embedded: str, app_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    admin = kafka_clients.admin(embedded)
    admin.create_topics([NewTopic(app_name, num_partitions=2, replication_factor=1)])
    admin.close()
    (code,) = (block for block in blocks("python") if "EventProducer" in block)
    exec(code.replace("127.0.0.1:9092", embedded).replace("flights.events", app_name), {})
    assert "acknowledged=10002, lost=0" in capsys.readouterr().out


def test_every_content_type_is_told() -> None:
    assert all(f"`{kind}`" in TEXT for kind in ContentType)
