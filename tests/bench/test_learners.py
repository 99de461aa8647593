"""The script ends with one JSON object that has what docs/learners.md tells."""

import json

import pytest

from bench.learners import main


def test_the_last_line_has_all_figures(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--tiers", "fast", "--events", "1024", "--workers", "1", "2", "--merge-tier", "fast"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(c["columns"], c["classes"]) for c in found["costs"]] == [(10, 2), (10, 10), (50, 2), (50, 10)]
    for cost in found["costs"]:
        assert cost["state_bytes"] == sum(cost["of"].values())
        assert min(cost[f"{what}_us_{batch}"] for what in ("predict", "learn") for batch in (1, 32)) > 0
    assert [(m["stream"], m["workers"]) for m in found["merging"]] == [
        (name, workers) for name in ("line", "corners", "three") for workers in (1, 2)
    ]
    assert all(50 < m["accuracy"] < 100 for m in found["merging"])
