"""The figures of lesson 03: what they show, said in words as well."""

import pytest

from kdcourse.labs import figures

TEMPERATURES = [1, 2, 4]
NORMS = [0.12, 0.04, 0.01]


def test_softened_answers_share_one_scale_and_keep_their_ends_apart():
    """Charts that look alike because each has its own axis; a 99.6% called 100%, and a tail called 0."""
    tables = {1: [2e-10, 0.004, 0.996], 4: [0.2, 0.3, 0.5], 64: [0.33, 0.33, 0.34]}
    picture = figures.softened_distributions(tables)
    above, below = picture.figure.axes[:3], picture.figure.axes[3:]
    assert [axes.get_title() for axes in above] == ["T = 1", "T = 4", "T = 64"]
    assert {axes.get_ylim() for axes in above} == {(0, 119)}
    assert [axes.get_yscale() for axes in below] == ["log"] * 3
    assert len({axes.get_ylim() for axes in below}) == 1
    assert below[0].get_ylim()[0] < 2e-10
    assert "T = 1, from 10⁻¹⁰ to 99.6%; T = 4, from 20% to 50%" in picture.alt


def test_a_single_temperature_is_a_single_column():
    """The slider, which draws one position at a time."""
    assert len(figures.softened_distributions({3.3636: [0.5, 0.5]}).figure.axes) == 2


def test_the_gradient_figure_marks_a_guess_only_if_there_is_one():
    """A star at a place that the reader never chose."""
    without = figures.gradient_against_temperature(TEMPERATURES, NORMS)
    marked = figures.gradient_against_temperature(TEMPERATURES, NORMS, guess=4)
    assert len(marked.figure.axes[0].lines) == len(without.figure.axes[0].lines) + 1
    assert marked.figure.axes[0].lines[-1].get_xydata().tolist() == [[4, pytest.approx(0.03)]]
    assert "guess" not in without.alt
    assert "4 times smaller" in marked.alt


def test_the_gradient_figure_holds_a_line_of_slope_minus_two():
    """A line that is drawn through the points, and shows whatever they show."""
    line = figures.gradient_against_temperature(TEMPERATURES, NORMS).figure.axes[0].lines[0]
    assert line.get_ydata().tolist() == pytest.approx([0.16, 0.04, 0.01])


def test_the_gradient_figure_keeps_the_factor_for_the_next_question():
    """A figure that answers "how similar does T² make them?" before that is asked."""
    picture = figures.gradient_against_temperature(TEMPERATURES, NORMS)
    assert "T²" not in picture.alt
    assert len(picture.figure.axes[0].lines) == 2


def test_the_rescaled_gradient_can_be_read_off():
    """A factor of a third that four powers of ten on the axis make invisible."""
    picture = figures.rescaled_gradient(TEMPERATURES, NORMS)
    (axes,) = picture.figure.axes
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[0] == 0
    assert axes.lines[1].get_ydata().tolist() == pytest.approx([1, 4 / 3, 4 / 3])
    assert [text.get_text() for text in axes.texts] == ["1.00", "1.33", "1.33"]
    assert "1.33 at T = 4" in picture.alt


def test_the_heat_maps_say_the_largest_confusion():
    """An alt text that says that there is a heat map."""
    tables = {1.0: [[0.9, 0.1], [0.02, 0.98]], 4.0: [[0.6, 0.4], [0.3, 0.7]]}
    assert len(figures.answers_by_class(tables).figure.axes) == len(tables)
    text = figures.answers_by_class(tables).alt
    assert "T = 1: 90 to 98 on the diagonal, and the largest elsewhere is 10, for class 1 where" in text
    assert "where the true digit is 0" in text


def test_one_heat_map_is_a_figure_too():
    """A table at one temperature, which is shown before the question about another."""
    assert len(figures.answers_by_class({1.0: [[0.9, 0.1], [0.02, 0.98]]}).figure.axes) == 1


def test_a_picture_stands_beside_its_answer():
    """Bars of another picture, or fewer bars than classes."""
    left, right = figures.image_and_answer([[0.0, 1.0], [1.0, 0.0]], [0.2, 0.7, 0.1], "written as a 1").figure.axes
    assert left.get_title() == "written as a 1"
    assert [bar.get_height() for bar in right.patches] == pytest.approx([20, 70, 10])
    assert "1 with 70%, 0 with 20%" in figures.image_and_answer([[0.0]], [0.2, 0.7, 0.1], "written as a 1").alt


def test_a_picture_can_stand_without_its_answer():
    """A question whose answer is drawn beside it."""
    picture = figures.picture_of_a_digit([[0.0, 1.0], [1.0, 0.0]], "written as a 1")
    assert [len(axes.patches) for axes in picture.figure.axes] == [0]
    assert picture.alt == "A handwritten digit of 2 × 2 grey pixels, written as a 1."


@pytest.fixture
def missing_digit():
    images = [[[0.0, 1.0], [1.0, 0.0]]] * 2
    answers = {"labels": [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]], "teacher": [[0.1, 0.1, 0.8], [0.0, 0.6, 0.4]]}
    return figures.missing_digit(images, answers, {"labels": [0.6, 0.4, 0.0], "teacher": [0.1, 0.2, 0.7]}, digit=2)


def test_the_missing_digit_shows_each_student_beneath_each_picture(missing_digit):
    """A student in another row than its name, or answers to other pictures."""
    axes = missing_digit.figure.axes
    assert [len(each.images) for each in axes[:3]] == [1, 1, 0]
    labels, teacher = axes[3:6], axes[6:9]
    assert labels[0].get_ylabel() == "labels"
    assert [bar.get_height() for bar in labels[1].patches] == pytest.approx([0.2, 0.7, 0.1])
    assert [bar.get_height() for bar in teacher[2].patches] == pytest.approx([0.1, 0.2, 0.7])
    assert [text.get_text() for text in teacher[2].texts if text.get_text()] == ["2: 70%"]
    assert [bar.get_hatch() for bar in teacher[0].patches] == [None, None, "///"]


def test_the_missing_digit_is_told_in_words(missing_digit):
    """An alt text without the answers, which are what the picture is for."""
    assert "labels: 0, 1; of all 2s it calls 0% a 2, and 60% a 0." in missing_digit.alt
    assert "teacher: 2, 1; of all 2s it calls 70% a 2, and 20% a 1." in missing_digit.alt
