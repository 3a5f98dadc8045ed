"""The figures of lesson 09: what they draw, and what they say."""

import numpy as np
import pytest

from kdcourse.labs import figures
from kdcourse.labs.verdict import Verdict


def test_a_line_by_position_is_the_mean_of_its_seeds():
    """One seed that is drawn as all, or positions that begin before the first token."""
    lines = {"people's": [[1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8]], "its own": [[2] * 6, [4] * 6]}
    picture = figures.divergence_by_position({"on labels": lines, "on-policy": dict(list(lines.items())[:1])})
    left, right = picture.figure.axes
    assert [list(line.get_ydata()) for line in left.lines] == [[2, 3, 4, 5, 6, 7], [3] * 6]
    assert list(left.lines[0].get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert len(right.lines) == 1
    assert left.collections[0].get_paths()[0].get_extents().bounds == (1, 1, 5, 7)
    assert (
        "on labels: people's 4.00 over the first five tokens and 5.00 over the last five, its own 3.00" in picture.alt
    )
    assert len({(line.get_marker(), line.get_linestyle()) for line in left.lines}) == 2


def test_a_score_stands_at_its_cost():
    """A score at the number of its step, so that what is written costs nothing."""
    lines = {"people's text": ([0, 5, 10], [3.0, 2.0, 1.0]), "its own": ([0, 7], [3.0, 1.5])}
    picture = figures.score_against_cost({"loss": lines, "reverse KL": lines})
    assert [list(line.get_xdata()) for line in picture.figure.axes[1].lines] == [[0, 5, 10], [0, 7]]
    assert [list(line.get_ydata()) for line in picture.figure.axes[0].lines] == [[3.0, 2.0, 1.0], [3.0, 1.5]]
    assert "loss: people's text from 3.00 to 1.00, its own from 3.00 to 1.50; reverse KL" in picture.alt


def test_what_is_not_shown_is_not_filled():
    """An interval that holds 0 and looks like a finding."""
    verdicts = {"own text": Verdict(0.2, 0.1, 0.3, 0.0), "mixed": Verdict(-0.1, -0.3, 0.1, 0.0)}
    picture = figures.differences_in_nats({"loss": verdicts, "KL": verdicts})
    axes = picture.figure.axes[0]
    own, mixed = (container.lines[0] for container in axes.containers)
    assert (own.get_fillstyle(), mixed.get_fillstyle()) == ("full", "none")
    (bars,) = axes.containers[1].lines[2]
    assert np.sort(bars.get_segments()[0][:, 0]) == pytest.approx([-0.3, 0.1])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["own text", "mixed"]
    assert "loss: own text +0.200 (+0.100 to +0.300), mixed -0.100 (-0.300 to +0.100); KL: own text" in picture.alt
