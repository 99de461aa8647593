"""TLS, mTLS and tokens on a real server, over gRPC and HTTP alike."""

import asyncio
import hashlib
import ssl
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stream_app.errors import SettingsError
from stream_app.events import Topics
from stream_app.serve import serve
from stream_app.serving.security import Security
from stream_app.wire import open_inference_pb2 as oip
from stream_app.wire import open_inference_pb2_grpc as oip_grpc
from stream_app.wire import stream_app_pb2 as pb
from stream_app.wire import stream_app_pb2_grpc as pb_grpc
from tests.stream_app.servers import serving
from tests.stream_app.serving.certificates import Files, issue
from tests.stream_app.serving.http import Said, ask
from tests.stream_app.versions import spec_of, until, writing


def entry(name: str, permissions: str, more: str = "") -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f'[[tokens]]\nname = "{name}"\nsha256 = "{digest}"\npermissions = {permissions}\n{more}\n'


TOKENS = (
    entry("reader", '["predict"]')
    + entry("former", '["predict"]', "expires = 2020-01-01T00:00:00Z")
    + entry("teller", '["feedback"]')
    + entry("operator", '["predict", "feedback", "admin"]')
)
CALLERS = {
    None: "UNAUTHENTICATED",
    "nobody": "UNAUTHENTICATED",
    "former": "UNAUTHENTICATED",
    "teller": "PERMISSION_DENIED",
    "reader": "OK",
    "operator": "OK",
}
"""Token -> what becomes of a call that needs predict."""


class Server:
    """Where it answers, and how to ask."""

    def __init__(self, target: str, address: str, files: Files, caller: Files | None) -> None:
        self.target, self.address, self.files, self.caller = target, address, files, caller

    def channel(self, *, certified: bool = True) -> grpc.Channel:
        key, chain = None, None
        if self.caller and certified:
            key, chain = self.caller.key.read_bytes(), self.caller.chain.read_bytes()
        credentials = grpc.ssl_channel_credentials(self.files.ca.read_bytes(), key, chain)
        port = self.target.rpartition(":")[2]
        return grpc.secure_channel(f"localhost:{port}", credentials)

    def ask(self, path: str, token: str | None = None, body: object = None, *, certified: bool = True) -> Said:
        context = ssl.create_default_context(cafile=self.files.ca)
        if self.caller and certified:
            context.load_cert_chain(self.caller.chain, self.caller.key)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return ask(f"localhost:{self.address.rpartition(':')[2]}", path, body, headers=headers, tls=context)


def metadata(token: str | None) -> list[tuple[str, str]]:
    return [] if token is None else [("authorization", f"Bearer {token}")]


def status(call: Any, request: Any, token: str | None = None) -> str:
    """What becomes of a call; of a stream, of its first answer."""
    try:
        answer = call(request, metadata=metadata(token), timeout=20)
        if isinstance(answer, grpc.Call):
            next(iter(answer))
            answer.cancel()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", params=["tls", "mtls"])
def server(
    request: pytest.FixtureRequest, embedded_broker: Any, ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("secured")
    (folder / "tokens.toml").write_text(TOKENS)
    files, name = issue(ca, folder), f"secured-{request.param}"
    caller = None
    if request.param == "mtls":
        (folder / "caller").mkdir()
        caller = issue(ca, folder / "caller", "caller@example.com")
    security = Security(
        tokens=str(folder / "tokens.toml"),
        certificate=str(files.chain),
        key=str(files.key),
        client_ca=str(files.ca) if caller else None,
    )
    ports: list[int] = []
    with (
        writing(embedded_broker.bootstrap_servers, spec_of(name)) as writer,
        serving(
            embedded_broker.bootstrap_servers,
            name,
            security=security,
            rest="127.0.0.1:0",
            rest_ready=ports.append,
            reflect=True,
        ) as client,
    ):
        writer.version(0.75)
        made = Server(client.targets[0], f"127.0.0.1:{ports[0]}", files, caller)
        until(lambda: made.ask("/v2/health/ready").status == 200)
        yield made


@pytest.mark.parametrize(("token", "wanted"), CALLERS.items())
def test_who_may_ask(server: Server, token: str | None, wanted: str) -> None:
    with server.channel() as channel:
        ours, theirs = pb_grpc.StreamModelStub(channel), oip_grpc.GRPCInferenceServiceStub(channel)
        for call, request in (
            (ours.Predict, pb.PredictRequest(rows=[pb.Row()])),
            (ours.GetModel, pb.GetModelRequest()),
            (ours.WatchModel, pb.WatchModelRequest()),
            (theirs.ModelMetadata, oip.ModelMetadataRequest(name=f"secured-{'mtls' if server.caller else 'tls'}")),
        ):
            assert status(call, request, token) == wanted
    said = server.ask("/v1/predict", token, {"rows": [{}]})
    http = {"OK": 200, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}
    assert said.status == http[wanted]
    assert wanted == "OK" or said.name == wanted
    assert (said.headers["WWW-Authenticate"] == "Bearer") == (wanted == "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("token", "wanted"),
    [(None, "UNAUTHENTICATED"), ("reader", "PERMISSION_DENIED"), ("operator", "FAILED_PRECONDITION")],
)
def test_who_may_change_things(server: Server, token: str | None, wanted: str) -> None:
    with server.channel() as channel:
        load = oip_grpc.GRPCInferenceServiceStub(channel).RepositoryModelLoad
        assert status(load, oip.RepositoryModelLoadRequest(), token) == wanted


def test_health_and_documents_need_no_token(server: Server) -> None:
    with server.channel() as channel:
        stub, theirs = health_pb2_grpc.HealthStub(channel), oip_grpc.GRPCInferenceServiceStub(channel)
        assert status(stub.Check, health_pb2.HealthCheckRequest()) == "OK"
        assert status(stub.Watch, health_pb2.HealthCheckRequest()) == "OK"
        assert status(theirs.ServerReady, oip.ServerReadyRequest()) == "OK"
    for path in ("/v2/health/live", "/docs", "/openapi.json"):
        assert server.ask(path).status == 200


@pytest.mark.parametrize("server", ["mtls"], indirect=True)
def test_without_a_certificate_nobody_gets_in_where_one_is_wanted(server: Server) -> None:
    with server.channel(certified=False) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert status(stub.Check, health_pb2.HealthCheckRequest()) == "UNAVAILABLE"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        server.ask("/v2/health/live", certified=False)


def test_without_tls_nobody_gets_in(server: Server) -> None:
    with grpc.insecure_channel(server.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert status(stub.Check, health_pb2.HealthCheckRequest()) == "UNAVAILABLE"
    with pytest.raises((ConnectionError, OSError)):
        ask(server.address, "/v2/health/live")


def test_a_token_that_is_taken_back_ends_its_streams(
    embedded: str, app_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.serving.tokens.LOOK_EVERY_S", 0.0)
    file, ports = tmp_path / "tokens.toml", list[int]()
    file.write_text(TOKENS)
    security = Security(tokens=str(file))
    with (
        writing(embedded, spec_of(app_name)) as writer,
        serving(embedded, app_name, security=security, rest="127.0.0.1:0", rest_ready=ports.append) as client,
        grpc.insecure_channel(client.targets[0]) as channel,
        closing(HTTPConnection(f"127.0.0.1:{ports[0]}", timeout=20)) as connection,
    ):
        writer.version(0.3)
        watch = pb_grpc.StreamModelStub(channel).WatchModel
        changes = watch(pb.WatchModelRequest(), metadata=metadata("reader"), wait_for_ready=True, timeout=20)
        assert next(changes).version.number == 1
        connection.request("GET", "/v1/watch", headers={"Authorization": "Bearer reader"})
        lines = connection.getresponse()
        assert b'"number":1,' in lines.readline()
        file.write_text(entry("operator", '["predict"]'))
        writer.version(0.4)
        with pytest.raises(grpc.RpcError, match="the token is unknown"):
            next(changes)
        assert b'"status":"UNAUTHENTICATED"' in lines.readline()


def test_a_renewed_certificate_is_shown(
    embedded: str, app_name: str, ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.serve.FRESH_S", 0.02)
    files, ports = issue(ca, tmp_path), list[int]()
    security = Security(certificate=str(files.chain), key=str(files.key))

    def shown(port: int | str) -> str:
        return ssl.get_server_certificate(("127.0.0.1", int(port)), timeout=20)

    with serving(embedded, app_name, security=security, rest="127.0.0.1:0", rest_ready=ports.append) as client:
        both = (ports[0], client.targets[0].rpartition(":")[2])
        before = [shown(port) for port in both]
        assert before[0] == before[1]
        issue(ca, tmp_path)
        until(lambda: all(shown(port) != old for port, old in zip(both, before, strict=True)))


def test_servers_share_their_ports(embedded: str, app_name: str) -> None:
    ports: list[int] = []
    shared: dict[str, Any] = {"share_port": True, "rest_ready": ports.append}
    with serving(embedded, app_name, rest="127.0.0.1:0", **shared) as first:
        second = serving(embedded, app_name, listen=first.targets[0], rest=f"127.0.0.1:{ports[0]}", **shared)
        with second as client:
            assert client.targets[0] == first.targets[0]
            assert ports[0] == ports[1]


def test_elsewhere_than_on_loopback_only_predictions_are_free(embedded: str, app_name: str) -> None:
    ports: list[int] = []
    with (
        writing(embedded, spec_of(app_name)) as writer,
        serving(embedded, app_name, listen="0.0.0.0:0", rest="0.0.0.0:0", rest_ready=ports.append) as client,
    ):
        writer.version(0.75)
        until(lambda: ask(f"127.0.0.1:{ports[0]}", "/v2/health/ready").status == 200)
        assert ask(f"127.0.0.1:{ports[0]}", "/v1/predict", {"rows": [{}]}, headers={"Host": "a.example"}).status == 200
        with grpc.insecure_channel(client.targets[0]) as channel:
            theirs = oip_grpc.GRPCInferenceServiceStub(channel)
            assert status(theirs.ServerMetadata, oip.ServerMetadataRequest()) == "OK"
            assert status(theirs.RepositoryModelLoad, oip.RepositoryModelLoadRequest()) == "PERMISSION_DENIED"


def test_a_wrong_file_is_refused_before_anything_listens(tmp_path: Path) -> None:
    for security in (Security(tokens=str(tmp_path / "none")), Security(certificate=str(tmp_path / "none"))):
        with pytest.raises(SettingsError, match=r"none|both"):
            asyncio.run(
                serve(bootstrap_servers="127.0.0.1:1", topics=Topics.of("m"), registry_url=None, security=security)
            )
