"""Run a learner's function beside the reference and beside every known mistake, and say which of them it is."""

from __future__ import annotations

import copy
import ctypes
import html
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdcourse.course.exercises import progress
from kdcourse.course.exercises.catalogue import find_exercise
from kdcourse.course.exercises.exercise import Exercise, Function, Inputs

SECONDS = 5.0
"""For one call of a learner's function."""
RANDOM_INPUTS = 5
LONG = 24
"""Elements of a tensor that is no longer shown."""


MARKS = {"passed": "✓", "not attempted": "…", "error": "!", "misconception": "✗", "different": "✗"}
COLOURS = {
    "passed": "#009E73", "not attempted": "#6B6B6B", "error": "#D55E00", "misconception": "#D55E00",
    "different": "#D55E00",
}  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What became of an answer."""

    kind: str
    """"passed", "not attempted", "error", "misconception" or "different"."""
    message: str
    misconception: str = ""

    @property
    def passed(self) -> bool:
        return self.kind == "passed"

    def __repr__(self) -> str:
        return f"{MARKS[self.kind]} {self.message}"

    def _repr_html_(self) -> str:
        """A box for Jupyter; the mark says the same as the colour."""
        return (
            f'<div style="border-left: 4px solid {COLOURS[self.kind]}; padding: 0.3em 0.8em">'
            f"{MARKS[self.kind]} {html.escape(self.message)}</div>"
        )


@dataclass(frozen=True)
class Result:
    """What a function gave for one input: numbers, or the error that it raised."""

    values: tuple[Any, ...] = ()
    error: BaseException | None = None
    changed_inputs: bool = False


class OutOfTimeError(Exception):
    """The function was still running when its time was over."""


def check(name: str, function: Function) -> Diagnosis:
    """Check a learner's answer to the exercise `name`, and remember how it went (see `kdcourse progress`)."""
    exercise = find_exercise(name)
    diagnosis = diagnose(exercise, function)
    if said := progress.record(exercise.id, diagnosis.kind):
        print(said)
    return diagnosis


def verify(name: str, solution: Function) -> None:
    """Assert that a solution passes; nothing is remembered.

    Raises:
        AssertionError: it does not, and why.
    """
    diagnosis = diagnose(find_exercise(name), solution)
    if not diagnosis.passed:
        raise AssertionError(f"The solution of {name} is not one: {diagnosis.message}")


def diagnose(exercise: Exercise, function: Function) -> Diagnosis:
    """Passed, not attempted, an error, a mistake that is known, or one that is not."""
    inputs = inputs_of(exercise)
    answers = run_all(exercise, function, inputs)
    if any(is_empty(answer) for answer in answers):
        return Diagnosis("not attempted", f"{exercise.title}: not attempted yet.")
    expected = run_all(exercise, exercise.reference, inputs)
    if all_same(answers, expected, exercise.tolerance):
        return Diagnosis("passed", f"{exercise.title}: right, on {len(inputs)} inputs.")
    for mistake in exercise.misconceptions:
        if all_same(answers, run_all(exercise, mistake.wrong, inputs), exercise.tolerance):
            return Diagnosis("misconception", f"{mistake.signature} Read {mistake.read}.", mistake.name)
    return _describe_difference(inputs, answers, expected, exercise)


def inputs_of(exercise: Exercise) -> list[Inputs]:
    """The fixed inputs, and a few random ones that are the same in every run."""
    return [
        *exercise.examples,
        *(exercise.random_inputs(torch.Generator().manual_seed(seed)) for seed in range(RANDOM_INPUTS)),
    ]


def run_all(exercise: Exercise, function: Function, inputs: Sequence[Inputs]) -> list[Result]:
    """The results in the order of the inputs; after one that took too long, the others are not waited for."""
    results: list[Result] = []
    for each in inputs:
        out_of_time = bool(results) and isinstance(results[-1].error, OutOfTimeError)
        results.append(results[-1] if out_of_time else run(function, each, exercise.gradient))
    return results


def run(function: Function, inputs: Inputs, gradient: bool) -> Result:
    """Call a function on copies of its inputs, in bounded time; whatever it raises is part of the result."""
    given = copy.deepcopy(inputs)
    if gradient:
        given[0].requires_grad_()
    try:
        value = _call_in_time(function, given)
        values: tuple[Any, ...] = (value,)
        if gradient and isinstance(value, Tensor) and value.requires_grad:
            values = (value.detach(), *torch.autograd.grad(value.sum(), given[0], allow_unused=True))
    except BaseException as error:
        return Result(error=error)
    changed = not same(Result(tuple(_detached(part) for part in given)), Result(inputs), 0.0)
    return Result(values, changed_inputs=changed)


def same(left: Result, right: Result, tolerance: float) -> bool:
    """Equal values (NaN equals NaN), or errors of one type."""
    if left.error is not None or right.error is not None:
        return type(left.error) is type(right.error)
    if left.changed_inputs != right.changed_inputs or len(left.values) != len(right.values):
        return False
    return all(_close(ours, theirs, tolerance) for ours, theirs in zip(left.values, right.values, strict=True))


def all_same(left: Sequence[Result], right: Sequence[Result], tolerance: float) -> bool:
    return all(same(ours, theirs, tolerance) for ours, theirs in zip(left, right, strict=True))


def is_empty(answer: Result) -> bool:
    """The stub of the notebook, unchanged: it raises NotImplementedError, or gives nothing back."""
    given = answer.values[0] if answer.values else answer.error
    return given is ... or (answer.error is None and given is None) or isinstance(given, NotImplementedError)


def _close(left: Any, right: Any, tolerance: float) -> bool:
    if _is_truth(left) and _is_truth(right):
        return bool(left) == bool(right)
    if _is_number(left) and _is_number(right):
        left, right = (torch.as_tensor(part, dtype=torch.float64) for part in (left, right))
        return left.shape == right.shape and torch.allclose(left, right, rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(_close(a, b, tolerance) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_close(left[key], right[key], tolerance) for key in left)
    return type(left) is type(right) and bool(left == right)


def _is_truth(value: Any) -> bool:
    """True or False, or a tensor that is one of them."""
    return isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool and value.ndim == 0)


def _is_number(value: Any) -> bool:
    """A tensor, or a number, which is as good as a tensor without dimensions."""
    return isinstance(value, (Tensor, int, float)) and not isinstance(value, bool)


def _detached(part: Any) -> Any:
    return part.detach() if isinstance(part, Tensor) else part


def _call_in_time(function: Function, inputs: Inputs) -> Any:
    """The value of a call, or OutOfTimeError; in a thread, since only that can be interrupted on every platform."""
    box: dict[str, Any] = {}

    def work() -> None:
        try:
            box["value"] = function(*inputs)
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        # Raised at the next line of Python that the thread runs: an endless loop ends there.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(OutOfTimeError))
        raise OutOfTimeError(f"it was still running after {SECONDS:g} seconds")
    if "error" in box:
        raise box["error"]
    return box["value"]


def _describe_difference(
    inputs: Sequence[Inputs], answers: Sequence[Result], expected: Sequence[Result], exercise: Exercise
) -> Diagnosis:
    """The smallest input on which the answer differs."""
    cases = zip(inputs, answers, expected, strict=True)
    given, answer, right = next(case for case in cases if not same(case[1], case[2], exercise.tolerance))
    if answer.error is not None:
        return Diagnosis(
            "error",
            f"Your function stopped with {type(answer.error).__name__}: {answer.error}. It was given {_show(given)}.",
        )
    if answer.changed_inputs:
        return Diagnosis(
            "error", "Your function changes its inputs; work on a copy, or avoid the methods that end in an underscore."
        )
    part, ours, theirs = "", answer.values[:1], right.values[:1] or (right.error,)
    if len(answer.values) == len(right.values) and _close(ours[0], theirs[0], exercise.tolerance):
        part, ours, theirs = " The value is right; the gradient is not:", answer.values[1:], right.values[1:]
    return Diagnosis(
        "different",
        f"Different from all the mistakes that we know.{part} For {_show(given)}, yours is {_show(ours)} and ours "
        f"{_show(theirs)}.",
    )


def _show(values: Sequence[Any]) -> str:
    """Numbers without "tensor(…)" and without all their digits; the shape of a tensor that is long."""
    return ", ".join(_show_one(value) for value in values)


def _show_one(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"{value:.4g}" if isinstance(value, float) else repr(value)
    if value.numel() > LONG:
        return f"a tensor of shape {tuple(value.shape)}"
    if value.is_floating_point():
        return str(value.detach().double().round(decimals=4).tolist())
    return str(value.tolist())
