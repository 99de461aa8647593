"""The protocol every learner follows; the worker, the tuner and the checks know no more than this."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.snapshot import Arrays

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Learner(Protocol):
    """Learns micro-batches of standardised rows x (B, D), categories (B, C), targets (B,)."""

    learning_rate: float
    half_life_events: float
    skipped_steps: int
    """Batches not learned, since their gradient was not finite; of this object, not of its state."""

    def predict(self, x: Floats, categories: Ints) -> Floats:
        """Probabilities (B, K), or values (B, 1). Changes nothing."""
        ...

    def learn(self, x: Floats, categories: Ints, target: Floats, weights: Floats | None = None) -> None:
        """One step on the batch, each row weighted (None: 1 each), then the pull toward the reference."""
        ...

    def set_reference(self, theta: Floats | None) -> None:
        """What the parameters are pulled toward (P,); None releases the pull."""
        ...

    def parameters(self) -> Floats:
        """A copy of theta (P,)."""
        ...

    def serving_parameters(self) -> Floats:
        """theta (P,) with the label's scale folded in, as models.export wants it."""
        ...

    def state(self) -> Arrays:
        """Everything that learning has changed, copied."""
        ...

    def load(self, state: Arrays) -> None:
        """Back to a state: what follows equals never having stopped."""
        ...
