"""The search: which terms a loss is a sum of, and with which coefficients.

A loss is a · hard + b · soft, where hard and soft are sums over rows of something that is known, and a and b do not
depend on the logits. So for several random pairs its values lie on a plane, and least squares finds the pair of terms
with which nothing is left over. What a and b do when rows, classes, T or the weight change says the rest: the divisor,
the power of T, and whose the weight is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kdcourse.course.diagnose.batches import Batch, Shape, draw_many, stack
from kdcourse.course.diagnose.candidates import HARD, KNOWN, OF_THE_INPUT, Soft, hard_rows, soft_terms
from kdcourse.course.diagnose.foreign import ForeignLoss

PAIRS = 8
"""Random pairs for each fit: more than there are coefficients."""
EXACT = 1e-6
"""What may be left over, as a share of the loss; some compute in float32."""
NOTHING = 1e-12
"""A loss that is 0, but for rounding."""
BUILT_IN_TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 5.0, 1.5, 2.5, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 0.5)


@dataclass(frozen=True)
class Setting:
    """What a loss is called with, but for the logits."""

    shape: Shape
    temperature: float = 2.0
    weight: float = 0.3
    beta: float = 0.3
    missing: bool = False

    def batches(self) -> list[Batch]:
        return draw_many(self.shape, PAIRS, missing=self.missing)


@dataclass(frozen=True)
class Layout:
    """Which rows teach: `soft` is a rule of SOFT_RULES; a label teaches the logits `offset` positions before it."""

    soft: str = "all"
    offset: int = 0
    by_text: tuple[str, ...] = ()
    """Of which terms, hard or soft, each text is averaged on its own first."""
    ignores: bool = True
    """Rows without a label are no part of the hard term; if not, they are taken for class 0."""


def _next(labelled: Tensor, positions: int) -> Tensor:
    """Whether the label so many positions later is there; False at the end."""
    moved = torch.zeros_like(labelled)
    moved[..., : labelled.shape[-1] - positions] = labelled[..., positions:]
    return moved


SOFT_RULES = {
    "all": torch.ones_like,
    "labelled": lambda labelled: labelled,
    "next_labelled": lambda labelled: _next(labelled, 1),
    "all_but_last": lambda labelled: _next(torch.ones_like(labelled), 1),
    "all_but_two": lambda labelled: _next(torch.ones_like(labelled), 2),
    "next_but_one_labelled": lambda labelled: _next(labelled, 2),
    "labelled_but_last": lambda labelled: labelled & _next(torch.ones_like(labelled), 1),
}
"""From (..., positions), whether there is a label, to whether the teacher teaches there."""


@dataclass(frozen=True)
class Formula:
    """A sum of terms, whose coefficients a fit finds."""

    hard: str | None
    smoothed: bool
    soft: Soft | None
    layout: Layout
    temperature: float | None = None
    """The one that is built in, if it is no argument."""

    @property
    def is_mistake(self) -> bool:
        """Whether nobody can mean it."""
        soft = self.soft
        return soft is not None and (KNOWN[soft.divergence].mistake or soft.softened not in ("both", "neither"))

    @property
    def is_of_the_input(self) -> bool:
        """Whether it is what comes of another input than the loss wants."""
        return self.soft is not None and self.soft.divergence in OF_THE_INPUT

    def columns(self, batch: Batch, temperature: float) -> list[Tensor]:
        """The sum of each term, for each batch of a stack."""
        at = self.temperature or temperature
        labelled = batch.labelled
        columns = []
        if self.hard:
            known = batch if self.layout.ignores else replace(batch, labels=batch.labels.clamp(min=0))
            surprise, uniform = hard_rows(self.hard, known, at, self.layout.offset)
            counted = known.labelled[..., self.layout.offset :]
            columns += [
                _total(part, counted, "hard" in self.layout.by_text)
                for part in (surprise, uniform)[: 1 + self.smoothed]
            ]
        if self.soft:
            counted = SOFT_RULES[self.layout.soft](labelled)
            columns.append(_total(self.soft.rows(batch, at), counted, "soft" in self.layout.by_text))
        return columns


def _total(rows: Tensor, counted: Tensor, by_text: bool) -> Tensor:
    """The sum over the rows that count, one for each batch; or of each text's mean."""
    rows = torch.where(counted, rows, torch.zeros_like(rows))
    if by_text:
        return (rows.sum(-1) / counted.sum(-1).clamp(min=1)).flatten(1).sum(1)
    return rows.flatten(1).sum(1)


@dataclass(frozen=True)
class Coefficients:
    """What a fit found: `hard` and `soft` before the sums of their terms, and how much a label is smoothed."""

    hard: float
    soft: float
    smoothing: float = 0.0


Special = Mapping[str, Any]
"""By their roles, the classes that are allowed, and how many tokens both models know (see `ForeignLoss`)."""


def values_of(loss: ForeignLoss, setting: Setting, batches: Sequence[Batch], special: Special | None = None) -> Tensor:
    """The loss of each batch; what comes per row is added up."""
    return torch.stack([evaluate(loss, setting, batch, special).detach().double().sum() for batch in batches])


def evaluate(loss: ForeignLoss, setting: Setting, batch: Batch, special: Special | None = None) -> Tensor:
    return loss(batch, special, temperature=setting.temperature, weight=setting.weight, beta=setting.beta)


def coefficients(loss: ForeignLoss, formula: Formula, setting: Setting) -> Coefficients | None:
    """Those of a formula in a setting; None if it does not fit there, or the loss cannot be called."""
    batches = setting.batches()
    if formula.soft and formula.soft.beta is not None and loss.has("beta"):
        formula = replace(formula, soft=replace(formula.soft, beta=_moved_beta(formula.soft.beta, setting.beta)))
    values = values_of(loss, setting, batches)
    return named(fit(formula.columns(stack(batches), setting.temperature), values), formula)


def _moved_beta(found: float, now: float) -> float:
    """A beta of 0.7 that was found at 0.3 is 1 - beta."""
    return now if found == Setting.beta else 1 - now


def named(numbers: Tensor | None, formula: Formula) -> Coefficients | None:
    """The numbers of a fit by their names."""
    if numbers is None:
        return None
    found = numbers.tolist()
    soft = found.pop() if formula.soft else 0.0
    hard = sum(found)
    smoothing = found[1] / hard if formula.smoothed and hard else 0.0
    return Coefficients(hard, soft, smoothing)


def fit(columns: Sequence[Tensor], values: Tensor) -> Tensor | None:
    """The coefficients with which nothing is left over; None if something is."""
    if not columns:
        return None
    fits, found = fit_many(torch.stack(list(columns), -1)[None], values)
    return found[0] if fits[0] else None


def fit_many(matrices: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """For each of (many, values, columns): whether nothing is left over, and the coefficients."""
    finite = matrices.isfinite().all(-1).all(-1) & values.isfinite().all()
    matrices = torch.where(finite[:, None, None], matrices, torch.zeros_like(matrices))
    sizes = matrices.norm(dim=1, keepdim=True).clamp(min=1e-300)
    right = values.nan_to_num().expand(len(matrices), -1)[..., None]
    found = torch.linalg.lstsq(matrices / sizes, right, driver="gelsd").solution
    left = ((matrices / sizes) @ found - right).abs().amax((1, 2))
    small = found.squeeze(-1).abs() < EXACT * values.nan_to_num().norm()
    coefficients = torch.where(small, torch.zeros_like(small, dtype=found.dtype), found.squeeze(-1) / sizes.squeeze(1))
    size = values.abs().max()
    return finite & (left <= EXACT * size) & (size > NOTHING), coefficients


def explain(loss: ForeignLoss, setting: Setting, layouts: Sequence[Layout]) -> Formula | None:
    """The simplest formula that fits; None if none does."""
    batches = setting.batches()
    values = values_of(loss, setting, batches)
    if not values.isfinite().all():
        return None
    stacked = stack(batches)
    betas = [setting.beta, 1 - setting.beta] if loss.has("beta") else []
    temperatures = [None] if loss.has("temperature") else BUILT_IN_TEMPERATURES if loss.feed == "logits" else [1.0]
    for layout, built_in in itertools.product(layouts, temperatures):
        nothing = Formula(None, False, None, layout, built_in)
        if found := _first_that_fits(loss, nothing, betas, setting, stacked, values):
            return found
    return None


def _first_that_fits(
    loss: ForeignLoss, nothing: Formula, betas: Sequence[float], setting: Setting, batch: Batch, values: Tensor
) -> Formula | None:
    """The teacher's terms in their order; beside each, no labels' term before every other."""
    kinds = [(kind, smoothed) for smoothed in (False, True) for kind in HARD] if loss.has("labels") else []
    hards = [replace(nothing, hard=kind, smoothed=smoothed) for kind, smoothed in kinds]
    hard_columns = [each.columns(batch, setting.temperature) for each in hards]
    for formula, columns in zip(hards, hard_columns, strict=True):
        if fit(columns, values) is not None:
            return formula
    softs = soft_terms(betas, built_in=nothing.temperature is not None)
    soft_columns = torch.stack([replace(nothing, soft=soft).columns(batch, setting.temperature)[0] for soft in softs])
    best: tuple[int, Formula] | None = None
    for formula, columns in zip([nothing, *hards], [[], *hard_columns], strict=True):
        beside = [column.expand(len(softs), -1) for column in columns]
        fits, _ = fit_many(torch.stack([*beside, soft_columns], -1), values)
        if fits.any():
            place = int(fits.nonzero()[0])
            if best is None or place < best[0]:
                best = place, replace(formula, soft=softs[place])
    return best[1] if best else None
