"""The one home of onnxruntime: the bytes of a graph -> [Session] -> scores, latencies.

B rows, N + R dense columns, C categorical features, K scores
"""

import time
from collections.abc import Mapping
from statistics import median
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

RUNTIME = f"onnxruntime-{onnxruntime.__version__}-cpu"
"""What latencies and variants were made with."""
WARM_CALLS = 20
_ERRORS_ONLY = 3


class Runs(Protocol):
    """What answers raw rows (B, N + R) and (B, C) with scores (B, K), and can be timed."""

    def run(self, numeric: NDArray[np.float32], categories: NDArray[np.int64] | None) -> NDArray[np.float32]: ...


class Session:
    """One loaded graph; ``run`` may be called by several threads at once.

    No arena and no memory pattern: at these sizes malloc is as fast (measured, batch 1 to 256), and
    a server that swaps every second keeps nothing of the sessions it dropped.

    Args:
        onnx: a graph of ``models.export`` or ``models.quantise``.
        threads: of one call; more than one pays only for wide networks and large batches.
    """

    def __init__(self, onnx: bytes, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._columns = {i.name: int(i.shape[1]) for i in self._session.get_inputs()}
        self._outputs = [self._session.get_outputs()[0].name]

    def run(self, numeric: NDArray[np.float32], categories: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Scores of B rows.

        Args:
            numeric: (B, N + R), raw; NaN is missing.
            categories: (B, C); not looked at if the graph has no categorical features.

        Returns:
            (B, K)
        """
        feed: dict[str, NDArray[Any] | None] = {"numeric": numeric}
        if "categories" in self._columns:
            feed["categories"] = categories
        scores: NDArray[np.float32] = self._session.run(self._outputs, feed)[0]
        return scores


def time_per_call_us(
    sessions: Mapping[str, Runs],
    numeric: NDArray[np.float32],
    categories: NDArray[np.int64] | None,
    *,
    rounds: int,
) -> dict[str, float]:
    """Median microseconds of one call per session, B rows a call.

    The sessions take turns, their order turning round every time, so that whatever else the machine
    does falls on all of them alike.

    Raises:
        ValueError: there are no rounds to take a median of.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, wanted at least 1")
    for session in sessions.values():
        for _ in range(WARM_CALLS):
            session.run(numeric, categories)
    taken_ns: dict[str, list[int]] = {name: [] for name in sessions}
    order = list(sessions.items())
    for _ in range(rounds):
        for name, session in order:
            start_ns = time.perf_counter_ns()
            session.run(numeric, categories)
            taken_ns[name].append(time.perf_counter_ns() - start_ns)
        order.reverse()
    return {name: median(times) / 1000 for name, times in taken_ns.items()}
