"""Is the smaller version worth it: fp32 graph, labelled rows -> [compress] -> int8 graph, evidence.

|--- first half: calibration ---|--- second half: both losses, never calibrated on ---|
"""

from typing import Literal

import msgspec

from models.measure import Examples, mean_loss, target_variance
from models.quantise import to_int8
from models.runtime import RUNTIME, Session, time_per_call_us
from models.spec import ModelSpec

ROUNDS = 300
"""Calls that a median latency is taken of."""


class Compressed(msgspec.Struct, frozen=True, kw_only=True):
    """A compressed graph and what it costs and gains, measured."""

    kind: Literal["int8"]
    data: bytes
    """An ONNX graph with the inputs and outputs of the original."""
    bytes: int
    fp32_bytes: int
    runtime: str
    batch: int
    """Rows per call in the timing."""
    latency_us: float
    fp32_latency_us: float
    """Median per call, both timed alternately in the same process."""
    loss: float
    fp32_loss: float
    """Mean over the same ``rows`` examples: log-loss in nats, or the squared error in variances of their targets."""
    rows: int

    @property
    def loss_delta(self) -> float:
        """What compression costs; below 0 if it happened to help."""
        return self.loss - self.fp32_loss

    @property
    def faster(self) -> bool:
        return self.latency_us < self.fp32_latency_us

    def within(self, budget: float) -> bool:
        """Whether the loss rose by no more than ``budget``; a loss that is no number did."""
        return self.loss_delta <= budget


def compress(spec: ModelSpec, onnx: bytes, examples: Examples, *, batch: int = 1, rounds: int = ROUNDS) -> Compressed:
    """Quantise a graph to int8 on the first half of the rows, measure it on the second.

    Args:
        onnx: from ``models.export.to_onnx``.
        examples: oldest first, so that the loss is measured on rows newer than the calibration's.
        batch: rows per timed call, at most; there must be as many to measure on.

    Raises:
        ValueError: fewer than 2 rows.
    """
    count = len(examples.target)
    if count < 2:
        raise ValueError(f"{count} labelled rows, wanted at least 2: some to calibrate, some to measure")
    half = count // 2
    known, unseen = examples.part(slice(half)), examples.part(slice(half, None))
    data = to_int8(onnx, known.numeric, known.categories)
    sessions = {"int8": Session(data), "fp32": Session(onnx)}
    scores = {k: s.run(unseen.numeric, unseen.categories) for k, s in sessions.items()}
    unit = (target_variance(unseen) if spec.task == "regression" else 0.0) or 1.0
    losses = {k: mean_loss(spec.task, s, unseen.target, unseen.weights) / unit for k, s in scores.items()}
    timed = unseen.part(slice(batch))
    latency_us = time_per_call_us(sessions, timed.numeric, timed.categories, rounds=rounds)
    return Compressed(
        kind="int8",
        data=data,
        bytes=len(data),
        fp32_bytes=len(onnx),
        runtime=RUNTIME,
        batch=len(timed.target),
        latency_us=latency_us["int8"],
        fp32_latency_us=latency_us["fp32"],
        loss=losses["int8"],
        fp32_loss=losses["fp32"],
        rows=len(unseen.target),
    )
