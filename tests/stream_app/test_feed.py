"""A file of examples arrives as its lines say; a line that is none is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from kafka import TopicPartition
from kafka.admin import NewTopic

from stream_app import kafka_clients
from stream_app.__main__ import main
from stream_app.codecs.mixed import Codec
from stream_app.columns import Columns
from stream_app.errors import ExampleError, SettingsError
from stream_app.feed import Named, run
from tests.stream_app.codecs.test_jsons import spec_of

SPEC = spec_of()
CSV = """\
id,when,a,c,late,label_time,other
x,2013-01-01T10:00:00,1.5,UA,,,1
y,2013-01-01T10:00:00Z,,,0,1357034500,2
"z, too",1357034400,-2e3,"São, P",1,1357034600.5,3
"""


def test_a_csv_file_arrives_as_examples(bootstrap_servers: str, app_name: str, tmp_path: Path) -> None:
    columns = fed(bootstrap_servers, app_name, write(tmp_path, "x.csv", CSV), Named(time="when", label="late"))
    assert columns.ids == ["x", "y", "z, too"]
    assert columns.time_s.tolist() == [1357034400.0] * 3
    np.testing.assert_array_equal(columns.numeric[:, 0], [1.5, np.nan, -2000.0])
    assert columns.lengths[:, 0].tolist() == [2, -1, 7]
    np.testing.assert_array_equal(columns.target, [np.nan, 0.0, 1.0])
    np.testing.assert_array_equal(columns.label_time_s, [np.nan, 1357034500.0, 1357034600.5])


def test_json_lines_arrive_as_examples(embedded: str, app_name: str, tmp_path: Path) -> None:
    lines = [
        {"id": "x", "time": 1, "features": {"a": 1, "c": "UA"}, "unknown": [1]},
        {"id": "x", "label": 1, "label_time": 2, "weight": 0.5},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines)
    columns = fed(embedded, app_name, write(tmp_path, "x.jsonl", text), Named())
    assert columns.ids == ["x", "x"]
    assert columns.numeric[0, 0] == 1.0
    assert (columns.target[1], columns.weight[1]) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("x.csv", "a,b\n1,2\n", r"x.csv line 1: the columns are \['a', 'b'\], wanted one named 'id'"),
        ("x.csv", "id,time,a\nx,1,2\ny,1,far\n", "x.csv line 3: 'a' is 'far', wanted a number"),
        ("x.csv", "id,time\nx,noon\n", "x.csv line 2: 'time' is 'noon', wanted seconds since the epoch or ISO 8601"),
        ("x.csv", "id,label,label_time\nx,7,1\n", "x.csv line 2: 'label' is '7', wanted one of 0, 1"),
        ("x.csv", "id,time\nx\n", "x.csv line 2: 1 values, wanted 2"),
        ("x.jsonl", '{"id":"x","label":1,"label_time":1}\n{"id":', "x.jsonl line 2: Input data was truncated"),
        ("x.jsonl", '{"id":"x","label":1}', "x.jsonl line 1: example 'x': label_time_s is None"),
    ],
)
def test_a_line_that_is_no_example_is_named(
    embedded: str, app_name: str, tmp_path: Path, name: str, text: str, reason: str
) -> None:
    with pytest.raises(ExampleError, match=reason):
        fed(embedded, app_name, write(tmp_path, name, text), Named())


def test_neither_kind_of_file(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "x.txt", "wanted a name that ends with"), (tmp_path / "x.csv", "No such file")):
        with pytest.raises(SettingsError, match=reason):
            run(SPEC, bootstrap_servers="127.0.0.1:1", path=path, topic="t", named=Named())


def test_the_command_prints_one_object(
    embedded: str, app_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_topic(embedded, app_name)
    path = write(tmp_path, "x.csv", "id,time,distance\nx,1,5\n")
    flags = ("--spec", "examples/flights/model.toml", "--bootstrap-servers", embedded, "--topic", app_name)
    assert main(["produce", *flags, "--file", str(path)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["examples"] == 1


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def create_topic(bootstrap_servers: str, topic: str) -> None:
    admin = kafka_clients.admin(bootstrap_servers)
    admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    admin.close()


def fed(bootstrap_servers: str, topic: str, path: Path, named: Named) -> Columns:
    """What arrives of a file."""
    create_topic(bootstrap_servers, topic)
    run(SPEC, bootstrap_servers=bootstrap_servers, path=path, topic=topic, named=named)
    consumer = kafka_clients.consumer(bootstrap_servers, consumer_timeout_ms=1_000)
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    columns, bad = Codec(SPEC).decode(list(consumer))
    consumer.close()
    assert bad == []
    return columns
