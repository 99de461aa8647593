"""Processes load only what they need: a server or a monitor starts without torch and Faust."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "stream_app.serve",
        "stream_app.client",
        "models.explain",
        "stream_app.lag",
        "stream_app.monitor",
        "examples.flights.produce",
    ],
)
def test_what_does_not_learn_loads_neither_torch_nor_faust(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules.keys() & {{'torch', 'faust'}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
