"""The command line: help with an example, one sentence for what the user can mend, and an honest exit code."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from kdcourse.course import cli, doctor
from kdcourse.course.exercises.progress import FILE_VARIABLE, record
from kdcourse.labs import assets
from kdcourse.labs.assets import AssetError

COMMANDS = ["doctor", "assets", "list", "run", "compare", "editions", "progress"]


def call(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    """Help that lists options and leaves out how to use them."""
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"kdcourse {command}" in result.output


def test_list_names_the_lessons():
    """A lesson without a title or a question."""
    result = call("list")
    assert result.exit_code == 0
    assert "00 · " in result.output
    assert "?" in result.output


def test_assets_that_are_there_are_shown():
    """A command that says nothing, so that one wonders whether it worked."""
    result = call("assets")
    assert result.exit_code == 0
    assert all(name in result.output for name in assets.catalogue())


@pytest.mark.parametrize("arguments", [("assets", "nothing"), ("run", "00", "--profile", "slow")])
def test_words_that_mean_nothing_are_refused(arguments):
    """A typing error that runs the default."""
    result = call(*arguments)
    assert result.exit_code == 2
    assert "slow" in result.output or "nothing" in result.output


def test_what_the_user_can_mend_is_a_sentence(monkeypatch):
    """A traceback for a full disk."""

    def fail(*_, **__):
        raise AssetError("The disk is full.")

    monkeypatch.setattr(assets, "fetch", fail)
    result = call("assets", "minilm")
    assert result.exit_code == 1
    assert "The disk is full." in result.output
    assert "Traceback" not in result.output


def test_an_unknown_lesson_is_a_sentence():
    """Nothing to run, and success."""
    result = call("run", "99")
    assert result.exit_code == 1
    assert "no lesson '99'" in result.output


def test_the_doctor_ends_in_1_if_something_would_stop_the_course(monkeypatch):
    """A red mark that scripts cannot see."""
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("disk", "problem", "0.1 GB free", "Free some.")])
    result = call("doctor")
    assert result.exit_code == 1
    assert "Free some." in result.output
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("memory", "note", "3 GB free", "Close some.")])
    assert call("doctor").exit_code == 0


def test_the_command_line_does_not_wait_for_torch():
    """Seconds before `--help` answers."""
    heavy = "{'torch', 'transformers', 'datasets', 'evaluate'}"
    check = f"import sys, kdcourse.course.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_progress_shows_what_is_solved(monkeypatch, tmp_path):
    """An exercise that was solved and is not shown so."""
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "progress.json"))
    record("01.entropy", "misconception")
    record("01.entropy", "passed")
    result = call("progress")
    assert result.exit_code == 0
    (row,) = [line for line in result.output.splitlines() if "01.entropy" in line]
    assert "✓" in row
    assert row.rstrip().endswith("2")
    assert re.search(r"1 of \d+ solved", result.output)
