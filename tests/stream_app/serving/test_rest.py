"""Both services over HTTP: the same answers and the same statuses as over gRPC."""

import asyncio
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest

from stream_app.modellog import Envelope
from stream_app.serving import messages
from stream_app.serving.counts import Counts
from stream_app.serving.limits import Limits, Room
from stream_app.serving.rest import STATUSES, Rest
from stream_app.serving.routes import LARGE_BYTES, Reply, Route, Sent
from stream_app.serving.security import Guard
from tests.stream_app.servers import number, serving
from tests.stream_app.serving.http import ask
from tests.stream_app.versions import Writer, artefact, looking, spec_of, until, writing

LIMITS = Limits(notice_s=0.0, grace_s=1.0, message_bytes=100_000, transfer_s=1.0, calls=2)
MATRIX = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [2, 5, 3, None]}


class Server:
    def __init__(self, client: Any, writer: Writer, address: str) -> None:
        self.client, self.writer, self.address = client, writer, address

    def ask(self, path: str, body: object = None, **more: Any) -> Any:
        return ask(self.address, path, body, **more)


@contextmanager
def served(bootstrap_servers: str, name: str, **settings: Any) -> Iterator[Server]:
    ports: list[int] = []
    with (
        writing(bootstrap_servers, spec_of(name)) as writer,
        serving(
            bootstrap_servers, name, limits=LIMITS, rest="127.0.0.1:0", rest_ready=ports.append, **settings
        ) as client,
    ):
        yield Server(client, writer, f"127.0.0.1:{ports[0]}")


@pytest.fixture(scope="module")
def server(embedded_broker: Any) -> Iterator[Server]:
    with served(embedded_broker.bootstrap_servers, "rest") as made:
        made.writer.announce(artefact(made.writer.spec, graph=looking(made.writer.spec)))
        until(lambda: number(made.client) == 1)
        yield made


# Our own service ----------------------------------------------------------------------------------


def test_it_predicts_what_grpc_predicts(server: Server) -> None:
    features = {"distance": 2, "hour": None, "carrier": "UA"}
    said = server.ask("/v1/predict", {"rows": [{"features": features, "time_s": 1.7e9}, {}]})
    assert said.status == 200
    assert said.headers["Content-Type"] == "application/json"
    answer = server.client.predict([features, {}], [1.7e9, None])
    for row, prediction in zip(said.json["predictions"], answer.rows, strict=True):
        assert row["scores"] == pytest.approx(prediction.scores)
        assert row["label"] == prediction.label
    assert said.json["version_id"] == answer.version.id


def test_large_requests_are_read_beside_the_others(server: Server) -> None:
    rows = [{"features": {"distance": float(i % 3), "carrier": "UA"}} for i in range(1500)]
    assert len(json.dumps(rows)) > LARGE_BYTES
    said = server.ask("/v1/predict", {"rows": rows}).json["predictions"]
    assert [p["scores"] for p in said[:3]] * 500 == [p["scores"] for p in said]
    wrong = server.ask("/v1/predict", {"rows": [*rows, {"features": {"distance": []}}]})
    assert (wrong.status, "rows[1500].features.distance" in wrong.json["error"]) == (400, True)


def test_it_explains(server: Server) -> None:
    row = {"features": {"distance": 2.0}}
    said = server.ask("/v1/predict", {"rows": [row], "explain": "log_odds"}).json["predictions"][0]["explanation"]
    first = said["attributions"][0]
    assert (first["name"], first["value"], first["contribution"]) == ("distance", 2.0, pytest.approx(1.0, abs=1e-5))


def test_the_model(server: Server) -> None:
    said = server.ask("/v1/model").json
    assert (said["model"], said["classes"], said["version"]["number"]) == ("rest", ["on time", "late"], 1)
    assert said["offsets"] == {"0": 40}


def test_watching_is_a_line_per_version(embedded: str, app_name: str) -> None:
    with served(embedded, app_name) as server, socket.create_connection(server.address.split(":")) as connection:
        connection.sendall(b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stream = connection.makefile("rb")
        server.writer.version(0.3)
        assert b" 200 " in stream.readline()
        while (line := stream.readline()) != b"\r\n":
            assert line
        for wanted in (1, 2):
            size = int(stream.readline(), 16)
            assert json.loads(stream.read(size))["version"]["number"] == wanted
            stream.readline()
            server.writer.version(0.4)


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/predict", {"rows": []}, 400, "rows is empty, wanted at least one row"),
        ("/v1/predict", b"", 400, "rows is empty, wanted at least one row"),
        ("/v1/predict", {"rows": [{"features": {"distence": 1}}]}, 400, "did you mean 'distance'?"),
        ("/v1/predict", b"{", 400, "the body is no JSON: Input data was truncated"),
        ("/v1/predict", b"\xff", 400, "the body is no JSON"),
        ("/v1/predict", b"[" * 50_000, 400, "the body is no JSON"),
        ("/v1/predict", b'{"rows":[{"features":{"distance":NaN}}]}', 400, "the body is no JSON"),
        ("/v1/predict", b'{"rows":[{"features":{"distance":1e999}}]}', 400, "the body is no JSON: Number out of range"),
        ("/v1/predict", b"x" * 100_001, 413, "the request has more than 100000 bytes, which is the limit"),
        ("/v1/nothing", None, 404, "GET /v1/nothing: Not Found"),
        ("/v1/model", {}, 405, "POST /v1/model: Method Not Allowed"),
        ("/v2/models/nothing", None, 404, "there is no model 'nothing', wanted 'rest'"),
        ("/v2/models/rest/versions/9", None, 404, "version '9' of 'rest' is not live, wanted 1 or none"),
        ("/v2/models/rest/infer", {}, 400, "missing required field `inputs`"),
        ("/v2/models/rest/infer", {"inputs": []}, 400, "inputs is empty, wanted at least one tensor"),
        ("/v2/models/rest/infer", {"inputs": [{**MATRIX, "shape": ["x"]}]}, 400, "$.inputs[0].shape[0]"),
        ("/v2/models/rest/infer", {"inputs": [{**MATRIX, "data": [1]}]}, 400, "has 1 elements, wanted 4"),
        ("/v2/models/rest/infer", {"inputs": [{**MATRIX, "data": None}]}, 400, "data is no list"),
    ],
)
def test_what_cannot_be_answered(server: Server, path: str, body: object, status: int, text: str) -> None:
    said = server.ask(path, body)
    assert (said.status, text in said.json["error"]) == (status, True), said
    assert said.headers["Content-Type"] == "application/json"
    names = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 405: "UNIMPLEMENTED", 413: "RESOURCE_EXHAUSTED"}
    assert said.name == names[status]


def test_every_status_of_grpc_is_one_of_http() -> None:
    grpc = pytest.importorskip("grpc")
    unknown = {s.name for s in grpc.StatusCode} - {"OK"} - STATUSES.keys()
    assert unknown == {"UNKNOWN", "INTERNAL", "DATA_LOSS"}  # 500


def test_before_the_first_version(embedded: str, app_name: str) -> None:
    with served(embedded, app_name) as server:
        for path in ("/v1/model", f"/v2/models/{app_name}"):
            said = server.ask(path)
            assert (said.status, said.name) == (503, "UNAVAILABLE")
        assert server.ask("/v2/health/live").status == 200
        for path in ("/v2/health/ready", f"/v2/models/{app_name}/ready"):
            said = server.ask(path)
            assert (said.status, said.json) == (503, {"ready": False})
        assert server.ask("/v2/repository/index", b"").json == []


# The Open Inference Protocol ----------------------------------------------------------------------


def test_what_it_serves(server: Server) -> None:
    assert server.ask("/v2/health/live").json == {"live": True}
    assert server.ask("/v2/health/ready").json == {"ready": True}
    assert server.ask("/v2").json["name"] == "stream-app"
    assert server.ask("/v2/repository/index", b"").json[0]["state"] == "READY"
    for path in ("/v2/models/rest", "/v2/models/rest/versions/1"):
        assert server.ask(path).json["inputs"][0] == {"name": "distance", "datatype": "FP32", "shape": [-1, 1]}
        assert server.ask(f"{path}/ready").json == {"ready": True}
    assert server.ask("/v2/models/rest/versions/2/ready").status == 503


def test_it_infers(server: Server) -> None:
    row = server.client.predict([{"distance": 2, "hour": 5, "carrier": 3}]).rows[0]
    for path in ("/v2/models/rest/infer", "/v2/models/rest/versions/1/infer"):
        said = server.ask(path, {"id": "x7", "inputs": [MATRIX]}).json
        assert (said["id"], said["model_name"], said["model_version"]) == ("x7", "rest", "1")
        scores, label = said["outputs"]
        assert scores["data"] == pytest.approx([row.scores["on time"], row.scores["late"]])
        assert (label["name"], label["datatype"], label["data"]) == ("label", "BYTES", ["late"])


def test_named_inputs_and_outputs(server: Server) -> None:
    inputs = [
        {"name": "distance", "datatype": "FP64", "shape": [2, 1], "data": [[2.0], [None]]},
        {"name": "carrier", "datatype": "BYTES", "shape": [2], "data": ["UA", None]},
    ]
    said = server.ask("/v2/models/rest/infer", {"inputs": inputs, "outputs": [{"name": "scores"}]}).json
    answer = server.client.predict([{"distance": 2.0, "carrier": "UA"}, {}])
    wanted = [row.scores[name] for row in answer.rows for name in ("on time", "late")]
    assert len(said["outputs"]) == 1
    assert said["outputs"][0]["data"] == pytest.approx(wanted)


def test_tensors_behind_the_json(server: Server) -> None:
    raw = np.array([2, 5, 3, np.nan], np.float32).tobytes()
    given = {"name": "features", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": len(raw)}}
    wanted = [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "label"}]
    head = json.dumps({"inputs": [given], "outputs": wanted}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    said = server.ask("/v2/models/rest/infer", head + raw, headers=headers)
    size = int(said.headers["Inference-Header-Content-Length"])
    scores, label = json.loads(said.body[:size])["outputs"]
    assert scores["parameters"]["binary_data_size"] == 8
    assert label["data"] == ["late"]
    plain = server.ask("/v2/models/rest/infer", {"inputs": [MATRIX]}).json["outputs"][0]["data"]
    assert struct.unpack("<2f", said.body[size:]) == pytest.approx(plain)


@pytest.mark.parametrize(
    ("change", "header", "more", "text"),
    [
        ({}, None, b"x", "1 bytes more than its tensors need"),
        ({"binary_data_size": 17}, None, b"", "binary_data_size is 17, wanted at most the 16 bytes that follow"),
        ({"binary_data_size": -1}, None, b"", "binary_data_size is -1"),
        ({"binary_data_size": "x"}, None, b"", "binary_data_size is 'x'"),
        ({"binary_data_size": 8}, None, b"", "has 8 bytes of raw contents, wanted 16"),
        ({}, "99999", b"", "Inference-Header-Content-Length is '99999', wanted at most"),
        ({}, "-1", b"", "Inference-Header-Content-Length is '-1'"),
        ({}, "²", b"", "Inference-Header-Content-Length is"),
    ],
)
def test_bytes_that_do_not_fit(server: Server, change: Any, header: str | None, more: bytes, text: str) -> None:
    parameters = {"binary_data_size": 16, **change}
    given = {"name": "features", "datatype": "FP32", "shape": [1, 4], "parameters": parameters}
    head = json.dumps({"inputs": [given]}).encode()
    headers = {"Inference-Header-Content-Length": header or str(len(head))}
    said = server.ask("/v2/models/rest/infer", head + bytes(16) + more, headers=headers)
    assert (said.status, text in said.json["error"]) == (400, True), said.json


# Limits and safety --------------------------------------------------------------------------------


def test_too_many_calls(server: Server) -> None:
    def watching() -> socket.socket:
        connection = socket.create_connection(server.address.split(":"))
        connection.sendall(b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1)
        return connection

    with watching(), watching():
        said = server.ask("/v1/model")
        assert (said.status, said.name) == (429, "RESOURCE_EXHAUSTED")
        assert server.ask("/v2/health/ready").status == 200  # else it would be ended for being full
    until(lambda: server.ask("/v1/model").status == 200)


def test_a_body_that_never_comes(server: Server) -> None:
    with socket.create_connection(server.address.split(":")) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert b"DEADLINE_EXCEEDED" in connection.recv(10_000)


@pytest.mark.parametrize("path", ["/once", "/lines"])
def test_a_reader_that_does_not_read_is_cut_off(path: str, caplog: pytest.LogCaptureFixture) -> None:
    large, method = b"x" * (8 << 20), "/stream_app.v1.StreamModel/Predict"

    async def once(sent: Sent) -> Reply:
        return Reply(large)

    async def lines(sent: Sent) -> AsyncIterator[bytes]:
        while True:
            yield large

    async def main() -> None:
        routes = [
            Route("GET", "/once", method, once, "", None, {}),
            Route("GET", "/lines", method, lines, "", None, {}),
        ]
        listen, limits = "127.0.0.1:0", Limits(transfer_s=0.1, grace_s=0.1)
        room = Room(limits.calls)
        rest = Rest(routes, {}, Guard(listen), limits, room, listen, Counts())
        _, writer = await asyncio.open_connection("127.0.0.1", await rest.start(), limit=1)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async with asyncio.timeout(20):
            while not room.taken:
                await asyncio.sleep(0.001)
            while room.taken:
                await asyncio.sleep(0.001)
        writer.close()
        await rest.stop()

    asyncio.run(main())
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Origin": "https://evil.example"}, "the request comes from a page of 'https://evil.example'"),
        ({"Origin": "null"}, "the request comes from a page of 'null'"),
        ({"Host": "evil.example"}, "Host is 'evil.example', wanted localhost"),
        ({"Host": "[::1"}, "wanted localhost"),
    ],
)
def test_pages_of_others_cannot_call(server: Server, headers: dict[str, str], text: str) -> None:
    said = server.ask("/v1/predict", {"rows": [{}]}, headers=headers)
    assert (said.status, said.name, text in said.json["error"]) == (403, "PERMISSION_DENIED", True)


def test_a_page_of_this_server_can_call(server: Server) -> None:
    headers = {"Origin": f"http://{server.address}", "Host": server.address}
    assert server.ask("/v1/predict", {"rows": [{}]}, headers=headers).status == 200


def test_an_error_nobody_expected_tells_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("stream_app.serving.messages.described", broken)
    said = server.ask("/v1/model")
    assert (said.status, said.json) == (
        500,
        {"error": "an error of the server, which its log tells", "status": "INTERNAL"},
    )


def test_an_error_within_a_stream_is_its_last_line(
    embedded: str, app_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = messages.version

    def broken(envelope: Envelope) -> Any:
        monkeypatch.setattr("stream_app.serving.messages.version", again)
        return made(envelope)

    def again(envelope: Envelope) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("stream_app.serving.messages.version", broken)
    with (
        served(embedded, app_name) as server,
        closing(HTTPConnection(server.address, timeout=20)) as connection,
    ):
        server.writer.version(0.3)
        connection.request("GET", "/v1/watch")
        lines = connection.getresponse()
        assert b'"number":1,' in lines.readline()
        server.writer.version(0.4)
        assert json.loads(lines.readline())["status"] == "INTERNAL"
        assert lines.read() == b""


def test_drains(embedded: str, app_name: str) -> None:
    """What is in flight ends, and the server does not wait for connections that are idle."""
    with served(embedded, app_name) as server:
        server.writer.version(0.3)
        until(lambda: number(server.client) == 1)
        watching = socket.create_connection(server.address.split(":"))
        watching.sendall(b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert watching.recv(1)
        watching.settimeout(20)
    rest = b""
    while part := watching.recv(10_000):
        rest += part
    watching.close()
    assert rest.endswith(b"0\r\n\r\n")


# Documents ----------------------------------------------------------------------------------------


def test_what_openapi_says(server: Server) -> None:
    said = server.ask("/openapi.json").json
    assert said["openapi"] == "3.1.0"
    schemas = said["components"]["schemas"]
    named = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(said))
    assert set(named) <= schemas.keys()
    for path, verbs in said["paths"].items():
        for verb, operation in verbs.items():
            assert operation["summary"], (verb, path)
            assert [p["name"] for p in operation["parameters"]] == re.findall(r"{(\w+)}", path)
    operations = [o["operationId"] for verbs in said["paths"].values() for o in verbs.values()]
    assert len(set(operations)) == len(operations)


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    said = server.ask("/docs")
    text = said.body.decode()
    assert "/v1/predict" in text
    assert not re.search(r"(src|href)=\"?(https?:)?//|<script|@import|url\(", text)
    assert "default-src 'none'" in said.headers["Content-Security-Policy"]
