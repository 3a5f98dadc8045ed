"""A bundle, written: an archive, the manifest of its pieces and files, and the program that installs it.

The archive is a zip file whose members are not compressed (wheels and models hardly would be). So each of them is a
range of bytes, which `install.py` reads with no more than the manifest, and any other program with the archive's own
directory.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from kdcourse.course.bundle import install
from kdcourse.course.bundle.install import MANIFEST, PIECE, PROGRAM, program_sha256, write_whole
from kdcourse.files import written_whole
from kdcourse.hashing import hash_bytes, hash_file

LOCAL_HEADER = struct.Struct("<26xHH")
"""The beginning of a zip member: how long its name and its extra fields are, behind which its bytes begin."""
DATE = (1980, 1, 1, 0, 0, 0)
"""Of all members, so that the same files make the same archive."""
TIE = re.compile(r'^MANIFEST_SHA256 = "(\w*)"$', re.MULTILINE)
"""The line of `install.py` that names its manifest."""


class BundleError(RuntimeError):
    """A bundle could not be made, or is not whole; the message says why, and what to do."""


def pack(files: Mapping[str, Path], made_for: Mapping[str, Any], installed_bytes: int, name: str, folder: Path) -> str:
    """Write the three files of a bundle into `folder`.

    Args:
        files: what it holds, by the path in the archive, such as `wheels/numpy-2.4.6-cp311-….whl`.
        made_for: what `install.check_python` compares with the Python that it finds.
        installed_bytes: what the packages of the wheels will take.
        name: of the archive.

    Returns:
        The SHA-256 of `install.py`, which holds that of the manifest, which holds those of all else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / name) as archive:
        entries = list(_stored(files, archive))
        size, pieces = archive.stat().st_size, list(_hashed_pieces(archive))
    program = Path(install.__file__).read_text(encoding="utf-8")
    manifest = {
        "archive": name,
        "bytes": size,
        "pieces": pieces,
        "files": entries,
        "made_for": dict(made_for),
        "installed_bytes": installed_bytes,
        "program": program_sha256(_tied(program, "").encode(), ""),
    }
    content = json.dumps(manifest, indent=1).encode() + b"\n"
    write_whole(folder / MANIFEST, [content])
    write_whole(folder / PROGRAM, [_tied(program, hash_bytes(content)).encode()])
    return hash_file(folder / PROGRAM)


def opened(folder: Path) -> tuple[dict[str, Any], str]:
    """The manifest of a bundle that is whole, and the SHA-256 of its `install.py`.

    Raises:
        BundleError: something of it is missing or damaged, or a link; the message names it.
    """
    program = folder / PROGRAM
    try:
        found = TIE.search(program.read_text(encoding="utf-8"))
        digest = found[1] if found else ""
        manifest = install.read_manifest(folder, digest)
        install.check_program(program, manifest, digest)
        archive = folder / manifest["archive"]
        install.require_whole(manifest, archive, install.bad_pieces(manifest, archive))
    except (OSError, UnicodeDecodeError):
        raise BundleError(
            f"{folder} holds no bundle that can be read; `kdcourse bundle --out {folder}` makes one."
        ) from None
    except install.Problem as problem:
        raise BundleError(str(problem)) from None
    for path in (program, folder / MANIFEST, archive):
        if path.is_symlink():
            raise BundleError(f"{path} is a link, and what it leads to may change; put the file itself there.")
    return manifest, hash_file(program)


def _stored(files: Mapping[str, Path], archive: Path) -> Iterator[dict[str, Any]]:
    """Write the archive; for each member its name, its first byte, its length and the SHA-256 of what was written."""
    digests = {}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        for name, path in sorted(files.items()):
            member = zipfile.ZipInfo(name, DATE)
            member.external_attr = 0o644 << 16
            digest = hashlib.sha256()
            with path.open("rb") as source, opened.open(member, "w", force_zip64=True) as target:
                while block := source.read(PIECE):
                    target.write(block)
                    digest.update(block)
            digests[name] = digest.hexdigest()
        members = opened.infolist()
    with archive.open("rb") as file:
        for member in members:
            yield {
                "name": member.filename,
                "at": _first_byte(file, member),
                "bytes": member.file_size,
                "sha256": digests[member.filename],
            }


def _first_byte(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    file.seek(member.header_offset)
    return member.header_offset + LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size)))


def _hashed_pieces(archive: Path) -> Iterator[str]:
    with archive.open("rb") as file:
        while piece := file.read(PIECE):
            yield hash_bytes(piece)


def _tied(program: str, digest: str) -> str:
    """The program with the SHA-256 of its manifest in its place."""
    return TIE.sub(f'MANIFEST_SHA256 = "{digest}"', program, count=1)
