"""The figures of lesson 12: what they draw, and what they say."""

import pytest

from kdcourse.labs import figures
from kdcourse.labs.verdict import Verdict

SHOWN, LUCKY, NOTHING = (
    Verdict(0.02, 0.01, 0.03, 0.0),
    Verdict(0.02, 0.001, 0.04, 0.0),
    Verdict(-0.01, -0.03, 0.01, 0.0),
)


def test_what_holm_does_not_show_is_not_filled():
    """A finding among thirty that chance has made, drawn like one that holds."""
    family = {"1 · teachers": {"wider": (SHOWN, 0.001), "early": (LUCKY, 0.4)}, "2 · more": {"rows": (NOTHING, 1.0)}}
    picture = figures.family_of_comparisons(family)
    (axes,) = picture.figure.axes
    points = [container.lines[0] for container in axes.containers]
    assert [point.get_fillstyle() for point in points] == ["full", "left", "none"]
    assert [list(point.get_ydata()) for point in points] == [[1], [2], [4]]
    assert [list(point.get_xdata()) for point in points] == [[2], [2], [-1]]
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["1 · teachers", "wider", "early", "2 · more", "rows"]
    assert [label.get_fontweight() for label in labels] == ["bold", "normal", "normal", "bold", "normal"]
    assert "wider +2.0 (+1.0 to +3.0), shown; early +2.0 (+0.1 to +4.0), not shown after Holm" in picture.alt
    assert "rows -1.0 (-3.0 to +1.0), no difference shown" in picture.alt


def test_accuracy_stands_at_its_number_of_rows():
    """Labels at the rows of answers; fifty rows as far from a hundred as from eight thousand."""
    lines = {"labels": {50: [0.7, 0.8], 100: [0.9, 0.9]}, "answers": {50: [0.8, 0.8]}}
    picture = figures.accuracy_by_labels({"digits": lines, "reviews": lines})
    left, _ = picture.figure.axes
    assert [list(container.lines[0].get_xdata()) for container in left.containers] == [[50, 100], [50]]
    assert list(left.containers[0].lines[0].get_ydata()) == pytest.approx([75, 90])
    assert left.get_xscale() == "log"
    assert [label.get_text() for label in left.get_xticklabels()] == ["50", "100"]
    assert "digits: labels 75.0 ± 7.1 with 50, 90.0 ± 0.0 with 100; answers 80.0" in picture.alt


def test_what_can_be_found_is_drawn_in_points():
    """A share that is taken for points; a floor that stands where the wish does."""
    picture = figures.detectable_by_seeds(
        {"as it is": {2: 0.05, 8: 0.02}, "cautious": {2: 0.08}}, lowest=0.01, wanted=0.03, afforded=5
    )
    (axes,) = picture.figure.axes
    first, second, lowest, wanted, afforded = axes.lines
    assert list(first.get_ydata()) == [5, 2]
    assert list(second.get_xdata()) == [2]
    assert [line.get_ydata()[0] for line in (lowest, wanted)] == [1, 3]
    assert afforded.get_xdata()[0] == 5
    assert "as it is: 5.0 with 2, 2.0 with 8; cautious: 8.0 with 2" in picture.alt
    assert "leave 1.0 open with any number of seeds; 3.0 is wanted, and 5 seeds are afforded" in picture.alt
