"""Read a GGUF file: what llama.cpp keeps a quantized model in.

The layout is that of ggml's specification (docs/gguf.md), version 3, little-endian: a header, named values, a table of
tensors, and their blocks. Of the forty kinds of blocks three are read here, which are those of our one file. Each block
holds 32 weights:

    F32     32 numbers of 4 bytes
    Q8_0    d (float16), 32 signed bytes q          weight = d · q
    Q4_1    d, m (float16), 16 bytes of two q each  weight = d · q + m, the low halves first

The sums are taken in float32, product first, as ggml's own reference does: the same bits on every machine.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

MAGIC, VERSION = b"GGUF", 3
IN_BLOCK = 32
"""Weights."""

NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
TEXT, LIST = 8, 9
"""Kinds of values, by their numbers in the file."""

DEFAULT_ALIGNMENT = 32


class GgufError(ValueError):
    """A file that is no GGUF, or one of a kind that is not read here."""


@dataclass(frozen=True)
class Gguf:
    """What a file says of itself, by name, and its tensors in float32 by name, in the shape that torch gives them."""

    values: dict[str, Any]
    tensors: dict[str, np.ndarray]


def read_gguf(path: Path) -> Gguf:
    """
    Raises:
        GgufError: it is none, or holds what is not read here; it says what.
    """
    content = path.read_bytes()
    cursor = _Cursor(content)
    if cursor.take(4) != MAGIC:
        raise GgufError(f"{path.name} does not begin with {MAGIC.decode()}; it is no GGUF file.")
    try:
        return _read(cursor)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise GgufError(f"{path.name} is damaged or cut off ({error}); fetch it again.") from error


def _read(cursor: _Cursor) -> Gguf:
    version, tensor_count, value_count = (cursor.number(kind) for kind in "IQQ")
    if version != VERSION:
        raise GgufError(f"The file is GGUF of version {version}; version {VERSION} is read here.")
    values = {cursor.text(): cursor.value(int(cursor.number("I"))) for _ in range(value_count)}
    table = [_table_row(cursor) for _ in range(tensor_count)]
    alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
    start = -(-cursor.place // alignment) * alignment
    return Gguf(values, {name: dequantized(cursor.content, start + at, shape, kind) for name, shape, kind, at in table})


def _table_row(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, kind and place of a tensor; the file names the fastest dimension first."""
    name = cursor.text()
    shape = [int(cursor.number("Q")) for _ in range(int(cursor.number("I")))]
    return name, tuple(reversed(shape)), int(cursor.number("I")), int(cursor.number("Q"))


def dequantized(content: bytes, place: int, shape: tuple[int, ...], kind: int) -> np.ndarray:
    """The weights of a tensor whose blocks begin at a place, in float32.

    Raises:
        GgufError: blocks of another kind, or fewer bytes than the shape needs.
    """
    if kind not in BLOCKS:
        raise GgufError(f"A tensor's blocks are of kind {kind}; {', '.join(map(str, BLOCKS))} are read here.")
    block = BLOCKS[kind]
    count, rest = divmod(prod(shape), IN_BLOCK)
    if rest or place + count * block.itemsize > len(content):
        raise GgufError(f"A tensor of shape {shape} does not fit into its blocks, or the file is cut off.")
    blocks = np.frombuffer(content, block, count, place)
    return _weights(blocks).reshape(shape)


BLOCKS = {
    0: np.dtype([("weights", "<f4", IN_BLOCK)]),
    3: np.dtype([("d", "<f2"), ("m", "<f2"), ("halves", "u1", IN_BLOCK // 2)]),
    8: np.dtype([("d", "<f2"), ("q", "i1", IN_BLOCK)]),
}
"""F32, Q4_1 and Q8_0, by their numbers in the file."""


def _weights(blocks: np.ndarray) -> np.ndarray:
    names = blocks.dtype.names or ()
    if "weights" in names:
        return blocks["weights"].astype(np.float32)
    scale = blocks["d"].astype(np.float32)[:, None]
    if "q" in names:
        return scale * blocks["q"].astype(np.float32)
    halves = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], axis=1)
    return scale * halves.astype(np.float32) + blocks["m"].astype(np.float32)[:, None]


@dataclass
class _Cursor:
    """Where in a file the next thing begins."""

    content: bytes
    place: int = 0

    def take(self, count: int) -> bytes:
        if self.place + count > len(self.content):
            raise IndexError(f"{count:,} bytes are wanted at {self.place:,} of {len(self.content):,}")
        self.place += count
        return self.content[self.place - count : self.place]

    def number(self, kind: str) -> Any:
        layout = "<" + kind
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            of_items, count = self.number("I"), self.number("Q")
            return [self.value(of_items) for _ in range(count)]
        if kind not in NUMBERS:
            raise GgufError(f"A value is of kind {kind}, which GGUF does not have.")
        return self.number(NUMBERS[kind][1:])
