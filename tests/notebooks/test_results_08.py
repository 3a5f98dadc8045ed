"""The page of results says of lab 08 what was stored, computed again from what each text has cost each student."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from kdcourse.labs.lab08 import ARMS
from kdcourse.labs.lab08 import RESULTS as STORED

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Lab 08")[2].partition("\n## ")[0]
DOMAINS = ("test", "editorials", "products")

pytestmark = pytest.mark.skipif(not STORED.exists(), reason="lab 08 has not been run whole")


@pytest.fixture(scope="module")
def stored():
    return json.loads(STORED.read_text(encoding="utf-8"))


def rows():
    fields = [[field.strip() for field in line.strip("| ").split("|")] for line in SECTION.splitlines() if "|" in line]
    return {name: others for name, *others in fields[2:]}


def of_seeds(values, digits):
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def calibration_error(bins):
    tokens, confidence, right = np.array(bins).T
    return 100 * np.abs(confidence - right).sum() / tokens.sum()


def test_the_table_is_that_of_the_full_run(stored):
    """Results of an older run, the best seed where the mean belongs, a domain under the name of another."""
    table = rows()
    assert list(table) == ["teacher", "healed, where all begin", *(arm.words for arm in ARMS.values())]
    teacher = [f"{math.exp(np.mean(stored['teacher'][where]['loss'])):.1f}" for where in DOMAINS]
    error = f"{calibration_error(stored['teacher']['test']['bins']):.1f}"
    assert table["teacher"] == ["–", "–", *teacher, "–", error]
    models = {"healed, where all begin": stored["healed"]} | {
        ARMS[name].words: measured for name, measured in stored["arms"].items()
    }
    for words, measured in models.items():
        perplexities = [of_seeds([math.exp(np.mean(seed)) for seed in measured[where]["loss"]], 0) for where in DOMAINS]
        agreement = of_seeds([100 * np.mean(seed) for seed in measured["test"]["agrees"]], 1)
        calibration = of_seeds([calibration_error(seed) for seed in measured["test"]["bins"]], 1)
        assert table[words][2:] == [*perplexities, agreement, calibration], words


def test_rates_and_steps_are_those_that_validation_has_chosen(stored):
    """A rate that the test texts have chosen."""
    table = rows()
    for name, arm in ARMS.items():
        tried = {float(rate): loss for rate, loss in stored["trials"][name].items()}
        best = {min(seed, key=seed.get) for seed in stored["by_steps"][name]}
        assert table[arm.words][:2] == [f"{min(tried, key=tried.get):g}", ", ".join(sorted(best, key=int))]


def test_the_gain_comes_out_again_by_force(stored):
    """A gain that was rounded up on its way to the page, or an interval over one of two sources of chance."""
    before, after = (np.array(stored["arms"][name]["test"]["loss"]) for name in ("labels", "forward KL"))
    gains, random = before - after, np.random.default_rng(5)
    seeds, texts = gains.shape
    drawn = [
        gains[random.integers(seeds, size=seeds)].mean(axis=0)[random.integers(texts, size=texts)].mean()
        for _ in range(4000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    if seeds > 1:
        student = scipy.stats.t.interval(0.95, seeds - 1, gains.mean(), scipy.stats.sem(gains.mean(axis=1)))
        low, high = min(low, student[0]), max(high, student[1])
    said = re.search(
        r"(-?\d\.\d+) nats per token \(95% interval (-?\d\.\d+) to (-?\d\.\d+)\), (\d+)% less",
        " ".join(SECTION.split()),
    )
    assert [float(number) for number in said.groups()[:3]] == pytest.approx([gains.mean(), low, high], abs=0.01)
    assert int(said[4]) == round(100 * (1 - math.exp(-gains.mean())))


def test_the_experiment_is_described_as_it_was_made(stored):
    """Minutes of another machine, versions of last year, three seeds that were one."""
    said, plan = " ".join(SECTION.split()), stored["plan"]
    assert (
        f"{plan['steps']} steps of {plan['batch_size']} texts of {plan['length']} tokens; {plan['seeds']} seeds" in said
    )
    assert f"best of {len(plan['rates'])} learning rates" in said
    assert len(stored["by_steps"]["labels"]) == plan["seeds"]
    assert f"{sum(stored['minutes'].values()):.0f} minutes of one core" in said
    for name, version in stored["versions"].items():
        assert f"{name} {version}" in said
