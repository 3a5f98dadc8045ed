"""Whose work an answer is: what is imported, peeked at, patched or excluded is said, kindly, and is not a solution."""

import functools
import sys

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from course.exercises.rewrites import REWRITES

import kdcourse
from kdcourse.course import exercises
from kdcourse.course.exercises import Exercise, calling
from kdcourse.course.exercises.catalogue import all_exercises, find_exercise
from kdcourse.course.exercises.diagnosis import diagnose

WRITTEN = [exercise for exercise in all_exercises().values() if isinstance(exercise, Exercise)]


def as_it_is(exercise):
    return exercise.reference


def in_a_lambda(exercise):
    return lambda *inputs: exercise.reference(*inputs)  # noqa: PLW0108  (as people do)


def in_a_partial(exercise):
    return functools.partial(exercise.reference)


def looked_up_when_called(exercise):
    return lambda *inputs: find_exercise(exercise.id).reference(*inputs)


def now_and_then(exercise):
    calls = []

    def answer(*inputs):
        calls.append(inputs)
        return (exercise.reference if len(calls) % 2 else REWRITES[exercise.id][0])(*inputs)

    return answer


@pytest.mark.parametrize("way", [as_it_is, in_a_lambda, in_a_partial, looked_up_when_called, now_and_then])
@pytest.mark.parametrize("exercise", WRITTEN, ids=lambda exercise: exercise.id)
def test_our_own_function_is_said_to_be_ours(exercise, way):
    """An exercise that is solved by an import."""
    found = diagnose(exercise, way(exercise))
    assert found.kind == "borrowed", found
    assert not found.passed
    assert "it is ours: your answer calls kdcourse." in found.message


def by_autograd(student, teacher):
    with torch.enable_grad():
        leaf = student.clone().requires_grad_()
        return torch.autograd.grad(kdcourse.forward_kl(leaf.log_softmax(-1), teacher.log_softmax(-1)).sum(), leaf)[0]


def by_backward(student, teacher, temperature):
    leaf = student.clone().requires_grad_()
    terms = F.kl_div((leaf / temperature).log_softmax(-1), (teacher / temperature).softmax(-1), reduction="batchmean")
    (temperature**2 * terms).backward()
    return leaf.grad


def imported_objective(student, teacher, labels, alpha, temperature):
    return kdcourse.distillation_loss(student, teacher, labels, alpha=alpha, temperature=temperature).total


@pytest.mark.parametrize(
    ("name", "answer", "called"),
    [
        ("01.forward_kl", kdcourse.forward_kl, "kdcourse.divergence.forward_kl"),
        ("01.gradient", by_autograd, "torch.autograd.grad"),
        ("03.soft_gradient", by_backward, "torch._tensor.Tensor.backward"),
        ("03.objective", imported_objective, "kdcourse.loss.distillation_loss"),
        (
            "02.kl_per_row",
            lambda s, t: kdcourse.forward_kl(s.log_softmax(-1), t.log_softmax(-1)),
            "kdcourse.divergence.forward_kl",
        ),
    ],
)
def test_what_the_text_excludes_is_named(name, answer, called):
    """A gradient by hand that autograd took, and an objective that was imported whole."""
    found = diagnose(find_exercise(name), answer)
    assert found.kind == "borrowed", found
    assert f"calls {called}" in found.message


def test_a_wrong_answer_hears_of_its_mistake_first():
    """Somebody who builds on our function, and learns nothing of what is wrong beside it."""
    reference = find_exercise("03.soft_gradient").reference
    assert diagnose(find_exercise("03.soft_gradient"), lambda *inputs: -reference(*inputs)).misconception == "uphill"


def test_borrowed_is_not_solved(tmp_path, monkeypatch):
    """A tick in the list for an import."""
    monkeypatch.setenv(exercises.progress.FILE_VARIABLE, str(tmp_path / "progress.json"))
    exercises.check("01.forward_kl", kdcourse.forward_kl)
    assert exercises.progress.load() == {"01.forward_kl": {"borrowed": 1}}


@pytest.mark.parametrize(
    ("holder", "name", "said"),
    [
        (F, "kl_div", "torch.nn.functional.kl_div"),
        (F, "cross_entropy", "torch.nn.functional.cross_entropy"),
        (torch.Tensor, "softmax", "torch.Tensor.softmax"),
        (torch, "softmax", "torch.softmax"),
        (kdcourse.divergence, "forward_kl", "kdcourse.divergence.forward_kl"),
    ],
)
def test_a_patched_function_is_named(holder, name, said, monkeypatch):
    """A check that compares a patch with itself, and passes everything."""
    monkeypatch.setattr(holder, name, lambda *inputs, **settings: inputs[0].sum())
    found = diagnose(find_exercise("02.kl_per_row"), REWRITES["02.kl_per_row"][0])
    assert found.kind == "error"
    assert f"In this kernel {said} is another function" in found.message


def test_another_function_of_the_same_package_in_its_place_is_named(monkeypatch):
    """A patch that is PyTorch's own."""
    monkeypatch.setattr(F, "kl_div", F.mse_loss)
    assert "torch.nn.functional.kl_div" in diagnose(find_exercise("02.kl_per_row"), lambda s, t: s.sum(-1)).message


def test_what_watches_leaves_no_trace():
    """A profiler that stays on, or that stands in the traceback of an error."""
    found = calling.run(lambda: 1, (), False)
    assert found.values == (1,)
    diagnose(find_exercise("00.soft_label"), REWRITES["00.soft_label"][0])
    assert sys.getprofile() is None
