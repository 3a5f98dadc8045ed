"""What is installed is what was locked: a hash for each file of each pin, and no registry's address in any of it."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
UNLOCKED = {"torch"}
"""Its builds differ by machine; each index has hashes of its own."""


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(text: str) -> dict[str, tuple[str, str]]:
    """Name to version and marker, from lines such as `name==1.0 ; marker`, whatever follows behind a backslash."""
    lines = [line.partition("#")[0].partition("\\")[0].strip() for line in text.splitlines()]
    read_as = [Requirement(line) for line in lines if line and not line.startswith("--hash")]
    return {canonicalize_name(each.name): (str(each.specifier), str(each.marker or "")) for each in read_as}


def without_a_hash(lock: str) -> list[str]:
    """The entries that pip would refuse, or take without looking."""
    entries = re.split(r"(?m)^(?=[\w.-]+==)", lock)
    whole = re.compile(r"[\w.-]+==[^\\]+\\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+")
    return [entry.partition(" ")[0] for entry in entries if entry and not whole.fullmatch(entry)]


def addresses(text: str) -> list[str]:
    return re.findall(r"https?://\S+|file:\S+|--(?:extra-)?index-url\S*|--find-links\S*|\"resolved\"", text)


def test_the_lock_holds_what_is_pinned() -> None:
    """A pin that was raised, and is installed without a hash, or not at all: `make lock` writes the lock anew."""
    pinned = pins(read("constraints.txt"))
    assert set(pinned) >= UNLOCKED
    assert pins(read("requirements.lock")) == {name: pin for name, pin in pinned.items() if name not in UNLOCKED}


def test_each_locked_package_has_its_hashes() -> None:
    """One entry without a hash, which makes pip refuse all of them."""
    assert without_a_hash(read("requirements.lock")) == []


@pytest.mark.parametrize("spoil", ["", "    --hash=sha256:12\n", "    --hash=md5:" + "0" * 32 + "\n"])
def test_a_lock_without_a_hash_is_found(spoil: str) -> None:
    """A check that passes whatever it is given."""
    whole = "one==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"
    assert without_a_hash(whole + whole.replace("one", "two")) == []
    assert without_a_hash(whole + "two==2.0 \\\n" + spoil) == ["two==2.0"]


@pytest.mark.parametrize("name", ["requirements.lock", "constraints.txt", "tests/node/package-lock.json"])
def test_no_lock_names_a_registry(name: str) -> None:
    """A lock that goes around a company's mirror, or works with one mirror alone."""
    assert addresses(read(name)) == []
    assert addresses('"resolved": "https://mirror/x.tgz"') != []


def test_the_packages_of_node_have_their_hashes() -> None:
    """`npm install`, which takes what the registry says today."""
    wanted = json.loads(read("tests/node/package.json"))["dependencies"]
    locked = json.loads(read("tests/node/package-lock.json"))["packages"]
    assert locked.pop("")["dependencies"] == wanted
    assert {name.removeprefix("node_modules/") for name in locked} >= set(wanted)
    assert all(re.fullmatch(r"sha512-[\w+/=]{88}", package["integrity"]) for package in locked.values())


def recipes(makefile: str) -> Iterable[str]:
    """Each command of the targets that set up, in one line."""
    joined = makefile.replace("\\\n", " ")
    for target in (".ready", ".test-ready"):
        yield from re.search(rf"^\$\(VENV\)/{re.escape(target)}:.*\n((?:\t.*\n)+)", joined, re.MULTILINE)[
            1
        ].splitlines()


def test_setting_up_installs_from_the_locks() -> None:
    """A lock that nobody reads, a build with whatever the index offers, or a script of a package that is run."""
    pip = [line for line in recipes(read("Makefile")) if "pip install" in line]
    npm = [line for line in recipes(read("Makefile")) if "npm" in line]
    assert len(pip) == 2
    assert len(npm) == 1
    assert {"--require-hashes", "--no-deps", "--only-binary", "requirements.lock"} <= set(pip[0].split())
    assert {"--constraint", "--no-build-isolation"} <= set(pip[1].split())
    assert {"ci", "--ignore-scripts"} <= set(npm[0].split())
