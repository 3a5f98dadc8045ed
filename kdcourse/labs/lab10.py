"""What lab 10 works on: tiny models, a few sentences of uneven length, and steps that two processes make together.

`in_two_processes` starts this module in a fresh interpreter, which starts the two by accelerate's `notebook_launcher`.
That one forks. Called in a notebook whose cells have computed with more than one thread, it makes processes that wait
for those threads for ever: GNU's OpenMP does not survive a fork. A fresh interpreter has computed nothing yet.
"""

from __future__ import annotations

import importlib.resources
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback

from kdcourse.collators import LanguageModelCollator
from kdcourse.heads import HiddenHeadError, look
from kdcourse.loss import lm_distillation_loss
from kdcourse.sharding import shard_teacher
from kdcourse.trainer import DistillationArguments, DistillationTrainer

SENTENCES = (
    "good .",
    "a film about a man and his dog that is as long as it is dull , and it is very long .",
    "not bad .",
    "the plot is thin , the jokes are old , and the cast looks as tired as we were at the end of it .",
    "see it .",
    "what a lovely , warm and funny film this is , from the first scene to the last .",
    "dull , dull .",
    "it has no plot , no end and no point , and still we were sorry when it was over .",
)
"""Eight, short and long in turn: what a mean over each part does is seen in them at once."""

ALPHA, TEMPERATURE, LEARNING_RATE = 0.5, 2.0, 0.1

SECONDS = 600
"""After which two processes are given up; they need a few, and on a busy machine a hundred."""

CONFIGURATIONS = Path(str(importlib.resources.files("kdcourse.labs"))) / "resources"
"""`fsdp.yaml` and `deepspeed.yaml`, for `accelerate launch --config_file`: those of docs/scaling.md."""

PAD, UNKNOWN = "<pad>", "<unk>"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word of the sentences."""
    words = [PAD, UNKNOWN, *dict.fromkeys(" ".join(SENTENCES).split())]
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNKNOWN))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, unk_token=UNKNOWN)


def make_texts(copies: int = 1) -> Dataset:
    """The sentences as rows of a language model; each further copy has their words in another order, no row twice."""
    tokenizer = make_tokenizer()
    random = torch.Generator().manual_seed(0)
    rows: dict[tuple[int, ...], None] = {}
    for copy in range(copies):
        for sentence in SENTENCES:
            ids = tokenizer(sentence)["input_ids"]
            order = torch.randperm(len(ids), generator=random) if copy else torch.arange(len(ids))
            rows[tuple(ids[place] for place in order)] = None
    return Dataset.from_list(
        [{"input_ids": list(ids), "attention_mask": [1] * len(ids), "labels": list(ids)} for ids in rows]
    )


def make_model(seed: int, layers: int = 2, confidence: float = 8.0) -> LlamaForCausalLM:
    """Random weights; `confidence` multiplies those of the head, so that two models have opinions that differ."""
    config = LlamaConfig(
        vocab_size=len(make_tokenizer()), hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, pad_token_id=0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.lm_head.weight.data.mul_(confidence)
    return model.eval()


def make_student() -> LlamaForCausalLM:
    return make_model(seed=0)


def make_teacher() -> LlamaForCausalLM:
    return make_model(seed=1)


def weights_of(model: nn.Module) -> Tensor:
    """All of them, one behind the other."""
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def trainers_step(folder: Path, *, batch: int, pieces: int = 1, **settings: Any) -> Tensor:
    """The student's weights after one step of `DistillationTrainer` on all eight sentences; plain gradient descent.

    Args:
        batch: sentences of a micro-batch, in each process.
        pieces: micro-batches of the step.
    """
    arguments = DistillationArguments(
        str(folder), alpha=ALPHA, temperature=TEMPERATURE, max_steps=1, per_device_train_batch_size=batch,
        gradient_accumulation_steps=pieces, optim="sgd", learning_rate=LEARNING_RATE, max_grad_norm=0.0,
        save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, **settings,
    )  # fmt: skip
    trainer = DistillationTrainer(
        make_student(), arguments, teacher=make_teacher(), train_dataset=make_texts(),
        processing_class=make_tokenizer(),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return weights_of(trainer.accelerator.unwrap_model(trainer.model))


def half_of_the_texts(rank: int) -> Dataset:
    """The short sentences for the first process, and the long ones for the second."""
    texts = make_texts()
    return texts.select(range(rank, len(texts), 2))


def step_of_means(rank: int) -> Tensor:
    """The weights after a step in which each process takes the mean over its own tokens: a loop as many have it."""
    student, teacher = make_student(), make_teacher()
    wrapped = nn.parallel.DistributedDataParallel(student)  # adds the gradients up, and divides by the processes
    batch = LanguageModelCollator(make_tokenizer())(list(half_of_the_texts(rank)))
    asked = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        taught = teacher(**asked).logits
    loss = lm_distillation_loss(
        wrapped(**asked).logits, taught, batch["labels"], alpha=ALPHA, temperature=TEMPERATURE
    )  # fmt: skip
    loss.total.backward()
    torch.optim.SGD(student.parameters(), lr=LEARNING_RATE).step()
    return weights_of(student)


def teacher_in_pieces() -> dict[str, Any]:
    """What `shard_teacher` does: bytes of the weights in each process, and how far its answers move."""
    teacher = make_teacher()
    batch = LanguageModelCollator(make_tokenizer())(list(make_texts()))
    asked = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        whole = teacher(**asked).logits
    before = _bytes_here(teacher)
    shard_teacher(teacher)
    after = torch.tensor([_bytes_here(teacher)])
    everywhere = [torch.zeros_like(after) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everywhere, after)
    with torch.no_grad():
        moved = (teacher(**asked).logits - whole).abs().max()
    return {
        "before": torch.tensor(before), "after": torch.cat(everywhere), "moved": moved, "refused": _refusal(teacher),
    }  # fmt: skip


def _bytes_here(model: nn.Module) -> int:
    """Of weights, whole or in pieces, that are in this process."""
    own = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in model.parameters()]
    return sum(weight.numel() * weight.element_size() for weight in own)


def _refusal(teacher: nn.Module) -> str:
    """What the fused loss says of a head that is in pieces."""
    for module in teacher.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # a forward pass leaves the last ones that it has gathered whole
    try:
        look(teacher, {"input_ids": torch.tensor([[2, 3]])})
    except HiddenHeadError as error:
        return str(error)
    raise AssertionError("a head in pieces was not refused")


def work(out: str) -> None:
    """What each of the two processes does; the first writes down what came of it."""
    path = Path(out)
    results: dict[str, Any] = {"trainer": trainers_step(path.parent, batch=4)}  # opens the processes' group
    results["pieces"] = trainers_step(path.parent, batch=2, pieces=2)
    results["means"] = step_of_means(distributed.get_rank())
    results["teacher"] = teacher_in_pieces()
    results["processes"] = torch.tensor(distributed.get_world_size())
    if distributed.get_rank() == 0:
        torch.save(results, path)
    distributed.destroy_process_group()


def free_port() -> str:
    """Where nobody listens yet; `use_port="0"` would have the processes wait for ever."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def in_two_processes(seconds: float = SECONDS) -> dict[str, Any]:
    """What `work` gives in two processes of a fresh interpreter, on CPUs.

    Raises:
        RuntimeError: they failed, or needed more than `seconds`; it says how.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        out = Path(folder) / "out.pt"
        # A session of their own, so that those that wait for ever can be ended together.
        process = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
            [sys.executable, *_launcher(), "kdcourse.labs.lab10", str(out)], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, encoding="utf-8", errors="replace", start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            raise RuntimeError(f"The two processes were not done after {seconds:g} seconds, and are stopped.") from None
        if process.returncode != 0 or not out.exists():
            last = said.strip().splitlines()[-1:] or ["without a word"]
            raise RuntimeError(f"The two processes ended with {process.returncode}: {last[0]}")
        return dict(torch.load(out, weights_only=True))


def _launcher() -> list[str]:
    """Where the module is started by itself it forks; other systems have no fork, or none that is safe."""
    if sys.platform == "linux":
        return ["-m"]
    return [
        "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port",
        free_port(), "-m",
    ]  # fmt: skip


def _end(process: subprocess.Popen[str]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()


def main(out: str) -> None:
    if "RANK" in os.environ:  # torchrun has started this process
        work(out)
        os._exit(0)  # torch keeps FSDP2's groups, and now and then aborts while Python takes down their threads
    from accelerate import notebook_launcher

    notebook_launcher(work, args=(out,), num_processes=2, use_port=free_port())


if __name__ == "__main__":
    main(sys.argv[1])
