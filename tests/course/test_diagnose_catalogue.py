"""`kdcourse diagnose` knows every mistake that the exercises know, whatever the loss that makes it looks like.

KDCOURSE_DEEP=1 (`make test-deep`) gives each mistake three signatures, anew in each run; otherwise each has one, and
the quick tests take a sample.
"""

import os
import random

import pytest
from catalogue_losses import NO_LOSSES, NOT_OF_THE_LOSS, RESTATED, SAID, foreign, mistakes_of, right_of

from kdcourse.course.diagnose import diagnose_loss
from kdcourse.course.exercises import all_exercises

DEEP = bool(os.environ.get("KDCOURSE_DEEP"))
SIGNATURES = 3 if DEEP else 1
IN_THE_SAMPLE = 7
"""One of so many mistakes is tried by the quick tests."""
EXERCISES = {name: exercise for name, exercise in all_exercises().items() if name in SAID}
MISTAKES = [(name, mistake) for name in EXERCISES for mistake in SAID[name]]
OF_LISTS = {"gradient", "extreme_logits"}
"""What is wrong with any loss of lists of probabilities: floats have no graph, and exp(-1000) is 0."""


def sampled(cases):
    return [
        case if DEEP or place % IN_THE_SAMPLE == 0 else pytest.param(*case, marks=pytest.mark.slow)
        for place, case in enumerate(cases)
    ]


def drawn(*what):
    """A generator; the same one in each run, but for the deep ones."""
    return random.Random(None if DEEP else "/".join(what))


def test_each_exercise_is_a_loss_or_there_is_a_reason():
    """A new exercise whose mistakes nobody holds against the diagnosis."""
    assert {*SAID} & {*NO_LOSSES} == set()
    missing = all_exercises().keys() - SAID.keys() - NO_LOSSES.keys()
    assert missing == set(), "these belong into SAID or NO_LOSSES of catalogue_losses.py"


@pytest.mark.parametrize("name", EXERCISES)
def test_each_mistake_has_its_answer_or_there_is_a_reason(name):
    """A new misconception that the diagnosis need not know."""
    beside = {mistake for exercise, mistake in NOT_OF_THE_LOSS if exercise == name}
    assert SAID[name].keys() ^ beside == mistakes_of(EXERCISES[name]).keys()


@pytest.mark.parametrize(("name", "mistake"), sampled(MISTAKES))
def test_each_mistake_is_named_in_any_signature(name, mistake):
    """A mistake that is known under the names of the course alone."""
    question, answer = SAID[name][mistake]
    own = mistakes_of(EXERCISES[name])[mistake]
    for turn in range(SIGNATURES):
        loss = foreign(name, mistake, own, drawn(name, mistake, str(turn)))
        assert diagnose_loss(loss).get(question) == answer, loss.__name__


@pytest.mark.slow
@pytest.mark.parametrize("name", EXERCISES)
def test_the_right_answer_is_told_nothing_wrong(name):
    """An answer that is said of everything, and so names nothing; a false alarm."""
    loss = foreign(name, "", right_of(EXERCISES[name]), drawn(name))
    report = diagnose_loss(loss)
    of_lists = OF_LISTS if name in ("00.one_sentence", "01.witness", "06.witness") else set()
    assert {finding.question for finding in report.problems} <= of_lists, loss.__name__
    own_names = {mistake: said for mistake, said in SAID[name].items() if (name, mistake) not in RESTATED}
    assert [mistake for mistake, (question, answer) in own_names.items() if report.get(question) == answer] == []
