"""Figures of lesson 13: what they show, said in words as well."""

import pytest

from kdcourse.labs import figures


def test_each_end_of_beta_is_drawn_with_its_own_divergence():
    """Forward and reverse KL exchanged in the figure that tells them apart."""
    _, divided = figures.between_the_ends([0.25, 0.75], [0.3, 0.6], 1.0, 2.0).figure.axes
    by_label = {line.get_label(): line.get_xydata().tolist() for line in divided.lines}
    assert by_label["D / beta"] == [[0.25, pytest.approx(1.2)], [0.75, pytest.approx(0.8)]]
    assert by_label["D / (1 − beta)"] == [[0.25, pytest.approx(0.4)], [0.75, pytest.approx(2.4)]]
    assert (by_label["forward KL"], by_label["reverse KL"]) == ([[0.0, 1.0]], [[1.0, 2.0]])
    assert "0.60 at its highest, near beta 0.8" in figures.between_the_ends([0.25, 0.75], [0.3, 0.6], 1.0, 2.0).alt


def test_each_run_keeps_its_own_name():
    """The run that stands still under the name of the one that arrives."""
    picture = figures.distance_by_step({"beta 0.9": [2.0, 1.5, 1.2], "reverse KL": [2.0, 0.5, 0.1]})
    lines = {line.get_label(): line.get_ydata().tolist() for line in picture.figure.axes[0].lines}
    assert lines == {"beta 0.9": [2.0, 1.5, 1.2], "reverse KL": [2.0, 0.5, 0.1]}
    assert "3 steps of 2 runs: beta 0.9, from 2.00 to 1.20; reverse KL, from 2.00 to 0.10" in picture.alt


def test_the_peak_of_memory_is_marked_where_it_is():
    """A mark at the end of the step, where memory is low again."""
    picture = figures.memory_over_a_step([1.0, 3.0, 8.0, 5.0, 2.5])
    _, peak = picture.figure.axes[0].lines
    assert peak.get_xydata().tolist() == [[2.0, 8.0]]
    assert picture.figure.axes[0].texts[0].get_text() == "peak: 8"
    assert "rises to 8.0 at operation 3, and is 2.5 at the end" in picture.alt
