"""`loss.py` against a reference in numpy, written from the formula and from nothing else."""

import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from kdcourse import (
    MismatchError,
    distillation_loss,
    fused_lm_distillation_loss,
    lm_distillation_loss,
    token_distillation_loss,
)
from kdcourse.counting import count_items

ALPHAS, TEMPERATURES = [0.0, 0.3, 1.0], [0.5, 1.0, 4.0]


def reference(student, teacher, labels, alpha, temperature):
    """alpha · CE + (1 - alpha) · T² · KL(teacher ‖ student) in float64, row by row."""
    hard = [-scipy.special.log_softmax(row)[label] for row, label in zip(student, labels, strict=True) if label != -100]
    soft = [
        temperature**2
        * scipy.stats.entropy(scipy.special.softmax(t / temperature), scipy.special.softmax(s / temperature))
        for s, t in zip(student, teacher, strict=True)
    ]
    hard_mean, soft_mean = float(np.mean(hard)) if hard else 0.0, float(np.mean(soft))
    return alpha * hard_mean + (1 - alpha) * soft_mean, hard_mean, soft_mean


@pytest.fixture
def batch():
    """Student logits, teacher logits, and labels of which two are missing."""
    rng = np.random.default_rng(0)
    return 3 * rng.normal(size=(6, 4)), 3 * rng.normal(size=(6, 4)), np.array([0, 3, -100, 1, -100, 2])


def tensors(batch):
    return tuple(torch.from_numpy(part) for part in batch)


@pytest.mark.parametrize(("alpha", "temperature"), list(itertools.product(ALPHAS, TEMPERATURES)))
def test_it_is_the_formula(batch, alpha, temperature):
    """alpha on the wrong term, T² lost at an end of alpha (torchdistill), a mean over the wrong rows."""
    loss = distillation_loss(*tensors(batch), alpha=alpha, temperature=temperature)
    assert [part.item() for part in loss] == pytest.approx(reference(*batch, alpha, temperature))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_value_and_gradient_agree(batch, temperature):
    """T² on the value after the gradient was taken (Axolotl): finite differences would be off by T²."""
    student, teacher, labels = tensors(batch)
    student.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logits: distillation_loss(logits, teacher, labels, alpha=0.3, temperature=temperature).total, student
    )


def test_an_unlabelled_row_teaches_the_soft_term_alone(batch):
    """The label -100 counted as a row of the hard term, or its soft target thrown away."""
    student, teacher, labels = tensors(batch)
    labelled = labels != -100
    mixed = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0)
    alone = distillation_loss(student[labelled], teacher[labelled], labels[labelled], alpha=0.5, temperature=2.0)
    assert mixed.hard.item() == pytest.approx(alone.hard.item())
    assert mixed.soft.item() != pytest.approx(alone.soft.item())


def test_pieces_of_a_step_add_up_to_the_step(batch):
    """Gradient accumulation over uneven pieces (trl#2617): the mean of means is another number."""
    student, teacher, labels = tensors(batch)
    whole = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0)
    pieces = [
        distillation_loss(student[cut], teacher[cut], labels[cut], alpha=0.5, temperature=2.0, num_items=(4, 6)).total
        for cut in (slice(0, 1), slice(1, 5), slice(5, 6))
    ]
    assert sum(pieces).item() == pytest.approx(whole.total.item())


def test_num_items_can_be_one_number_for_both_terms(batch):
    """A single count that only one of the two terms is divided by."""
    student, teacher, labels = tensors(batch)
    local = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0)
    for count in (12, torch.tensor(12)):
        scaled = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0, num_items=count)
        assert scaled.hard.item() == pytest.approx(local.hard.item() * 4 / 12)
        assert scaled.soft.item() == pytest.approx(local.soft.item() * 6 / 12)


def test_nothing_supervised_is_zero_with_a_graph():
    """A batch without a label that gives NaN (LMOps#38), or a constant that backward() refuses."""
    student = torch.randn(3, 4, requires_grad=True)
    loss = distillation_loss(student, torch.randn(3, 4), torch.full((3,), -100), alpha=1.0, temperature=2.0)
    loss.total.backward()
    assert loss.total.item() == 0
    assert student.grad.abs().sum().item() == 0


def test_an_empty_batch_is_zero_with_a_graph():
    """0 / 0 where a process has no rows left."""
    student = torch.zeros(0, 4, requires_grad=True)
    loss = distillation_loss(student, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), alpha=0.5, temperature=2.0)
    loss.total.backward()
    assert [part.item() for part in loss] == [0, 0, 0]


def test_no_gradient_reaches_the_teacher(batch):
    """A teacher that learns from its student (KD_Lib)."""
    student, teacher, labels = tensors(batch)
    teacher.requires_grad_()
    distillation_loss(student.requires_grad_(), teacher, labels, alpha=0.5, temperature=2.0).total.backward()
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_are_softened_in_float32(batch, dtype):
    """A softmax in 16 bits: KL 0.00078 instead of 0.00118."""
    student, teacher, labels = (part.to(dtype) if part.is_floating_point() else part for part in tensors(batch))
    teacher = student + torch.linspace(-0.1, 0.1, 4).to(dtype)
    loss = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0)
    exact = reference(student.double().numpy(), teacher.double().numpy(), labels.numpy(), 0.5, 2.0)
    assert loss.soft.dtype == torch.float32
    assert [part.item() for part in loss] == pytest.approx(exact, rel=1e-4)


def test_a_class_that_both_models_rule_out_changes_nothing(batch):
    """Masked classes (-inf) that turn the loss, or only its gradient, into NaN."""
    student, teacher, labels = tensors(batch)
    masked = [torch.cat([part, torch.full((6, 1), -math.inf, dtype=part.dtype)], dim=1) for part in (student, teacher)]
    masked[0].requires_grad_()
    loss = distillation_loss(*masked, labels, alpha=0.5, temperature=2.0)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(
        distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0).total.item()
    )
    assert masked[0].grad.isfinite().all()


def test_identical_models_have_no_soft_loss(batch):
    """Softmax on both sides gives -1.358 here instead of 0."""
    student, _, labels = tensors(batch)
    assert distillation_loss(student, student, labels, alpha=0.5, temperature=3.0).soft.item() == pytest.approx(0)


def test_the_divergence_can_be_chosen(batch):
    """An option that is accepted and ignored."""
    student, teacher, labels = tensors(batch)
    losses = {
        name: distillation_loss(student, teacher, labels, alpha=0.0, temperature=1.0, divergence=name).soft.item()
        for name in ("forward_kl", "reverse_kl", "jensen_shannon")
    }
    assert len({round(value, 6) for value in losses.values()}) == 3
    own = distillation_loss(
        student, teacher, labels, alpha=0.0, temperature=1.0, divergence=lambda s, t: (s - t).abs().sum(-1)
    )
    assert own.soft.item() == pytest.approx(
        (student.log_softmax(-1) - teacher.log_softmax(-1)).abs().sum(-1).mean().item()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"labels": None}, "no labels to weight"),
        ({"labels": torch.tensor([0, 4])}, "labels hold 4"),
        ({"labels": torch.tensor([0, -1])}, "labels hold -1"),
        ({"labels": torch.tensor([0.0, 1.0])}, "whole class ids"),
        ({"divergence": "kl"}, "forward_kl, reverse_kl, jensen_shannon"),
    ],
)
def test_what_is_out_of_range_is_refused_in_words(change, message):
    """A wrong number that trains something else, or an index error far from its cause."""
    arguments = {"labels": torch.tensor([0, 1]), "alpha": 0.5, "temperature": 2.0} | change
    with pytest.raises(ValueError, match=message):
        distillation_loss(torch.zeros(2, 4), torch.zeros(2, 4), **arguments)


@pytest.mark.parametrize(
    ("student", "teacher", "labels"),
    [((8, 1), (8, 2), (8,)), ((8, 3), (1, 3), (8,)), ((2, 5, 3), (2, 5, 3), (2, 5)), ((8, 3), (8, 3), (8, 3))],
)
def test_shapes_that_do_not_fit_are_refused(student, teacher, labels):
    """Silent broadcasting, tokens taken for examples, one-hot labels."""
    with pytest.raises(MismatchError, match="shape"):
        distillation_loss(
            torch.zeros(student),
            torch.zeros(teacher),
            torch.zeros(labels, dtype=torch.long),
            alpha=0.5,
            temperature=2.0,
        )


def test_smoothing_and_weights_are_those_of_cross_entropy(batch):
    """Options that are accepted and ignored, or a mean over weights in place of rows."""
    student, teacher, labels = tensors(batch)
    weights = torch.tensor([1, 2, 3, 4])  # whole numbers, as people write them
    loss = distillation_loss(
        student, teacher, labels, alpha=0.5, temperature=2.0, label_smoothing=0.3, class_weights=weights
    )
    smoothed = [
        weights[label].item() * 0.7 * -scipy.special.log_softmax(row)[label]
        + 0.3 / 4 * -(weights.numpy() * scipy.special.log_softmax(row)).sum()
        for row, label in zip(batch[0], batch[2], strict=True)
        if label != -100
    ]
    assert loss.hard.item() == pytest.approx(np.mean(smoothed))
    assert distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0, label_smoothing=1.0).hard > 0


@pytest.mark.parametrize(("items", "divisor"), [(0.5, 0.5), (1, 1), (2, 2), (0, 1)])
def test_the_divisor_is_the_count(batch, items, divisor):
    """A count below 1 (a process's share of a step) rounded up; 0 that divides."""
    student, teacher, labels = tensors(batch)
    sums = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0, num_items=1)
    loss = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0, num_items=items)
    assert loss.total.item() == pytest.approx(sums.total.item() / divisor)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32])
def test_labels_are_whole_numbers_of_any_size(dtype):
    """In uint8, 156 is -100: such rows were taken for unlabelled ones; smaller types crashed the fused loss."""
    classes, one = 200, torch.Generator().manual_seed(0)
    hidden, head = torch.randn(1, 4, 8, generator=one), torch.randn(classes, 8, generator=one)
    labels = torch.tensor([3, 156, 5, 156] if dtype != torch.int8 else [3, 100, -100, 100])
    logits, how = hidden @ head.T, {"alpha": 0.5, "temperature": 2.0}
    for given, loss in (
        (labels, lambda labels: distillation_loss(logits[0], 2 * logits[0], labels, **how)),
        (labels[None], lambda labels: token_distillation_loss(logits, 2 * logits, labels, **how)),
        (labels[None], lambda labels: lm_distillation_loss(logits, 2 * logits, labels, **how)),
        (labels[None], lambda labels: fused_lm_distillation_loss(hidden, head, hidden, 2 * head, labels, **how)),
    ):
        assert loss(given.to(dtype)) == loss(given)
    rows = count_items({"labels": labels}, is_shifted=False)
    assert count_items({"labels": labels.to(dtype)}, is_shifted=False).tolist() == rows.tolist()
