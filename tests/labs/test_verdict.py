"""The verdict that closes each comparison."""

import re

import numpy as np
import pytest
import scipy.stats

from kdcourse.labs.verdict import Verdict, compare_paired, holm


def test_the_interval_is_students_t():
    """By hand: differences 1, 2, 3 have mean 2, deviation 1, and t(0.975, 2) = 4.303, so 2 ± 4.303 / √3."""
    verdict = compare_paired([10, 20, 30], [11, 22, 33])
    assert verdict.difference == pytest.approx(2)
    assert (verdict.low, verdict.high) == pytest.approx((2 - 2.4842, 2 + 2.4842), abs=1e-3)
    assert verdict.spread == pytest.approx(1)
    assert verdict.word == "no difference shown"


@pytest.mark.parametrize(("second", "word"), [([13, 23.1, 32.9], "better"), ([7, 16.9, 27.1], "worse")])
def test_a_clear_difference_has_a_direction(second, word):
    """The second series taken for the baseline."""
    assert compare_paired([10, 20, 30], second).word == word


@pytest.mark.parametrize(("first", "second"), [([1], [2]), ([1, 2], [1, 2, 3]), ([], [])])
def test_scores_that_do_not_pair_up_are_refused(first, second):
    """One seed with a verdict."""
    words = f"There are {len(first)} scores and {len(second)} scores; they are compared pair by pair, at least two."
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        compare_paired(first, second)


def test_an_interval_that_ends_at_zero_shows_nothing():
    """A verdict for a difference that 0 is not ruled out for."""
    words = [Verdict(1, low, high, 1).word for low, high in [(0, 2), (-2, 0), (0.1, 2), (-2, -0.1), (-1, 3)]]
    assert words == ["no difference shown", "no difference shown", "better", "worse", "no difference shown"]


def test_two_pairs_and_another_confidence():
    """By hand: differences 1 and 3, deviation √2, and t(0.75, 1) = 1, so half of the intervals hold 2 ± 1."""
    verdict = compare_paired([10, 20], [11, 23], confidence=0.5)
    assert (verdict.low, verdict.high) == pytest.approx((1, 3))
    assert verdict.spread == pytest.approx(2**0.5)


def test_the_same_difference_with_every_seed():
    """A warning of scipy's about catastrophic cancellation, in the middle of a lesson."""
    verdict = compare_paired([1, 2, 3], [2, 3, 4])
    assert (verdict.low, verdict.high, verdict.spread, verdict.word) == (1, 1, 0, "better")


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused(score):
    """ "No difference shown" for a run that diverged."""
    with pytest.raises(
        ValueError, match=r"^The scores are \[1\.0, 2\.0\] and \[.*, 3\.0\]; a verdict needs finite numbers\.$"
    ):
        compare_paired([1, 2], [score, 3])


def answers(shares, sentences=400):
    """Right or wrong of each seed (rows): the first `shares` of the sentences are right."""
    return np.array([[place < share * sentences for place in range(sentences)] for share in shares])


def test_answers_are_drawn_over_seeds_and_sentences():
    """An interval over one of the two, under the name of both. By force: both drawn by index, one draw at a time."""
    random = np.random.default_rng(1)
    easy = random.normal(size=300)
    first, second = (easy + random.normal(size=(5, 300)) > limit for limit in (0, -0.3))
    verdict = compare_paired(first, second)
    drawn = [
        (second * 1.0 - first)[np.ix_(random.integers(5, size=5), random.integers(300, size=300))].mean()
        for _ in range(4000)
    ]
    assert verdict.difference == pytest.approx(second.mean() - first.mean())
    assert (verdict.low, verdict.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)
    over_seeds = compare_paired(first.mean(axis=1), second.mean(axis=1))
    assert verdict.high - verdict.low > over_seeds.high - over_seeds.low
    assert verdict.spread == pytest.approx(over_seeds.spread)
    assert (verdict.covers, over_seeds.covers) == ("other seeds and other test examples", "other seeds")
    assert 0 < verdict.p < 0.05


def test_a_single_seed_has_sentences_to_draw():
    """By hand: 80 of 400 sentences won, 40 lost, so 0.1 ± 1.96 · √((0.3 − 0.1²) / 400)."""
    first = np.zeros((1, 400))
    second = np.array([[1.0] * 80 + [-1.0] * 40 + [0.0] * 280])
    verdict = compare_paired(first, second)
    half = 1.96 * (0.29 / 400) ** 0.5
    assert (verdict.low, verdict.high) == pytest.approx((0.1 - half, 0.1 + half), abs=0.003)
    assert (verdict.spread, verdict.covers) == (0, "other test examples")


def test_few_seeds_that_disagree_are_given_students_width():
    """Five seeds drawn from themselves: a third of the t interval is missing."""
    shares = [0.60, 0.70, 0.65, 0.75, 0.55]
    verdict = compare_paired(answers([0.5] * 5, 40_000), answers(shares, 40_000))
    over_seeds = compare_paired([0.5] * 5, shares)
    assert (verdict.low, verdict.high, verdict.p) == pytest.approx((over_seeds.low, over_seeds.high, over_seeds.p))


def test_the_interval_misses_what_is_true_about_as_often_as_it_says():
    """95% on the label, 80% inside: the truth is known here, and seeds, sentences and their noise are all at work."""
    random = np.random.default_rng(0)
    caught = 0
    for _ in range(100):
        seeds, sentences = random.normal(scale=0.01, size=(4, 1)), random.normal(scale=0.4, size=(1, 60))
        second = 0.1 + seeds + sentences + random.normal(scale=0.3, size=(4, 60))
        verdict = compare_paired(np.zeros((4, 60)), second)
        caught += verdict.low <= 0.1 <= verdict.high
    assert 90 <= caught <= 100


def test_arms_that_are_the_same_differ_in_nothing():
    """A p-value of NaN, which is below no limit and above none."""
    same = compare_paired(answers([0.5, 0.6]), answers([0.5, 0.6]))
    assert (same.low, same.high, same.p, same.word) == (0, 0, 1, "no difference shown")
    assert compare_paired([1, 2], [1, 2]).p == 1


def test_a_p_value_belongs_to_its_interval():
    """By hand: t = 2 / (1 / √3) = 3.46 with two degrees of freedom."""
    assert compare_paired([10, 20, 30], [11, 22, 33]).p == pytest.approx(2 * scipy.stats.t.sf(3.4641, 2), abs=1e-4)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 3), (2,)), ((2, 3, 1), (2, 3, 1)), ((1, 1), (1, 1))])
def test_answers_that_do_not_pair_up_are_refused(shapes):
    """Test sets of another length, or scores held against answers."""
    with pytest.raises(ValueError, match="they are compared pair by pair, at least two"):
        compare_paired(*map(np.zeros, shapes))


def test_a_family_of_comparisons_is_adjusted_as_holm_does():
    """By hand: 4 · 0.005 = 0.02; 3 · 0.01 = 0.03; 2 · 0.03 = 0.06; and 0.04, which may not come below 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
