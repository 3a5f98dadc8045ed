"""The check of an answer: it passes what is right, names what it knows, and survives whatever it is given."""

import itertools
import re
import sys
import time

import pytest
import torch

from kdcourse.course import exercises
from kdcourse.course.exercises import Exercise, Misconception, diagnosis, progress
from kdcourse.course.exercises.catalogue import UnknownExerciseError, all_exercises, find_exercise
from kdcourse.course.exercises.diagnosis import diagnose

ALL = list(all_exercises().values())
MISTAKES = [(exercise, mistake) for exercise in ALL for mistake in exercise.misconceptions]


@pytest.fixture(autouse=True)
def private_progress(tmp_path, monkeypatch):
    """A record of its own, not that of whoever runs the tests."""
    monkeypatch.setenv(progress.FILE_VARIABLE, str(tmp_path / "progress.json"))


def toy(**changes):
    """Twice the first argument: small enough to be wrong about in every way."""
    settings = {
        "id": "99.double", "title": "Double it", "reference": lambda x, y: 2 * x,
        "examples": [(torch.tensor([1.0]), torch.tensor([5.0])), (torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0]))],
        "random_inputs": lambda generator: (torch.randn(3, generator=generator), torch.randn(3, generator=generator)),
        "difficulty": 1, "minutes": 2, "gradient": True,
        "misconceptions": [
            Misconception("squared", lambda x, y: x**2, "You square it: 4 becomes 16.", "section 1"),
            Misconception("detached", lambda x, y: 2 * x.detach(), "Right value, gradient is lost.", "section 2"),
        ],
    }  # fmt: skip
    return Exercise(**settings | changes)


@pytest.mark.parametrize("exercise", ALL, ids=lambda exercise: exercise.id)
def test_the_reference_passes(exercise):
    """An exercise that nobody can solve."""
    assert exercises.check(exercise.id, exercise.reference).passed


@pytest.mark.parametrize(("exercise", "mistake"), MISTAKES, ids=lambda part: getattr(part, "id", None) or part.name)
def test_each_mistake_is_named_as_itself(exercise, mistake):
    """A diagnosis of another mistake, or a wrong answer that passes."""
    diagnosis = exercises.check(exercise.id, mistake.wrong)
    assert (diagnosis.kind, diagnosis.misconception) == ("misconception", mistake.name)
    assert mistake.signature in diagnosis.message
    assert mistake.read in diagnosis.message


@pytest.mark.parametrize("exercise", ALL, ids=lambda exercise: exercise.id)
def test_nothing_is_missing(exercise):
    """An exercise without minutes or mistakes; two mistakes of one name."""
    assert exercise.lesson.isdigit()
    assert exercise.minutes > 0
    assert exercise.difficulty in {1, 2, 3}
    assert exercise.misconceptions
    names = [mistake.name for mistake in exercise.misconceptions]
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_wrong_functions_never_pass():
    """An answer that is nearly right: 200 random distortions of the references' results."""
    generator = torch.Generator().manual_seed(0)
    distorted = 0
    for exercise in itertools.islice(itertools.cycle(ALL), 200):

        def wrong(*inputs, exercise=exercise):
            return distort(exercise.reference(*inputs), generator)

        distorted += 1
        assert not exercises.check(exercise.id, wrong).passed, exercise.id
    assert distorted == 200


def distort(value, generator):  # noqa: PLR0911  (one for each kind of value)
    """Another value of the same kind."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value + 0.1 * (1 + value.detach().nan_to_num().abs()) * torch.rand((), generator=generator).add(0.5)
    if isinstance(value, torch.Tensor):
        return value.logical_not() if value.dtype == torch.bool else value + 1
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1 + torch.rand((), generator=generator).item()
    if isinstance(value, str):
        return value + "!"
    if isinstance(value, dict):
        return {name: distort(part, generator) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([distort(part, generator) for part in value]) if value else [0]
    raise TypeError(f"no distortion for {type(value).__name__}")


def endless(x, y):
    while True:
        pass


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda x, y: 2 * x, "passed", "right, on 7 inputs"),
        (lambda x, y: x + x, "passed", "right"),
        (lambda x, y: None, "not attempted", "not attempted yet"),
        (lambda x, y: ..., "not attempted", "not attempted yet"),
        (lambda x, y: x**2, "misconception", "4 becomes 16"),
        (lambda x, y: 2 * x.detach(), "misconception", "gradient is lost"),
        (lambda x, y: 3 * x, "different", r"\[3.0\]"),
        (lambda x, y: (2 * x).sum()[None, None], "different", r"yours is \[\[2.0\]\]"),
        (lambda x, y: 1 / 0, "error", "ZeroDivisionError: division by zero"),
        (lambda x, y: sys.exit(), "error", "SystemExit"),
        (lambda x, y: 2 * x + 0 * y.zero_(), "error", "changes its inputs"),
        (lambda x: 2 * x, "error", "TypeError"),
        (lambda x, y: "4", "different", "'4'"),
        (lambda x, y: 2 * x.double(), "passed", "right"),
        (endless, "error", "still running after"),
    ],
)
def test_every_answer_gets_a_sentence(answer, kind, words, monkeypatch):
    """A check that hangs, crashes the kernel, or lets a wrong answer through."""
    monkeypatch.setattr(diagnosis, "SECONDS", 0.5)
    started = time.monotonic()
    found = diagnose(toy(), answer)
    assert found.kind == kind
    assert re.search(words, found.message), found.message
    assert time.monotonic() - started < 20


def test_the_smallest_input_that_differs_is_shown():
    """A page of numbers where one is enough."""
    message = diagnose(toy(), lambda x, y: 2 * x if len(x) < 2 else 2 * x + y).message
    assert "[1.0, 2.0]" in message
    assert "[2.0, 7.0]" in message


def test_an_unknown_exercise_is_named():
    """A KeyError."""
    with pytest.raises(UnknownExerciseError, match=r"no exercise '01.nothing'; there are"):
        find_exercise("01.nothing")


def test_progress_counts_what_was_tried(tmp_path, monkeypatch):
    """Solved exercises forgotten, and untouched ones counted; a folder that cannot be written that ends the lesson."""
    exercise = ALL[0]
    exercises.check(exercise.id, exercise.reference)
    exercises.check(exercise.id, lambda *inputs: None)
    exercises.check(exercise.id, exercise.misconceptions[0].wrong)
    exercises.verify(exercise.id, exercise.reference)
    assert progress.load() == {exercise.id: {"passed": 1, "misconception": 1}}
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(progress.FILE_VARIABLE, str(tmp_path / "file" / "progress.json"))
    assert exercises.check(exercise.id, exercise.reference).passed


def test_a_solution_that_is_none_is_an_error():
    """A solution in the notebook that nobody ran."""
    with pytest.raises(AssertionError, match=f"solution of {ALL[0].id} is not one"):
        exercises.verify(ALL[0].id, ALL[0].misconceptions[0].wrong)
