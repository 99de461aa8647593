"""The protocol every learner follows; the worker, the tuner and the checks know no more than this."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.merging import Fork
from models.snapshot import Arrays

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Learner(Protocol):
    """Learns micro-batches of standardised rows x (B, D), categories (B, C), targets (B,)."""

    learning_rate: float
    half_life_events: float
    share: float
    """Of the stream's rows, that this object learns; others learn the rest, apart, and all are merged."""
    skipped_steps: int
    """Batches not learned, since their gradient was not finite; of this object, not of its state."""

    def predict(self, x: Floats, categories: Ints) -> Floats:
        """Probabilities (B, K), or values (B, 1). Changes nothing."""
        ...

    def ask(self, x: Floats, categories: Ints) -> tuple[Floats, Floats]:
        """As ``predict``, and what ``learn`` will want to know of it when the labels come: (B, Q)."""
        ...

    def learn(
        self,
        x: Floats,
        categories: Ints,
        target: Floats,
        weights: Floats | None = None,
        told: Floats | None = None,
    ) -> None:
        """One step on the batch, then the pull toward the reference.

        Args:
            x: (B, D)
            categories: (B, C)
            target: (B,)
            weights: (B,) how many examples each stands for; None is one each. The batch's loss is
                sum(w * loss) / B: weights that are all 2 make a gradient twice as long.
            told: (B, Q) of ``ask``, when these rows were answered; NaN in rows of which it is lost. None where
                rows are learned at once.

        Raises:
            ValueError: a weight is not a finite number above 0, or there are not B of them.
        """
        ...

    def members(self) -> dict[str, float]:
        """What each member of a mixture counts, the sum is 1; empty where there are none."""
        ...

    def set_reference(self, theta: Floats | None) -> None:
        """What the parameters are pulled toward (P,); None releases the pull."""
        ...

    def reference(self) -> Floats | None:
        """A copy of what the parameters are pulled toward (P,), or None."""
        ...

    def parameters(self) -> Floats:
        """A copy of theta (P,)."""
        ...

    def set_parameters(self, theta: Floats) -> None:
        """Go on from theta (P,), copied; what else learning has changed stays."""
        ...

    def serving_parameters(self) -> Floats:
        """theta (P,) with the label's scale or the classes' frequencies folded in, as models.export wants it."""
        ...

    def state(self) -> Arrays:
        """Everything that learning has changed, copied."""
        ...

    def merged(self, fork: Fork) -> Arrays:
        """One state of what two have learned since the same base, if both have learned something.

        Raises:
            MergeError: this kind cannot be merged.
        """
        ...

    def load(self, state: Arrays) -> None:
        """Back to a state: what follows equals never having stopped."""
        ...


def check_weights(weights: Floats, rows: int) -> None:
    """For those who implement ``learn``.

    Raises:
        ValueError: as ``Learner.learn`` has it.
    """
    if weights.shape != (rows,):
        raise ValueError(f"weights have shape {weights.shape}, wanted ({rows},)")
    wrong = ~(np.isfinite(weights) & (weights > 0))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(f"weight {at} is {weights[at]}, wanted a finite number above 0")
