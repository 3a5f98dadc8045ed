"""Answers to 12.unfair and 12.decide that no catalogue knows, and what the logs and worlds of both are made of."""

from collections import Counter
from statistics import mean

import numpy as np
import pytest
import scipy.stats

from kdcourse.course.exercises import find_exercise, material
from kdcourse.course.exercises.diagnosis import diagnose

UNFAIR, DECIDE = find_exercise("12.unfair"), find_exercise("12.decide")
LOGS = material("12.unfair")


def by_a_table(log):
    """From the report to the runs, not from the runs to the report."""
    arms = {}
    for arm, said in log["report"].items():
        runs = [run for run in log["runs"] if run["arm"] == arm]
        tried = {}
        for run in runs:
            if run["seed"] >= 100:
                tried.setdefault(run["rate"], []).append(run["validation"])
        arms[arm] = {
            "tries": Counter(len(scores) for scores in tried.values()),
            "followed": max(tried.items(), key=lambda item: mean(item[1]))[0] == said["rate"],
            "steps": sorted({run["steps"] for run in runs}),
            "whole": {run["seed"] for run in runs if run["seed"] < 100} == set(said["seeds"]),
            "clean": not any(row in log["test rows"] for run in runs for row in run["rows"]),
        }
    labels, distilled = arms["labels"], arms["distilled"]
    signs = {
        "more tries": labels["tries"] != distilled["tries"],
        "more steps": labels["steps"] != distilled["steps"],
        "chosen on test": not (labels["followed"] and distilled["followed"]),
        "seeds left out": not (labels["whole"] and distilled["whole"]),
        "test rows learned": not (labels["clean"] and distilled["clean"]),
    }
    return next((name for name, shown in signs.items() if shown), "fair")


def test_another_way_to_look_is_as_good():
    """An exercise that asks for our order of questions."""
    assert diagnose(UNFAIR, by_a_table).passed


def test_no_log_shows_that_the_method_is_better():
    """An exercise that is solved by the scores alone."""
    gains = {fault: [] for fault in LOGS.FAULTS}
    for fault in LOGS.FAULTS:
        for seed in range(200, 260):
            runs = [run for run in LOGS.play(fault, seed)["runs"] if run["seed"] < 100]
            scores = {arm: mean(run["test"] for run in runs if run["arm"] == arm) for arm in LOGS.ARMS}
            gains[fault].append(scores["distilled"] - scores["labels"])
    assert all(abs(mean(each)) < 0.3 for each in gains.values()), gains


def test_a_log_is_the_same_when_it_is_asked_for_again():
    """A log that changes under the eyes of whoever studies it; one that a learner's changes spoil."""
    first = LOGS.play("fair", 3)
    first["runs"].clear()
    assert LOGS.play("fair", 3) == LOGS.play("fair", 3)
    assert LOGS.play("fair", 3)["runs"]
    assert by_a_table(LOGS.mystery(2)) in LOGS.FAULTS
    assert len({by_a_table(LOGS.mystery(number)) for number in range(30)}) == len(LOGS.FAULTS)
    with pytest.raises(ValueError, match="no fault 'unlucky'"):
        LOGS.play("unlucky", 0)


def table(run, budget):
    """Seeds × examples."""
    return np.stack([run("distilled", seed) * 1.0 - run("labels", seed) for seed in range(budget // 2)])


def interval_of_95(run, budget):
    """Two-sided, with what is peculiar to one seed and one example taken out of the sum."""
    gains = table(run, budget)
    rows, columns = gains.mean(axis=1), gains.mean(axis=0)
    rest = gains - rows[:, None] - columns + gains.mean()
    twice = (rest**2).sum() / (len(rows) - 1) / (len(columns) - 1) / gains.size
    parts = rows.var(ddof=1) / len(rows), columns.var(ddof=1) / len(columns)
    error = max(sum(parts) - twice, *parts) ** 0.5
    return bool(scipy.stats.t(len(rows) - 1, gains.mean(), error).ppf(0.025) > 0)


def resampled(gains, seeds, examples):
    """A bootstrap, one-sided at 95%: 400 tables of seeds and examples that are drawn anew, or of either alone."""
    generator = np.random.default_rng(0)
    counts = []
    for size, drawn in zip(gains.shape, (seeds, examples), strict=True):
        even = np.ones((400, size))
        counts.append(generator.multinomial(size, np.full(size, 1 / size), size=400) if drawn else even)
    means = ((counts[0] @ gains) * counts[1]).sum(axis=1) / gains.size
    return bool(np.quantile(means, 0.05) > 0)


def half_of_the_budget(run, budget):
    return DECIDE.reference(run, budget // 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer", [interval_of_95, lambda run, budget: resampled(table(run, budget), seeds=True, examples=True)],
    ids=["two-sided", "one-sided"],
)  # fmt: skip
def test_another_sound_design_passes(answer):
    """A design that is refused for its test, or for its caution."""
    found = diagnose(DECIDE, answer)
    assert found.passed, found


@pytest.mark.slow
@pytest.mark.parametrize("of", ["seeds", "examples"])
def test_a_design_that_covers_seeds_or_examples_alone_is_refused(of):
    """A solution to half of the question: other seeds, or other examples, and not both."""
    drawn = {"seeds": False, "examples": False} | {of: True}
    found = diagnose(DECIDE, lambda run, budget: resampled(table(run, budget), **drawn))
    assert not found.passed, found
    assert "differences that are not there" in repr(found) or of in found.misconception


@pytest.mark.slow
def test_a_design_that_saves_at_the_wrong_end_is_told():
    """A design of which nobody learns that it misses too much."""
    found = diagnose(DECIDE, half_of_the_budget)
    assert (found.kind, "misses too many" in found.message) == ("different", True), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "alarms", "found"),
    [("seeds-alone", 0.13, 0.94), ("examples-alone", 0.12, 0.96), ("pooled", 0.28, 1.0), ("unpaired", 0.0, 0.52)],
)
def test_the_messages_tell_alarms_and_power_as_they_are(name, alarms, found):
    """One world of four that is one of twenty."""
    (mistake,) = [each for each in DECIDE.misconceptions if each.name == name]
    decisions = DECIDE.observe(mistake.wrong).behaviour
    half = len(decisions) // 2
    assert mean(decisions[:half]) == pytest.approx(alarms, abs=0.01)
    assert mean(decisions[half:]) == pytest.approx(found, abs=0.01)
    sound = DECIDE.observe(DECIDE.reference).behaviour
    assert mean(sound[half:]) == pytest.approx(0.84, abs=0.01)


def test_an_arm_that_there_is_not_is_named():
    """A KeyError in the middle of a design."""
    with pytest.raises(ValueError, match="no arm 'T = 3'; there are 'labels', 'distilled'"):
        material("12.decide")(seed=0, differs=True)("T = 3", 0)
