"""Dead letters are listed once each, and go back once, whoever asks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_app import kafka_clients
from stream_app.__main__ import main
from stream_app.errors import LetterError
from stream_app.events import KEEP_LETTER_BYTES, DeadLetter, Decision
from stream_app.letters import LETTER_HEADER, Choice, Letter, Letters, by_reason
from stream_app.topics import topic_ids
from tests import streams
from tests.line import Line

BAD = b'{"id": "b1", "key": "k", "time": 1000000, "features": {"a": "high"}, "label": 1, "label_time": 1000001}'
GOOD = BAD.replace(b'"high"', b"1.5")
NO_NUMBER = "event 'b1': 'a' is 'high', wanted a number"


class Mail:
    """One model's topics, with letters as a worker writes them."""

    def __init__(self, line: Line) -> None:
        self.line, self.topics, self.servers = line, line.topics, line.bootstrap_servers
        self.events_id = topic_ids(self.servers, [self.topics.events])[self.topics.events]

    def event(self, value: bytes, **headers: str) -> int:
        producer = kafka_clients.producer(self.servers)
        sent = producer.send(
            self.topics.events, value, b"k", headers=[(n, v.encode()) for n, v in headers.items()], partition=0
        )
        producer.flush(timeout=10)
        offset = int(sent.get(timeout=10).offset)
        producer.close(timeout=5)
        return offset

    def letter(self, offset: int, reason: str = NO_NUMBER, value: bytes = BAD, **more: Any) -> None:
        fields = {"topic": self.topics.events, "topic_id": self.events_id, "partition": 0, "offset": offset}
        said = DeadLetter(**fields | {"reason": reason, "value": value} | more)
        streams.produce_raw(self.servers, self.topics.dead_letters, 0, [msgspec.json.encode(said)])

    def read(self, topic: str) -> list[Any]:
        return self.line.reader.range(topic, 0, 0, self.line.reader.end(topic, 0))

    def decisions(self) -> list[Decision]:
        return [msgspec.json.decode(r.value, type=Decision) for r in self.read(self.topics.decisions)]

    def letters(self, by: str = "ann") -> Letters:
        return Letters(self.servers, self.topics, by=by, clock=lambda: 7.0)


@pytest.fixture
def mail(bootstrap_servers: str, app_name: str, tmp_path: Path) -> Iterator[Mail]:
    line = Line(bootstrap_servers, streams.spec(app_name), tmp_path)
    yield Mail(line)
    line.close()


@pytest.fixture
def one(embedded: str, app_name: str, tmp_path: Path) -> Iterator[Mail]:
    """On the embedded broker only."""
    line = Line(embedded, streams.spec(app_name), tmp_path)
    yield Mail(line)
    line.close()


def letter(offset: int = 0, at_s: float = 0.0, **more: Any) -> Letter:
    fields = {"topic": "t", "partition": 0, "offset": offset, "reason": NO_NUMBER, "value": b""}
    return Letter(said=DeadLetter(**fields | more), at_s=at_s)


def test_reasons_are_counted_without_what_they_quote() -> None:
    reasons = [NO_NUMBER, NO_NUMBER.replace("b1", "it's").replace("'it's'", '"it\'s"'), "the record has 17 bytes"]
    assert by_reason(letter(reason=r) for r in reasons) == [
        ("event …: … is …, wanted a number", 2),
        ("the record has … bytes", 1),
    ]


def test_a_choice_holds_in_all_its_parts() -> None:
    found = [letter(0, 5.0), letter(1, 9.0, partition=1), letter(2, 9.0, reason="Torn"), letter(3, 9.0, topic="u")]

    def offsets(**parts: Any) -> list[int]:
        return [x.said.offset for x in found if Choice(**parts).takes(x)]

    assert offsets() == [0, 1, 2, 3]
    assert offsets(since_s=9.0) == [1, 2, 3]
    assert offsets(since_s=9.0, partition=0, topic="t") == [2]
    assert offsets(reason="torn") == [2]
    assert offsets(keys=frozenset({"t/1/1", "u/0/3"})) == [1, 3]


def test_a_letter_goes_back_as_it_came_and_only_once(mail: Mail) -> None:
    at = mail.event(BAD, **{"content-type": "application/json", "trace": "x"})
    for _ in range(2):  # as after a crash
        mail.letter(at)
    ann, ben = mail.letters("ann"), mail.letters("ben")
    (found,) = ann.found()
    assert found.key == f"{mail.topics.events}/0/{at}"
    assert ann.redrive([ann.parcel(found)]) == [(found, at + 1)]
    record = mail.read(mail.topics.events)[-1]
    assert (record.value, record.key, record.partition) == (BAD, b"k", 0)
    assert dict(record.headers) == {
        "content-type": b"application/json",
        "trace": b"x",
        LETTER_HEADER: found.key.encode(),
    }
    assert [(d.kind, d.evidence["letter"], d.evidence.get("sent_to")) for d in mail.decisions()] == [
        ("redriving", found.key, None),
        ("redriven", found.key, at + 1),
    ]
    (seen,) = ben.found()
    with pytest.raises(LetterError, match=rf"was sent again at .* by ann, as offset {at + 1}; --again sends it"):
        ben.redrive([ben.parcel(seen)])
    # Looked before ann sent: the order of the decisions decides.
    with pytest.raises(LetterError, match=r"by someone else: .* by ann; the other 0 are sent"):
        ben.redrive([ben.parcel(found)])
    assert len(mail.read(mail.topics.events)) == 2
    assert ben.redrive([ben.parcel(seen)], again=True) == [(seen, at + 2)]
    ann.close()
    ben.close()


def test_a_letter_whose_sender_died_is_not_sent_on_without_being_asked(one: Mail) -> None:
    at = one.event(BAD)
    one.letter(at)
    evidence = {"letter": "x", "topic_id": one.events_id, "partition": 0, "offset": at, "row": None, "by": "ann"}
    claim = Decision(kind="redriving", at_s=7.0, version=1, evidence=evidence)
    streams.produce_raw(one.servers, one.topics.decisions, 0, [b"no decision", msgspec.json.encode(claim)])
    letters = one.letters()
    (found,) = letters.found()
    with pytest.raises(LetterError, match=r"ann began to send it again at .*; whether it arrived is not on record"):
        letters.redrive([letters.parcel(found)])
    assert letters.redrive([letters.parcel(found)], again=True) == [(found, at + 1)]
    letters.close()


def test_what_is_not_whole_any_more_is_not_sent(one: Mail) -> None:
    at = one.event(b"whatever")
    one.letter(at, value=b"x" * KEEP_LETTER_BYTES)
    one.letter(at, value=b"x" * KEEP_LETTER_BYTES, row=3)
    one.letter(at, value=BAD, row=4)
    one.letter(at, topic_id="an older topic")
    letters = one.letters()
    whole, cut, row, gone = letters.found()
    assert letters.parcel(whole).value == b"whatever"  # the log still has all of it
    with pytest.raises(
        LetterError, match="only the first 65536 bytes of the row were kept, which cannot be sent again"
    ):
        letters.parcel(cut)
    assert letters.parcel(cut, GOOD).value == GOOD
    parcel = letters.parcel(row)
    assert (parcel.value, parcel.key, parcel.headers[0]) == (BAD, None, ("content-type", b"application/json"))
    with pytest.raises(LetterError, match="its record is no longer on the events topic, wanted a value"):
        letters.parcel(gone)
    letters.close()


def test_a_repaired_letter_is_learned(one: Mail, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec_file, value = tmp_path / "model.toml", tmp_path / "value"
    spec_file.write_text(streams.spec_text(one.line.spec.name))
    value.write_bytes(GOOD)
    one.letter(one.event(BAD))
    flags = ["--spec", str(spec_file), "--bootstrap-servers", one.servers, "--log-level", "error"]

    def said(*more: str, code: int = 0) -> str:
        assert main(["dead-letters", *flags, *more]) == code
        captured = capsys.readouterr()
        return captured.out + captured.err

    key = f"{one.topics.events}/0/0"
    assert NO_NUMBER in said()
    assert said("--counts").split("\n")[0] == "       1  event …: … is …, wanted a number"
    assert json.loads(said("--json"))["letter"] == key
    assert said("--since", "2020-01-01", "--reason", "torn", "--json") == ""
    repaired = ("--letter", key, "--value", str(value), "--redrive")
    assert f"would send {key}: repaired, {len(GOOD)} bytes to partition 0" in said(*repaired, "--dry-run")
    assert len(one.read(one.topics.events)) == 1
    assert said(*repaired) == f"{key} is sent again, as offset 1 of partition 0\n1 letters were sent again, 0 not\n"
    assert "not sent: letter" in said(*repaired, code=2)
    assert "sent again by" in said()

    seeded = one.line.seeder().seed()
    one.line.learn(seeded)
    assert (seeded.core.counts["dead_letters"], seeded.core.counts["learned"]) == (1, 1)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (("--value", "f"), "wanted --redrive beside them"),
        (("--letter", "t/0/9"), "there is no letter t/0/9 among those asked for"),
        (("--redrive", "--value", "f"), "--value repairs one letter, got 0"),
    ],
)
def test_wrong_flags_are_named(
    flags: tuple[str, ...], wanted: str, one: Mail, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.toml").write_text(streams.spec_text(one.line.spec.name))
    shared = ["--spec", str(tmp_path / "model.toml"), "--bootstrap-servers", one.servers]
    assert main(["dead-letters", *shared, *flags]) == 2
    assert wanted in capsys.readouterr().err


def test_a_time_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    shared = ["--spec", "examples/flights/model.toml", "--bootstrap-servers", "127.0.0.1:9092"]
    with pytest.raises(SystemExit, match="2"):
        main(["dead-letters", *shared, "--since", "yesterday"])
    assert "--since: got 'yesterday', wanted 90s, 15m, 2h, 7d or a time" in capsys.readouterr().err
