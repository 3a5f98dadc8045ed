"""A training step and an evaluation outside any Trainer, in float64, from the formulas alone."""

import copy
from typing import NamedTuple

import torch
from shapes import is_language_model, make_collator, make_model, weights_of

IGNORED = -100
LEARNING_RATE = 0.1


class Losses(NamedTuple):
    total: torch.Tensor
    hard: torch.Tensor
    soft: torch.Tensor


def objective(student, teacher, labels, shape, alpha=0.4, temperature=2.0):
    """alpha · CE + (1 − alpha) · T² · KL(teacher ‖ student), each over the rows or tokens that it is for."""
    if is_language_model(shape):
        taught = labels[:, 1:] != IGNORED
        student, teacher, labels = student[:, :-1][taught], teacher[:, :-1][taught], labels[:, 1:][taught]
    log_p = (student / temperature).log_softmax(-1)
    q = (teacher / temperature).softmax(-1)
    soft = temperature**2 * (q * (q.log() - log_p)).sum(-1).mean()
    has_label = labels != IGNORED
    hard = -student[has_label].log_softmax(-1).gather(1, labels[has_label, None]).mean()
    return Losses(alpha * hard + (1 - alpha) * soft, hard, soft)


def losses(shape, rows, student, teacher, **settings):
    """All rows in one padded batch."""
    batch = make_collator(shape)(list(rows))
    ask = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        taught = teacher.double().eval()(**ask).logits
    return objective(student.double()(**ask).logits, taught, batch["labels"], shape, **settings)


def step(shape, rows, *, student=None, teacher=None, **settings):
    """The losses before one step of gradient descent on all rows, and the student's weights after it."""
    student = copy.deepcopy(student or make_model(shape)).double().train()
    teacher = copy.deepcopy(teacher or make_model(shape, seed=1))
    loss = losses(shape, rows, student, teacher, **settings)
    loss.total.backward()
    for weight in student.parameters():
        if weight.grad is not None:
            weight.data -= LEARNING_RATE * weight.grad
    return Losses(*(term.detach() for term in loss)), weights_of(student)


def distance(weights, expected, start):
    """How far two steps from one start lie apart, as a share of the step."""
    length = (expected - start).norm()
    assert length > 0
    return ((weights.double() - expected).norm() / length).item()
