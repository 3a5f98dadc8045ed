"""Rows of a teacher's k likeliest classes are joined, spread and moved like the logits that they stand for."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import softmax

from kdcourse import MismatchError, distillation_loss
from kdcourse.sampled import sample_k
from kdcourse.topk import TopK, bucket_log_probs, concatenate, spread, stack, top_k

LOGITS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def parts(given):
    return (given.logits, given.classes, given.rest) if isinstance(given, TopK) else (given,)


@pytest.fixture(params=["all", "top 2"])
def rows(request):
    """Five rows (C,), whole or cut."""
    return [row if request.param == "all" else top_k(row, 2, 4.0) for row in LOGITS]


def test_stacked_rows_are_a_batch(rows):
    """A part that is left out, or joined along its classes."""
    batch = stack(rows)
    assert tuple(batch.shape) == (5, 6)
    for number, row in enumerate(rows):
        assert all(torch.equal(one[number], part) for one, part in zip(parts(batch), parts(row), strict=True))
    assert stack(rows[:1]).shape[0] == 1
    if isinstance(batch, TopK):
        assert (batch.temperature, batch.width) == (4.0, 6)


def test_concatenated_pieces_are_behind_each_other(rows):
    """Pieces of different length, whose tokens change places."""
    pieces = [stack(rows[:2]), stack(rows[2:])]
    for one, other in zip(parts(concatenate(pieces)), parts(stack(rows)), strict=True):
        assert torch.equal(one, other)


def test_tokens_are_spread_over_a_mask(rows):
    """Logits that land on padding, on either side."""
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    batch, tokens = spread(stack(rows), mask), stack(rows)
    assert tuple(batch.shape) == (2, 3, 6)
    for one, part in zip(parts(batch), parts(tokens), strict=True):
        assert torch.equal(one[0, 1:], part[:2])
        assert torch.equal(one[1], part[2:])
        assert not one[0, 0].any()
        assert one.dtype == part.dtype


def test_a_top_k_is_moved_whole():
    """Classes that stay on the CPU, and a gather over two devices."""
    there = top_k(LOGITS, 2, 4.0).to("meta")
    assert [part.device.type for part in parts(there)] == ["meta"] * 3
    assert top_k(LOGITS, 2, 4.0).to("cpu").logits.device.type == "cpu"


def test_k_is_between_one_and_all():
    """No class at all, or more than there are."""
    for k in (0, 7):
        with pytest.raises(ValueError, match=f"^k is {k}, but of 6 classes between 1 and 6 can be kept.$"):
            top_k(LOGITS, k, 1.0)
    assert torch.equal(top_k(LOGITS, 6, 1.0).logits, LOGITS.sort(descending=True).values)
    assert top_k(LOGITS, 1, 1.0).shape == (5, 6)


@pytest.mark.parametrize("cut", [top_k, lambda logits, k, temperature: sample_k(logits, k, temperature, seed=0)])
def test_a_temperature_that_gives_no_probabilities_is_refused(cut):
    """Logits that become infinite, and pass for classes that are certain or ruled out."""
    with pytest.raises(ValueError, match=r"^temperature is 0\.0, but"):
        cut(LOGITS, 2, 0.0)
    with pytest.raises(ValueError, match=r"^Logits divided by temperature 0\.1 overflow"):
        cut(LOGITS - 1e38, 2, 0.1)


def test_what_is_left_is_weighed_at_its_temperature():
    """The rest at temperature 1, or with the kept classes in it."""
    cut = top_k(LOGITS[0], 2, 4.0)
    left = [value for value in LOGITS[0].tolist() if value not in cut.logits.tolist()]
    assert len(left) == 4
    assert cut.rest.item() == pytest.approx(torch.tensor([value / 4 for value in left]).exp().sum().log().item())
    assert len(top_k(LOGITS, 2, 4.0)) == 5
    assert top_k(LOGITS, 2, 4.0).ndim == 2


@pytest.mark.parametrize("k", [2, 5, 6])
def test_buckets_of_tokens_are_those_of_their_rows(k):
    """(B, T, V), normalised or joined over its texts or tokens; a teacher's float32 that stays beside float64."""
    random = torch.Generator().manual_seed(1)
    student = torch.randn(2, 3, 6, generator=random, dtype=torch.float64).log_softmax(-1)
    teacher = torch.randn(2, 3, 6, generator=random)
    for student_part, teacher_part in ((student, teacher), (student[0], teacher[0]), (student[0, 0], teacher[0, 0])):
        ours, theirs = bucket_log_probs(student_part, top_k(teacher_part, k, 2.0), 2.0)
        assert ours.dtype == theirs.dtype == torch.float64
        assert tuple(ours.shape) == tuple(theirs.shape) == (*student_part.shape[:-1], min(k + 1, 6))
        probs = (teacher_part.double() / 2).softmax(-1)
        kept = probs.topk(k).indices
        for one, whole in ((ours, student_part.exp()), (theirs, probs)):
            assert torch.allclose(one[..., :k].exp(), whole.gather(-1, kept), atol=1e-6)
            assert torch.allclose(one.exp().sum(-1), torch.ones_like(one[..., 0]), atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_gradient_is_exact_among_the_k_and_the_students_own_in_the_rest(temperature):
    """A top k that is scaled to add up to 1, which tells the student that nothing else is ever said."""
    random = np.random.default_rng(0)
    student, teacher = 2 * random.standard_normal((2, 5, 20))
    leaf = torch.tensor(student, requires_grad=True)
    distillation_loss(
        leaf, top_k(torch.tensor(teacher), 4, temperature), alpha=0, temperature=temperature, reduction="none"
    ).soft.sum().backward()
    ours, theirs = (softmax(logits / temperature, axis=1) for logits in (student, teacher))
    for row in range(5):
        rest = np.argsort(teacher[row])[:-4]
        target, scaled = theirs[row].copy(), theirs[row].copy()
        target[rest] = theirs[row][rest].sum() * ours[row][rest] / ours[row][rest].sum()
        scaled[rest] = 0
        np.testing.assert_allclose(leaf.grad[row], temperature * (ours[row] - target), atol=1e-12)
        assert np.abs(target - theirs[row]).sum() < np.abs(scaled / scaled.sum() - theirs[row]).sum()


def test_another_temperature_is_refused_with_the_k_that_was_kept():
    """A message that counts rows."""
    with pytest.raises(MismatchError, match=r"^temperature is 1\.0, but the teacher's top 2 were kept for 4\.0"):
        bucket_log_probs(LOGITS[None].log_softmax(-1), top_k(LOGITS[None], 2, 4.0), 1.0)


def test_a_rest_that_is_ruled_out_weighs_nothing():
    """One row without a rest, and the rest of all others."""
    logits = torch.tensor([[1.0, 2.0, -torch.inf], [1.0, 2.0, 0.5]])
    assert top_k(logits, 2, 1.0).rest.tolist() == [-torch.inf, 0.5]


def test_a_row_without_a_rest_has_a_gradient_beside_one_that_has():
    """NaN for the whole batch, because one student rules out all but the kept classes."""
    student = torch.tensor([[-0.5, -1.0, -torch.inf], [-0.5, -2.0, -1.5]], requires_grad=True)
    ours, _ = bucket_log_probs(student, top_k(torch.tensor([[3.0, 2.0, 1.0]] * 2), 2, 1.0), 1.0)
    assert ours[:, 2].tolist() == [-torch.inf, -1.5]
    ours[1].sum().backward()
    assert student.grad.tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("k", [1, 3, 5, 6, 8])
@pytest.mark.parametrize("cut", [top_k, partial(sample_k, seed=3)])
def test_the_first_classes_of_a_cut_are_compared_alone(cut, k):
    """An id that the student lacks, looked up in its logits; or its weight, counted for another."""
    generator = torch.Generator().manual_seed(k)
    for _ in range(60):
        logits, student = (torch.randn(width, generator=generator) * 2 for width in (8, 6))
        kept = cut(logits, k, 2.0)
        if (kept.classes >= 6).all():
            with pytest.raises(MismatchError, match=f"the tokenizer knows 6, and at one place all {k} that were kept"):
                kept.first(6)
            continue
        log_probs = (student / 2).log_softmax(-1)
        shared = [place for place, index in enumerate(kept.classes.tolist()) if index < 6]
        ids = kept.classes[shared].long()
        if cut is top_k:
            others = [index for index in range(8) if index not in kept.classes.tolist()]
            ours, theirs = log_probs[ids], logits[ids] / 2
            if len(ids) < 6:
                left = [index for index in range(6) if index not in ids.tolist()]
                ours = torch.cat([ours, log_probs[left].logsumexp(0, keepdim=True)])
                theirs = torch.cat([theirs, (logits[others] / 2).logsumexp(0, keepdim=True)])
            theirs = theirs.log_softmax(-1)
            expected = torch.where(theirs > -math.inf, theirs.exp() * (theirs - ours), 0).sum()
        else:
            probs = (logits[ids] / 2).exp()
            weights = torch.maximum(probs, kept.rest.exp())
            expected = (weights / weights.sum() * ((probs / weights.sum()).log() - log_probs[ids])).sum()
        loss = distillation_loss(student[None], kept.map(lambda part: part[None]).first(6), alpha=0, temperature=2.0)
        assert loss.soft.item() == pytest.approx(4 * expected.item(), rel=1e-4, abs=1e-5)
