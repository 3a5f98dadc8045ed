"""The figures of lesson 04: what they show, said in words as well."""

import pytest

from kdcourse.labs import figures


@pytest.fixture
def grid():
    alone = [0.70, 0.72, 0.71]
    return {(1.0, 1.0): alone, (1.0, 4.0): alone, (0.0, 1.0): [0.71, 0.72, 0.73], (0.0, 4.0): [0.70, 0.71, 0.72]}


def test_a_small_effect_looks_small(grid):
    """A difference of a point that is stretched over the whole picture."""
    whole, _ = figures.alpha_by_temperature(grid, coin=0.5, teacher=0.86).figure.axes
    low, high = whole.get_ylim()
    assert low < 50
    assert high > 86
    heights = {line.get_label(): line.get_ydata() for line in whole.lines}
    assert list(heights["T = 1"]) == pytest.approx([72, 71])
    assert list(heights["T = 4"]) == pytest.approx([71, 71])


def test_a_gain_stands_beside_its_interval(grid):
    """A gain without its uncertainty, or against something else than labels alone."""
    picture = figures.alpha_by_temperature(grid, coin=0.5, teacher=0.86)
    _, close = picture.figure.axes
    low, high = close.get_ylim()
    assert low == pytest.approx(-high)
    points, _, (bars,) = close.containers[0]
    assert points.get_ydata().tolist() == pytest.approx([1.0])
    ((_, bottom), (_, top)) = bars.get_segments()[0]
    assert (bottom, top) == pytest.approx((-1.484, 3.484), abs=0.01)
    assert "T = 1, alpha 0: +1.0 (-1.5 to +3.5)" in picture.alt
    assert "between 71.0% and 72.0%" in picture.alt


def test_each_run_has_both_terms_on_both_kinds_of_sentences():
    """A curve of the sum, or of the training sentences alone, which look healthy while nothing is learnt."""
    runs = {
        "sound": [figures.Losses(0, (0.7, 1.4), (0.69, 1.2)), figures.Losses(80, (0.2, 0.3), (0.5, 0.8))],
        "broken": [figures.Losses(0, (0.7, 1.4), (0.69, 1.2)), figures.Losses(80, (1.0, 0.5), (0.8, 2.1))],
    }
    picture = figures.losses_of_runs(runs)
    assert [axes.get_title() for axes in picture.figure.axes] == ["sound", "broken"]
    assert all(axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 2.1 for axes in picture.figure.axes), "a curve is cut"
    by_label = {line.get_label(): line.get_ydata() for line in picture.figure.axes[1].lines}
    assert list(by_label["soft, own sentences"]) == [1.4, 0.5]
    assert list(by_label["soft, new sentences"]) == [1.2, 2.1]
    assert list(by_label["hard, new sentences"]) == [0.69, 0.8]
    assert (
        "broken: hard 0.70 to 1.00 on its own sentences and 0.69 to 0.80 on new ones, soft 1.40 to 0.50" in picture.alt
    )


def test_a_log_is_drawn_whole_and_each_run_on_its_own_scale():
    """A run that explodes, and makes a flat line of all the others; a term that is drawn under another's name."""

    def log(*losses):
        return [
            {
                "step": 10 * row,
                "loss": sum(pair),
                "hard_loss": pair[0],
                "soft_loss": pair[1],
                "eval_accuracy": 0.2 + row / 2,
            }
            for row, pair in enumerate(losses)
        ]

    picture = figures.logs_of_runs({"sound": log((1.6, 4.0), (0.5, 1.0)), "mystery A": log((1.6, 5.0), (30.0, 700.0))})
    sound, mystery, right, _ = picture.figure.axes
    assert [sound.get_title(), mystery.get_title()] == ["sound", "mystery A"]
    assert 5.6 < sound.get_ylim()[1] < 8
    assert 730 < mystery.get_ylim()[1] < 900
    drawn = {line.get_label(): list(line.get_ydata()) for line in (*sound.lines, *right.lines)}
    assert drawn == {
        "total": [5.6, 1.5], "hard": [1.6, 0.5], "soft": [4.0, 1.0], "accuracy (right, %)": pytest.approx([20, 70]),
    }  # fmt: skip
    assert "mystery A: 6.60, 1.60 and 5.00 at step 0, accuracy 20%; 730.00, 30.00 and 700.00 at step 10" in picture.alt
