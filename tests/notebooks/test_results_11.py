"""The page of results says of lab 11 what was stored, computed again from which pictures each student got wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from kdcourse.labs.lab11 import RESULTS as STORED
from kdcourse.labs.lab11_pictures import RESULTS as OF_PICTURES

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Lab 11")[2].partition("\n## ")[0]
SAID = " ".join(SECTION.split())
ARMS = {
    "800 units, labels": "plain", "800 units, taught": "distilled", "300 units, labels": "plain, small",
    "300 units, taught at T = 20": "T = 20, small", "30 units, labels": "plain, tiny",
    "30 units, taught at T = 20": "T = 20, tiny", "30 units, taught at T = 2.5": "T = 2.5, tiny",
    "800 units, labels, jittered pictures": "plain, jittered",
    "800 units, taught, jittered pictures": "distilled, jittered",
    "800 units, labels, four times the steps": "plain, four times the steps",
    "800 units, taught, four times the steps": "distilled, four times the steps",
    "3% of the pictures, labels": "plain, 3%", "3% of the pictures, taught": "distilled, 3%",
}  # fmt: skip
READINGS = {"": "as it is", ", corrected by the test pictures": "by the test pictures",
            ", corrected by other pictures": "by other pictures"}  # fmt: skip


@pytest.fixture(scope="module")
def stored():
    return json.loads(STORED.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def of_pictures():
    return json.loads(OF_PICTURES.read_text(encoding="utf-8"))


def rows():
    fields = [[field.strip() for field in line.strip("| ").split("|")] for line in SECTION.splitlines() if "|" in line]
    return {name: others for name, *others in fields if re.search(r"\d", "".join(others))}


def of_seeds(values, digits=0):
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def count(wrong):
    return [len(seed) for seed in wrong]


def test_errors_are_those_of_the_full_run(stored):
    """Results of an older run, the best seed where the mean belongs, a row under the name of another."""
    table = rows()
    assert table["teacher"] == ["67", str(len(stored["teacher"]))]
    for words, arm in ARMS.items():
        assert table[words][1] == of_seeds(count(stored["arms"][arm])), words
    assert [table[words][0] for words in ("800 units, labels", "800 units, taught")] == ["146", "74"]


def test_what_a_bias_corrects_is_told_in_all_three_readings(stored):
    """A correction by the test pictures that passes for one that other pictures have chosen."""
    table, pictures = rows(), sum(stored["labels"])
    for words, reading in READINGS.items():
        for arm, told in (("no threes", "taught, no threes"), ("plain, no threes", "labels, no threes")):
            judged = stored["corrected"][arm]
            both = [of_seeds([seed[key] for seed in judged]) for key in (reading, f"{reading}, of its own")]
            assert table[told + words][1] == ", ".join(both), told + words
        share = [100 * seed[reading] / pictures for seed in stored["corrected"]["only 7s and 8s"]]
        assert table["only 7s and 8s, %" + words][1] == of_seeds(share, 1)


def test_the_gain_comes_out_again_by_force(stored):
    """A gain that was rounded up on its way to the page, or an interval over one of two sources of chance."""
    pictures = sum(stored["labels"])

    def right(arm):
        answers = np.ones((len(stored["arms"][arm]), pictures))
        for row, wrong in zip(answers, stored["arms"][arm], strict=True):
            row[[index for index, _ in wrong]] = 0
        return answers

    gains, random = 100 * (right("distilled") - right("plain")), np.random.default_rng(3)
    seeds = len(gains)
    drawn = [
        gains[random.integers(seeds, size=seeds)].mean(axis=0)[random.integers(pictures, size=pictures)].mean()
        for _ in range(3000)
    ]
    student = scipy.stats.t.interval(0.95, seeds - 1, gains.mean(), scipy.stats.sem(gains.mean(axis=1)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    said = re.search(r"A teacher gains (-?\d+\.\d+) points \(95% interval (-?\d+\.\d+) to (-?\d+\.\d+)\)", SAID)
    expected = [gains.mean(), min(low, student[0]), max(high, student[1])]
    assert [float(number) for number in said.groups()] == pytest.approx(expected, abs=0.12 if pictures < 1000 else 0.03)


def test_pictures_that_move_layers_and_teachers(of_pictures):
    """Numbers of a run before the last."""
    table, arms = rows(), of_pictures["arms"]
    for name, judged in arms.items():
        assert table[name] == [of_seeds(count(judged[judge])) for judge in ("as they are", "shifted")], name
    assert f"{of_pictures['apart']['KL, nats']:.2f} nats" in SAID
    mixed = of_pictures["teachers"]
    assert f"{mixed['probabilities']} errors as probabilities, {mixed['logits']} as logits" in SAID


def test_the_experiments_are_described_as_they_were_made(stored, of_pictures):
    """Minutes of another machine, versions of last year, three seeds that were five."""
    plan = stored["plan"]
    assert f"{plan['seeds']} seeds" in SAID
    assert f"{sum(stored['labels']):,} test pictures" in SAID
    assert f"{plan['held_out']:,} pictures that are held out" in SAID
    for results in (stored, of_pictures):
        assert f"{results['minutes']:.0f} minutes of one core" in SAID
        for name, version in results["versions"].items():
            assert f"{name} {version}" in SAID
