"""One file of logits: rows behind each other, read through a memory map, with the proof of what they are (lesson 05).

Each file has two seals. One covers what is said of the logits, and is checked whenever the file is opened; the other
covers the logits, and is checked before the first of them is handed out: a cache may be larger than memory, and
training reads all of it anyway.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdcourse.files import written_whole
from kdcourse.hashing import hash_json, hash_tensors
from kdcourse.sampled import Sampled
from kdcourse.temperature import at_least_float32
from kdcourse.topk import Cut, Logits, TopK

Fingerprint = Mapping[str, str]

CONTENT, SEAL = "content", "seal"
"""What a file's metadata hold beside the fingerprint: SHA-256 of the tensors, and of all metadata but the seal."""

ROWS = "rows"
"""Which rows of the dataset a file holds: a file that was renamed would answer for others."""

ANEW = "delete it and the files after it, and score the dataset anew; the rows before stay"

ROW, SEQUENCE = 1, 2
"""Dimensions of one example's logits: (C,) of a classifier, (tokens, V) of a language model."""

ROWS_AND_CLASSES = 2
"""Dimensions of a classifier's logits for a batch; those for tokens have one more."""


class CacheMismatchError(ValueError):
    """The cached logits answer another question, or are not what was written; the message says which."""


@contextmanager
def in_words(problem: str, advice: str) -> Iterator[None]:
    """What the operating system refuses, as a sentence; the kind of error stays."""
    try:
        yield
    except OSError as error:
        explained = type(error)(f"{problem} ({error.strerror or error}); {advice}.")
        explained.errno = error.errno
        raise explained from error


def require_same(cache: str, stored: Fingerprint, expected: Fingerprint) -> None:
    """Every expected field is stored with the expected value.

    Raises:
        CacheMismatchError: it names the field and both values.
    """
    for field, value in expected.items():
        found = stored.get(field, "nothing")
        if found != value:
            raise CacheMismatchError(
                f"The logits {cache} were computed with other {field} ({_shown(found)}, not {_shown(value)}); score "
                "the dataset with this teacher, or go back to the teacher, data and settings that they came from."
            )


def _shown(value: str) -> str:
    """A digest by its beginning, anything else as it is."""
    return value[:12] if re.fullmatch(r"[0-9a-f]{64}", value) else value


def sealed(tensors: Mapping[str, Tensor], about: Fingerprint) -> dict[str, str]:
    """What is said of the tensors, with both seals."""
    said = dict(about) | {CONTENT: hash_tensors(tensors)}
    return said | {SEAL: hash_json(said)}


def require_seal(where: str, stored: Fingerprint) -> None:
    """What is said of the logits is what was written.

    Raises:
        CacheMismatchError: it is not, or a version wrote it that sealed nothing.
    """
    said = {field: value for field, value in stored.items() if field != SEAL}
    if SEAL not in stored or CONTENT not in stored:
        raise CacheMismatchError(
            f"{where} has no digest of what it holds, as an earlier version wrote it, or it is damaged; {ANEW}."
        )
    if stored[SEAL] != hash_json(said):
        raise CacheMismatchError(f"{where} is damaged: what it says of its logits was changed; {ANEW}.")


def require_content(where: str, tensors: Mapping[str, Tensor], stored: Fingerprint) -> None:
    """The tensors are those that were written.

    Raises:
        CacheMismatchError: a bit of them is another.
    """
    if hash_tensors(tensors) != stored[CONTENT]:
        raise CacheMismatchError(f"{where} is damaged: its logits are not those that were written; {ANEW}.")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """One safetensors file, whole or not at all, and the folder for it.

    Raises:
        OSError: there is no room, or no permission; what was there before is as it was.
    """
    with in_words(f"{path} cannot be written", "nothing was lost; mend that, and call again"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as unfinished:
            unfinished.touch()
            mode = unfinished.stat().st_mode  # safetensors would make a file that only its owner can read
            try:
                safetensors.torch.save_file(
                    {name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished, dict(metadata)
                )
            except SafetensorError as error:  # its word for a full disk
                raise OSError(str(error)) from error
            unfinished.chmod(mode)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. The tensors are views of it: a row is read when it is asked for.

    Raises:
        CacheMismatchError: it is damaged.
        OSError: it is not there, or cannot be read.
    """
    with in_words(f"{path} cannot be read", "look at where it leads, and at its permissions"):
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
        except SafetensorError as error:
            raise CacheMismatchError(f"{path} is damaged ({error}); {ANEW}.") from error


class Piece:
    """Some rows of a cache, in one file.

    Raises:
        CacheMismatchError: the file is damaged, as far as that is seen without reading its logits.
    """

    def __init__(self, path: Path, first_row: int) -> None:
        self.path = path
        self._tensors, self.about = read_tensors(path)
        require_seal(str(path), self.about)
        if problem := next(_misfits(self._tensors), None):
            raise CacheMismatchError(f"{path} is damaged: {problem}; {ANEW}.")
        self.kind = kind_of(self._tensors)
        self.is_sequence = bool(self._tensors["is_sequence"])
        self.rows = range(first_row, first_row + len(self._tensors["ends"]))
        require_same(f"in {path}", self.about, {ROWS: rows_in_words(self.rows)})
        self._ends = self._tensors["ends"].numpy()
        self._is_proven = False

    def __getitem__(self, index: int) -> Logits:
        """The logits of one of its rows, counted from 0: (C,) or (tokens, V), whole or cut; in float32 or better."""
        if not self._is_proven:
            require_content(str(self.path), self._tensors, self.about)
            self._is_proven = True
        where = slice(int(self._ends[index - 1]) if index else 0, int(self._ends[index])) if self.is_sequence else index
        logits = at_least_float32(self._tensors["logits"][where])
        if "classes" not in self._tensors:
            return logits
        return (Sampled if "sampled" in self.kind else TopK)(
            logits, self._tensors["classes"][where].int(), self._tensors["rest"][where],
            temperature=self.kind["temperature"], width=self.kind["width"],
        )  # fmt: skip


def rows_in_words(rows: range) -> str:
    return f"{rows.start} to {rows.stop - 1}"


def pack(rows: Sequence[Logits]) -> dict[str, Tensor]:
    """Rows of different length behind each other, and where each ends.

    Raises:
        ValueError: there are none, or they are not of one kind.
    """
    if not len(rows):
        raise ValueError("There are no rows to append; a file of a cache holds at least one.")
    _require_one_kind(rows)
    parts = {"logits": [row.logits if isinstance(row, Cut) else row for row in rows]}
    cut = [row for row in rows if isinstance(row, Cut)]
    if cut:
        parts |= {"classes": [row.classes.int() for row in cut], "rest": [row.rest for row in cut]}
    is_sequence = rows[0].ndim == SEQUENCE
    lengths = [len(row) if is_sequence else 1 for row in parts["logits"]]
    packed = {name: torch.cat(tensors) if is_sequence else torch.stack(tensors) for name, tensors in parts.items()}
    packed |= {"ends": torch.tensor(lengths).cumsum(0), "is_sequence": torch.tensor(is_sequence)}
    if cut:
        _require_classes(packed["classes"], cut[0].width)
        if cut[0].width <= SMALL_VOCABULARY:
            packed["classes"] = packed["classes"].to(torch.uint16)
        packed["temperature"] = torch.tensor(cut[0].temperature, dtype=torch.float64)
        packed["width"] = torch.tensor(cut[0].width)
        if isinstance(cut[0], Sampled):
            packed["is_sampled"] = torch.tensor(True)
    if problem := next(_misfits(packed), None):
        raise ValueError(f"These rows cannot be kept: {problem}.")
    return packed


def narrowed(row: Logits, dtype: torch.dtype) -> Logits:
    """A row (C,) or (tokens, V), whole or cut, with logits in `dtype`: as they are, if that holds each of them.

    Else they are first counted from the largest of their row, which no softmax can tell, and which leaves most digits
    to the likeliest classes. -inf stays -inf, and what is finite stays finite.
    """
    logits = row.logits if isinstance(row, Cut) else row
    short = logits.to(dtype)
    if torch.equal(short.to(logits.dtype), logits):
        return replace(row, logits=short) if isinstance(row, Cut) else short
    largest = logits.amax(dim=-1, keepdim=True)
    largest = torch.where(largest.isfinite(), largest, 0)
    below = (logits - largest).clamp(min=torch.finfo(dtype).min)
    short = torch.where(logits == -math.inf, -math.inf, below).to(dtype)
    if not isinstance(row, Cut):
        return short
    return replace(row, logits=short, rest=row.rest - largest.squeeze(-1) / row.temperature)


def _require_one_kind(rows: Sequence[Logits]) -> None:
    kinds = {
        (type(row), row.ndim, row.logits.shape[-1], row.temperature, row.width)
        if isinstance(row, Cut)
        else (row.ndim, row.shape[-1:])
        for row in rows
    }
    if len(kinds) > 1 or rows[0].ndim not in (ROW, SEQUENCE):
        shapes = sorted({str(tuple(row.shape)) for row in rows})
        raise ValueError(
            f"The rows have the shapes {', '.join(shapes[:3])}, but those of one cache are all (C,) or all (tokens, "
            "V), whole or cut in one way, to one k at one temperature."
        )


def _require_classes(classes: Tensor, width: int) -> None:
    """Each row's classes are different ones, and among the `width` that there are."""
    in_order = classes.sort(dim=-1).values
    if classes.numel() and (
        in_order[..., 0].min() < 0 or in_order[..., -1].max() >= width or (in_order.diff(dim=-1) == 0).any()
    ):
        raise ValueError(f"The classes of a row are {classes.shape[-1]} different numbers from 0 to {width - 1}.")


def kind_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What all files of a cache have in common."""
    kind: dict[str, Any] = {"is_sequence": bool(tensors["is_sequence"]), "logits": tensors["logits"].shape[1]}
    if "classes" not in tensors:
        return kind
    kind |= {"temperature": tensors["temperature"].item(), "width": int(tensors["width"])}
    return kind | {"sampled": True} if "is_sampled" in tensors else kind


SMALL_VOCABULARY = 2**16
"""Up to here, an id takes two bytes on disk, and four beyond."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Expected = dict[str, tuple[tuple[torch.dtype, ...], int]]

DENSE: Expected = {"logits": (FLOATS, 2), "ends": ((torch.int64,), 1), "is_sequence": ((torch.bool,), 0)}
LARGEST: Expected = DENSE | {
    "classes": ((torch.int32, torch.uint16), 2), "rest": (FLOATS, 1),
    "temperature": ((torch.float64,), 0), "width": ((torch.int64,), 0),
}  # fmt: skip
DRAWN: Expected = LARGEST | {"is_sampled": ((torch.bool,), 0)}
"""The tensors of a file, with the dtypes that they may have and the number of their dimensions."""


def _misfits(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """What is wrong with the tensors of a file, as far as their shapes and the few small ones tell.

    Only the first is sure: each look takes for granted that the ones before found nothing.
    """
    expected = DRAWN if "is_sampled" in tensors else LARGEST if "classes" in tensors else DENSE
    if tensors.keys() != expected.keys():
        yield f"it holds {sorted(tensors)}, not {sorted(expected)}"
    for name, (dtypes, dimensions) in expected.items():
        tensor = tensors[name]
        if tensor.ndim != dimensions or tensor.dtype not in dtypes:
            yield f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}"
    logits, ends = tensors["logits"], tensors["ends"]
    if not len(ends):
        yield "it holds no rows"
    lengths = ends.diff(prepend=ends.new_zeros(1))
    if (lengths < 0).any() or ends[-1] != len(logits) or not (tensors["is_sequence"] or (lengths == 1).all()):
        yield f"its {len(ends):,} rows do not end where its {len(logits):,} logits do"
    if "classes" not in tensors:
        return
    if tensors["classes"].shape != logits.shape or tensors["rest"].shape != logits.shape[:1]:
        yield "its logits, classes and rest have not as many rows"
    if not 0 < tensors["temperature"].item() < math.inf:
        yield f"its temperature is {tensors['temperature'].item()}"
    if not 1 <= logits.shape[1] <= tensors["width"]:
        yield f"it keeps {logits.shape[1]} of {int(tensors['width'])} classes"
