"""A run that is killed and resumed ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent


def run(folder, mode, *options):
    return subprocess.run(
        [sys.executable, str(TESTS / "interrupted.py"), str(folder), mode, *options],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def end_of(folder):
    return torch.load(folder / "end.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [[], ["grouped"], ["scheduled"], ["writing"]], ids=lambda options: "".join(options) or "plain"
)
def test_a_run_killed_in_the_middle_of_an_epoch_resumes_bit_for_bit(options, tmp_path):
    """Rows seen twice, dropout drawn anew, losses averaged over a window that the interruption has cut; rows of one
    length put in another order in a second epoch; a schedule that begins anew at 0; text that the student writes anew.
    """
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert run(undisturbed, "whole", *options).returncode == 0
    assert run(killed, "kill", *options).returncode == -signal.SIGKILL
    assert not (killed / "end.pt").exists()
    resumed = run(killed, "resume", *options)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert torch.equal(end_of(undisturbed)["weights"], end_of(killed)["weights"])
    assert end_of(undisturbed)["logs"] == end_of(killed)["logs"]
    assert len(end_of(killed)["logs"]) == 15
    kinds = {"hard_loss" in log for log in end_of(killed)["logs"]}
    assert kinds == ({True, False} if "writing" in options else {True})
    assert len({log.get("alpha") for log in end_of(killed)["logs"]}) == (15 if "scheduled" in options else 1)
