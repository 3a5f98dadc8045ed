"""Diagnoses that no catalogue knows, and the runs that they are made of."""

import re

import numpy as np
import pytest

from kdcourse.course.exercises import find_exercise, material
from kdcourse.course.exercises.diagnosis import diagnose

FAULT = find_exercise("04.fault")
RUNS = material("04.fault")


def column(log, name):
    return np.array([line[name] for line in log])


def with_a_table(log):
    """The same signs in another order, and each read from another place of the log."""
    loss, hard, soft, right = (column(log, name) for name in ("loss", "hard_loss", "soft_loss", "eval_accuracy"))
    signs = {
        "student is its own teacher": soft.max() == 0,
        "learning rate too high": loss[-1] > loss[0],
        "alpha turned round": np.allclose(loss, 0.7 * hard + 0.3 * soft),
        "labels shuffled": hard[-1] > 2,
        "teacher never loaded": right[-1] < 0.7,
        "T squared missing": soft[0] < 1,
        "hard term softened": hard[1] > 0.9,
    }
    return next((name for name, shown in signs.items() if shown), "healthy")


def features(log):
    loss, hard, soft, right = (column(log, name) for name in ("loss", "hard_loss", "soft_loss", "eval_accuracy"))
    turned = np.abs(loss - 0.7 * hard - 0.3 * soft).max() < 1e-3
    parts = [hard[-1], np.log(soft[0] + 1e-3), np.log(soft[-1] + 1e-3) / 2, 2 * right[-1], hard[1], 3 * turned]
    return np.array(parts, dtype=float)


def nearest_of_those_that_i_played(log):
    known = [(fault, features(RUNS.play(fault, seed))) for fault in RUNS.FAULTS for seed in range(8)]
    return min(known, key=lambda each: np.linalg.norm(each[1] - features(log)))[0]


def instead(fault, name):
    return lambda log: name if with_a_table(log) == fault else with_a_table(log)


@pytest.mark.parametrize("answer", [with_a_table, lambda log: np.str_(with_a_table(log))])
def test_other_signs_are_as_good(answer):
    """An exercise that asks for our thresholds."""
    assert diagnose(FAULT, answer).passed


@pytest.mark.slow
def test_whoever_compares_with_runs_of_known_faults_passes():
    """Runs so unlike each other that nothing can be learned from those that one may play with."""
    assert diagnose(FAULT, nearest_of_those_that_i_played).passed


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (instead("alpha turned round", "healthy"), "misconception", "Do the sum"),
        (instead("T squared missing", "healthy"), "misconception", "a sixteenth"),
        (
            instead("learning rate too high", "teacher never loaded"),
            "different",
            r"taken for 'teacher never loaded'",
        ),
        (instead("labels shuffled", "hard term softened"), "different", "[0-9]+ of [0-9]+ runs .* 90% are asked for"),
        (lambda log: "healthy", "different", "T squared missing: +0 of"),
        (lambda log: with_a_table(log[1:]), "different", r"healthy: +\d of \d+ named; taken for 'T squared"),
        (lambda log: "T² missing", "error", "'T² missing', which is none of 'healthy', 'alpha turned round'"),
        (lambda log: log[-1]["accuracy"], "error", "KeyError: 'accuracy'"),
        (lambda log: {"healthy"}, "error", "which is none of"),
        (lambda log: log["loss"], "error", r"(?s)TypeError: list indices.*line: .*log\[.loss"),
    ],
)
def test_a_diagnosis_that_is_nearly_right_is_told_what_it_takes_for_what(answer, kind, words):
    """Wrong, without a word on which runs."""
    found = diagnose(FAULT, answer)
    assert found.kind == kind, found
    assert re.search(words, repr(found)), repr(found)


def test_a_run_is_the_same_whenever_it_is_played_and_nobody_can_spoil_it():
    """An answer that changes a log, and all that come after it; a fault that is another tomorrow."""
    RUNS.play("healthy", 0)[0]["loss"] = np.nan
    assert RUNS.play("healthy", 0) == RUNS.play("healthy", 0)
    assert not np.isnan(column(RUNS.play("healthy", 0), "loss")).any()
    assert RUNS.play("healthy", 0) != RUNS.play("healthy", 1)
    with pytest.raises(ValueError, match="no fault 'T² missing'; there are 'healthy'"):
        RUNS.play("T² missing", 0)


def test_a_mystery_has_one_of_the_faults_and_the_same_each_time():
    """A mystery that says which it is, or is another for each reader."""
    assert RUNS.mystery(1) == RUNS.mystery(1)
    assert len({with_a_table(RUNS.mystery(number)) for number in range(12)}) > 4


def test_a_sound_run_is_the_mixture_that_it_says_and_starts_where_arithmetic_puts_it():
    """Logs that teach a sum which does not come out."""
    for seed in range(5):
        log = RUNS.play("healthy", seed)
        assert [line["step"] for line in log] == list(range(0, 101, 10))
        assert np.allclose(column(log, "loss"), 0.3 * column(log, "hard_loss") + 0.7 * column(log, "soft_loss"))
        assert log[0]["hard_loss"] == pytest.approx(np.log(5), abs=1e-6)
        missing = RUNS.play("T squared missing", seed)
        assert missing[0]["soft_loss"] == pytest.approx(log[0]["soft_loss"] / 16)
        assert log[-1]["loss"] < 0.2 * log[0]["loss"]
