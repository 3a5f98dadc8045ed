"""The figures of lesson 01: what they show, and what they say in words."""

import pytest

from kdcourse.labs import figures


def test_the_gaps_below_the_tangent_are_those_of_the_ratios():
    """A gap that is drawn somewhere else than between the curve and the line above it, or labelled with another's."""
    picture = figures.logarithm_and_tangent([2, 0.5], [0.4, 0.6])
    (axes,) = picture.figure.axes
    gaps = [line.get_xydata().tolist() for line in axes.lines[2:]]
    assert gaps[0] == [[2, pytest.approx(0.6931, abs=1e-4)], [2, 1]]
    assert gaps[1] == [[0.5, pytest.approx(-0.6931, abs=1e-4)], [0.5, -0.5]]
    assert [text.get_text() for text in axes.texts] == ["q = 0.4, gap 0.31", "q = 0.6, gap 0.19"]


def test_the_words_say_what_the_weighted_gaps_add_up_to():
    """A reader who cannot see the picture and is not told that its gaps make the divergence."""
    words = figures.logarithm_and_tangent([2, 0.5], [0.4, 0.6]).alt
    assert "at p / q = 2.00, weight 0.4, it is 0.31" in words
    assert words.endswith("Weighted and added, 0.24.")
