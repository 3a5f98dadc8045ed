"""CONTRIBUTING, CHANGELOG, CITATION and the hooks before a commit say what is so."""

import importlib.util
import pkgutil
import re
import shutil
import sys
import sysconfig
import tomllib

import check_jsonschema.builtin_schemas
import jsonschema
import pytest
import yaml
from packaging.version import Version
from pages import ROOT
from pre_commit.clientlib import load_config

import kdcourse
from kdcourse import labs
from kdcourse.course.lessons import course_lessons

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGES = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
MODULES = re.findall(r"^\| `(kdcourse[\w.]*)` \| (.+) \| (.+) \| (.+) \|$", CONTRIBUTING, re.MULTILINE)


def modules_of(package):
    """The modules and packages directly inside a package, but for the other wings."""
    names = {f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)}
    return names - {"kdcourse.course", "kdcourse.labs", "kdcourse.__main__"}


def test_every_module_has_its_row():
    """A newcomer who finds no lesson and no test for a module; a row for a module that is gone."""
    assert sorted(name for name, *_ in MODULES) == sorted(modules_of(kdcourse) | modules_of(labs))


@pytest.mark.parametrize(("module", "lessons", "tests"), [(name, *rest) for name, _, *rest in MODULES])
def test_a_row_names_lessons_and_tests_that_exist(module, lessons, tests):
    """A lesson that was renumbered, or a test that moved."""
    known = {lesson.number for lesson in course_lessons()} | {"all", "–"}
    assert set(lessons.split(", ")) <= known
    files = re.findall(r"`([^`]+)`", tests)
    assert files
    for file in files:
        assert (ROOT / file).is_file()


def test_what_moved_is_where_the_changelog_says():
    """A new name that is none, or an old one that still works and needs no row."""
    rows = re.findall(r"^\| `(kdcourse\.[\w.]+)` \| (.+) \|$", CHANGES, re.MULTILINE)
    assert len(rows) > 10
    for before, now in rows:
        module, _, name = before.rpartition(".")
        assert module == "kdcourse.teacher" or importlib.util.find_spec(before) is None, before
        for found in re.findall(r"`(kdcourse[\w.]+)`", now):
            module, _, name = found.rpartition(".")
            is_module = module and importlib.util.find_spec(found) is not None if module != "kdcourse.cache" else False
            assert is_module or hasattr(importlib.import_module(module), name), found


def test_the_changelog_keeps_its_format():
    """A version that is released under the heading of the next."""
    headings = re.findall(r"^## \[(.+?)\]", CHANGES, re.MULTILINE)
    assert headings[0] == "Unreleased"
    released = [Version(heading) for heading in headings[1:]]
    assert released == sorted(released, reverse=True)
    kinds = re.findall(r"^### (\w+)$", CHANGES, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert kdcourse.__version__ in CHANGES


def test_the_citation_is_valid():
    """A file that a code host or a reference manager does not read; a licence or a version of something else."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    schema = check_jsonschema.builtin_schemas.get_builtin_schema("vendor.citation-file-format")
    jsonschema.validate(citation, schema)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert project["urls"]["Documentation"].startswith(citation["repository-code"])


HOOKS = [hook for repository in load_config(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]


def test_the_hooks_need_no_network():
    """A commit that fails in a train: a hook that pre-commit fetches."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_calls_what_is_installed(hook):
    """A linter that was renamed, or that only somebody's own environment has."""
    program, *arguments = hook["entry"].split()
    if program == "python":
        assert arguments[0] == "-m"
        assert importlib.util.find_spec(arguments[1]) is not None
    else:
        assert shutil.which(program, path=sysconfig.get_path("scripts")), sys.prefix


def test_the_hooks_are_what_make_lints_with():
    """A commit that passes here and fails there."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.partition("\ntest-quick:")[2].partition("\n\n")[0]
    commands = re.findall(r"^\t\$\((?:RUN|BIN)\)[ /](.+)$", recipe, re.MULTILINE)
    linters = [command for command in commands if not command.startswith("pytest")]
    assert len(linters) >= 4
    for linter in linters:
        words = linter.removesuffix(" .").split()
        assert any(set(words) <= set(hook["entry"].split()) for hook in HOOKS), linter
