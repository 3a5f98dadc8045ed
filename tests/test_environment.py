"""What gets installed is said in three files, for three readers: they have to say the same.

pyproject.toml gives ranges, constraints.txt one version each, environment.yml names for conda users.
"""

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]

# The course is about these, so each of the three files names them.
CORE = {"torch", "transformers", "datasets", "evaluate", "jupyterlab", "nbval", "matplotlib", "papermill"}


@dataclass(frozen=True)
class Declared:
    """The three files, read."""

    python: SpecifierSet
    dependencies: list[Requirement]
    extras: dict[str, list[Requirement]]
    pins: dict[str, Version]
    channels: list[str]
    conda: list[str]
    pip: list[str]

    @classmethod
    def read(cls, pyproject: str, constraints: str, environment: str) -> "Declared":
        """From the text of the files, so that a broken variant is as easy to read as the real one."""
        project = tomllib.loads(pyproject)["project"]
        conda = yaml.safe_load(environment)
        return cls(
            python=SpecifierSet(project["requires-python"]),
            dependencies=[Requirement(line) for line in project["dependencies"]],
            extras={
                name: [Requirement(line) for line in lines] for name, lines in project["optional-dependencies"].items()
            },
            pins=dict(read_pin(line) for line in constraints.splitlines() if line.partition("#")[0].strip()),
            channels=conda["channels"],
            conda=[entry for entry in conda["dependencies"] if isinstance(entry, str)],
            pip=next((entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)), []),
        )


def read_pin(line: str) -> tuple[str, Version]:
    """`name==version`, where nothing looser counts as a pin."""
    pin = Requirement(line.partition("#")[0])
    clauses = list(pin.specifier)
    if [clause.operator for clause in clauses] != ["=="] or "*" in clauses[0].version:
        raise ValueError(f"{line!r} is not a pin")
    return canonicalize_name(pin.name), Version(clauses[0].version)


def names(requirements: Iterable[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def disagreements(declared: Declared) -> list[str]:
    """Everything in which the three files differ, in words."""
    return [
        *core_packages_left_out(declared),
        *requirements_without_a_fitting_pin(declared),
        *conda_deviations(declared),
    ]


def core_packages_left_out(declared: Declared) -> Iterable[str]:
    places = {
        "pyproject.toml": names([*declared.dependencies, *declared.extras["course"]]),
        "constraints.txt": set(declared.pins),
        "environment.yml": {canonicalize_name(entry) for entry in declared.pip},
    }
    for place, present in places.items():
        for name in sorted(CORE - present):
            yield f"{place} does not name {name}"


def requirements_without_a_fitting_pin(declared: Declared) -> Iterable[str]:
    wanted = itertools.chain(declared.dependencies, *declared.extras.values())
    for requirement in (each for each in wanted if each.name != "kdcourse"):  # an extra may include another
        pin = declared.pins.get(canonicalize_name(requirement.name))
        if pin is None:
            yield f"constraints.txt does not pin {requirement.name}"
        elif not requirement.specifier.contains(pin, prereleases=True):
            asked = f"{requirement.name}{requirement.specifier}"
            yield f"constraints.txt pins {pin} where pyproject.toml asks for {asked}"


def conda_deviations(declared: Declared) -> Iterable[str]:
    """environment.yml holds names only: a version there would be a second truth."""
    expected = {"-c constraints.txt", "-e .[course]", *CORE}
    for entry in sorted(set(declared.pip) - expected):
        yield f"environment.yml gives pip {entry!r}, which belongs in pyproject.toml or constraints.txt"
    for option in sorted({"-c constraints.txt", "-e .[course]"} - set(declared.pip)):
        yield f"environment.yml does not give pip {option!r}"
    if declared.channels != ["conda-forge", "nodefaults"]:
        yield f"environment.yml takes packages from {declared.channels}, not from conda-forge alone"
    python = f"python={oldest_minor(declared.python)}"
    if python not in declared.conda:
        yield f"environment.yml does not ask for {python}, the oldest that pyproject.toml supports"


def oldest_minor(supported: SpecifierSet) -> str:
    oldest = min(Version(clause.version) for clause in supported if clause.operator == ">=")
    return f"{oldest.major}.{oldest.minor}"


def strangers(pins: Mapping[str, Version], installed: Mapping[str, Version]) -> list[str]:
    """Installed packages of another version than the pinned one; builds such as +cpu are the same version."""
    return [
        f"{name} {installed[name]} is installed, constraints.txt pins {pin}"
        for name, pin in pins.items()
        if name in installed and installed[name].public != pin.public
    ]


def installed_among(wanted: Iterable[str]) -> dict[str, Version]:
    found = {}
    for name in wanted:
        try:
            found[name] = Version(version(name))
        except PackageNotFoundError:
            continue  # such as a pin for another operating system
    return found


@pytest.fixture(scope="module")
def declared() -> Declared:
    project, pins, of_benchmarks, conda = (
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("pyproject.toml", "constraints.txt", "benchmarks/constraints.txt", "environment.yml")
    )
    return Declared.read(project, pins + of_benchmarks, conda)


def test_the_three_files_agree(declared: Declared) -> None:
    """A conda user, a pip user and CI each run the lessons on different versions."""
    assert disagreements(declared) == []


def test_what_is_installed_is_what_is_pinned(declared: Declared) -> None:
    """The numbers of the course are measured on versions that constraints.txt does not name."""
    assert strangers(declared.pins, installed_among(declared.pins)) == []


PYPROJECT = """
[project]
requires-python = ">=3.11"
dependencies = ["torch>=2.9", "transformers>=5,<6"]
optional-dependencies.course = [
    "datasets>=5", "evaluate>=0.4", "jupyterlab>=4", "nbval>=0.11", "matplotlib>=3.10", "papermill>=2.7", "Jinja2>=3.1",
]
optional-dependencies.test = ["kdcourse[course]", "pytest>=9"]
"""
CONSTRAINTS = """
# One version each.
torch==2.13.0
transformers==5.23.0
datasets==5.2.0
evaluate==0.4.6
jupyterlab==4.6.6
nbval==0.11.0
matplotlib==3.11.2
papermill==2.7.0
jinja2==3.1.6
pytest==9.2.0
pywinpty==3.1.2 ; sys_platform == "win32"  # not a requirement of ours, and none the less pinned
"""
ENVIRONMENT = """
channels: [conda-forge, nodefaults]
dependencies:
  - python=3.11
  - pip
  - pip: [-c constraints.txt, "-e .[course]", torch, transformers, datasets, evaluate, jupyterlab, nbval, matplotlib,
          papermill]
"""


def test_agreeing_files_are_accepted() -> None:
    """The check rejects everything, and so says nothing when it rejects a fault."""
    assert disagreements(Declared.read(PYPROJECT, CONSTRAINTS, ENVIRONMENT)) == []


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ('"torch>=2.9"', '"torch>=2.14"', "pins 2.13.0 where pyproject.toml asks for torch>=2.14"),
        ("pytest==9.2.0", "pytest==8.4.0", "pins 8.4.0 where pyproject.toml asks for pytest>=9"),
        ("jinja2==3.1.6", "", "constraints.txt does not pin Jinja2"),
        ("nbval==0.11.0", "", "constraints.txt does not name nbval"),
        ('"nbval>=0.11",', "", "pyproject.toml does not name nbval"),
        ("nbval, ", "", "environment.yml does not name nbval"),
        ("nbval, ", "nbval==0.11.0, ", "environment.yml gives pip 'nbval==0.11.0'"),
        ("-c constraints.txt, ", "", "environment.yml does not give pip '-c constraints.txt'"),
        ('"-e .[course]", ', "", "environment.yml does not give pip '-e .[course]'"),
        (", nodefaults", ", defaults", "takes packages from ['conda-forge', 'defaults']"),
        ("python=3.11", "python=3.10", "does not ask for python=3.11"),
        ('">=3.11"', '">=3.12"', "does not ask for python=3.12"),
    ],
)
def test_each_disagreement_is_named(right: str, wrong: str, complaint: str) -> None:
    """One file is edited without the others, and nothing notices."""
    files = [text.replace(right, wrong) for text in (PYPROJECT, CONSTRAINTS, ENVIRONMENT)]
    assert files != [PYPROJECT, CONSTRAINTS, ENVIRONMENT]
    assert complaint in "\n".join(disagreements(Declared.read(*files)))


@pytest.mark.parametrize("line", ["torch", "torch>=2.13", "torch~=2.13.0", "torch==2.13.*", "torch==2,!=3"])
def test_a_range_is_not_a_pin(line: str) -> None:
    """constraints.txt lets a version float, and two installs of one commit differ."""
    with pytest.raises(ValueError, match="is not a pin"):
        read_pin(line)


@pytest.mark.parametrize(
    ("installed", "complaint"),
    [
        ({"torch": Version("2.13.0+cpu")}, []),
        ({}, []),
        ({"torch": Version("2.15.0")}, ["torch 2.15.0 is installed, constraints.txt pins 2.13.0"]),
    ],
)
def test_another_version_is_a_stranger_and_another_build_is_not(
    installed: dict[str, Version], complaint: list[str]
) -> None:
    """CPU and GPU builds are refused, or an upgrade slips in."""
    assert strangers({"torch": Version("2.13.0")}, installed) == complaint
