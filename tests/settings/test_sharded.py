"""FSDP2: student and teacher whose weights are spread over two processes make the step of whole ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from accelerate.utils.launch import prepare_multi_gpu_env
from docs.pages import ROOT, blocks_of
from settings.by_hand import distance, losses, step
from settings.sharded_worker import BLOCKS
from shapes import make_model, make_rows, weights_of

from kdcourse.sharding import shard_teacher

TESTS = Path(__file__).parents[1]


def block(language, words):
    """The one block of docs/scaling.md that is in this language and holds these words."""
    (found,) = (
        each.text
        for each in blocks_of(ROOT / "docs" / "scaling.md")
        if each.language == language and words in each.text
    )
    return found


@pytest.fixture
def fsdp_of_the_page(tmp_path):
    """What `accelerate launch` makes of the configuration in the documentation, for the processes that it starts."""
    path = tmp_path / "fsdp.yaml"
    path.write_text(block("yaml", "fsdp_config"), encoding="utf-8")
    arguments, *_ = _validate_launch_command(
        launch_command_parser().parse_args(["--config_file", str(path), "train.py"])
    )
    assert arguments.use_fsdp
    assert int(arguments.num_processes) == 2
    return {name: value for name, value in prepare_multi_gpu_env(arguments).items() if name.startswith("FSDP_")}


@pytest.mark.slow
def test_sharded_models_make_the_step_of_whole_ones(tmp_path, fsdp_of_the_page):
    """Pieces of weights that are taken for the whole, gradients averaged once more, rows that fill up a batch; a
    teacher that is trained, or whose pieces answer for it; a configuration in the documentation that does otherwise."""
    assert fsdp_of_the_page["FSDP_VERSION"] == "2"
    assert fsdp_of_the_page["FSDP_TRANSFORMER_CLS_TO_WRAP"] == BLOCKS["llama-lm"]
    out = tmp_path / "out.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*command, str(Path(__file__).with_name("sharded_worker.py")), str(out)], check=False, timeout=500,
        env=os.environ | fsdp_of_the_page | {
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "OMP_NUM_THREADS": "1",
        },
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-12000:]
    results = torch.load(out, weights_only=True)
    assert {is_sharded for _, is_sharded in results} == {False, True}
    for (shape, is_sharded), sharded in results.items():
        where = f"{shape}, teacher {'in pieces' if is_sharded else 'whole'}"
        by_hand, weights = step(shape, make_rows(shape))
        # A step of gradient descent: how far its weights lie apart is how far the gradients do.
        assert distance(sharded["weights"], weights, weights_of(make_model(shape)).double()) < 5e-5, where
        assert torch.equal(sharded["teacher"], weights_of(make_model(shape, seed=1))), where
        stepped = make_model(shape).double()
        torch.nn.utils.vector_to_parameters(weights, stepped.parameters())
        evaluated = losses(shape, make_rows(shape, 13, seed=1), stepped, make_model(shape, seed=1))
        for prefix, expected in (("", by_hand), ("eval_", evaluated)):
            for name, value in zip(("loss", "hard_loss", "soft_loss"), expected, strict=True):
                assert sharded[prefix + name].item() == pytest.approx(value.item(), rel=1e-5), (where, prefix + name)


def test_a_teacher_cannot_be_sharded_before_there_are_processes():
    """Torch's own words about a default process group."""
    with pytest.raises(ValueError, match="create DistillationArguments before this call"):
        shard_teacher(make_model("llama-lm"))


def test_a_teacher_without_blocks_asks_for_them(tmp_path):
    """A teacher that is gathered as a whole, at every step, without a word."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match=r"no module of the classes .*none are named.*pass blocks="):
            shard_teacher(torch.nn.Linear(2, 2))
        with pytest.raises(ValueError, match="Block"):
            shard_teacher(make_model("llama-lm"), blocks=["Block"])
    finally:
        torch.distributed.destroy_process_group()


def test_the_configurations_of_deepspeed_are_read_by_those_that_will_read_them(tmp_path):
    """A key that accelerate does not know. DeepSpeed is not installed, so no step is made with it."""
    path = tmp_path / "deepspeed.yaml"
    path.write_text(block("yaml", "deepspeed_config"), encoding="utf-8")
    read = load_config_from_file(str(path))
    assert read.distributed_type == "DEEPSPEED"
    settings = {"zero_optimization": {"stage": read.deepspeed_config["zero_stage"]}}
    assert HfDeepSpeedConfig(settings).is_zero3()
    arguments, *_ = _validate_launch_command(
        launch_command_parser().parse_args(["--config_file", str(path), "train.py"])
    )
    assert arguments.use_deepspeed
    assert int(arguments.zero_stage) == 3
