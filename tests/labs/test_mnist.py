"""MNIST's files: read as they were published, from a folder, packed or not, and from a hub's copy."""

import gzip
import io
import struct

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from kdcourse.labs import assets, mnist

IMAGES = np.arange(2 * 28 * 28, dtype=np.uint32).reshape(2, 28, 28).astype(np.uint8)
LABELS = np.array([7, 3], dtype=np.uint8)


def idx(values, magic):
    """As http://yann.lecun.com/exdb/mnist describes it, by hand."""
    return struct.pack(">I", magic) + b"".join(struct.pack(">I", size) for size in values.shape) + values.tobytes()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(IMAGES, 2051))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS, 2049)))
    return tmp_path


def test_a_folder_is_read_packed_or_not(folder):
    """Pictures that are turned, labels that are shifted, a scale of 256."""
    images, labels = mnist.load("test", folder)
    assert images.dtype == torch.float32
    assert torch.equal(images, torch.tensor(IMAGES / 255, dtype=torch.float32))
    assert labels.tolist() == [7, 3]
    assert labels.dtype == torch.long


def test_a_missing_file_is_named(folder):
    """FileNotFoundError without a word of what belongs there."""
    with pytest.raises(FileNotFoundError, match=r"no train-images-idx3-ubyte and no train-images-idx3-ubyte.gz; name"):
        mnist.load("train", folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (idx(np.zeros(20, np.uint8), 2049), "begins with 0x801"),
        (idx(IMAGES, 2051)[:-1], "has 1,583 bytes"),
        (idx(IMAGES, 2051) + b"!", "has 1,585 bytes"),
        (b"", "begins with 0x0"),
        (b"<html>", "has 6 bytes"),
    ],
)
def test_a_file_that_is_something_else_is_refused_in_words(folder, content, said):
    """Labels read as pictures, a download that broke off, a page of a proxy."""
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not MNIST's file of images") as error:
        mnist.load("test", folder)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "take the original, which begins with 0x803" in str(error.value)


def test_what_is_written_is_what_the_authors_wrote():
    """Files that differ from the originals by a byte, so that no hash holds."""
    assert mnist.idx_bytes(IMAGES, "images") == idx(IMAGES, 0x803)
    assert mnist.idx_bytes(LABELS.astype(np.int64), "labels") == idx(LABELS, 0x801)
    assert mnist.name_of_file("train", "labels") == "train-labels-idx1-ubyte"


def test_the_package_is_turned_back_into_four_files(tmp_path):
    """A header that is taken for a picture; a label in the place of a pixel."""
    for split in ("train", "test"):
        rows = [[label, *image.flatten()] for label, image in zip(LABELS, IMAGES, strict=True)]
        lines = ["label," + ",".join(map(str, range(784))), *(",".join(map(str, row)) for row in rows)]
        (tmp_path / f"mnist_{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = tmp_path / "made"
    made.mkdir()
    mnist.convert(tmp_path, made)
    assert {path.name for path in made.iterdir()} == {
        "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
    }  # fmt: skip
    assert (made / "t10k-images-idx3-ubyte").read_bytes() == idx(IMAGES, 2051)


def test_a_hub_copy_gives_the_same(tmp_path, monkeypatch):
    """Pictures of a hub that are scaled, turned, or in another order than those of the package."""

    def png(image):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    copy = tmp_path / "mnist"
    copy.mkdir()
    rows = {"image": [png(image) for image in IMAGES], "label": LABELS.astype(np.int64)}
    Dataset.from_dict(rows).to_parquet(str(copy / "test-00000-of-00001.parquet"))
    monkeypatch.setattr(assets, "source", lambda: "hub")
    monkeypatch.setattr(assets, "locate", lambda name: {"mnist": tmp_path}[name])
    images, labels = mnist.load("test")
    assert torch.equal(images, torch.tensor(IMAGES / 255, dtype=torch.float32))
    assert labels.tolist() == LABELS.tolist()
