"""Formulas on pages that load no script."""

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from kdcourse.course.formulas import mathml
from kdcourse.course.html_pages import notebook_to_html


def page(tmp_path, prose):
    path = tmp_path / "01_toy.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell(prose)]), path)
    return notebook_to_html(path, "A toy")


@pytest.mark.parametrize(
    ("prose", "element"),
    [
        ("So $p_T$ is softer.", "<msub><mi>p</mi><mi>T</mi></msub>"),
        ("$$\\frac{a}{b}$$", "<mfrac>"),
        ("$$\\begin{aligned} a &= b \\\\ &= c \\end{aligned}$$", "<mtable"),
        ("\\begin{align} a &= b \\end{align}", "<mtable"),
    ],
)
def test_a_formula_is_mathml(tmp_path, prose, element):
    """A formula that stands there as its source, since the page loads no MathJax."""
    written = page(tmp_path, prose)
    assert element in written
    assert "\\frac" not in written
    assert "$$" not in written


def test_a_function_stands_apart_from_its_argument():
    """ "logp", as if it were one name."""
    assert mathml(r"\log p", "inline").count("<mspace") == 1
    assert mathml(r"\log(p)", "inline").count("<mspace") == 0


def test_code_and_prices_are_no_formulas(tmp_path):
    """A dollar sign in code that begins a formula."""
    written = page(tmp_path, "`$HOME` and `$PATH`, or\n\n    $x + $y")
    assert "<math" not in written
