"""What a mistake does to a right answer: it takes other inputs, or does something to the result.

Many mistakes are the reference with a twist: the sides exchanged, alpha for 1 − alpha, divided by T once more. Which
twist that is, is found by trying, so no exercise has to say it. Twists compose, and so do the mistakes that they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.calling import Result, names_of, run, run_all, same
from kdcourse.course.exercises.exercise import Exercise, Function, Inputs

Twist = Callable[[Function], Function]

OF_AN_INPUT: dict[str, Callable[[Any], Any]] = {
    "1 − it": lambda part: 1 - part,
    "1 / it": lambda part: 1 / part,
    "1 for it": lambda part: type(part)(1),
    "0 for it": lambda part: type(part)(0),
    "a probability": lambda part: part.softmax(-1),
    "its logarithm": lambda part: part.log(),
    "a log-probability": lambda part: part.log_softmax(-1),
    "its first choice": lambda part: 40 * F.one_hot(part.argmax(-1), part.shape[-1]).to(part),
    "ones for it": torch.ones_like,
    "all alike": lambda part: torch.full_like(part, 1 / len(part)),
    "zeros for it": lambda part: [0] * len(part),
    "no label is class 0": lambda part: part.clamp(min=0),
    "the first of two": lambda part: (part[0], part[0]),
    "its best": lambda part: [max(part)],
}
"""What may be done to one of the inputs."""

OF_THE_RESULT: dict[str, Callable[..., Any]] = {
    "negated": lambda value, *inputs: -value,
    "1 − it": lambda value, *inputs: 1 - value,
    "not": lambda value, *inputs: not value,
    "added up": lambda value, *inputs: value.sum(),
    "averaged": lambda value, *inputs: value.mean(),
    "mean of rows": lambda value, *inputs: value.mean(0),
    "sum of rows": lambda value, *inputs: value.sum(0),
    "cut to an end": lambda value, *inputs: float(value > 0.5),  # noqa: PLR2004  (the middle of 0 and 1)
    "÷ rows": lambda value, first, *inputs: value / len(first),
    "× rows": lambda value, first, *inputs: value * len(first),
    "÷ classes": lambda value, first, *inputs: value / first.shape[-1],
    "× the sum": lambda value, first, *inputs: value * sum(first),
    "a softmax more": lambda value, *inputs: value.softmax(-1),
    "one place to the left": lambda value, *inputs: F.pad(value[:, 1:], (0, 1), value=IGNORED_LABEL),
    "0 for −100": lambda value, *inputs: value.masked_fill(value == IGNORED_LABEL, 0),
    "without its gradient": lambda value, *inputs: value.detach(),
}
"""What may be done to a result."""

SCALED: dict[str, Callable[[Any, Any], Any]] = {
    "×": lambda value, part: value * part,
    "÷": lambda value, part: value / part,
    "× square of": lambda value, part: value * part**2,
    "÷ square of": lambda value, part: value / part**2,
}
"""What a number among the inputs may do to a result."""


def before(change: Callable[..., Inputs]) -> Twist:
    """Other inputs."""
    return lambda function: lambda *inputs: function(*change(*inputs))


def after(change: Callable[..., Any]) -> Twist:
    """Another result; the change is given the inputs, too."""
    return lambda function: lambda *inputs: change(function(*inputs), *inputs)


def all_twists(names: Sequence[str]) -> Iterator[tuple[str, Twist]]:
    """Each with its words; the inputs have these names."""
    yield "the first two exchanged", before(lambda first, second, *others: (second, first, *others))
    yield "the first twice", before(lambda first, second, *others: (first, first, *others))
    yield "the second twice", before(lambda first, second, *others: (second, second, *others))
    for words, change in OF_THE_RESULT.items():
        yield words, after(change)
    for place, name in enumerate(names):
        for words, change in OF_AN_INPUT.items():
            yield f"{name}: {words}", before(_at(place, change))
        for words, scale in SCALED.items():
            yield f"{words} {name}", after(_by(place, scale))


def arguments_of(exercise: Exercise) -> list[str]:
    """What its inputs are called, whether they come as logits or as log-probabilities."""
    return [name.removesuffix("_logits").removesuffix("_log_probs") for name in names_of(exercise.reference)]


def _at(place: int, change: Callable[[Any], Any]) -> Callable[..., Inputs]:
    return lambda *inputs: (*inputs[:place], change(inputs[place]), *inputs[place + 1 :])


def _by(place: int, scale: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Of what is no number, nothing: a tuple times a billion is a billion tuples."""
    return lambda value, *inputs: value if isinstance(value, (tuple, list, str)) else scale(value, inputs[place])


def twists_of(exercise: Exercise, inputs: Sequence[Inputs]) -> dict[str, dict[str, Twist]]:
    """For each mistake by name, the twists of the reference that give the same, by their words; mostly none."""
    wrong = {mistake.name: run_all(exercise, mistake.wrong, inputs) for mistake in exercise.misconceptions}
    found: dict[str, dict[str, Twist]] = {name: {} for name in wrong}
    for words, twist in all_twists(arguments_of(exercise)):
        for name in those_like(exercise, twist(exercise.reference), inputs, wrong):
            found[name][words] = twist
    return found


def those_like(
    exercise: Exercise, function: Function, inputs: Sequence[Inputs], results: Mapping[str, Sequence[Result]]
) -> list[str]:
    """The names of those results that a function gives, too; it is called no more often than it has to be."""
    left = list(results)
    for place, each in enumerate(inputs):
        if not left:
            break
        made = run(function, each, exercise.gradient, exercise.from_logits)
        left = [name for name in left if not made.error and same(made, results[name][place], exercise.tolerance)]
    return left
