"""Designs for 07.decide that no catalogue knows, and the numbers that its messages tell."""

import re
from statistics import mean

import pytest
import scipy.stats

from kdcourse.course.exercises import find_exercise, material
from kdcourse.course.exercises.diagnosis import diagnose

DECIDE = find_exercise("07.decide")
TEMPERATURES = ["T = 1", "T = 2", "T = 4", "T = 8"]


def gains(run, arm, seeds):
    return [run(arm, seed)["test"] - run("labels", seed)["test"] for seed in seeds]


def best_of_one_seed(run):
    return max(TEMPERATURES, key=lambda arm: run(arm, 0)["validation"])


def more_to_judge(run, budget):
    found = gains(run, best_of_one_seed(run), range(10, 20))
    return scipy.stats.ttest_1samp(found, 0, alternative="greater").pvalue < 0.05


def by_ranks(run, budget):
    found = gains(run, best_of_one_seed(run), range(10, 20))
    return bool(scipy.stats.wilcoxon(found, alternative="greater").pvalue < 0.05)


def two_sided(run, budget):
    found = scipy.stats.ttest_1samp(gains(run, best_of_one_seed(run), range(10, 20)), 0)
    return found.pvalue < 0.05 and found.statistic > 0


def a_tenth_of_a_point(run, budget):
    return mean(gains(run, best_of_one_seed(run), range(10, 20))) > 0.1


def four_times_stricter(run, budget):
    found = [scipy.stats.ttest_1samp(gains(run, arm, range(4)), 0, alternative="greater") for arm in TEMPERATURES]
    return min(each.pvalue for each in found) < 0.05 / 4


def luckiest_seed_of_labels_against_the_worst(run, budget):
    return min(run("T = 2", seed)["test"] for seed in range(12)) > max(
        run("labels", seed)["test"] for seed in range(12)
    )


@pytest.mark.slow
@pytest.mark.parametrize("design", [more_to_judge, by_ranks, two_sided], ids=lambda design: design.__name__)
def test_another_sound_design_passes(design):
    """A design that is refused for its test, or for how it shares its budget out."""
    assert diagnose(DECIDE, design).passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "words"),
    [
        (a_tenth_of_a_point, "differences that are not there"),
        (four_times_stricter, "misses too many"),
        (luckiest_seed_of_labels_against_the_worst, "misses too many"),
    ],
    ids=lambda part: getattr(part, "__name__", None),
)
def test_a_weak_design_is_told_what_it_does(design, words):
    """A design of which nobody learns whether it sees too much or too little."""
    found = diagnose(DECIDE, design)
    assert found.kind == "different", found
    assert re.search(words, found.message), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "alarms"),
    [("one-seed", 0.68), ("best-run", 0.82), ("any-of-four", 0.16), ("no-spread", 0.55), ("unpaired", 0.0)],
)
def test_the_messages_tell_the_false_alarms_as_they_are(name, alarms):
    """Two worlds of three that are one of two."""
    mistake = next(each for each in DECIDE.misconceptions if each.name == name)
    decisions = DECIDE.observe(mistake.wrong).behaviour
    assert mean(decisions[: len(decisions) // 2]) == pytest.approx(alarms, abs=0.01)


def test_pairing_finds_what_its_message_says():
    """A reason to subtract seed by seed that is none."""
    unpaired = next(each for each in DECIDE.misconceptions if each.name == "unpaired")
    found = [DECIDE.observe(design).behaviour for design in (unpaired.wrong, DECIDE.reference)]
    assert [mean(each[len(each) // 2 :]) for each in found] == [
        pytest.approx(0.52, abs=0.01),
        pytest.approx(0.84, abs=0.01),
    ]


def test_an_arm_that_there_is_not_is_named():
    """A KeyError in the middle of a design."""
    with pytest.raises(ValueError, match="no arm 'T = 3'; there are 'labels', 'T = 1'"):
        material("07.decide")(seed=0, differs=True)("T = 3", 0)
