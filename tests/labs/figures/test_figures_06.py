"""The figures of lesson 06: what they draw, and what they say."""

from kdcourse.labs import figures
from kdcourse.labs.figures import Curve, Cut


def test_a_box_is_as_wide_as_its_characters():
    """Cuts that seem to agree because every token is drawn equally wide."""
    cuts = {"words": [Cut(0, 3, 7), Cut(4, 6, 8)], "letters": [Cut(0, 1, 1), Cut(1, 6, 2)]}
    picture = figures.cuts_of_a_sentence("not it", cuts)
    (axes,) = picture.figure.axes
    assert [round(patch.get_x() - 0.05) for patch in axes.patches] == [0, 4, 0, 1]
    assert [round(patch.get_width() + 0.1) for patch in axes.patches] == [3, 2, 1, 5]
    assert "words makes 2 tokens: 'not' is 7, 'it' is 8; letters makes 2 tokens: 'n' is 1, 'ot it' is 2" in picture.alt
    assert {"7", "8", "n", "words\n2 tokens"} <= {text.get_text() for text in axes.texts}


def test_a_curve_is_the_mean_of_its_seeds_within_their_range():
    """One lucky seed that is drawn as the result."""
    curves = [
        Curve("labels", [0, 10, 20], [[7, 5, 6], [7, 3, 5]]),
        Curve("teacher", [0, 10, 20], [[7, 4, 3], [7, 4, 3]]),
    ]
    picture = figures.learning_curves({"hard loss": curves, "soft loss": curves[:1]})
    hard, soft = picture.figure.axes
    assert [list(line.get_ydata()) for line in hard.lines] == [[7, 4, 5.5], [7, 4, 3]]
    assert hard.collections[0].get_paths()[0].get_extents().bounds == (0, 3, 20, 4)
    assert len(soft.lines) == 1
    assert "hard loss: labels 7.00 at step 0, lowest 4.00 at step 10, 5.50 at step 20" in picture.alt
    assert len({(line.get_marker(), line.get_linestyle()) for line in hard.lines}) == 2
