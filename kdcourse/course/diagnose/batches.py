"""Random students, teachers and labels to try a loss with: float64, the same in every run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdcourse.checks import IGNORED_LABEL

Shape = tuple[int, ...]
"""(rows, classes), or (texts, tokens, vocabulary)."""


@dataclass(frozen=True)
class Batch:
    """Logits of a shape, and a label for each row of them; or several such batches in a stack."""

    student: Tensor
    teacher: Tensor
    labels: Tensor

    @property
    def labelled(self) -> Tensor:
        return self.labels != IGNORED_LABEL

    def cast(self, dtype: torch.dtype) -> Batch:
        return replace(self, student=self.student.to(dtype), teacher=self.teacher.to(dtype))

    def with_gradient(self) -> Batch:
        student, teacher = (logits.detach().clone().requires_grad_() for logits in (self.student, self.teacher))
        return replace(self, student=student, teacher=teacher)


def draw(shape: Shape, seed: int = 0, *, missing: bool = False, scale: float = 2.0) -> Batch:
    """A batch of independent normal logits; if labels are missing, each text (or batch of rows) lacks others."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(shape[-1], shape[:-1], generator=generator)
    if missing:
        labels = labels.masked_fill(_missing(labels.shape), IGNORED_LABEL)
    return Batch(student, teacher, labels)


def draw_many(shape: Shape, number: int, *, missing: bool = False) -> list[Batch]:
    return [draw(shape, seed, missing=missing) for seed in range(number)]


def stack(batches: list[Batch]) -> Batch:
    """All of them in one, along a new first dimension."""
    parts = zip(*((batch.student, batch.teacher, batch.labels) for batch in batches), strict=True)
    return Batch(*(torch.stack(part) for part in parts))


def _missing(shape: torch.Size) -> Tensor:
    """A prompt at the front and padding at the end, longer in every text; of rows, the second and the last two."""
    positions = torch.arange(shape[-1])
    if len(shape) == 1:
        return (positions == 1) | (positions >= shape[-1] - 2)
    texts = torch.arange(shape[0])[:, None]
    return (positions < 2 + texts % 2) | (positions >= shape[-1] - 1 - texts % 3)
