"""Figures: what they show, said in words as well."""

from base64 import b64decode

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from kdcourse.labs import figures


def draw():
    """A figure, whichever."""
    return figures.alpha_sweep({"a": {0.0: [0.5, 0.6], 1.0: [0.7, 0.7]}})


@pytest.mark.parametrize("last_line", ["picture", "picture.show()"])
def test_a_picture_shows_itself_with_its_words(last_line):
    """A picture without an alt text, which nbconvert then calls missing; or one that is shown twice."""
    code = "from kdcourse.labs import figures\npicture = figures.alpha_sweep({'a': {0.0: [0.5, 0.6], 1.0: [0.7, 0.7]}})"
    notebook = new_notebook(cells=[new_code_cell(f"%matplotlib inline\n{code}\n{last_line}")])
    NotebookClient(notebook, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert b64decode(output.data["image/png"])[:4] == b"\x89PNG"
    assert output.data["text/plain"] == "Test accuracy in % against alpha. a: 55.0 at 0, 70.0 at 1."
    assert output.metadata["image/png"]["alt"] == output.data["text/plain"]


def test_a_mime_bundle_holds_the_picture_and_its_words():
    """A front end that is given one of the two, or the words under a name that it does not know."""
    picture = draw()
    data, metadata = picture._repr_mimebundle_(include=None, exclude=None)
    assert data.keys() == {"image/png", "text/plain"}
    assert data["image/png"][:4] == b"\x89PNG"
    assert data["text/plain"] == picture.alt
    assert metadata == {"image/png": {"alt": picture.alt}}


def test_a_figure_that_has_not_changed_is_the_same_file():
    """A diff in every picture after every run, or after it has been shown before."""
    first, again = (draw() for _ in range(2))
    assert first._repr_mimebundle_() == again._repr_mimebundle_() == first._repr_mimebundle_()


def test_the_terms_of_a_divergence_stand_beside_their_sum():
    """A bar that is not what it is labelled, or a sum of something else."""
    _, right = figures.divergence_terms(["a", "b", "c"], [0.7, 0.2, 0.1], [0.1, 0.3, 0.6]).figure.axes
    assert [bar.get_height() for bar in right.patches] == pytest.approx([-0.1946, 0.1216, 1.0751, 1.0021], abs=1e-4)
    assert [text.get_text() for text in right.texts] == ["−0.19", "+0.12", "+1.08", "+1.00"]
    words = figures.divergence_terms(["a", "b", "c"], [0.7, 0.2, 0.1], [0.1, 0.3, 0.6]).alt
    assert "a, teacher 0.1, student 0.7, term −0.19" in words
    assert words.endswith("add up to 1.00.")


def test_the_words_on_covering_and_seeking_follow_the_numbers():
    """An alt text written for one sentence, shown beside another."""
    covering, seeking = (
        figures.covering_and_seeking([-1, 0, 1], [0.5, 0, 0.5], [0.3, 0.4, 0.3], [0, 0.1, 0.9]).figure.axes[0].lines
    )
    assert (covering.get_ydata().tolist(), seeking.get_ydata().tolist()) == ([0.3, 0.4, 0.3], [0, 0.1, 0.9])
    words = figures.covering_and_seeking([-1, 0, 1], [0.5, 0, 0.5], [0.3, 0.4, 0.3], [0, 0.1, 0.9]).alt
    assert "ratings −1 to +1" in words
    assert "reverse KL, one narrow peak, gives 0% to the negative ratings, 10% to 0 and 90%" in words


def test_a_position_teaches_by_the_label_after_it():
    """The figure of lesson 06 with the very mistake that it is about: a mask off by one."""
    grid = figures.TokenGrid(
        tokens=[["ask", "a", "b", "end"], ["ask", "c", "end", "end"]],
        has_label=[[False, True, True, True], [False, True, True, False]],
        is_padding=[[False] * 4, [False] * 3 + [True]],
        is_end=[[False] * 3 + [True], [False] * 2 + [True, False]],
    )
    above, below = figures.supervised_positions(grid).figure.axes
    filled = [[patch.get_facecolor()[:3] != (1, 1, 1) for patch in axes.patches] for axes in (above, below)]
    assert filled == [
        [False, True, True, True, False, True, True, False],
        [True] * 3 + [False] + [True] * 2 + [False] * 2,
    ]
    assert "b → end" in [text.get_text() for text in below.texts]
    assert "text 2 has labels at positions 1 to 2 of 4, 1 of them padding" in figures.supervised_positions(grid).alt


def test_accuracy_by_steps_rings_the_best_number_of_each_arm():
    """A ring around the last point, or around one seed's best."""
    arms = {
        "labels": {200: [0.70, 0.72], 400: [0.77, 0.79], 1000: [0.70, 0.80]},
        "soft": {200: [0.60, 0.62], 400: [0.70, 0.72], 1000: [0.79, 0.81]},
    }
    (axes,) = figures.accuracy_by_steps(arms).figure.axes
    rings = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_fillstyle() == "none"]
    assert rings == [[400, pytest.approx(78)], [1000, pytest.approx(80)]]
    assert "labels: 71.0 ± 1.4 after 200, 78.0 ± 1.4 after 400" in figures.accuracy_by_steps(arms).alt


def test_the_transfer_curve_sets_the_other_domain_apart():
    """Sentences of another domain as one more point of the curve."""
    given = {0: [0.76, 0.78], 5000: [0.78, 0.80]}, (5000, [0.74, 0.76]), [0.75, 0.75]
    (axes,) = figures.transfer_curve(*given).figure.axes
    curve, other = (container.lines[0] for container in axes.containers)
    assert curve.get_xydata().tolist() == [[0, pytest.approx(77)], [5000, pytest.approx(79)]]
    assert other.get_xydata().tolist() == [[5000, pytest.approx(75)]]
    words = figures.transfer_curve(*given).alt
    assert "77.0 ± 1.4 with 0; 79.0 ± 1.4 with 5,000; 75.0 ± 1.4 with 5,000 from newspaper editorials" in words
