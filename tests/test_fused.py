"""The loss without the logits: the reference's numbers for hidden states and heads, in chunks of every size."""

import dataclasses
import itertools
import math

import hypothesis.strategies as st
import objective_reference as ref
import pytest
import torch
from hypothesis import given
from test_properties import UNITS, assert_close, assert_gradient, cases, expectation, generators, lm_cases
from torch.utils._python_dispatch import TorchDispatchMode

from kdcourse import MismatchError, fused_lm_distillation_loss, lm_distillation_loss
from kdcourse.fused import MEMORY, Head
from kdcourse.topk import top_k

LARGEST = 1e30
"""Finite, and lower than any logit that a model gives, as the numbers that masks are made of."""


@st.composite
def fused_cases(draw):
    """A case of the dense loss whose logits a head can make: some classes ruled out for all rows alike, by its bias."""
    case = draw(
        lm_cases(dtypes=[torch.float64, torch.float32], masked=False, classes=(2, 6), sparse=draw(st.booleans()))
    )
    case = case.with_keywords(temperature=draw(st.sampled_from([case.keywords["temperature"], 1.0, 2.0])))
    generator, biases = draw(generators), []
    for logits in (case.student, case.teacher):
        bias = torch.zeros(logits.shape[-1], dtype=logits.dtype)
        ruled_out = torch.from_numpy(generator.random(len(bias)) < draw(st.sampled_from([0.0, 0.0, 0.3])))
        ruled_out[generator.integers(len(bias))] = False
        bias[ruled_out] = draw(st.sampled_from([-math.inf, -math.inf, -LARGEST]))
        biases.append(bias)
    return case, *biases, draw(st.sampled_from([1, 300, 10**6]))


def fused(case, student_bias, teacher_bias, memory):
    """The fused answer, where hidden states are the logits and heads change nothing but add a bias."""
    hidden = case.student.clone().requires_grad_()
    classes = hidden.shape[-1]
    teacher = {"teacher_hidden": case.teacher, "teacher_head": Head(torch.eye(classes).to(case.teacher), teacher_bias)}
    if case.k is not None:
        whole = case.teacher + teacher_bias
        teacher = dict.fromkeys(teacher) | {"teacher_logits": top_k(whole, case.k, case.keywords["temperature"])}
    keywords = dict(case.keywords)
    if keywords["divergence"] == "jensen_shannon":
        keywords["beta"] = case.beta
    head = Head(torch.eye(classes).to(hidden), student_bias)
    loss = fused_lm_distillation_loss(hidden, head, labels=case.labels, memory=memory, **teacher, **keywords)
    return loss, hidden


@cases(600)
@given(fused_cases())
def test_it_is_the_objective_of_the_logits(drawn):
    """A fast path that is another objective (trl#5731, #6629): T² lost, masked tokens counted, infinities as NaN."""
    case, student_bias, teacher_bias, memory = drawn
    logits = case.change(student=case.student + student_bias, teacher=case.teacher + teacher_bias)
    if case.keywords["temperature"] < 1 and LARGEST in (-student_bias.min(), -teacher_bias.min()):
        return  # LARGEST / T may overflow, which is refused: a test of its own
    expected = expectation(logits)
    loss, hidden = fused(case, student_bias, teacher_bias, memory)
    for name in ("total", "hard", "soft"):
        term = getattr(expected, name)
        assert_close(getattr(loss, name).item(), term.value, UNITS * case.precision * term.slack, name)
    loss.total.backward()
    if math.isfinite(expected.total.value):
        slack = UNITS * case.precision * expected.total.gradient_slack
        assert_gradient(hidden.grad, expected.total.gradient, slack, case.student.dtype)


SETTINGS = {"alpha": 0.4, "temperature": 2.0}


@dataclasses.dataclass
class Models:
    """Hidden states and heads in float64, labels with gaps, and the logits that they make."""

    bias: bool = False
    scale: float = 1.0
    softcap: float | None = None

    def __post_init__(self):
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.hidden, self.weight, self.offset = draw(3, 7, 5), draw(11, 5), draw(11)
        self.teacher_hidden, self.teacher_weight = draw(3, 7, 4), draw(11, 4)
        self.labels = torch.randint(0, 11, (3, 7), generator=generator)
        self.labels[torch.rand(3, 7, generator=generator) < 0.3] = ref.IGNORED
        self.leaves = [self.hidden, self.weight, *([self.offset] if self.bias else [])]
        for leaf in self.leaves:
            leaf.requires_grad_()

    def logits(self):
        logits = self.scale * (self.hidden @ self.weight.t() + (self.offset if self.bias else 0))
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def teacher_logits(self):
        return self.teacher_hidden @ self.teacher_weight.t()

    def fused(self, **changes):
        head = Head(self.weight, self.offset if self.bias else None, self.scale, self.softcap)
        return fused_lm_distillation_loss(
            self.hidden, head, self.teacher_hidden, self.teacher_weight, self.labels, **SETTINGS | changes
        )


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jensen_shannon"])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("head", [{}, {"bias": True}, {"scale": 0.3, "bias": True}, {"softcap": 2.0}], ids=str)
def test_the_gradient_reaches_hidden_states_and_head(head, temperature, divergence):
    """A scale that is in the value and not in the gradient, the slope of a soft-cap, a bias that never learns."""
    models = Models(**head)
    settings = {"alpha": 0.4, "temperature": temperature, "divergence": divergence}
    logits = models.logits()
    expected = ref.lm_objective(
        logits.detach().numpy(), models.teacher_logits().numpy(), models.labels.numpy(), **settings
    ).total
    gradients = torch.autograd.grad(logits, models.leaves, torch.from_numpy(expected.gradient))
    loss = models.fused(**settings, memory=3000)
    assert loss.total.item() == pytest.approx(expected.value)
    for ours, theirs in zip(torch.autograd.grad(3 * loss.total, models.leaves), gradients, strict=True):
        assert torch.allclose(ours, 3 * theirs, atol=1e-12)


def test_what_is_masked_is_never_computed():
    """NaN in the hidden states of padding, in value or gradient (Liger#1478)."""
    models = Models()
    clean = models.fused()
    expected = torch.autograd.grad(clean.total, models.leaves)
    for states in (models.hidden, models.teacher_hidden):
        states.data[:, :-1][models.labels[:, 1:] == ref.IGNORED] = math.nan
        states.data[:, -1] = math.nan
    loss = models.fused()
    assert loss.total == clean.total
    hidden, weight = torch.autograd.grad(loss.total, models.leaves)
    assert torch.equal(weight, expected[1])
    assert torch.equal(hidden, expected[0])


def test_nothing_supervised_is_zero_with_a_graph():
    """NaN, or a constant without a graph, where a batch is a prompt alone."""
    models = Models()
    models.labels.fill_(ref.IGNORED)
    loss = models.fused()
    assert [part.item() for part in loss] == [0, 0, 0]
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss.total, models.leaves))


def test_a_head_that_is_frozen_costs_and_gets_nothing():
    """The largest gradient of all, computed for a head under LoRA."""
    models = Models()
    models.weight.requires_grad_(False)
    loss = models.fused()
    (gradient,) = torch.autograd.grad(loss.total, [models.hidden])
    assert gradient.any()
    with torch.no_grad():
        assert not models.fused().total.requires_grad


def test_a_second_backward_pass_is_refused():
    """A gradient that was scaled in place, handed out once more."""
    models = Models()
    loss = models.fused()
    torch.autograd.grad(loss.total, models.leaves, retain_graph=True)
    with pytest.raises(RuntimeError, match="handed out once"):
        torch.autograd.grad(loss.total, models.leaves)


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
def test_heads_in_16_bits_are_multiplied_in_32(autocast):
    """Rounded logits put gradients off by 4 to 23% (Liger#1432)."""
    exact, rounded = Models(), Models()
    for name in ("hidden", "weight", "teacher_hidden", "teacher_weight"):
        low = getattr(exact, name).detach().bfloat16()
        getattr(exact, name).data = low.double()
        setattr(rounded, name, low.clone().requires_grad_(name in ("hidden", "weight")))
    expected = torch.autograd.grad(exact.fused().total, exact.leaves)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = rounded.fused()
    assert loss.total.item() == pytest.approx(exact.fused().total.item(), rel=1e-5)
    for ours, theirs in zip(torch.autograd.grad(loss.total, [rounded.hidden, rounded.weight]), expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - theirs).abs().max() <= theirs.abs().max() * 2**-8


def test_a_scaled_gradient_in_float16_is_rounded_after_it_is_scaled():
    """What GradScaler is for, undone: of a step of 524,288 tokens, each of its parts below 6e-8 was 0 in float16
    before it was times 65,536, and the update off by 62%."""
    exact, rounded, tokens, scale = Models(bias=True), Models(bias=True), 2**23, 65_536.0
    for name in ("hidden", "weight", "offset", "teacher_hidden", "teacher_weight"):
        low = getattr(exact, name).detach().half()
        getattr(exact, name).data = low.double()
        setattr(rounded, name, low.clone().requires_grad_(not name.startswith("teacher")))
    expected = torch.autograd.grad(exact.fused(num_items=tokens).total, exact.leaves)
    loss = scale * rounded.fused(num_items=tokens).total
    given = torch.autograd.grad(loss, [rounded.hidden, rounded.weight, rounded.offset])
    for ours, theirs in zip(given, expected, strict=True):
        assert ours.dtype == torch.float16
        assert theirs.abs().max() < torch.finfo(torch.float16).tiny
        assert (ours.double() / scale - theirs).norm() < 1e-3 * theirs.norm()


# torch's compiler asks every tensor for its `grad`, and hides the warning that this gives from users, not from pytest.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_it_runs_where_the_model_is_compiled_or_checkpointed():
    """A graph that cannot be cut at the loss; a gradient that is lost between two segments."""
    plain = Models()
    expected = torch.autograd.grad(plain.fused().total, plain.leaves)
    compiled, checkpointed = Models(), Models()
    step = torch.compile(lambda: compiled.fused().total * 2 / 2, backend="eager")
    again = torch.utils.checkpoint.checkpoint(lambda: checkpointed.fused().total, use_reentrant=False)
    for models, total in ((compiled, step()), (checkpointed, again)):
        for ours, theirs in zip(torch.autograd.grad(total, models.leaves), expected, strict=True):
            assert torch.allclose(ours, theirs)


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that is made."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **kwargs or {})
        for each in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(each, torch.Tensor):
                self.bytes = max(self.bytes, each.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon"])
def test_no_tensor_is_as_large_as_the_logits(divergence):
    """Chunks that are as large as the whole (TRL GKD, Liger at 2C - 1)."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 301, 8, generator=generator).requires_grad_()
    head = torch.randn(2000, 8, generator=generator)
    labels = torch.randint(0, 2000, (4, 301), generator=generator)
    settings = SETTINGS | {"divergence": divergence}
    with Largest() as largest:
        loss = fused_lm_distillation_loss(hidden, head, hidden.detach() + 1, head, labels, memory=10**6, **settings)
        loss.total.backward()
    assert largest.bytes <= 10**6 / 2
    logits = hidden @ head.t()
    whole = lm_distillation_loss(logits, (hidden.detach() + 1) @ head.t(), labels, **settings)
    assert logits.numel() * 4 > 9e6
    assert loss.total.item() == pytest.approx(whole.total.item(), rel=1e-5)


def most_allocated(work):
    """The most bytes at once that the allocator hands out during some work, beyond those before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def beyond_gradients(tokens, vocabulary, width=8, *, dtype=torch.float32, cut=None, softcap=None, **settings):
    """Bytes that a step takes beyond its inputs and their gradients; those are in float32 until they are handed out."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)  # noqa: E731
    hidden, weight = draw(1, tokens + 1, width).requires_grad_(), draw(vocabulary, width).requires_grad_()
    states, head = draw(1, tokens + 1, width), draw(vocabulary, width)
    labels = torch.randint(0, vocabulary, (1, tokens + 1), generator=generator)
    teacher = {"teacher_hidden": states, "teacher_head": head}
    settings = SETTINGS | settings
    if cut is not None:
        logits = states @ head.t()
        given = top_k(logits, cut, settings["temperature"]) if cut < vocabulary else logits
        teacher = {"teacher_hidden": None, "teacher_head": None, "teacher_logits": given}

    def step():
        loss = fused_lm_distillation_loss(hidden, Head(weight, softcap=softcap), labels=labels, **teacher, **settings)
        loss.total.backward()

    step()
    hidden.grad = weight.grad = None
    gradients = sum(leaf.numel() * max(4, leaf.element_size()) for leaf in (hidden, weight))
    return most_allocated(step) - gradients


CLASS_WEIGHTS = torch.linspace(0.5, 2, 4000)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jensen_shannon"])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"temperature": 1.0}, {"temperature": 3.7}, {"temperature": 0.7}, {"softcap": 30.0}, {"cut": 20},
        {"cut": 3000}, {"cut": 4000}, {"dtype": torch.bfloat16}, {"dtype": torch.float16}, {"dtype": torch.float64},
        {"label_smoothing": 0.1},
        {"class_weights": CLASS_WEIGHTS, "label_smoothing": 0.1, "softcap": 30.0, "temperature": 0.7},
    ],
    ids=str,
)  # fmt: skip
def test_memory_stays_within_the_budget(options, divergence):
    """Buffers that nobody counted: of a mixture, of a top k, of a head in 16 bits."""
    memory = 2 * 10**6
    assert beyond_gradients(120, 4000, divergence=divergence, memory=memory, **options) <= memory


def test_memory_does_not_grow_with_tokens():
    """A chunk that grows with the batch, and something of each chunk that is kept."""
    few, many = (beyond_gradients(tokens, 5000, memory=4 * 10**6) for tokens in (512, 4096))
    assert many == pytest.approx(few, rel=0.1)


@pytest.mark.parametrize("memory", [MEMORY, 20 * 10**6])
def test_a_large_vocabulary_stays_within_the_budget(memory):
    """Buffers for a fixed number of rows, which take more with Qwen's vocabulary than with Llama's."""
    assert beyond_gradients(100, 152_064, width=2, memory=memory) <= memory


@pytest.mark.slow
def test_a_real_step_takes_130_megabytes_however_long():
    """Numbers of a toy that a real size does not keep."""
    few, many = (beyond_gradients(tokens, 49_152, 64) for tokens in (512, 4096))
    assert many <= 130e6
    assert many == pytest.approx(few, rel=0.1)


def test_the_first_stripe_need_not_hold_the_largest_logit():
    """An overflow, where all exponentials are relative to the largest of the first few token ids."""
    models = Models()
    for gap in (0.0, 50.0, 300.0, 1e4):
        models.weight.data[7] = gap * models.weight.data[7].sign()
        logits = models.logits()
        whole = lm_distillation_loss(logits, models.teacher_logits(), models.labels, **SETTINGS)
        striped = models.fused(memory=200)
        assert striped.total.item() == pytest.approx(whole.total.item(), rel=1e-9)
        for ours, theirs in zip(
            *(torch.autograd.grad(loss.total, models.leaves) for loss in (striped, whole)), strict=True
        ):
            assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-12)


def test_what_does_not_fit_is_said():
    """Heads of two vocabularies, labels that were shifted already, a teacher that was forgotten."""
    models = Models()
    hidden, weight, states, head, labels = (
        models.hidden, models.weight, models.teacher_hidden, models.teacher_weight, models.labels,
    )  # fmt: skip
    for arguments, error, words in (
        ((hidden, weight, states, head[:10], labels), MismatchError, "11 token ids and the teacher 10"),
        ((hidden, weight, states, head, labels[:, 1:]), MismatchError, r"\(3, 7, 5\) and labels \(3, 6\)"),
        ((hidden, weight, states[:, 1:], head, labels), MismatchError, "teacher_hidden holds"),
        ((hidden, weight.t(), states, head, labels), MismatchError, r"student_head has shape \(5, 11\)"),
        ((hidden, weight, None, None, labels), ValueError, "There is no teacher"),
        ((hidden, weight, states, head, labels + 11), ValueError, "with 11 classes a label is 0 to 10"),
    ):
        with pytest.raises(error, match=words):
            fused_lm_distillation_loss(*arguments, **SETTINGS)
    with pytest.raises(ValueError, match="student_logits hold nan"):
        fused_lm_distillation_loss(hidden * math.nan, weight, states, head, labels.clamp(min=0), **SETTINGS)
    models.hidden.data.mul_(1e300)
    with pytest.raises(ValueError, match="overflow"):
        models.fused(alpha=0.0, temperature=1e-10)
