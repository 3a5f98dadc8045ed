"""Is the gradient of a loss that of its value? And if it is not, whose is it?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from kdcourse.course.diagnose.batches import Batch, draw, stack
from kdcourse.course.diagnose.candidates import KNOWN, SOFTENED_WORDS, Soft, soft_terms
from kdcourse.course.diagnose.case import Case, is_rounded
from kdcourse.course.diagnose.report import Finding
from kdcourse.course.diagnose.search import Formula, fit, named

CLOSE = 1e-4
"""How far two numbers may be from each other that are the same."""
STEPS = ((1e-5, CLOSE), (1e-3, 20 * CLOSE))
"""Of finite differences, and how close they come; the longer one is for losses that compute in 32 bits."""
AT = 4.0
"""The temperature at which gradients are held against values."""


def gradient(case: Case) -> Iterator[Finding]:
    batch = draw(case.shape).with_gradient()
    value = case.value(batch)
    if not value.requires_grad:
        words = (
            f"There is no gradient: the value, {value.item():.4f}, has lost its graph (.item(), .detach() or no_grad)."
        )
        yield Finding("gradient", "none", words, "03", "problem")
        return
    if not value.isfinite() or is_rounded(case) or value.item() != case.value(batch).item():
        return
    if not case.loss.reaches(value, batch.student):
        words = "There is no gradient: the student was detached, and only the teacher would move."
        yield Finding("gradient", "none", words, "03", "problem")
        return
    by_formula = _by_formula(case)
    if by_formula is not None:
        yield by_formula
        return
    for step, tolerance in STEPS:
        along, differences = _along_a_direction(case, step)
        if math.isclose(along, differences, rel_tol=tolerance, abs_tol=1e-7):
            words = f"The gradient is that of the value: {along:.4f}, and {differences:.4f} by finite differences."
            yield Finding("gradient", "yes", words, "03", "ok", 1.0)
            return
    ratio = along / differences if differences else math.inf
    more = f"{along:.4f} along a random direction, where finite differences of the value give {differences:.4f}."
    yield Finding("gradient", "no", f"The gradient is not that of the value: {more}", "03", "problem", ratio)


def _by_formula(case: Case) -> Finding | None:
    """Which term's gradient is another share of its value's; at T = 4, where powers of T show."""
    formula = case.formula
    if formula is None:
        return None
    found = case.coefficients(temperature=AT)
    if found is None:
        return None
    batch = draw(case.shape).with_gradient()
    gradient = case.gradient(case.value(batch, temperature=AT), batch.student)
    gradients = _gradients(formula, batch)
    parts = (
        named(fit(gradients, gradient.flatten()), formula)
        if gradient.any()
        else named(torch.zeros(len(gradients)), formula)
    )
    if parts is None:
        return _of_another(case, formula, batch, gradient)
    for whose, of_gradient, of_value in (("teacher's", parts.soft, found.soft), ("labels'", parts.hard, found.hard)):
        if not math.isclose(of_gradient, of_value, rel_tol=CLOSE):
            return _another_share(case, whose, of_gradient / of_value)
    words = "The gradient is that of the value" + (", for both terms." if found.hard and found.soft else ".")
    return Finding("gradient", "yes", words, "03", "ok", 1.0)


def _gradients(formula: Formula, batch: Batch) -> list[Tensor]:
    """Those of the terms of a formula."""
    columns = formula.columns(stack([batch]), AT)
    return [torch.autograd.grad(column.sum(), batch.student, retain_graph=True)[0].flatten() for column in columns]


def _another_share(case: Case, whose: str, ratio: float) -> Finding:
    """A gradient that is the term's own, but for a factor."""
    if not ratio:
        words = f"the {whose} term has no gradient at all (.item() or .detach())"
        return _wrong("none", words, ratio)
    at = f" at T = {AT:g}" if case.loss.has("temperature") else ""
    words = f"the gradient of the {whose} term is {ratio:.4g} of its value's{at}"
    rows = math.prod(case.shape[:-1])
    reasons = {
        -1.0: ("negative", "its sign is wrong, and training drives the student away"),
        1 / rows: ("divided_by_rows", "it is divided by the rows once more"),
        float(rows): ("sum_of_rows", "it is that of the sum over rows, and the value is their mean"),
    }
    if case.loss.has("temperature") and whose == "teacher's":
        reasons |= {
            AT**-2: ("t_squared_on_the_value", "T² is on the value alone"),
            AT: ("chain_rule_missing", "the 1/T that the chain rule brings is missing"),
            1 / AT: ("t_once_missing", "a factor T is missing"),
        }
    for number, (answer, reason) in reasons.items():
        if math.isclose(ratio, number, rel_tol=CLOSE):
            return _wrong(answer, f"{words}: {reason}", ratio)
    return _wrong("no", words, ratio)


def _of_another(case: Case, formula: Formula, batch: Batch, gradient: Tensor) -> Finding | None:
    """Whose gradient it is, where it is not that of the terms."""
    if formula.soft is None:
        return None
    hard = _gradients(replace(formula, soft=None), batch) if formula.hard else []
    probabilities = -(batch.teacher.detach() / (formula.temperature or AT)).softmax(-1).flatten()
    if fit([*hard, probabilities], gradient.flatten()) is not None:
        words = "it is that with respect to the log-probabilities, and the softmax brings another part of it"
        return _wrong("by_log_probabilities", words, None)
    for soft in soft_terms([], built_in=True):
        if soft.beta is None and (others := _gradients(replace(formula, hard=None, soft=soft), batch)):
            found = fit([*hard, *others], gradient.flatten())
            if found is not None:
                return _wrong(*_name_of(soft, formula), found[-1].item())
    return None


def _name_of(soft: Soft, formula: Formula) -> tuple[str, str]:
    """An answer and its words, of a gradient that is that of another term."""
    if formula.soft and soft.divergence == formula.soft.divergence:
        return f"softened_{soft.softened}", f"it is that of another softening: {SOFTENED_WORDS[soft.softened]}"
    return f"of_{soft.divergence}", f"it is that of something else, {KNOWN[soft.divergence].words}"


def _wrong(answer: str, words: str, number: float | None) -> Finding:
    return Finding("gradient", answer, f"The gradient is not that of the value: {words}.", "03", "problem", number)


def _along_a_direction(case: Case, step: float) -> tuple[float, float]:
    """The derivative along a direction, by autograd and by central differences."""
    batch = draw(case.shape).with_gradient()
    gradient = case.gradient(case.value(batch), batch.student)
    direction = draw(case.shape, seed=7).student
    ahead, behind = (
        case.value(replace(batch, student=batch.student.detach() + sign * step * direction)).double().item()
        for sign in (1, -1)
    )
    return (gradient * direction).sum().item(), (ahead - behind) / (2 * step)
