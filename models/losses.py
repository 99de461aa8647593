"""What a network is taught to make small, per task. Outputs are logits, or standardised values for regression."""

import torch
import torch.nn.functional as F
from torch import Tensor


def loss(task: str, outputs: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch.

    Args:
        task: binary, multiclass or regression.
        outputs: (B, K).
        target: (B,) class index (binary: 1.0 is the second class), or the standardised value.
        weights: (B,) what each row's loss is multiplied by; None is 1 each.
    """
    how = "mean" if weights is None else "none"
    match task:
        case "binary":
            found = F.binary_cross_entropy_with_logits(outputs[:, 0], target, reduction=how)
        case "multiclass":
            found = F.cross_entropy(outputs, target.long(), reduction=how)
        case _:
            found = F.mse_loss(outputs[:, 0], target, reduction=how)
    return found if weights is None else (weights * found).mean()


def scores(task: str, outputs: Tensor) -> Tensor:
    """What is answered: probabilities (B, K), or the standardised value (B, 1)."""
    match task:
        case "binary":
            return torch.sigmoid(outputs)
        case "multiclass":
            return torch.softmax(outputs, dim=1)
        case _:
            return outputs
