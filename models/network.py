"""A network's version answers: graph -> [compiled code, or onnxruntime] -> scores.

B rows, N + R dense columns, C categorical features, K scores
"""

import logging
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.graph import Net, net_of
from models.runtime import Session
from models.spec import ModelSpec

MOST_ROWS = 256
"""More at once are faster in onnxruntime."""
MOST_WEIGHTS = 1 << 16
"""So are more weights, which are no longer close at hand."""
_APART = 1e-5
"""As much two sums of the same float32 may differ as scores."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_log = logging.getLogger(__name__)


class _Forward(Protocol):
    def __call__(self, net: Net, numeric: Floats, categories: Ints) -> Floats: ...


_forward: _Forward | None = None


class Network:
    """One version; ``run`` may be called by several threads at once.

    Its graph is loaded at once where compiled code does not answer, else when it is first needed, which takes 1 ms.

    Args:
        onnx: a graph of ``models.export``.
        spec: of the version.
    """

    def __init__(self, onnx: bytes, spec: ModelSpec) -> None:
        net = net_of(onnx, spec)
        self.net = net if net is not None and len(net.weights) <= MOST_WEIGHTS else None
        """What compiled code reads; None if it cannot answer."""
        self._onnx = onnx
        self._session = None if self.compiled else Session(onnx)

    @property
    def compiled(self) -> bool:
        """Whether compiled code answers, when there are few rows."""
        return self.net is not None and _forward is not None

    def run(self, numeric: Floats, categories: Ints | None = None) -> Floats:
        """Scores (B, K) of numeric (B, N + R), raw, NaN is missing, and categories (B, C)."""
        if _forward is None or self.net is None or len(numeric) > MOST_ROWS:
            return self.graph().run(numeric, categories)
        return _forward(self.net, numeric, np.zeros((len(numeric), 0), np.int64) if categories is None else categories)

    def graph(self) -> Session:
        """What onnxruntime makes of it."""
        if self._session is None:
            self._session = Session(self._onnx)
        return self._session


def compile_for(network: Network, numeric: Floats, categories: Ints) -> None:
    """From now on let compiled code answer for networks, if it says of these rows what onnxruntime says of them.

    Args:
        network: one of a spec that is new here; nothing happens if compiled code cannot answer for it.
        numeric: (B, N + R)
        categories: (B, C)
    """
    global _forward
    if network.net is None:
        return
    from models.forward import run  # numba takes half a second

    wanted = network.graph().run(numeric, categories)
    apart = float(np.abs(run(network.net, numeric, categories) - wanted).max())
    agrees = apart <= _APART * max(1.0, float(np.abs(wanted).max()))
    if not agrees:
        _log.error("compiled code says up to %g beside onnxruntime's scores, which go on to answer", apart)
    _forward = run if agrees else None
