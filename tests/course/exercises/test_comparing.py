"""When an answer is as good as another, and when it only looks so."""

import pytest
import torch

from kdcourse.course.exercises.comparing import close

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
