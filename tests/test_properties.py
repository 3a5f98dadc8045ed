"""Thousands of drawn cases: each is the reference's number within the stated rounding, or the error that was promised.

`objective_reference.py` is the other side of every comparison. By default the cases are the same in every run. With
KDCOURSE_DEEP=1 there are eleven times as many, 50,000, drawn anew in each run; a failure prints how to repeat it.
"""

import dataclasses
import functools
import itertools
import math
import os

import hypothesis.strategies as st
import mpmath
import numpy as np
import objective_reference as ref
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import assume, given, settings

from kdcourse import MismatchError, distillation_loss, forward_kl, jensen_shannon, lm_distillation_loss, reverse_kl
from kdcourse.topk import top_k

DEEP = bool(os.environ.get("KDCOURSE_DEEP"))
settings.register_profile("stable", derandomize=True, database=None, deadline=None)
settings.register_profile("deep", database=None, deadline=None, print_blob=True)
settings.load_profile("deep" if DEEP else "stable")

DIVERGENCES = {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "jensen_shannon": jensen_shannon}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
UNITS = 8  # 4 for the package and 4 for the reference: T, x / T, x - max, minus log-sum (see objective_reference)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Rows this short are computed faster by one thread than by several that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cases(number):
    return settings(max_examples=number * (11 if DEEP else 1))


# ---------------------------------------------------------------------------------------------------------------------
# Cases


@dataclasses.dataclass(frozen=True)
class Case:
    """The arguments of one call. `k` is None for a dense teacher."""

    student: torch.Tensor
    teacher: torch.Tensor
    labels: torch.Tensor | None
    keywords: dict
    beta: float = 0.5
    k: int | None = None

    @property
    def function(self):
        return lm_distillation_loss if self.student.ndim == 3 else distillation_loss

    @property
    def precision(self):
        """What the coarser of the two log-softmaxes may be off by: float32 unless the logits are float64."""
        return max(torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps for x in (self.student, self.teacher))

    def change(self, **fields):
        return dataclasses.replace(self, **fields)

    def with_keywords(self, **keywords):
        return self.change(keywords={**self.keywords, **keywords})


def loss(case):
    """The package's answer, and the student it can be differentiated for."""
    student, teacher = case.student.clone().requires_grad_(), case.teacher
    if case.k is not None:
        teacher = top_k(teacher, case.k, case.keywords["temperature"])
    keywords = dict(case.keywords)
    if keywords["divergence"] == "jensen_shannon" and case.beta != 0.5:
        keywords["beta"] = case.beta
    return case.function(student, teacher, case.labels, **keywords), student


def expectation(case):
    """The reference's answer to the same call, from the logits as they were rounded to their dtype."""
    student, teacher = (x.detach().double().numpy() for x in (case.student, case.teacher))
    labels = None if case.labels is None else case.labels.numpy()
    keywords = dict(case.keywords)
    if keywords.get("class_weights") is not None:
        keywords["class_weights"] = keywords["class_weights"].double().numpy()
    function = ref.lm_objective if case.student.ndim == 3 else ref.objective
    return function(student, teacher, labels, beta=case.beta, k=case.k, **keywords)


def assert_close(actual, expected, tolerance, what):
    if math.isinf(expected):
        assert actual == expected, f"{what}: {actual}, not {expected}"
    else:
        assert abs(actual - expected) <= tolerance, f"{what}: {actual}, not {expected} ± {tolerance}"


def assert_gradient(actual, expected, tolerance, dtype):
    """A gradient comes back in the student's dtype: rounded, and in half precision perhaps rounded to 0."""
    info = torch.finfo(dtype)
    allowed = tolerance + info.eps * np.abs(expected) + info.smallest_normal * info.eps
    difference = np.abs(actual.double().numpy() - expected)
    assert (difference <= allowed).all(), f"gradient:\n{actual}\nnot\n{expected}\n± {tolerance}"


def assert_is_the_objective(case):
    """Values, infinities, gradient, graph: everything that a call promises."""
    expected = expectation(case)
    result, student = loss(case)
    for name in ("total", "hard", "soft"):
        number, term = getattr(result, name), getattr(expected, name)
        assert number.shape == () and number.dtype in (torch.float32, torch.float64)
        assert_close(number.item(), term.value, UNITS * case.precision * term.slack, name)
    result.total.backward()
    assert student.grad.dtype == case.student.dtype
    if math.isfinite(expected.total.value):
        tolerance = UNITS * case.precision * expected.total.gradient_slack
        assert_gradient(student.grad, expected.total.gradient, tolerance, case.student.dtype)


def assert_same(case, other):
    """Two calls that must have the same answer, each of them within its own rounding."""
    (result, _), (again, _) = loss(case), loss(other)
    expected, expected_again = expectation(case), expectation(other)
    for name in ("total", "hard", "soft"):
        slack = getattr(expected, name).slack + getattr(expected_again, name).slack
        assert_close(getattr(again, name).item(), getattr(result, name).item(), UNITS * case.precision * slack, name)


# ---------------------------------------------------------------------------------------------------------------------
# Strategies


temperatures = st.one_of(st.just(1.0), st.floats(math.log(0.05), math.log(100.0)).map(math.exp))
alphas = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(1e-30, 1.0))
counts = st.one_of(st.integers(0, 50), st.floats(1.0, 50.0))
num_items = st.one_of(st.none(), counts, st.tuples(counts, counts))
generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def numbers(generator, shape, scale, kind):
    if kind == "levels":
        return scale * generator.integers(-1, 2, size=shape)
    return scale * generator.normal(size=shape)


def rule_out(generator, shape, share):
    """True for the classes that get −inf; each row keeps one."""
    mask = generator.random(shape) < share
    np.put_along_axis(mask, generator.integers(shape[-1], size=(*shape[:-1], 1)), False, axis=-1)
    return mask


@st.composite
def logit_pairs(draw, shape, dtypes=DTYPES, masked=True):
    """Logits of student and teacher from 1e-3 to 1e3: unrelated, nearly equal, tied; with −inf in either or both."""
    generator = draw(generators)
    scales = st.sampled_from([1e-3, 0.1, 1.0, 10.0, 1e3])
    scale, kind = draw(scales), draw(st.sampled_from(["normal", "levels", "near"]))
    teacher = numbers(generator, shape, scale, kind)
    student = teacher + 1e-3 * generator.normal(size=shape)
    if kind != "near":
        student = numbers(generator, shape, draw(scales), kind)
    if masked and math.prod(shape):
        share, where = draw(st.sampled_from([0.2, 0.7])), draw(st.sampled_from(["", "s", "t", "st", "same"]))
        mask = rule_out(generator, shape, share)
        if "t" in where or where == "same":
            teacher[mask] = -np.inf
        if where == "same":
            student[mask] = -np.inf
        elif "s" in where:
            student[rule_out(generator, shape, share)] = -np.inf
    return tuple(torch.tensor(x, dtype=draw(st.sampled_from(dtypes))) for x in (student, teacher))


@st.composite
def label_tensors(draw, shape, classes):
    generator, unlabelled = draw(generators), draw(st.sampled_from([0.0, 0.3, 1.0]))
    labels = generator.integers(classes, size=shape)
    labels[generator.random(shape) < unlabelled] = ref.IGNORED
    return torch.tensor(labels, dtype=torch.long)


@st.composite
def hard_keywords(draw, classes):
    generator = draw(generators)
    weights = torch.tensor(generator.uniform(0.1, 3.0, classes), dtype=torch.float32)
    return {
        "label_smoothing": draw(st.sampled_from([0.0, 0.0, 0.1, 0.9])),
        "class_weights": draw(st.sampled_from([None, None, weights])),
    }


def settled(teacher, k):
    """The next k from here on whose choice of classes does not hang on a tie between two finite logits."""
    classes = teacher.shape[-1]
    ordered = teacher.reshape(-1, classes).double().sort(descending=True).values
    return next(
        j
        for j in range(min(k, classes), classes + 1)
        if j == classes or not ((ordered[:, j - 1] == ordered[:, j]) & ordered[:, j].isfinite()).any()
    )


@st.composite
def classifier_cases(draw, dtypes=DTYPES, masked=True, rows=(0, 6), classes=(1, 9), sparse=False):
    shape = (draw(st.integers(*rows)), draw(st.integers(*classes)))
    student, teacher = draw(logit_pairs(shape, dtypes, masked))
    alpha = draw(alphas)
    labels = draw(label_tensors(shape[:1], shape[1]))
    if alpha == 0:
        labels = draw(st.sampled_from([labels, None]))
    keywords = {
        "alpha": alpha,
        "temperature": draw(temperatures),
        "divergence": draw(st.sampled_from(list(DIVERGENCES))),
        "num_items": draw(num_items),
        **draw(hard_keywords(shape[1])),
    }
    k = settled(teacher, draw(st.integers(1, shape[1]))) if sparse else None
    return Case(student, teacher, labels, keywords, beta=draw(st.sampled_from([0.5, 0.5, 0.1, 0.9])), k=k)


@st.composite
def lm_cases(draw, dtypes=DTYPES, masked=True, batch=(0, 3), length=(1, 5), classes=(1, 6), sparse=False):
    shape = (draw(st.integers(*batch)), draw(st.integers(*length)), draw(st.integers(*classes)))
    student, teacher = draw(logit_pairs(shape, dtypes, masked))
    flat = draw(classifier_cases(rows=(0, 0), classes=(shape[2], shape[2])))
    k = settled(teacher, draw(st.integers(1, shape[2]))) if sparse else None
    return flat.change(student=student, teacher=teacher, labels=draw(label_tensors(shape[:2], shape[2])), k=k)


precise = functools.partial(classifier_cases, dtypes=[torch.float64], masked=False, rows=(1, 6), classes=(2, 9))
precise_lm = functools.partial(
    lm_cases, dtypes=[torch.float64], masked=False, batch=(1, 3), length=(2, 5), classes=(2, 6)
)


# ---------------------------------------------------------------------------------------------------------------------
# The reference itself, against scipy, torch and 50 digits


@pytest.mark.parametrize("temperature", [0.05, 1.0, 7.0, 100.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_reference_agrees_with_fifty_digits(name, temperature):
    """A reference that is wrong would make everything below agree with a wrong package."""
    student, teacher, beta = [1.5, -2.0, 0.25, 3.0], [0.5, 1.0, -4.0, 2.75], 0.3

    def softmax(logits):
        powers = [mpmath.exp(mpmath.mpf(x) / mpmath.mpf(temperature)) for x in logits]
        return [power / mpmath.fsum(powers) for power in powers]

    def kl(p, q):
        return mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True))

    def soft(*logits):
        p, q, b = softmax(logits), softmax(teacher), mpmath.mpf(beta)
        m = [b * y + (1 - b) * x for x, y in zip(p, q, strict=True)]
        value = {"forward_kl": kl(q, p), "reverse_kl": kl(p, q), "jensen_shannon": b * kl(q, m) + (1 - b) * kl(p, m)}
        return mpmath.mpf(temperature) ** 2 * value[name]

    with mpmath.workdps(50):
        row = ref.soft_row(np.array(student), np.array(teacher), temperature, name, beta)
        units = 4 * np.finfo(float).eps
        assert abs(row.value - soft(*student)) <= units * row.slack
        for c in range(4):
            slope = mpmath.diff(soft, tuple(student), tuple(int(c == d) for d in range(4)))
            assert abs(row.gradient[c] - slope) <= units * row.gradient_slack


def test_the_reference_agrees_with_scipy_and_torch():
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(size=(2, 7)) * 3
    p, q = scipy.special.softmax(student / 2), scipy.special.softmax(teacher / 2)
    row = functools.partial(ref.soft_row, student, teacher, 2.0)
    assert row("forward_kl").value == pytest.approx(4 * scipy.stats.entropy(q, p), rel=1e-12)
    assert row("reverse_kl").value == pytest.approx(4 * scipy.stats.entropy(p, q), rel=1e-12)
    halves = scipy.spatial.distance.jensenshannon(p, q) ** 2
    assert row("jensen_shannon").value == pytest.approx(4 * halves, rel=1e-12)
    weights = generator.uniform(0.1, 3.0, 7)
    logits = torch.tensor(student[None], requires_grad=True)
    value = F.cross_entropy(logits, torch.tensor([5]), torch.tensor(weights), label_smoothing=0.3, reduction="sum")
    value.backward()
    hard = ref.hard_row(student, 5, 0.3, weights)
    assert hard.value == pytest.approx(value.item(), rel=1e-12)
    assert hard.gradient == pytest.approx(logits.grad[0].numpy(), abs=1e-12)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_reference_pools_classes(name):
    """With a bucket for the rest: value from pooled probabilities, gradient from differences of that value."""
    generator = np.random.default_rng(1)
    student, teacher = generator.normal(size=(2, 6)) * 2
    order, temperature = np.argsort(-teacher), 3.0

    def value(logits):
        p, q = (scipy.special.softmax(x / temperature)[order] for x in (logits, teacher))
        p, q = (np.append(x[:2], x[2:].sum()) for x in (p, q))
        m = (p + q) / 2
        entropy = scipy.stats.entropy
        halves = (entropy(p, m) + entropy(q, m)) / 2
        return 9 * {"forward_kl": entropy(q, p), "reverse_kl": entropy(p, q), "jensen_shannon": halves}[name]

    row = ref.soft_row(student, teacher, temperature, name, k=2)
    steps = 1e-5 * np.eye(6)
    slopes = [(value(student + step) - value(student - step)) / 2e-5 for step in steps]
    assert row.value == pytest.approx(value(student), rel=1e-12)
    assert row.gradient == pytest.approx(slopes, abs=1e-8)


# ---------------------------------------------------------------------------------------------------------------------
# The package is the reference


@cases(500)
@given(st.data())
def test_divergences_are_their_formulas(data):
    shape = (*data.draw(st.sampled_from([(), (1,), (3,), (0,), (2, 2)])), data.draw(st.integers(1, 9)))
    pair = data.draw(logit_pairs(shape, [torch.float64, torch.float32]))
    student, teacher = (x.log_softmax(-1) for x in pair)
    name, beta = data.draw(st.sampled_from(list(DIVERGENCES))), data.draw(st.floats(1e-3, 1 - 1e-3))
    keywords = {"beta": beta} if name == "jensen_shannon" else {}
    student.requires_grad_()
    values = DIVERGENCES[name](student, teacher, **keywords)
    assert values.shape == shape[:-1]
    values.sum().backward()
    unit = max(torch.finfo(x.dtype).eps for x in (student, teacher))
    rows = (x.detach().double().reshape(-1, shape[-1]).numpy() for x in (student, teacher))
    for p, q, value, slope in zip(*rows, values.flatten(), student.grad.reshape(-1, shape[-1]), strict=True):
        terms = ref.divergence_terms(name, p, q, beta)
        assert_close(value.item(), terms.sum(), UNITS * unit * shape[-1] * (1 + np.abs(terms).sum()), name)
        assert not math.isfinite(terms.sum()) or not slope.isnan().any()


@cases(900)
@given(classifier_cases())
def test_the_loss_of_a_classifier_is_its_formula(case):
    assert_is_the_objective(case)


@cases(500)
@given(classifier_cases(sparse=True))
def test_the_loss_of_a_classifier_with_a_top_k_teacher_is_its_formula(case):
    assert_is_the_objective(case)


@cases(500)
@given(lm_cases())
def test_the_loss_of_a_language_model_is_its_formula(case):
    assert_is_the_objective(case)


@cases(300)
@given(lm_cases(sparse=True))
def test_the_loss_of_a_language_model_with_a_top_k_teacher_is_its_formula(case):
    assert_is_the_objective(case)


def in_columns(tensor):
    """The same numbers, laid out in memory the other way round."""
    return tensor.transpose(0, 1).contiguous().transpose(0, 1)


@cases(100)
@given(st.one_of(classifier_cases(), classifier_cases(sparse=True), lm_cases()))
def test_arguments_stay_as_they_are(case):
    """Nothing is written into, nothing flows into the teacher, and memory need not be contiguous."""
    student, teacher = in_columns(case.student), in_columns(case.teacher).requires_grad_()
    labels = None if case.labels is None else case.labels.clone()
    assert_is_the_objective(case.change(student=student, teacher=teacher, labels=labels))
    assert teacher.grad is None
    assert torch.equal(student, case.student) and torch.equal(teacher, case.teacher)
    assert labels is None or torch.equal(labels, case.labels)


# ---------------------------------------------------------------------------------------------------------------------
# The package refuses


def put(tensor, place, value):
    changed = tensor.clone()
    changed[place] = value
    return changed


def last(tensor, value):
    """With `value` at the last place that counts."""
    return put(tensor, (-1,) if tensor.ndim == 1 else (-1, -1), value)


def spoil_logits(side, value):
    """One logit of a row that counts, or the whole row."""

    def spoil(case):
        logits = getattr(case, side)
        row = (0,) if logits.ndim == 2 else (0, 0)
        return case.change(**{side: put(logits, row if value == -math.inf else (*row, 0), value)})

    return spoil


def keyword(**keywords):
    return lambda case: case.with_keywords(**keywords)


def field(name, change):
    return lambda case: case.change(**{name: change(getattr(case, name))})


OUT_OF_RANGE = {
    **{f"alpha {x}": keyword(alpha=x) for x in (-0.1, 1.1, math.nan, math.inf)},
    **{f"temperature {x}": keyword(temperature=x) for x in (0.0, -1.0, math.inf, math.nan, 1e-307)},
    **{f"num_items {x}": keyword(num_items=x) for x in (-1, math.nan, math.inf, (1, -1), (math.nan, 1), (-0.5, 2))},
    "divergence": keyword(divergence="kl"),
    **{
        f"{side} {x}": spoil_logits(side, x) for side in ("student", "teacher") for x in (math.nan, math.inf, -math.inf)
    },
    **{f"label {x}": field("labels", functools.partial(last, value=x)) for x in (-1, -101, 10**6)},
    "label C": lambda case: case.change(labels=last(case.labels, case.student.shape[-1])),
    "labels float": field("labels", torch.Tensor.double),
    "labels bool": field("labels", lambda labels: labels > 0),
    "labels None": lambda case: case.change(labels=None).with_keywords(alpha=0.5),
}
MISMATCHED = {
    "fewer classes": field("teacher", lambda x: x[..., :-1]),
    "one class": field("teacher", lambda x: x[..., :1]),
    "student of one class": field("student", lambda x: x[..., :1]),
    "more rows": field("teacher", lambda x: torch.cat([x, x])),
    "one row": field("student", lambda x: x[:1]),
    "one dimension less": lambda case: case.change(student=case.student[0], teacher=case.teacher[0]),
    "one dimension more": lambda case: case.change(student=case.student[None], teacher=case.teacher[None]),
    "teacher of another dimension": field("teacher", lambda x: x[0]),
    "more labels": field("labels", lambda x: torch.cat([x, x])),
    "labels in a column": field("labels", lambda x: x[..., None]),
    "one label": field("labels", lambda x: x[:1]),
}


@st.composite
def well_formed(draw):
    """At least 2 of everything, every row counts, and a logit of 50, so that 50 / 1e-307 overflows in every dtype."""
    classifier, lm = precise(rows=(2, 6), dtypes=DTYPES), precise_lm(batch=(2, 3), length=(3, 5), dtypes=DTYPES)
    case = draw(st.one_of(classifier, lm))
    first = (0,) * case.student.ndim
    student, teacher = (put(x.clamp(-50, 50), first, 50.0) for x in (case.student, case.teacher))
    return case.change(student=student, teacher=teacher, labels=torch.zeros(student.shape[:-1], dtype=torch.long))


def refusal(case, changed):
    """The error for `changed`, where there is none for `case`."""
    case.function(case.student, case.teacher, case.labels, **case.keywords)
    with pytest.raises(ValueError) as raised:
        case.function(changed.student, changed.teacher, changed.labels, **changed.keywords)
    return raised.value


@pytest.mark.parametrize("what", OUT_OF_RANGE)
@cases(6)
@given(case=well_formed())
def test_what_is_out_of_range_is_a_value_error(what, case):
    """In words that name what is wrong, and not one that stands for something else."""
    error = refusal(case, OUT_OF_RANGE[what](case))
    assert not isinstance(error, MismatchError)
    assert what.split()[0] in str(error) and len(str(error).split()) > 4


@pytest.mark.parametrize("what", MISMATCHED)
@cases(12)
@given(case=well_formed())
def test_what_does_not_fit_is_a_mismatch_error(what, case):
    error = refusal(case, MISMATCHED[what](case))
    assert isinstance(error, MismatchError) and len(str(error).split()) > 4


@cases(100)
@given(st.sampled_from([2, 3]), st.data())
def test_shapes_that_differ_are_refused_and_named(dimensions, data):
    shapes = st.tuples(*[st.integers(1, 3)] * dimensions)
    first, second = data.draw(shapes), data.draw(shapes)
    divergence = data.draw(st.sampled_from(list(DIVERGENCES.values())))
    pair = (torch.zeros(shape).log_softmax(-1) for shape in (first, second))
    if first == second:
        assert divergence(*pair).shape == first[:-1]
        return
    with pytest.raises(MismatchError) as error:
        divergence(*pair)
    for shape in (first, second):
        assert ", ".join(map(str, shape)) in str(error.value)


@cases(50)
@given(st.one_of(precise(sparse=True), precise_lm(sparse=True)), temperatures)
def test_top_k_of_another_temperature_or_shape_is_refused(case, temperature):
    own = case.keywords["temperature"]
    wrong = [top_k(torch.cat([case.teacher, case.teacher]), case.k, own)]
    if temperature != own:
        wrong.append(top_k(case.teacher, case.k, temperature))
    for teacher in wrong:
        with pytest.raises(MismatchError):
            case.function(case.student, teacher, case.labels, **case.keywords)


# ---------------------------------------------------------------------------------------------------------------------
# What must change nothing


@cases(75)
@given(st.one_of(precise(), precise(sparse=True)), st.floats(-1e3, 1e3), generators)
def test_a_constant_added_to_a_row_changes_nothing(case, constant, generator):
    shifts = constant * torch.tensor(generator.normal(size=(len(case.student), 2)))
    moved = case.change(student=case.student + shifts[:, :1], teacher=case.teacher + shifts[:, 1:])
    assert_same(case, moved)


@cases(75)
@given(st.one_of(precise(), precise(sparse=True)), generators)
def test_the_order_of_rows_changes_nothing(case, generator):
    order = torch.tensor(generator.permutation(len(case.student)))
    labels = None if case.labels is None else case.labels[order]
    assert_same(case, case.change(student=case.student[order], teacher=case.teacher[order], labels=labels))


@cases(75)
@given(st.one_of(precise(), precise(sparse=True), precise_lm()), generators)
def test_the_order_of_classes_changes_nothing(case, generator):
    order = torch.tensor(generator.permutation(case.student.shape[-1]))
    place, weights, labels = order.argsort(), case.keywords["class_weights"], case.labels
    if labels is not None:
        labels = torch.where(labels == ref.IGNORED, labels, place[labels.clamp(min=0)])
    moved = case.change(student=case.student[..., order], teacher=case.teacher[..., order], labels=labels)
    assert_same(case, moved.with_keywords(class_weights=None if weights is None else weights[order]))


@cases(75)
@given(st.one_of(precise(), precise_lm()), st.integers(1, 3))
def test_classes_that_both_rule_out_change_nothing(case, extra):
    """A vocabulary padded to a round size must not matter, nor pull at the student."""
    case = case.with_keywords(class_weights=None, label_smoothing=0.0)
    student, teacher = (F.pad(x, (0, extra), value=-math.inf) for x in (case.student, case.teacher))
    padded = case.change(student=student, teacher=teacher)
    assert_same(case, padded)
    result, leaf = loss(padded)
    result.total.backward()
    assert (leaf.grad[..., -extra:] == 0).all() and not leaf.grad.isnan().any()


@cases(150)
@given(
    st.one_of(precise(), precise(sparse=True), precise_lm(), precise_lm(sparse=True)),
    st.integers(1, 3),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    st.sampled_from([1.0, 0.5, 1e-30]),
    st.booleans(),
)
def test_a_finite_mask_says_what_minus_infinity_says(case, extra, dtype, share, teacher_alone):
    """Many models mask by the lowest finite number. A probability that underflows was lifted to 1e-38 for the sake of
    infinities, and 1e-38 · 3e38 made a divergence −3.44 where 0.557 was right."""
    temperature, name = max(1.0, case.keywords["temperature"]), case.keywords["divergence"]
    case = case.with_keywords(class_weights=None, label_smoothing=0.0, temperature=temperature)
    assume(not (teacher_alone and name == "reverse_kl"))  # infinite for the one, and nearly so for the other
    case = case.change(student=case.student.to(dtype), teacher=case.teacher.to(dtype))
    if case.k is not None:
        case = case.change(k=settled(case.teacher, case.k))

    def masked_by(student_mask, teacher_mask):
        student = F.pad(case.student, (0, extra), value=0.0 if teacher_alone else student_mask)
        return case.change(student=student, teacher=F.pad(case.teacher, (0, extra), value=teacher_mask))

    lowest = torch.finfo(dtype).min
    ruled_out, masked = masked_by(-math.inf, -math.inf), masked_by(share * lowest, lowest)
    (expected, leaf), (result, masked_leaf) = loss(ruled_out), loss(masked)
    slack = expectation(ruled_out)
    for name in ("total", "hard", "soft"):
        tolerance = UNITS * case.precision * getattr(slack, name).slack
        assert_close(getattr(result, name).item(), getattr(expected, name).item(), tolerance, name)
    for each in (expected, result):
        each.total.backward()
    tolerance = UNITS * case.precision * slack.total.gradient_slack
    assert_gradient(masked_leaf.grad, leaf.grad.double().numpy(), 2 * tolerance, dtype)


@cases(150)
@given(precise_lm(), st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 1e30, math.nan, math.inf, -math.inf]))
def test_padding_left_or_right_changes_nothing(case, left, right, filling):
    """Whatever is at a position that is not supervised, NaN included, neither counts nor gets a gradient."""
    student, teacher = (F.pad(x, (0, 0, left, right), value=filling) for x in (case.student, case.teacher))
    labels = F.pad(put(case.labels, (slice(None), 0), ref.IGNORED), (left, right), value=ref.IGNORED)
    padded = case.change(student=student, teacher=teacher, labels=labels)
    (result, leaf), (again, padded_leaf) = loss(case), loss(padded)
    assert all(a.item() == pytest.approx(b.item(), rel=1e-13) for a, b in zip(again, result, strict=True))
    result.total.backward()
    again.total.backward()
    inner = padded_leaf.grad[:, left : left + case.student.shape[1]]
    torch.testing.assert_close(inner, leaf.grad, rtol=1e-12, atol=0.0)
    padded_leaf.grad[:, left : left + case.student.shape[1]] = 0
    assert (padded_leaf.grad == 0).all()


@cases(150)
@given(lm_cases(dtypes=[torch.float64], batch=(1, 3), length=(2, 5)), st.sampled_from([math.nan, math.inf, 1e30]))
def test_positions_without_a_label_have_no_influence(case, filling):
    ignored = torch.ones(case.labels.shape, dtype=torch.bool)
    ignored[:, :-1] = case.labels[:, 1:] == ref.IGNORED
    spoiled = case.change(student=put(case.student, ignored, filling), teacher=put(case.teacher, ignored, filling))
    (result, leaf), (again, spoiled_leaf) = loss(case), loss(spoiled)
    assert all(torch.equal(a, b) for a, b in zip(again, result, strict=True))
    result.total.backward()
    again.total.backward()
    assert (spoiled_leaf.grad[ignored] == 0).all()
    if result.total.isfinite():
        assert torch.equal(spoiled_leaf.grad, leaf.grad)


@cases(75)
@given(precise_lm())
def test_a_language_model_is_a_classifier_of_its_supervised_positions(case):
    targets = case.labels[:, 1:]
    chosen = targets != ref.IGNORED
    flat = case.change(
        student=case.student[:, :-1][chosen], teacher=case.teacher[:, :-1][chosen], labels=targets[chosen]
    )
    assert_same(case, flat)


def supervised(case):
    """How many rows the hard term and the soft term of this case count."""
    if case.labels is None:
        return 0, len(case.student)
    if case.student.ndim == 2:
        return int((case.labels != ref.IGNORED).sum()), len(case.student)
    return (int((case.labels[:, 1:] != ref.IGNORED).sum()),) * 2


@cases(150)
@given(st.one_of(precise(), precise(sparse=True), precise_lm(), precise_lm(sparse=True)), generators)
def test_uneven_pieces_add_up_to_the_whole(case, generator):
    """Gradient accumulation: pieces that are divided by the items of the whole sum to the whole, gradient included."""
    whole, leaf = loss(case.with_keywords(num_items=None))
    whole.total.backward()
    length, counted = len(case.student), supervised(case)
    cuts = np.sort(generator.integers(0, length + 1, size=2))
    pieces, start = [], 0
    for end in [*cuts, length]:
        labels = None if case.labels is None else case.labels[start:end]
        piece = case.change(student=case.student[start:end], teacher=case.teacher[start:end], labels=labels)
        pieces.append(loss(piece.with_keywords(num_items=counted)))
        start = end
    # A piece of other length is summed in another order, by other instructions: the same within rounding, twice over.
    rounding, expected = 2 * UNITS * case.precision, expectation(case.with_keywords(num_items=None))
    for name in ("total", "hard", "soft"):
        together = sum(getattr(result, name).item() for result, _ in pieces)
        assert_close(together, getattr(whole, name).item(), rounding * getattr(expected, name).slack, name)
    for result, _ in pieces:
        result.total.backward()
    gradients = torch.cat([student.grad for _, student in pieces])
    assert_gradient(gradients, leaf.grad.double().numpy(), rounding * expected.total.gradient_slack, case.student.dtype)


@cases(150)
@given(st.one_of(precise(), precise(sparse=True), precise_lm(), precise_lm(sparse=True)))
def test_the_terms_of_single_rows_are_those_of_calls_with_one_row(case):
    """reduction="none" that forgets T², a mask or the shift, or puts a term at another position."""
    case = case.change(keywords={name: value for name, value in case.keywords.items() if name != "num_items"})
    rows, _ = loss(case.with_keywords(reduction="none"))
    shifted = case.student.ndim == 3
    assert rows.total.shape == ((len(case.student), case.student.shape[1] - 1) if shifted else (len(case.student),))
    for place in itertools.product(*map(range, rows.total.shape)):
        pick, target = (place, (place[0], place[1] + 1)) if shifted else (place[0], place[0])
        if shifted and case.labels[target] == ref.IGNORED:
            assert [part[place].item() for part in rows] == [0, 0, 0]
            continue
        alone = case.change(
            student=case.student[pick].unsqueeze(0),
            teacher=case.teacher[pick].unsqueeze(0),
            labels=None if case.labels is None else case.labels[target].reshape(1),
        )
        for part, expected in zip(rows, expectation(alone), strict=True):
            unit = UNITS * case.precision
            assert_close(part[place].item(), expected.value, unit * expected.slack, f"row {place}")
    assert rows.total.requires_grad


@cases(75)
@given(st.one_of(precise(), precise_lm()))
def test_temperature_is_a_rescaling_of_both_logits(case):
    """T² · D(t / T, s / T): the soft term at T is T² times the soft term at 1 of logits that were divided before."""
    temperature = case.keywords["temperature"]
    cooled = case.change(student=case.student / temperature, teacher=case.teacher / temperature)
    (hot, _), (cold, _) = loss(case), loss(cooled.with_keywords(temperature=1.0))
    slack = UNITS * case.precision * expectation(case).soft.slack
    assert_close(hot.soft.item(), temperature**2 * cold.soft.item(), 2 * slack, "soft")


@cases(75)
@given(st.one_of(precise(), precise_lm()))
def test_top_k_of_all_classes_is_the_dense_teacher(case):
    assert_same(case, case.change(k=case.student.shape[-1]))


# ---------------------------------------------------------------------------------------------------------------------
# What has a sign or an order


@cases(100)
@given(st.one_of(classifier_cases(rows=(1, 4)), classifier_cases(rows=(1, 4), sparse=True)))
def test_no_divergence_is_negative(case):
    case = case.with_keywords(num_items=None)
    (result, _), slack = loss(case), UNITS * case.precision * expectation(case).soft.slack
    assert result.soft >= -slack
    if case.keywords["divergence"] == "jensen_shannon":
        ceiling = scipy.stats.entropy([case.beta, 1 - case.beta]) * case.keywords["temperature"] ** 2
        assert result.soft <= ceiling + slack


@cases(100)
@given(precise())
def test_a_coarser_partition_never_increases_the_divergence(case):
    """D over the buckets of top_k grows with k up to the dense D: what is pooled can only hide a difference."""
    classes = case.student.shape[1]
    distinct = case.change(teacher=case.teacher + 1e-4 * torch.arange(classes) * (1 + case.teacher.abs().max()))
    distinct = distinct.with_keywords(num_items=None)
    sizes = [k for k in range(1, classes + 1) if settled(distinct.teacher, k) == k]
    softs = [loss(distinct.change(k=k))[0].soft.item() for k in sizes] + [loss(distinct)[0].soft.item()]
    slack = 2 * UNITS * case.precision * expectation(distinct).soft.slack
    assert all(coarse <= fine + slack for coarse, fine in itertools.pairwise(softs))


@cases(50)
@given(st.data())
def test_the_two_directions_mirror_each_other(data):
    shape = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6)))
    student, teacher = (x.log_softmax(-1) for x in data.draw(logit_pairs(shape, [torch.float64])))
    beta = data.draw(st.floats(0.01, 0.99))
    torch.testing.assert_close(forward_kl(student, teacher), reverse_kl(teacher, student))
    torch.testing.assert_close(
        jensen_shannon(student, teacher, beta=beta), jensen_shannon(teacher, student, beta=1 - beta)
    )


# ---------------------------------------------------------------------------------------------------------------------
# Value and gradient are the same function


@pytest.mark.parametrize("k", [None, 2], ids=["dense", "top-2"])
@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5)], ids=["classifier", "language model"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradients_agree_with_finite_differences(name, temperature, shape, k):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    labels = torch.randint(5, shape[:-1], generator=generator)
    labels[-1, ...] = labels[-1].where(labels[-1] > 2, ref.IGNORED)
    keywords = {"alpha": 0.3, "temperature": temperature, "divergence": name, "label_smoothing": 0.1}
    case = Case(student, teacher, labels, keywords, k=k)
    target = teacher if k is None else top_k(teacher, k, temperature)
    assert torch.autograd.gradcheck(
        lambda logits: case.function(logits, target, labels, **keywords), student.clone().requires_grad_()
    )
