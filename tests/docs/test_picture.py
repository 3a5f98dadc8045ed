"""The picture of the README shows what lab 07 stored."""

import importlib.util
import re
import sys

import nbformat
import pytest
from cells import said
from pages import ROOT

from kdcourse.course.lessons import course_lessons
from kdcourse.labs.lab07 import Results

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    """`docs/make_picture.py`, which is in no package."""
    spec = importlib.util.spec_from_file_location("make_picture", ROOT / "docs" / "make_picture.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def models(script):
    return script.points(Results.load())


def test_what_is_drawn_is_what_was_stored(script, models):
    """A picture of an older run, the best seed where the mean belongs, or models in each other's place."""
    results = Results.load()
    (axes,) = script.draw(models).axes
    teacher, *students = (bar.lines[0].get_xydata()[0].tolist() for bar in axes.containers)
    assert teacher == pytest.approx([22.7, 100 * results.teacher["test"]["accuracy"]])
    for drawn, arm in zip(students, ("labels", "soft-20000"), strict=True):
        scores = results.at_best(arm)
        assert drawn == pytest.approx([2.0, 100 * sum(scores) / len(scores)], abs=1e-3)
    seeds = [dots.get_ydata().tolist() for dots in axes.lines if len(dots.get_ydata()) == 5]
    stored = [[100 * score for score in results.at_best(arm)] for arm in ("labels", "soft-20000")]
    assert seeds == [pytest.approx(scores, abs=1e-3) for scores in stored]


def test_the_file_in_the_repository_says_the_same(script, models):
    """Numbers that moved, and a picture that nobody drew again: run `python docs/make_picture.py`."""
    said = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", script.PICTURE.read_text(encoding="utf-8")))
    assert said, "the picture's text is text"
    for model in models:
        assert model.name in said
        assert str(model) in said


def test_the_alt_text_says_what_the_picture_shows(script, models):
    """A reader who cannot see the picture is told last year's numbers."""
    assert f"![{script.describe(models)}](docs/accuracy.svg)" in README


def test_the_parameters_are_those_of_lesson_00(script):
    """Another student than the one that was measured."""
    cells = nbformat.read(course_lessons()[0].path, as_version=4).cells
    shown = "\n".join(str(said(output)) for cell in cells for output in cell.get("outputs", []))
    measured = dict(re.findall(r"parameters of the (\w+), million: ([\d.]+)", shown))
    assert {name: round(float(millions), 1) for name, millions in measured.items()} == script.PARAMETERS


def test_the_same_results_make_the_same_file(script, models, tmp_path, monkeypatch):
    """A diff in the picture after every run."""
    pictures = []
    for name in ("first.svg", "second.svg"):
        monkeypatch.setattr(script, "PICTURE", tmp_path / name)
        script.main()
        pictures.append((tmp_path / name).read_text(encoding="utf-8"))
    assert pictures[0] == pictures[1]
