"""Does int8 pay, and from which width and batch on? flights -> fp32, int8 -> bytes, us, log-loss.

Networks of several widths learn the first flights; the graphs of each are timed in turns in one
process, one thread, medians; PyTorch after them. qdq is onnxruntime's own quantize_static, torch the same network with
PyTorch, both for comparison. `python -m bench.quantise --flights 20000 --rounds 300`
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime import quantization

from examples.flights.data import Flight, load
from models import losses, nets, walk
from models.export import to_onnx
from models.features import FeatureEncoder
from models.measure import Examples, mean_loss
from models.quantise import to_int8
from models.runtime import RUNTIME, Session, time_per_call_us
from models.shapes import parameter_shapes, split
from models.spec import Learner, ModelSpec, read_spec
from models.torch_learner import TorchLearner

WIDTHS = ((64, 64), (256, 256), (256, 1024), (512, 2048))
BATCHES = (1, 8, 32, 256)
CALIBRATION = 1024
MEASURED = 1024
"""Right after the calibration rows, as many as a compressor has."""
STEP = 128
LABEL_DELAY_S = 4 * 3600.0


class Learned(NamedTuple):
    """A network after its flights, and rows that it has not seen."""

    spec: ModelSpec
    theta: NDArray[np.float32]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    examples: Examples


class TorchNetwork:
    """The same network in PyTorch, preprocessing included."""

    def __init__(self, learned: Learned) -> None:
        parts = split(learned.theta, parameter_shapes(learned.spec))
        self._parameters = {name: torch.tensor(part) for name, part in parts.items()}
        self._mean, self._std = torch.tensor(learned.mean), torch.tensor(learned.std)
        self._numeric = len(learned.spec.features.numeric)
        self._task = learned.spec.task

    def run(self, numeric: NDArray[np.float32], categories: NDArray[np.int64] | None) -> NDArray[np.float32]:
        assert categories is not None
        with torch.inference_mode():
            raw = torch.from_numpy(numeric)
            z = torch.nan_to_num(((raw - self._mean) / self._std).clamp(-5, 5), nan=0.0)
            missing = raw[:, : self._numeric].isnan().float()
            x = torch.cat([z, missing], dim=1)
            outputs = nets.forward(self._parameters, x, torch.from_numpy(categories))
            scores: NDArray[np.float32] = losses.scores(self._task, outputs).numpy()
        return scores


def learn(spec: ModelSpec, flights: list[Flight]) -> Learned:
    """Learn all but the last flights, in steps; labels come to the rates LABEL_DELAY_S late."""
    encoder, learner = FeatureEncoder(spec), TorchLearner(spec)
    names = encoder.numeric_names + encoder.categorical_names
    seen: list[Examples] = []
    waiting: list[tuple[float, NDArray[np.int64], NDArray[np.float64]]] = []
    for at in range(0, len(flights), STEP):
        batch = flights[at : at + STEP]
        rows = [tuple(getattr(f.features, name) for name in names) for f in batch]
        raw = encoder.raw(rows)
        times_s = np.array([f.scheduled_s for f in batch], np.float64)
        while waiting and waiting[0][0] + LABEL_DELAY_S <= times_s[0]:
            then_s, keys, late = waiting.pop(0)
            walk.learn(encoder.rates, keys, late[:, None], np.full(len(keys), then_s + LABEL_DELAY_S))
        dense = encoder.dense(raw, times_s)
        target = np.array([f.late for f in batch], np.float32)
        if at < len(flights) - CALIBRATION - MEASURED:
            encoder.scaler.observe(dense)
            learner.learn(encoder.standardise(dense), raw.categories, target)
        else:
            seen.append(Examples(dense, raw.categories, target))
        waiting.append((float(times_s[-1]), raw.keys, target.astype(np.float64)))
    columns = (np.concatenate(column) for column in zip(*seen, strict=True))
    mean, std = (a.astype(np.float32) for a in (encoder.scaler.mean, encoder.scaler.std))
    return Learned(spec, learner.serving_parameters(), mean, std, Examples(*columns))


def by_onnxruntime(model: bytes, numeric: NDArray[Any], categories: NDArray[Any]) -> bytes:
    """quantize_static as it advises for x86: QDQ, uint8 activations, int8 weights."""

    class Once(quantization.CalibrationDataReader):  # type: ignore[misc]
        feeds = iter([{"numeric": numeric, "categories": categories}])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        quantization.quantize_static(
            onnx.load_from_string(model),
            path,
            Once(),
            op_types_to_quantize=["Gemm", "Relu", "Gather", "Concat", "Reshape"],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        logging.disable(logging.NOTSET)
        return path.read_bytes()


def timed_ms(make: Callable[[], Any], times: int = 10) -> tuple[Any, float]:
    """What ``make`` gave, and the median milliseconds it took."""
    taken_s = []
    for _ in range(times):
        start_s = time.perf_counter()
        made = make()
        taken_s.append(time.perf_counter() - start_s)
    return made, round(float(np.median(taken_s)) * 1000, 2)


def measure(learned: Learned, rounds: int) -> dict[str, Any]:
    """One network's row of the answer."""
    known = learned.examples.part(slice(CALIBRATION))
    unseen = learned.examples.part(slice(CALIBRATION, None))
    calibration = (known.numeric, known.categories)
    fp32, export_ms = timed_ms(lambda: to_onnx(learned.spec, learned.theta, learned.mean, learned.std))
    int8, int8_ms = timed_ms(lambda: to_int8(fp32, *calibration))
    qdq, qdq_ms = timed_ms(lambda: by_onnxruntime(fp32, *calibration), 3)
    _, session_ms = timed_ms(lambda: Session(fp32))
    _, int8_session_ms = timed_ms(lambda: Session(int8))
    graphs = {"fp32": fp32, "int8": int8, "qdq": qdq}
    runs = {name: Session(graph) for name, graph in graphs.items()}
    loss = {
        name: mean_loss("binary", r.run(unseen.numeric, unseen.categories), unseen.target) for name, r in runs.items()
    }
    latency_us = {}
    for batch in BATCHES:
        some = unseen.part(slice(batch))
        rows = (some.numeric, some.categories)
        found = time_per_call_us(runs, *rows, rounds=rounds)
        # PyTorch by itself: whatever ran just after it would find its caches swept.
        found |= time_per_call_us({"torch": TorchNetwork(learned)}, *rows, rounds=rounds)
        latency_us[batch] = {name: round(us, 1) for name, us in found.items()}
    return {
        "hidden": learned.spec.learner.hidden,
        "bytes": {name: len(graph) for name, graph in graphs.items()},
        "export_ms": export_ms,
        "to_int8_ms": int8_ms,
        "qdq_ms": qdq_ms,
        "session_ms": session_ms,
        "int8_session_ms": int8_session_ms,
        "loss": {name: round(value, 6) for name, value in loss.items()},
        "loss_delta": {n: round(loss[n] - loss["fp32"], 6) for n in ("int8", "qdq")},
        "latency_us": latency_us,
    }


def show(row: dict[str, Any]) -> None:
    width = "-".join(map(str, row["hidden"]))
    sizes, delta = row["bytes"], row["loss_delta"]
    print(
        f"{width}: {sizes['fp32']:,} -> {sizes['int8']:,} bytes "
        f"({sizes['fp32'] / sizes['int8']:.1f}x), loss {delta['int8']:+.6f} "
        f"(qdq {sizes['qdq']:,}, {delta['qdq']:+.6f}); export {row['export_ms']} ms, "
        f"int8 {row['to_int8_ms']} ms (qdq {row['qdq_ms']}), session {row['session_ms']} ms"
    )
    for batch, us in row["latency_us"].items():
        gain = f"{us['fp32'] / us['int8']:.2f}x fp32, {us['torch'] / us['int8']:.2f}x torch"
        cells = "  ".join(f"{name} {value:8.1f}" for name, value in us.items())
        print(f"  batch {batch:4}: {cells} us   int8 is {gain}")


def main() -> None:
    parser = argparse.ArgumentParser(description="int8 against fp32, by width and batch")
    parser.add_argument("--flights", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--spec", default="examples/flights/model.toml")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = read_spec(arguments.spec)
    flights = [f for f in load() if f.late is not None][: arguments.flights]
    rows = []
    for hidden in WIDTHS:
        learner = Learner(kind="torch", hidden=hidden)
        learned = learn(msgspec.structs.replace(spec, learner=learner), flights)
        rows.append(measure(learned, arguments.rounds))
        show(rows[-1])
    print(json.dumps({"bench": "quantise", "runtime": RUNTIME, "networks": rows}))


if __name__ == "__main__":
    main()
