"""Values of an answer, as a learner wants to read them: rounded, short, and the part alone that differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdcourse.course.exercises.comparing import are_floats, are_ids, close, plain

LONG = 24
"""Elements of a tensor that is no longer shown."""
EXACT = 8
"""Digits of a number that looks like another when it is rounded."""
WIDE = 200
"""Characters of a value that is no longer shown whole."""


def shown(values: Sequence[Any]) -> str:
    """Numbers without "tensor(…)" and without all their digits; the shape of a tensor that is long."""
    return ", ".join(map(_shown, values))


def shown_beside(yours: Any, ours: Any, tolerance: float) -> tuple[str, str]:
    """Two values that differ: where they are alike but in one element, key or type, that alone."""
    yours, ours = plain(yours), plain(ours)
    if isinstance(yours, Tensor) and isinstance(ours, Tensor) and not yours.is_sparse:
        return _tensors_beside(yours, ours)
    if isinstance(yours, dict) and isinstance(ours, dict):
        return _dicts_beside(yours, ours, tolerance)
    first, second = _shown(yours), _shown(ours)
    if first == second or not _are_of_one_kind(yours, ours):
        return f"{first} ({_kind(yours)})", f"{second} ({_kind(ours)})"
    return first, second


def _are_of_one_kind(yours: Any, ours: Any) -> bool:
    """Whether they can be compared: a tensor of one number is as good as the number, and a list as a tuple."""
    kinds = (list | tuple, int | float | Tensor)
    return type(yours) is type(ours) or any(isinstance(yours, kind) and isinstance(ours, kind) for kind in kinds)


def _tensors_beside(yours: Tensor, ours: Tensor) -> tuple[str, str]:
    if yours.is_complex() != ours.is_complex() or (are_floats(yours) and are_ids(ours)):
        return _kind(yours), _kind(ours)
    if yours.shape != ours.shape:
        return f"{_shown(yours)}, shape {tuple(yours.shape)}", f"{_shown(ours)}, shape {tuple(ours.shape)}"
    both = _shown(yours), _shown(ours)
    if yours.is_meta or (ours.numel() <= LONG and both[0] != both[1]):
        return both
    gaps = (yours.double() - ours.double()).abs().nan_to_num(torch.inf)
    place = tuple(int(part) for part in torch.unravel_index(gaps.argmax(), gaps.shape))
    where = f" at {place if len(place) > 1 else place[0]}" if place else ""
    both = _shown(yours[place]), _shown(ours[place])
    if both[0] == both[1]:
        both = f"{yours[place].item():.{EXACT}g}", f"{ours[place].item():.{EXACT}g}"
    return both[0] + where, both[1] + where


def _dicts_beside(yours: dict[Any, Any], ours: dict[Any, Any], tolerance: float) -> tuple[str, str]:
    if yours.keys() != ours.keys():
        return f"the keys {sorted(map(repr, yours))}", f"the keys {sorted(map(repr, ours))}"
    key = next(key for key in ours if not close(yours[key], ours[key], tolerance))
    first, second = shown_beside(yours[key], ours[key], tolerance)
    return f"{first} for {key!r}", f"{second} for {key!r}"


def _kind(value: Any) -> str:
    return f"a tensor of {value.dtype}".replace("torch.", "") if isinstance(value, Tensor) else type(value).__name__


def _shown(value: Any) -> str:
    value = plain(value)
    if isinstance(value, Tensor):
        return _shown_tensor(value)
    try:
        text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    except Exception as error:  # a `__repr__` of one's own, or a number with more digits than Python prints
        return f"{_kind(value)} that cannot be shown ({type(error).__name__})"
    return text if len(text) <= WIDE else f"{text[:WIDE]} …"


def _shown_tensor(value: Tensor) -> str:
    if value.numel() > LONG or value.is_meta or value.layout != torch.strided:
        return f"{_kind(value)} of shape {tuple(value.shape)}"
    if value.is_floating_point():
        return str(value.detach().double().round(decimals=4).tolist())
    return str(value.tolist())
