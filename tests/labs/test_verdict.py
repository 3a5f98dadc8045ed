"""The verdict that closes each comparison."""

import pytest

from kdcourse.labs.verdict import compare_paired


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


@pytest.mark.parametrize(("first", "second"), [([1], [2]), ([1, 2], [1, 2, 3])])
def test_scores_that_do_not_pair_up_are_refused(first, second):
    """One seed with a verdict."""
    with pytest.raises(ValueError, match="pair by pair"):
        compare_paired(first, second)
