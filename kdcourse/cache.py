"""Teacher logits on disk: computed once, appended to, read through memory maps (lessons 05 and 07).

A cache is a folder of files, each of which is written whole and holds some rows in the dataset's order, together with
the fingerprint of what they depend on. Scoring that is interrupted goes on after the last file; a dataset that has
grown at its end is scored from there.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor

from kdcourse.pieces import (
    ROWS,
    ROWS_AND_CLASSES,
    CacheMismatchError,
    Fingerprint,
    Piece,
    in_words,
    kind_of,
    pack,
    read_tensors,
    require_content,
    require_same,
    require_seal,
    rows_in_words,
    sealed,
    write_tensors,
)
from kdcourse.provenance import fingerprint
from kdcourse.topk import Logits

__all__ = ["CacheMismatchError", "LogitsCache", "fingerprint", "load_logits", "locked", "require_same", "save_logits"]

_NAME = re.compile(r"rows-(\d{9}|[1-9]\d{9,})\.safetensors")


class LogitsCache:
    """Logits of a dataset's rows, (C,) each for a classifier, (tokens, V) each for a language model.

    Args:
        folder: made at the first `append`.
        fingerprint: what the logits depend on, by name. A cache that was written with another one is refused.

    Raises:
        CacheMismatchError: the folder holds logits of another fingerprint, lacks some, or holds a damaged file. Of a
            file's logits, that is checked when the first of them is read.
        OSError: the folder or a file cannot be read.
    """

    def __init__(self, folder: Path, fingerprint: Fingerprint) -> None:
        self.folder = folder
        self.fingerprint = dict(fingerprint)
        self._pieces: list[Piece] = []
        self._ends: list[int] = []
        for first_row, path in sorted(_files_of(folder).items()):
            if first_row != len(self):
                raise CacheMismatchError(
                    f"In {folder}, {path.name} follows {len(self):,} rows: those between are missing, or there twice; "
                    "put the missing file back, or delete the folder and score the dataset anew."
                )
            self._open(path)

    def __len__(self) -> int:
        """Rows that are cached."""
        return self._ends[-1] if self._ends else 0

    @property
    def width(self) -> int | None:
        """How many classes the logits are for, C or V, kept or not; None while there are none."""
        return next((piece.kind.get("width", piece.kind["logits"]) for piece in self._pieces), None)

    def append(self, rows: Sequence[Logits], about: Fingerprint | None = None) -> None:
        """Write the logits of the next rows as one file.

        Args:
            rows: one tensor of logits, or k of them (`kdcourse.topk`, `kdcourse.sampled`), for each row of the dataset;
                stored in the precision that they have (see `kdcourse.pieces.narrowed`).
            about: what this piece alone depends on, such as the rows' token ids.

        Raises:
            ValueError: there are no rows, or rows of several kinds.
            CacheMismatchError: they are of another kind than those before, or somebody else has written these rows.
            OSError: they cannot be written; the rows before are as they were.
        """
        packed = pack(rows)
        self._require_kind("the new rows", kind_of(packed))
        path = file_of(self.folder, len(self))
        said = self.fingerprint | dict(about or {}) | {ROWS: rows_in_words(range(len(self), len(self) + len(rows)))}
        with locked(self.folder):
            if len(self) in _files_of(self.folder):
                raise CacheMismatchError(
                    f"Another process has written {path}; open the cache anew and append what is missing."
                )
            write_tensors(path, packed, sealed(packed, said))
        self._open(path)

    def pieces(self) -> list[tuple[range, Fingerprint]]:
        """Which rows each file holds, and what is stored with it."""
        return [(piece.rows, piece.about) for piece in self._pieces]

    def __getitem__(self, row: int) -> Logits:
        """The logits of one row: (C,) or (tokens, V), whole or cut; on the CPU, in float32 or better.

        Raises:
            CacheMismatchError: the file that holds them is damaged.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} is asked for, but {self.folder.name} holds {len(self):,} rows.")
        piece = self._piece_of(row)
        return piece[row - piece.rows.start]

    def about(self, row: int) -> Fingerprint:
        """What is stored with the logits of one row; nothing, if there is no such row."""
        return self._piece_of(row).about if 0 <= row < len(self) else {}

    def _piece_of(self, row: int) -> Piece:
        return self._pieces[bisect_right(self._ends, row)]

    def _open(self, path: Path) -> None:
        piece = Piece(path, len(self))
        require_same(f"in {self.folder}", piece.about, self.fingerprint)
        self._require_kind(str(path), piece.kind)
        self._pieces.append(piece)
        self._ends.append(piece.rows.stop)

    def _require_kind(self, where: str, kind: Mapping[str, Any]) -> None:
        if self._pieces and kind != self._pieces[0].kind:
            raise CacheMismatchError(
                f"The logits of {where} are of another kind ({kind}) than those before in {self.folder} "
                f"({self._pieces[0].kind}); a cache holds those of one teacher, kept in one way."
            )


def file_of(folder: Path, first_row: int) -> Path:
    """The file of a cache that begins with this row."""
    return folder / f"rows-{first_row:09d}.safetensors"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time writes to a cache; within it, the same lock is taken again without waiting."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), is_singleton=True)
    with in_words(f"The lock of {folder} cannot be taken", "take a folder that can be written to"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _files_of(folder: Path) -> dict[int, Path]:
    """The files of a cache by their first row; none if the folder is not there yet."""
    if not os.path.lexists(folder):
        return {}
    with in_words(f"The cache {folder} cannot be read", "look at where it leads, and at its permissions"):
        return {int(name[1]): path for path in folder.iterdir() if (name := _NAME.fullmatch(path.name))}


def save_logits(path: Path, logits: Mapping[str, Tensor], prints: Mapping[str, Fingerprint]) -> None:
    """Write named logits (N, C) and their fingerprints to one file, whole or not at all.

    Raises:
        ValueError: logits of another shape.
        OSError: there is no room, or no permission; what was there before is as it was.
    """
    for name, tensor in logits.items():
        if tensor.ndim != ROWS_AND_CLASSES or not tensor.is_floating_point():
            raise ValueError(
                f"'{name}' is {tensor.dtype} of shape {tuple(tensor.shape)}, but logits are floats (N, C)."
            )
    metadata = {
        f"{name}/{field}": value
        for name, tensor in logits.items()
        for field, value in sealed({name: tensor}, prints[name]).items()
    }
    write_tensors(path, logits, metadata)


def load_logits(path: Path, name: str, expected: Fingerprint) -> Tensor:
    """The logits stored under `name`, (N, C) in float32.

    Raises:
        CacheMismatchError: they were computed with another teacher, tokenizer or dataset, or are not those that were
            written; it says which.
        FileNotFoundError: there is no such file.
    """
    tensors, metadata = read_tensors(path)
    if name not in tensors:
        raise CacheMismatchError(f"{path.name} holds no logits named '{name}'; score the dataset anew.")
    stored = {
        field.removeprefix(f"{name}/"): value for field, value in metadata.items() if field.startswith(f"{name}/")
    }
    where = f"'{name}' in {path.name}"
    require_seal(where, stored)
    require_same(where, stored, expected)
    require_content(where, {name: tensors[name]}, stored)
    return tensors[name]
