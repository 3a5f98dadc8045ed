"""FSDP2: a student whose weights are spread over two processes makes the step of a whole one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from settings.by_hand import distance, losses, step
from shapes import make_model, make_rows, weights_of

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_sharded_student_makes_the_step_of_a_whole_one(tmp_path):
    """Pieces of weights that are taken for the whole, gradients averaged once more, rows that fill up a batch."""
    out = tmp_path / "out.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*command, str(Path(__file__).with_name("sharded_worker.py")), str(out)], check=False, timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    for shape, sharded in torch.load(out, weights_only=True).items():
        by_hand, weights = step(shape, make_rows(shape))
        assert distance(sharded["weights"], weights, weights_of(make_model(shape)).double()) < 5e-5, shape
        assert sharded["teacher is whole"], shape
        stepped = make_model(shape).double()
        torch.nn.utils.vector_to_parameters(weights, stepped.parameters())
        evaluated = losses(shape, make_rows(shape, 13, seed=1), stepped, make_model(shape, seed=1))
        for prefix, expected in (("", by_hand), ("eval_", evaluated)):
            for name, value in zip(("loss", "hard_loss", "soft_loss"), expected, strict=True):
                assert sharded[prefix + name].item() == pytest.approx(value.item(), rel=1e-5), (shape, prefix + name)
