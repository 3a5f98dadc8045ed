"""Rooms on machines of somebody else: what sets them up names what there is, and the page says what was measured.

No container is built here. `make container` does that, where a registry can be reached.
"""

import importlib
import json
import re
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from pages import ROOT
from test_code_blocks import complaint

from kdcourse.course.editions import ON_COLAB
from kdcourse.course.lessons import course_lessons

CONTAINERFILE = ROOT / ".devcontainer" / "Containerfile"
DEV_CONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
POST_BUILD = (ROOT / ".binder" / "postBuild").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "rooms.md").read_text(encoding="utf-8")


def instructions(text):
    """The instructions of a Containerfile in order, each with its words; lines that go on are one."""
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


INSTRUCTIONS = instructions(CONTAINERFILE.read_text(encoding="utf-8"))


def words_of(kind):
    return [words for name, words in INSTRUCTIONS if name == kind]


COMMANDS = [re.sub(r"^--mount=\S+\s+", "", words) for words in words_of("RUN")]
(START,) = (json.loads(words) for words in words_of("CMD"))


def ours(lines):
    """The lines that call pip or kdcourse."""
    return [line for line in lines if line.startswith(("pip ", "kdcourse "))]


@pytest.mark.parametrize(
    "line",
    [*ours(COMMANDS), *ours(POST_BUILD.splitlines()), " ".join(START), DEV_CONTAINER["postCreateCommand"]],
)
def test_what_sets_a_room_up_exists(line):
    """An image that does not build since a command, an option, an extra or a file was renamed."""
    assert complaint(line) == ""


def test_what_the_wheel_is_made_of_is_in_the_image():
    """An image that does not build since a file that pyproject.toml names is not copied, or is gone."""
    (build,) = (command for command in COMMANDS if command.startswith("pip wheel"))
    before = INSTRUCTIONS[: INSTRUCTIONS.index(("RUN", build))]
    copied = {source for name, words in before if name == "COPY" for source in words.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", pyproject["project"]["readme"], *pyproject["project"]["license-files"]}
    assert needed | {*wheel["packages"], *wheel["force-include"], "requirements.lock"} <= copied


def test_binder_gathers_the_wheels_of_the_container():
    """Hashes that are checked in one place and not in the other."""
    of_binder = [line.replace('"$wheels"', "/wheels") for line in ours(POST_BUILD.splitlines())]
    (index,) = (words.partition("=")[2] for words in words_of("ARG") if words.startswith("TORCH_INDEX="))
    of_image = [line.replace('"${TORCH_INDEX}"', index) for line in ours(COMMANDS)]
    assert of_binder == [*of_image, "kdcourse start"]
    assert of_image[0].count("--require-hashes") == 1


def test_who_learns_is_nobody_special_and_needs_the_token():
    """A room in which everybody is root, or in which whoever finds the port needs no token."""
    assert int(words_of("USER")[-1]) >= 1000
    assert ("RUN", f"useradd --create-home --uid {words_of('USER')[-1]} {DEV_CONTAINER['remoteUser']}") in INSTRUCTIONS
    assert not re.search("token|password|secret", " ".join([*START, *words_of("ENV"), *words_of("ARG")]), re.IGNORECASE)


def test_a_room_has_one_python_and_one_port():
    """A base image that the course does not support; a port that is forwarded, and nothing listens."""
    (image,) = (words.partition("=")[2] for words in words_of("ARG") if words.startswith("PYTHON_IMAGE="))
    version = re.search(r"python:(\d+\.\d+)\.\d+-", image)[1]
    assert (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip() == f"python-{version}"
    assert f"python={version}" in (ROOT / "environment.yml").read_text(encoding="utf-8")
    (port,) = DEV_CONTAINER["forwardPorts"]
    assert f"--port={port}" in START
    assert words_of("EXPOSE") == [str(port)]
    assert f":{port}:{port} " in PAGE


def test_colab_keeps_its_torch():
    """Minutes of download for a torch that does not fit the machine's drivers; a page that shows another cell."""
    assert "    " + ON_COLAB.rstrip().replace("\n", "\n    ").replace("    \n", "\n") in PAGE
    (install,) = (line for line in ON_COLAB.splitlines() if line.startswith("%pip install"))
    wanted = [Requirement(each.replace("{version('torch')}", "2.11.0+cpu")) for each in re.findall(r'"(.+?)"', install)]
    assert [each.name for each in wanted] == ["kdcourse", "torch"]
    assert wanted[0].extras == {"course"}
    assert wanted[1].specifier.contains("2.11.0+cpu")
    assert not wanted[1].specifier.contains("2.13.0")


@pytest.fixture(scope="module")
def memory():
    """`benchmarks/lesson_memory.py`, which is no package."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("lesson_memory")
    sys.path.remove(str(ROOT / "benchmarks"))


def measured():
    return json.loads((ROOT / "docs" / "rooms.json").read_text(encoding="utf-8"))


def test_the_table_of_memory_is_what_was_measured(memory):
    """A number that was typed; a lesson that nobody has measured."""
    assert memory.TABLE.search(PAGE)[0] == memory.table(measured())
    assert list(measured()["peak_bytes"]) == [lesson.number for lesson in course_lessons()]


def test_what_a_hub_grants_is_enough():
    """A limit under which the kernel of a lesson dies."""
    (granted,) = re.findall(r'mem_limit = "(\d+)G"', PAGE)
    needed = measured()["server_bytes"] + max(measured()["peak_bytes"].values())
    assert needed < int(granted) * 2**30


def test_what_does_not_fit_is_said_to_not_fit(memory):
    """A lesson that dies on Binder and is said to fit: the server counts as well."""
    peaks = {"01": 2_047_000_000, "02": 2_048_000_000, "03": 2_048_000_000, "04": 2_048_000_000}
    rows = memory.table({"server_bytes": 100_000_000, "peak_bytes": peaks, memory.TRIED: {"03": False, "04": True}})
    assert re.findall(r"\| (\d\d) \| .+ \| (.+) \|", rows) == [
        ("01", "yes"), ("02", "**no**"), ("03", "**no**"), ("04", "yes, as tried"),
    ]  # fmt: skip
