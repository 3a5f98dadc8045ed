"""The figures of lesson 10: what they draw, and what they say."""

from kdcourse.labs import figures
from kdcourse.labs.figures import Bill, Holding


def test_a_bill_is_drawn_as_long_as_it_is():
    """A student's hours that begin at zero and hide behind the teacher's; a cache of nothing that is drawn."""
    picture = figures.bills({"a to b": [Bill("asked", 3.0, 2.0, 0.0), Bill("kept", 1.0, 2.0, 500.0)]})
    hours, disk = picture.figure.axes
    assert [(bar.get_x(), bar.get_width()) for bar in hours.patches] == [(0, 3), (0, 1), (3, 2), (1, 2)]
    assert [bar.get_width() for bar in disk.patches] == [1, 500]
    assert disk.patches[0].get_facecolor()[3] == 0
    assert [text.get_text() for text in hours.texts] == [" 5", " 3"]
    assert [text.get_text() for text in disk.texts] == [" nothing", " 500"]
    assert disk.get_xscale() == "log"
    assert "asked 3 hours of the teacher and 2 of the student, nothing kept" in picture.alt
    assert "kept 1 hours of the teacher and 2 of the student, 500 GB kept" in picture.alt


def test_the_parts_of_a_step_stand_behind_one_another():
    """Parts that overlap, so that the longest is taken for the sum."""
    picture = figures.held_at_once(
        [Holding("whole", {"weights": 2e9, "logits": 3e9}), Holding("fused", {"weights": 2e9, "logits": 1e9})]
    )
    (axes,) = picture.figure.axes
    drawn = [(round(bar.get_x(), 9), round(bar.get_width(), 9)) for bar in axes.patches]
    assert drawn == [(0, 2), (2, 3), (0, 2), (2, 1)]
    assert [text.get_text() for text in axes.texts] == [" 5.0", " 3.0"]
    assert len({bar.get_hatch() for bar in axes.patches[:2]}) == 2
    assert "whole: weights 2.0, logits 3.0; fused: weights 2.0, logits 1.0" in picture.alt
