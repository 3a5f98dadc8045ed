"""What the README and the page of results say is what lab 07 stored, computed again from each student's answers."""

import base64
import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import nbformat
import numpy as np
import pytest
import scipy.stats

from kdcourse.course.lessons import find_lessons
from kdcourse.labs.lab07 import ARMS, Results
from kdcourse.labs.lab07 import RESULTS as RESULTS_FILE

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")

LESSON_00 = RESULTS.partition("\n## Lesson 00")[2].partition("\n## ")[0]
LAB_07 = RESULTS.partition("\n## Lab 07")[2].partition("\n## ")[0]


def table_rows(text):
    """Each row of the tables in `text` that has numbers, by its first field."""
    rows = [[field.strip() for field in line.strip("| ").split("|")] for line in text.splitlines() if "|" in line]
    return {name: fields for name, *fields in rows if re.search(r"\d", "".join(fields))}


def drawn_by_force(first, second):
    """The difference in points with its interval, over seeds and sentences drawn one by one: nothing of `verdict`."""
    random, gains = np.random.default_rng(7), 100 * (second * 1.0 - first)
    seeds, sentences = gains.shape
    drawn = [
        gains[random.integers(seeds, size=seeds)].mean(axis=0)[random.integers(sentences, size=sentences)].mean()
        for _ in range(4000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    over_seeds = gains.mean(axis=1)
    student = scipy.stats.t.interval(0.95, seeds - 1, over_seeds.mean(), scipy.stats.sem(over_seeds))
    return gains.mean(), min(low, student[0]), max(high, student[1])


def right(arm, steps):
    """Which test sentences each seed got right, from the bits of the stored file."""
    stored = json.loads(RESULTS_FILE.read_text(encoding="utf-8"))
    name = arm if steps == stored["budget"]["steps"] else f"{arm}@{steps}"
    bits = [base64.b64decode(packed) for packed in stored["answers"][name]["test"]]
    return np.array([[byte >> (7 - place) & 1 for byte in row for place in range(8)] for row in bits])[:, :1500]


def interval_in(text, gain):
    """The ends of the interval that `text` gives behind a number of points."""
    found = re.search(rf"{gain} points \(95% interval (-?\d\.\d) to (-?\d\.\d)", text)
    assert found, gain
    return [float(end) for end in found.groups()]


HEADLINES = {
    "the gain": (("labels", 400), ("soft-20000", 1000)),
    "at equal steps": (("labels", 1000), ("soft-20000", 1000)),
    "softness, after 400 steps": (("people-hard-20000", 400), ("soft-20000", 400)),
    "softness, each at its best": (("people-hard-20000", 1000), ("soft-20000", 1000)),
}


@pytest.mark.parametrize("arms", HEADLINES.values(), ids=list(HEADLINES))
def test_every_headline_comes_out_again_by_force(arms):
    """A gain that was rounded up on its way to the page, or an interval over one of two sources of chance."""
    gain, *ends = drawn_by_force(*(right(*each) for each in arms))
    assert interval_in(" ".join(LAB_07.split()), f"{gain:.1f}") == pytest.approx(ends, abs=0.16)


def test_the_two_by_two_is_what_was_stored():
    """A table of lesson 00 with the numbers of another budget, or a half that gained something after all."""
    two_by_two, gains = table_rows(LESSON_00.partition("| against")[0]), table_rows(LESSON_00.partition("| against")[2])
    grid = {"hard": ("labels", "people-hard-20000"), "soft": ("soft", "soft-20000")}
    for kind, arms in grid.items():
        percent = [100 * right(arm, 400).mean(axis=1) for arm in arms]
        assert two_by_two[kind] == [f"{each.mean():.1f} ± {each.std(ddof=1):.1f}" for each in percent]
    assert list(gains) == [ARMS[arm] for arm in ("soft", "people-hard-20000", "soft-20000")]
    for arm, (points, interval) in zip(("soft", "people-hard-20000", "soft-20000"), gains.values(), strict=True):
        gain, *ends = drawn_by_force(right("labels", 400), right(arm, 400))
        assert points == f"{gain:+.1f}"
        assert [float(end) for end in interval.split(" to ")] == pytest.approx(ends, abs=0.16)
    family = [Results.load().compare("labels", arm, steps=400).p for arm in ("soft", "people-hard-20000", "soft-20000")]
    assert f"adjusted p-value of it would be {3 * min(family):.2f}" in " ".join(LESSON_00.split())


def test_the_table_of_the_lab_is_that_of_its_full_run():
    """Results of an older run, the best seed where the mean belongs, or steps that the test sentences chose."""
    results, rows = Results.load(), table_rows(LAB_07)
    assert list(rows) == ["teacher", *ARMS.values()]
    for arm, words in ARMS.items():
        assert rows[words] == [
            f"{results.best_steps(arm):,}",
            *(
                f"{factor * mean(scores):.{digits}f} ± {factor * stdev(scores):.{digits}f}"
                for factor, digits, scores in (
                    (100, 1, results.at_best(arm)),
                    (100, 1, results.at_best(arm, "agreement")),
                    (100, 1, results.at_best(arm, "calibration_error")),
                    (1, 2, results.at_best(arm, "rater_divergence")),
                )
            ),
        ]
    assert rows["teacher"][1] == f"{100 * results.teacher['test']['accuracy']:.1f}"


def test_what_the_lab_took_and_gained_is_that_of_its_full_run():
    """Minutes of another machine, versions of last year, a gain without its interval."""
    results, said_there = Results.load(), " ".join(LAB_07.split())
    for steps in (None, 1000):
        gain = results.compare("labels", "soft-20000", steps=steps)
        gap = results.teacher["test"]["accuracy"] - results.right_after(steps, "labels").mean()
        assert f"{100 * gain.difference:.1f} points {in_words(gain)}" in said_there
        assert f"{gain.difference / gap:.0%} of the gap" in said_there
    for steps in (400, None):
        softness = results.compare("people-hard-20000", "soft-20000", steps=steps)
        assert f"{100 * softness.difference:.1f} points {in_words(softness)}" in said_there
    assert f"{results.minutes:.0f} minutes of one core" in said_there
    for name, version in results.versions.items():
        assert f"{name} {version}" in said_there


def in_words(verdict):
    return f"(95% interval {100 * verdict.low:.1f} to {100 * verdict.high:.1f})"


def test_the_readme_has_the_fair_gain_and_its_cost():
    """The larger of two gains at the door, or a gain without what was paid for it."""
    results, door = Results.load(), " ".join(README.split())
    gain = results.compare("labels", "soft-20000")
    assert f"{100 * gain.difference:.1f} points {in_words(gain)[:-1]}, over seeds and test sentences)" in door
    assert "answers to 28,103 sentences, 20,000 of which nobody labelled" in door
    steps = [f"{results.best_steps(arm):,}" for arm in ("soft-20000", "labels")]
    assert f"{steps[0]} training steps instead of {steps[1]}" in door


MAP = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")


def test_the_map_leads_to_cells_that_exist():
    """A question that leads to a cell which was renamed; a question or a lesson that was forgotten."""
    numbers = defaultdict(set)
    section = ""
    for line in MAP.splitlines():
        section = line if line.startswith("## ") else section
        if found := re.search(r"\| \[\d\d\]\((\w+\.ipynb)\) \| (.*) \|$", line):
            notebook = nbformat.read(ROOT / "notebooks" / found[1], as_version=4)
            assert set(re.findall(r"`([\w-]+)`", found[2])) <= {cell.id for cell in notebook.cells}, line
            numbers[section] |= {int(number) for number in re.findall(r"^\| (\d+) \|", line)}
    people, more, practice, notes = numbers
    assert numbers[people] == set(range(1, 51))
    assert numbers[more] == set(range(1, 20))
    assert numbers[practice] == numbers[notes] == set()


@pytest.mark.parametrize("lesson", find_lessons([]), ids=lambda lesson: lesson.name)
def test_every_lesson_is_listed_with_its_question(lesson):
    """A lesson that nobody finds, or whose question has changed."""
    assert f"| [{lesson.title}](notebooks/{lesson.path.name}) | {lesson.question} |" in README
