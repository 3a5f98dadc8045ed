"""The check decides by search: no mutant that differs anywhere passes, and no equal rewrite is refused.

A sample of the mutants by default; with KDCOURSE_DEEP=1 (`make test-deep`) all of them, of the references and of the
rewrites, against far more inputs of each domain.
"""

import functools
import inspect
import os
import warnings
from collections import UserDict

import numpy as np
import pytest
import torch
from course.exercises.domains import DOMAINS, inputs_from
from course.exercises.mutants import mutants
from course.exercises.rewrites import REWRITES
from transformers import BatchEncoding

from kdcourse.course.exercises import Exercise
from kdcourse.course.exercises.calling import all_same, by_position, run_all, same
from kdcourse.course.exercises.catalogue import all_exercises
from kdcourse.course.exercises.diagnosis import diagnose, edges_of, inputs_of

DEEP = bool(os.environ.get("KDCOURSE_DEEP"))
EVERY = 1 if DEEP else 40
"""Of so many mutants one is tried."""
WIDE = 150 if DEEP else 25
"""Inputs of a domain on which a mutant may differ from what it was."""
ROUNDING = 10
"""So many tolerances may come of rounding; what differs by less is no other function."""

WRITTEN = [exercise for exercise in all_exercises().values() if isinstance(exercise, Exercise)]
ANSWERS = [(exercise, answer) for exercise in WRITTEN for answer in (exercise.reference, *REWRITES[exercise.id])]


def named(part):
    return getattr(part, "id", None) or part.__name__


@pytest.fixture(autouse=True)
def quiet():
    """Mutants are told by PyTorch what is wrong with them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def domain_of(name):
    exercise = all_exercises()[name]
    inputs = inputs_from(name, WIDE)
    return inputs, run_all(exercise, exercise.reference, inputs)


@functools.cache
def inputs_that_decide(name):
    exercise = all_exercises()[name]
    inputs = [*inputs_of(exercise), *edges_of(exercise)]
    return inputs, run_all(exercise, exercise.reference, inputs)


def agrees(exercise, function, inputs, expected, tolerance):
    """Whether a function gives what is expected on each of the inputs."""
    pairs = zip(inputs, expected, strict=True)
    return all(same(run_all(exercise, function, [each])[0], right, tolerance) for each, right in pairs)


@pytest.mark.slow
@pytest.mark.parametrize(("exercise", "answer"), ANSWERS, ids=named)
def test_no_mutant_that_differs_passes(exercise, answer):
    """A wrong answer that is right on the few inputs that somebody thought of."""
    passed = []
    for mutant in list(mutants(answer))[::EVERY]:
        if not agrees(exercise, mutant.function, *inputs_that_decide(exercise.id), exercise.tolerance):
            continue
        if not agrees(exercise, mutant.function, *domain_of(exercise.id), ROUNDING * exercise.tolerance):
            passed.append(mutant.words)
    assert not passed


def test_every_function_has_a_domain_and_rewrites():
    """An exercise that the search leaves out."""
    names = {exercise.id for exercise in WRITTEN}
    assert names <= set(DOMAINS)
    assert names <= set(REWRITES)
    assert all(len(REWRITES[name]) > 1 for name in names)


@pytest.mark.parametrize(
    ("exercise", "answer"), [pair for pair in ANSWERS if pair[1] is not pair[0].reference], ids=named
)
def test_a_rewrite_passes(exercise, answer):
    """A right answer that is refused, for its library, its order or the names of its arguments."""
    found = diagnose(exercise, answer)
    assert found.passed, found


@pytest.mark.slow
@pytest.mark.parametrize(("exercise", "answer"), ANSWERS, ids=named)
def test_a_rewrite_is_the_reference_in_the_whole_domain(exercise, answer):
    """A reference that is wrong in a corner, and rewrites and references that the domain of the tests tells apart."""
    inputs, expected = domain_of(exercise.id)
    answers = run_all(exercise, answer, inputs)
    differ = [
        each for each, *pair in zip(inputs, answers, expected, strict=True) if not same(*pair, exercise.tolerance)
    ]
    assert not differ


def as_numpy(value):
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    return np.bool_(value) if isinstance(value, bool) else np.float64(value) if isinstance(value, float) else value


def as_tensor(value):
    if isinstance(value, tuple) and all(isinstance(part, float) for part in value):
        return torch.tensor(value, dtype=torch.float64)
    if isinstance(value, bool):
        return torch.tensor(value)
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else value


def as_other_sequence(value):
    return list(value) if isinstance(value, tuple) else tuple(value) if isinstance(value, list) else value


WRAPPERS = {
    "numpy": as_numpy,
    "tensors": as_tensor,
    "other sequences": as_other_sequence,
    "UserDict": lambda value: UserDict(value) if isinstance(value, dict) else value,
    "BatchEncoding": lambda value: BatchEncoding(value) if isinstance(value, dict) else value,
    "float64": lambda value: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value,
}


def wrapped(function, change):
    @functools.wraps(function)
    def answer(*inputs, **named):
        return change(function(*inputs, **named))

    return answer


@pytest.mark.parametrize("words", WRAPPERS)
@pytest.mark.parametrize("exercise", WRITTEN, ids=named)
def test_a_result_of_another_kind_passes(exercise, words):
    """A right number that is refused because it came from NumPy, or in another container."""
    if words == "numpy" and exercise.gradient:
        pytest.skip("NumPy has no gradients")
    found = diagnose(exercise, wrapped(REWRITES[exercise.id][0], WRAPPERS[words]))
    assert found.passed, found


def starred(function, first):
    """The function with a star after so many of its arguments."""
    parameters = list(inspect.signature(function).parameters.values())
    kinds = [inspect.Parameter.POSITIONAL_ONLY] * first + [inspect.Parameter.KEYWORD_ONLY] * len(parameters)

    def answer(*given, **keywords):
        return function(**dict(zip([each.name for each in parameters[:first]], given, strict=True)), **keywords)

    signature = [each.replace(kind=kind) for each, kind in zip(parameters, kinds, strict=False)]
    answer.__signature__ = inspect.Signature(signature)
    return answer


@pytest.mark.parametrize("exercise", WRITTEN, ids=named)
def test_arguments_may_be_keywords(exercise):
    """A TypeError for whoever puts a star before the settings, or before all."""
    answer = REWRITES[exercise.id][0]
    for first in range(len(inspect.signature(answer).parameters)):
        assert diagnose(exercise, starred(answer, first)).passed, first


def settled_by_default(function, extra):
    """The function, with settings of its own that nobody has to give."""

    def answer(*given, **named):
        return function(*given, **{name: each for name, each in named.items() if name not in extra})

    made = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in extra]
    parameters = [*inspect.signature(function).parameters.values(), *made]
    answer.__signature__ = inspect.Signature(parameters)
    return answer


@pytest.mark.parametrize("exercise", [each for each in WRITTEN if each.lesson in ("00", "02", "13")], ids=named)
def test_settings_of_ones_own_are_left_alone(exercise):
    """A right answer with `*, dim=-1` that is given a tensor for `dim`."""
    answer = settled_by_default(REWRITES[exercise.id][0], ["dim", "eps"])
    assert diagnose(exercise, answer).passed


def test_of_two_settings_one_may_be_an_input():
    """A TypeError about a missing argument, for whoever calls an input otherwise and has a setting beside it."""

    def answer(first, second, *, third=0.0, reduction="mean"):
        return first, second, third, reduction

    assert by_position(answer, ["a", "b", "c"])(1, 2, 3) == (1, 2, 3, "mean")


WITH_GRADIENT = [exercise for exercise in WRITTEN if exercise.gradient]


@pytest.mark.slow
@pytest.mark.parametrize("exercise", WITH_GRADIENT, ids=named)
@pytest.mark.parametrize(
    "cut", [torch.Tensor.detach, lambda value: torch.tensor(value.tolist()), as_numpy],
    ids=["detach", "anew", "numpy"],
)  # fmt: skip
def test_a_lost_gradient_is_named(exercise, cut):
    """Two numbers that are the same, shown as different."""
    found = diagnose(exercise, wrapped(REWRITES[exercise.id][0], cut))
    assert found.kind == "different", found
    assert "no gradient: it is not connected to the student" in found.message
    assert [name for name, _ in found.beside] == ["input"]


@pytest.mark.parametrize("exercise", WITH_GRADIENT, ids=named)
def test_a_wrong_gradient_is_shown(exercise):
    """The value beside the value, where the gradient is what differs."""

    @functools.wraps(REWRITES[exercise.id][0])
    def half(*inputs, **named):
        value = REWRITES[exercise.id][0](*inputs, **named)
        return value.detach() / 2 + value / 2

    found = diagnose(exercise, half)
    assert found.kind == "different"
    assert "The value is right; the gradient is not." in found.message
    (_, yours), (_, ours) = found.beside[1:]
    assert yours != ours


@pytest.mark.slow
def test_mistakes_differ_in_the_domain_of_the_tests():
    """A domain so narrow that a mistake is right in it."""
    for exercise in WRITTEN:
        inputs, expected = domain_of(exercise.id)
        for mistake in exercise.misconceptions:
            assert not all_same(run_all(exercise, mistake.wrong, inputs), expected, exercise.tolerance), mistake.name
