"""Tests for 02.test that no catalogue knows."""

import re

import pytest
import torch

from kdcourse import distillation_loss, forward_kl
from kdcourse.course.exercises import find_exercise
from kdcourse.course.exercises.diagnosis import diagnose

TEST = find_exercise("02.test")


def by_finite_differences(kd_term):
    """The slope by two values of the term itself is no evidence; by two values of a KL by hand it is."""
    generator = torch.Generator().manual_seed(3)
    student, teacher = 2 * torch.randn(2, 3, 4, generator=generator)
    student[0, 0] = -150.0
    leaf = student.clone().requires_grad_()
    value = kd_term(leaf, teacher)
    right = torch.nn.functional.kl_div(
        student.double().log_softmax(-1), teacher.double().softmax(-1), reduction="batchmean"
    )
    if not value.requires_grad or abs(value.item() - right.item()) > 1e-3:
        return False
    gradient = torch.autograd.grad(value, leaf, allow_unused=True)[0]
    return gradient is not None and (gradient - (student.softmax(-1) - teacher.softmax(-1)) / 3).abs().max() < 1e-4


def by_asserts(kd_term):
    for student in (torch.tensor([[1.0, -3.0], [0.0, 2.0]]), torch.tensor([[200.0, 0.0], [0.0, 2.0]])):
        teacher = torch.tensor([[0.5, 0.0], [1.0, -1.0]])
        leaf = student.clone().requires_grad_()
        value = kd_term(leaf, teacher)
        torch.testing.assert_close(
            value, forward_kl(student.log_softmax(-1), teacher.log_softmax(-1)).mean(), check_dtype=False
        )
        assert value.requires_grad
        value.backward()
        torch.testing.assert_close(leaf.grad, (student.softmax(-1) - teacher.softmax(-1)) / 2)


def by_the_package(kd_term):
    student = torch.tensor([[1.0, -3.0], [0.0, 2.0]])
    teacher = student.flip(0)
    right = distillation_loss(student, teacher, None, alpha=0.0, temperature=1.0).total
    return torch.isclose(kd_term(student, teacher).float(), right)


def without_a_look(kd_term):
    """Takes a gradient that may not be there."""
    leaf = torch.tensor([[1.0, -3.0], [0.0, 2.0]], requires_grad=True)
    return torch.autograd.grad(kd_term(leaf, leaf.detach().flip(0)), leaf)[0].isfinite().all()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (by_finite_differences, "passed", "kills 14 of 14"),
        (by_asserts, "passed", "kills 14 of 14"),
        (by_the_package, "different", "survive: .*the student without gradient"),
        (lambda kd_term: True, "different", "killed: +0 of 14"),
        (lambda kd_term: False, "different", "right ones passed: +0 of 4"),
        (lambda kd_term: kd_term(torch.zeros(2, 3)), "error", "TypeError"),
        (without_a_look, "error", "asked about: +the teacher on both sides"),
    ],
)
def test_a_test_is_judged_by_what_it_kills(answer, kind, words):
    """A sound test that is refused for its form; an error of which nobody learns where it came from."""
    found = diagnose(TEST, answer)
    assert found.kind == kind, found
    assert re.search(words, repr(found)), found
