"""Every example of docs/serving.md works as it stands, and every RPC and route has one.

To document a call, add an example to the document; nothing needs to be told here.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from aiohttp import web

from stream_app.registry import Registry
from stream_app.serving.calls import Calls
from stream_app.serving.rest import STATUSES, Rest
from stream_app.wire import open_inference_pb2, stream_app_pb2
from tests.docs.examples import Example, examples_of, run
from tests.stream_app.servers import number, serving
from tests.stream_app.serving.http import ask
from tests.stream_app.versions import artefact, looking, spec_of, until, writing

DOCUMENT = Path(__file__).parents[2] / "docs" / "serving.md"
EXAMPLES = examples_of(DOCUMENT.read_text())
RPCS = {
    f"/{service.full_name}/{method.name}"
    for file in (stream_app_pb2, open_inference_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


class Ran(NamedTuple):
    """What became of the examples."""

    wrong: dict[int, str | None]
    """Line -> what went wrong."""
    called: set[str]
    """RPCs that were called, as ``/package.Service/Method``, and routes, as ``VERB /path``."""
    routes: set[str]
    """All there are."""


@pytest.fixture(scope="module")
def ran(embedded_broker: Any, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All examples, in order, asked of one server: the model ``flights``, three versions of it."""
    called: set[str] = set()
    ports: list[int] = []
    servers, folder = embedded_broker.bootstrap_servers, tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        _note_calls(patch, called)
        with (
            writing(servers, spec_of("flights"), Registry(str(folder / "registry"))) as writer,
            serving(
                servers,
                "flights",
                registry_url=str(folder / "registry"),
                rest="127.0.0.1:0",
                rest_ready=ports.append,
                reflect=True,
                log_events=True,
            ) as client,
        ):
            for score in (0.2, 0.4):
                writer.version(score)
            writer.announce(artefact(writer.spec, graph=looking(writer.spec)))
            until(lambda: number(client) == 3)
            address = f"127.0.0.1:{ports[0]}"
            addresses = {"127.0.0.1:50051": client.targets[0], "127.0.0.1:8080": address}
            wrong = {e.line: run(e, addresses, folder) for e in EXAMPLES if _can_run(e)}
            paths = ask(address, "/openapi.json").json["paths"]
    routes = {f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs}
    return Ran(wrong, called, routes)


def _can_run(example: Example) -> bool:
    return example.language != "sh" or shutil.which("curl") is not None


def _note_calls(patch: pytest.MonkeyPatch, called: set[str]) -> None:
    service, check = Calls.service, Rest._check_origin

    def noting(calls: Calls, details: grpc.HandlerCallDetails) -> Any:
        called.add(str(details.method))
        return service(calls, details)

    def note_route(rest: Rest, request: web.Request) -> None:
        resource = request.match_info.route.resource
        assert resource is not None
        called.add(f"{request.method} {resource.canonical}")
        check(rest, request)

    patch.setattr(Calls, "service", noting)
    patch.setattr(Rest, "_check_origin", note_route)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.language}-line-{e.line}")
def test_an_example_works(example: Example, ran: Ran) -> None:
    if example.line not in ran.wrong:
        pytest.skip("there is no curl")
    wrong = ran.wrong[example.line]
    assert wrong is None, f"docs/serving.md line {example.line}: {wrong}"


def test_every_rpc_has_an_example(ran: Ran) -> None:
    assert sorted(RPCS - ran.called) == [], "add an example to docs/serving.md that calls them"


def test_every_route_has_an_example(ran: Ran) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    assert sorted(ran.routes - ran.called) == [], "add an example to docs/serving.md that asks them"


def test_all_statuses_are_told() -> None:
    text = DOCUMENT.read_text()
    told = {s.name for s in grpc.StatusCode if f"`{s.name}`" in text}
    assert {"INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"} <= told
    assert all(f"{STATUSES[name]}" in text for name in told if name in STATUSES)
