"""Tensors that took long to compute: kept under a name that says what they depend on, and read from there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdcourse.files import set_aside, written_whole
from kdcourse.hashing import hash_tensors

DIGEST, SECONDS = "sha256", "seconds"


def kept(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors that were computed before, or are computed now and kept; what was damaged is set aside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / f".{path.name}.lock"):
        if path.exists():
            found = undamaged(path)
            if found is not None:
                return found
            print(f"{path} was damaged: it is now {set_aside(path).name}, and is computed anew.")
        tensors = {name: tensor.contiguous() for name, tensor in make().items()}
        with written_whole(path) as unfinished:
            save_sealed(tensors, unfinished)
    return tensors


def kept_with_seconds(path: Path, make: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], float]:
    """The tensors of `kept`, and how many CPU seconds they took when they were computed."""

    def timed() -> dict[str, Tensor]:
        started = time.process_time()
        return {**make(), SECONDS: torch.tensor(time.process_time() - started)}

    tensors = kept(path, timed)
    return tensors, float(tensors.pop(SECONDS))


def save_sealed(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors with the SHA-256 of what they hold, to which `undamaged` holds them."""
    save_file(tensors, path, metadata={DIGEST: hash_tensors(tensors)})


def undamaged(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file that `save_sealed` wrote; None if it is missing, damaged or another's."""
    try:
        with safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get(DIGEST)
        found = load_file(path)
    except (SafetensorError, OSError):
        return None
    return found if hash_tensors(found) == expected else None
