"""Handwritten digits of 8 × 8 pixels, and networks that learn them in a tenth of a second."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor, nn

CLASSES = 10
TRAIN_ROWS = 900
"""The rows before it are for training, the others for testing."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""`loss(logits, rows)`: the objective of a batch; `rows` (B,) says which digits it holds."""


def load() -> tuple[Tensor, Tensor]:
    """The images (1797, 64), from 0 (white) to 1, and what each was meant as (1797,); shuffled, always in one way."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    pixels, digits = load_digits(return_X_y=True)
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    return torch.tensor(pixels / 16, dtype=torch.float32)[order], torch.tensor(digits)[order]


def network(width: int, seed: int) -> nn.Sequential:
    """A hidden layer of `width` units; logits for ten classes."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, CLASSES))


def fit(model: nn.Module, images: Tensor, rows: Tensor, loss: Loss, *, seed: int, steps: int, rate: float) -> nn.Module:
    """Train a model in `steps` batches of 64 rows, drawn with replacement, by Adam at a learning rate.

    Returns:
        The model that came in.
    """
    optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (64,), generator=generator)]
        optimizer.zero_grad()
        loss(model(images[batch]), batch).backward()
        optimizer.step()
    return model


def train_teacher(images: Tensor, labels: Tensor) -> nn.Module:
    """The teacher of lesson 03: 128 hidden units, and the labels of the training digits."""
    rows = torch.arange(TRAIN_ROWS)
    return fit(
        network(128, seed=0), images, rows, lambda logits, batch: F.cross_entropy(logits, labels[batch]),
        seed=0, steps=600, rate=3e-3,
    )  # fmt: skip
