"""`divergence.py` against scipy, which shares nothing with it."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from kdcourse import MismatchError, forward_kl, jensen_shannon, reverse_kl

P = np.array([0.7, 0.2, 0.1])
Q = np.array([0.1, 0.3, 0.6])


def log(probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def reference(p, q):
    """KL(p ‖ q) by scipy."""
    return scipy.stats.entropy(p, q)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(5), size=7), rng.dirichlet(np.ones(5), size=7)


def test_forward_kl_is_the_teacher_against_the_student(rows):
    """Swapped roles: the argument order of `nn.KLDivLoss` reads like KL(student ‖ teacher), and is not."""
    student, teacher = rows
    expected = [reference(t, s) for s, t in zip(student, teacher, strict=True)]
    assert forward_kl(log(student), log(teacher)).tolist() == pytest.approx(expected)


def test_reverse_kl_is_the_student_against_the_teacher(rows):
    """Both directions computed the same way."""
    student, teacher = rows
    expected = [reference(s, t) for s, t in zip(student, teacher, strict=True)]
    assert reverse_kl(log(student), log(teacher)).tolist() == pytest.approx(expected)


def test_the_two_directions_of_the_notes():
    """The notes call input=log p a KL(p ‖ q); facts: KL(p ‖ q) = 1.1019, KL(q ‖ p) = 1.0021 = F.kl_div(log p, q)."""
    assert forward_kl(log(P), log(Q)).item() == pytest.approx(1.0021, abs=5e-5)
    assert reverse_kl(log(P), log(Q)).item() == pytest.approx(1.1019, abs=5e-5)
    built_in = torch.nn.functional.kl_div(log(P), torch.from_numpy(Q), reduction="sum")
    assert forward_kl(log(P), log(Q)).item() == pytest.approx(built_in.item())


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jensen_shannon_is_the_weighted_way_to_the_mixture(rows, beta):
    """beta on the wrong side, or the wrong mixture."""
    student, teacher = rows
    mixture = beta * teacher + (1 - beta) * student
    expected = [
        beta * reference(t, m) + (1 - beta) * reference(s, m) for s, t, m in zip(student, teacher, mixture, strict=True)
    ]
    assert jensen_shannon(log(student), log(teacher), beta).tolist() == pytest.approx(expected)


def test_jensen_shannon_goes_to_zero_like_a_kl_at_its_ends():
    """A jump at the ends (ms-swift#10078): D/β must tend to KL(q ‖ p), D/(1-β) to KL(p ‖ q)."""
    small = 1e-6
    assert jensen_shannon(log(P), log(Q), small).item() / small == pytest.approx(reference(Q, P), rel=1e-4)
    assert jensen_shannon(log(P), log(Q), 1 - small).item() / small == pytest.approx(reference(P, Q), rel=1e-4)


@pytest.mark.parametrize("beta", [0, 1, -0.1, 1.1, math.nan])
def test_jensen_shannon_refuses_its_ends(beta):
    """A beta of 0 that silently means another divergence."""
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        jensen_shannon(log(P), log(Q), beta)


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, jensen_shannon])
def test_a_class_that_both_rule_out_adds_nothing(divergence):
    """kl_div(-inf, -inf) is NaN in PyTorch, in value and in gradient."""
    student = torch.tensor([1.0, 2.0, -math.inf], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([0.5, 0.1, -math.inf], dtype=torch.float64)
    value = divergence(student.log_softmax(-1), teacher.log_softmax(-1))
    value.backward()
    without = divergence(student[:2].log_softmax(-1), teacher[:2].log_softmax(-1))
    assert value.item() == pytest.approx(without.item())
    assert student.grad.isfinite().all()


def test_ruling_out_what_the_other_allows_costs_infinitely_much():
    """A mask that hides a real infinity."""
    certain, open_minded = log([1.0, 0.0]), log([0.5, 0.5])
    assert forward_kl(certain, open_minded).item() == math.inf
    assert reverse_kl(open_minded, certain).item() == math.inf
    assert forward_kl(open_minded, certain).item() == pytest.approx(math.log(2))
    assert reverse_kl(certain, open_minded).item() == pytest.approx(math.log(2))
    assert jensen_shannon(certain, open_minded).item() < math.log(2)


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, jensen_shannon])
def test_gradients_agree_with_finite_differences(divergence):
    """A value that is right and a gradient that is not (Axolotl's T², for one)."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64, generator=generator).log_softmax(-1)
    assert torch.autograd.gradcheck(lambda logits: divergence(logits.log_softmax(-1), teacher), student)


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, jensen_shannon])
@pytest.mark.parametrize("shapes", [((8, 1), (8, 2)), ((8, 3), (1, 3)), ((8, 3), (3,))])
def test_nothing_is_broadcast(divergence, shapes):
    """Shapes that differ give a number without a meaning: (8, 1) against (8, 2) gives -0.539 in PyTorch."""
    student, teacher = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(MismatchError, match=r"has shape"):
        divergence(student, teacher)
