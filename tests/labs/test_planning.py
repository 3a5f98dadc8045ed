"""What a comparison can show for its price: held against worlds in which the truth is known."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from kdcourse.labs import planning, verdict
from kdcourse.labs.planning import Spread, cautious, detectable, floor, plan, power_of, spread_of
from kdcourse.labs.verdict import compare_paired, holm

WORLDS = 1500


def within_luck(found, worlds, expected):
    """Inside the range that holds 99.9% of what chance gives."""
    low, high = binom.interval(0.999, worlds, expected)
    return low <= found <= high


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 12])
def test_a_planned_difference_is_found_as_often_as_was_planned(seeds, alpha):
    """A plan by the normal distribution, which promises 80% and keeps 40% with a handful of seeds."""
    size = detectable(seeds, Spread(0.7), alpha=alpha)
    random = np.random.default_rng(seeds)
    baseline = random.normal(size=(WORLDS, seeds))  # luck that both arms of a seed share
    noise = random.normal(scale=0.7, size=(WORLDS, seeds))
    for difference, expected in ((size, 0.8), (0.0, alpha)):
        found = sum(
            compare_paired(before, before + difference + luck, 1 - alpha).word != "no difference shown"
            for before, luck in zip(baseline, noise, strict=True)
        )
        assert within_luck(found, WORLDS, expected), (difference, found / WORLDS)


def test_examples_and_seeds_are_both_planned_for(monkeypatch):
    """A plan over seeds alone, whose finding is gone with other test examples; or one that is far too dear."""
    monkeypatch.setattr(verdict, "DRAWS", 1000)
    seeds, examples, worlds = 8, 60, 250
    of_seed, of_example, of_both = 0.3, 2.0, 1.0
    spread = Spread(math.sqrt(of_seed**2 + of_both**2 / examples), of_example)
    size = detectable(seeds, spread, examples)
    random = np.random.default_rng(3)
    found = {0.0: 0, size: 0}
    for _ in range(worlds):
        luck = (
            of_seed * random.normal(size=(seeds, 1))
            + of_example * random.normal(size=(1, examples))
            + of_both * random.normal(size=(seeds, examples))
        )
        for difference in found:
            seen = compare_paired(np.zeros_like(luck), luck + difference)
            found[difference] += seen.word != "no difference shown"
    assert found[0.0] <= binom.isf(0.001, worlds, 0.05)
    assert found[size] >= binom.ppf(0.001, worlds, 0.8)
    assert found[size] <= 0.95 * worlds


def test_a_family_of_arms_raises_hardly_a_false_alarm():
    """Six arms at 5% each, one of which is better in a world of four."""
    arms, seeds, worlds = 6, 10, 800
    planned = plan(arms * seeds, 1.0, 1.0, difference=9.0, arms=arms)
    assert (planned.seeds, planned.comparisons) == (seeds, arms - 1)
    random, alarms, hits = np.random.default_rng(8), 0, 0
    for _ in range(worlds):
        scores = random.normal(scale=math.sqrt(0.5), size=(arms, seeds))  # differences of two have a spread of 1
        better = scores[1] + planned.detectable
        p_values = [compare_paired(scores[0], other).p for other in scores[1:]]
        alarms += min(holm(p_values)) <= 0.05
        hits += holm([compare_paired(scores[0], better).p, *p_values[1:]])[0] <= 0.05
    assert alarms <= binom.isf(0.001, worlds, 0.05)
    assert hits >= binom.ppf(0.001, worlds, 0.8)


def test_power_is_that_of_a_published_table():
    """A formula that is off by a factor: 34 pairs find half a standard deviation, 15 find 0.8 (Cohen 1988, G*Power)."""
    for pairs, effect in ((34, 0.5), (15, 0.8)):
        assert power_of(effect, pairs, Spread(1.0)) > 0.8 > power_of(effect, pairs - 1, Spread(1.0))


def test_the_spread_of_a_pilot_is_taken_apart():
    """Examples that look uneven because few seeds looked at them."""
    random = np.random.default_rng(1)
    seeds, examples = 40, 3000
    luck = (
        0.1 * random.normal(size=(seeds, 1))
        + 0.3 * random.normal(size=(1, examples))
        + 2.0 * random.normal(size=(seeds, examples))
    )
    found = spread_of(np.zeros_like(luck), luck)
    assert found.seed_sd == pytest.approx(math.hypot(0.1, 2 / math.sqrt(examples)), rel=0.35)
    assert found.example_sd == pytest.approx(0.3, rel=0.15)
    assert luck.mean(axis=0).std() > 0.4  # what it would be without
    for shape in ((1, 5), (5, 1), (5,)):
        with pytest.raises(ValueError, match="same seeds and examples"):
            spread_of(np.zeros(shape), np.zeros(shape))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        spread_of(np.zeros((2, 3)), np.zeros((2, 4)))


def test_a_cautious_spread_covers_the_true_one():
    """A plan that relies on a spread which five seeds happened to show."""
    random = np.random.default_rng(2)
    covered = sum(cautious(random.normal(size=5).std(ddof=1), 5) >= 1 for _ in range(WORLDS))
    assert within_luck(covered, WORLDS, 0.8)
    with pytest.raises(ValueError, match="1 seeds has no spread"):
        cautious(1.0, 1)


def test_no_seeds_help_below_the_floor():
    """A budget that is asked for in vain."""
    spread = Spread(1.0, 0.5)
    lowest = floor(spread, 400)
    assert lowest == pytest.approx((1.959964 + 0.841621) * 0.5 / 20, rel=1e-5)
    assert lowest < detectable(20_000, spread, 400) < 1.05 * lowest
    assert floor(spread, None) == 0
    hopeless = plan(1e6, 1.0, 1.0, 0.9 * lowest, examples=400, example_sd=0.5)
    assert (hopeless.needed_seeds, hopeless.needed_seconds, hopeless.most_arms) == (None, math.inf, 0)
    assert "cannot be shown with any budget" in str(hopeless)
    assert "Get more of them" in str(hopeless)


def test_a_plan_spends_its_budget_and_no_more():
    """Tuning that is paid by nobody; a seed that is half paid."""
    found = plan(100, 2.0, 1.0, 1.0, arms=3, tuning_runs=6)
    assert found.seeds == 10
    assert found.detectable == pytest.approx(detectable(10, Spread(1.0), alpha=0.025))
    enough = plan(3 * (6 + found.needed_seeds) * 2.0, 2.0, 1.0, 1.0, arms=3, tuning_runs=6)
    assert enough.needed_seeds == enough.seeds == found.needed_seeds
    assert found.needed_seconds == 3 * (6 + found.needed_seeds) * 2
    assert enough.is_enough
    assert not plan(found.needed_seconds - 1, 2.0, 1.0, 1.0, arms=3, tuning_runs=6).is_enough
    assert not found.is_enough
    assert "it needs" in str(found)
    more = plan(100, 2.0, 1.0, 1.0, arms=found.most_arms, tuning_runs=6) if found.most_arms else None
    assert more is None or more.is_enough
    assert not plan(100, 2.0, 1.0, 1.0, arms=(found.most_arms or 1) + 1, tuning_runs=6).is_enough


def test_a_budget_of_one_seed_shows_nothing():
    """A plan that divides by zero, or promises something."""
    found = plan(3, 1.0, 1.0, 1.0)
    assert (found.seeds, found.detectable) == (0, math.inf)
    assert not found.is_enough
    assert str(found).startswith("2 arms × 0 seeds, 1 comparison: finds nothing. 1 cannot be shown: it needs")


def test_arms_that_are_one_and_the_same_differ_in_nothing():
    """A spread of zero that stops a plan."""
    assert detectable(5, Spread(0.0)) == 0
    assert power_of(0.1, 5, Spread(0.0)) == 1
    assert power_of(0.0, 5, Spread(0.0)) == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"budget_seconds": -1}, "budget_seconds is -1"),
        ({"seconds_per_run": 0}, "a run takes some time"),
        ({"seed_sd": float("nan")}, "seed_sd is nan"),
        ({"difference": -0.1}, "difference is -0.1"),
        ({"arms": 1}, "two sides"),
        ({"alpha": 0}, "alpha is 0"),
        ({"power": 80}, "power is 80"),
    ],
)
def test_what_is_no_plan_is_refused(wrong, words):
    """A power of 80 for 80%, and a plan that nobody can read."""
    with pytest.raises(ValueError, match=words):
        plan(**{"budget_seconds": 100, "seconds_per_run": 1, "seed_sd": 1, "difference": 1} | wrong)


def test_more_of_anything_is_never_worse():
    """Seeds that raise what can be found, so that the search for the fewest goes astray."""
    spread = Spread(1.0, 0.4)
    found = [detectable(seeds, spread, 500, alpha=0.01) for seeds in range(2, 60)]
    assert found == sorted(found, reverse=True)
    assert planning.LARGEST > 60
