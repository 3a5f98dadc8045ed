"""Two runs held against each other: what moved, how far for what it may, and what broke."""

import json
import math

import pytest
from typer.testing import CliRunner

from kdcourse.course import cli, compare

VERSIONS = {"kdcourse": "0.1.0", "torch": "2.13.0"}


def entry(name, value, **held_against):
    """A claim as a report has it."""
    empty = dict.fromkeys(("expected", "tolerance", "at_least", "at_most", "spread"))
    return {"name": name, "value": value, **empty, "is_truth": False, "cell": "c", **held_against}


def report(path, lessons, device="cpu", **versions):
    content = {"python": "3.11.7", "versions": VERSIONS | versions, "device": device, "lessons": lessons}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def moves(tmp_path):
    """The moves between two lists of claims of one lesson, by name."""

    def compared(before, after):
        old, new = (
            compare.read_report(report(tmp_path / f"{name}.json", {"00_toy": claims}))
            for name, claims in (("old", before), ("new", after))
        )
        return {move.name: move for move in compare.compare(old, new).moves}

    return compared


def test_a_move_is_measured_by_what_is_allowed(moves):
    """0.001 more, which is nothing for an accuracy and everything for a divergence."""
    before = [entry("kl", 1.0, expected=1.0, tolerance=0.004), entry("gain", 3.0, at_least=1.0, spread=0.5)]
    after = [entry("kl", 1.001, expected=1.0, tolerance=0.004), entry("gain", 2.0, at_least=1.0, spread=0.5)]
    found = moves(before, after)
    assert found["kl"].difference == pytest.approx(0.001)
    assert found["kl"].share_of_room == pytest.approx(0.25)
    assert found["kl"].share_of_spread is None
    assert found["gain"].share_of_room == pytest.approx(0.5)
    assert found["gain"].share_of_spread == pytest.approx(2)
    assert {move.verdict for move in found.values()} == {"held"}


def test_what_became_of_a_claim_has_a_word(moves):
    """A claim that disappeared, and nobody noticed; one that was broken before, and is blamed on the new version."""
    before = [entry(name, value, at_least=1) for name, value in {"a": 1, "b": 1, "c": 0, "d": 0, "e": 1}.items()]
    after = [entry(name, value, at_least=1) for name, value in {"a": 1, "b": 0, "c": 1, "d": 0, "f": 1, "g": 0}.items()]
    assert {name: move.verdict for name, move in moves(before, after).items()} == {
        "a": "held", "b": "broke", "c": "mended", "d": "still broken", "e": "gone", "f": "new", "g": "broke",
    }  # fmt: skip


def test_what_broke_comes_first(moves):
    """The one line that matters, under forty that do not."""
    before = [entry("moved", 1.0, expected=1, tolerance=9), entry("broke", 1.0, expected=1, tolerance=0.1)]
    after = [entry("moved", 9.0, expected=1, tolerance=9), entry("broke", 1.2, expected=1, tolerance=0.1)]
    assert list(moves(before, after)) == ["broke", "moved"]


def test_a_number_that_became_nan_broke(moves):
    """NaN compares with nothing, so nothing is said."""
    (move,) = moves([entry("kl", 1.0, at_least=0)], [entry("kl", "nan", at_least=0)]).values()
    assert move.verdict == "broke"
    assert math.isnan(move.difference)


def call(*arguments):
    return CliRunner().invoke(cli.app, ["compare", *map(str, arguments)])


def test_the_command_says_what_broke_and_fails(tmp_path):
    """A regression in a log, and an exit code of 0."""
    old = report(tmp_path / "old.json", {"00_toy": [entry("kl", 1.0, expected=1, tolerance=0.1)], "01_toy": []})
    new = report(tmp_path / "new.json", {"00_toy": [entry("kl", 1.5, expected=1, tolerance=0.1)]}, torch="2.14.0")
    result = call(old, new)
    assert result.exit_code == 1
    assert "torch: 2.13.0 → 2.14.0" in result.output
    assert "01_toy is in the first run only" in result.output
    assert "00 kl (broke)" in result.output
    assert "500%" in result.output
    assert "1 claim compared, 1 moved, 1 broke, 1 lesson is missing." in result.output


def test_equal_runs_are_equal(tmp_path):
    """A red build for the last bit."""
    claims = {"00_toy": [entry("kl", 1.0, expected=1, tolerance=0.1)]}
    result = call(report(tmp_path / "old.json", claims), report(tmp_path / "new.json", claims, device="NVIDIA T4"))
    assert result.exit_code == 0
    assert "device: cpu → NVIDIA T4" in result.output
    assert "1 claim compared, 0 moved, 0 broke." in result.output


def test_runs_with_nothing_in_common_are_no_success(tmp_path):
    """Two reports of different lessons, compared without a difference."""
    claim = entry("kl", 1.0, expected=1, tolerance=0.1)
    old, new = (report(tmp_path / f"{name}.json", {name: [claim]}) for name in ("00_toy", "01_toy"))
    result = call(old, new)
    assert result.exit_code == 2
    assert "nothing to compare: the first run has claims of 00_toy, the second of 01_toy" in result.output


def test_two_runs_without_claims_are_no_success(tmp_path):
    """Two empty reports, and the good news that nothing broke."""
    empty = report(tmp_path / "empty.json", {"00_toy": []})
    result = call(empty, empty)
    assert result.exit_code == 2
    assert "claims of no lesson" in result.output


def test_a_lesson_that_is_missing_broke(tmp_path):
    """A lesson that no longer runs, and a green comparison of the seven others."""
    claim = entry("kl", 1.0, expected=1, tolerance=0.1)
    old = report(tmp_path / "old.json", {"00_toy": [claim], "01_toy": [claim]})
    new = report(tmp_path / "new.json", {"00_toy": [claim]})
    result = call(old, new)
    assert result.exit_code == 1
    assert "01_toy is in the first run only" in result.output
    assert call(new, old).exit_code == 0  # a lesson that is new broke nothing


def test_a_lesson_of_an_earlier_run_is_named(tmp_path):
    """A number from last month's torch, compared as if it were from today's."""
    claims = {"00_toy": [entry("kl", 1.0, expected=1, tolerance=0.1)]}
    old, new = report(tmp_path / "old.json", claims), report(tmp_path / "new.json", claims)
    content = json.loads(new.read_text(encoding="utf-8")) | {"earlier_runs": {"00_toy": {"torch": "2.12.0"}}}
    new.write_text(json.dumps(content), encoding="utf-8")
    assert "00_toy is older than the rest of the second run: torch 2.12.0" in call(old, new).output


def test_a_name_is_text_and_not_markup(tmp_path):
    """The traceback of a console that takes a claim's name for its own language."""
    claims = {"00_toy": [entry("[/b] :smile:", 0.0, at_least=1)]}
    path = report(tmp_path / "claims.json", claims)
    assert "[/b] :smile:" in call(path, path).output
    assert "[/red]" in call(tmp_path / "none[/red].json", path).output


def test_a_folder_is_told_from_the_file_in_it(tmp_path):
    """ "Is a directory", from somebody who has never heard of a claims.json."""
    report(tmp_path / "claims.json", {"00_toy": []})
    result = call(tmp_path, tmp_path)
    assert result.exit_code == 2
    assert str(tmp_path / "claims.json") in result.output


@pytest.mark.parametrize(
    "change", [{"value": "high"}, {"value": None}, {"tolerance": "wide"}, {"tolerance": None}, {"name": ["kl"]}]
)
def test_a_malformed_field_is_a_sentence(tmp_path, change):
    """A TypeError in the middle of a subtraction."""
    path = report(tmp_path / "old.json", {"00_toy": [entry("kl", 1.0, expected=1, tolerance=0.1) | change]})
    result = call(path, path)
    assert result.exit_code == 2
    assert "is not a claims.json" in result.output


@pytest.mark.parametrize("content", ["", "[]", '{"lessons": {}}', '{"python": "3", "device": "cpu", "versions": 1}'])
def test_another_file_is_a_sentence(tmp_path, content):
    """The traceback of a JSON parser."""
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    result = call(path, path)
    assert result.exit_code == 2
    assert "is not a claims.json" in result.output
    assert "kdcourse run" in call(tmp_path / "none.json", path).output
