"""Is an answer the same as another? Equal rewrites are: NumPy for torch, a tuple for a list, any mapping for a dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def same_values(left: Sequence[Any], right: Sequence[Any], tolerance: float) -> bool:
    pairs = zip(left, right, strict=False)
    return len(left) == len(right) and all(close(ours, theirs, tolerance) for ours, theirs in pairs)


def close(left: Any, right: Any, tolerance: float) -> bool:
    """Whether two values are equal, within a tolerance that is relative and absolute; NaN equals NaN.

    What cannot be compared at all, such as a sparse tensor with a dense one or a number beyond any float, is not equal.
    """
    try:
        return _close(plain(left), plain(right), tolerance)
    except (TypeError, ValueError, RuntimeError, OverflowError, NotImplementedError, RecursionError):
        return False


def plain(value: Any) -> Any:
    """A value of NumPy or of another kind of mapping, as torch and Python have it."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _close(left: Any, right: Any, tolerance: float) -> bool:
    if _is_truth(left) and _is_truth(right):
        return bool(left) == bool(right)
    if are_floats(left) and are_ids(right):
        return False  # an embedding stops at floats, and cross_entropy takes no such labels
    if is_number(left) and is_number(right):
        left, right = (torch.as_tensor(part, dtype=torch.float64) for part in (left, right))
        return left.shape == right.shape and torch.allclose(left, right, rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(left, Tensor) and left.ndim == 1 and isinstance(right, list | tuple):
        left = list(left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return same_values(left, right, tolerance)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(close(left[key], right[key], tolerance) for key in left)
    return type(left) is type(right) and not isinstance(left, Tensor) and bool(left == right)


def _is_truth(value: Any) -> bool:
    """True or False, or a tensor that is one of them."""
    return isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool and value.ndim == 0)


def are_floats(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def are_ids(value: Any) -> bool:
    """Whole numbers in a tensor with dimensions: ids, masks, labels."""
    return isinstance(value, Tensor) and value.ndim > 0 and not value.is_floating_point() and not value.is_complex()


def is_number(value: Any) -> bool:
    """A real tensor, or a number, which is as good as a tensor without dimensions."""
    if isinstance(value, Tensor):
        return not value.is_complex()
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_nan(value: Any) -> bool:
    """Whether a number, or each element of a tensor, is NaN."""
    value = plain(value)
    if not is_number(value):
        return False
    try:
        return bool(torch.as_tensor(value, dtype=torch.float64).isnan().all())
    except (OverflowError, RuntimeError, NotImplementedError):
        return False
