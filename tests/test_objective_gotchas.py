"""What went wrong in other libraries, one test each: numbers worked out by hand, or another implementation's."""

import math

import objective_reference as ref
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from kdcourse import MismatchError, distillation_loss, forward_kl, jensen_shannon, lm_distillation_loss, reverse_kl
from kdcourse.topk import top_k

P, Q = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64), torch.tensor([[0.1, 0.3, 0.6]], dtype=torch.float64)
NAMES = ["forward_kl", "reverse_kl", "jensen_shannon"]
INF = math.inf


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def tensor(*rows, dtype=torch.float64):
    return torch.tensor(rows, dtype=dtype)


def soft(student, teacher, temperature=1.0, divergence="forward_kl"):
    return distillation_loss(student, teacher, alpha=0.0, temperature=temperature, divergence=divergence).soft


def gradient(function, logits):
    leaf = logits.clone().requires_grad_()
    function(leaf).backward()
    return leaf.grad


# ---------------------------------------------------------------------------------------------------------------------
# Denominators


def test_the_mean_is_over_rows_and_not_over_classes():
    """reduction="mean" divides by the classes as well: a loss C times too small (pytorch#2259)."""
    student, teacher = normal(2, 6, 5)
    with pytest.warns(UserWarning, match="batchmean"):
        mean = F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="mean")
    assert soft(student, teacher).item() == pytest.approx(5 * mean.item())


def test_a_language_model_is_averaged_per_token_and_not_per_sequence():
    """reduction="batchmean" divides by the first dimension only: 7 times too large for 7 tokens."""
    student, teacher = normal(2, 4, 8, 11)
    loss = lm_distillation_loss(student, teacher, torch.zeros(4, 8, dtype=torch.long), alpha=0.0, temperature=1.0)
    log_p, q = student[:, :-1].log_softmax(-1), teacher[:, :-1].softmax(-1)
    assert F.kl_div(log_p, q, reduction="batchmean").item() == pytest.approx(7.0 * loss.soft.item())


def test_each_term_has_its_own_count():
    """A row without a label counts for the teacher and not for the labels."""
    student, teacher, labels = normal(3, 4), normal(3, 4, seed=1), torch.tensor([2, -100, -100])
    loss = distillation_loss(student, teacher, labels, alpha=0.5, temperature=1.0)
    assert loss.hard.item() == pytest.approx(F.cross_entropy(student[:1], labels[:1]).item())
    rows = [soft(student[n : n + 1], teacher[n : n + 1]).item() for n in range(3)]
    assert loss.soft.item() == pytest.approx(sum(rows) / 3)


@pytest.mark.parametrize("shape", [(0, 3), (4, 3), (0, 5, 3), (2, 1, 3), (2, 5, 3)])
@pytest.mark.parametrize("num_items", [None, 0, 7, (0, 0)])
def test_nothing_supervised_is_zero_with_a_graph(shape, num_items):
    """0 / 0 is NaN, and one such batch is enough to lose a run (LMOps#38)."""
    student = normal(*shape).requires_grad_()
    labels, function = torch.full(shape[:-1], -100), lm_distillation_loss if len(shape) == 3 else distillation_loss
    alpha = 0.5 if len(shape) == 3 or not shape[0] else 1.0  # the rows of a classifier learn from the teacher anyway
    loss = function(student, normal(*shape, seed=1), labels, alpha=alpha, temperature=2.0, num_items=num_items)
    assert loss.total.item() == 0 and loss.hard.item() == 0
    loss.total.backward()
    assert (student.grad == 0).all() and student.grad.shape == shape


# ---------------------------------------------------------------------------------------------------------------------
# Direction, log space, beta


def test_forward_is_the_teacher_against_the_student():
    """KL is not symmetric, and kl_div takes the target second (trl#3043): KL(p ‖ q) = 1.1019, KL(q ‖ p) = 1.0021."""
    assert forward_kl(Q.log(), P.log()).item() == pytest.approx(1.1019, abs=5e-5)
    assert reverse_kl(Q.log(), P.log()).item() == pytest.approx(1.0021, abs=5e-5)
    assert soft(Q.log(), P.log()).item() == pytest.approx(1.1019, abs=5e-5)
    assert soft(Q.log(), P.log(), divergence="reverse_kl").item() == pytest.approx(1.0021, abs=5e-5)


def test_a_function_is_given_student_and_teacher_in_this_order_softened_and_normalised():
    """As a divergence of one's own must be able to tell the two apart (trl#3043)."""
    seen = []

    def record(student, teacher):
        seen.extend([student.detach(), teacher.detach()])
        return forward_kl(student, teacher)

    student, teacher = normal(2, 3, 4)
    value = soft(student, teacher, 2.0, record)
    torch.testing.assert_close(seen, [(student / 2).log_softmax(-1), (teacher / 2).log_softmax(-1)])
    assert value.item() == pytest.approx(soft(student, teacher, 2.0).item())


def test_identical_models_differ_by_nothing():
    """Softmax instead of log_softmax as kl_div's input goes negative: −1.088 here, −1.358 for identical models."""
    assert F.kl_div(P, Q, reduction="batchmean").item() == pytest.approx(-1.088, abs=5e-4)
    assert F.kl_div(Q, Q, reduction="batchmean").item() == pytest.approx(-1.358, abs=5e-4)
    for name in NAMES:
        assert soft(Q.log(), Q.log(), 3.0, name).item() == pytest.approx(0.0, abs=1e-15)
        assert soft(P.log(), Q.log(), 3.0, name).item() > 0.1


@pytest.mark.parametrize("beta", [1e-3, 1e-5, 1e-7])
def test_jensen_shannon_over_beta_goes_to_a_kl(beta):
    """At its ends it goes to 0, and it is the slope there that is a KL (ms-swift#10078, trl#6780)."""
    assert jensen_shannon(Q.log(), P.log(), beta=beta).item() / beta == pytest.approx(1.1019, abs=5 * beta + 5e-5)
    assert jensen_shannon(Q.log(), P.log(), beta=1 - beta).item() / beta == pytest.approx(1.0021, abs=5 * beta + 5e-5)


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, 1.1, math.nan, INF])
def test_jensen_shannon_has_no_ends(beta):
    """Code that puts a KL at beta 0 and 1 makes the loss jump there (ms-swift#10078, trl#6780)."""
    with pytest.raises(ValueError):
        jensen_shannon(P.log(), Q.log(), beta=beta)


# ---------------------------------------------------------------------------------------------------------------------
# Temperature


def test_t_squared_is_there_at_every_alpha():
    """torchdistill applies T² only if alpha is not 0: 0.038 there, 0.603 next to it."""
    student, teacher, labels = normal(4, 5), normal(4, 5, seed=1), torch.arange(4)

    def total(alpha):
        return distillation_loss(student, teacher, labels, alpha=alpha, temperature=4.0).total.item()

    kl = F.kl_div((student / 4).log_softmax(-1), (teacher / 4).softmax(-1), reduction="batchmean").item()
    assert total(0.0) == pytest.approx(16 * kl)
    assert total(1e-9) == pytest.approx(total(0.0), abs=1e-7)
    assert total(1.0) == pytest.approx(F.cross_entropy(student, labels).item())
    assert total(1 - 1e-9) == pytest.approx(total(1.0), abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [2.0, 4.0])
def test_the_gradient_is_that_of_the_value(temperature, name):
    """T² on the value and not on the gradient: finite differences are 4 and 16 times the gradient (Axolotl)."""
    student, teacher, direction = normal(3, 4, 5)
    slope = (gradient(lambda x: soft(x, teacher, temperature, name), student) * direction).sum().item()
    ahead, behind = (soft(student + h * direction, teacher, temperature, name).item() for h in (1e-5, -1e-5))
    assert (ahead - behind) / 2e-5 == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 20.0])
def test_gradients_in_closed_form(temperature):
    """Forward T (p − q) / N, reverse T p ((log p − log q) − KL) / N, cross-entropy (p − onehot) / N."""
    student, teacher, labels = normal(4, 5), normal(4, 5, seed=1), torch.tensor([3, 0, 0, 4])
    log_p, log_q = ((x / temperature).log_softmax(-1) for x in (student, teacher))
    p, q, ratio = log_p.exp(), log_q.exp(), log_p - log_q
    forward = temperature * (p - q) / 4
    reverse = temperature * p * (ratio - (p * ratio).sum(-1, keepdim=True)) / 4
    hard = (student.softmax(-1) - F.one_hot(labels, 5)) / 4

    def total(logits, alpha, name):
        return distillation_loss(logits, teacher, labels, alpha=alpha, temperature=temperature, divergence=name).total

    torch.testing.assert_close(gradient(lambda x: total(x, 0.0, "forward_kl"), student), forward)
    torch.testing.assert_close(gradient(lambda x: total(x, 0.0, "reverse_kl"), student), reverse)
    torch.testing.assert_close(gradient(lambda x: total(x, 0.25, "forward_kl"), student), 0.25 * hard + 0.75 * forward)


@pytest.mark.parametrize(("name", "share"), [("forward_kl", 1.0), ("reverse_kl", 1.0), ("jensen_shannon", 0.25)])
def test_a_high_temperature_compares_centred_logits(name, share):
    """As T → ∞, T² · KL → ‖centred difference‖² / 2C, and β (1 − β) of that for Jensen-Shannon."""
    student, teacher = normal(2, 1, 6)
    difference = student - teacher
    limit = share * (difference - difference.mean()).square().sum().item() / 12
    assert soft(student, teacher, 1e4, name).item() == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_logits_that_overflow_when_divided_are_refused(name):
    """On the far side of the maximum the quotient becomes −inf, which would pass for a class that is ruled out."""
    student, teacher = tensor([0.0, -1e30], dtype=torch.float32), tensor([-1e30, 0.0], dtype=torch.float32)
    with pytest.raises(ValueError, match="temperature"):
        soft(student, teacher, 1e-10, name)
    with pytest.raises(ValueError, match="temperature"):
        soft(torch.zeros(1, 2), top_k(teacher, 1, 1e-10), 1e-10, name)


# ---------------------------------------------------------------------------------------------------------------------
# Positions


def test_position_t_predicts_token_t_plus_one():
    """One off, and a model learns to copy (DistillKit, ms-swift#8436). Three tokens, worked out by hand.

    Position 0: student (1/2, 1/2), teacher (1/4, 3/4), next token 1: CE = ln 2, KL = 3/4 ln 3 − ln 2.
    Position 1: student (3/4, 1/4), teacher (1/2, 1/2), next token 0: CE = ln 4/3, KL = 1/2 ln 4/3.
    Position 2 predicts nothing, and token 0 is predicted by nothing.
    """
    three = math.log(3)
    student = tensor([[0.0, 0.0], [three, 0.0], [9.0, -9.0]])
    teacher = tensor([[0.0, three], [0.0, 0.0], [-9.0, 9.0]])

    def loss(*labels):
        return lm_distillation_loss(student, teacher, torch.tensor([labels]), alpha=0.5, temperature=1.0)

    first, second = (math.log(2), 0.75 * three - math.log(2)), (math.log(4 / 3), 0.5 * math.log(4 / 3))
    for labels in ((0, 1, 0), (1, 1, 0), (-100, 1, 0)):
        assert loss(*labels).hard.item() == pytest.approx((first[0] + second[0]) / 2)
        assert loss(*labels).soft.item() == pytest.approx((first[1] + second[1]) / 2)
    only_first, only_second = loss(0, 1, -100), loss(-100, -100, 0)
    assert (only_first.hard.item(), only_first.soft.item()) == pytest.approx(first)
    assert (only_second.hard.item(), only_second.soft.item()) == pytest.approx(second)
    assert loss(1, -100, -100).total.item() == 0


def test_padding_is_not_in_the_loss():
    """Neither in its sum nor in its denominator (Liger#974)."""
    student, teacher, labels = normal(2, 4, 5), normal(2, 4, 5, seed=1), torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1]])
    expected = lm_distillation_loss(student, teacher, labels, alpha=0.3, temperature=2.0)
    garbage, ignored = 100 * normal(2, 3, 5, seed=2), torch.full((2, 3), -100)
    student, teacher = torch.cat([student, garbage], 1), torch.cat([teacher, -garbage], 1)
    padded = lm_distillation_loss(student, teacher, torch.cat([labels, ignored], 1), alpha=0.3, temperature=2.0)
    assert [x.item() for x in padded] == pytest.approx([x.item() for x in expected])


# ---------------------------------------------------------------------------------------------------------------------
# Infinity, underflow, 16 bits


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_both_rule_out_has_no_say(name):
    """kl_div(−inf, −inf) is NaN; 0 · log 0 is 0, in value and gradient (Soup#719, trl#5594)."""
    student, teacher = tensor([0.3, -INF, 1.0, -INF]), tensor([2.0, -INF, -1.0, -INF])
    kept = [0, 2]
    assert soft(student, teacher, 2.0, name).item() == pytest.approx(
        soft(student[:, kept], teacher[:, kept], 2.0, name)
    )
    slope = gradient(lambda x: soft(x, teacher, 2.0, name), student)
    torch.testing.assert_close(
        slope[:, kept], gradient(lambda x: soft(x, teacher[:, kept], 2.0, name), student[:, kept])
    )
    assert (slope[:, [1, 3]] == 0).all()


@pytest.mark.parametrize(
    ("student", "teacher", "infinite"),
    [((0.0, -INF), (0.0, 0.0), "forward_kl"), ((0.0, 0.0), (0.0, -INF), "reverse_kl")],
)
def test_one_direction_each_is_infinite(student, teacher, infinite):
    """Ruled out by one of the two: ln 2 in the direction that never looks there, infinite in the other.

    Jensen-Shannon with m = (3/4, 1/4) is 1/2 ln 4/3 + 1/4 ln 2/3 + 1/4 ln 2, and a finite value has a finite gradient.
    """
    values = {name: soft(tensor(student), tensor(teacher), 1.0, name).item() for name in NAMES}
    finite = ({"forward_kl", "reverse_kl"} - {infinite}).pop()
    assert values[infinite] == INF
    assert values[finite] == pytest.approx(math.log(2))
    assert values["jensen_shannon"] == pytest.approx(math.log(4 / 3) / 2 + math.log(2 / 3) / 4 + math.log(2) / 4)
    for name in (finite, "jensen_shannon"):
        slope = gradient(lambda x, name=name: soft(x, tensor(teacher), 1.0, name), tensor(student))
        assert slope.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ruled_out_is_infinitely_bad_however_unlikely_the_other_finds_it(dtype):
    """exp(−1000) underflows to 0, and 0 · (−1000 − −inf) is NaN; the formula says +inf."""
    certain, ruled_out = tensor([0.0, -1000.0], dtype=dtype), tensor([0.0, -INF], dtype=dtype)
    assert forward_kl(ruled_out.log_softmax(-1), certain.log_softmax(-1)).item() == INF
    assert reverse_kl(certain.log_softmax(-1), ruled_out.log_softmax(-1)).item() == INF
    assert soft(ruled_out, certain).item() == INF
    assert soft(certain, ruled_out, divergence="reverse_kl").item() == INF


def test_a_term_of_weight_zero_may_be_infinite():
    """0 · inf is NaN, so what has no weight must not be multiplied by it."""
    student, teacher = tensor([0.0, -INF, 0.0]), tensor([0.0, 0.0, -INF])
    for name in ("forward_kl", "reverse_kl"):
        label = torch.tensor([2])
        loss = distillation_loss(student, teacher, label, alpha=1.0, temperature=1.0, divergence=name)
        assert loss.soft.item() == INF and loss.total.item() == pytest.approx(math.log(2))
    matching = tensor([0.0, -INF, 1.0])
    loss = distillation_loss(student, matching, torch.tensor([1]), alpha=0.0, temperature=1.0)
    assert loss.hard.item() == INF and math.isfinite(loss.total.item())
    slope = gradient(
        lambda x: distillation_loss(x, matching, torch.tensor([1]), alpha=0.0, temperature=1.0).total, student
    )
    assert slope.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_weight_that_is_tiny_is_not_zero(dtype):
    """1e-50 is 0 in float32, and 0 · inf is NaN."""
    student, teacher = tensor([0.0, -INF], dtype=dtype), tensor([0.0, 1.0], dtype=dtype)
    loss = distillation_loss(student, teacher, torch.tensor([1]), alpha=1e-50, temperature=1.0)
    assert loss.total.item() == INF


def test_underflow_does_not_reach_the_gradient():
    """log(softmax) of (200, 0, −200) has gradient NaN in float32; it is p − q, with p = (1, 0, 0)."""
    student, q = tensor([200.0, 0.0, -200.0], dtype=torch.float32), tensor([0.5, 0.3, 0.2], dtype=torch.float32)
    assert gradient(lambda x: -(q * x.softmax(-1).log()).sum(), student).isnan().all()
    torch.testing.assert_close(
        gradient(lambda x: soft(x, q.log()), student), tensor([0.5, -0.3, -0.2], dtype=torch.float32)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_softmax_of_16_bit_logits_is_in_32_bits(dtype, name):
    """A softmax in bfloat16 makes 0.00078 of 0.00118: the logits are rounded, and nothing after them may be."""
    teacher = normal(8, 50, dtype=torch.float32).to(dtype)
    student = (teacher.float() + 0.05 * normal(8, 50, seed=1, dtype=torch.float32)).to(dtype)
    labels = torch.arange(8)
    loss = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0, divergence=name)
    wide = distillation_loss(student.float(), teacher.float(), labels, alpha=0.5, temperature=2.0, divergence=name)
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(loss, wide, strict=True))
    exact = ref.objective(
        student.double().numpy(), teacher.double().numpy(), labels, alpha=0.5, temperature=2.0, divergence=name
    )
    assert loss.soft.item() == pytest.approx(exact.soft.value, rel=1e-2)


def test_16_bit_logits_do_not_overflow_when_divided():
    """60000 / 0.5 is more than float16 holds."""
    logits = tensor([6e4, 0.0], dtype=torch.float16)
    assert soft(logits, logits.flip(1), 0.5).item() == pytest.approx(0.25 * 1.2e5, rel=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Shapes and vocabularies


@pytest.mark.parametrize(("student", "teacher"), [((8, 1), (8, 2)), ((8, 3), (1, 3)), ((8, 3), (3,)), ((1, 3), (8, 3))])
def test_nothing_is_broadcast(student, teacher):
    """kl_div gives −0.539 for (8, 1) against (8, 2) without a warning, and 0.229 for (8, 3) against (1, 3)."""
    student, teacher = normal(*student).log_softmax(-1), normal(*teacher).log_softmax(-1)
    for function in (forward_kl, reverse_kl, jensen_shannon, soft):
        with pytest.raises(MismatchError) as error:
            function(student, teacher)
        assert all(str(tuple(x.shape)) in str(error.value) for x in (student, teacher))


def test_a_padded_vocabulary_must_be_cut_or_ruled_out():
    """Zero logits for the padding are classes of weight 1: identical models then differ (Liger, trl#2215)."""
    logits = normal(4, 10)
    with pytest.raises(MismatchError):
        soft(logits, F.pad(logits, (0, 2)))
    ruled_out = F.pad(logits, (0, 2), value=-INF)
    assert soft(F.pad(logits, (0, 2)), ruled_out).item() > 1e-3
    assert soft(ruled_out, ruled_out).item() == 0


# ---------------------------------------------------------------------------------------------------------------------
# Teachers


@pytest.mark.parametrize("name", NAMES)
def test_the_short_way_is_the_same_objective(name):
    """A fast path with another loss, 0.297 where the slow one says 0.342 (trl#5731): top-k with k = C is dense."""
    student, teacher, labels = normal(2, 5, 7), normal(2, 5, 7, seed=1), torch.zeros(2, 5, dtype=torch.long)

    def total(logits, target):
        return lm_distillation_loss(logits, target, labels, alpha=0.3, temperature=2.0, divergence=name).total

    kept = top_k(teacher, 7, 2.0)
    assert total(student, kept).item() == pytest.approx(total(student, teacher).item(), rel=1e-12)
    torch.testing.assert_close(
        gradient(lambda x: total(x, kept), student), gradient(lambda x: total(x, teacher), student)
    )


def test_top_k_keeps_the_mass_of_the_rest():
    """Renormalising the k classes forgets how sure the teacher is. By hand: teacher (1/2, 1/4, 1/8, 1/8), k = 1.

    Buckets (1/2, 1/2) against the student's (1/4, 3/4): 1/2 ln 2 + 1/2 ln 2/3 = 1/2 ln 4/3.
    """
    teacher = tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8]).log()
    assert soft(torch.zeros(1, 4, dtype=torch.float64), top_k(teacher, 1, 1.0)).item() == pytest.approx(
        math.log(4 / 3) / 2
    )


@pytest.mark.parametrize("k", [0, -1, 5])
def test_top_k_needs_a_k_that_exists(k):
    with pytest.raises(ValueError):
        top_k(normal(3, 4), k, 1.0)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
@pytest.mark.parametrize("k", [None, 2, 4])
def test_a_teacher_that_ran_in_inference_mode_can_teach(shape, k):
    """Such tensors cannot be saved for a backward pass; scoring with a teacher is what that mode is for."""
    with torch.inference_mode():
        teacher = normal(*shape)
        teacher = teacher if k is None else top_k(teacher, k, 2.0)
    function = lm_distillation_loss if len(shape) == 3 else distillation_loss
    labels = torch.ones(shape[:-1], dtype=torch.long)
    slope = gradient(lambda x: function(x, teacher, labels, alpha=0.5, temperature=2.0).total, normal(*shape, seed=1))
    assert (slope[:, 0] != 0).all()


def test_evaluation_needs_no_gradient():
    with torch.no_grad():
        loss = distillation_loss(normal(3, 4), normal(3, 4, seed=1), torch.arange(3), alpha=0.5, temperature=2.0)
    assert not loss.total.requires_grad and loss.total > 0
