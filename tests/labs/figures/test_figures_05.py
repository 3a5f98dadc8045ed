"""The figures of lesson 05: what they draw, and what they say of it."""

from itertools import pairwise

import pytest

from kdcourse.labs import figures

PIECES = [2, 2, 1]
WAYS = {"at once": [1 / 5] * 5, "added": [1 / 2] * 4 + [1.0], "divided": [1 / 6] * 4 + [1 / 3]}


@pytest.fixture
def boxes():
    return figures.accumulation(PIECES, WAYS)


def test_a_box_is_as_high_as_its_rows_weight(boxes):
    """A picture that says something else than the numbers above its boxes."""
    for axes, weights in zip(boxes.figure.axes, WAYS.values(), strict=True):
        assert [bar.get_height() for bar in axes.patches] == pytest.approx(weights)


def test_heights_can_be_compared_between_ways(boxes):
    """A fifth that looks as high as a whole, because each panel has a scale of its own."""
    boxes.figure.draw_without_rendering()
    units = [axes.bbox.height / axes.get_ylim()[1] for axes in boxes.figure.axes]
    assert max(units) / min(units) == pytest.approx(1, abs=0.1)


def test_micro_batches_stand_apart_where_they_differ(boxes):
    """A step in pieces that looks like one batch."""
    at_once, added, _ = boxes.figure.axes
    assert [label.get_text() for label in added.get_xticklabels()] == [f"micro-batch {piece}" for piece in (1, 2, 3)]
    assert not at_once.get_xticklabels()
    left = [bar.get_x() for bar in added.patches]
    steps = [after - before for before, after in pairwise(left)]
    assert steps[1] == steps[3] > steps[0] == steps[2] == 1


def test_the_one_that_weighs_more_is_told_by_number_and_by_colour(boxes):
    """Information that is in the colour alone."""
    _, added, _ = boxes.figure.axes
    assert [text.get_text() for text in added.texts] == ["1/2"] * 4 + ["1"]
    assert [bar.get_facecolor() == added.patches[4].get_facecolor() for bar in added.patches] == [False] * 4 + [True]


def test_the_words_hold_each_weight(boxes):
    """ "Boxes" as the alt text of boxes."""
    assert "micro-batches of 2, 2, 1" in boxes.alt
    assert "added: 1/2, 1/2, 1/2, 1/2, 1, 3 in all" in boxes.alt
    assert "divided: 1/6, 1/6, 1/6, 1/6, 1/3, 1 in all" in boxes.alt


def test_the_stops_show_where_each_column_is():
    """A column that is drawn where it is not."""
    picture = figures.columns_at_stops({"row": ["label"], "batch": ["labels", "input_ids"]})
    (axes,) = picture.figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["label", "labels", "input_ids"]
    present = [line.get_xydata().tolist() for line in axes.lines]
    assert present == [[[0, 0]], [[1, 1]], [[1, 2]]]
    assert picture.alt.endswith("row: label; batch: labels, input_ids.")
