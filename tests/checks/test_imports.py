"""Processes load only what they need: a server or a monitor starts without torch, Faust, River or numba."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "stream_app.serve",
        "stream_app.client",
        "stream_app.aio_client",
        "models.explain",
        "stream_app.lag",
        "stream_app.monitor",
        "examples.flights.produce",
        "stream_app.producer",
    ],
)
def test_what_does_not_learn_loads_none_of_torch_faust_river_and_numba(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules.keys() & {{'torch', 'faust', 'river', 'numba'}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_a_model_without_a_service_loads_neither_torch_nor_river() -> None:
    code = "import sys, models.online; print(*sorted(sys.modules.keys() & {'torch', 'river', 'faust', 'onnxruntime'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_a_client_loads_no_broker_and_no_model() -> None:
    heavy = "{'kafka', 'aiokafka', 'onnxruntime', 'models', 'prometheus_client', 'aiohttp'}"
    code = f"import sys, stream_app.client, stream_app.aio_client; print(*sorted(sys.modules.keys() & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
