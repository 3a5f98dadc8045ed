"""What the exercises of several lessons do with logits: write them down, soften them, compare them row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.divergence import forward_kl

AUTOGRAD = (torch.autograd.grad, Tensor.backward, torch.autograd.backward)
"""What differentiates, and is not called where a gradient is to be written in closed form."""


def float64(values: Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def softened(logits: Tensor, temperature: float) -> Tensor:
    return (logits / temperature).softmax(-1)


def one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    """The labels as probabilities, for as many classes as the logits have."""
    return F.one_hot(labels, logits.shape[-1]).to(logits)


def kl_terms(student: Tensor, teacher: Tensor, log_target: bool = False) -> Tensor:
    """`F.kl_div` without its sum: one number per class."""
    return F.kl_div(student, teacher, reduction="none", log_target=log_target)


def kl_per_row(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher ‖ student) in nats, at temperature 1."""
    return forward_kl(student_logits.log_softmax(-1), teacher_logits.log_softmax(-1))


def soft_term(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² times the mean KL(teacher ‖ student) at temperature T."""
    return temperature**2 * kl_per_row(student_logits / temperature, teacher_logits / temperature).mean()
