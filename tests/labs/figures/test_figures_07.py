"""The figures of lab 07: what is drawn, and what is said to somebody who cannot see it."""

import pytest

from kdcourse.labs import figures
from kdcourse.labs.verdict import Verdict

COMPARISONS = {
    "soft": Verdict(0.005, -0.008, 0.017, 0.01),
    "soft, 20,000 more": Verdict(0.026, 0.0095, 0.0416, 0.01),
    "hard": Verdict(-0.02, -0.03, -0.01, 0.01),
}


def test_a_forest_shows_each_interval_against_no_difference():
    """An interval in another row, or one that holds 0 and looks like a find."""
    picture = figures.forest_of_comparisons(COMPARISONS, planned="hard")
    (axes,) = picture.figure.axes
    drawn = [bar.lines[0].get_xydata()[0].tolist() for bar in axes.containers]
    assert drawn == [[pytest.approx(0.5), 0], [pytest.approx(2.6), 1], [pytest.approx(-2), 2]]
    ends = [bar.lines[2][0].get_segments()[0][:, 0].tolist() for bar in axes.containers]
    assert ends == [pytest.approx([-0.8, 1.7]), pytest.approx([0.95, 4.16]), pytest.approx([-3, -1])]
    assert [bar.lines[0].get_fillstyle() for bar in axes.containers] == ["none", "full", "full"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["soft", "soft, 20,000 more", "hard (planned)"]
    assert "soft, 20,000 more: +2.6 (+0.9 to +4.2), better; hard (planned): -2.0 (-3.0 to -1.0), worse." in picture.alt
    assert "diamond" not in axes.get_xlabel()


def test_your_own_run_stands_beside_its_comparison():
    """A learner's run that is drawn as evidence of another comparison, or not at all."""
    picture = figures.forest_of_comparisons(COMPARISONS, yours={"soft, 20,000 more": 0.013})
    (axes,) = picture.figure.axes
    (diamond,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert diamond.get_xydata().tolist() == [[pytest.approx(1.3), pytest.approx(1.28)]]
    assert "diamond: your run" in axes.get_xlabel()
    assert picture.alt.endswith("Your run of soft, 20,000 more: +1.3.")


def test_kinds_of_sentences_have_no_line_between_them():
    """The teacher's numbers under the student's name, a slope from films to tweets, a coin where 68% are positive."""
    models = {
        "teacher": {"films": [0.9], "tweets": [0.7]},
        "student": {"films": [0.7, 0.8], "tweets": [0.5, 0.6]},
    }
    picture = figures.inside_and_outside(models, {"films": 0.52, "tweets": 0.683})
    (axes,) = picture.figure.axes
    drawn = {bar.get_label(): bar.lines[0] for bar in axes.containers}
    assert drawn["teacher"].get_ydata().tolist() == [90, 70]
    assert drawn["student"].get_ydata().tolist() == [pytest.approx(75), pytest.approx(55)]
    assert {line.get_linestyle() for line in drawn.values()} == {"None"}
    without_reading = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert without_reading == pytest.approx([52, 68.3])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["films", "tweets"]
    assert "student: 75.0 ± 7.1 on films, 55.0 ± 7.1 on tweets. The larger class has 52.0 on films" in picture.alt
