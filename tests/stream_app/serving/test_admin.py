"""People decide over the wire as they do by commands: on record, in their name, refused by what is wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from stream_app import operate
from stream_app.client import StreamModelClient
from stream_app.errors import OvertakenError
from stream_app.events import Decision, Topics
from stream_app.registry import Registry
from stream_app.replay import Reader
from stream_app.wire import stream_app_pb2 as pb
from stream_app.wire import stream_app_pb2_grpc as pb_grpc
from tests.stream_app.servers import number, serving
from tests.stream_app.versions import Writer, artefact, spec_of, until, writing


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry"))


@pytest.fixture
def writer(embedded: str, app_name: str, registry: Registry) -> Iterator[Writer]:
    with writing(embedded, spec_of(app_name), registry) as made:
        for score in (0.2, 0.3, 0.4):
            made.version(score)
        yield made


@pytest.fixture
def client(writer: Writer, embedded: str, app_name: str, registry: Registry) -> Iterator[StreamModelClient]:
    with serving(embedded, app_name, registry_url=registry.url) as made:
        until(lambda: number(made) == 3)
        yield made


@pytest.fixture
def stub(client: StreamModelClient) -> Iterator[Any]:
    with grpc.insecure_channel(client.targets[0]) as channel:
        yield pb_grpc.StreamModelStub(channel)


def refused(call: Any, request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=20)
    return caught.value.code().name, caught.value.details()


def decisions(bootstrap_servers: str, name: str) -> list[Decision]:
    reader, topic = Reader(bootstrap_servers), Topics.of(name).decisions
    records = reader.range(topic, 0, 0, reader.end(topic, 0))
    reader.close()
    return [msgspec.json.decode(r.value, type=Decision) for r in records]


def score(client: StreamModelClient) -> float:
    return round(client.predict([{}]).rows[0].scores["late"], 4)


def test_what_is_decided_over_the_wire_is_served_and_on_record(
    client: StreamModelClient, stub: Any, embedded: str, app_name: str
) -> None:
    stub.Pin(pb.PinRequest(version="1", reason="a look"))
    until(lambda: score(client) == 0.2)
    assert stub.GetModel(pb.GetModelRequest()).pinned
    stub.Unpin(pb.UnpinRequest(reason="seen"))
    until(lambda: score(client) == 0.4)
    head = stub.Rollback(pb.RollbackRequest(version="2", reason="wrong labels")).head
    until(lambda: number(client) == head.number)
    assert score(client) == 0.3
    assert (head.number, head.epoch) == (4, 1)
    found = decisions(embedded, app_name)
    assert [d.kind for d in found] == ["pinned", "unpinned", "rolled_back"]
    assert {d.evidence["by"] for d in found} == {"whoever may call without a token"}
    assert found[2].evidence["reason"] == "wrong labels"


def test_a_canary_answers_its_share_says_so_and_keeps_its_callers(client: StreamModelClient, stub: Any) -> None:
    stub.Canary(pb.CanaryRequest(version="1", percent=50.0, reason="better?"))
    until(lambda: stub.GetModel(pb.GetModelRequest()).HasField("trial"))
    seen: dict[str, set[tuple[str, int]]] = {}
    for n in range(120):
        answer = stub.Predict(pb.PredictRequest(rows=[pb.Row()], key=f"user {n % 40}"))
        seen.setdefault(f"user {n % 40}", set()).add((answer.role, answer.version))
    assert {len(said) for said in seen.values()} == {1}
    assert {one for said in seen.values() for one in said} == {("champion", 3), ("canary", 1)}
    trial = stub.GetModel(pb.GetModelRequest()).trial
    assert (trial.mode, trial.version.number, trial.percent) == ("canary", 1, 50.0)
    assert trial.rows == sum(3 for said in seen.values() if ("canary", 1) in said)
    stub.Withdraw(pb.WithdrawRequest(reason="enough"))
    until(lambda: not stub.GetModel(pb.GetModelRequest()).HasField("trial"))
    assert {stub.Predict(pb.PredictRequest(rows=[pb.Row()], key=key)).role for key in seen} == {"champion"}


def test_a_shadow_is_compared_and_never_answers(client: StreamModelClient, stub: Any) -> None:
    stub.Shadow(pb.ShadowRequest(version="1", reason="only to compare"))
    until(lambda: stub.GetModel(pb.GetModelRequest()).HasField("trial"))
    for _ in range(10):
        assert stub.Predict(pb.PredictRequest(rows=[pb.Row(), pb.Row()])).role == "champion"
    until(lambda: stub.GetModel(pb.GetModelRequest()).trial.rows == 20)
    trial = stub.GetModel(pb.GetModelRequest()).trial
    assert trial.mean_difference == pytest.approx(0.2, abs=1e-6)
    assert (trial.differing, trial.failed) == (0, 0)


def test_a_version_that_is_refused_raises_an_alarm_that_is_on_record(
    client: StreamModelClient, writer: Writer, stub: Any, embedded: str, app_name: str
) -> None:
    broken = writer.broken(0.5)
    until(lambda: stub.GetModel(pb.GetModelRequest()).alarm)
    assert f"refused {broken.id}: " in stub.GetModel(pb.GetModelRequest()).alarm
    assert score(client) == 0.4
    until(lambda: decisions(embedded, app_name))
    (decision,) = decisions(embedded, app_name)
    assert (decision.kind, decision.version, decision.evidence["name"]) == ("refused", 4, broken.id)
    writer.announce(artefact(writer.spec, 0.6))
    until(lambda: score(client) == 0.6)
    assert stub.GetModel(pb.GetModelRequest()).alarm == ""


def test_what_cannot_be_decided_is_refused_by_what_is_wrong(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pin, canary = pb.PinRequest, pb.CanaryRequest
    wanted = {
        ("INVALID_ARGUMENT", "reason is empty, wanted a text that goes on record"): (stub.Pin, pin(version="1")),
        ("INVALID_ARGUMENT", "percent is 101.0, wanted a number from 0 to 100"): (
            stub.Canary,
            canary(version="1", percent=101, reason="r"),
        ),
        ("INVALID_ARGUMENT", "key is 'user', wanted the name of a feature, or nothing"): (
            stub.Canary,
            canary(version="1", percent=1, key="user", reason="r"),
        ),
        ("FAILED_PRECONDITION", "no version is pinned, wanted one to unpin"): (stub.Unpin, pb.UnpinRequest(reason="r")),
    }
    for said, (call, request) in wanted.items():
        assert refused(call, request) == said
    assert refused(stub.Pin, pin(version="77", reason="r"))[0] == "NOT_FOUND"
    head = pb.RollbackRequest(version="3", reason="r")
    assert refused(stub.Rollback, head)[0] == "FAILED_PRECONDITION"

    def overtaken(*_: object, **__: object) -> None:
        raise OvertakenError("someone else came first")

    monkeypatch.setattr(operate.Operator, "pin", overtaken)
    assert refused(stub.Pin, pin(version="1", reason="r")) == ("ABORTED", "someone else came first")


def test_a_server_without_a_registry_decides_nothing(writer: Writer, embedded: str, app_name: str) -> None:
    with serving(embedded, app_name) as client, grpc.insecure_channel(client.targets[0]) as channel:
        until(lambda: number(client) == 3)
        said = refused(pb_grpc.StreamModelStub(channel).ListVersions, pb.ListVersionsRequest())
    assert said == ("FAILED_PRECONDITION", "this server has no registry, wanted one to find versions in")
