"""What logits depend on: the teacher, how it was asked, and the rows that it read (lessons 05 and 07).

Weights alone do not say what a model computes. The same matrices make another function with another number of heads,
another activation or other positions, and the same token ids are another text under another mask.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdcourse.columns import (
    TEACHER_PREFIX,
    TOKEN_COLUMNS,
    arguments_of,
    teacher_features,
    unwrapped,
)
from kdcourse.hashing import hash_columns, hash_json, hash_tensors, hash_values, hash_weights, values_of
from kdcourse.pieces import CONTENT, ROWS, SEAL, CacheMismatchError

if TYPE_CHECKING:
    from datasets import Dataset

_WITHOUT_A_SAY = frozenset({
    "_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "architectures", "dtype", "torch_dtype",
    "id2label", "label2id", "problem_type", "use_cache", "return_dict", "output_attentions", "output_hidden_states",
    "training", "gradient_checkpointing", "warnings_issued", "max_seq_len_cached",
    "config", "peft_config",
})  # fmt: skip
"""What a configuration or a module holds beside what it computes: where it came from, how its classes are called, what
else it returns, and what it notes while it is used. The dtype is that of the weights, which are hashed themselves;
configurations are described once, and an adapter's by what it sets in the modules."""

_PLACED = frozenset({"hf_device_map", "to", "cuda", "npu", "xpu", "mlu", "sdaa", "musa", "neuron"})
"""What accelerate writes on a module that it spreads over devices: where it is, and methods that would move it."""

COLUMNS = "columns"
"""The field of a fingerprint that says which columns of the dataset were read."""

PART = "part"
"""The field of a fingerprint that says which part of which dataset a cache holds (see `kdcourse.parts`)."""

SAID_OF_A_FILE = frozenset({ROWS, CONTENT, SEAL, PART})
"""What is stored with logits and belongs to one file alone."""

_ADAPTERS_STATE = ("_disable_adapters", "_active_adapter")
"""What peft keeps under private names, and what changes logits."""


def fingerprint(
    teacher: nn.Module | str, tokenizer: Any, dataset: Dataset | None = None, *, weights: str | None = None
) -> dict[str, str]:
    """What logits depend on, by name, mostly as SHA-256.

    Args:
        teacher: a model; or the digest of the files that its weights and configuration come from.
        tokenizer: the teacher's tokenizer, feature extractor or image processor; None if it has none.
        dataset: the rows that it read. Which columns those are, only a model can tell; of a digest, they are the ids,
            mask and token types of a tokenizer.
        weights: digest of the files that a model's weights come from, if the weights are not to be hashed themselves.
    """
    if isinstance(teacher, str):
        prints = {"teacher weights": teacher}
    else:
        prints = {
            "teacher weights": weights or hash_weights(teacher),
            "teacher configuration": hash_configuration(teacher),
        }
    prints |= fingerprint_of_processing(tokenizer)
    if dataset is not None:
        prints |= fingerprint_of_rows(dataset, columns_read(dataset, None if isinstance(teacher, str) else teacher))
    return prints


def fingerprint_of_processing(tokenizer: Any) -> dict[str, str]:
    """The part of a fingerprint that says how rows become a batch.

    The padding side is one of its own: a model that counts positions from the left sees others under left padding.
    """
    if tokenizer is None:
        return {"processing": "none"}
    side = {"padding side": side} if (side := getattr(tokenizer, "padding_side", None)) else {}
    if hasattr(tokenizer, "get_vocab"):
        return {"tokenizer": _hash_tokenizer(tokenizer)} | side
    return {"processing": hash_json([type(tokenizer).__name__, _described(tokenizer)])} | side


def fingerprint_of_rows(dataset: Dataset, columns: Collection[str]) -> dict[str, str]:
    """The part of a fingerprint that changes with the dataset.

    Args:
        columns: those that the teacher reads (see `columns_read` and `columns_named`).
    """
    names = {column.removeprefix(TEACHER_PREFIX): column for column in columns}
    mask = names.pop("attention_mask", None)
    ids = [names.pop(name) for name in ("input_ids", "token_type_ids") if name in names]
    prints = {COLUMNS: ", ".join([*ids, *sorted(names.values())])}
    if ids:
        prints["token ids"] = hash_columns(dataset, ids)
        # Without a mask, all of a text is read.
        masks = values_of(dataset, mask) if mask else ([1] * len(row) for row in values_of(dataset, ids[0]))
        prints["attention mask"] = hash_values({"attention_mask": masks})
    elif mask:
        names["attention_mask"] = mask
    return prints | {column: hash_columns(dataset, [column]) for column in names.values()}


def same_for_all_rows(stored: Mapping[str, str]) -> dict[str, str]:
    """The part of what is stored with logits that is the same for each piece of a dataset."""
    return {field: value for field, value in stored.items() if field not in _of_rows(stored) | SAID_OF_A_FILE}


def said_of_rows(stored: Mapping[str, str]) -> dict[str, str]:
    """The part of what is stored with logits that tells which rows of which dataset they are for."""
    return {field: value for field, value in stored.items() if field in _of_rows(stored) | {COLUMNS}}


def number_of_rows(stored: Mapping[str, str]) -> int:
    """A number that tells apart which rows of which dataset some logits are for, whichever teacher gave them.

    It fits a column of int64. Of logits that came without the rows that they depend on, the logits themselves decide.
    """
    rows = said_of_rows(stored) or {CONTENT: stored.get(CONTENT, "")}
    return int(hash_json(rows | {ROWS: stored.get(ROWS, "")})[:15], 16)


def _of_rows(stored: Mapping[str, str]) -> set[str]:
    return {"token ids", "attention mask", *stored.get(COLUMNS, "").split(", ")}


def columns_read(dataset: Dataset, teacher: nn.Module | None) -> list[str]:
    """The columns of a dataset that a teacher reads: its own, which begin with `teacher_`, or else the student's.

    Of a teacher that is not at hand, those that a tokenizer makes.

    Raises:
        ValueError: there are none.
    """
    present = _columns_of(dataset)
    if teacher is None:
        named, who, read = frozenset(TOKEN_COLUMNS), "a text model", [name for name in TOKEN_COLUMNS if name in present]
    else:
        named, who = arguments_of(teacher), type(unwrapped(teacher)).__name__
        features = teacher_features({column: column for column in present}, teacher)
        read = [column for name, column in features.items() if name in named or name in TOKEN_COLUMNS]
    if not read and present:
        raise ValueError(
            f"The dataset has the columns {', '.join(present)} and {who} reads {', '.join(sorted(named))}; tokenize or "
            "process the dataset, call its columns what forward does, and pass the model itself."
        )
    return _with_mask(read, present)


def columns_named(stored: Mapping[str, str], dataset: Dataset) -> list[str]:
    """The columns that were read when a fingerprint was taken.

    Raises:
        CacheMismatchError: the dataset lacks one.
    """
    read, present = stored[COLUMNS].split(", "), _columns_of(dataset)
    for column in read:
        if column not in present:
            raise CacheMismatchError(
                f"The dataset has no column {column}, and the logits depend on it; pass the one that was scored."
            )
    return _with_mask(read, present)


def _columns_of(dataset: Dataset) -> list[str]:
    """Also of a dataset with a transform, which makes others than are stored."""
    return list(dataset[0]) if len(dataset) else dataset.column_names


def _with_mask(columns: list[str], present: Collection[str]) -> list[str]:
    """A mask also tells padding from text in an answer, whether or not the teacher reads it."""
    masks = {column.replace("input_ids", "attention_mask") for column in columns if column.endswith("input_ids")}
    return [*columns, *sorted(mask for mask in masks if mask in present and mask not in columns)]


def hash_configuration(model: nn.Module) -> str:
    """Of all that decides what forward computes beside weights: classes, configuration, and the settings of modules."""
    from transformers import PreTrainedModel

    configurations = [_described(config) for config in _configurations_of(model)]
    modules = [[name, _settings_of(module)] for name, module in model.named_modules()]
    # In models of transformers, they are weights or follow from the configuration, each machine with its own rounding.
    is_known = isinstance(unwrapped(model), PreTrainedModel)
    return hash_json([configurations, modules, "" if is_known else hash_tensors(_unsaved_tensors(model))])


def _configurations_of(model: nn.Module) -> list[Any]:
    """Each once, however many modules hold it."""
    held = {id(config): config for module in model.modules() if (config := getattr(module, "config", None)) is not None}
    return list(held.values())


def _described(config: Any) -> Any:
    return _plain(config.to_dict() if hasattr(config, "to_dict") else config)


def _settings_of(module: nn.Module) -> list[Any]:
    """Class, numbers, words and functions of one module: heads, epsilons, an adapter's scale."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_") and name not in _PLACED}
    if (inner := vars(module).get("_old_forward")) is not None:  # accelerate moves inputs before it, and has no say
        public.pop("forward", None)
        if getattr(inner, "__func__", None) is not type(module).forward:
            public["forward"] = inner
    adapters = {name: getattr(module, name) for name in _ADAPTERS_STATE if name in vars(module)}
    return [type(module).__module__, type(module).__qualname__, _plain(public | adapters)]


def _unsaved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Tensors that are attributes of a module, or buffers that are not saved with it."""
    return {
        f"{prefix}.{name}": value
        for prefix, module in model.named_modules()
        for name, value in {**vars(module), **dict(module.named_buffers(recurse=False))}.items()
        if isinstance(value, Tensor)
    }


def _plain(value: Any) -> Any:
    """As JSON can say it: functions by their names, objects, whose text may hold an address, by their classes."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items() if key not in _WITHOUT_A_SAY}
    if isinstance(value, list | tuple | set | frozenset):
        plain = [_plain(each) for each in value]
        return plain if isinstance(value, list | tuple) else sorted(map(json.dumps, plain))
    if isinstance(value, SimpleNamespace) or (is_dataclass(value) and not isinstance(value, type)):
        return _plain(vars(value))
    return str(value) if isinstance(value, torch.dtype | torch.device | Enum) else _name_of(value)


def _name_of(value: Any) -> str:
    return f"{type(value).__qualname__} {getattr(value, '__qualname__', '')}"


def _hash_tokenizer(tokenizer: Any) -> str:
    """Of its rules and its pad token; of its vocabulary alone where it is one in Python, which cannot be written whole.

    A fast tokenizer remembers how it padded and cut last; that is in the ids, and not a rule.
    """
    padding = getattr(tokenizer, "pad_token_id", None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hash_json([type(tokenizer).__name__, tokenizer.get_vocab(), padding])
    rules = {name: rule for name, rule in json.loads(backend.to_str()).items() if name not in ("padding", "truncation")}
    return hash_json([rules, padding])
