"""Install the course from a bundle, with no network: `python install.py`.

A bundle is three files: this one, `manifest.json`, and an archive. The archive is cut into pieces of a MiB, each with
its SHA-256 in the manifest: a piece is what is checked, and what is fetched again after a broken copy. Nothing here
needs more than a Python with its standard library.

    python install.py                                    from what lies beside this file
    python install.py --from http://192.168.1.5:8000     from a room's server: what is missing here comes from there
    python install.py --from /media/stick/room           or from another folder
    python install.py --check                            look only whether everything has arrived

It may be stopped and called again: what is done is not done twice.
"""

# Python 3.8 can read this file, so that somebody who has it is told in a sentence what is needed.
from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Callable, Protocol  # noqa: UP035  (an old Python has only this Callable)

MANIFEST_SHA256 = ""
"""Of the manifest that belongs to this file; written in when a bundle is made."""

PROGRAM, MANIFEST = "install.py", "manifest.json"
PIECE = 2**20
MOST_MANIFEST = 32 * 2**20
"""Bytes of a manifest; an answer that is longer is something else."""
TRIES = 6
SILENCE = 30
"""Seconds without a byte after which a connection counts as broken."""
NOT_REACHED = "Is this machine in the room's network, and is the address the one that the projector shows?"
NAMED = 20
"""Files that one message names at most; of the others it gives the number."""

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


class Problem(Exception):  # noqa: N818  (it is a person's problem, and not only the program's error)
    """The bundle cannot be installed here; the message says why, and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Check, fetch what is missing, install; returns the exit code."""
    parser = argparse.ArgumentParser(description="Install the course from this bundle, with no network.")
    parser.add_argument("--from", dest="source", metavar="WHERE", help="folder or http address of the same bundle")
    parser.add_argument("--into", type=Path, default=Path("kd-room"), help="folder for the course (default: kd-room)")
    parser.add_argument("--check", action="store_true", help="look only whether everything has arrived")
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _run(Path(__file__).absolute(), options)
    except Problem as problem:
        return _end(FAILED, str(problem))
    except OSError as error:
        return _end(MISUSED, f"{error.filename or 'A file'} cannot be read or written: {error.strerror or error}.")
    except KeyboardInterrupt:
        return _end(INTERRUPTED, "Stopped. The same command goes on from here.")
    return 0


def _run(program: Path, options: argparse.Namespace) -> None:
    source = source_at(options.source) if options.source else None
    manifest = read_manifest(program.parent, MANIFEST_SHA256, source)
    check_program(program, manifest, MANIFEST_SHA256)
    archive = program.parent / manifest["archive"]
    bad = bad_pieces(manifest, archive)
    if not options.check:
        into = options.into.absolute()
        check_python(manifest["made_for"])
        check_disk(manifest, into, program.parent, bytes_to_fetch=len(bad) * PIECE if source else 0)
        if source:
            bad = fetch(manifest, archive, source, bad)
    require_whole(manifest, archive, bad)
    say(f"All {len(manifest['files'])} files of {archive.name} are as they were made.")
    if not options.check:
        install_packages(manifest, archive, into)
        put_assets(manifest, archive, into)
        put_pages(manifest, archive, into)
        say(_how_to_go_on(into))


def say(text: str) -> None:
    print(text, flush=True)


def _end(code: int, sentence: str) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return code


# Has everything arrived?


def read_manifest(folder: Path, digest: str, source: Source | None = None) -> Any:
    """The manifest beside this file, or else the one of the source, which is then put there; held to its SHA-256.

    Raises:
        Problem: it is missing, another one, or names a file that would leave its folder.
    """
    if not digest:
        raise Problem("This install.py belongs to no bundle; `kdcourse bundle` makes one, with its own.")
    path = folder / MANIFEST
    content = path.read_bytes() if path.is_file() else b""
    if _sha256(content) != digest and source:
        content = source.read(MANIFEST)
        if _sha256(content) == digest:
            write_whole(path, [content])
    if not content:
        raise Problem(f"{MANIFEST} is missing beside {PROGRAM}. Copy it, too, or say where the bundle is: --from.")
    if _sha256(content) != digest:
        raise Problem(
            f"{MANIFEST} and {PROGRAM} do not belong together: one of the two is damaged, or of another bundle. Copy "
            "both again."
        )
    manifest = json.loads(content)
    for name in (manifest["archive"], *(entry["name"] for entry in manifest["files"])):
        if any(part in ("", ".", "..") or set(part) & set("\\:\0") for part in name.split("/")):
            raise Problem(f"{MANIFEST} names a file {name!r}, which would leave its folder. Get another bundle.")
    return manifest


def check_program(program: Path, manifest: Any, digest: str) -> None:
    """The program of a bundle is as it was made.

    Raises:
        Problem: it is not.
    """
    if program_sha256(program.read_bytes(), digest) != manifest["program"]:
        raise Problem(f"{PROGRAM} is damaged. Copy it again.")


def program_sha256(content: bytes, digest: str) -> str:
    """Of the program without the SHA-256 of its manifest, since the manifest holds this one."""
    return _sha256(content.replace(digest.encode(), b""))


def bad_pieces(manifest: Any, archive: Path) -> list[int]:
    """The numbers of the pieces that are missing in the archive, or not as they were made."""
    if not archive.is_file():
        return list(range(len(manifest["pieces"])))
    with archive.open("rb") as file:
        return [number for number, digest in enumerate(manifest["pieces"]) if _sha256(file.read(PIECE)) != digest]


def require_whole(manifest: Any, archive: Path, bad: list[int]) -> None:
    """Everything has arrived.

    Raises:
        Problem: naming what is missing, cut off or damaged.
    """
    words = list(what_is_wrong(manifest, archive, bad))
    if words:
        more = [f"and {len(words) - NAMED} more"] if len(words) > NAMED else []
        raise Problem(
            "\n  ".join([f"{archive.name} is not as it was made:", *words[:NAMED], *more])
            + "\nCopy it again, or let this program fetch what is wrong, and only that: "
            f"python {PROGRAM} --from WHERE (a folder or an http address)."
        )


def what_is_wrong(manifest: Any, archive: Path, bad: list[int]) -> Iterator[str]:
    """A line for the archive if its size is wrong, and one for each file in it that is not as it was made."""
    there = archive.is_file()
    size = archive.stat().st_size if there else 0
    if size != manifest["bytes"]:
        yield f"it has {size:,} bytes, and should have {manifest['bytes']:,}" if there else "it is missing"
    explained: set[int] = set()
    for entry in manifest["files"]:
        begin, end = entry["at"], entry["at"] + entry["bytes"]
        touched = set(range(begin // PIECE, -(-end // PIECE))).intersection(bad)
        if touched and begin >= size:
            yield f"{entry['name']} is missing"
        elif touched and end > size:
            yield f"{entry['name']} is cut off"
        elif touched and _sha256(*_blocks(archive, entry)) != entry["sha256"]:
            yield f"{entry['name']} is damaged"
        else:
            continue
        explained |= touched
    for number in sorted(set(bad) - explained):
        if number * PIECE < size:
            yield f"what stands between its files is damaged, in the MiB from byte {number * PIECE:,} on"


def _sha256(*blocks: bytes) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _blocks(archive: Path, entry: Any) -> Iterator[bytes]:
    """The bytes of one file, which lie in the archive as they are."""
    left = entry["bytes"]
    with archive.open("rb") as file:
        file.seek(entry["at"])
        while left and (block := file.read(min(PIECE, left))):
            left -= len(block)
            yield block


# Can it be installed here?


def this_python() -> dict[str, Any]:
    """What the wheels of a bundle depend on, of this Python and this machine."""
    return {
        "implementation": platform.python_implementation(),
        "python": "{}.{}".format(*sys.version_info),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "system": sys.platform,
        "machine": platform.machine().lower(),
        "libc": platform.libc_ver()[0] if sys.platform == "linux" else "",
    }


def check_python(made_for: Any) -> None:
    """The wheels of the bundle are for such a Python on such a machine.

    Raises:
        Problem: they are not.
    """
    here = dict(this_python(), version=platform.python_version(), system_version=system_version())
    fits = all(here[name] == made_for[name] for name in this_python())
    new = all(_numbers(here[name]) >= _numbers(made_for[name]) for name in ("version", "system_version"))
    if not (fits and new):
        raise Problem(
            f"This bundle is for {asked_in_words(made_for)}; this is {here['implementation']} {here['version']} on "
            f"{_machine(here, ' '.join((here['libc'], here['system_version'])).strip())}. Call {PROGRAM} with a Python "
            f"that fits, such as python{made_for['python']}, or take a bundle that was made for such a machine."
        )


def asked_in_words(made_for: Any) -> str:
    """`CPython 3.11 (3.11.5 or newer) on linux x86_64, 64 bit, glibc 2.34 or newer`."""
    system = f"{made_for['libc'] or 'system'} {made_for['system_version']} or newer"
    words = f"{made_for['implementation']} {made_for['python']} ({made_for['version']} or newer) on "
    return words + _machine(made_for, system if made_for["system_version"] else made_for["libc"])


def _machine(python: Any, system: str) -> str:
    return ", ".join(filter(None, (f"{python['system']} {python['machine']}", f"{python['bits']} bit", system)))


def system_version() -> str:
    """The version of glibc, or of macOS; empty where no wheel asks for one."""
    return {"linux": platform.libc_ver()[1], "darwin": platform.mac_ver()[0]}.get(sys.platform, "")


def _numbers(version: str) -> tuple[int, ...]:
    """`3.11.5` as (3, 11, 5)."""
    return tuple(int("0" + "".join(filter(str.isdigit, part))) for part in version.split(".")) if version else ()


def check_disk(manifest: Any, into: Path, folder: Path, bytes_to_fetch: int) -> None:
    """What is fetched, unpacked and installed finds room, on whichever disks it goes to; what is there needs none.

    Raises:
        Problem: a disk is too full.
    """
    wheels = 0 if _is_installed(manifest, into) else _bytes_of(manifest, "wheels") + manifest["installed_bytes"]
    assets = Path(os.environ.get("KDCOURSE_CACHE") or Path.home()).expanduser()
    goes_to = {
        folder: bytes_to_fetch,
        into: max(0, wheels + _bytes_of(manifest, *PAGES) - _bytes_below(into)),
        assets: 0 if (into / INSTALLED).is_file() else _bytes_of(manifest, "assets"),
    }
    needed: dict[int, int] = {}
    for path, count in goes_to.items():
        there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
        disk = there.stat().st_dev
        needed[disk] = needed.get(disk, 0) + count
        free = shutil.disk_usage(there).free
        if needed[disk] > free:
            raise Problem(
                f"The disk of {there} has {free / 1e9:.1f} GB free, and the course needs {needed[disk] / 1e9:.1f} GB. "
                "Free some space, or choose another disk: with --into for the course, with KDCOURSE_CACHE for models "
                f"and data, and for what is fetched by moving {PROGRAM} there."
            )


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _bytes_of(manifest: Any, *kinds: str) -> int:
    return sum(entry["bytes"] for entry in manifest["files"] if _kind(entry) in kinds)


# What is missing comes from elsewhere


class Source(Protocol):
    """Where the same bundle lies."""

    tries: int
    """How often in a row reading may fail."""

    def __str__(self) -> str:
        """Where that is."""

    def opened(self, name: str, begin: int, end: int) -> BinaryIO | http.client.HTTPResponse:
        """A file of the bundle from byte `begin` on, at least up to byte `end`."""

    def read(self, name: str) -> bytes:
        """A small file of the bundle."""


def source_at(where: str) -> Source:
    """A room's server, or a folder.

    Raises:
        Problem: it is neither.
    """
    if where.startswith(("http://", "https://")):
        try:
            urllib.parse.urlsplit(where).port  # noqa: B018  (it is read here, and may not be a number)
        except ValueError as error:
            raise Problem(f"{where} is no address ({error}). Type it as the room shows it.") from None
        return Server(where)
    if not Path(where).exists():
        raise Problem(f"There is no folder {where}; an address begins with http://.")
    return Folder(Path(where))


class Folder:
    """A stick, or a drive on the network."""

    tries = 1

    def __init__(self, path: Path) -> None:
        self.path = path.parent if path.is_file() else path

    def __str__(self) -> str:
        return str(self.path)

    def opened(self, name: str, begin: int, end: int) -> BinaryIO:
        file = (self.path / name).open("rb")
        file.seek(begin)
        return file

    def read(self, name: str) -> bytes:
        with self.opened(name, 0, MOST_MANIFEST) as file:
            return file.read(MOST_MANIFEST)


class Server:
    """An http address. It is in the same room, so that it is asked itself, and no proxy."""

    tries = TRIES

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __str__(self) -> str:
        return self.address

    def opened(self, name: str, begin: int, end: int) -> http.client.HTTPResponse:
        request = urllib.request.Request(f"{self.address}/{name}")  # noqa: S310  (`source_at` takes http alone)
        request.add_header("Range", f"bytes={begin}-{end - 1}")
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=SILENCE)
        except urllib.error.HTTPError as error:
            raise Problem(
                f"{self.address} answers {error.code} when asked for {name}; is it the address that the room shows?"
            ) from None
        if answer.status != http.client.PARTIAL_CONTENT:  # a server that sends files whole, or not at all
            while begin:
                begin -= len(answer.read(min(PIECE, begin)) or bytes(begin))
        return answer

    def read(self, name: str) -> bytes:
        content = b""

        def keep() -> None:
            nonlocal content
            with self.opened(name, 0, MOST_MANIFEST) as answer:
                content = answer.read(MOST_MANIFEST)
                if answer.length:  # of what was announced
                    raise OSError(f"{name} breaks off")

        _tried(self, keep, lambda: False)
        return content


def fetch(manifest: Any, archive: Path, source: Source, bad: list[int]) -> list[int]:
    """Write the pieces that are missing or damaged here, each as soon as it has its SHA-256.

    A connection that breaks is taken up again with the piece in which it broke.

    Returns:
        The pieces that are bad now.

    Raises:
        Problem: the source cannot be read, or what it has is damaged, too.
    """
    todo, wanted = list(bad), set(bad)
    with archive.open("r+b" if archive.is_file() else "w+b") as file:

        def fetch_a_run() -> None:
            last = next(each for each in todo if each + 1 not in wanted)
            end = min((last + 1) * PIECE, manifest["bytes"])
            with source.opened(archive.name, todo[0] * PIECE, end) as stream:
                while todo and todo[0] <= last:
                    begin = todo[0] * PIECE
                    piece = stream.read(min(PIECE, end - begin))
                    if _sha256(piece) != manifest["pieces"][todo[0]]:
                        raise OSError(f"what comes at byte {begin:,} is cut off or damaged")
                    file.seek(begin)
                    file.write(piece)
                    del todo[0]
                    _show(len(manifest["pieces"]) - len(todo), len(manifest["pieces"]))

        while todo:
            before = len(todo)
            _tried(source, fetch_a_run, lambda: len(todo) < before)  # noqa: B023  (called before the next turn)
        file.truncate(manifest["bytes"])
    return bad_pieces(manifest, archive)


def _tried(source: Source, act: Callable[[], None], got_on: Callable[[], bool]) -> None:
    """Try until it works, or gets on at least; the waits between become longer."""
    for attempt in range(1, source.tries + 1):
        try:
            return act()
        except (OSError, http.client.HTTPException) as error:
            if got_on():
                return None
            if attempt == source.tries:
                reason = getattr(error, "reason", error)
                advice = f"{NOT_REACHED} " if isinstance(error, urllib.error.URLError) else ""
                raise Problem(
                    f"{source} cannot be read to its end ({getattr(reason, 'strerror', None) or reason}). {advice}The "
                    "same command goes on from here."
                ) from None
            time.sleep(2 ** (attempt - 1))
    return None


def _show(done: int, count: int) -> None:
    if sys.stdout.isatty():
        print(f"\r{done} of {count} MiB", end="\n" if done == count else "", flush=True)


# Install


INSTALLED = "environment/installed-from.txt"
"""Holds the SHA-256 of the bundle's manifest when all packages are in."""

PAGES = ("learner", "slides", "site")


def install_packages(manifest: Any, archive: Path, into: Path) -> None:
    """A virtual environment with the packages of the bundle: each a wheel, each held to its SHA-256, none built.

    pip runs out of its own wheel, since some systems give their Python none.

    Raises:
        Problem: there can be no environment here, or pip refuses a wheel.
    """
    if _is_installed(manifest, into):
        return
    wheels = {PurePosixPath(entry["name"]).name: entry for entry in manifest["files"] if _kind(entry) == "wheels"}
    say(f"Installing {len(wheels)} packages into {into} ...")
    folder, environment = into / "wheels", into / "environment"
    for name, entry in wheels.items():
        if not _holds(folder / name, entry):
            _unpack(archive, entry, folder / name)
    _make_environment(environment)
    pins = ((*name.split("-")[:2], entry["sha256"]) for name, entry in sorted(wheels.items()))
    requirements = [f"{name}=={version} --hash=sha256:{digest}\n".encode() for name, version, digest in pins]
    write_whole(folder / "requirements.txt", requirements)
    pip = next(folder / name for name in wheels if name.startswith("pip-")) / "pip"
    options = ["--no-index", "--find-links", ".", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    options += ["--no-compile", "--quiet", "--no-input", "--disable-pip-version-check", "--no-warn-script-location"]
    command = [str(_python(into)), str(pip), "install", *options, "--requirement", "requirements.txt"]
    if subprocess.run(command, cwd=folder, env=_environment(), check=False).returncode:  # noqa: S603  (made just now)
        raise Problem("pip could not install the packages; what it says stands above. The same command goes on.")
    write_whole(into / INSTALLED, [MANIFEST_SHA256.encode()])
    shutil.rmtree(folder)


def _is_installed(manifest: Any, into: Path) -> bool:
    path = into / INSTALLED
    return path.is_file() and path.read_text(encoding="utf-8") == MANIFEST_SHA256


def _make_environment(environment: Path) -> None:
    import venv

    try:
        venv.EnvBuilder(symlinks=os.name != "nt").create(environment)
    except (subprocess.CalledProcessError, ValueError) as error:  # a name with the character that separates paths
        raise Problem(f"{environment} can be no virtual environment ({error}); choose another --into.") from None
    for begun in environment.glob("**/site-packages/*.dist-info"):  # of a pip that was killed in the middle of it
        if not (begun / "INSTALLER").is_file():
            shutil.rmtree(begun)


def _environment() -> dict[str, str]:
    """Without what would lead pip to another index, or Python to other packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    return dict(kept, PIP_CONFIG_FILE=os.devnull, PYTHONUTF8="1")


def _program_folder(into: Path) -> Path:
    return into / "environment" / ("Scripts" if os.name == "nt" else "bin")


def _python(into: Path) -> Path:
    return _program_folder(into) / ("python.exe" if os.name == "nt" else "python")


def put_assets(manifest: Any, archive: Path, into: Path) -> None:
    """Models and data, into the cache folder where the course looks for them.

    A folder there is whole or not there at all: it is filled under another name first.

    Raises:
        Problem: the cache folder cannot be found.
    """
    ask = "from kdcourse.labs.assets import cache_dir; print(cache_dir().absolute())"
    command = [str(_python(into)), "-I", "-X", "utf8", "-c", ask]
    done = subprocess.run(command, env=_environment(), capture_output=True, check=False)  # noqa: S603  (made just now)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Problem(f"The folder for models and data cannot be found: {''.join(said[-1:])}")
    cache = Path(done.stdout.decode().strip())
    folders: dict[str, list[Any]] = {}
    for entry in manifest["files"]:
        if _kind(entry) == "assets":
            folders.setdefault(entry["name"].split("/")[1], []).append(entry)
    for name, entries in folders.items():
        if all(_holds(cache / name / _last(entry), entry) for entry in entries):
            continue
        unfinished = cache / f".kdcourse-{name}-bundle"
        shutil.rmtree(unfinished, ignore_errors=True)  # of a program that was killed
        for entry in entries:
            _unpack(archive, entry, unfinished / _last(entry))
        if (cache / name).exists():
            shutil.rmtree(cache / name)
        unfinished.rename(cache / name)
    say(f"{len(folders)} models and data sets are in {cache}.")


def put_pages(manifest: Any, archive: Path, into: Path) -> None:
    """Lessons, slides and site, as files. What somebody has changed since is kept."""
    for entry in manifest["files"]:
        path = into / entry["name"]
        if _kind(entry) not in PAGES or _holds(path, entry):
            continue
        if path.exists():
            say(f"{path} is not as it was handed out, and is kept; delete it to get it anew.")
        else:
            _unpack(archive, entry, path)


def _kind(entry: Any) -> str:
    """The folder of the bundle that a file belongs to."""
    return str(entry["name"].partition("/")[0])


def _last(entry: Any) -> str:
    return str(entry["name"].rpartition("/")[2])


def _holds(path: Path, entry: Any) -> bool:
    """Whether the file is there, as it was made."""
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    with path.open("rb") as file:
        return _sha256(*iter(lambda: file.read(PIECE), b"")) == entry["sha256"]


def _unpack(archive: Path, entry: Any, path: Path) -> None:
    """One file out of the archive; where something else is read now than when it was checked, nothing is written."""
    if _sha256(*_blocks(archive, entry)) != entry["sha256"]:
        raise Problem(f"{entry['name']} cannot be read from {archive} reliably. Copy the archive to another disk.")
    write_whole(path, _blocks(archive, entry))


def write_whole(path: Path, blocks: Iterable[bytes]) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        file.writelines(blocks)
    unfinished.replace(path)


def _how_to_go_on(into: Path) -> str:
    kdcourse = str(_program_folder(into) / "kdcourse")
    call = subprocess.list2cmdline([kdcourse]) if os.name == "nt" else shlex.quote(kdcourse)
    pages = [into / "site" / "index.html", into / "slides"]
    there = "".join(f"  {page}\n" for page in pages if page.exists())
    return f"The course is installed. Go on with\n  {call} start\n  {call} lab\n" + (there and f"To read:\n{there}")


if __name__ == "__main__":
    sys.exit(main())
