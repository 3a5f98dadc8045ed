"""Throw-away environments with other versions of transformers and datasets (`make test-versions`).

Each session installs the course beside torch as pinned, runs the package's tests and every lesson, and holds the claims
against those of the pinned versions.
"""

import re
import tomllib
from pathlib import Path

import nox
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MOVING = ("transformers", "datasets")
# Pins that would hold the moving packages back: what they depend on may move with them.
FOLLOWING = ("huggingface-hub", "huggingface_hub", "tokenizers", "safetensors", "hf-xet", "fsspec", "pyarrow", "dill",
             "multiprocess", "xxhash")  # fmt: skip
BUILD = ROOT / "build" / "versions"

nox.options.default_venv_backend = "venv"
nox.options.envdir = str(BUILD / "environments")
nox.options.sessions = ["oldest", "newest"]


@nox.session
def oldest(session: nox.Session) -> None:
    """The oldest versions that pyproject.toml promises."""
    run_with(session, *(f"{name}=={oldest_version(name)}" for name in MOVING))


@nox.session
def newest(session: nox.Session) -> None:
    """The newest releases within what pyproject.toml promises."""
    run_with(session)


@nox.session
def prerelease(session: nox.Session) -> None:
    """What is about to be released."""
    run_with(session, "--pre")


def oldest_version(name: str) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["course"]]
    requirement = next(each for each in map(Requirement, declared) if each.name == name)
    return min(clause.version for clause in requirement.specifier if clause.operator == ">=")


def run_with(session: nox.Session, *versions: str) -> None:
    session.install("--constraint", str(loosened_constraints()), *versions, "--upgrade", *MOVING, "-e", f"{ROOT}[test]")
    session.chdir(ROOT)
    session.run("python", "-m", "pip", "list", "--format", "freeze", silent=False)
    # That the pinned versions are installed is a test, too, and not one for here.
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "loadfile", "--ignore", "tests/test_environment.py")
    out = BUILD / session.name
    session.run("python", "-m", "kdcourse", "run", "--out", str(out))
    session.run("python", "-m", "kdcourse", "compare", str(BUILD / "pinned/claims.json"), str(out / "claims.json"))


def loosened_constraints() -> Path:
    """constraints.txt without the packages that move."""
    loose = "|".join(MOVING + FOLLOWING)
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    path = BUILD / "constraints.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line for line in lines if not re.match(rf"({loose})==", line)) + "\n", encoding="utf-8")
    return path
