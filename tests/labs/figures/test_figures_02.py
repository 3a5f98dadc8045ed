"""The figures of lesson 02: what they show, and what they say in words."""

import pytest

from kdcourse.labs import figures


def test_no_loss_leaves_the_axis_on_which_it_is_reported():
    """A curve that is cut off where it matters: a loss of -69.5 on an axis that ends at -6."""
    falling = [-0.5, -9.0, -69.5]
    reported, _ = figures.losses_in_training({"raw": falling}, {"raw": [1.0, 0.05, 19.7]}).figure.axes
    assert reported.get_ylim()[0] < min(falling)
    assert [label.get_text() for label in reported.get_yticklabels()] == ["−100", "−10", "−1", "0", "1"]


def test_each_student_is_marked_where_it_is_nearest_to_the_teacher():
    """A mark, or a number beside it, at another step than the lowest."""
    picture = figures.divergences_in_training({"near": [0.2, 0.01, 17.7], "far": [1.0, 2.0, 3.0]})
    (axes,) = picture.figure.axes
    marks = [line.get_xydata().tolist() for line in axes.lines[1::2]]
    assert marks == [[[1, pytest.approx(0.01)]], [[0, 1]]]
    assert [text.get_text() for text in axes.texts] == ["0.01, step 1", "1, step 0"]
    assert "near, from 0.2 to its lowest 0.01 at step 1 and then 17.7" in picture.alt
