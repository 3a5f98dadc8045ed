"""Which mistake is it? One that the exercise knows, two of them at once, or one of an exercise before."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kdcourse.course.exercises.calling import Result, all_same, run_all
from kdcourse.course.exercises.catalogue import all_exercises, find_exercise
from kdcourse.course.exercises.comparing import close, is_nan, plain
from kdcourse.course.exercises.exercise import Exercise, Function, Inputs, Misconception
from kdcourse.course.exercises.twists import all_twists, arguments_of, those_like, twists_of

ALIKE = 2
"""Arguments that two exercises have in common, such as student and teacher, so that a mistake means the same."""


@dataclass(frozen=True)
class Known:
    """A mistake by its name, and what to say of it."""

    name: str
    words: str


def known_mistake(exercise: Exercise, inputs: Sequence[Inputs], answers: Sequence[Result]) -> Known | None:
    """The mistake, or the two, that give the same as an answer on all inputs; None if none does.

    Where an answer says nothing, as one that is NaN everywhere, it is not known either.
    """
    if not any(map(_says_something, answers)):
        return None
    if mistake := _single(exercise, inputs, answers):
        return Known(mistake.name, f"{mistake.signature} Read {mistake.read}.")
    if any(answer.error for answer in answers):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trials, on inputs that some of them are not made for
        return _pair_or_neighbour(exercise, inputs, answers)


def _pair_or_neighbour(exercise: Exercise, inputs: Sequence[Inputs], answers: Sequence[Result]) -> Known | None:
    if pair := _pair(exercise, inputs, answers):
        said = " ".join(f"({place}) {each.signature} Read {each.read}." for place, each in enumerate(pair, 1))
        words = f"Two mistakes together, and you will know each by what it does alone: {said}"
        return Known(f"{pair[0].name} + {pair[1].name}", words)
    return _of_a_neighbour(exercise, inputs, answers)


def _says_something(result: Result) -> bool:
    """Whether there is anything but NaN in the value, or in a gradient that is not 0."""
    if result.error is not None:
        return True
    value, *gradients = result.values
    return not is_nan(value) or any(gradient.any() and not is_nan(gradient) for gradient in gradients)


def _single(exercise: Exercise, inputs: Sequence[Inputs], answers: Sequence[Result]) -> Misconception | None:
    for mistake in exercise.misconceptions:
        if all_same(answers, run_all(exercise, mistake.wrong, inputs), exercise.tolerance):
            return mistake
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Two at once


def _pair(
    exercise: Exercise, inputs: Sequence[Inputs], answers: Sequence[Result]
) -> tuple[Misconception, Misconception] | None:
    twists = {name: list(found.values()) for name, found in twists_of(exercise, inputs).items()}
    right = run_all(exercise, exercise.reference, inputs)
    wrong = {mistake.name: run_all(exercise, mistake.wrong, inputs) for mistake in exercise.misconceptions}
    if isinstance(plain(right[0].values[0]), bool | str):
        return None  # a handful of yes and no, which many pairs give by chance
    for first, second in itertools.combinations(exercise.misconceptions, 2):
        twisted = [twist(second.wrong) for twist in twists[first.name]]
        twisted += [twist(first.wrong) for twist in twists[second.name]]
        if any(those_like(exercise, function, inputs, {"answer": answers}) for function in twisted):
            return first, second
        for compose in () if twisted else (added, multiplied, merged):
            made = (compose(*three) for three in zip(wrong[first.name], wrong[second.name], right, strict=True))
            if _are(made, answers, exercise.tolerance):
                return first, second
    return None


def _are(made: Iterator[Result | None], answers: Sequence[Result], tolerance: float) -> bool:
    pairs = zip(made, answers, strict=True)
    return all(ours is not None and all_same([theirs], [ours], tolerance) for ours, theirs in pairs)


def added(first: Result, second: Result, right: Result) -> Result | None:
    """Two mistakes in two summands: each moves the result, and its gradients, by as much as it does alone."""
    return _numbers(lambda a, b, r: tuple(x + y - z for x, y, z in zip(a, b, r, strict=True)), first, second, right)


def multiplied(first: Result, second: Result, right: Result) -> Result | None:
    """Two mistakes in two factors, that change a result by as many times as they do alone."""

    def product(a: Sequence[Tensor], b: Sequence[Tensor], r: Sequence[Tensor]) -> tuple[Tensor, ...]:
        value = a[0] * b[0] / r[0]
        left, other, ours = (part[0].unsqueeze(-1) if part[0].ndim else part[0] for part in (a, b, r))
        gradients = zip(a[1:], b[1:], r[1:], strict=True)
        return value, *((x * other + left * y - left * other / ours * z) / ours for x, y, z in gradients)

    return _numbers(product, first, second, right)


def merged(first: Result, second: Result, right: Result) -> Result | None:
    """Two mistakes in two places, each of which is as the mistake alone leaves it."""
    if not all(part.values for part in (first, second, right)):
        return None
    value = _merged(*(plain(part.values[0]) for part in (first, second, right)))
    return None if value is None else Result((value,), changed_inputs=first.changed_inputs or second.changed_inputs)


def _numbers(compose: Callable[..., tuple[Tensor, ...]], *results: Result) -> Result | None:
    try:
        values = [[torch.as_tensor(part, dtype=torch.float64) for part in result.values] for result in results]
        made = compose(*values) if all(values) else ()
    except (TypeError, ValueError, RuntimeError):
        return None
    return Result(made, changed_inputs=any(result.changed_inputs for result in results[:2])) if made else None


def _merged(first: Any, second: Any, right: Any) -> Any:
    if isinstance(right, dict) and isinstance(first, dict) and isinstance(second, dict):
        return _merged_dicts(first, second, right)
    if not all(isinstance(part, Tensor) and part.shape == right.shape for part in (first, second, right)):
        return first if close(second, right, 0.0) else second if close(first, right, 0.0) else None
    moved, moved_too = first != right, second != right
    if (moved & moved_too & (first != second)).any():
        return None
    return torch.where(moved, first, second)


def _merged_dicts(first: dict[Any, Any], second: dict[Any, Any], right: dict[Any, Any]) -> dict[Any, Any] | None:
    """A key that one of them leaves out is left out; one that a mistake renames holds what the other put there."""
    keys = [key for key in {**first, **second} if key not in right or (key in first and key in second)]
    lost = [key for key in right if key not in first or key not in second]
    if len(lost) == 1 and len(new := [key for key in keys if key not in right]) == 1:
        first, second, right = ({_renamed(key, lost[0], new[0]): part for key, part in each.items()}
                                for each in (first, second, right))  # fmt: skip
    made = {key: _merged(first.get(key), second.get(key), right.get(key)) for key in keys}
    return None if any(part is None for part in made.values()) else made


def _renamed(key: Any, old: Any, new: Any) -> Any:
    return new if key == old else key


# ---------------------------------------------------------------------------------------------------------------------
# Of an exercise before


def _of_a_neighbour(exercise: Exercise, inputs: Sequence[Inputs], answers: Sequence[Result]) -> Known | None:
    """A mistake of an exercise before, made here: its code, or its twist on what is right here.

    A mistake that is two twists of its own reference is known only where both are the same again.
    """
    twists = dict(all_twists(arguments_of(exercise)))

    def is_like(function: Function) -> bool:
        return bool(those_like(exercise, function, inputs, {"answer": answers}))

    for other in _neighbours(exercise):
        fits = arguments_of(other) == arguments_of(exercise)
        if fits and is_like(other.reference):
            return Known(other.id, f"That would be right for exercise {other.id}, {other.title}.")
        for mistake in other.misconceptions:
            known_as = _twists(other.id)[mistake.name]
            can_be_made = known_as and all(words in twists for words in known_as)
            if (fits and is_like(mistake.wrong)) or (
                can_be_made and all(is_like(twists[words](exercise.reference)) for words in known_as)
            ):
                said = f"That is a mistake of exercise {other.id}, where it is known by this: {mistake.signature}"
                return Known(f"{other.id}: {mistake.name}", f"{said} Read {_place(other, mistake)}.")
    return None


def _neighbours(exercise: Exercise) -> list[Exercise]:
    """Functions of this lesson and those before, the nearest first, that share arguments with this one."""
    found = [
        other
        for other in all_exercises().values()
        if isinstance(other, Exercise) and other.id != exercise.id and other.lesson <= exercise.lesson
    ]
    fitting = [other for other in found if len({*arguments_of(other)} & {*arguments_of(exercise)}) >= ALIKE]
    return sorted(fitting, key=lambda other: other.lesson, reverse=True)


@cache
def _twists(name: str) -> dict[str, list[str]]:
    """For each mistake of an exercise of the course, what its twists are called."""
    exercise = find_exercise(name)
    found = twists_of(exercise, exercise.examples) if isinstance(exercise, Exercise) else {}
    return {mistake: list(twists) for mistake, twists in found.items()}


def _place(exercise: Exercise, mistake: Misconception) -> str:
    return f"lesson {exercise.lesson}, {mistake.read}" if mistake.read.startswith("section") else mistake.read
