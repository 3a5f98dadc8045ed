"""The verdict that closes each comparison."""

import re

import pytest

from kdcourse.labs.verdict import Verdict, compare_paired


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
    words = f"There are {len(first)} and {len(second)} scores; they are compared pair by pair, at least two."
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
    with pytest.raises(ValueError, match=r"^The scores are \[1, 2\] and \[.*, 3\]; a verdict needs finite numbers\.$"):
        compare_paired([1, 2], [score, 3])
