"""The command line: help with an example, one sentence for what the user can mend, and an honest exit code."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

import kdcourse
from kdcourse.course import cli, compare, doctor, lessons
from kdcourse.course.exercises import all_exercises
from kdcourse.course.exercises.progress import FILE_VARIABLE, record
from kdcourse.labs import assets
from kdcourse.labs.assets import AssetError

COMMANDS = sorted(typer.main.get_command(cli.app).commands)


def call(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


def python(code, *arguments, **environment):
    """Run code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=False, timeout=120, env=os.environ | environment,
    )  # fmt: skip


def test_there_are_commands():
    """A list of commands that is empty, and tests of none."""
    assert {"doctor", "assets", "list", "run", "compare", "editions", "progress"} <= set(COMMANDS)


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_ends_with_examples(command, option):
    """Help that lists options and leaves out how to use them; a -h that is no option."""
    result = call(command, option)
    assert result.exit_code == 0
    options, _, examples = result.output.partition("Examples:")
    assert "--help" in options
    assert f"kdcourse {command}" in examples


def test_the_version_is_said():
    """A bug report that cannot say of what."""
    result = call("--version")
    assert (result.exit_code, result.output.strip()) == (0, f"kdcourse {kdcourse.__version__}")


def test_a_shell_can_complete_commands_and_lessons():
    """A word that has to be typed to its end."""
    for words, expected in (("kdcourse pro", "progress"), ("kdcourse run 03", "03_temperature_and_t_squared")):
        asked = {"_KDCOURSE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run(
            [sys.executable, "-m", "kdcourse"], capture_output=True, text=True, check=False, env=os.environ | asked
        )
        assert done.stdout.split() == [expected], done.stderr


def test_list_names_the_lessons():
    """A lesson without a title or a question."""
    result = call("list")
    assert result.exit_code == 0
    assert "00 · " in result.output
    assert "?" in result.output
    assert "35 min" in result.output


def test_a_row_in_a_pipe_is_a_line():
    """A `grep` that finds half a question."""
    lines = call("list").output.splitlines()
    assert len(lines) == len(lessons.all_lessons())


def test_assets_that_are_there_are_shown():
    """A command that says nothing, so that one wonders whether it worked."""
    result = call("assets")
    assert result.exit_code == 0
    assert all(name in result.output for name in assets.catalogue())


@pytest.mark.parametrize(
    "arguments",
    [
        ("assets", "wrong"), ("assets", "[/wrong]"), ("wrong",), ("list", "--wrong"),
        ("run", "wrong"), ("run", "[/wrong]"), ("run", "--profile", "wrong"), ("run", "--device", "wrong"),
        ("run", "--seed", "wrong"), ("run", "-p", "wrong"), ("run", "-p", "1wrong=1"), ("run", "-p", "PROFILE=wrong"),
        ("run", "--cell-seconds", "wrong"), ("compare", "wrong", "wrong"), ("editions", "wrong"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_words_that_mean_nothing_are_refused(arguments):
    """A typing error that runs the default, has a traceback, or an exit code of its own."""
    result = call(*arguments)
    assert result.exit_code == 2
    assert arguments[-1] in result.output or arguments[-2] in result.output
    assert isinstance(result.exception, SystemExit)


def test_a_file_where_a_folder_belongs_is_a_sentence(tmp_path):
    """ "FileExistsError", after the imports of a minute."""
    (tmp_path / "file").touch()
    result = call("editions", "00", "--out", str(tmp_path / "file"))
    assert result.exit_code == 2
    assert str(tmp_path / "file") in result.output


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
    assert result.exit_code == 2
    assert "no lesson '99'" in result.output


def test_the_doctor_ends_in_1_if_something_would_stop_the_course(monkeypatch):
    """A red mark that scripts cannot see."""
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("disk", "problem", "0.1 GB free", "Free some.")])
    result = call("doctor")
    assert result.exit_code == 1
    assert "Free some." in result.output
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("memory", "note", "3 GB free", "Close some.")])
    assert call("doctor").exit_code == 0


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A claims.json with one claim."""
    claim = {"name": "kl", "value": 1.0, "at_least": 0.5}
    content = {"python": "3", "device": "cpu", "versions": {}, "lessons": {"00_toy": [claim]}}
    path = tmp_path_factory.mktemp("report") / "claims.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


QUICK = [["--help"], ["run", "--help"], ["list"], ["list", "--not-compared"], ["progress"], ["compare"]]


@pytest.mark.parametrize("command", QUICK, ids=" ".join)
def test_a_command_that_only_reads_does_not_wait_for_heavy_imports(command, report):
    """Seconds before `kdcourse list` answers."""
    heavy = {"torch", "transformers", "datasets", "evaluate", "numpy", "scipy", "nbformat", "papermill", "matplotlib"}
    command = [*command, report, report] if command == ["compare"] else command
    run = f"""
import sys
from kdcourse.__main__ import main
try:
    main()
except SystemExit as end:
    print(end.code, sorted({heavy} & set(sys.modules)), file=sys.stderr)
"""
    assert python(run, *command).stderr.strip().splitlines()[-1:] == ["0 []"]


@pytest.mark.parametrize("command", QUICK, ids=" ".join)
def test_a_command_that_only_reads_is_quick(command, report):
    """A library that was imported for its name; about 0.3 s are measured on two quiet cores."""
    command = [*command, report, report] if command == ["compare"] else command
    assert best_of(3, "-m", "kdcourse", *command) < max(1.0, 30 * best_of(3, "-c", "pass"))


def best_of(times, *arguments):
    """Seconds of the quickest of a few calls of Python."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=60)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise {error}
sys.meta_path.insert(0, Missing())
from kdcourse.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("name", "command"),
    [("typer", "list"), ("rich", "list"), ("papermill", "run"), ("psutil", "doctor"), ("nbconvert", "editions")],
)
def test_a_missing_package_is_a_sentence_that_says_what_to_install(name, command):
    """A traceback that ends in "No module named 'typer'", for whoever installed the library alone."""
    error = "ModuleNotFoundError(f'No module named {name!r}', name=name)"
    done = python(WITHOUT.format(name=name, error=error), command)
    assert done.returncode == 2
    assert 'This command needs the course\'s packages: pip install "kdcourse[course]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_of_our_own_is_no_missing_package():
    """A module of the course that was renamed, reported as something to install."""
    error = "ModuleNotFoundError('No module', name='kdcourse.course.nothing')"
    done = python(WITHOUT.format(name="typer", error=error), "list")
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("name", "command"), [("typer", "list"), ("rich", "list"), ("papermill", "run"), ("torch", "doctor")]
)
def test_control_c_during_imports_is_a_sentence(name, command):
    """Forty lines of a library's imports, since somebody had changed their mind."""
    pressed = "KeyboardInterrupt(*([sys.meta_path.remove(self)] and []))"  # once, or nothing could be said of it
    done = python(WITHOUT.format(name=name, error=pressed), command)
    assert done.returncode == 130
    assert done.stderr.strip() in ("Stopped.", "✗ Stopped.")


@pytest.mark.parametrize(
    ("command", "owner", "name"),
    [
        (["doctor"], doctor, "examine"), (["assets"], assets, "fetch"), (["list"], lessons, "all_lessons"),
        (["compare", "a", "b"], compare, "read_report"), (["editions"], lessons, "find_lessons"),
        (["progress"], lessons, "all_lessons"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_control_c_is_a_sentence_whatever_runs(monkeypatch, command, owner, name):
    """A traceback, "Aborted!", or an exit code that looks like a failure."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupt)
    result = call(*command)
    assert result.exit_code == 130
    assert result.output.strip() == "✗ Stopped."


def test_progress_shows_what_is_solved(monkeypatch, tmp_path):
    """An exercise that was solved and is not shown so."""
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "progress.json"))
    record("01.forward_kl", "misconception")
    record("01.forward_kl", "passed")
    result = call("progress")
    assert result.exit_code == 0
    (row,) = [line for line in result.output.splitlines() if "01.forward_kl" in line]
    assert "✓" in row
    assert row.rstrip().endswith("2")
    assert re.search(r"1 of \d+ solved", result.output)


def test_progress_says_what_comes_next(monkeypatch, tmp_path):
    """A table of forty rows, and the question where one was."""
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "progress.json"))
    assert "Next: 00.soft_label in lesson 00 (4 minutes)." in call("progress").output
    record("00.soft_label", "passed")
    record("00.one_sentence", "misconception")
    assert "Next: 00.one_sentence in lesson 00 (" in call("progress").output
    for name in all_exercises():
        record(name, "passed")
    assert f"All {len(all_exercises())} solved." in call("progress").output


def test_progress_lists_the_exercises_that_there_are():
    """An exercise whose heading is written in another way, and which nobody is sent to."""
    announced = [exercise for lesson in lessons.all_lessons() for exercise in lesson.exercises]
    known = all_exercises().values()
    assert {(each.id, each.title, each.minutes) for each in announced} == {
        (each.id, each.title, each.minutes) for each in known
    }
    assert len(announced) == len(known)


@pytest.mark.parametrize("content", ["", "[]", '{"01.forward_kl": 1}', '{"01.forward_kl": {"passed": "yes"}}'])
def test_a_damaged_record_is_a_sentence_and_stops_no_exercise(monkeypatch, tmp_path, content):
    """The traceback of a JSON parser, where somebody's answer was to be checked."""
    path = tmp_path / "progress.json"
    path.write_text(content, encoding="utf-8")
    monkeypatch.setenv(FILE_VARIABLE, str(path))
    result = call("progress")
    assert result.exit_code == 2
    assert str(path) in result.output
    assert "the old one is" in record("01.forward_kl", "passed")
    assert (tmp_path / "progress.yours-1.json").read_text(encoding="utf-8") == content
    assert call("progress").exit_code == 0
