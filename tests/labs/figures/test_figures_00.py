"""The figures of lesson 00: what is drawn, and what is said of it."""

import numpy as np
import pytest

from kdcourse.labs import figures
from kdcourse.labs.figures import Doubts

SAME, MORE = [0.70, 0.72], [0.71, 0.75]
PEOPLE, TEACHER = [0.0, 0.1, 0.4, 0.5, 1.0], [0.02, 0.2, 0.95, 0.7, 0.9]


def test_two_by_two_has_a_line_for_each_way_of_answering():
    """A mean that is another seed, a seed that is left out, or panels on two scales."""
    picture = figures.two_by_two(
        {"short": {"hard": [SAME, SAME], "soft": [SAME, MORE]}, "long": {"hard": [MORE, MORE], "soft": [MORE, MORE]}},
        ["few", "many"],
    )
    short, long = picture.figure.axes
    heights = [line.get_ydata().tolist() for line in short.lines]
    assert heights[0] == pytest.approx([71, 71])
    assert heights[3] == pytest.approx([71, 73])
    assert heights[5] == pytest.approx([71, 75])
    assert [text.get_text() for text in short.texts] == ["hard", "soft"]
    assert (short.get_title(), long.get_title()) == ("short", "long")
    assert short.get_ylim() == long.get_ylim()
    assert "short, soft: 71.0 ± 1.4 with few, 73.0 ± 2.8 with many" in picture.alt


def test_doubts_are_on_the_smaller_side():
    """A teacher that is sure of *negative* counted as doubtful; a divided sentence lost to rounding."""
    doubts = Doubts(np.array(PEOPLE), np.array(TEACHER))
    assert doubts.of_teacher.tolist() == pytest.approx([0.02, 0.2, 0.05, 0.3, 0.1])
    assert doubts.contested.tolist() == [False, False, True, True, False]
    assert doubts.sure.tolist()[:4] == [True, False, True, False]


def test_each_sentence_is_in_one_group_of_doubts():
    """A sentence that is counted twice, or that falls between two groups."""
    people = np.array([0.0, 1.0, 0.2, 0.21, 0.4, 0.41, 0.5])
    groups = Doubts(people, np.array([0.1, 0.9, 0.2, 0.3, 0.3, 0.4, 0.4])).by_group()
    assert groups == pytest.approx({"none": 0.1, "up to a fifth": 0.2, "up to two fifths": 0.3, "up to half": 0.4})


def test_the_divided_sentences_of_a_sure_teacher_stand_out():
    """Axes that are exchanged, or a count that the words have and the picture does not."""
    picture = figures.doubts_of_teacher_and_people([*PEOPLE, 0.3], [*TEACHER, 0.5])
    rest, apart = picture.figure.axes[0].collections[-2:]
    assert (len(rest.get_offsets()), apart.get_offsets().tolist()) == (5, [pytest.approx([40, 95])])
    assert "Of 2 sentences on which people are divided, the teacher is more than 90% sure on 1." in picture.alt


def test_only_the_student_is_reached_by_a_gradient():
    """A diagram in which a box has lost its name; words that say less than it shows."""
    picture = figures.teacher_and_student()
    named = " ".join(text.get_text() for text in picture.figure.axes[0].texts)
    for word in ("teacher", "student", "logits t", "logits s", "label y", "KL(q ‖ p)", "−log p of y", "softmax"):
        assert word in named
        assert word in picture.alt


def test_each_term_is_marked_where_it_is_lowest():
    """A mark on the other curve."""
    picture = figures.label_and_teacher([0.25, 0.5, 0.75], [3, 2, 1], [2, 1, 2])
    lines = picture.figure.axes[0].lines
    assert [line.get_xydata()[0].tolist() for line in lines[1::2]] == [[75, 1], [50, 1]]
    assert "the label's term at 75% and the teacher's term at 50%" in picture.alt


def test_a_line_joins_the_students_of_one_seed():
    """Students of different seeds, joined because both were sorted."""
    picture = figures.pairs_of_seeds(("hard", [0.7, 0.6]), ("soft", [0.72, 0.75]))
    joined = [line.get_ydata().tolist() for line in picture.figure.axes[0].lines[:2]]
    assert joined == [pytest.approx([70, 72]), pytest.approx([60, 75])]
    assert "seed 1 from 60.0 to 75.0" in picture.alt
