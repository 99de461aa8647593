"""The compose file and the Dockerfile name commands, files and packages that exist."""

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.spec import read_spec
from stream_app import agents, up
from stream_app.__main__ import build_parser
from stream_app.events import Topics

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SPEC = ROOT / "examples/flights/model.toml"
OURS = [name for name, service in SERVICES.items() if "build" in service]
PROCESSES = [name for name in OURS if name != "producer"]


def argv(name: str) -> list[str]:
    return shlex.split(SERVICES[name]["command"])


def option(name: str, flag: str) -> str:
    words = argv(name)
    return words[words.index(flag) + 1]


def mounts(name: str) -> dict[str, str]:
    """Folder in the container -> volume."""
    return {v.split(":")[1]: v.split(":")[0] for v in SERVICES[name]["volumes"]}


def test_the_services() -> None:
    assert {*PROCESSES} == {"worker", "tuner", "compressor", "judge", "server", "monitor"}
    assert {*SERVICES} == {*PROCESSES, "kafka", "producer"}


@pytest.mark.parametrize("name", PROCESSES)
def test_commands_parse(name: str) -> None:
    program, *arguments = argv(name)
    assert program == "stream-app"
    parsed = build_parser().parse_args(arguments)
    assert parsed.bootstrap_servers == "kafka:9092"


@pytest.mark.parametrize("name", [n for n in PROCESSES if "--spec" in SERVICES[n]["command"]])
def test_the_spec_is_in_the_image(name: str) -> None:
    assert re.search(r"^COPY examples examples$", DOCKERFILE, re.M)
    assert (ROOT / option(name, "--spec")) == SPEC
    assert read_spec(str(SPEC)).name == "flights"


def test_the_producer_parses(capsys: pytest.CaptureFixture[str]) -> None:
    python, dash_m, module, *arguments = argv("producer")
    assert (python, dash_m) == ("python", "-m")
    options = importlib.import_module(module)._options(arguments)
    assert options.topic == Topics.of(read_spec(str(SPEC)).name).events
    assert SERVICES["producer"]["profiles"] == ["flights"]
    assert SERVICES["producer"]["restart"] == "no"


def test_kafka_is_version_4_and_keeps_its_data() -> None:
    kafka = SERVICES["kafka"]
    assert re.fullmatch(r"apache/kafka:4\.\d+\.\d+", kafka["image"])
    assert mounts("kafka")[kafka["environment"]["KAFKA_LOG_DIRS"]] in COMPOSE["volumes"]


def test_kafka_listens_where_the_others_look() -> None:
    environment = SERVICES["kafka"]["environment"]
    assert environment["KAFKA_PROCESS_ROLES"] == "broker,controller"
    listeners = dict(x.split("://:") for x in environment["KAFKA_LISTENERS"].split(","))
    advertised = dict(x.split("://") for x in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(x.split(":") for x in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert listeners.keys() == protocols.keys()
    assert listeners.keys() - advertised.keys() == {environment["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    assert advertised[environment["KAFKA_INTER_BROKER_LISTENER_NAME"]] == "kafka:9092"
    assert all(at.split(":")[1] == listeners[name] for name, at in advertised.items())


@pytest.mark.parametrize("name", OURS)
def test_all_wait_for_a_healthy_kafka(name: str) -> None:
    assert SERVICES[name]["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert SERVICES["kafka"]["healthcheck"]["test"]


@pytest.mark.parametrize("name", PROCESSES)
def test_the_registry_is_one_shared_volume(name: str) -> None:
    assert mounts(name)["/var/lib/stream-app/registry"] == "registry"
    assert "registry" in COMPOSE["volumes"]
    if name != "monitor":
        assert option(name, "--registry") == "/var/lib/stream-app/registry"
    assert "VOLUME /var/lib/stream-app/registry" in DOCKERFILE


def test_a_worker_may_take_as_long_to_end_as_it_gives_itself() -> None:
    assert float(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > agents.STOP_S
    assert agents.STOP_S < up.STOP_S


def test_published_ports_are_on_loopback_and_listened_on() -> None:
    published = {n: s["ports"] for n, s in SERVICES.items() if "ports" in s}
    assert published.keys() == {"kafka", "server", "monitor"}
    assert all(p.startswith("127.0.0.1:") for ports in published.values() for p in ports)
    assert option("server", "--listen").split(":")[1] == published["server"][0].split(":")[2]
    assert option("monitor", "--prometheus").split(":")[1] == published["monitor"][0].split(":")[2]


@pytest.mark.parametrize("name", ["kafka", "server", "monitor"])
def test_healthchecks(name: str) -> None:
    check = SERVICES[name]["healthcheck"]["test"]
    assert check[0] == "CMD"
    if check[1] == "python":
        compile(check[3], name, "exec")


def test_the_image_runs_as_an_ordinary_user() -> None:
    users = re.findall(r"^USER (\S+)", DOCKERFILE, re.M)
    assert users == ["app"]
    assert "useradd" in DOCKERFILE
    assert all("user" not in SERVICES[n] for n in OURS)


def test_what_is_copied_is_sent_to_the_build() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {source for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for source in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)
