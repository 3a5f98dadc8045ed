"""Logits that mean nothing: of models that are not equally wide, and of classes that a mask rules out.

A loss is given such logits, and what it gives is held against its own formula of logits that were treated in each of
the usual ways: cut, filled, or cut when the softmax had already counted them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.course.diagnose.batches import Batch, draw_many, stack
from kdcourse.course.diagnose.case import Case
from kdcourse.course.diagnose.foreign import CannotCallError
from kdcourse.course.diagnose.report import Finding, Level
from kdcourse.course.diagnose.search import PAIRS, SOFT_RULES, Formula, evaluate, fit, values_of

Columns = Callable[[Formula, Batch, float], list[Tensor]]
"""From a formula, a batch as it was given and T, to the sum of each term, if the logits are treated in one way."""

EXTRA = (1, 3)
"""By how many logits the narrower and the wider model are wider than the tokens that both know."""

CLASS_MASKS: dict[str, tuple[str, Level]] = {
    "left_out": ("Classes that the mask rules out have no say, and the others add up to 1.", "ok"),
    "unused": ("The mask of classes changes nothing.", "problem"),
    "logit_of_zero": ("Classes are masked by a logit of 0, which is a probability like any other.", "problem"),
    "teacher_only": (
        "Only the teacher's classes are ruled out: the student loses probability to classes that nobody may choose.",
        "problem",
    ),
    "student_only": (
        "Infinite where a class is ruled out: only the student's were, so it gives nothing where the teacher gives "
        "something.",
        "problem",
    ),
    "masked_after_softmax": (
        "The softmax still counts the classes that are ruled out: what is left of each side adds up to less than 1.",
        "problem",
    ),
    "nan": ("NaN where a class is ruled out: 0 times infinity.", "problem"),
    "nan_gradient": ("The gradient is NaN where a class is ruled out, though the value is right.", "problem"),
    "other": ("What the mask of classes does is nothing that we know.", "note"),
}

WIDTHS: dict[str, tuple[str, Level]] = {
    "refused": ("it is refused: {error}", "ok"),
    "cut_to_tokens": ("both are cut to the tokens that both know, before the softmax", "ok"),
    "cut": (
        "both are cut to the narrower one. What that one has beyond its tokenizer stays, and means nothing: slice to "
        "the tokens that both know",
        "note",
    ),
    "padded_with_minus_infinity": ("the narrower one rules out what it does not have", "note"),
    "padded_with_zeros": (
        "the narrower one is padded with logits of 0, which are probabilities like any other: models that agree in "
        "every token then differ",
        "problem",
    ),
    "cut_after_softmax": (
        "probabilities are cut, and no longer add up to 1, so that it is no divergence: slice logits",
        "problem",
    ),
    "nan": ("it is NaN or infinite", "problem"),
    "other": ("a number comes out, and it is nothing that we know", "note"),
}
"""The likelier, the earlier; where the two directions differ, the later one is the answer."""


def unequal(case: Case) -> Iterator[Finding]:
    """What happens if the teacher is wider, and if the student is."""
    if case.formula is None or case.formula.soft is None:
        return
    known = case.shape[-1]
    ways = {"teacher": (known + EXTRA[0], known + EXTRA[1]), "student": (known + EXTRA[1], known + EXTRA[0])}
    found = {wider: _of_widths(case, *widths) for wider, widths in ways.items()}
    worst = max((answer for answer, _ in found.values()), key=list(WIDTHS).index)
    words, level = WIDTHS[worst]
    if len({answer for answer, _ in found.values()}) == 1:
        sentence = f"Where one model is wider than the other, {words.format(error=found['teacher'][1])}"
    else:
        said = [f"where the {wider} is wider, {WIDTHS[answer][0].format(error=error)}"
                for wider, (answer, error) in found.items()]  # fmt: skip
        sentence = f"W{'; '.join(said)[1:]}"
    if worst == "cut" and case.loss.has("vocabulary"):
        sentence, level = f"{sentence}; it was given their number", "problem"
    yield Finding("vocabulary", worst, f"{sentence.rstrip('.')}.", "06", level)


def _of_widths(case: Case, student: int, teacher: int) -> tuple[str, str]:
    """The answer for a student and a teacher of these widths, and the error if it is refused."""
    known = case.shape[-1]
    narrower, wider = sorted((student, teacher))
    batches = [_as_wide(batch, student, teacher, known) for batch in draw_many((*case.shape[:-1], wider), PAIRS)]
    try:
        values = values_of(case.loss, case.setting, batches, {"vocabulary": known})
    except CannotCallError as error:
        return "refused", str(error).splitlines()[0]
    tokens, common = (torch.arange(wider) < width for width in (known, narrower))
    candidates = {
        "cut": _treated(lambda batch: _cut(batch, common)),
        "padded_with_zeros": _treated(lambda batch: _padded(batch, wider, 0.0)),
        "padded_with_minus_infinity": _treated(lambda batch: _padded(batch, wider, -math.inf)),
        "cut_after_softmax": _after_softmax(common),
    }
    if case.loss.has("vocabulary"):
        candidates = {"cut_to_tokens": _treated(lambda batch: _cut(batch, tokens)), **candidates}
        candidates |= {"cut_after_softmax": _either(_after_softmax(tokens), _after_softmax(common))}
    return _first_that_fits(case, candidates, batches, values) or _unknown(values), ""


def class_mask(case: Case) -> Iterator[Finding]:
    """What a mask of classes does; the last class is ruled out."""
    if not case.loss.has("classes"):
        return
    kept = torch.arange(case.shape[-1]) < case.shape[-1] - 1
    batches = [_labelled_within(batch, int(kept.sum())) for batch in draw_many(case.shape, PAIRS)]
    values = values_of(case.loss, case.setting, batches, {"classes": kept})
    answer = _first_that_fits(
        case,
        {
            "left_out": _treated(lambda batch: _cut(batch, kept)),
            "unused": _treated(lambda batch: batch),
            "logit_of_zero": _treated(lambda batch: _filled(batch, kept, 0.0, 0.0)),
            "teacher_only": _treated(lambda batch: _filled(batch, kept, None, -math.inf)),
            "masked_after_softmax": _after_softmax(kept),
        },
        batches,
        values,
    )
    answer = answer or ("student_only" if (values == math.inf).all() else _unknown(values))
    trial = batches[0].with_gradient()
    value = evaluate(case.loss, case.setting, trial, {"classes": kept}).sum()
    if answer == "left_out" and value.requires_grad and not case.gradient(value, trial.student).isfinite().all():
        answer = "nan_gradient"
    words, level = CLASS_MASKS[answer]
    yield Finding("class_mask", answer, words, "13", level)


def _unknown(values: Tensor) -> str:
    return "other" if values.isfinite().all() else "nan"


def _first_that_fits(
    case: Case, candidates: dict[str, Columns], batches: Sequence[Batch], values: Tensor
) -> str | None:
    if case.formula is None or not values.isfinite().all():
        return None
    stacked = stack(list(batches))
    for answer, columns_of in candidates.items():
        columns = columns_of(case.formula, stacked, case.setting.temperature)
        if columns and fit(columns, values) is not None:
            return answer
    return None


def _treated(change: Callable[[Batch], Batch]) -> Columns:
    """The labels' term may be that of the logits as they were given."""

    def columns(formula: Formula, batch: Batch, temperature: float) -> list[Tensor]:
        as_given = replace(formula, soft=None).columns(batch, temperature)
        return [*as_given, *formula.columns(change(batch), temperature)]

    return columns


def _after_softmax(kept: Tensor) -> Columns:
    """The labels' term is that of all logits, or of those that are kept."""

    def columns(formula: Formula, batch: Batch, temperature: float) -> list[Tensor]:
        at = formula.temperature or temperature
        rows = formula.soft.rows_cut_after_softmax(batch, at, kept) if formula.soft else None
        if rows is None:
            return []
        rows = rows * SOFT_RULES[formula.layout.soft](batch.labelled)
        return [*replace(formula, soft=None).columns(batch, temperature), rows.flatten(1).sum(1)]

    return columns


def _either(first: Columns, second: Columns) -> Columns:
    """Both, of which a fit leaves one at 0."""
    return lambda *given: [*first(*given), *second(*given)[-1:]]


def _as_wide(batch: Batch, student: int, teacher: int, known: int) -> Batch:
    batch = _labelled_within(batch, known)
    return replace(batch, student=batch.student[..., :student], teacher=batch.teacher[..., :teacher])


def _labelled_within(batch: Batch, classes: int) -> Batch:
    return replace(batch, labels=batch.labels % classes)


def _cut(batch: Batch, kept: Tensor) -> Batch:
    width = int(kept.sum())
    return replace(batch, student=batch.student[..., :width], teacher=batch.teacher[..., :width])


def _padded(batch: Batch, width: int, value: float) -> Batch:
    student, teacher = (
        F.pad(logits, (0, width - logits.shape[-1]), value=value) for logits in (batch.student, batch.teacher)
    )
    return replace(batch, student=student, teacher=teacher)


def _filled(batch: Batch, kept: Tensor, student: float | None, teacher: float | None) -> Batch:
    pairs = ((batch.student, student), (batch.teacher, teacher))
    filled = (logits if value is None else logits.masked_fill(~kept, value) for logits, value in pairs)
    return replace(batch, **dict(zip(("student", "teacher"), filled, strict=True)))
