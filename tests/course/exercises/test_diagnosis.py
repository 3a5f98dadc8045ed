"""The check of an answer: it passes what is right, names what it knows, and survives whatever it is given."""

import contextlib
import html
import os
import re
import subprocess
import sys
import time
import types
from collections import UserDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BatchEncoding

from kdcourse.course import exercises
from kdcourse.course.exercises import Exercise, Misconception, calling, progress
from kdcourse.course.exercises.calling import OutOfTimeError
from kdcourse.course.exercises.catalogue import UnknownExerciseError, all_exercises, find_exercise
from kdcourse.course.exercises.diagnosis import SPOKEN, diagnose

ALL = list(all_exercises().values())
FUNCTIONS = [exercise for exercise in ALL if isinstance(exercise, Exercise)]
MISTAKES = [(exercise, mistake) for exercise in ALL for mistake in exercise.misconceptions]


@pytest.fixture(autouse=True)
def private_progress(tmp_path, monkeypatch):
    """A record of its own, not that of whoever runs the tests."""
    monkeypatch.setenv(progress.FILE_VARIABLE, str(tmp_path / "progress.json"))


def written_anew(function):
    """The same code, but in a function of one's own."""
    code = function.__code__.replace(co_name="answer")
    answer = types.FunctionType(code, function.__globals__, "answer", function.__defaults__, function.__closure__)
    answer.__kwdefaults__ = function.__kwdefaults__
    return answer


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
    free = replace(exercise, excludes=()) if isinstance(exercise, Exercise) else exercise
    assert diagnose(free, written_anew(exercise.reference)).passed


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
    """An answer that is nearly right: each reference's results, distorted; three times each with KDCOURSE_DEEP=1."""
    generator = torch.Generator().manual_seed(0)
    for exercise in FUNCTIONS * (3 if os.environ.get("KDCOURSE_DEEP") else 1):

        def wrong(*inputs, exercise=exercise):
            return distort(exercise.reference(*inputs), generator)

        assert not exercises.check(exercise.id, wrong).passed, exercise.id


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


def stubborn(x, y):
    """Catches whatever it can, as careful people do."""
    while True:
        with contextlib.suppress(Exception):
            pass


def stub(x, y):
    raise NotImplementedError


def unwritten():
    raise NotImplementedError("could not run 'aten::kl_div' on this backend")


class Unshown:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda x, y: 2 * x, "passed", "right, on 7 inputs"),
        (lambda x, y: x + x, "passed", "right"),
        (lambda x, y: None, "error", "gives nothing back; a `return` is missing"),
        (lambda x, y: None if len(x) > 1 else 2 * x, "error", r"nothing back; .*\n +input: \[1.0, 2.0\]"),
        (stub, "not attempted", "not attempted yet"),
        (lambda x, y: unwritten(), "error", "NotImplementedError: could not"),
        (lambda x, y: ..., "not attempted", "not attempted yet"),
        (lambda x, y: x**2, "misconception", "4 becomes 16"),
        (lambda x, y: 2 * x.detach(), "misconception", "gradient is lost"),
        (lambda x, y: 3 * x, "different", r"\[3.0\]"),
        (lambda x, y: (2 * x).sum()[None, None], "different", r"yours: \[\[2.0\]\], shape \(1, 1\)"),
        (lambda x, y: 1 / 0, "error", r"ZeroDivisionError: division by zero.\n +input: .*\n +line: .*1 / 0"),
        (lambda x, y: (2 * x).detach().numpy(), "misconception", "gradient is lost"),
        (lambda x, y: x * torch.nan, "different", "nan"),
        (lambda x, y: (2 * x).to(torch.complex64), "different", "complex64"),
        (lambda x, y: (2 * x).to_sparse(), "different", "float32 of shape"),
        (lambda x, y: torch.empty(len(x), device="meta"), "different", "float32 of shape"),
        (lambda x, y: [[2 * x]], "different", "list"),
        (lambda x, y: 10**400, "different", "yours"),
        (lambda x, y: 10**5000, "different", "int that cannot be shown"),
        (lambda x, y: Unshown(), "different", "Unshown that cannot be shown"),
        (stubborn, "error", "still running after"),
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
    monkeypatch.setattr(calling, "SECONDS", 0.5)
    started = time.monotonic()
    found = diagnose(toy(), answer)
    assert found.kind == kind
    assert re.search(words, repr(found)), repr(found)
    assert html.escape(found.message) in found._repr_html_()
    assert f'aria-label="{SPOKEN[kind]}"' in found._repr_html_()
    assert time.monotonic() - started < 20


def test_the_smallest_input_that_differs_is_shown():
    """A page of numbers where one is enough."""
    message = repr(diagnose(toy(), lambda x, y: 2 * x if len(x) < 2 else 2 * x + y))
    assert "[1.0, 2.0]" in message
    assert "[2.0, 7.0]" in message


def test_an_unknown_exercise_is_named():
    """A KeyError."""
    with pytest.raises(UnknownExerciseError, match=r"no exercise '01.nothing'; there are"):
        find_exercise("01.nothing")


def test_progress_counts_what_was_tried(tmp_path, monkeypatch):
    """Solved exercises forgotten, and untouched ones counted; a folder that cannot be written that ends the lesson."""
    exercise = ALL[0]
    exercises.check(exercise.id, written_anew(exercise.reference))
    exercises.check(exercise.id, lambda *inputs: ...)
    exercises.check(exercise.id, exercise.misconceptions[0].wrong)
    exercises.verify(exercise.id, written_anew(exercise.reference))
    assert progress.load() == {exercise.id: {"passed": 1, "misconception": 1}}
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(progress.FILE_VARIABLE, str(tmp_path / "file" / "progress.json"))
    assert exercises.check(exercise.id, written_anew(exercise.reference)).passed


def test_a_solution_that_is_none_is_an_error():
    """A solution in the notebook that nobody ran."""
    with pytest.raises(AssertionError, match=f"solution of {ALL[0].id} is not one"):
        exercises.verify(ALL[0].id, ALL[0].misconceptions[0].wrong)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (lambda: np.float64(2.0), lambda: 2.0),
        (lambda: np.array([1.0, 2.0]), lambda: torch.tensor([1.0, 2.0])),
        (lambda: np.bool_(True), lambda: True),
        (lambda: torch.tensor([1.0, 2.0]), lambda: (1.0, 2.0)),
        (lambda: UserDict(a=1.0), lambda: {"a": 1.0}),
        (lambda: BatchEncoding({"a": [1, 2]}), lambda: {"a": [1, 2]}),
        (lambda: [1, 2], lambda: (1, 2)),
        (lambda: int("x"), lambda: raising(ValueError)),
        (lambda: raising(UnicodeError), lambda: raising(ValueError)),
    ],
)
def test_an_equal_rewrite_passes(answer, right):
    """A right answer that is refused for the library that it was written with."""
    exercise = toy(
        reference=right, examples=[()], random_inputs=lambda generator: (), gradient=False, misconceptions=[]
    )
    assert diagnose(exercise, answer).passed


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (lambda: True, lambda: 1.0),
        (lambda: "1", lambda: 1),
        (lambda: raising(ValueError), lambda: raising(UnicodeError)),
        (lambda: raising(OutOfTimeError), lambda: raising(ValueError)),
        (lambda: {"a": 1, "b": 2}, lambda: {"a": 1}),
        (lambda: torch.tensor([[1.0, 2.0]]), lambda: (1.0, 2.0)),
    ],
)
def test_what_is_only_like_it_does_not_pass(answer, right):
    """Everything equal to everything, to be kind."""
    exercise = toy(
        reference=right, examples=[()], random_inputs=lambda generator: (), gradient=False, misconceptions=[]
    )
    assert not diagnose(exercise, answer).passed


def raising(error):
    raise error


def test_of_a_long_tensor_the_element_that_differs_is_shown():
    """Two shapes that are the same, and no word on what is not."""
    exercise = toy(examples=[(torch.zeros(100), torch.zeros(100))])
    found = repr(diagnose(exercise, lambda x, y: 2 * x + 3 * (torch.arange(len(x)) == 41)))
    assert "yours: 3.0 at 41" in found
    assert "ours:  0.0 at 41" in found


@pytest.mark.slow
def test_the_stop_button_ends_an_endless_answer_at_once():
    """A stop that is taken for the answer's own error, while its thread runs on."""
    source = (
        "import _thread, signal, threading, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what is started in the background ignores it
        "from kdcourse.course.exercises import calling\n"
        "def endless():\n    while True:\n        pass\n"
        "calling.run(lambda: 1, (), False)\n"
        "threading.Timer(0.3, _thread.interrupt_main).start()\n"
        "started = time.monotonic()\n"
        "try:\n    calling.run(endless, (), False)\n"
        "except KeyboardInterrupt:\n    print(time.monotonic() - started, threading.active_count())\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=True)
    seconds, threads = map(float, done.stdout.split())
    assert seconds < 0.8
    assert threads <= 2
