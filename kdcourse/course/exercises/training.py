"""Watch somebody's training loop from outside: what student and teacher are shown, and which gradient comes back.

A loop is `distill(student, teacher, images, labels, *, alpha, temperature, steps, seed)`, and trains the student that
it is given. In a few steps hooks on the two networks see most of it; what a training is worth, 300 steps show.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from kdcourse.course.exercises.exercise import Function
from kdcourse.course.exercises.logits import one_hot, softened
from kdcourse.labs import digits

MISSING = 3
"""The digit that no student sees."""
STEPS = 300
ROWS, RATE = 64, 0.01
"""Of a batch, and of Adam."""


@dataclass(frozen=True)
class Task:
    """The digits of lesson 03: those that a student learns from, without a single 3, and those that test it."""

    teacher: nn.Module
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@cache
def task() -> Task:
    """Loaded, and its teacher trained, once."""
    images, labels = digits.load()
    known = torch.arange(digits.TRAIN_ROWS)
    known = known[labels[known] != MISSING]
    test = slice(digits.TRAIN_ROWS, None)
    return Task(digits.train_teacher(images, labels), images[known], labels[known], images[test], labels[test])


def new_student(seed: int = 100) -> nn.Sequential:
    """Untrained, and in eval mode, as somebody leaves it who has just looked at its answers."""
    with torch.random.fork_rng():
        return digits.network(32, seed).eval()


@dataclass
class Step:
    """One batch that a student learned from."""

    inputs: Tensor
    logits: Tensor
    training: bool
    gradient: Tensor | None = None
    """Of the loss, with respect to the logits."""
    left_over: bool = False
    """Whether a parameter held another step's gradient when this one's arrived."""


@dataclass
class Watched:
    """What was seen of a training of a few steps."""

    teacher: nn.Module
    steps: list[Step] = field(default_factory=list)
    teacher_modes: list[bool] = field(default_factory=list)
    """For each time that it was asked, whether it was in train mode."""


def watch(distill: Function, steps: int = 1, alpha: float = 0.5, temperature: float = 4.0) -> Watched:
    """Let a loop run for a few steps, with a teacher of its own in train mode, and labels that it disagrees with."""
    student, teacher = new_student(), copy.deepcopy(task().teacher).train()
    seen = Watched(teacher)
    student.register_forward_hook(lambda module, inputs, logits: _see_student(seen, module, inputs[0], logits))
    teacher.register_forward_hook(lambda module, *_: seen.teacher_modes.append(module.training))
    for parameter in student.parameters():
        parameter.register_hook(lambda _, leaf=parameter: _see_left_over(seen, leaf))
    settings = {"alpha": alpha, "temperature": temperature, "steps": steps, "seed": 0}
    distill(student, teacher, task().images, other_labels(), **settings)
    return seen


def other_labels() -> Tensor:
    """Each the next digit, so that what the labels say is not what a good teacher says."""
    return (task().labels + 1) % digits.CLASSES


def _see_student(seen: Watched, student: nn.Module, inputs: Tensor, logits: Tensor) -> None:
    """A forward pass counts if something may be learned from it."""
    if not logits.requires_grad:
        return
    step = Step(inputs.detach(), logits.detach().clone(), student.training)
    seen.steps.append(step)

    def add(gradient: Tensor) -> None:  # once for each `backward()`, of which a loop may have two
        step.gradient = gradient.detach().clone() if step.gradient is None else step.gradient + gradient.detach()

    logits.register_hook(add)


def _see_left_over(seen: Watched, leaf: Tensor) -> None:
    """Called before a gradient is added; two `backward()` of one step add up, and those of two steps must not."""
    step = seen.steps[-1]
    is_first = getattr(leaf, "_step", None) is not step
    leaf._step = step  # type: ignore[attr-defined]
    step.left_over |= is_first and leaf.grad is not None and bool(leaf.grad.any())


def learned(distill: Function, **settings: Any) -> Callable[[Tensor], Tensor]:
    """Train a new student, and return what it answers: (N, 64) to (N,)."""
    student = new_student()
    options: dict[str, Any] = {"alpha": 0.5, "temperature": 4.0, "steps": STEPS, "seed": 0} | settings
    distill(student, copy.deepcopy(task().teacher).train(), task().images, task().labels, **options)
    with torch.no_grad():
        return lambda images: student.eval()(images).argmax(-1)


# ---------------------------------------------------------------------------------------------------------------------
# What is broken, in words; "" if nothing


def number_of_steps(distill: Function) -> str:
    seen = len(watch(distill, steps=3).steps)
    return "" if seen == 3 else f"asked for 3 steps, the student learns from {seen} batches"  # noqa: PLR2004


def rows_of_a_batch(distill: Function) -> str:
    """Of the first 3; what is left at the end of an epoch may be fewer."""
    others = [len(step.inputs) for step in watch(distill, steps=3).steps if len(step.inputs) != ROWS]
    return f"a batch has {others[0]} rows; {ROWS} are asked for" if others else ""


def nothing_learned(distill: Function) -> str:
    """Where a step of the optimizer is missing, or a copy was trained."""
    return "its weights are as they were" if _is_untrained(_weights_after(distill, 0)) else ""


def size_of_a_step(distill: Function) -> str:
    """The first step of Adam changes each weight by its rate, whatever the gradient; AdamW and NAdam hardly differ."""
    change = (_weights_after(distill, 0, steps=1) - _weights_of(new_student())).abs().max().item()
    if change == 0 or abs(change - RATE) < 0.2 * RATE:
        return ""
    return f"the first step changes a weight by up to {change:.4f}; Adam at a rate of {RATE:g} changes it by {RATE:.4f}"


def gradients_left_over(distill: Function) -> str:
    late = sum(step.left_over for step in watch(distill, steps=3).steps)
    return f"in {late} of 3 steps a gradient is added to that of the step before" if late else ""


def mode_of_the_student(distill: Function) -> str:
    wrong = sum(not step.training for step in watch(distill, steps=3).steps)
    return f"it comes in eval mode, and learns in eval mode in {wrong} of 3 steps" if wrong else ""


def mode_of_the_teacher(distill: Function) -> str:
    modes = watch(distill).teacher_modes
    if not modes:
        return "nobody asks it anything"
    return "it comes in train mode, and answers in train mode" if any(modes) else ""


def trace_in_the_teacher(distill: Function) -> str:
    teacher = watch(distill, steps=3).teacher
    if any(not torch.equal(*pair) for pair in zip(teacher.parameters(), task().teacher.parameters(), strict=True)):
        return "its weights are others than before"
    return "it holds a gradient" if any(each.grad is not None for each in teacher.parameters()) else ""


def weights_in_the_gradient(alpha: float, temperature: float) -> Callable[[Function], str]:
    """Of which mixture of the two terms is the gradient of the first step?"""

    def broken(distill: Function) -> str:
        steps = watch(distill, alpha=alpha, temperature=temperature).steps
        if not steps or steps[0].gradient is None:
            return "no gradient reaches the student"
        labels, teacher, rest = _weights(steps[0], temperature)
        if rest < 0.02:  # noqa: PLR2004
            return _said_of_weights(labels, teacher, alpha)
        if _weights(steps[0], temperature, of_answers=True)[2] < 0.02:  # noqa: PLR2004
            return "the teacher's likeliest class is taken for one more label"
        return f"no weights of the two terms give your gradient; {rest:.0%} of it is left over"

    return broken


def _weights(step: Step, temperature: float, of_answers: bool = False) -> tuple[float, float, float]:
    """Of the labels, of the teacher, and the share of the gradient that no weights explain: by least squares.

    With `of_answers`, the teacher is taken for what it says in one word.
    """
    rows = (step.inputs[:, None] == task().images).all(-1).double().argmax(-1)
    with torch.no_grad():
        of_teacher = task().teacher.eval()(step.inputs).double()
    logits, labels = step.logits.double(), other_labels()[rows]
    by_labels = logits.softmax(-1) - one_hot(labels, logits)
    by_teacher = temperature * (softened(logits, temperature) - softened(of_teacher, temperature))
    if of_answers:
        by_teacher = logits.softmax(-1) - one_hot(of_teacher.argmax(-1), logits)
    terms = torch.stack([by_labels.flatten(), by_teacher.flatten()], dim=-1) / len(logits)
    gradient = (step.gradient if step.gradient is not None else torch.zeros_like(logits)).double().flatten()
    weights = torch.linalg.lstsq(terms, gradient[:, None]).solution[:, 0]
    rest = (gradient - terms @ weights).norm() / gradient.norm().clamp(min=1e-12)
    return weights[0].item(), weights[1].item(), rest.item()


def _said_of_weights(labels: float, teacher: float, alpha: float) -> str:
    if abs(labels - alpha) < 0.01 and abs(teacher - (1 - alpha)) < 0.01:  # noqa: PLR2004
        return ""
    return f"the labels weigh {labels:z.2f} and the teacher {teacher:z.2f}; {alpha:g} and {1 - alpha:g} are asked for"


def share_of_the_missing(least: float) -> Callable[[Function], str]:
    def broken(distill: Function) -> str:
        share = _recall(learned(distill))
        return "" if share >= least else f"it calls {share:.0%} of them a {MISSING}; {least:.0%} are asked for"

    return broken


def missing_from_labels_alone(distill: Function) -> str:
    share = _recall(learned(distill, alpha=1.0))
    return f"it calls {share:.0%} of them a {MISSING}; no label says so" if share > 0.02 else ""  # noqa: PLR2004


def learned_from_labels_alone(distill: Function) -> str:
    answer, labels = learned(distill, alpha=1.0), task().test_labels
    right = (answer(task().test_images) == labels)[labels != MISSING].double().mean().item()
    return "" if right > 0.9 else f"it names {right:.0%} of the other digits; more than 90% are asked for"  # noqa: PLR2004


def say_of_the_seed(distill: Function) -> str:
    """The batches hang on the seed and on nothing else, whatever was drawn before."""
    first, again, another = (
        _weights_after(distill, seed, drawn_before) for seed, drawn_before in ((0, 1), (0, 2), (1, 1))
    )
    if _is_untrained(first):
        return ""
    if not torch.equal(first, again):
        return "two trainings with one seed end in two students"
    return "two seeds give one and the same student" if torch.equal(first, another) else ""


def _weights_after(distill: Function, seed: int, drawn_before: int = 1, steps: int = 3) -> Tensor:
    student = new_student()
    with torch.random.fork_rng():
        torch.manual_seed(drawn_before)
        options = {"alpha": 0.5, "temperature": 4.0, "steps": steps, "seed": seed}
        distill(student, copy.deepcopy(task().teacher), task().images, task().labels, **options)
    return _weights_of(student)


def _weights_of(student: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(student.parameters()).detach()


def _is_untrained(weights: Tensor) -> bool:
    return torch.equal(weights, _weights_of(new_student()))


def _recall(answer: Callable[[Tensor], Tensor]) -> float:
    return (answer(task().test_images[task().test_labels == MISSING]) == MISSING).double().mean().item()
