import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.export import to_onnx
from models.runtime import RUNTIME, Session, time_per_call_us
from tests.models.test_export import parameters_of, rows_of, spec_of


def test_runtime_names_library_version_and_device() -> None:
    assert re.fullmatch(r"onnxruntime-\d+\.\d+\.\d+-cpu", RUNTIME)


def test_a_session_scores_from_several_threads_at_once() -> None:
    spec, rng = spec_of(), np.random.default_rng(0)
    theta, mean, std = parameters_of(spec, rng)
    numeric, categories = rows_of(spec, rng, 50, mean, std)
    session = Session(to_onnx(spec, theta, mean, std))
    wanted = session.run(numeric, categories)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: session.run(numeric, categories), range(200)))
    assert all(np.array_equal(scores, wanted) for scores in found)


def test_categories_may_be_left_out_where_there_are_none() -> None:
    spec, rng = spec_of(dims=()), np.random.default_rng(0)
    theta, mean, std = parameters_of(spec, rng)
    numeric, categories = rows_of(spec, rng, 3, mean, std)
    session = Session(to_onnx(spec, theta, mean, std))
    assert np.array_equal(session.run(numeric), session.run(numeric, categories))


def test_timing_tells_a_wide_network_from_a_narrow_one() -> None:
    rng = np.random.default_rng(0)
    sessions = {}
    for name, hidden in (("narrow", (8,)), ("wide", (1024, 512))):
        spec = spec_of(hidden=hidden)
        theta, mean, std = parameters_of(spec, rng)
        numeric, categories = rows_of(spec, rng, 64, mean, std)
        sessions[name] = Session(to_onnx(spec, theta, mean, std))
    latency_us = time_per_call_us(sessions, numeric, categories, rounds=10)
    assert 0 < latency_us["narrow"] < latency_us["wide"]


def test_timing_wants_rounds() -> None:
    with pytest.raises(ValueError, match=r"^rounds is 0, wanted at least 1$"):
        time_per_call_us({}, np.zeros((1, 1), np.float32), None, rounds=0)
