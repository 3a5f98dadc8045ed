"""The figures of lesson 11: what they draw, and what they say."""

import numpy as np
import pytest

from kdcourse.labs import figures

IMAGES = np.eye(4).reshape(2, 2, 4)


def test_a_misread_picture_says_what_it_was_and_what_it_was_taken_for():
    """The two digits exchanged; a picture under the name of its neighbour."""
    picture = figures.misread_pictures(IMAGES, [3, 9], [8, 4])
    assert [axes.get_title() for axes in picture.figure.axes] == ["3,\ntaken for 8", "9,\ntaken for 4"]
    assert np.array_equal(picture.figure.axes[1].images[0].get_array(), IMAGES[1])
    assert "3 taken for 8; 9 taken for 4" in picture.alt


def test_an_answer_stands_beside_its_picture():
    """An answer at another temperature than its title says, or of another row."""
    answers = {"T = 1": [[0.9, 0.1, 0.0], [0.2, 0.1, 0.7]], "T = 20": [[0.5, 0.3, 0.2], [0.3, 0.3, 0.4]]}
    picture = figures.answers_by_temperature(IMAGES, [0, 2], answers)
    axes = np.array(picture.figure.axes).reshape(2, 3)
    assert [bar.get_height() for bar in axes[1, 2].patches] == answers["T = 20"][1]
    assert [bar.get_hatch() is not None for bar in axes[1, 1].patches] == [False, False, True]
    assert "0: at T = 1 0 90%, 1 10%, 2 0%, at T = 20 0 50%, 1 30%, 2 20%; 2:" in picture.alt


def test_errors_by_temperature_show_each_seed_and_their_mean():
    """A mean that hides its seeds; a band of another size of student."""
    panels = {"300": ([9, 12], {1.0: [8, 10], 20.0: [4, 6]}), "30": ([30, 31], {1.0: [20, 20], 20.0: [40, 44]})}
    picture = figures.errors_by_temperature(panels)
    left, right = picture.figure.axes
    assert [list(line.get_ydata()) for line in left.lines] == [[8, 10], [4, 6], [9, 5]]
    assert left.get_xscale() == "log"
    low, high = right.patches[0].get_y(), right.patches[0].get_y() + right.patches[0].get_height()
    assert (low, high) == pytest.approx((30, 31))
    assert "300: labels alone 9 to 12, 9 at T = 1, 5 at T = 20; 30: labels alone 30 to 31, 20 at T = 1" in picture.alt


def test_errors_by_shift_are_told_at_0_and_at_their_best():
    """A best shift with the wrong sign."""
    lines = {"all": ([-1.0, 0.0, 1.0, 2.0], [9, 7, 3, 5]), "threes": ([-1.0, 0.0, 1.0, 2.0], [4, 4, 1, 0])}
    picture = figures.errors_by_shift({"taught": lines, "plain": lines})
    left, _ = picture.figure.axes
    assert list(left.lines[1].get_ydata()) == [4, 4, 1, 0]
    assert len({(line.get_marker(), line.get_linestyle()) for line in left.lines[:2]}) == 2
    assert (
        "taught: all 7 at 0 and at best 3, at +1.0, threes 4 at 0 and at best 0, at +2.0; plain: all 7" in picture.alt
    )
