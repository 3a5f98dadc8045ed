"""Short trainings whose fault is known: their logs are what exercise 04.fault asks about.

Each seed draws a task of its own: what classes are, a teacher that knows them, and a student that begins knowing
nothing. A run is a tenth of a second or less, and is kept.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.course.exercises.logits import soft_term

FAULTS = (
    "healthy",
    "alpha turned round",
    "T squared missing",
    "hard term softened",
    "labels shuffled",
    "teacher never loaded",
    "student is its own teacher",
    "learning rate too high",
)

ALPHA, TEMPERATURE, CLASSES = 0.3, 4.0, 5
STEPS, EVERY, BATCH, RATE = 100, 10, 64, 0.08

Log = list[dict[str, float]]
"""What a Trainer keeps in `log_history`: a dictionary every 10 steps."""


class Examples(NamedTuple):
    """Inputs (N, D), their labels (N,), and what a teacher says of them (N, C)."""

    inputs: Tensor
    labels: Tensor
    teacher_logits: Tensor


def play(fault: str, seed: int) -> Log:
    """The log of a new run with this fault: "step", "loss", "hard_loss", "soft_loss", "eval_accuracy".

    The losses, in nats, are those that the loop computes, mistake included, of all its own examples; the accuracy,
    between 0 and 1, is that on others. alpha is 0.3, T is 4, and there are five classes, about equally frequent.

    Raises:
        ValueError: there is no such fault.
    """
    if fault not in FAULTS:
        raise ValueError(f"There is no fault {fault!r}; there are {', '.join(map(repr, FAULTS))}.")
    return [dict(line) for line in _played(fault, seed)]


def mystery(number: int) -> Log:
    """The log of a run whose fault the number draws, and nobody says which."""
    generator = torch.Generator().manual_seed(7000 + number)
    return play(FAULTS[int(torch.randint(len(FAULTS), (), generator=generator))], 7000 + number)


@cache
def _played(fault: str, seed: int) -> Log:
    generator = torch.Generator().manual_seed(seed)
    own, new = _draw_task(fault, generator)
    weights = torch.zeros(own.inputs.shape[1], CLASSES, requires_grad=True)
    rate = RATE * (50 if fault == "learning rate too high" else 1)
    log: Log = []
    for step in range(STEPS + 1):
        rows = torch.randint(len(own.labels), (BATCH,), generator=generator)
        if step % EVERY == 0:
            with torch.no_grad():
                log.append(_line(step, fault, weights, own, new))
        loss, _, _ = _losses(fault, own.inputs[rows] @ weights, own.labels[rows], own.teacher_logits[rows])
        (gradient,) = torch.autograd.grad(loss, weights)
        weights = (weights - rate * gradient).detach().requires_grad_()
    return log


def _line(step: int, fault: str, weights: Tensor, own: Examples, new: Examples) -> dict[str, float]:
    loss, hard, soft = (part.item() for part in _losses(fault, own.inputs @ weights, own.labels, own.teacher_logits))
    right = ((new.inputs @ weights).argmax(-1) == new.labels).double().mean().item()
    return {"step": step, "loss": loss, "hard_loss": hard, "soft_loss": soft, "eval_accuracy": right}


def _losses(fault: str, student: Tensor, labels: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mixture, and its two terms, as a loop with this fault computes them."""
    if fault == "student is its own teacher":
        teacher = student.detach()
    hard = F.cross_entropy(student / TEMPERATURE if fault == "hard term softened" else student, labels)
    soft = soft_term(student, teacher, TEMPERATURE) / (TEMPERATURE**2 if fault == "T squared missing" else 1)
    alpha = 1 - ALPHA if fault == "alpha turned round" else ALPHA
    return alpha * hard + (1 - alpha) * soft, hard, soft


def _draw_task(fault: str, generator: torch.Generator) -> tuple[Examples, Examples]:
    """Classes around centres of their own; the teacher knows them, and is more or less sure of it."""
    centres = torch.randn(12, CLASSES, generator=generator)
    sure = 0.3 + 0.3 * torch.rand((), generator=generator)

    def draw(count: int) -> Examples:
        labels = torch.randint(CLASSES, (count,), generator=generator)
        inputs = centres.T[labels] + 1.3 * torch.randn(count, 12, generator=generator)
        logits = sure * (inputs @ centres - centres.square().sum(0) / 2)
        return Examples(torch.cat([inputs, torch.ones(count, 1)], dim=-1), labels, logits)

    own, new = draw(400), draw(400)
    if fault == "labels shuffled":
        own = own._replace(labels=own.labels[torch.randperm(400, generator=generator)])
    if fault == "teacher never loaded":
        own = own._replace(teacher_logits=0.2 * own.inputs @ torch.randn(13, CLASSES, generator=generator))
    return own, new
