"""Claims: what does not hold fails the notebook, what holds is shown and recorded."""

import configparser
import math
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from kdcourse.course.claims import BESIDE_A_BOUND, Claim, ClaimError, claim, claims_made, claims_of


@pytest.mark.parametrize(
    ("value", "conditions"),
    [
        (1.0, {"expected": 1.2, "tolerance": 0.1}),
        (1.0, {"at_least": 1.1}),
        (1.0, {"at_most": 0.9}),
        (math.nan, {"expected": 1.0, "tolerance": 9.0}),
        (math.nan, {"at_least": 0.0}),
        (False, {}),
        (torch.tensor(False), {}),
    ],
)
def test_what_does_not_hold_is_an_error(value, conditions):
    """A number in the prose that is no longer so, and a notebook that runs through."""
    with pytest.raises(ClaimError, match="'the number' does not hold"):
        claim("the number", value, **conditions)


@pytest.mark.parametrize("conditions", [{}, {"expected": 1.0}, {"tolerance": 0.1}])
def test_a_number_needs_something_to_be_held_against(conditions):
    """A claim without a tolerance: it prints a number and asserts nothing."""
    with pytest.raises(ValueError, match="needs an expected number with its tolerance"):
        claim("the number", 1.0, **conditions)


@pytest.mark.parametrize(
    "conditions",
    [
        {"expected": 1.0, "tolerance": {"cpu": 0.01, "cuda": 0.1}},
        {"at_most": {"cpu": 1.0, "cuda": 1.1}},
        {"at_least": {"cpu": 1.1, "cuda": 1.0}},
    ],
)
def test_a_bound_may_be_one_for_each_kind_of_device(monkeypatch, conditions):
    """A tolerance that is wide enough for bfloat16 on a GPU, and hides a mistake on a CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    claim("the number", 1.05, **conditions)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ClaimError, match=r"'the number' does not hold"):
        claim("the number", 1.05, **conditions)


def test_what_holds_prints_one_line(capsys):
    """A value that Jupyter would show beneath the line, with all its digits."""
    assert claim("the number", torch.tensor(1.06), 1.0, tolerance=0.1) is None
    assert claim("so it is", torch.tensor(True)) is None
    assert capsys.readouterr().out == "✓ the number: 1.1\n✓ so it is\n"


def test_the_line_shows_no_digit_beyond_the_tolerance():
    """The last digits of one machine in a stored output."""
    assert str(Claim("KL", 1.00212345, 1.0021, 1e-4)) == "✓ KL: 1.0021"
    assert str(Claim("KL", 7.0, 7.0, 0.0)) == "✓ KL: 7"
    assert str(Claim("KL", -1e-17, 0.0, 1e-3)) == "✓ KL: 0.000"
    assert str(Claim("gain", 3.2149, at_least=1.0, at_most=5.0)) == "✓ gain: ≈ 3.21"
    assert str(Claim("rounding", -0.0, at_most=1e-9)) == "✓ rounding: ≈ 0"


def test_a_notebook_records_its_claims():
    """Claims that can be read by people only."""
    source = "from kdcourse.course.claims import claim\nclaim('a', 1.05, 1, tolerance=.1)\nclaim('b', True)\n0"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source), nbformat.v4.new_code_cell("1")])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    first, second = claims_of(notebook)
    assert (first["name"], first["value"], first["expected"], first["tolerance"]) == ("a", 1.05, 1, 0.1)
    assert (second["name"], second["value"], second["is_truth"]) == ("b", 1.0, True)


def test_a_report_can_repeat_what_was_claimed():
    """A model card that keeps quiet about a claim that did not hold, or has one twice after a cell was run again."""
    for value in (1.0, 2.0):
        claim("points that hold", value, at_least=0.5)
    with pytest.raises(ClaimError):
        claim("points that do not", 0.0, at_least=0.5)
    mine = [(made.name, made.value, made.holds) for made in claims_made() if made.name.startswith("points that")]
    assert mine == [("points that hold", 2.0, True), ("points that do not", 0.0, False)]


def test_a_value_beside_a_bound_is_not_compared():
    """A comparison of outputs that fails on another processor, while the claim itself holds."""
    sanitize = configparser.ConfigParser()
    sanitize.read(Path(__file__).parents[1] / "nbval_sanitize.cfg", encoding="utf-8")
    assert sanitize["values beside a bound"]["regex"] == BESIDE_A_BOUND.pattern
    here, there = (str(Claim("gain", value, at_least=1.0)) for value in (3.21, 3.22))
    assert here != there
    assert BESIDE_A_BOUND.sub(r"\1", here) == BESIDE_A_BOUND.sub(r"\1", there)
    exact = str(Claim("gain", 3.21, 3.21, tolerance=0.01))
    assert BESIDE_A_BOUND.sub(r"\1", exact) == exact
