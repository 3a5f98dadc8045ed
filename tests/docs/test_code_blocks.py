"""Every block of code that a reader may copy from a page works, and every command in it exists."""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import subprocess
import sys

import pytest
import typer
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pages import NOT_RUN, PAGES, ROOT, blocks_of, name_of
from test_standing_alone import closure

from kdcourse.course.cli import app
from kdcourse.course.expectations import read_expectations

SECONDS = 300
MOST_NOT_RUN = 3
LANGUAGES = {"python", "shell", "toml", "yaml"}

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
LAID_OUT = ("docs/own-student.md",)
"""Pages that begin with files and models, which `test_own_student.py` lays out before it runs them."""

WITH_PYTHON = [
    page for page in PAGES if name_of(page) not in LAID_OUT and any(block.is_run for block in blocks_of(page))
]
LINES = [
    pytest.param(line, id=f"{name_of(block.page)}:{block.line}: {line}")
    for block in BLOCKS
    if block.language == "shell"
    for line in map(str.strip, block.text.splitlines())
    if line
]


def run_python(code, folder, preamble=""):
    """Run code in a fresh folder by a fresh interpreter that may ask no model hub; what it printed, if it failed."""
    script = folder / "page.py"
    script.write_text(preamble + code, encoding="utf-8")
    own = folder / "huggingface"  # nothing of this machine's caches is used, or left there
    settings = {"HF_HOME": str(own), "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, script.name], cwd=folder, env=os.environ | settings, capture_output=True, text=True,
        encoding="utf-8", timeout=SECONDS, check=False,
    )  # fmt: skip
    return done.stderr[-3000:] if done.returncode else ""


def python_of(page):
    """The blocks of a page that are run, each on the line that it has in the page, so that a traceback names it."""
    lines = [""] * page.read_text(encoding="utf-8").count("\n")
    for block in blocks_of(page):
        if block.is_run:
            code = block.text.splitlines()
            lines[block.line : block.line + len(code)] = code
    return "\n".join(lines) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_the_python_of_a_page_runs(page, tmp_path):
    """An example that was right for the version before: in order, and nothing else, it does not run."""
    assert run_python(python_of(page), tmp_path) == ""


HIDE = """
import importlib.machinery, sys
class Hidden(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in {hidden!r}
        return None if hidden else importlib.machinery.PathFinder.find_spec(name, path, target)
sys.meta_path = [Hidden if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
"""


@pytest.mark.slow
def test_the_readmes_python_needs_the_library_alone(tmp_path):
    """Six lines for a practitioner that stop at `import datasets`, which `pip install kdcourse` does not bring."""
    brought = closure("kdcourse")
    hidden = {
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if not any(canonicalize_name(each) in brought for each in distributions)
    }
    assert {"datasets", "peft", "matplotlib", "pytest"} <= hidden
    assert run_python("import datasets", tmp_path, HIDE.replace("{hidden!r}", repr(hidden))).endswith("'datasets'\n")
    readme = python_of(ROOT / "README.md")
    assert run_python(readme, tmp_path, HIDE.replace("{hidden!r}", repr(hidden))) == ""


def test_nearly_all_python_is_run():
    """Examples that are exempt one after the other, without a reason that a reader can see."""
    exempt = [block for block in BLOCKS if block.language == "python" and not block.is_run]
    assert len(exempt) <= MOST_NOT_RUN
    for block in exempt:
        assert block.above.endswith("-->"), (
            f"{name_of(block.page)}, line {block.line}: a comment says why it is {NOT_RUN}"
        )


def test_blocks_are_of_known_languages():
    """A block that is held to nothing because its language is misspelt."""
    assert {block.language for block in BLOCKS} <= LANGUAGES


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "toml"], ids=lambda block: block.text)
def test_toml_is_what_the_lessons_hold(block, tmp_path):
    """An entry that somebody copies, and that is refused."""
    path = tmp_path / "01.toml"
    path.write_text(block.text, encoding="utf-8")
    found = read_expectations(path)
    assert found.claims or found.predictions


@pytest.mark.parametrize("line", LINES)
def test_a_shell_line_names_what_exists(line):
    """A command, an option or a make target that was renamed, and one that was never there."""
    assert complaint(line) == ""


def complaint(line):
    """What is wrong with a line for a shell, or nothing."""
    program, *arguments = shlex.split(line.replace("\\", "/"))
    if program == "export":
        return "" if all(re.fullmatch(r"\w+=.+", each) for each in arguments) else "export takes NAME=VALUE"
    program = re.sub(r"^.*/", "", program)
    if program not in CHECKS:
        return f"{program} is no command that these pages use"
    return CHECKS[program](arguments)


def of_kdcourse(arguments):
    """Parsed by the command line itself, which runs nothing."""
    command = typer.main.get_command(app)
    if arguments == ["--version"]:
        return "" if any("--version" in option.opts for option in command.params) else "there is no --version"
    name, *rest = arguments
    if name not in command.commands:
        return f"there is no kdcourse {name}"
    try:
        command.commands[name].make_context(name, list(rest))
    except Exception as error:  # typer brings a click of its own; each of its errors says what is wrong
        return f"{type(error).__name__}: {error}"
    return ""


def of_make(arguments):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    variables = set(re.findall(r"\$\((?:if )?\$?\(?([A-Z]+)\)", makefile))
    for each in arguments:
        name, equals, _ = each.partition("=")
        if name not in (variables if equals else targets):
            return f"the Makefile has no {name}"
    return "" if arguments else "make what?"


PIP = {
    "install": {
        "--constraint": 1, "--editable": 1, "--requirement": 1, "--find-links": 1, "--only-binary": 1,
        "--upgrade": 0, "--no-index": 0, "--no-deps": 0, "--require-hashes": 0, "--no-build-isolation": 0,
        "--no-cache-dir": 0,
    },
    "download": {
        "--dest": 1, "--no-deps": 0, "--no-binary": 1, "--only-binary": 1, "--require-hashes": 0, "--requirement": 1,
        "--constraint": 1, "--index-url": 1, "--no-cache-dir": 0,
    },
    "wheel": {"--wheel-dir": 1, "--find-links": 1, "--no-index": 0, "--no-deps": 0, "--no-cache-dir": 0},
}  # fmt: skip
"""The commands and options of pip that these pages use, each with the number of its values."""


def of_pip(arguments):
    command, *rest = arguments
    if command not in PIP:
        return f"pip {command} is not used here"
    while rest:
        each = rest.pop(0)
        if each.startswith("-"):
            if each not in PIP[command]:
                return f"pip {command} has no {each}"
            values = [rest.pop(0) for _ in range(PIP[command][each])]
            if (
                each in {"--constraint", "--editable", "--requirement"}
                and not (ROOT / values[0].partition("[")[0]).exists()
            ):
                return f"{values[0]} is not there"
            continue
        if each == "." and command == "wheel":  # the clone itself
            continue
        try:
            requirement = Requirement(each)
        except InvalidRequirement as error:
            return str(error)
        if requirement.name == "kdcourse" and (unknown := requirement.extras - extras()):
            return f"kdcourse has no extra {unknown}"
    return ""


def extras():
    return set(importlib.metadata.metadata("kdcourse").get_all("Provides-Extra"))


def of_python(arguments):
    """A module with -m, or a file."""
    if arguments[0] != "-m":
        return "" if (ROOT / arguments[0]).is_file() else f"{arguments[0]} is not there"
    module, *rest = arguments[1:]
    if module in CHECKS:
        return CHECKS[module](rest)
    if module == "venv":
        return "" if len(rest) == 1 else "venv takes a folder"
    if module == "pytest":
        paths = [each for each in rest if each.startswith("tests")]
        missing = [each for each in paths if not (ROOT / each).exists()]
        return f"{missing} are not there" if missing else ""
    if module.startswith("kdcourse."):
        return "" if importlib.util.find_spec(module) else f"there is no {module}"
    return f"python -m {module} is not used here"


def of_conda(arguments):
    known = (["env", "create", "-f", "environment.yml"], ["activate", "kdcourse"])
    return "" if arguments in known else "not one of the two lines that these pages use"


PODMAN_RUN = {"--rm": 0, "--publish": 1, "--volume": 1, "--network": 1}
"""The options of `podman run` that these pages use, each with the number of its values; docker has the same."""


def of_podman(arguments):
    """A run of the image that `make container` builds."""
    command, *rest = arguments
    if command != "run":
        return f"podman {command} is not used here"
    while rest and rest[0].startswith("-"):
        if rest[0] not in PODMAN_RUN:
            return f"podman run has no {rest[0]}"
        rest = rest[1 + PODMAN_RUN[rest[0]] :]
    if rest[:1] != ["kdcourse"]:
        return "podman runs the image kdcourse"
    return of_kdcourse(rest[2:]) if rest[1:2] == ["kdcourse"] else ""


CHECKS = {
    "kdcourse": of_kdcourse, "make": of_make, "pip": of_pip, "python": of_python, "py": of_python, "conda": of_conda,
    "podman": of_podman,
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kdcourse fly", "no kdcourse fly"),
        ("kdcourse run --profil full", "No such option"),
        ("kdcourse run --cell-seconds soon", "valid integer"),
        ("kdcourse compare before.json", "Missing parameter: after"),
        ("make coarse", "no coarse"),
        ("make test-versions SESION=newest", "no SESION"),
        ("pip install --colour kdcourse", "no --colour"),
        ('pip install "kdcourse[lessons]"', "no extra"),
        ("pip install -e.[course", "no -e.[course"),
        ("python docs/make_pictures.py", "is not there"),
        ("python -m pytest tests/test_arms.py", "are not there"),
        (".venv/bin/python -m kdcourse fly", "no kdcourse fly"),
        ("conda env create", "not one of"),
        ("podman run --privileged kdcourse", "no --privileged"),
        ("podman run --rm kdcouse", "runs the image kdcourse"),
        ("podman run --rm kdcourse kdcourse fly", "no kdcourse fly"),
        ("rm -rf .", "rm is no command"),
    ],
)
def test_a_faulty_line_is_caught(line, words):
    """A check that passes whatever it is given."""
    assert words in complaint(line)
