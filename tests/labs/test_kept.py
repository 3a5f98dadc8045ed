"""Tensors that took long: computed once, and never read from a file that was damaged."""

import pytest
import torch
from safetensors.torch import save_file

from kdcourse.labs.kept import kept, undamaged


@pytest.fixture
def counted():
    """What makes the tensors, with the number of times that it was asked."""

    def make():
        make.times += 1
        return {"a": torch.arange(6.0).reshape(2, 3).T}  # not contiguous, as a safetensors file wants it

    make.times = 0
    return make


def test_it_is_computed_once(tmp_path, counted):
    """Hours that are paid again with each run."""
    first = kept(tmp_path / "sub" / "x.safetensors", counted)
    again = kept(tmp_path / "sub" / "x.safetensors", counted)
    assert counted.times == 1
    assert first["a"].equal(again["a"])
    assert again["a"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("damage", ["cut", "flipped", "another's"])
def test_what_is_damaged_is_set_aside_and_computed_anew(tmp_path, counted, damage, capsys):
    """A byte of a disk that becomes a result; a file that somebody put in its place and that has no seal."""
    path = tmp_path / "x.safetensors"
    kept(path, counted)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-3])
    elif damage == "flipped":
        content[-2] ^= 1
        path.write_bytes(content)
    else:
        save_file({"a": torch.zeros(3, 2)}, path)
    assert undamaged(path) is None
    assert kept(path, counted)["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert counted.times == 2
    assert "was damaged" in capsys.readouterr().out
    assert len(list(tmp_path.glob("x.yours-1*"))) == 1
