"""Teacher logits on disk: computed once, appended to, read through memory maps (lessons 05 and 07).

A cache is a folder of files, each of which is written whole and holds some rows in the dataset's order, together with
the fingerprint of what they depend on. Scoring that is interrupted goes on after the last file; a dataset that has
grown at its end is scored from there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdcourse.columns import TOKEN_COLUMNS
from kdcourse.files import written_whole
from kdcourse.hashing import hash_columns, hash_json, hash_text, hash_weights
from kdcourse.topk import TopK

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Fingerprint = Mapping[str, str]


class CacheMismatchError(ValueError):
    """The cached logits answer another question; the message names what differs."""


def fingerprint(
    teacher: PreTrainedModel | str, tokenizer: PreTrainedTokenizerBase, dataset: Dataset | None = None
) -> dict[str, str]:
    """What logits depend on, as SHA-256 by name: the teacher's weights, the tokenizer, and the token ids that it read.

    `teacher` is a model, whose weights are hashed, or the digest of the files that its weights come from.
    """
    return {
        "teacher weights": teacher if isinstance(teacher, str) else hash_weights(teacher),
        "tokenizer": _hash_tokenizer(tokenizer),
    } | ({} if dataset is None else hash_token_ids(dataset))


def hash_token_ids(dataset: Dataset) -> dict[str, str]:
    """The part of a fingerprint that changes with the dataset."""
    read = [name for name in TOKEN_COLUMNS if name in dataset.column_names and name != "attention_mask"]
    return {"token ids": hash_columns(dataset, read)}


def _hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of its rules, and of its vocabulary alone where it is one in Python, which cannot be written down whole."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return (
        hash_json([type(tokenizer).__name__, tokenizer.get_vocab()]) if backend is None else hash_text(backend.to_str())
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """One safetensors file, whole or not at all."""
    with written_whole(path) as unfinished:
        safetensors.torch.save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished, dict(metadata)
        )


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """A safetensors file, or a sentence about what is wrong with it."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise CacheMismatchError(f"{path} is damaged ({error}); delete it and score the dataset anew.") from error


def require_same(cache: str, stored: Fingerprint, expected: Fingerprint) -> None:
    """Every expected field is stored with the expected value.

    Raises:
        CacheMismatchError: it names the field and both values.
    """
    for field, value in expected.items():
        found = stored.get(field, "nothing")
        if found != value:
            raise CacheMismatchError(
                f"The logits {cache} were computed with other {field} ({found[:12]}, not {value[:12]}); score the "
                "dataset with this teacher, or go back to the teacher, data and settings that they were computed with."
            )


class LogitsCache:
    """Logits of a dataset's rows, (C,) each for a classifier, (tokens, V) each for a language model.

    Args:
        folder: made at the first `append`.
        fingerprint: what the logits depend on, by name. A cache that was written with another one is refused.

    Raises:
        CacheMismatchError: the folder holds logits of another fingerprint, or a damaged file.
    """

    def __init__(self, folder: Path, fingerprint: Fingerprint) -> None:
        self.folder = folder
        self.fingerprint = dict(fingerprint)
        self._pieces: list[dict[str, Tensor]] = []
        self._metadata: list[dict[str, str]] = []
        self._ends: list[int] = []
        while (path := self._path(len(self))).exists():
            self._open(path)

    def __len__(self) -> int:
        """Rows that are cached."""
        return self._ends[-1] if self._ends else 0

    def append(self, rows: Sequence[Tensor] | Sequence[TopK], about: Fingerprint | None = None) -> None:
        """Write the logits of the next rows as one file.

        Args:
            rows: one tensor of logits, or the top k of one, for each row of the dataset.
            about: what this piece alone depends on, such as the rows' token ids.
        """
        path = self._path(len(self))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, _pack(rows), self.fingerprint | dict(about or {}))
        self._open(path)

    def pieces(self) -> list[tuple[range, Fingerprint]]:
        """Which rows each file holds, and what is stored with it."""
        ends = [0, *self._ends]
        return [(range(*rows), stored) for rows, stored in zip(pairwise(ends), self._metadata, strict=True)]

    def __getitem__(self, row: int) -> Tensor | TopK:
        """The logits of one row: (C,) or (tokens, V), or their top k; on the CPU."""
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} is asked for, but {self.folder.name} holds {len(self):,} rows.")
        piece = bisect_right(self._ends, row)
        return _unpack(self._pieces[piece], row - (self._ends[piece - 1] if piece else 0))

    def _path(self, first_row: int) -> Path:
        return self.folder / f"rows-{first_row:09d}.safetensors"

    def _open(self, path: Path) -> None:
        with open_tensors(path) as file:
            stored = file.metadata() or {}
            require_same(f"in {self.folder}", stored, self.fingerprint)
            # These tensors are views of the file: the operating system reads a row when it is asked for.
            piece = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        self._pieces.append(piece)
        self._metadata.append(stored)
        self._ends.append(len(self) + len(piece["ends"]))


def save_logits(path: Path, logits: Mapping[str, Tensor], prints: Mapping[str, Fingerprint]) -> None:
    """Write named logits (N, C) and their fingerprints to one file, whole or not at all."""
    metadata = {f"{name}/{field}": value for name, fields in prints.items() for field, value in fields.items()}
    write_tensors(path, logits, metadata)


def load_logits(path: Path, name: str, expected: Fingerprint) -> Tensor:
    """The logits stored under `name`, (N, C) in float32.

    Raises:
        CacheMismatchError: they were computed with another teacher, tokenizer or dataset; it says which.
        FileNotFoundError: there is no such file.
    """
    with open_tensors(path) as file:
        if name not in file.keys():  # noqa: SIM118  (not a dict: it has no `in` of its own)
            raise CacheMismatchError(f"{path.name} holds no logits named '{name}'; score the dataset anew.")
        stored = file.metadata() or {}
        fields = {field: stored.get(f"{name}/{field}", "nothing") for field in expected}
        require_same(f"'{name}' in {path.name}", fields, expected)
        return file.get_tensor(name)


def _pack(rows: Sequence[Tensor] | Sequence[TopK]) -> dict[str, Tensor]:
    """Rows of different length behind each other, and where each ends."""
    parts = {"logits": [row.logits if isinstance(row, TopK) else row for row in rows]}
    cut = [row for row in rows if isinstance(row, TopK)]
    if cut:
        parts |= {"classes": [row.classes.int() for row in cut], "rest": [row.rest for row in cut]}
    is_sequence = parts["logits"][0].ndim > 1
    lengths = [len(row) if is_sequence else 1 for row in parts["logits"]]
    packed = {name: torch.cat(tensors) if is_sequence else torch.stack(tensors) for name, tensors in parts.items()}
    packed |= {"ends": torch.tensor(lengths).cumsum(0), "is_sequence": torch.tensor(is_sequence)}
    if cut:
        packed["temperature"] = torch.tensor(cut[0].temperature, dtype=torch.float64)
        packed["width"] = torch.tensor(cut[0].width)
    return packed


def _unpack(piece: Mapping[str, Tensor], row: int) -> Tensor | TopK:
    start = int(piece["ends"][row - 1]) if row else 0
    where = slice(start, int(piece["ends"][row])) if piece["is_sequence"] else start
    if "classes" not in piece:
        return piece["logits"][where]
    return TopK(
        piece["logits"][where], piece["classes"][where], piece["rest"][where],
        temperature=float(piece["temperature"]), width=int(piece["width"]),
    )  # fmt: skip
