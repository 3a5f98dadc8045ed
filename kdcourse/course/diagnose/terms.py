"""What the coefficients of the formula say: divergence, divisors, T², the weight and its ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from kdcourse.course.diagnose.batches import draw
from kdcourse.course.diagnose.candidates import HARD, KNOWN, SOFTENED_WORDS, UNSCALED
from kdcourse.course.diagnose.case import Case
from kdcourse.course.diagnose.foreign import CannotCallError
from kdcourse.course.diagnose.report import Finding, Level
from kdcourse.course.diagnose.search import SOFT_RULES, Layout

CLOSE = 1e-4
"""How far a ratio may be from what it should be."""
SQUARE = 2
POWERS = {SQUARE: "yes", 0: "no", 1: "once", -2: "divides", 4: "twice", -1: "divides_once"}


def describe(case: Case) -> Iterator[Finding]:
    """The findings of a loss whose formula is known."""
    yield from _direction(case)
    yield from _softened(case)
    divisor = divisor_of(case, "soft")
    hard_divisor = divisor_of(case, "hard")
    if divisor:
        yield _divisor_finding(case, "divisor", divisor)
    if hard_divisor:
        yield _divisor_finding(case, "hard_divisor", hard_divisor)
    yield from _hard(case)
    mix = mix_of(case)
    yield from _powers(case, mix, divisor, hard_divisor)
    yield from _weight(case, mix)
    yield from _scale(case, mix, divisor, hard_divisor)


# ---------------------------------------------------------------------------------------------------------------------
# What the terms are


def _direction(case: Case) -> Iterator[Finding]:
    formula = case.formula
    if formula is None or formula.soft is None:
        words = "No teacher's term was found: the loss is that of the labels alone."
        yield Finding("direction", "none", words, "01", "problem")
        return
    soft = formula.soft
    known = KNOWN[soft.divergence]
    value = soft.rows(draw(case.shape), formula.temperature or case.setting.temperature).mean().item()
    words = f"The teacher's term is {known.words}"
    if soft.beta is not None:
        words += f", at beta = {soft.beta:g} on the teacher's side of the mixture"
        if case.loss.has("beta"):
            side = "the teacher's" if soft.beta == case.setting.beta else "the student's"
            words = f"The teacher's term is {known.words}, whose beta is {side} share of the mixture"
    words += f". For our first pair it is {value:.4f} a row."
    level: Level = "problem" if known.mistake else "note" if known.choice else "ok"
    yield Finding("direction", soft.divergence, words, _lesson_of(soft.divergence), level, value)


def _lesson_of(divergence: str) -> str:
    if KNOWN[divergence].mistake and divergence != "averaged_logs":
        return "02"
    return "03" if divergence in UNSCALED else "01"


def _softened(case: Case) -> Iterator[Finding]:
    formula = case.formula
    if formula is None or formula.soft is None or formula.soft.divergence in UNSCALED:
        return
    softened = formula.soft.softened
    if formula.temperature is not None:
        answer = f"built_in_{formula.temperature:g}"
        if formula.temperature == 1:
            yield Finding("softened", "no_temperature", "There is no temperature: everything is taken at T = 1.", "03")
        else:
            words = f"T = {formula.temperature:g} is built in; {SOFTENED_WORDS[softened]}."
            level: Level = "ok" if softened == "both" else "problem"
            yield Finding(
                "softened", answer if softened == "both" else softened, words, "03", level, formula.temperature
            )
        return
    words = SOFTENED_WORDS[softened]
    yield Finding(
        "softened", softened, f"{words[0].upper()}{words[1:]}.", "03", "ok" if softened == "both" else "problem"
    )


def _hard(case: Case) -> Iterator[Finding]:
    formula = case.formula
    if formula is None or not case.loss.has("labels"):
        return
    if formula.hard is None:
        words = "There is no term of the labels: they only say where the teacher counts."
        yield Finding("hard", "none", words, "04")
        return
    level: Level = "ok" if formula.hard == "temperature_1" else "problem"
    lesson = "03" if formula.hard == "softened" else "02"
    found = case.coefficients()
    if found and found.hard < 0 < found.soft:
        words = "The labels' term has the wrong sign: training drives the student away from its labels."
        yield Finding("hard", "negative", words, "04", "problem", found.hard)
        return
    yield Finding(
        "hard", formula.hard, f"The labels' term is {HARD[formula.hard]}.", lesson if level != "ok" else "04", level
    )
    if formula.smoothed and found:
        words = f"The labels are smoothed: {found.smoothing:.3g} of each is spread over all classes."
        yield Finding("smoothing", "yes", words, "04", "note", found.smoothing)


# ---------------------------------------------------------------------------------------------------------------------
# What they are divided by


@dataclass(frozen=True)
class Divisor:
    """A count, by name, with which a coefficient times the count is the same in every setting."""

    name: str
    constant: float
    """That product."""
    ratio: float
    """How the coefficient changed when classes (or the number of texts) doubled: the number to show."""
    masked: Layout | None


def divisor_of(case: Case, term: str) -> Divisor | None:
    """What a term is divided by; None if there is no such term, or no count explains its coefficients."""
    if case.formula is None:
        return None
    layout = replace(case.formula.layout, by_text=case.masked.by_text if case.masked else ())
    double_rows = (2 * case.shape[0], *case.shape[1:])
    double_classes = (*case.shape[:-1], 2 * case.shape[-1])
    double_length = (case.shape[0], 2 * case.shape[1], case.shape[-1])
    shapes = [case.shape, double_rows, double_classes, *([double_length] if case.is_tokens else [])]
    settings = [(shape, False, layout) for shape in shapes]
    if case.masked:
        settings += [(shape, True, case.masked) for shape in shapes[:2]]
    seen: list[tuple[float, dict[str, float]]] = []
    for shape, missing, each in settings:
        found = case.coefficients(each, shape=shape, missing=missing)
        if found is None:
            if missing:
                continue
            return None
        value = getattr(found, term)
        if not value:
            return None
        seen.append((value, _counts(case, term, shape, missing, each)))
    names = list(seen[0][1])
    ratio = seen[2][0] / seen[0][0]
    for name in [
        *names,
        *(f"{first}_and_{second}" for first, second in itertools.combinations_with_replacement(names[1:], 2)),
    ]:
        parts = name.split("_and_")
        products = [value * math.prod(counts[part] for part in parts) for value, counts in seen]
        if all(math.isclose(product, products[0], rel_tol=CLOSE) for product in products):
            return Divisor(name, products[0], ratio, case.masked)
    return None


def _counts(case: Case, term: str, shape: tuple[int, ...], missing: bool, layout: Layout) -> dict[str, float]:
    """All that a sum of this term may be divided by, in this setting."""
    labelled = draw(shape, missing=missing).labelled
    here = labelled[..., layout.offset :] if term == "hard" else SOFT_RULES[layout.soft](labelled)
    if term == "hard" and not layout.ignores:
        here = torch.ones_like(here)
    counts: dict[str, float] = {"nothing": 1.0}
    if not case.is_tokens:
        return counts | {
            "rows": labelled.numel(), "labelled_rows": float(labelled.sum()), "classes": shape[-1],
        }  # fmt: skip
    if term in layout.by_text:
        return counts | {"text_means": shape[0], "vocabulary": shape[-1]}
    return counts | {
        "tokens": float(here.sum()), "labels_before_the_shift": float(labelled.sum()),
        "positions_but_last": shape[0] * (shape[1] - 1), "positions": shape[0] * shape[1], "texts": shape[0],
        "vocabulary": shape[-1], "length": shape[1],
    }  # fmt: skip


DIVISORS: dict[str, tuple[str, Level]] = {
    "per_row": ("nothing: it is one number for each row, and its caller takes the mean", "ok"),
    "per_class": (
        "nothing: it is one number for each class; a divergence is their sum over the classes, and its caller takes "
        "the mean over rows alone",
        "note",
    ),
    "nothing": ("nothing: it is a sum, and grows with the batch", "note"),
    "rows": ("the number of rows", "ok"),
    "labelled_rows": ("the number of rows that have a label", "ok"),
    "classes": ("the number of classes; a divergence is a sum over them", "problem"),
    "rows_and_classes": (
        "rows times classes, as reduction='mean' does; a divergence is a sum over the classes",
        "problem",
    ),
    "labelled_rows_and_classes": ("labelled rows times classes; a divergence is a sum over the classes", "problem"),
    "tokens": ("the number of tokens that teach", "ok"),
    "tokens_and_vocabulary": ("tokens times the vocabulary; a divergence is a sum over it", "problem"),
    "positions_and_vocabulary": ("positions times the vocabulary; a divergence is a sum over it", "problem"),
    "texts": ("the number of texts, as batchmean does, so that it grows with their length", "problem"),
    "positions": ("all positions, those that teach nothing among them, so that padding makes it smaller", "problem"),
    "positions_but_last": (
        "all positions but the last, padding among them, so that padding makes it smaller",
        "problem",
    ),
    "labels_before_the_shift": ("the labels before the shift, one for each text too many", "problem"),
    "text_means": ("each text's own tokens, and then the texts: a token of a short text weighs more", "problem"),
}


def _divisor_finding(case: Case, question: str, divisor: Divisor) -> Finding:
    name = divisor.name
    if name == "nothing" and (dimensions := case.value_of(draw(case.shape)).ndim):
        name = "per_class" if dimensions == len(case.shape) else "per_row"
    words, level = DIVISORS.get(name, (name.replace("_and_", " times ").replace("_", " "), "problem"))
    first, _, second = name.partition("_and_")
    if first == second:
        words = f"{DIVISORS.get(first, (first, level))[0]}, twice: a mean is divided by them once more"
    soft = case.formula.soft if case.formula else None
    per_element = soft is not None and soft.divergence.endswith(("mse", "l1"))
    if question == "divisor" and per_element and name.endswith(("_and_classes", "_and_vocabulary")):
        words, level = words.partition(";")[0].partition(", as")[0], "ok"
    teaches_everywhere = case.masked is None or case.masked.soft in ("all", "all_but_last")
    if name.startswith("positions") and level == "problem" and teaches_everywhere and "vocabulary" not in name:
        words, level = words.partition(",")[0], "ok"
    if name in ("rows", "labelled_rows") and case.masked:
        agrees = (question == "hard_divisor") == (name == "labelled_rows") or case.masked.soft == "labelled"
        if not agrees:
            words += (
                ", also of those without a label, so that missing labels make alpha smaller"
                if question == "hard_divisor"
                else ", though all rows are added up"
            )
            level = "note" if question == "hard_divisor" else "problem"
    term = "teacher's" if question == "divisor" else "labels'"
    sentence, number = f"The {term} term is divided by {words}.", divisor.constant
    if name.endswith(("classes", "vocabulary")):
        number = divisor.ratio
        sentence += f" With twice as many, its factor is {number:.3g} times as large."
    return Finding(question, name, sentence, "06" if case.is_tokens else "02", level, number)


# ---------------------------------------------------------------------------------------------------------------------
# T²


def power_of_t(case: Case, term: str, weight: float) -> float | None:
    """k, where the coefficient goes like T to the power k between T = 1, 2 and 4; NaN if it is no power."""
    found = [case.coefficients(temperature=temperature, weight=weight) for temperature in (1.0, 2.0, 4.0)]
    values = [getattr(each, term) for each in found if each]
    if len(values) != len(found) or not all(values) or not all(value / values[0] > 0 for value in values):
        return None
    first, second = (math.log2(after / before) for before, after in itertools.pairwise(values))
    return first if math.isclose(first, second, abs_tol=CLOSE) else math.nan


def _powers(case: Case, mix: Mix | None, divisor: Divisor | None, hard_divisor: Divisor | None) -> Iterator[Finding]:
    formula = case.formula
    if formula is None or formula.soft is None:
        return
    if formula.temperature is not None:
        if formula.temperature != 1:
            yield from _built_in_power(case, mix, divisor, hard_divisor)
        return
    if formula.soft.softened == "neither" and formula.soft.divergence not in UNSCALED:
        return
    power = power_of_t(case, "soft", case.setting.weight)
    if power is not None:
        yield _t_squared(case, power)
    hard = power_of_t(case, "hard", case.setting.weight)
    if hard is not None and not math.isclose(hard, 0, abs_tol=CLOSE):
        words = f"At T = 4 the labels' term is {4**hard:.3g} times that at T = 1, though it has no T to make up for."
        yield Finding("hard_t_squared", "yes", words, "03", "problem", 4**hard)


def _t_squared(case: Case, power: float) -> Finding:
    rounded = 0 if math.isnan(power) else round(power)
    if not math.isclose(power, rounded, abs_tol=CLOSE) or rounded not in POWERS:
        words = f"The factor in front goes like no power of T that we know ({power:.3g})."
        return Finding("t_squared", "other", words, "03", "problem", power)
    soft = case.formula.soft if case.formula else None
    of_logits = soft is not None and soft.divergence in UNSCALED
    if rounded == SQUARE:
        words = "T² is there: at T = 4 the factor in front is 16 times that at T = 1."
        words = "T cancels out of a difference of logits." if of_logits else words
        return Finding("t_squared", "yes", words, "03", "ok", power)
    share = 4.0 ** (rounded - SQUARE)
    times = f"1/{1 / share:.0f}" if share < 1 else f"{share:.0f} times"
    what = {0: "T² is missing", 1: "it is multiplied by T once", -2: "it is divided by T²", 4: "T² is there twice"}
    words = f"At T = 4 the teacher's term is {times} of what it is with T²: {what.get(rounded, 'it is divided by T')}."
    alone = case.formula is not None and case.formula.hard is None and not rounded
    given = case.loss.roles.get("soft_weight") if not rounded else None
    if alone:
        words += " No labels' term stands beside it, so that only the step is smaller."
    elif given:
        words += f" Whoever chooses {given} has to put it there."
    return Finding("t_squared", POWERS[rounded], words, "03", "note" if alone or given else "problem", share)


def _built_in_power(
    case: Case, mix: Mix | None, divisor: Divisor | None, hard_divisor: Divisor | None
) -> Iterator[Finding]:
    """T is no argument: the power is what turns the factor in front into 1, or the two into shares of 1."""
    if divisor is None or case.formula is None or case.formula.temperature is None:
        return
    if mix and mix.soft_scale:
        scale, rest = mix.soft_scale * _count(divisor, case), 1.0
    else:
        scale = divisor.constant
        rest = 1 - hard_divisor.constant if hard_divisor and 0 < hard_divisor.constant < 1 else 1.0
    for power in POWERS:
        if math.isclose(scale, rest * case.formula.temperature**power, rel_tol=CLOSE):
            yield _t_squared(case, float(power))
            return


def _count(divisor: Divisor, case: Case) -> float:
    found = case.coefficients()
    return divisor.constant / found.soft if found and found.soft else 1.0


# ---------------------------------------------------------------------------------------------------------------------
# The weight


@dataclass(frozen=True)
class Mix:
    """How the coefficients move with the weight: two straight lines, and what is at their ends."""

    hard: tuple[float, float]
    """At weight 0 and at weight 1, if the line goes on to the ends."""
    soft: tuple[float, float]
    straight: bool

    @property
    def kind(self) -> str:
        """Whose the weight is."""
        hard, soft = (_ends(pair) for pair in (self.hard, self.soft))
        return {
            (("0", "+"), ("+", "0")): "labels",
            (("+", "0"), ("0", "+")): "teacher",
            (("+", "+"), ("0", "+")): "teacher_added",
            (("0", "+"), ("+", "+")): "labels_added",
            (("0", "0"), ("0", "+")): "teacher_alone",
            (("0", "0"), ("+", "0")): "teacher_alone_reversed",
            (("0", "+"), ("0", "0")): "labels",
        }.get((hard, soft), "ignored" if self.is_flat else "other")

    @property
    def is_flat(self) -> bool:
        return all(math.isclose(low, high, rel_tol=CLOSE) for low, high in (self.hard, self.soft))

    @property
    def soft_scale(self) -> float:
        return max(self.soft, key=abs)

    @property
    def hard_scale(self) -> float:
        return max(self.hard, key=abs)


def _ends(pair: tuple[float, float]) -> tuple[str, str]:
    """Where a line is 0."""
    size = max(map(abs, pair))
    low, high = ("0" if abs(value) <= CLOSE * size else "+" for value in pair)
    return low, high


def mix_of(case: Case) -> Mix | None:
    if not case.loss.has("weight"):
        return None
    inner = [case.coefficients(weight=weight) for weight in (0.25, 0.5, 0.75)]
    low, middle, high = inner
    if low is None or middle is None or high is None:
        return None
    lines = []
    straight = True
    for term in ("hard", "soft"):
        first, between, last = (getattr(each, term) for each in (low, middle, high))
        straight &= math.isclose(first + last, 2 * between, rel_tol=CLOSE, abs_tol=1e-12)
        slope = (last - first) / 0.5
        lines.append((first - 0.25 * slope, last + 0.25 * slope))
    return Mix(lines[0], lines[1], straight)


WEIGHTS: dict[str, tuple[str, Level]] = {
    "labels": ("weight 1 is the labels alone, and weight 0 the teacher alone", "ok"),
    "teacher": ("weight 1 is the teacher alone, and weight 0 the labels alone", "ok"),
    "teacher_added": ("the labels always have their say, and the weight adds the teacher's", "note"),
    "labels_added": ("the teacher always has their say, and the weight adds the labels'", "note"),
    "teacher_alone": ("the weight multiplies the teacher's term, and there is no other", "note"),
    "teacher_alone_reversed": ("1 minus the weight multiplies the teacher's term, and there is no other", "note"),
    "ignored": ("the weight changes nothing", "problem"),
    "other": ("the weight moves both terms in a way of its own", "note"),
}


def _weight(case: Case, mix: Mix | None) -> Iterator[Finding]:
    if mix is None:
        return
    kind = mix.kind if mix.straight else "other"
    words, level = WEIGHTS[kind]
    words = f"{words[0].upper()}{words[1:]}."
    if kind in ("labels", "teacher"):
        size = max(map(abs, mix.hard))
        share = mix.hard[0] + 0.25 * (mix.hard[1] - mix.hard[0])
        words = f"{words[:-1]}: at 0.25, {abs(share) / (size or 1):.2f} of the labels' term is in it."
    yield Finding("weight", kind, words, "04", level)
    if mix.straight and kind != "ignored":
        yield from _weight_ends(case, mix)


def _weight_ends(case: Case, mix: Mix) -> Iterator[Finding]:
    """An `if alpha == 0` that changes more than it says."""
    temperature = case.formula.temperature if case.formula else None
    at = temperature or case.setting.temperature
    broken = []
    for end, weight in enumerate((0.0, 1.0)):
        found = case.coefficients(weight=weight)
        if found is None:
            broken.append(_end_without_a_fit(case, weight))
            continue
        for term, line in (("hard", mix.hard), ("soft", mix.soft)):
            expected, seen = line[end], getattr(found, term)
            if math.isclose(seen, expected, rel_tol=CLOSE, abs_tol=CLOSE * max(map(abs, line), default=0.0)):
                continue
            broken.append(_broken_end(term, weight, expected, seen, at))
    yield (
        broken[0]
        if broken
        else Finding("ends", "yes", "At weight 0 and at weight 1 it is what the middle promises.", "04")
    )


def _end_without_a_fit(case: Case, weight: float) -> Finding:
    try:
        value = case.value(draw(case.shape), weight=weight).item()
    except CannotCallError as error:
        return Finding("ends", "refused", f"Weight {weight:g} is refused: {error}", "04", "note")
    if math.isfinite(value):
        words = f"At weight {weight:g} it is {value:.4f}, and no longer what it is in between."
        return Finding("ends", "other", words, "04", "problem", value)
    return Finding(
        "ends", "nan", f"At weight {weight:g} it is {'NaN' if math.isnan(value) else value}.", "04", "problem"
    )


def _broken_end(term: str, weight: float, expected: float, seen: float, temperature: float) -> Finding:
    whose = "labels'" if term == "hard" else "teacher's"
    if not expected:
        words = f"At weight {weight:g} the {whose} term should be gone, and is still there."
        return Finding("ends", f"{term}_stays", words, "04", "problem", seen)
    ratio = seen / expected
    if not seen:
        words = f"At weight {weight:g} the {whose} term is gone, where the formula has it at its full size."
        return Finding("ends", f"{term}_goes_missing", words, "04", "problem", 0.0)
    words = f"At weight {weight:g} the {whose} term is {ratio:.4g} of what the formula gives"
    if math.isclose(ratio, temperature**-2, rel_tol=CLOSE):
        words += f" at T = {temperature:g}: T² goes missing there."
        return Finding("ends", "t_squared_goes_missing", words, "03", "problem", ratio)
    return Finding("ends", "other", f"{words}.", "04", "problem", ratio)


# ---------------------------------------------------------------------------------------------------------------------
# What else is multiplied in


def _scale(case: Case, mix: Mix | None, divisor: Divisor | None, hard_divisor: Divisor | None) -> Iterator[Finding]:
    """The factor of the teacher's term, T² and the divisor taken away; 1 is not worth a word."""
    if divisor is None:
        return
    power = 0.0 if case.loss.has("temperature") is False else power_of_t(case, "soft", case.setting.weight)
    if power is None or math.isnan(power):
        return
    constant = divisor.constant / case.setting.temperature**power
    found = case.coefficients()
    built_in = case.formula is not None and case.formula.temperature not in (None, 1)
    if mix and mix.soft_scale and found:
        constant *= mix.soft_scale / found.soft
    elif hard_divisor:
        if not mix:
            yield _shares(hard_divisor.constant, constant)
        return
    if math.isclose(constant, 1, rel_tol=CLOSE) or (built_in and constant > 0):
        return
    words, level = _words_of_scale(constant)
    answer = "negative" if constant < 0 else f"{constant:.4g}"
    yield Finding("scale", answer, words, "01" if constant < 0 else "04", level, constant)


def _words_of_scale(constant: float) -> tuple[str, Level]:
    if constant < 0:
        return (
            f"The teacher's term is multiplied by {constant:.4g}: training drives the student away from its teacher.",
            "problem",
        )
    if math.isclose(constant, 1 / math.log(2), rel_tol=CLOSE):
        return (
            "The teacher's term is 1.443 times as large: it is counted in bits, where PyTorch counts in nats.",
            "note",
        )
    return f"The teacher's term is multiplied by {constant:.4g}.", "note"


def _shares(hard: float, soft: float) -> Finding:
    words = f"The weights are built in: {hard:.4g} for the labels and {soft:.4g} for the teacher"
    share = hard / (hard + soft)
    return Finding(
        "scale", f"{hard:.4g}_and_{soft:.4g}", f"{words}; as an alpha for the labels, {share:.3g}.", "04", "ok", share
    )
