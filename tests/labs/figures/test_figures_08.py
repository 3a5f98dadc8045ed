"""The figures of lab 08: what is drawn, and what is said to somebody who cannot see it."""

import pytest

from kdcourse.labs import figures
from kdcourse.labs.verdict import Verdict


def ends(line):
    return [pytest.approx(point) for point in line.get_xydata().tolist()]


def test_a_difference_of_losses_is_shown_in_nats():
    """Nats that are multiplied by a hundred, as if they were points of accuracy."""
    verdicts = {"labels to teacher": Verdict(0.2, 0.1505, 0.25, 0.01)}
    picture = figures.forest_of_comparisons(verdicts, planned="labels to teacher", unit=figures.NATS)
    (axes,) = picture.figure.axes
    assert axes.containers[0].lines[0].get_xydata()[0].tolist() == [pytest.approx(0.2), 0]
    assert "nats per token" in axes.get_xlabel()
    assert "in nats per token" in picture.alt
    assert "labels to teacher (planned): +0.200 (+0.150 to +0.250), better" in picture.alt


def test_kept_layers_are_filled():
    """The layers that were cut away, drawn as those that stay."""
    picture = figures.change_by_layer([0.9, 0.1, 0.25], kept=[0, 2])
    (axes,) = picture.figure.axes
    assert [bar.get_height() for bar in axes.patches] == [0.9, 0.1, 0.25]
    filled = [bar.get_facecolor()[:3] != (1, 1, 1) for bar in axes.patches]
    assert filled == [True, False, True]
    assert "0: 0.90, 1: 0.10, 2: 0.25. Kept: 0, 2." in picture.alt


ARMS = {"labels": [{"18": 6.0, "36": 5.5}, {"18": 6.2, "36": 5.7}], "teacher": [{"18": 5.0, "36": 5.1}] * 2}


def test_curves_are_means_with_their_seeds_beside_them():
    """One seed that stands for all; an arm under the name of another."""
    picture = figures.loss_by_steps(ARMS)
    (axes,) = picture.figure.axes
    means = [line for line in axes.lines if line.get_marker() != "None"]
    assert [line.get_label() for line in means] == ["labels", "teacher"]
    assert ends(means[0]) == [[18, 6.1], [36, 5.6]]
    assert len(axes.lines) == 2 * 3
    assert len({line.get_marker() for line in means}) == 2
    assert "labels: 6.10 after 18, 5.60 after 36; teacher: 5.00 after 18, 5.10 after 36." in picture.alt


def test_bins_with_hardly_a_token_are_not_drawn():
    """Three tokens that make a model look wrong; confidence and accuracy that change places."""
    bins = [[1000, 100.0, 200], [3, 2.9, 0], [400, 300.0, 260]]
    picture = figures.reliability({"teacher": bins, "student": bins[:1]})
    first, second = picture.figure.axes
    assert [panel.get_title() for panel in (first, second)] == ["teacher", "student"]
    assert ends(first.lines[1]) == [[0.1, 0.2], [0.75, 0.65]]
    assert ends(second.lines[1]) == [[0.1, 0.2]]
    assert ends(first.lines[0]) == [[0, 0], [1, 1]]
    assert "teacher: 20% right at 10%, 65% right at 75%; student: 20% right at 10%." in picture.alt


def test_domains_stand_side_by_side_on_a_logarithmic_scale():
    """A perplexity in the column of another domain; an error bar over one seed."""
    models = {
        "teacher": {"films": [60.0], "editorials": [40.0]},
        "student": {"films": [300.0, 320.0], "editorials": [500.0, 500.0]},
    }
    picture = figures.perplexity_by_domain(models)
    (axes,) = picture.figure.axes
    assert axes.get_yscale() == "log"
    heights = [bar.lines[0].get_ydata().tolist() for bar in axes.containers]
    assert heights == [[60, 40], [310, 500]]
    places = [bar.lines[0].get_xdata().tolist() for bar in axes.containers]
    assert [round(x) for x in places[0]] == [round(x) for x in places[1]] == [0, 1]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["films", "editorials"]
    assert "teacher: 60 on films, 40 on editorials; student: 310 on films, 500 on editorials." in picture.alt


def test_a_step_is_drawn_on_top_of_what_was_there_before():
    """A peak that is drawn as if it came on top of itself."""
    steps = {"with logits": {"before": 10**9, "peak": 37 * 10**8}, "fused": {"before": 10**9, "peak": 19 * 10**8}}
    picture = figures.memory_of_steps(steps, limit=3e9)
    (axes,) = picture.figure.axes
    bars = [(bar.get_x(), pytest.approx(bar.get_x() + bar.get_width())) for bar in axes.patches]
    assert bars == [(0, 1.0), (1.0, 3.7), (0, 1.0), (1.0, 1.9)]
    assert axes.lines[0].get_xdata()[0] == 3
    assert "with logits: 1.00 GB before and 3.70 GB at most; fused: 1.00 GB before and 1.90 GB at most" in picture.alt


def test_stand_ins_are_points_of_bytes_and_error():
    """Axes that change places; a marker that two kinds share."""
    kinds = {"top k": [(53, 0.1), (205, 0.02)], "drawn": [(54, 0.5)], "hidden states": [(1152, 1e-4)]}
    picture = figures.bytes_and_error(kinds)
    (axes,) = picture.figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [ends(line) for line in axes.lines] == [[[53, 0.1], [205, 0.02]], [[54, 0.5]], [[1152, 1e-4]]]
    assert len({line.get_marker() for line in axes.lines}) == 3
    assert "top k: 0.1 for 53 bytes, 0.02 for 205 bytes; drawn: 0.5 for 54 bytes" in picture.alt
