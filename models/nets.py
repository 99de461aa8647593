"""The networks, written over one flat vector of parameters (models.shapes says how it is cut).

x (B, D) standardised columns   c (B, C) rows of the embeddings   outputs (B, K)

A network over a window of each key's recent events (CNN, LSTM, Transformer) would take its place beside
``forward``: another x, of shape (B, T, D), and shapes of its own; the learner asks no more of it.
"""

import math
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor

from models.shapes import Shapes, output_parts


def forward(parameters: dict[str, Tensor], x: Tensor, c: Tensor) -> Tensor:
    """A linear model or an MLP, as many layers as there are; and what is wide, if anything is."""
    tables = [p for name, p in parameters.items() if name.startswith("embed.")]
    h = torch.cat([x, *(F.embedding(c[:, i], t) for i, t in enumerate(tables))], dim=1)
    for i in count():
        h = F.linear(h, parameters[f"layer{i}.weight"], parameters[f"layer{i}.bias"])
        if f"layer{i + 1}.weight" not in parameters:
            break
        h = F.relu(h)
    if "wide_x.weight" not in parameters:
        return h  # (B, K)
    rows = [p for name, p in parameters.items() if name.startswith("wide.")]
    wide = F.linear(x, parameters["wide_x.weight"])  # (B, K)
    return h + sum((F.embedding(c[:, i], r) for i, r in enumerate(rows)), wide)


def initial(shapes: Shapes, generator: torch.Generator) -> Tensor:
    """Kaiming-uniform weights, zero biases, small embeddings; zero outputs, so the first answer is neutral."""
    parts = []
    zero = output_parts(shapes)
    for name, shape in shapes.items():
        if name.startswith("embed."):
            parts.append(0.05 * torch.randn(shape, generator=generator))
        elif name.endswith(".bias") or name in zero:
            parts.append(torch.zeros(shape))
        else:
            bound = math.sqrt(6.0 / shape[1])
            parts.append((2 * torch.rand(shape, generator=generator) - 1) * bound)
    return torch.cat([p.reshape(-1) for p in parts])
