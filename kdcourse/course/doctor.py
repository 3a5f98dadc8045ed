"""Is this machine ready for the course? For a learner: each finding says what was seen, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil

from kdcourse.labs import assets

ROOT = Path(__file__).parents[2]
"""In a clone, the root of the repository."""
IN_WHEEL = Path(__file__).parent / "constraints.txt"

Level = Literal["ok", "note", "problem"]

NEWEST_PYTHON = (3, 14)
MEMORY_GB, LARGEST_GB = 4, 8
"""For all lessons but one, and for that one: see docs/rooms.json."""
LARGEST_LESSON = "08"
DISK_GB = 2
HUB_SECONDS = 3
COURSE_EXTRA = re.compile(r"""extra == ["']course["']""")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` is what to do, and only a `problem` stops the course."""

    subject: str
    level: Level
    seen: str
    advice: str = ""

    @property
    def words(self) -> list[str]:
        return [self.seen, self.advice] if self.advice else [self.seen]


def examine() -> Iterator[Finding]:
    """All findings, cheapest first."""
    yield _python()
    yield _packages()
    yield _kernel()
    yield _cores()
    yield _memory()
    yield _disk()
    for name in assets.catalogue():
        yield _asset(name)
    yield _device()
    yield _hub()


def tested_versions() -> dict[str, str]:
    """Package to version, from the `constraints.txt` that the course was tested with: in the wheel, or in a clone."""
    path = _constraints()
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    pins = (line.partition(";")[0].strip().partition("==") for line in lines)
    return {_normal(name): version for name, _, version in pins if version}


def _constraints() -> Path | None:
    return next((path for path in (IN_WHEEL, ROOT / "constraints.txt") if path.is_file()), None)


def _python() -> Finding:
    """pip refuses a Python that is too old; newer ones than those tried are worth a word."""
    version = platform.python_version()
    if sys.version_info[:2] <= NEWEST_PYTHON:
        return Finding("Python", "ok", version)
    newest = ".".join(map(str, NEWEST_PYTHON))
    return Finding("Python", "note", version, f"The course was tried up to Python {newest}.")


def _packages() -> Finding:
    """Missing packages stop the course; other versions than the tested ones may change a number."""
    missing, different = [], []
    tested = tested_versions()
    for name in _required_packages():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        expected = tested.get(_normal(name), installed)
        if _public(installed) != _public(expected):
            different.append(f"{name} {installed} (tested: {expected})")
    if missing:
        return Finding("packages", "problem", f"not installed: {', '.join(missing)}", f"Run `{_what_installs()}`.")
    if different:
        return Finding(
            "packages",
            "note",
            ", ".join(different),
            f"If a number differs, this may be why; `{_what_installs_the_tested()}` changes it.",
        )
    return Finding("packages", "ok", f"{len(_required_packages())} as tested" if tested else "installed")


def _required_packages() -> list[str]:
    """Those of the library and of its extra `course`."""
    pairs = [line.partition(";") for line in importlib.metadata.requires("kdcourse") or []]
    wanted = [name for name, _, marker in pairs if "extra" not in marker or COURSE_EXTRA.search(marker)]
    return [re.split(r"[^\w.-]", name)[0] for name in wanted]


def _normal(name: str) -> str:
    """The one form of a package's name: some say Jinja2, and some huggingface_hub."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _public(version: str) -> str:
    """Without the label of a build, such as +cpu."""
    return version.partition("+")[0]


def is_clone() -> bool:
    """Whether this package is that of a repository with its Makefile."""
    return (ROOT / "Makefile").is_file() and (ROOT / "pyproject.toml").is_file()


def _what_installs() -> str:
    return "make setup" if is_clone() else 'pip install "kdcourse[course]"'


def _what_installs_the_tested() -> str:
    what = '-e ".[course]"' if is_clone() else '"kdcourse[course]"'
    return f"pip install -c {_constraints()} {what}"


def _kernel() -> Finding:
    """A kernel that was registered for another Python runs the notebooks without our packages."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        python = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Finding(
            "kernel", "problem", "no kernel named python3", "Run `python -m ipykernel install --sys-prefix`."
        )
    if shutil.which(python) and Path(python).is_absolute() and not Path(python).samefile(sys.executable):
        return Finding(
            "kernel",
            "problem",
            f"python3 is {python}",
            "Run `python -m ipykernel install --sys-prefix` in this environment.",
        )
    return Finding("kernel", "ok", "python3, of this environment")


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cores() -> Finding:
    count = cores()
    if count > 1:
        return Finding("cores", "ok", str(count))
    return Finding("cores", "note", "1", "Lessons take about twice as long as they say.")


def _memory() -> Finding:
    free = psutil.virtual_memory().available / 1e9
    if free >= LARGEST_GB:
        return Finding("memory", "ok", f"{free:.1f} GB free")
    advice = f"Lesson {LARGEST_LESSON} needs {LARGEST_GB} GB, and will lose its kernel; the others run."
    if free < MEMORY_GB:
        advice = f"Close other programs: lessons want {MEMORY_GB} GB, and lesson {LARGEST_LESSON} {LARGEST_GB} GB."
    return Finding("memory", "note", f"{free:.1f} GB free", advice)


def _disk() -> Finding:
    folder = assets.cache_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free >= DISK_GB:
        return Finding("disk", "ok", f"{free:.1f} GB free for {assets.cache_dir()}")
    advice = f"The assets need {DISK_GB} GB: free some space, or set {assets.CACHE_VARIABLE} to another disk."
    return Finding("disk", "problem", f"{free:.1f} GB free for {assets.cache_dir()}", advice)


def _asset(name: str) -> Finding:
    asset = assets.catalogue()[name]
    try:
        assets.locate(name)
    except assets.AssetError as error:
        return Finding(f"asset {name}", "problem", asset.title, str(error))
    return Finding(f"asset {name}", "ok", asset.title)


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("device", "ok", torch.cuda.get_device_name())
    if torch.backends.mps.is_available():
        return Finding("device", "ok", "Apple GPU")
    return Finding("device", "ok", f"CPU, {torch.get_num_threads()} threads; every lesson is made for it")


def _hub() -> Finding:
    """Nothing needs the hub, so that it is out of reach is no problem."""
    from huggingface_hub.constants import ENDPOINT

    host = urlsplit(ENDPOINT).hostname or ENDPOINT
    try:
        socket.create_connection((host, 443), timeout=HUB_SECONDS).close()
    except OSError:
        return Finding("model hub", "ok", f"{host} is out of reach; the course does not need it")
    return Finding("model hub", "ok", f"{host} can be reached; {assets.SOURCE_VARIABLE}=hub would use it")
