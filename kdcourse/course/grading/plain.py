"""Values as plain data: JSON and the bytes of tensors. Whoever sends what, reading it runs nothing.

A value is packed into a tree for JSON, and the tensors in it, each of which the tree names by its place.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections import UserDict
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

LARGEST = 64 * 2**20
"""Bytes of one message."""
DEEP = 40
"""Levels of lists in lists."""
BITS = 1024
"""Of an integer; Python does not write larger ones as it likes."""
LENGTHS = struct.Struct(">II")
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
        torch.float32, torch.float64, torch.complex64, torch.complex128,
    )
}  # fmt: skip

OnFunction = Callable[[Any], Any]


class MessageError(Exception):
    """What was sent is no message; or what is to be sent is too large for one."""


class Written(str):
    """How an object that is no plain data was written by whoever had it; equal to nothing but the same words."""

    def __repr__(self) -> str:
        return str(self)


def pack(value: Any, on_function: OnFunction | None = None) -> tuple[Any, list[Tensor]]:
    """A tree that JSON can hold, and the tensors in the value.

    Args:
        on_function: what stands for a function in the tree; without, it is taken for an object like any other.

    Raises:
        MessageError: it is nested too deeply.
    """
    tensors: list[Tensor] = []
    return _pack(value, tensors, on_function, DEEP), tensors


def _pack(value: Any, tensors: list[Tensor], on_function: OnFunction | None, depth: int) -> Any:  # noqa: PLR0911, PLR0912  (one for each kind of value)
    kind = type(value)
    if depth == 0:
        raise MessageError("it is nested too deeply")
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        bits = value.bit_length()
        return value if bits < BITS else {"is": "written", "as": f"an integer of {bits} bits"}
    if kind is float:
        return value if math.isfinite(value) else {"is": "float", "as": repr(value)}
    if value is ...:
        return {"is": "ellipsis"}
    if kind is complex:
        return {"is": "complex", "as": [repr(value.real), repr(value.imag)]}
    if isinstance(value, np.generic):
        return _pack(value.item(), tensors, on_function, depth - 1)
    if isinstance(value, np.ndarray):
        made = _pack(_tensor_of(value), tensors, on_function, depth - 1)
        return {"is": "array", "of": made} if made["is"] == "tensor" else made
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type != "cpu" or _name(value.dtype) not in DTYPES:
            return {"is": "written", "as": f"a tensor of {value.dtype}, {value.layout}, on {value.device}"}
        tensors.append(value)
        return {"is": "tensor", "at": len(tensors) - 1}
    if kind in (list, tuple, set, frozenset, torch.Size):
        return {
            "is": "tuple" if kind is torch.Size else kind.__name__,
            "of": [_pack(each, tensors, on_function, depth - 1) for each in value],
        }
    if kind in (dict, UserDict):
        pairs = [[_pack(part, tensors, on_function, depth - 1) for part in pair] for pair in value.items()]
        return {"is": kind.__name__, "of": pairs}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):  # it arrives with its fields alone
        fields = [[each.name, getattr(value, each.name)] for each in dataclasses.fields(value)]
        return {"is": "record", "of": [[name, _pack(part, tensors, on_function, depth - 1)] for name, part in fields]}
    if isinstance(value, torch.dtype) and _name(value) in DTYPES:
        return {"is": "dtype", "as": _name(value)}
    if on_function is not None and callable(value):
        return {"is": "function", "as": on_function(value)}
    return {"is": "written", "as": f"{kind.__name__}: {_shown(value)}"[:1000]}


def _tensor_of(value: np.ndarray) -> Any:
    try:
        return torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape))
    except (TypeError, ValueError):  # texts, objects
        return value.tolist()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shown(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"cannot be shown ({type(error).__name__})"


def unpack(tree: Any, tensors: Sequence[Tensor], on_function: OnFunction | None = None) -> Any:
    """The value of a tree.

    Raises:
        MessageError: `pack` has not made it.
    """
    try:
        return _unpack(tree, tensors, on_function)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise MessageError(f"it is no value ({type(error).__name__})") from error


def _unpack(tree: Any, tensors: Sequence[Tensor], on_function: OnFunction | None) -> Any:  # noqa: PLR0911
    if not isinstance(tree, dict):
        if isinstance(tree, list):
            raise TypeError("a list that is not said to be one")
        return tree
    kind = tree["is"]
    if kind == "tensor":
        return tensors[tree["at"]]
    if kind == "array":
        return _unpack(tree["of"], tensors, on_function).detach().numpy()
    if kind in ("list", "tuple", "set", "frozenset"):
        make = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind]
        return make(_unpack(each, tensors, on_function) for each in tree["of"])
    if kind in ("dict", "UserDict"):
        pairs = [(_unpack(key, tensors, on_function), _unpack(part, tensors, on_function)) for key, part in tree["of"]]
        return dict(pairs) if kind == "dict" else UserDict(pairs)
    if kind == "record":
        return SimpleNamespace(**{str(name): _unpack(part, tensors, on_function) for name, part in tree["of"]})
    if kind == "float":
        return float(tree["as"])
    if kind == "complex":
        return complex(*map(float, tree["as"]))
    if kind == "ellipsis":
        return ...
    if kind == "dtype":
        return DTYPES[tree["as"]]
    if kind == "function" and on_function is not None:
        return on_function(tree["as"])
    return Written(tree["as"])


def send(stream: IO[bytes], words: dict[str, Any], tensors: Sequence[Tensor]) -> None:
    """Write one message.

    Raises:
        MessageError: it is larger than any may be; nothing was written.
    """
    parts = [_bytes_of(tensor) for tensor in tensors]
    kinds = [[_name(each.dtype), list(each.shape), each.requires_grad] for each in tensors]
    head = json.dumps(words | {"tensors": kinds}, ensure_ascii=True).encode()
    size = sum(map(len, parts))
    if len(head) + size > LARGEST:
        raise MessageError(_too_large(len(head) + size))
    stream.write(b"".join([LENGTHS.pack(len(head), size), head, *parts]))
    stream.flush()


def _too_large(size: int) -> str:
    return f"it has {size / 1e6:,.0f} MB, and may have {LARGEST / 1e6:,.0f}"


def _bytes_of(tensor: Tensor) -> bytes:
    if tensor.numel() * tensor.element_size() > LARGEST:
        raise MessageError(_too_large(tensor.numel() * tensor.element_size()))
    plain = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach()).reshape(-1)  # whatever its strides
    return plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[Tensor]]:
    """Read one message; of its tensors, those that had a gradient to be asked for require one.

    Raises:
        EOFError: whoever wrote has ended.
        MessageError: what was written is no message.
    """
    head_size, size = LENGTHS.unpack(_exactly(stream, LENGTHS.size))
    if head_size + size > LARGEST:
        raise MessageError("it says that it is larger than any message may be")
    head, data = _exactly(stream, head_size), _exactly(stream, size)
    try:
        words = json.loads(head)
        return words, _tensors(words.pop("tensors"), data)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, RecursionError, OverflowError) as error:
        raise MessageError(f"it cannot be read ({type(error).__name__})") from error


def _tensors(kinds: list[Any], data: bytes) -> list[Tensor]:
    tensors, start = [], 0
    for name, shape, gradient in kinds:
        dtype, count = DTYPES[name], math.prod(shape)
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("a shape is made of numbers")
        end = start + count * dtype.itemsize
        if end > len(data):
            raise ValueError("a tensor lacks its data")
        made = torch.frombuffer(bytearray(data[start:end]), dtype=dtype) if count else torch.empty(0, dtype=dtype)
        made = made.reshape(shape)
        tensors.append(made.requires_grad_() if gradient and (made.is_floating_point() or made.is_complex()) else made)
        start = end
    return tensors


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if data is None or len(data) < size:
        raise EOFError("whoever wrote has ended")
    return data
