"""Run a learner's function beside the reference and beside every known mistake, and say which of them it is."""

from __future__ import annotations

import copy
import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdcourse.exercises.catalogue import find_exercise
from kdcourse.exercises.exercise import Exercise, Function, Inputs

SECONDS = 5.0
"""For one call of a learner's function."""
RANDOM_INPUTS = 5


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
        return self.message


@dataclass(frozen=True)
class Result:
    """What a function gave for one input: numbers, or the error that it raised."""

    values: tuple[Any, ...] = ()
    error: BaseException | None = None
    changed_inputs: bool = False


class OutOfTimeError(Exception):
    """The function was still running when its time was over."""


def check(name: str, function: Function) -> Diagnosis:
    """Check the answer to the exercise `name`: a function with the arguments that the exercise asks for."""
    exercise = find_exercise(name)
    inputs = inputs_of(exercise)
    answers = run_all(exercise, function, inputs)
    if any(is_empty(answer) for answer in answers):
        return Diagnosis("not attempted", f"{exercise.title}: not attempted yet. First hint: {exercise.hints[0]}")
    expected = run_all(exercise, exercise.reference, inputs)
    if all(same(answer, right, exercise.tolerance) for answer, right in zip(answers, expected, strict=True)):
        return Diagnosis("passed", f"{exercise.title}: right, on {len(inputs)} inputs.")
    for mistake in exercise.misconceptions:
        wrong = run_all(exercise, mistake.wrong, inputs)
        if all(same(answer, other, exercise.tolerance) for answer, other in zip(answers, wrong, strict=True)):
            return Diagnosis("misconception", f"{mistake.signature} Read {mistake.read}.", mistake.name)
    return _describe_difference(inputs, answers, expected, exercise)


def inputs_of(exercise: Exercise) -> list[Inputs]:
    """The fixed inputs, and a few random ones that are the same in every run."""
    return [
        *exercise.examples,
        *(exercise.random_inputs(torch.Generator().manual_seed(seed)) for seed in range(RANDOM_INPUTS)),
    ]


def run_all(exercise: Exercise, function: Function, inputs: Sequence[Inputs]) -> list[Result]:
    return [run(function, each, exercise.gradient) for each in inputs]


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


def is_empty(answer: Result) -> bool:
    """The stub as it stands in the notebook: it raises NotImplementedError, or gives nothing back."""
    return isinstance(answer.error, NotImplementedError) or (answer.values != () and answer.values[0] in (None, ...))


def _close(left: Any, right: Any, tolerance: float) -> bool:
    if _is_number(left) and _is_number(right):
        left, right = (torch.as_tensor(part, dtype=torch.float64) for part in (left, right))
        return left.shape == right.shape and torch.allclose(left, right, rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(_close(a, b, tolerance) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_close(left[key], right[key], tolerance) for key in left)
    return type(left) is type(right) and bool(left == right)


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
    for given, answer, right in zip(inputs, answers, expected, strict=True):
        if same(answer, right, exercise.tolerance):
            continue
        if answer.error is not None:
            return Diagnosis("error", f"Your function stopped with {type(answer.error).__name__}: {answer.error}.")
        if answer.changed_inputs:
            return Diagnosis(
                "error", "Your function changes its inputs; work on a copy, or avoid the methods that end in _."
            )
        return Diagnosis(
            "different",
            f"Different from all the mistakes that we know. For the input {given}, yours is {answer.values} and ours "
            f"{right.values}.",
        )
    raise AssertionError("no input tells the answer from the reference")
