"""What is tried on any loss, known or not: gradients, missing labels, extreme and 16-bit logits, the ends of beta."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.diagnose.batches import Batch, draw, stack
from kdcourse.course.diagnose.case import FULL_RULES, TOKENS, Case, is_rounded, layouts_of, masked_layout, teacher_heard
from kdcourse.course.diagnose.foreign import CannotCallError
from kdcourse.course.diagnose.gradients import CLOSE, gradient
from kdcourse.course.diagnose.report import Finding, Level
from kdcourse.course.diagnose.search import Formula, Layout, fit, values_of
from kdcourse.course.diagnose.terms import DIVISORS, divisor_of
from kdcourse.course.diagnose.widths import class_mask, unequal

VOCABULARY = 4000
"""Classes enough that 16 bits show."""
SIXTEEN_BITS = 0.02
"""How far a gradient may be off that was computed in 32 bits and rounded to bfloat16."""


def show(value: Tensor) -> str:
    return "NaN" if value.isnan() else f"{value.item():.4g}"


def probe(case: Case) -> Iterator[Finding]:
    for each in (
        gradient,
        _in_place,
        _teacher_gradient,
        _identical,
        _missing,
        _counted,
        _nothing_supervised,
        _tokens,
        _extreme,
        _ruled_out,
        _sixteen_bits,
        _beta_ends,
        class_mask,
        unequal,
    ):
        try:
            yield from each(case)
        except (CannotCallError, RuntimeError) as error:
            if each is gradient:
                yield Finding("gradient", "error", f"The gradient cannot be taken: {error}", "03", "problem")


# ---------------------------------------------------------------------------------------------------------------------
# What it does to the world


def _in_place(case: Case) -> Iterator[Finding]:
    case.value(draw(case.shape))
    if case.loss.changes_its_inputs:
        words = (
            "It changes the logits that it is given (an operator such as /=, or a method that ends in an underscore)."
        )
        yield Finding("in_place", "yes", words, "03", "problem")
    if case.loss.prints:
        words = "It prints when it is called; in a training, that is once a step."
        yield Finding("prints", "yes", words, "05", "note")


def _teacher_gradient(case: Case) -> Iterator[Finding]:
    batch = draw(case.shape).with_gradient()
    value = case.value(batch)
    if not value.requires_grad:
        return
    gradient = case.gradient(value, batch.teacher)
    if not gradient.any():
        yield Finding("teacher_gradient", "no", "No gradient reaches the teacher.", "05")
        return
    size = gradient.norm().item()
    words = f"A gradient of norm {size:.3g} reaches the teacher: keep it in torch.no_grad(), or both models move."
    yield Finding("teacher_gradient", "yes", words, "05", "note", size)


def _identical(case: Case) -> Iterator[Finding]:
    if case.formula is not None and case.formula.hard and case.soft_only == case.setting.weight:
        return  # the labels would be heard, too
    batch = draw(case.shape)
    value = case.value(replace(batch, teacher=batch.student), weight=case.soft_only).item()
    if math.isnan(value):
        return
    if abs(value) < CLOSE:
        yield Finding("identical", "zero", "Identical models give 0.", "01", "ok", value)
        return
    of = case.formula.soft.divergence if case.formula and case.formula.soft else ""
    words = f"Identical models give {value:.4f}, and not 0"
    words += ": the teacher's entropy, which stays." if of == "cross_entropy" else ": it is no divergence."
    level: Level = "problem" if value < 0 else "note"
    yield Finding("identical", "not_zero", words, "01", level, value)


# ---------------------------------------------------------------------------------------------------------------------
# Missing labels


OFFSETS = {
    0: "A label teaches the logits at its own position: nothing is shifted. Where the labels are those of a causal "
    "language model as transformers has them, its caller must shift.",
    1: "A label teaches the logits one position before it: labels of a causal language model, shifted once.",
    2: "A label teaches the logits two positions before it: it is shifted twice, and the student learns the token "
    "after next.",
}  # fmt: skip


UNSHIFTED_MASK = (
    "A label counts the teacher at its own position: nothing is shifted. Labels of a causal language model belong to "
    "the position before, so its caller must shift them."
)


def _missing(case: Case) -> Iterator[Finding]:
    if case.is_tokens and case.formula is not None:
        yield from _shift(case)
    if not case.knows_labels or case.formula is None:
        return
    batch = draw(case.shape, missing=True)
    try:
        value = case.value(batch)
    except CannotCallError as error:
        yield Finding("mask", "refused", f"Labels of {IGNORED_LABEL} are refused: {error}", "04", "note")
        return
    if not value.isfinite():
        yield Finding("mask", "nan", f"With some labels of {IGNORED_LABEL} it is {show(value)}.", "06", "problem")
        return
    yield _mask(case, batch)


def _shift(case: Case) -> Iterator[Finding]:
    layout = case.formula.layout if case.formula else None
    if layout is None or case.formula is None:
        return
    fitting = {"all": 0, "all_but_last": 1, "all_but_two": 2}[layout.soft]
    if case.loss.has("labels") and case.formula.hard:
        offset = layout.offset
        level: Level = {0: "note", 1: "ok"}.get(offset, "problem")  # type: ignore[assignment]
        words = OFFSETS.get(offset, f"A label teaches the logits {offset} positions before it.")
        if case.formula.soft and fitting != offset:
            words += (
                f" The teacher is heard at all positions but the last {fitting}: the two terms are not shifted alike."
            )
            level = "problem"
        yield Finding("shift", {0: "none", 1: "once", 2: "twice"}.get(offset, str(offset)), words, "06", level, offset)
    elif case.loss.has("labels") and case.masked and case.masked.soft == "labelled":
        yield Finding("shift", "none", UNSHIFTED_MASK, "06", "note", 0)
    elif fitting == max(OFFSETS):
        words = "The teacher is not heard at the last two positions: it is shifted twice."
        yield Finding("shift", "twice", words, "06", "problem", fitting)


def _mask(case: Case, batch: Batch) -> Finding:  # noqa: PLR0911  (one for each thing that rows can do)
    """What is heard of rows that have no label."""
    lesson = "06" if case.is_tokens else "04"
    layout = case.masked
    if layout is None or case.formula is None:
        words = "Where labels are missing, it is no formula that we know."
        return _teacher_by_label(case) or Finding("mask", "other", words, lesson, "note")
    unlabelled = int((~batch.labelled).sum())
    if case.formula.hard and not layout.ignores:
        words = f"Rows without a label are trained towards class 0: {unlabelled} of {batch.labels.numel()} of ours."
        return Finding("mask", "class_0", words, lesson, "problem", unlabelled)
    if case.is_tokens:
        return _mask_of_tokens(case, case.formula, layout, batch)
    if case.formula.soft is None:
        return Finding("mask", "ignored", "Rows without a label have no say.", lesson)
    if layout.soft == "labelled" and not case.formula.hard:
        return Finding("mask", "ignored", "Where there is no label, the teacher is not heard.", lesson)
    if layout.soft == "labelled":
        words = "The teacher is not heard where the label is missing; that is what a teacher would be for."
        return Finding("mask", "unlabelled_dropped", words, lesson, "note", unlabelled)
    return Finding("mask", "teacher_only", "Rows without a label learn from the teacher alone.", lesson)


def _teacher_by_label(case: Case) -> Finding | None:
    """A teacher who is heard otherwise where there is no label."""
    formula, batch = case.formula, draw(case.shape, missing=True)
    if formula is None or case.is_tokens:
        return None
    if formula.soft is None:
        if not torch.equal(teacher_heard(case, batch), ~batch.labelled):
            return None
        words = "The teacher is heard only where there is no label; the two are not mixed in any row."
        return Finding("mask", "one_voice", words, "04", "problem")
    setting = replace(case.setting, missing=True)
    batches = setting.batches()
    stacked = stack(batches)
    hard = replace(formula, soft=None).columns(stacked, setting.temperature)
    rows = formula.soft.rows(stacked, formula.temperature or setting.temperature)
    soft = [(rows * counted).sum(-1) for counted in (stacked.labelled, ~stacked.labelled)]
    found = fit([*hard, *soft], values_of(case.loss, setting, batches))
    if found is None or not found[-2]:
        return None
    ratio = (found[-1] / found[-2]).item()
    words = f"Where there is no label the teacher has {ratio:.3g} times the say that they have beside one."
    return Finding("mask", "louder_without_a_label", words, "04", "problem", ratio)


def _mask_of_tokens(case: Case, formula: Formula, layout: Layout, batch: Batch) -> Finding:
    following = ("labelled", "next_labelled", "next_but_one_labelled")
    wanted = following[layout.offset : layout.offset + 1] if formula.hard else following
    if layout.soft in wanted or formula.soft is None:
        return Finding("mask", "ignored", "Where there is no label, neither labels nor teacher have a say.", "06")
    heard = int(teacher_heard(case, batch).sum())
    if layout.soft in FULL_RULES:
        labelled = int(batch.labelled.sum())
        words = (
            f"The teacher teaches prompts and padding, too: {heard} positions, where {labelled} tokens have a label."
        )
        return Finding("mask", "padding_teaches", words, "06", "problem", heard)
    words = (
        "The mask is not shifted like the logits: the position before the first label is lost, and the last token "
        "counts itself."
    )
    return Finding("mask", "not_shifted", words, "06", "problem", heard)


WRONG_COUNTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "rolled": (
        lambda labels: labels.roll(-1, dims=-1) != IGNORED_LABEL,
        "Labels were rolled and not cut: a text whose first token has a label teaches at its last position, too, which "
        "predicts nothing.",
    ),
    "backwards": (
        lambda labels: F.pad(labels[..., :-1] != IGNORED_LABEL, (1, 0)),
        "A label counts the position behind it: it is shifted the other way.",
    ),
    "zero_ignored": (
        lambda labels: F.pad(labels[..., 1:] > 0, (0, 1)),
        "The token 0 counts for nothing, as if it were no label; only -100 is none.",
    ),
    "zero_ignored_unshifted": (
        lambda labels: labels > 0,
        "The token 0 counts for nothing, as if it were no label; only -100 is none. And nothing is shifted.",
    ),
}
"""From labels (texts, tokens) to where the teacher teaches, if somebody has it wrong."""


def _counted(case: Case) -> Iterator[Finding]:
    """Whose positions teach where one text begins with a label, and the token 0 is one."""
    if not (case.is_tokens and case.loss.has("labels")):
        return
    batch = draw(case.shape)
    labels = batch.labels.clamp(min=1)
    labels[0, 2], labels[0, -2:], labels[1, :2] = 0, IGNORED_LABEL, IGNORED_LABEL
    heard = teacher_heard(case, replace(batch, labels=labels))
    for name, (rule, words) in WRONG_COUNTS.items():
        if torch.equal(rule(labels), heard):
            yield Finding("counted", name, words, "06", "problem", float(heard.sum()))


def _nothing_supervised(case: Case) -> Iterator[Finding]:
    if not case.knows_labels:
        return
    batch = draw(case.shape).with_gradient()
    batch = replace(batch, labels=torch.full_like(batch.labels, IGNORED_LABEL))
    lesson = "06" if case.is_tokens else "04"
    try:
        value = case.value(batch)
    except CannotCallError as error:
        yield Finding("nothing_supervised", "refused", f"A batch without any label is refused: {error}", lesson, "note")
        return
    if not value.isfinite():
        words = f"Without any label it is {show(value)}: a mean of no rows, and after one step so is the student."
        yield Finding("nothing_supervised", "nan", words, lesson, "problem" if case.is_tokens else "note")
    elif not value.requires_grad:
        words = f"Without any label it is {value.item():.4f}, a constant without a graph: backward() stops there."
        yield Finding("nothing_supervised", "no_graph", words, lesson, "note", value.item())
    elif value.item():
        words = f"Without any label it is {value.item():.4f}: the teacher is still heard."
        yield Finding(
            "nothing_supervised", "teacher_only", words, lesson, "note" if case.is_tokens else "ok", value.item()
        )
    else:
        yield Finding("nothing_supervised", "zero", "Without any label it is 0, with a graph.", lesson, "ok", 0.0)


def _tokens(case: Case) -> Iterator[Finding]:
    """What a loss of rows does with (texts, tokens, vocabulary)."""
    if case.is_tokens or case.formula is None:
        return
    tokens = replace(case, shape=TOKENS, masked=None)
    layouts = list(layouts_of(tokens))
    tokens = replace(tokens, formula=replace(case.formula, layout=layouts[0])) if layouts else tokens
    tokens = replace(tokens, masked=masked_layout(tokens))
    divisor = divisor_of(tokens, "soft")
    if divisor is None or divisor.name not in DIVISORS:
        return
    name = "per_row" if divisor.name == "nothing" and case.value_of(draw(TOKENS)).ndim else divisor.name
    words, level = DIVISORS[name]
    if divisor.name.startswith("positions"):
        words, level = "all positions, padding among them", "ok"
    words = f"Given (texts, tokens, vocabulary), the teacher's term is divided by {words}."
    if divisor.name == "texts":
        words += " Flatten to (tokens, vocabulary) first, and leave out padding."
    yield Finding("tokens", name, words, "06", "note" if level == "problem" else level)
    if tokens.masked and tokens.masked.soft == "labelled" and case.formula.hard is None:
        yield Finding("shift", "none", UNSHIFTED_MASK, "06", "note", 0)


# ---------------------------------------------------------------------------------------------------------------------
# Hard numbers


def _extreme(case: Case) -> Iterator[Finding]:
    """Logits whose probabilities underflow: where a log of a softmax, or an epsilon in it, shows."""
    if case.formula is None:
        yield from _extreme_of_unknown(case)
        return
    batch = draw(case.shape, scale=1000.0)
    columns = case.formula.columns(stack([batch]), case.setting.temperature)
    found = case.coefficients()
    if found is None or not all(column.isfinite().all() for column in columns) or case.formula.smoothed:
        return
    parts = [part for part, there in ((found.hard, case.formula.hard), (found.soft, case.formula.soft)) if there]
    expected = sum(part * column.item() for part, column in zip(parts, columns, strict=True))
    trial = batch.with_gradient()
    value = case.value(trial)
    gradient: Tensor | None = case.gradient(value, trial.student) if value.requires_grad else None
    pair = f"for logits of some thousands, it is {value.item():.4g}, where the formula gives {expected:.4g}"
    if not math.isclose(value.item(), expected, rel_tol=1e-3, abs_tol=1e-9):
        words = f"Extreme logits break it: {pair}. A softmax was 0 when its logarithm was taken, or an epsilon was."
        yield Finding("extreme_logits", "no", words, "02", "problem", value.item())
    elif gradient is not None and not gradient.isfinite().all():
        words = f"Extreme logits give a gradient of NaN, though the value is {value.item():.4g}: a probability was 0."
        yield Finding("extreme_logits", "nan_gradient", words, "02", "problem")
    else:
        yield Finding("extreme_logits", "yes", f"Extreme logits are survived: {pair}.", "02", "ok", value.item())


def _extreme_of_unknown(case: Case) -> Iterator[Finding]:
    """Without a formula to compare with: whether there is a number, where small logits have one."""
    if not case.value(draw(case.shape)).isfinite():
        return
    trial = draw(case.shape, scale=1000.0).with_gradient()
    value = case.value(trial)
    if not value.isfinite():
        words = f"For logits of some thousands it is {show(value)}: a logarithm of 0 was taken, or 0 times infinity."
        yield Finding("extreme_logits", "nan", words, "02", "problem")
    elif value.requires_grad and not case.gradient(value, trial.student).isfinite().all():
        words = f"Extreme logits give a gradient of NaN, though the value is {value.item():.4g}: a probability was 0."
        yield Finding("extreme_logits", "nan_gradient", words, "02", "problem")


def _ruled_out(case: Case) -> Iterator[Finding]:
    broken = []
    for name, number in (("−inf", -math.inf), ("finfo.min", torch.finfo(torch.float32).min)):
        batch = draw(case.shape)
        student, teacher = batch.student.clone(), batch.teacher.clone()
        student[..., 0], teacher[..., 0] = number, number
        trial = Batch(student, teacher, batch.labels.clamp(min=1)).with_gradient()
        value = case.value(trial)
        if not value.isfinite():
            broken.append(f"{show(value)} for {name}")
        elif value.requires_grad:
            gradient = case.gradient(value, trial.student)
            if not gradient.isfinite().all():
                broken.append(f"a gradient of NaN for {name}")
    if broken:
        words = f"Where both models rule a class out: {', '.join(broken)}. Leave such classes out before."
        yield Finding("ruled_out", "nan", words, "02", "note")
    else:
        yield Finding("ruled_out", "yes", "Classes that both models rule out, by −inf or finfo.min, are legal.", "02")


def _sixteen_bits(case: Case) -> Iterator[Finding]:
    """A student that has nearly arrived, so that what is left is small."""
    shape = (*((2, 4) if case.is_tokens else (8,)), VOCABULARY)
    batch = draw(shape)
    batch = replace(batch, teacher=batch.student + 0.05 * batch.teacher).cast(torch.bfloat16)
    if is_rounded(case) or not case.value(draw(case.shape).with_gradient()).requires_grad:
        return
    try:
        value, gradient = _value_and_gradient(case, batch)
    except CannotCallError as error:
        yield Finding("sixteen_bits", "refused", f"bfloat16 is refused: {error}", "02", "note")
        return
    right, right_gradient = _value_and_gradient(case, batch.cast(torch.float64))
    if not right_gradient.norm():
        return
    off = ((gradient.double() - right_gradient).norm() / right_gradient.norm()).item()
    words = f"Given bfloat16, it is {value:.4g} where {right:.4g} is right, and its gradient is {off:.2%} off"
    if off <= SIXTEEN_BITS:
        yield Finding("sixteen_bits", "yes", f"{words}: the softmax is taken in 32 bits.", "02", "ok", off)
        return
    words += (
        ": the softmax is taken in bfloat16. Under autocast PyTorch takes it in 32 bits all the same; for a model that "
        "is in bfloat16, call .float() on the logits first."
    )
    yield Finding("sixteen_bits", "no", words, "02", "note", off)


def _value_and_gradient(case: Case, batch: Batch) -> tuple[float, Tensor]:
    trial = batch.with_gradient()
    value = case.value(trial, weight=case.soft_only)
    gradient = case.gradient(value, trial.student)
    return value.item(), gradient


# ---------------------------------------------------------------------------------------------------------------------
# Beta


def _beta_ends(case: Case) -> Iterator[Finding]:
    if not case.loss.has("beta") or (case.formula and case.formula.soft and case.formula.soft.beta is None):
        return  # a beta that is another thing, such as the weight of the teacher's term
    batch = draw(case.shape)
    near = 1e-4
    jumps, refused = [], []
    for end, inside in ((0.0, near), (1.0, 1 - near)):
        try:
            at, beside = (case.value(batch, beta=beta, weight=case.soft_only).item() for beta in (end, inside))
        except CannotCallError:
            refused.append(f"{end:g}")
            continue
        if not math.isclose(at, beside, rel_tol=0.1, abs_tol=10 * near):
            jumps.append(f"{at:.4f} at beta = {end:g}, and {beside:.4f} at {inside:g}")
    if jumps:
        words = f"It jumps: {'; '.join(jumps)}. Another divergence was put at the ends of beta."
        yield Finding("beta_ends", "jumps", words, "01", "note")
    elif refused:
        yield Finding("beta_ends", "refused", f"beta = {' and '.join(refused)} is refused.", "01")
    else:
        yield Finding("beta_ends", "no", "It does not jump at the ends of beta.", "01")


# ---------------------------------------------------------------------------------------------------------------------
# A loss that is none of the formulas


def of_unknown(case: Case) -> Iterator[Finding]:
    """What can be said of a loss all the same: NaN from the first call on, or a behaviour without a name."""
    batch = draw(case.shape).with_gradient()
    value = case.value(batch)
    if value.isnan():
        yield _nan_from_the_start(case, batch, value)
        return
    if value.isinf():
        yield Finding(
            "direction", "infinite", "Infinite from the first call on: it divides by 0, or adds it up.", "02", "problem"
        )
        return
    if is_rounded(case):
        words = "It computes in 16 bits whatever it is given: logits that move by 0.00001 change nothing."
        yield Finding("sixteen_bits", "always", words, "02", "problem")
        yield Finding("direction", "unknown", "In 16 bits it cannot be told.", "01", "note", value.item())
        return
    if value.item() != case.value(batch).item():
        yield _two_calls(case, batch)
        return
    if not _moves(case, "teacher"):
        words = f"None: it is {value.item():.4g} whatever the teacher says."
        words += " Do both sides come from one model?" if abs(value.item()) < CLOSE else ""
        yield Finding("direction", "none", words, "01", "problem", value.item())
        return
    heard = teacher_heard(case, batch)
    if heard.any() and not heard.all() and not case.is_tokens:
        words = f"The teacher is heard in {int(heard.sum())} of {heard.numel()} rows: the others teach nothing."
        yield Finding("direction", "some_rows", words, "02", "problem", heard.double().mean().item())
        return
    words = f"None that we know: {value.item():.4f} for our first pair. What follows was tried all the same."
    yield Finding("direction", "unknown", words, "01", "note", value.item())
    yield from _weight_by_voices(case)
    twice = Batch(*(torch.cat([part, part]) for part in (batch.student, batch.teacher, batch.labels)))
    ratio = (case.value(twice) / value).item()
    answer = {1.0: "mean", 2.0: "nothing"}.get(round(ratio, 4), "other")
    words = {
        "mean": "The same batch twice has the same loss: it is a mean over rows of some kind.",
        "nothing": "The same batch twice has twice the loss: it is a sum.",
        "other": f"The same batch twice has {ratio:.3g} times the loss: rows are not on their own.",
    }[answer]
    yield Finding("divisor", answer, words, "02", "ok" if answer == "mean" else "note", ratio)


def _two_calls(case: Case, batch: Batch) -> Finding:
    """Why two calls with the same inputs differ: chance that a seed takes away, or something that is kept."""
    values = []
    for _ in range(2):
        torch.manual_seed(0)
        values.append(case.value(batch).item())
    first, second = values
    if first == second:
        words = (
            f"Two calls with the same inputs differ, unless the seed is the same: there is chance in it ({first:.4f})."
        )
        return Finding("direction", "random", words, "01", "note", first)
    words = (
        f"Two calls with the same inputs and the same seed give {first:.4f} and {second:.4f}: it keeps something from "
        "call to call, such as a step, a running mean or a queue. Give it a fixed state to have it diagnosed."
    )
    return Finding("direction", "changes", words, "01", "note", second - first)


def _nan_from_the_start(case: Case, batch: Batch, value: Tensor) -> Finding:
    gradient = case.gradient(value, batch.student) if value.requires_grad else torch.full_like(batch.student, math.nan)
    if gradient.isfinite().all():
        words = (
            "NaN from the first call on, with a finite gradient that is wrong: F.kl_div takes the logarithm of its "
            "target, which is a logarithm already (log_target=True is missing)."
        )
        return Finding("direction", "log_of_logs", words, "02", "problem")
    words = "NaN from the first call on: a logarithm of something that is no probability."
    return Finding("direction", "nan", words, "02", "problem")


def _moves(case: Case, voice: str, weight: float = 0.3) -> bool:
    """Whether the loss hears the teacher, or the labels."""
    batch = draw(case.shape)
    other = (
        replace(batch, teacher=draw(case.shape, seed=1).teacher)
        if voice == "teacher"
        else replace(batch, labels=(batch.labels + 1) % case.shape[-1])
    )
    before, after = values_of(case.loss, replace(case.setting, weight=weight), [batch, other]).tolist()
    return not math.isclose(before, after, rel_tol=1e-9, abs_tol=1e-12)


def _weight_by_voices(case: Case) -> Iterator[Finding]:
    if not (case.loss.has("weight") and case.loss.has("labels")):
        return
    heard = {(weight, voice): _moves(case, voice, weight) for weight in (0.0, 1.0) for voice in ("teacher", "labels")}
    ends = tuple(heard.values())
    if ends == (True, False, False, True):
        yield Finding("weight", "labels", "Weight 1 hears the labels alone, and weight 0 the teacher alone.", "04")
    elif ends == (False, True, True, False):
        yield Finding("weight", "teacher", "Weight 1 hears the teacher alone, and weight 0 the labels alone.", "04")
    else:
        yield Finding("weight", "other", "At an end of the weight both are heard, or nobody.", "04", "note")
