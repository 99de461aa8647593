"""Clients that know nothing of us work unchanged: tritonclient and kserve, which want an older protobuf.

They live in an environment of their own, which ``make clients`` sets up; CLIENTS_PYTHON names its Python.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_app.broker import EmbeddedBroker
from tests.conftest import NO_CLIENTS
from tests.stream_app.servers import number, serving
from tests.stream_app.versions import artefact, looking, spec_of, until, writing

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def python() -> str:
    found = os.environ.get("CLIENTS_PYTHON")
    if not found:
        pytest.skip(NO_CLIENTS)
    return found


@pytest.fixture(scope="module")
def addresses(embedded_broker: EmbeddedBroker, python: str) -> Iterator[tuple[str, str]]:
    """Of gRPC, and of HTTP."""
    servers, ports = embedded_broker.bootstrap_servers, list[int]()
    with (
        writing(servers, spec_of("clients")) as writer,
        serving(servers, "clients", rest="127.0.0.1:0", rest_ready=ports.append) as made,
    ):
        writer.announce(artefact(writer.spec, graph=looking(writer.spec)))
        until(lambda: number(made) == 1)
        yield made.targets[0], f"127.0.0.1:{ports[0]}"


@pytest.mark.parametrize("script", ["ask_triton.py", "ask_kserve.py"])
def test_a_client_of_others_works_unchanged(script: str, python: str, addresses: tuple[str, str]) -> None:
    argv = [python, str(HERE / script), *addresses, "clients"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
