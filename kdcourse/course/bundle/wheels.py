"""The wheels of a bundle: of the course and all that it needs, in exactly the versions of this environment."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from kdcourse.course.bundle.packing import BundleError
from kdcourse.course.doctor import ROOT, is_clone
from kdcourse.course.misuse import MisuseError
from kdcourse.labs.archives import run_pip

COURSE = "kdcourse[course]"
DOWNLOAD_SECONDS = 3600

Versions = dict[str, Version]
"""By canonical name, such as `huggingface-hub`."""

SYSTEM = re.compile(r"(?:manylinux|musllinux|macosx)_(\d+)_(\d+)_")
LEGACY = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
"""Tags of PEP 513, 571 and 599, in the terms of PEP 600: the glibc that they need."""


def needed(requirement: str = COURSE) -> Versions:
    """What the requirement brings to this environment, itself included, with the versions that are installed.

    Raises:
        MisuseError: something of it is not installed here.
    """
    found: Versions = {}
    todo, seen = [(Requirement(requirement), "")], set()
    while todo:
        wanted, asked_by = todo.pop()
        if wanted.marker and not wanted.marker.evaluate({"extra": asked_by}):
            continue
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                installed = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                raise MisuseError(
                    f"{name} is not installed here, and a bundle holds what this environment has; run `pip install "
                    f'"{COURSE}"` first.'
                ) from None
            found[name] = Version(installed.version)
            todo += [(Requirement(each), extra) for each in installed.requires or ()]
    return found


def collect(versions: Mapping[str, Version], folder: Path, announce: Callable[[str], object]) -> dict[str, Path]:
    """The wheel of each package in `folder`; what is missing there is downloaded with pip, and never built.

    The exception is the course itself: in a clone, its wheel is built from the files as they are.

    Raises:
        BundleError: a wheel cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if "kdcourse" in versions and is_clone():
        announce("Building the course's own wheel …")
        _build_own(folder)
    missing = sorted(set(versions) - set(_fitting(versions, folder)))
    if missing:
        announce(f"Downloading {len(missing)} wheels into {folder} …")
        _download([f"{name}=={versions[name]}" for name in missing], folder)
    found = _fitting(versions, folder)
    if missing := sorted(set(versions) - set(found)):
        raise BundleError(f"There is no wheel for this platform in {folder} of {', '.join(missing)}.")
    return found


def _fitting(versions: Mapping[str, Version], folder: Path) -> dict[str, Path]:
    """By name, the wheel in `folder` that pip would choose here."""
    order = {tag: place for place, tag in enumerate(sys_tags())}
    found: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, _, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        rank = min((order[tag] for tag in tags if tag in order), default=None)
        if rank is not None and versions.get(name) == version and (name not in found or rank < found[name][0]):
            found[name] = rank, path
    return {name: path for name, (_, path) in found.items()}


def _download(requirements: list[str], folder: Path) -> None:
    """`pip download`, so that its mirrors, proxies, certificates and cache serve us, too; no source is ever built.

    `torch==2.13.0+cpu` cannot bring another build: a version with a label is equal to itself alone.
    """
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--resume-retries", "5"]
    _pip("download", *options, "--dest", str(folder), *requirements)


def _build_own(folder: Path) -> None:
    for old in folder.glob("kdcourse-*.whl"):
        old.unlink()
    isolated = [] if find_spec("hatchling") is None else ["--no-build-isolation"]
    _pip("wheel", "--no-deps", "--disable-pip-version-check", *isolated, "--wheel-dir", str(folder), str(ROOT))


def _pip(*arguments: str) -> None:
    try:
        done = run_pip(arguments, seconds=DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired:
        raise BundleError(f"pip took longer than {DOWNLOAD_SECONDS} s; run the command again, it goes on.") from None
    if done.returncode:
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise BundleError(
            f"pip could not get a wheel (it says: {' '.join(errors[-1:]) or 'nothing'}). Connect to the network, or "
            "put it into the folder after --wheels; a CPU build of torch wants its index in PIP_EXTRA_INDEX_URL."
        )


def installed_bytes(versions: Mapping[str, Version]) -> int:
    """What the packages take on disk here, without what Python compiles."""
    return sum(file.size or 0 for name in versions for file in importlib.metadata.files(name) or ())


def oldest_python(versions: Mapping[str, Version]) -> str:
    """The oldest release of this Python's minor version that all packages run on, such as 3.11.5."""
    asked = [ask for name in versions for ask in importlib.metadata.metadata(name).get_all("Requires-Python") or ()]
    bounds = [each for ask in asked for each in SpecifierSet(ask) if each.operator == ">="]
    here = Version("{}.{}".format(*sys.version_info))
    return str(max([here, *(Version(bound.version) for bound in bounds)]))


def oldest_system(names: Iterable[str]) -> str:
    """The oldest glibc (Linux) or macOS that the wheels with these file names run on; empty if any will do."""
    oldest = (0, 0)
    for name in names:
        tags = {tag.platform for tag in parse_wheel_filename(name)[3]}
        said = [(int(found[1]), int(found[2])) for tag in tags if (found := SYSTEM.match(tag))]
        said += [version for legacy, version in LEGACY.items() for tag in tags if tag.startswith(f"{legacy}_")]
        oldest = max(oldest, min(said, default=oldest))
    return ".".join(map(str, oldest)) if any(oldest) else ""
