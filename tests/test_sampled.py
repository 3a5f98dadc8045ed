"""Classes that are drawn from the teacher: right on average, in value and gradient, and the same for the same seed.

What is expected is computed here in NumPy: c of Σ min(1, q / c) = k by bisection, and the spread that a mean over draws
may have from the variance of a class that is kept with probability min(1, q / c).
"""

import math
from dataclasses import replace
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from test_properties import cases

from kdcourse import (
    MismatchError,
    distillation_loss,
    fused_lm_distillation_loss,
    lm_distillation_loss,
    token_distillation_loss,
)
from kdcourse.sampled import Sampled, sample_k, sampled_forward_kl
from kdcourse.topk import top_k

LOWEST = torch.finfo(torch.float32).min


def normal(*shape, seed=0, scale=3.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def probabilities(logits, temperature=1.0):
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def least_weight(probs, k):
    """c of Σ min(1, q / c) = k; 0 where no more than k classes have a probability."""
    if (probs > 0).sum() <= k:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1, probs / middle).sum() > k else (low, middle)
    return high


def weights_of(sampled):
    """(n, C), what each class weighs in each row."""
    scaled = sampled.logits.double() / sampled.temperature
    weights = torch.maximum(scaled, sampled.rest.double().unsqueeze(-1)).softmax(-1)
    return torch.zeros(sampled.shape, dtype=torch.float64).scatter_add(-1, sampled.classes.long(), weights).numpy()


def soft_and_gradient(student, teacher, temperature):
    """Per row."""
    leaf = student.clone().requires_grad_()
    soft = distillation_loss(leaf, teacher, alpha=0, temperature=temperature, reduction="none").soft
    soft.sum().backward()
    return soft.detach().numpy(), leaf.grad.numpy()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_value_and_gradient_are_right_on_average_and_those_of_the_top_k_are_not(k, temperature):
    """A bias that no number of texts takes away: arXiv 2503.16870 finds it in the top k of others."""
    draws, classes = 20_000, 60
    student, teacher = normal(classes, seed=1), normal(classes, seed=2)
    [exact], [exact_gradient] = soft_and_gradient(student[None], teacher[None], temperature)
    drawn = sample_k(teacher.expand(draws, -1), k, temperature, seed=3)
    values, gradients = soft_and_gradient(student.expand(draws, -1), drawn, temperature)

    probs = probabilities(teacher, temperature)
    of_a_draw = temperature * np.sqrt(probs * (np.maximum(probs, least_weight(probs, k)) - probs))
    error = of_a_draw / np.sqrt(draws)
    assert (np.abs(gradients.mean(axis=0) - exact_gradient) <= 5 * error + 1e-9).all()
    assert abs(values.mean() - exact) <= 5 * values.std() / np.sqrt(draws) + 1e-9

    [largest], [of_largest] = soft_and_gradient(student[None], top_k(teacher[None], k, temperature), temperature)
    assert np.linalg.norm(of_largest - exact_gradient) > 5 * np.linalg.norm(error)
    assert np.linalg.norm(of_largest - exact_gradient) > 0.01 * np.linalg.norm(exact_gradient)
    assert largest < exact


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("k", [1, 12, 50])
def test_the_mean_of_draws_is_within_bernsteins_bound(k, temperature):
    """A bias that a tolerance hides: the bound holds for all classes together in all but one of a million worlds.

    A class weighs q on average, at most m = max(q, c), and then no more often than q / m: its variance is q · (m - q).
    """
    draws, classes = 10_000, 80
    student, teacher = normal(classes, seed=5, scale=2.0), normal(classes, seed=6)
    _, gradients = soft_and_gradient(
        student.expand(draws, -1), sample_k(teacher.expand(draws, -1), k, temperature, seed=(7, 8)), temperature
    )
    probs, most = probabilities(teacher, temperature), probabilities(teacher, temperature)
    most = np.maximum(most, least_weight(probs, k))
    nats = np.log(2 * classes / 1e-6)
    bound = np.sqrt(2 * probs * (most - probs) * nats / draws) + 2 * most * nats / (3 * draws)
    error = gradients.mean(axis=0) - temperature * (probabilities(student, temperature) - probs)
    assert (np.abs(error) <= temperature * bound + 1e-12).all()


@cases(100)
@given(st.integers(0, 10**6), st.integers(2, 40), st.floats(0, 8), st.sampled_from([0.5, 1.0, 3.0]), st.data())
def test_each_class_weighs_what_the_formula_says(seed, classes, scale, temperature, data):
    """A class that is there twice, weights that do not add up to 1, a likely class that is left to chance."""
    k = data.draw(st.integers(1, classes))
    logits = normal(classes, seed=seed, scale=scale)
    rounded = data.draw(st.booleans())
    logits = logits.round() if rounded else logits  # with ties
    logits[data.draw(st.integers(1, classes)) :] = data.draw(st.sampled_from([-torch.inf, LOWEST, 0.0]))
    if temperature < 1:
        logits = logits.clamp(min=LOWEST / 4) if logits.min() > -torch.inf else logits
    drawn = sample_k(logits.expand(50, -1), k, temperature, seed=seed)
    assert (drawn.classes.sort(dim=-1).values.diff(dim=-1) > 0).all()
    weights, probs = weights_of(drawn), probabilities(logits, temperature)
    least = least_weight(probs, k)
    expected = np.where(weights > 0, np.maximum(probs, least), 0)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    certain = probs > least * (1 + 1e-6)
    np.testing.assert_allclose(weights[:, certain], np.broadcast_to(probs[certain], (50, certain.sum())), atol=1e-6)
    assert (weights[:, probs == 0] == 0).all()


def test_classes_that_are_nearly_certain_are_not_drawn_twice():
    """A night of scoring that ends at a row which cannot be written: all alike, and nearly all of them drawn."""
    for classes, k in ((3, 2), (50, 49), (1000, 999), (1000, 500)):
        for logits in (torch.zeros(classes), torch.linspace(0, 1e-9, classes, dtype=torch.float64)):
            drawn = sample_k(logits.expand(200, -1), k, 1.0, seed=classes)
            assert (drawn.classes.sort(dim=-1).values.diff(dim=-1) > 0).all()


@pytest.mark.parametrize("start", [0.0, 1e-16, 1 - 2.0**-53])
def test_the_ends_of_a_draw_are_possible_and_different_classes(start, monkeypatch):
    """One draw in a billion of a class that the teacher rules out, or of one twice, which no cache would take."""
    monkeypatch.setattr("numpy.random.default_rng", lambda seed: SimpleNamespace(random=lambda n: np.full(n, start)))
    for classes, k in ((3, 2), (6, 3), (30, 5)):
        logits = normal(2000, classes + 4, seed=k, scale=1.0)
        logits[:, [0, 1, -2, -1]] = -torch.inf
        # The first possible class has 1 / k of all: certain, or by its rounding nearly so.
        logits[:, 2] = logits[:, 3:].logsumexp(-1) - math.log(k - 1)
        drawn = sample_k(logits, k, 1.0, seed=0)
        assert drawn.logits.isfinite().all()
        assert (drawn.classes.sort(dim=-1).values.diff(dim=-1) > 0).all()
        other = normal(2000, classes + 4, seed=k, scale=0.1)
        other[:, [0, 1, -2, -1]] = -torch.inf
        assert sample_k(other, k, 1.0, seed=0).logits.isfinite().all()


def test_logits_of_32_bits_are_drawn_with_the_precision_of_64():
    """Of 50,000 classes, the last ones drawn too rarely, because a sum of 32 bits no longer feels them."""
    logits = normal(40, 50_000, scale=2.0).float()
    drawn, exact = sample_k(logits, 20, 1.0, seed=0), sample_k(logits.double(), 20, 1.0, seed=0)
    assert torch.equal(drawn.classes, exact.classes)
    assert drawn.logits.dtype == drawn.rest.dtype == torch.float32
    torch.testing.assert_close(drawn.rest, exact.rest.float(), rtol=1e-6, atol=0)


def test_tokens_of_texts_are_those_of_their_rows():
    """(B, T, V), weighted or summed over texts or tokens; ids of 32 bits, as a cache has them."""
    student, teacher = normal(2, 3, 9, seed=1).log_softmax(-1), normal(2, 3, 9, seed=2)
    drawn = sample_k(teacher, 4, 1.0, seed=0)
    drawn = replace(drawn, classes=drawn.classes.int())
    whole = sampled_forward_kl(student, drawn, 1.0)
    for text in range(2):
        for token in range(3):
            alone = sampled_forward_kl(student[text, token], drawn[text, token], 1.0)
            assert alone.item() == pytest.approx(whole[text, token].item(), rel=1e-12)


def test_all_classes_are_the_dense_teacher():
    student, teacher = normal(6, 9, seed=1), normal(6, 9, seed=2)
    teacher[:, 3], teacher[2:, 5] = -torch.inf, LOWEST
    for one, other in zip(
        soft_and_gradient(student, sample_k(teacher, 9, 2.0, seed=0), 2.0),
        soft_and_gradient(student, teacher, 2.0),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_fewer_possible_classes_than_k_are_kept_exactly():
    """0 · inf where a class that both rule out is among the k."""
    student, teacher = normal(4, 8, seed=1), normal(4, 8, seed=2)
    student[:, 5:], teacher[:, 5:] = -torch.inf, -torch.inf
    (value, gradient), (exact, exact_gradient) = (
        soft_and_gradient(student, each, 1.0) for each in (sample_k(teacher, 6, 1.0, seed=0), teacher)
    )
    np.testing.assert_allclose(value, exact, atol=1e-12)
    np.testing.assert_allclose(gradient, exact_gradient, atol=1e-12)


def test_a_class_that_the_student_rules_out_is_infinite_where_it_is_drawn():
    student, teacher = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([[4.0, 0.0, 0.0]], dtype=torch.float64)
    student[0, 0] = -torch.inf
    [value], _ = soft_and_gradient(student, sample_k(teacher, 2, 1.0, seed=0), 1.0)
    assert value == np.inf


def test_the_same_seed_draws_the_same_and_another_others():
    """A cache that cannot be computed again; a draw that depends on how many rows come before."""
    teacher = normal(30, 50)
    again, other = sample_k(teacher, 4, 1.0, seed=(1, 2)), sample_k(teacher, 4, 1.0, seed=(1, 3))
    first = sample_k(teacher, 4, 1.0, seed=(1, 2))
    assert torch.equal(first.classes, again.classes) and torch.equal(first.rest, again.rest)
    assert not torch.equal(first.classes, other.classes)
    state = torch.get_rng_state()
    sample_k(teacher, 4, 1.0, seed=0)
    assert torch.equal(state, torch.get_rng_state())


def test_rows_that_are_drawn_in_pieces_are_those_of_the_whole(monkeypatch):
    """A large vocabulary that draws otherwise than a small one."""
    teacher = normal(7, 50)
    whole = sample_k(teacher, 4, 1.0, seed=0)
    for at_once in (150, 20):  # three rows, and less than one
        monkeypatch.setattr("kdcourse.sampled.AT_ONCE", at_once)
        assert torch.equal(sample_k(teacher, 4, 1.0, seed=0).classes, whole.classes)
    assert sample_k(teacher[0], 4, 1.0, seed=0).shape == (50,)
    assert sample_k(teacher.view(7, 1, 50), 4, 1.0, seed=0).classes.shape == (7, 1, 4)


@pytest.mark.parametrize("divergence", ["reverse_kl", "jensen_shannon", lambda student, teacher: student.sum(-1)])
def test_other_divergences_are_refused(divergence):
    """A gradient that is wrong on average, from targets that were stored for being right."""
    drawn = sample_k(normal(2, 9), 3, 1.0, seed=0)
    with pytest.raises(MismatchError, match=r"forward_kl alone: no other divergence is linear in .* the k largest"):
        distillation_loss(normal(2, 9), drawn, alpha=0, temperature=1.0, divergence=divergence)


def test_another_temperature_is_refused():
    drawn = sample_k(normal(2, 9), 3, 1.0, seed=0)
    with pytest.raises(MismatchError, match=r"^temperature is 2\.0, but the teacher's sampled 3 were kept for 1\.0"):
        sampled_forward_kl(normal(2, 9).log_softmax(-1), drawn, 2.0)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_what_gives_no_probabilities_is_refused(wrong):
    """Classes of a row of NaN, drawn from nothing."""
    logits = normal(3, 4)
    logits[1, 2 if wrong > 0 else slice(None)] = wrong
    with pytest.raises(
        ValueError,
        match=f"^A row of the teacher's logits has {wrong} as its largest value, and no probabilities follow",
    ):
        sample_k(logits, 2, 1.0, seed=0)
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"k is {k}, but of 4 classes"):
            sample_k(normal(3, 4), k, 1.0, seed=0)


def test_every_loss_reads_them():
    """A path that takes drawn classes for the largest ones: another loss for tokens, or without the logits."""
    student, head, teacher = (
        normal(2, 5, 4, seed=1, scale=1.0),
        normal(12, 4, seed=2, scale=1.0),
        normal(2, 5, 12, seed=3),
    )
    labels = torch.tensor([[-100, 3, -100, 5, 7], [1, 2, 3, -100, -100]])
    drawn, settings = sample_k(teacher, 4, 2.0, seed=0), {"alpha": 0.3, "temperature": 2.0}
    logits = student @ head.T
    whole = lm_distillation_loss(logits, drawn, labels, **settings)
    kept = labels[:, 1:] != -100
    rows = distillation_loss(logits[:, :-1][kept], drawn[:, :-1][kept], labels[:, 1:][kept], **settings)
    tokens = token_distillation_loss(logits[:, :-1], drawn[:, :-1], labels[:, 1:], **settings)
    fused = fused_lm_distillation_loss(student, head, None, None, labels, teacher_logits=drawn, memory=2000, **settings)
    for loss in (rows, tokens, fused):
        torch.testing.assert_close(torch.stack(loss), torch.stack(whole), rtol=1e-12, atol=0)
    with pytest.raises(MismatchError, match="forward_kl alone"):
        fused_lm_distillation_loss(
            student, head, None, None, labels, teacher_logits=drawn, divergence="reverse_kl", **settings
        )


def test_what_was_drawn_for_inference_can_be_learned_from():
    """An error of autograd at the first step: a cache is filled in inference mode."""
    with torch.inference_mode():
        drawn = sample_k(normal(3, 9), 4, 1.0, seed=0)
    assert isinstance(drawn, Sampled)
    _, gradient = soft_and_gradient(normal(3, 9, seed=1), drawn, 1.0)
    assert np.isfinite(gradient).all()


def test_a_draw_of_sixteen_bits_is_one():
    """Logits in bfloat16, whose probabilities are taken in float32 or better."""
    drawn = sample_k(normal(5, 30).bfloat16(), 6, 1.0, seed=0)
    assert drawn.logits.dtype == torch.float32
    np.testing.assert_allclose(weights_of(drawn).sum(axis=1), 1, atol=1e-6)
