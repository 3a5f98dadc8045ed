"""SHA-256 over the things that a result depends on: the one place in which anything is hashed (lessons 05 and 07)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn


def hash_bytes(*pieces: bytes) -> str:
    """Hexadecimal SHA-256 of the pieces, one behind the other."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def hash_text(text: str) -> str:
    """Of a text in UTF-8."""
    return hash_bytes(text.encode())


def hash_json(value: Any) -> str:
    """Of nested dictionaries, lists, strings and numbers; the order of keys has no say."""
    return hash_text(json.dumps(value, sort_keys=True))


def hash_file(path: Path) -> str:
    """Of a file's content, which may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tree(root: Path, paths: Iterable[Path]) -> str:
    """Of files below `root`: their names from there, and their contents."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def hash_weights(model: nn.Module) -> str:
    """Of a model's parameters and buffers: names, dtypes, shapes and values."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_columns(dataset: Dataset, columns: Iterable[str] = ("text",)) -> str:
    """Of the values of `columns` in row order: the same on every machine, for as long as the data is."""
    digest = hashlib.sha256()
    plain = dataset.with_format(None)  # a dataset of tensors holds the same values
    for column in columns:
        digest.update(json.dumps([column, list(plain[column])], ensure_ascii=False).encode())
    return digest.hexdigest()
