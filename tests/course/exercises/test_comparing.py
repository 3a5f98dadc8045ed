"""When an answer is as good as another, and when it only looks so."""

import pytest
import torch

from kdcourse.course.exercises.comparing import close
from kdcourse.course.exercises.showing import shown_beside

IDS = torch.tensor([[1, 2], [3, 0]])


@pytest.mark.parametrize("ids", [IDS, IDS.int(), IDS.numpy()])
def test_ids_are_whole_numbers_of_any_width(ids):
    """An int32 that is refused where an int64 is expected."""
    assert close(ids, IDS, 1e-6)


@pytest.mark.parametrize("ids", [IDS.float(), IDS.double().numpy()])
def test_floats_are_no_ids(ids):
    """A batch of floats that passes, and stops at the first embedding."""
    assert not close(ids, IDS, 1e-6)
    assert close(IDS, ids, 1e-6)


@pytest.mark.parametrize(
    ("yours", "ours", "said"),
    [
        ([1.0, 2.0], (1.0, 3.0), ("2", "3")),
        (torch.tensor(0.5), 0.7, ("0.5", "0.7")),
        (IDS.float(), IDS, ("float32", "int64")),
        ("1", 1, ("str", "int")),
    ],
)
def test_kinds_are_shown_where_they_are_what_differs(yours, ours, said):
    """A learner who repairs a list into a tuple, and leaves the number wrong."""
    shown = shown_beside(yours, ours, 1e-6)
    assert all(part in text for part, text in zip(said, shown, strict=True))
    assert any("list" in text or "tensor" in text for text in shown) == ("float32" in said)
