"""Where teacher logits come from: a model that scores, or a cache that was written by one and can prove it.

A student that is trained several times asks the same teacher the same questions. The answers are a few numbers per
sentence, so they are computed once and stored beside a fingerprint of everything that they depend on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm.auto import tqdm

from kdcourse import data
from kdcourse.files import written_whole

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGITS_COLUMN = "teacher_logits"
"""The dataset column in which cached logits travel to the trainer."""

Fingerprint = Mapping[str, str]


class CacheMismatchError(ValueError):
    """The cached logits answer another question; the message names what differs."""


@torch.inference_mode()
def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    *,
    batch_size: int = 64,
    progress: bool = False,
) -> Tensor:
    """Logits (N, C) of every row of a tokenized dataset, in float32 on the CPU, in the dataset's order.

    Rows are batched by length, so that little padding is computed; the model is in eval mode while it scores.
    """
    was_training = model.training
    model.eval()
    rows = dataset.select_columns(["input_ids", "attention_mask"])
    lengths = [len(ids) for ids in rows["input_ids"]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    scored = []
    for start in tqdm(range(0, len(order), batch_size), desc="teacher", disable=not progress):
        batch = order[start : start + batch_size]
        inputs = tokenizer.pad(rows[batch], return_tensors="pt").to(model.device)
        scored.append(model(**inputs).logits.float().cpu())
    model.train(was_training)
    return torch.cat(scored)[torch.argsort(torch.tensor(order))]


def fingerprint(teacher: PreTrainedModel | str, tokenizer: PreTrainedTokenizerBase, dataset: Dataset) -> dict[str, str]:
    """What logits depend on, as SHA-256 by name: the teacher's weights, the tokenizer, and the token ids that it read.

    `teacher` is a model, whose weights are hashed, or the digest of the files that its weights come from.
    """
    return {
        "teacher weights": teacher if isinstance(teacher, str) else _hash_weights(teacher),
        "tokenizer": _hash(tokenizer.backend_tokenizer.to_str().encode()),
        "token ids": data.fingerprint(dataset, columns=["input_ids"]),
    }


def save_logits(path: Path, logits: Mapping[str, Tensor], prints: Mapping[str, Fingerprint]) -> None:
    """Write named logits and their fingerprints, whole or not at all."""
    metadata = {f"{name}/{field}": value for name, fields in prints.items() for field, value in fields.items()}
    with written_whole(path) as unfinished:
        safetensors.torch.save_file({name: rows.contiguous() for name, rows in logits.items()}, unfinished, metadata)


def load_logits(path: Path, name: str, expected: Fingerprint) -> Tensor:
    """The logits stored under `name`, (N, C) in float32.

    Raises:
        CacheMismatchError: they were computed with another teacher, tokenizer or dataset; it says which.
        FileNotFoundError: there is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            stored = file.metadata() or {}
            if name not in file.keys():  # noqa: SIM118  (not a dict: it has no `in` of its own)
                raise CacheMismatchError(f"{path.name} holds no logits named '{name}'; score the dataset anew.")
            for field, value in expected.items():
                _require_same(path, name, field, stored.get(f"{name}/{field}", "nothing"), value)
            return file.get_tensor(name)
    except SafetensorError as error:
        raise CacheMismatchError(f"{path} is damaged ({error}); delete it and score the dataset anew.") from error


def add_logits(dataset: Dataset, logits: Tensor) -> Dataset:
    """The dataset with one row of teacher logits beside each example."""
    if len(logits) != len(dataset):
        raise ValueError(f"There are {len(logits):,} rows of logits for {len(dataset):,} examples; each needs its own.")
    return dataset.add_column(LOGITS_COLUMN, logits.tolist())


def _require_same(path: Path, name: str, field: str, stored: str, expected: str) -> None:
    if stored != expected:
        raise CacheMismatchError(
            f"The logits '{name}' in {path.name} belong to another {field} ({stored[:12]}, not {expected[:12]}); "
            "score the dataset with this teacher, or go back to the teacher and data that they were computed with."
        )


def _hash_weights(model: PreTrainedModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
