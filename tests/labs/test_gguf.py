"""GGUF files, written here by hand: each number where the specification puts it."""

import struct

import numpy as np
import pytest

from kdcourse.labs.gguf import GgufError, dequantized, read_gguf

F32, Q4_0, Q4_1, Q8_0 = 0, 2, 3, 8


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def named(name, kind, packed):
    return text(name) + struct.pack("<I", kind) + packed


def a_file(values=(), tensors=(), version=3, alignment=32):
    """`tensors` are (name, dimensions with the fastest first, kind, bytes of their blocks)."""
    table, data = b"", b""
    for name, dimensions, kind, blocks in tensors:
        data += bytes(-len(data) % alignment)
        table += text(name) + struct.pack("<I", len(dimensions)) + struct.pack(f"<{len(dimensions)}Q", *dimensions)
        table += struct.pack("<IQ", kind, len(data))
        data += blocks
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values)) + b"".join(values) + table
    return head + bytes(-len(head) % alignment) + data


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return read_gguf(path)

    return read


def test_values_of_every_kind_come_back(read):
    """A list that is read with the wrong width, and everything behind it askew."""
    values = [
        named("byte", 0, b"\xff"),
        named("small", 1, b"\xff"),
        named("half", 3, struct.pack("<h", -300)),
        named("count", 4, struct.pack("<I", 4_000_000_000)),
        named("float", 6, struct.pack("<f", 0.5)),
        named("yes", 7, b"\x01"),
        named("name", 8, text("Größe")),
        named("words", 9, struct.pack("<IQ", 8, 2) + text("a") + text("bc")),
        named("nested", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 2, 2) + struct.pack("<HH", 7, 8)),
        named("big", 10, struct.pack("<Q", 2**63)),
        named("double", 12, struct.pack("<d", 1e300)),
    ]
    assert read(a_file(values)).values == {
        "byte": 255, "small": -1, "half": -300, "count": 4_000_000_000, "float": 0.5, "yes": True, "name": "Größe",
        "words": ["a", "bc"], "nested": [[7, 8]], "big": 2**63, "double": 1e300,
    }  # fmt: skip


def test_blocks_of_four_bits_hold_the_low_halves_first(read):
    """Weights in the order of the bytes, 0 and 16 side by side: noise that has the right mean and spread."""
    halves = bytes(low | (15 - low) << 4 for low in range(16))
    block = struct.pack("<ee", 0.25, -2.0) + halves
    tensor = read(a_file(tensors=[("w", [32], Q4_1, block)])).tensors["w"]
    expected = [0.25 * q - 2 for q in range(16)] + [0.25 * (15 - q) - 2 for q in range(16)]
    assert tensor.dtype == np.float32
    assert tensor.tolist() == expected


def test_blocks_of_eight_bits_are_signed(read):
    """Small negative weights that come out as large positive ones."""
    numbers = [-128, -1, 0, 1, 127, *range(27)]
    block = struct.pack("<e", 0.5) + struct.pack("<32b", *numbers)
    assert read(a_file(tensors=[("w", [32], Q8_0, block)])).tensors["w"].tolist() == [q / 2 for q in numbers]


def test_tensors_lie_where_the_table_says_and_in_torchs_shape(read):
    """The second tensor read from the first one's padding, or a transposed matrix."""
    first = np.arange(32, dtype="<f4")
    second = np.arange(96, dtype="<f4") * 2
    content = a_file(
        [named("general.alignment", 4, struct.pack("<I", 64))],
        [("a", [32], F32, first.tobytes()), ("b", [32, 3], F32, second.tobytes())],
        alignment=64,
    )
    tensors = read(content).tensors
    assert (tensors["a"] == first).all()
    assert (tensors["b"] == second.reshape(3, 32)).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\3\4 and more", "does not begin with GGUF"),
        (a_file(version=2), "of version 2; version 3"),
        (a_file([named("x", 99, b"")]), "of kind 99"),
        (a_file(tensors=[("w", [32], Q4_0, bytes(18))]), "of kind 2; 0, 3, 8"),
        (a_file(tensors=[("w", [32], Q8_0, bytes(20))]), "cut off"),
        (a_file(tensors=[("w", [33], F32, bytes(256))]), "does not fit"),
        (a_file([named("x", 8, text("word"))])[:40], "cut off"),
        (b"GGUF", "cut off"),
    ],
)
def test_what_cannot_be_read_is_said(read, content, said):
    """struct.error, a KeyError, or zeros in the place of weights."""
    with pytest.raises(GgufError, match=said):
        read(content)


def test_a_table_that_lies_reads_nothing_beyond_the_file():
    """Memory of another tensor, or a crash."""
    with pytest.raises(GgufError, match="cut off"):
        dequantized(bytes(64), 32, (64,), F32)
