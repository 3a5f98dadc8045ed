"""The same step and the same evaluation on two processes as on one, through `torchrun` and `accelerate launch`."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed.feature_worker import train_features
from distributed.other_worker import train_all as train_others
from distributed.worker import LOGGED, WRAPPED, train_all
from shapes import SHAPES, make_model, weights_of

TESTS = Path(__file__).parents[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


pytestmark = pytest.mark.slow

LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc-per-node", "2", "--master-port"],
    # `--cpu` would ask for mpirun; this starts processes in the same way and leaves the device to the script.
    "accelerate": [
        "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port",
    ],
}  # fmt: skip


def launch(launcher, out, *arguments, worker="worker.py"):
    command = [sys.executable, "-m", *LAUNCHERS[launcher], free_port(), str(TESTS / "distributed" / worker)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, str(out), *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train_all(tmp_path_factory.mktemp("alone"), 16, 1)


@pytest.mark.parametrize(("launcher", "batch", "accumulation"), [("torchrun", 4, 2), ("accelerate", 8, 1)])
def test_two_processes_make_the_step_of_one(alone, tmp_path, launcher, batch, accumulation):
    """A step that shrinks by the number of processes (GKD), a loss logged per process, rows that are counted twice
    because they fill up the last evaluation batch, texts that do so inside a packed row (4.0667 for 4.0456), a head
    that a wrapper takes for unused, because no logits are in the graph, and text of the student's own that each process
    draws, or counts, for itself."""
    together = launch(launcher, tmp_path / "out.pt", batch, accumulation)
    for shape in SHAPES:
        step = (alone[shape]["weights"] - weights_of(make_model(shape))).norm()
        assert step > 0
        assert (together[shape]["weights"] - alone[shape]["weights"]).norm() / step < 1e-5, shape
        for name in LOGGED:
            assert together[shape][name].item() == pytest.approx(alone[shape][name].item(), rel=1e-5), (shape, name)
    for name in WRAPPED:
        assert torch.allclose(together[name]["weights"], alone["llama-lm"]["weights"], atol=1e-6), name
    ours, theirs = together["writing"], alone["writing"]
    step = (theirs["weights"] - weights_of(make_model("gpt2-lm"))).norm()
    assert (ours["weights"] - theirs["weights"]).norm() / step < 1e-5
    assert torch.allclose(ours["losses"], theirs["losses"], rtol=1e-5)
    assert ours["on_own_text"].tolist() == theirs["on_own_text"].tolist()
    assert set(theirs["on_own_text"].tolist()) == {True, False}
    assert together["packed"]["eval_loss"].item() == pytest.approx(alone["packed"]["eval_loss"].item(), rel=1e-5)


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 2), (8, 1)])
def test_features_of_two_processes_are_those_of_one(tmp_path, batch, accumulation):
    """Projections that each process learns for itself, or that are summed and not averaged; a norm that is clipped in
    each process by its own gradient; features that a wrapper of the student hides."""
    together = launch("torchrun", tmp_path / "out.pt", batch, accumulation, worker="feature_worker.py")
    alone = train_features(tmp_path / "alone", 16, 1)
    for shape, results in alone.items():
        begun = weights_of(make_model(shape))
        step = (results["weights"] - begun).norm()
        assert step > 0
        for name in ("weights", "projections"):
            assert (together[shape][name] - results[name]).norm() / step < 1e-5, (shape, name)
        assert torch.allclose(together[shape]["losses"], results["losses"], rtol=1e-5), shape


def test_other_tasks_and_streams_make_the_same_steps(tmp_path):
    """Decoders' ids or masked words that each process counts for itself; a stream's remainder that one process keeps
    and another does not; parts of a stream of which one ends earlier, after which the other waits for ever."""
    together = launch("torchrun", tmp_path / "out.pt", 4, 2, worker="other_worker.py")
    alone = train_others(tmp_path / "alone", 16, 1)
    for kind, results in alone.items():
        for name, right in results.items():
            ours = together[kind][name]
            assert (ours["weights"] - right["weights"]).norm() / right["weights"].norm() < 1e-12, name
            assert torch.allclose(ours["losses"], right["losses"], rtol=1e-5), name  # logged in float32
    assert together["parts"]["steps"] == 12
