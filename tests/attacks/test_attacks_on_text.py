"""Text is text: whatever stands in a name, a path, an option or an error, it is shown and not obeyed."""

import base64
import hashlib
import html
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import nbformat
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from typer.testing import CliRunner

from kdcourse.course import (
    cli,
    editions,
    environment,
    html_pages,
    junit_xml,
    jupyterlab,
    lessons,
    run,
    run_and_report,
    text,
    working_copy,
)
from kdcourse.course.bundle import making
from kdcourse.course.exercises.progress import FILE_VARIABLE, progress_file
from kdcourse.course.lessons import FOLDER_VARIABLE, Lesson
from kdcourse.course.misuse import MisuseError
from kdcourse.course.outcome import Outcome, Record, write_executed
from kdcourse.course.parameters import ParameterError, parameters_of, require_fitting
from kdcourse.course.rehearsal import rehearse
from kdcourse.course.workshop import guide
from kdcourse.labs import assets

HOSTILE = {
    "markup": "[/b]", "a colour": "[red]x[/red]", "a link": "[link=http://x]y[/link]", "an emoji code": ":smile:",
    "braces": "{0}{a[b].c}", "half a brace": "{", "percent": "%s%n%(x)s%",
    "spaces": " a  b\t", "line breaks": "a\nb\r\nc",
    "a dash": "-x", "an option": "--help-me", "a bare dash": "-", "an escape": "\x1b[2J\x1b[1A", "a bell": "\x07",
    "right to left": "\u202egpj.exe", "combining": "e\u0301" * 9, "half a character": "\udc80\udcff", "a smile": "😀",
    "Hebrew": "שלום", "long": "x" * 5000, "nobody's home": "~nobody-of-this-name/x", "a shell": "$(id);`id`'\"",
    "up": "../../etc/passwd", "nothing": "", "a space": " ", "NaN": "nan", "infinity": "1e999", "digits": "9" * 5000,
    "equals": "a=b=c", "a star": "*", "backslashes": "C:\\x\\n", "a device": "con",
    "a tag": "<script>alert(1)</script>", "not a character": "\ufffe\uffff", "brackets": "[" * 3000,
}  # fmt: skip

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal would do something for, or what no stream can write."""


def call(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


def refuse(*_, **__):
    raise MisuseError("A class of forty takes minutes.")


def words_of(parameter, hostile):
    """The parameter, given as this text."""
    return [hostile] if isinstance(parameter, click.Argument) else [f"{parameter.opts[0]}={hostile}"]


def places():
    """Every argument and option that takes a value, of every command."""
    for name, command in sorted(typer.main.get_command(cli.app).commands.items()):
        for parameter in command.params:
            if not getattr(parameter, "is_flag", False):
                yield pytest.param(name, parameter, id=f"{name} {parameter.name}")


@pytest.fixture
def harmless(monkeypatch, tmp_path):
    """A folder to be in, where commands do all but what takes minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "progress.json"))
    monkeypatch.setattr(run_and_report, "run_and_report", lambda *_, **__: [])
    monkeypatch.setattr(editions, "write_editions", lambda *_, **__: {})
    monkeypatch.setattr(working_copy, "start", lambda *_, **__: working_copy.Copied())
    monkeypatch.setattr(jupyterlab, "open_lab", lambda *_, **__: 0)
    monkeypatch.setattr(assets, "fetch", lambda *_, **__: tmp_path)
    monkeypatch.setattr(making, "make_bundle", lambda *_, **__: "0" * 64)
    monkeypatch.setattr(rehearse, "rehearse", refuse)
    monkeypatch.setattr(guide, "write_guide", lambda *_, **__: {})


@pytest.mark.slow
@pytest.mark.parametrize(("command", "parameter"), list(places()))
def test_hostile_words_are_a_sentence(harmless, command, parameter):
    """A traceback for a bracket; a terminal that is cleared by the name of a file."""
    for name, hostile in HOSTILE.items():
        for before in ([], ["--"] if isinstance(parameter, click.Argument) else []):
            result = call(command, *before, *words_of(parameter, hostile))
            assert result.exit_code in (0, 1, 2), name
            assert result.exception is None or isinstance(result.exception, SystemExit), name
            assert "Traceback" not in result.output, name
            assert not OBEYED.search(result.output), name


VARIABLES = [FOLDER_VARIABLE, FILE_VARIABLE, assets.CACHE_VARIABLE, assets.SOURCE_VARIABLE]


@pytest.mark.slow
@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("command", ["list", "progress", "assets", "doctor"])
def test_hostile_variables_are_a_sentence(harmless, monkeypatch, command, variable):
    """A traceback for a path that no file can have."""
    for name, hostile in HOSTILE.items():
        monkeypatch.setenv(variable, hostile)
        result = call(command)
        assert result.exit_code in (0, 1, 2), name
        assert result.exception is None or isinstance(result.exception, SystemExit), name
        assert not OBEYED.search(result.output), name


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("SEED=", "SEED has an option of its own, --seed"), ("PROFILE=3", "has an option of its own, --profile"),
        ("x", "it is NAME=VALUE"), ("=1", "it is NAME=VALUE"), ("1x=1", "it is NAME=VALUE"), ("", "it is NAME=VALUE"),
        ("a b=1", "it is NAME=VALUE"), ("STEPS=1e999", "inf is no finite number"), ("STEPS=-1e999", "-inf is no"),
        ("STEPS=[1, [1e999]]", "inf is no finite number"), ("STEPS={'a': 1e999}", "inf is no finite number"),
        ("STEPS=" + "9" * 30, "beyond 64 bits"), ("STEPS=9223372036854775808", "beyond 64 bits"),
        ("STEPS={1, 2}", "cannot be a set"), ("STEPS=b'1'", "cannot be a bytes"), ("STEPS=1j", "cannot be a complex"),
        ("STEPS=...", "cannot be a ellipsis"), ("STEPS=\udc80", "no text in UTF-8"), ("STEPS=['\udc80']", "no text"),
    ],
)  # fmt: skip
def test_a_bad_parameter_is_a_sentence(pair, said):
    """A lesson that fails after minutes, in a cell that its learner has never seen."""
    with pytest.raises(ParameterError, match="--parameter is ") as caught:
        parameters_of([pair])
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_parameter_is_given_once():
    """The first of two, which is lost without a word."""
    with pytest.raises(ParameterError, match="STEPS is given twice"):
        parameters_of(["STEPS=1", "STEPS=2"])


@pytest.mark.parametrize(
    ("value", "default"),
    [
        ("x", "100"), ("", "100"), ("[", "100"), ("1.5", "100"), ("True", "100"), ("None", "100"), ("nan", "0.5"),
        ("True", "0.5"), ("3", "'quick'"), ("1", "True"), ("3", "[1, 2]"), ("[1]", "{}"), ("9**99", "100"),
    ],
)  # fmt: skip
def test_a_parameter_is_of_the_kind_of_its_default(value, default):
    """`-p STEPS=1O0`, with a letter, which trains for the default and fails, or compares as a text."""
    (given_,) = parameters_of([f"STEPS={value}"]).values()
    with pytest.raises(ParameterError, match=r"STEPS is .*; in 00_toy it is") as caught:
        require_fitting("STEPS", given_, default, "00_toy")
    assert default in str(caught.value)


@pytest.mark.parametrize(
    ("value", "default"),
    [("3", "100"), ("3", "0.5"), ("1e-3", "0.5"), ("x", "'a'"), ("(1, 2)", "[1]"), ("x", "None"), ("x", "len('abc')")],
)
def test_a_parameter_that_fits_is_taken(value, default):
    """A learning rate of 1, which is no float."""
    require_fitting("STEPS", parameters_of([f"STEPS={value}"])["STEPS"], default, "00_toy")


@settings(deadline=None)
@given(st.text())
def test_any_pair_is_a_parameter_or_a_sentence(pair):
    """The text that nobody thought of."""
    try:
        (value,) = parameters_of([f"STEPS={pair}"]).values()
    except ParameterError:
        return
    assert json.loads(json.dumps(value, allow_nan=False)) is not NotImplemented


@pytest.mark.parametrize("seed", ["-1", "4294967296", "1.5", "nan"])
def test_a_seed_that_numpy_refuses_is_refused_first(seed):
    """A ValueError in the third cell."""
    result = call("run", f"--seed={seed}")
    assert result.exit_code == 2
    assert "--seed" in result.output


@settings(deadline=None)
@given(st.text(st.characters(categories=["Cc", "Cs", "Cf", "L"]) | st.sampled_from("\ufffe\uffff\u2028")))
def test_what_is_shown_is_not_obeyed(hostile):
    """A name that moves the cursor, or that XML has no character for."""
    assert not OBEYED.search(text.visible(hostile).replace("\n", "").replace("\t", ""))
    assert len(text.in_one_line(hostile).splitlines()) <= 1
    ET.fromstring(f"<a>{html.escape(text.visible(hostile))}</a>")  # noqa: S314  (our own)


def outcome_of(folder, name, *outputs, problem="", title="A toy", claim="kl"):
    """A lesson that ran, and shows these outputs."""
    record = {"name": claim, "value": 0.0, "at_least": 1.0, "is_truth": False, "holds": False}
    shown = new_output("display_data", {"text/plain": "✗"}, metadata={"kdcourse_claim": record})
    cells = [
        new_markdown_cell(f"# {title}", id="head"),
        new_code_cell("1", id="cell", execution_count=1, outputs=[shown, *outputs]),
    ]
    path, record = folder / f"{name}.ipynb", Record("", 1.0, problem, "cell")
    write_executed(new_notebook(cells=cells), record, path)
    return Outcome(Lesson(path), path, record)


ERROR = "\x1b[31mValueError\x1b[0m: \x00 \ufffe \udc80 <script>alert(1)</script> &amp; ]]>"


def test_junit_is_xml_whatever_was_raised(tmp_path):
    """A page of a continuous integration that shows nothing, since an error was in colour."""
    path = junit_xml.write_junit([outcome_of(tmp_path, "00_toy", problem=ERROR, claim=ERROR)], tmp_path)
    tree = ET.parse(path)  # noqa: S314  (our own)
    (run_case, claim_case) = tree.iter("testcase")
    assert "\\x1b[31mValueError" in run_case.find("failure").get("message")
    assert "<script>" in claim_case.get("name")


class Page(HTMLParser):
    """The links, the scripts and the policy of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.scripts, self.policy = [], 0, ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found["href"]] if tag == "a" else []
        self.scripts += tag == "script"
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]


def test_reports_show_what_was_raised_as_text(tmp_path):
    """An error message, a claim or a title that is part of the page, and runs in it."""
    outcome = outcome_of(tmp_path, "00_toy", problem=ERROR, claim=ERROR, title="<script>alert(1)</script>")
    html_pages.write_reports([outcome], tmp_path, "<script>alert(1)</script>")
    for name in ("report.html", "index.html"):
        page = Page(tmp_path / name)
        assert page.scripts == 0
        assert "default-src 'none'" in page.policy
        assert "script-src 'none'" in page.policy
        assert not OBEYED.search((tmp_path / name).read_text(encoding="utf-8").replace("\n", ""))


@pytest.mark.parametrize("name", ["00_a b", "00_a#b?c=d", "00_100%", "00_{0}", "00_é😀", "00_[b]", "00_<b>&'\""])
def test_links_lead_to_lessons_of_any_name(tmp_path, name):
    """A link that ends at the first `#` of a name."""
    outcome = outcome_of(tmp_path, name)
    html_pages.write_lesson(outcome, tmp_path)
    html_pages.write_reports([outcome], tmp_path, "cpu")
    for page in ("report.html", "index.html"):
        links = [urlsplit(link) for link in Page(tmp_path / page).links]
        assert all((tmp_path / unquote(link.path)).is_file() for link in links)
        assert f"{name}.html" in [unquote(link.path) for link in links]


OUTPUTS = [
    new_output("display_data", {"text/html": "<script>alert(1)</script><img src=http://127.0.0.1/x onerror=alert(1)>"}),
    new_output("display_data", {"application/javascript": "alert(1)"}),
    new_output("error", ename="<script>alert(2)</script>", evalue=ERROR.replace("\udc80", ""), traceback=[ERROR[:-20]]),
    new_output("stream", name="stdout", text="<script>alert(2)</script>"),
]


def test_a_page_lets_no_output_run_or_call(tmp_path):
    """A lesson of somebody else's, opened to look at it, which asks a server who does."""
    outcome = outcome_of(tmp_path, "00_toy", *OUTPUTS, title="A <script>alert(1)</script>")
    html_pages.write_lesson(outcome, tmp_path)
    page = Page(tmp_path / "00_toy.html")
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules["default-src"] == rules["form-action"] == rules["base-uri"] == "'none'"
    assert rules["img-src"] == rules["font-src"] == "data:"
    written = (tmp_path / "00_toy.html").read_text(encoding="utf-8")
    assert "<script>alert(2)" not in written
    scripts = [
        script for script in re.findall(r"<script>(.*?)</script>", written, re.DOTALL) if digest(script) in written
    ]
    assert [script.count("kdcourse-predict") for script in scripts] == [1]
    assert rules["script-src"] == f"'sha256-{digest(scripts[0])}'"
    assert written.index("Content-Security-Policy") < written.index("<style")


def digest(script):
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def test_of_slides_only_our_script_runs(tmp_path):
    """Keys that turn no page, since the browser does not know the script; or an output that runs beside it."""
    cells = [new_markdown_cell("## One\n\n<script>alert(3)</script>"), new_code_cell("1", outputs=OUTPUTS)]
    page = editions.slides(new_notebook(cells=cells), lessons.Lesson(tmp_path / "00_toy.ipynb"))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    allowed = re.findall(r"sha256-([\w+/=]+)", page)
    assert len(allowed) == 1
    assert [digest(script) in allowed for script in scripts] == [False, True]
    assert "keydown" in scripts[1]


ENCODINGS = ["cp1252", "ascii", "latin-1", "cp437", "utf-8"]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_console_shows_marks_and_arrows(tmp_path, encoding):
    """A UnicodeEncodeError for a tick, on Windows and in a log of a continuous integration."""
    for which, value in (("old", 1.0), ("new", 0.0)):
        claim = {"name": "KL(q ‖ p) ± \udc80", "value": value, "at_least": 0.5}
        content = {"python": "3", "device": which, "versions": {}, "lessons": {"00_toy": [claim]}}
        (tmp_path / f"{which}.json").write_text(json.dumps(content), encoding="utf-8")
    for arguments, code in (
        (["compare", "old.json", "new.json"], 1),
        (["list"], 0),
        (["run", "--help"], 0),
        (["list", "✓"], 2),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "kdcourse", *arguments],
            capture_output=True, check=False, cwd=tmp_path, timeout=120,
            env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "NO_COLOR": "1", "COLUMNS": "40"},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr
        said = done.stdout.decode(encoding)
        if arguments[0] == "compare":
            assert ("✗" if encoding == "utf-8" else "x") in said
            assert ("old → new" if encoding == "utf-8" else "old -> new") in said


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["1", "0", "-5", "wide", "100000"])
def test_a_console_of_any_width_is_written_to(columns):
    """A division by the width, or a table of no columns."""
    for arguments in (["list"], ["--help"], ["list", "--wrong"]):
        done = subprocess.run(
            [sys.executable, "-m", "kdcourse", *arguments], capture_output=True, check=False, timeout=120,
            env=os.environ | {"COLUMNS": columns, "FORCE_COLOR": "1"},
        )  # fmt: skip
        assert done.returncode == (2 if "--wrong" in arguments else 0), done.stderr
        assert b"Traceback" not in done.stderr


def test_a_relative_path_is_the_same_for_a_kernel(monkeypatch, tmp_path):
    """Assets that were fetched into one folder, and are looked for in another, which is that of the lessons."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(assets.CACHE_VARIABLE, "cache")
    monkeypatch.setenv(FILE_VARIABLE, "progress.json")
    monkeypatch.setenv(FOLDER_VARIABLE, "lessons")
    found = environment.kernel_environment()
    assert found[assets.CACHE_VARIABLE] == str(assets.cache_dir().absolute()) == str(tmp_path / "cache")
    assert found[FILE_VARIABLE] == str(tmp_path / "progress.json")
    assert found[FOLDER_VARIABLE] == str(tmp_path / "lessons")


def test_a_home_is_found_and_an_empty_variable_is_none(monkeypatch, tmp_path):
    """A folder named ~; the folder that one is in, for a variable that was meant to be unset."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv(FILE_VARIABLE, "~/progress.json")
    assert progress_file() == tmp_path / "progress.json"
    monkeypatch.setenv(FILE_VARIABLE, "")
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    assert progress_file().name == "progress.json" and progress_file().parent != Path.cwd()
    assert lessons.notebooks_folder() != Path()
    monkeypatch.setenv(FILE_VARIABLE, "~nobody-of-this-name/progress.json")
    with pytest.raises(lessons.LessonError, match="that user has no folder here"):
        progress_file()


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("my copy", "kdcourse lab 'my copy'"), ("-copy", "kdcourse lab ./-copy"), ("it's", "kdcourse lab 'it'\"'\"'s'"),
        ("$(id)", "kdcourse lab '$(id)'"), ("copy", "kdcourse lab copy"),
    ],
)  # fmt: skip
@pytest.mark.skipif(os.name != "posix", reason="another shell quotes in another way")
def test_a_command_that_is_offered_can_be_typed(folder, command):
    """`kdcourse lab my copy`, which is two words."""
    assert text.command_for("kdcourse lab", Path(folder)) == command


NAMES = ["a {0} {b}", "100%s", "a b", "-x", "[b]", ":smile:", "é😀\u202e", "x" * 200] + (
    [os.fsdecode(b"half \xff")] if sys.platform == "linux" else []
)


@pytest.mark.slow
def test_lessons_run_in_folders_and_under_names_of_any_kind(tmp_path, monkeypatch):
    """papermill, which takes braces in a path for its own; a report that cannot be written for one name."""
    folder = tmp_path / "in {here} 100% [b]"
    folder.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    monkeypatch.setattr(run.os, "environ", run.os.environ | {})
    raises = "raise ValueError('\\x1b[31m \\x00 \\udc80 [/b]')"
    for place, (name, source) in enumerate([(NAMES[0], "1"), ("plain", raises), *((name, "") for name in NAMES[1:])]):
        cells = [new_code_cell("from kdcourse.course.claims import claim\nclaim('\\udc80 [/b] \\x1b', True)", id="one")]
        cells += [new_code_cell(source, id="two")] if source else []
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        if source:
            nbformat.write(
                new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{place:02}_{name}.ipynb"
            )
        else:  # no notebook: a line of the report, without a kernel
            (folder / f"{place:02}_{name}.ipynb").write_text("", encoding="utf-8")
    out = tmp_path / "out {0} {x}"
    result = call("run", "--out", str(out))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert f"1 of {len(NAMES) + 1} in order" in result.output
    assert not OBEYED.search(result.output)
    lines = [line for line in result.output.splitlines() if line.startswith(("✓", "✗"))]
    assert len(lines) == len(NAMES) + 1
    assert "It raised ValueError" in lines[1]
    ET.parse(out / "junit.xml")  # noqa: S314  (our own)
    assert len(json.loads((out / "claims.json").read_text(encoding="utf-8"))["lessons"]) == len(NAMES) + 1
    assert call("compare", str(out / "claims.json"), str(out / "claims.json")).exit_code == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that Linux has")
@pytest.mark.parametrize("command", ["list", "--help", "--version"])
@pytest.mark.parametrize(("output", "code"), [("> /dev/full", 2), (">&-", 0), ("| head -1", 0)])
@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
def test_an_output_that_takes_nothing_is_no_traceback(command, output, code, buffered):
    """Twenty lines of Python, since a log is full, closed, or read by `head`; or an error after all has ended."""
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m kdcourse {command} {output}', sys.executable],
        env=os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1"}, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == (code != 0)
