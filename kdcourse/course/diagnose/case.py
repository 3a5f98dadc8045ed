"""Which shape a loss wants, which positions teach, and which formula it then is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kdcourse.course.diagnose.batches import Batch, Shape, draw
from kdcourse.course.diagnose.foreign import FEEDS, CannotCallError, ForeignLoss
from kdcourse.course.diagnose.search import (
    NOTHING,
    SOFT_RULES,
    Coefficients,
    Formula,
    Layout,
    Setting,
    coefficients,
    evaluate,
    explain,
)

ROWS: Shape = (6, 5)
TOKENS: Shape = (3, 7, 5)
MOVED = 1e-9
"""By what share a number moves that is not the same."""
BY_TEXT = (("hard", "soft"), ("soft",), ("hard",))
FULL_RULES = ("all", "all_but_last", "all_but_two")
"""Where the teacher may teach if every token has a label."""


@dataclass(frozen=True)
class Case:
    """A loss, the shape that it is tried with, and what it was found to be."""

    loss: ForeignLoss
    shape: Shape
    formula: Formula | None
    masked: Layout | None = None
    """Which rows teach where labels are missing; None if that is not known."""

    @property
    def setting(self) -> Setting:
        return Setting(self.shape)

    @property
    def is_tokens(self) -> bool:
        return len(self.shape) == len(TOKENS)

    @property
    def knows_labels(self) -> bool:
        return self.loss.has("labels") or self.loss.has("mask")

    def value_of(self, batch: Batch) -> Tensor:
        """What it gives for a batch: a number, or one for each row."""
        return evaluate(self.loss, self.setting, batch)

    def value(self, batch: Batch, **settings: Any) -> Tensor:
        """The loss of a batch, as one number."""
        return evaluate(self.loss, replace(self.setting, **settings), batch).sum()

    def gradient(self, value: Tensor, logits: Tensor) -> Tensor:
        """That of a value of the loss; 0 if they do not reach it."""
        return self.loss.gradients(value, logits)[0]

    def coefficients(self, layout: Layout | None = None, **settings: Any) -> Coefficients | None:
        """Those of the formula in another setting; None if it does not hold there."""
        if self.formula is None:
            return None
        formula = replace(self.formula, layout=layout or self.formula.layout)
        try:
            return coefficients(self.loss, formula, replace(self.setting, **settings))
        except CannotCallError:
            return None

    @cached_property
    def soft_only(self) -> float:
        """The weight at which the teacher speaks alone, or nearly; the middle if there is none."""
        if not self.loss.has("weight"):
            return Setting.weight
        at_0, at_1 = (self.coefficients(weight=weight) for weight in (0.0, 1.0))
        if at_0 and at_0.soft and not at_0.hard:
            return 0.0
        return 1.0 if at_1 and at_1.soft and not at_1.hard else Setting.weight


def find_case(loss: ForeignLoss) -> Case:
    """The shape and the input under which a formula fits; without one, the first that the loss can be called with.

    A mistake with logits is one, and with another input only if nothing right fits any: F.kl_div itself is given
    log-probabilities by its callers.

    Raises:
        CannotCallError: it cannot be called with either shape.
    """
    first: Case | None = None
    mistaken: tuple[str, Case] | None = None
    stopped: dict[str, str] = {}
    shapes = (TOKENS, ROWS) if loss.has("mask") else (ROWS, TOKENS)
    for feed, shape in itertools.product(FEEDS, shapes):
        loss.feed = feed
        try:
            case = _try(loss, shape)
        except CannotCallError as error:
            stopped.setdefault(" × ".join(map(str, shape)), str(error))
            continue
        if is_rounded(case):
            return case
        if case.formula and (feed == "logits" or not case.formula.is_mistake):
            return case
        if case.formula and not case.formula.is_of_the_input:
            mistaken = mistaken or (feed, case)
        first = first or case
    if mistaken is not None:
        loss.feed, case = mistaken
        return case
    loss.feed = "logits"
    if first is None:
        raise CannotCallError("; ".join(f"given logits of {shape}, {said}" for shape, said in stopped.items()) + ".")
    return first


def is_rounded(case: Case) -> bool:
    """Whether the loss computes in 16 bits whatever it is given, so that small moves of all logits are lost."""
    if case.formula is not None:
        return False
    batch = draw(case.shape)
    moved = [replace(batch, student=batch.student + 1e-5 * draw(case.shape, seed).student) for seed in range(1, 4)]
    values = [case.value(each).item() for each in (batch, *moved)]
    if case.value(replace(batch, student=draw(case.shape, len(values)).student)).item() == values[0]:
        return False  # the student has no say at all
    return abs(values[0]) > NOTHING and all(map(math.isfinite, values)) and len(set(values)) < len(values)


def _try(loss: ForeignLoss, shape: Shape) -> Case:
    case = Case(loss, shape, None)
    evaluate(loss, case.setting, draw(shape))
    layouts = list(layouts_of(case)) if case.is_tokens else [Layout()]
    formula = explain(loss, case.setting, layouts)
    case = replace(case, formula=formula)
    return replace(case, masked=masked_layout(case)) if formula else case


def layouts_of(case: Case) -> Iterator[Layout]:
    """Those that agree with which positions are heard; all labels are there."""
    batch = draw(case.shape)
    heard = teacher_heard(case, batch)
    rules = [rule for rule in FULL_RULES if torch.equal(SOFT_RULES[rule](batch.labelled), heard)]
    offsets = sorted(offsets_heard(case, batch)) or [0]
    for rule in rules or ["all"]:
        for offset in offsets:
            if offset >= 0:
                yield Layout(rule, offset)


def teacher_heard(case: Case, batch: Batch) -> Tensor:
    """For each row, whether the loss moves with the teacher's logits there."""
    before = case.value(batch)
    heard = torch.zeros_like(batch.labelled)
    for index in _indices(batch):
        teacher = batch.teacher.clone()
        teacher[index] = teacher[index].flip(-1)
        after = case.value(replace(batch, teacher=teacher))
        heard[index] = not torch.allclose(before, after, rtol=MOVED, atol=1e-12, equal_nan=True)
    return heard


def offsets_heard(case: Case, batch: Batch) -> set[int]:
    """By how many positions the logits that a label moves stand before it."""
    if not case.loss.has("labels"):
        return set()
    try:
        before = _student_gradient(case, batch)
        found = set()
        for index in _indices(batch):
            labels = batch.labels.clone()
            labels[index] = (labels[index] + 1) % case.shape[-1]
            moved = (_student_gradient(case, replace(batch, labels=labels)) - before).abs().sum(-1) > MOVED
            found |= {index[-1] - place[-1] for place in moved.nonzero().tolist()}
        return found
    except (CannotCallError, RuntimeError):
        return set()


def _student_gradient(case: Case, batch: Batch) -> Tensor:
    trial = batch.with_gradient()
    return case.gradient(case.value(trial), trial.student)


def _indices(batch: Batch) -> list[tuple[int, ...]]:
    return [tuple(place) for place in torch.ones_like(batch.labels).nonzero().tolist()]


def masked_layout(case: Case) -> Layout | None:
    """The layout that holds where labels are missing, too."""
    if case.formula is None or not case.knows_labels:
        return None
    layout = case.formula.layout
    batch = draw(case.shape, missing=True)
    try:
        heard = teacher_heard(case, batch)
        if not case.value(batch).isfinite():
            return None
    except CannotCallError:
        return None
    rules = [rule for rule, counted in SOFT_RULES.items() if torch.equal(counted(batch.labelled), heard)]
    if not case.formula.soft:
        rules = [layout.soft]
    for rule in rules:
        by_text = [{"by_text": terms} for terms in BY_TEXT] if case.is_tokens else []
        for changes in (dict[str, Any](), {"ignores": False}, *by_text):
            found = replace(layout, soft=rule, **changes)
            if case.coefficients(found, missing=True):
                return found
    return None
