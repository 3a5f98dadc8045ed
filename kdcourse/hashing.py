"""SHA-256 over the things that a result depends on: the one place in which anything is hashed (lessons 05 and 07)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor, nn


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


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Of named tensors: names, dtypes, shapes and values."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_weights(model: nn.Module) -> str:
    """Of a model's parameters and buffers, as far as they are saved with it."""
    return hash_tensors(model.state_dict())


def hash_columns(dataset: Dataset, columns: Iterable[str] = ("text",)) -> str:
    """Of the values of `columns` in row order: the same on every machine, for as long as the data is."""
    return hash_values({column: values_of(dataset, column) for column in columns})


def values_of(dataset: Dataset, column: str) -> Iterable[Any]:
    """A column row by row: of a dataset of tensors, what one of lists holds; of a transformed one, what that makes."""
    if dataset.format["type"] == "custom":
        return (row[column] for row in dataset)
    return dataset.with_format(None)[column]


def hash_values(columns: Mapping[str, Iterable[Any]]) -> str:
    """Of columns by name: lists, strings and numbers, and tensors or arrays. They need not fit into memory."""
    digest = hashlib.sha256()
    for name, values in columns.items():
        digest.update(f"[{json.dumps(name, ensure_ascii=False)}, [".encode())
        for number, value in enumerate(values):
            text = json.dumps(value, ensure_ascii=False, default=_hash_array)
            digest.update((f", {text}" if number else text).encode())
        digest.update(b"]]")
    return digest.hexdigest()


def _hash_array(value: Any) -> Any:
    """A tensor or an array, which JSON has no word for."""
    import torch

    return hash_tensors({"": torch.as_tensor(value)})
