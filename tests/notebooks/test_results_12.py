"""The page of results says of lesson 12 what was stored, computed again from the bits of each student's answers."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from kdcourse.labs.lab12 import COMPARISONS, Results
from kdcourse.labs.lab12 import RESULTS as STORED

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Lesson 12")[2].partition("\n## ")[0]
ROWS = {"digits": 997, "reviews": 1500}


@pytest.fixture(scope="module")
def stored():
    return json.loads(STORED.read_text(encoding="utf-8"))


def right(stored, task, arm):
    """(seeds, rows), 0 or 1."""
    bits = [base64.b64decode(packed) for packed in stored["right"][task][arm]]
    return np.array([[byte >> (7 - place) & 1 for byte in row for place in range(8)] for row in bits])[:, : ROWS[task]]


def gains(stored, comparison):
    """What the second has more, (seeds, rows)."""
    sides = []
    for side in (comparison.first, comparison.second):
        arms = [side] if isinstance(side, str) else side
        answers = [right(stored, comparison.task, arm).astype(float) for arm in arms]
        sides.append(answers[0] if isinstance(side, str) else answers[1] - answers[0])
    return 100 * (sides[1] - sides[0])


def interval_by_force(values, draws=700):
    """Seeds and rows drawn one by one, and never narrower than Student's."""
    random, (seeds, rows) = np.random.default_rng(11), values.shape
    drawn = [
        values[random.integers(seeds, size=seeds)].mean(axis=0)[random.integers(rows, size=rows)].mean()
        for _ in range(draws)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    student = scipy.stats.t.interval(0.95, seeds - 1, values.mean(), scipy.stats.sem(values.mean(axis=1)))
    return [min(low, student[0]), max(high, student[1])]


def table():
    fields = [[field.strip() for field in line.strip("| ").split("|")] for line in SECTION.splitlines() if "|" in line]
    return {(task, words): others for task, words, *others in fields[2:]}


def test_every_comparison_is_there_with_its_gain_and_interval(stored):
    """A table from which what showed nothing has been left out; a gain of an older run."""
    rows = table()
    assert list(rows) == [(each.task, each.words) for each in COMPARISONS]
    for comparison in COMPARISONS:
        values = gains(stored, comparison)
        points, interval, *_ = rows[comparison.task, comparison.words]
        assert points == f"{values.mean():+.1f}"
        ends = [float(end) for end in interval.split(" to ")]
        assert ends == pytest.approx(interval_by_force(values), abs=0.3), comparison.words


def test_p_values_are_adjusted_for_all_of_them():
    """A family that was made smaller after it was seen."""
    record, rows = Results.load(), table()
    p_values = [record.compare(each).p for each in COMPARISONS]
    ranked, adjusted, worst = sorted(range(len(p_values)), key=p_values.__getitem__), {}, 0.0
    for left, place in zip(range(len(p_values), 0, -1), ranked, strict=True):
        worst = max(worst, min(1.0, left * p_values[place]))
        adjusted[place] = worst
    for place, comparison in enumerate(COMPARISONS):
        _, _, p, word = rows[comparison.task, comparison.words]
        assert p == f"{adjusted[place]:.3f}"
        assert (word == "no difference shown") == (adjusted[place] >= 0.05)
    said = " ".join(SECTION.split())
    alone = sum(record.compare(each).word != "no difference shown" for each in COMPARISONS)
    shown = sum(p < 0.05 for p in adjusted.values())
    assert f"Of {len(COMPARISONS)} intervals {alone} leave zero out; after Holm {shown} are left" in said


def test_the_experiment_is_described_as_it_was_made(stored):
    """Minutes of another machine, versions of last year, twenty seeds that were ten."""
    said, plan = " ".join(SECTION.split()), stored["plan"]
    tries = 2 * 3 * len(plan["steps"])
    assert f"{plan['seeds']} seeds; {plan['tuning seeds']} others chose among {tries} settings" in said
    assert f"{stored['minutes']:.0f} minutes of one core" in said
    for name, version in stored["versions"].items():
        assert re.search(rf"{name} {re.escape(version)}(?!\d)", said)
