"""What do explaining and watching cost? flights -> cores with a stopwatch in them -> us, shares of learning time.

A core per detector takes the records, one thread; what importance, the watch of the error and that of ten inputs take
is measured in place. Then rows are explained one by one by the newest graph, and walks compared with many more of them.
`python -m bench.explain --flights 60000`
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from examples.flights.data import event_time_s, load, stream
from models.drift import Kind
from models.explain import Explainer, remembered
from models.export import to_onnx
from models.runtime import Session
from models.snapshot import under
from models.spec import Drift, Explain, ModelSpec, read_spec
from models.torch_learner import TorchLearner, use_one_thread
from stream_app.learn import Core

CHUNK = 4_096
EXPLAINED = 200
WATCHED = ("distance", "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib", "carrier", "dest")


class Record(NamedTuple):
    offset: int
    timestamp: int
    value: bytes


class Stopwatch:
    """CPU seconds of this thread spent in calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def of(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            started_s = time.thread_time()
            found = call(*args)
            self.seconds += time.thread_time() - started_s
            return found

        return timed


def play(spec: ModelSpec, detector: Kind, records: Sequence[Record]) -> tuple[Core, dict[str, float]]:
    """A core that has taken all records, and the seconds of each part and of all."""
    inputs: Kind = "adwin" if detector == "ddm" else detector
    core = Core(_watching(spec, detector, inputs), TorchLearner(spec))
    core.start({0: 0})
    watches = {name: Stopwatch() for name in ("importance", "error", "inputs", "all")}
    core.importance.take = watches["importance"].of(core.importance.take)  # type: ignore[method-assign]
    core.drift.add = watches["error"].of(core.drift.add)  # type: ignore[method-assign]
    core._watch_inputs = watches["inputs"].of(core._watch_inputs)  # type: ignore[method-assign]
    take = watches["all"].of(core.take)
    for at in range(0, len(records), CHUNK):
        take(0, records[at : at + CHUNK])
    return core, {name: watch.seconds for name, watch in watches.items()}


def _watching(spec: ModelSpec, detector: Kind, inputs: Kind) -> ModelSpec:
    drift = Drift(detector=detector, delta=spec.drift.delta, inputs=WATCHED, input_detector=inputs)
    return msgspec.structs.replace(spec, drift=drift, explain=Explain())


def explained(core: Core) -> dict[str, Any]:
    """Time per explained row of the newest graph, and how far from many walks; on the last rows remembered."""
    scaler = core.encoder.scaler
    mean, std = scaler.mean.astype(np.float32), scaler.std.astype(np.float32)
    session = Session(to_onnx(core.spec, core.learner.serving_parameters(), mean, std))
    rows = remembered(under("importance", core.state()))
    found: dict[str, Any] = {}
    many = _contributions(core.spec, 1000, session, rows, 16)[0]
    for pairs in (4, 8, 16, 32):
        few, us = _contributions(core.spec, pairs, session, rows, EXPLAINED if pairs == core.spec.explain.pairs else 16)
        error = np.abs(few[:16] - many)
        found[f"{pairs} pairs"] = {
            "us": round(us),
            "mean_error": round(float(error.mean()), 4),
            "worst_error": round(float(error.max()), 4),
        }
    found["mean_contribution"] = round(float(np.abs(many).mean()), 4)
    found["largest_contribution"] = round(float(np.abs(many).max()), 4)
    start_s = time.thread_time()
    for i in range(EXPLAINED):
        session.run(rows.dense[i % len(rows.dense), None], rows.categories[i % len(rows.dense), None])
    found["predict_us"] = round((time.thread_time() - start_s) / EXPLAINED * 1e6, 1)
    return found


def _contributions(
    spec: ModelSpec, pairs: int, session: Session, rows: Any, count: int
) -> tuple[NDArray[np.float64], float]:
    """(count, F), and the median microseconds that one took."""
    explainer = Explainer(msgspec.structs.replace(spec, explain=Explain(pairs=pairs)), rows)
    found, taken_s = [], []
    for i in range(count):
        at = i % len(rows.dense)
        started_s = time.thread_time()
        found.append(explainer.explain(session.run, rows.dense[at], rows.categories[at]).contributions[:, 0])
        taken_s.append(time.thread_time() - started_s)
    return np.stack(found), median(taken_s) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flights", type=int, default=60_000)
    args = parser.parse_args()
    use_one_thread()
    spec = read_spec("examples/flights/model.toml")
    encode = msgspec.json.Encoder().encode
    events = stream(load()[: args.flights])
    records = [Record(i, int(event_time_s(r) * 1000), encode(r)) for i, r in enumerate(events)]
    result: dict[str, Any] = {}
    detectors: tuple[Kind, ...] = ("adwin", "page_hinkley", "ddm")
    for detector in detectors:
        core, seconds = play(spec, detector, records)
        rest_s = seconds["all"] - sum(s for name, s in seconds.items() if name != "all")
        result[detector] = {
            "us_per_event": {n: round(s / core.counts["events"] * 1e6, 2) for n, s in seconds.items()},
            "share_of_rest": {n: round(s / rest_s, 4) for n, s in seconds.items() if n != "all"},
            "found": {n: core.counts[n] for n in ("drifts", "input_drifts")},
            "state_bytes": {n: a.nbytes for n, a in core.state().items() if n.startswith("drift.")},
        }
    result["importance"] = {name: round(v, 4) for name, v in core.importance.largest(12).items()}
    result["explain"] = explained(core)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
