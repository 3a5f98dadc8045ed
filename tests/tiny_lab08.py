"""Lab 08 with tiny models; run as a program, it may be killed. Arguments: folder, and at which step, if at all."""

import os
import signal
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kdcourse.labs import lab08
from kdcourse.labs.lab08 import Plan, Task
from kdcourse.trainer import DistillationTrainer

WORDS = 48
PLAN = Plan(
    layers=(0, 2),
    steps=6,
    tried=(2, 4, 6),
    texts={"train": 16, "healing": 8, "transfer": 8, "validation": 4, "test": 5, "editorials": 3, "products": 3},
    length=10,
    opening=3,
    batch_size=4,
    learning_rate=1e-2,
    warmup=2,
    seeds=2,
)
WHOLE = Plan(**{**vars(PLAN), "healing": 2, "rates": (1e-3, 1e-2), "trial": 2, "cutting": 2})
NAMES = ("labels", "mixed texts")


def make_teacher(layers=3):
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1,
        bos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def make_tokenizer():
    words = {f"w{number}": number for number in range(WORDS - 3)} | {"This": 45, "movie": 46, "was": 47}
    backend = Tokenizer(models.WordLevel(words, unk_token="w3"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="w0", eos_token="w1", unk_token="w3")


def make_task(folder, tokenizer, plan=PLAN):
    random = torch.Generator().manual_seed(1)
    texts = {name: torch.randint(4, 45, (count, plan.length), generator=random) for name, count in plan.texts.items()}
    return Task(folder, plan, tokenizer, make_teacher().requires_grad_(False), texts)


class Mortal(DistillationTrainer):
    """Killed with SIGKILL before a step: no handler runs, nothing is saved."""

    steps = 0
    dies_at = 0

    def training_step(self, *args, **kwargs):
        Mortal.steps += 1
        if Mortal.steps == Mortal.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(*args, **kwargs)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 2:
        Mortal.dies_at = int(sys.argv[2])
        lab08.DistillationTrainer = Mortal
    task = make_task(Path(sys.argv[1]), make_tokenizer(), WHOLE)
    lab08.run_all(task, NAMES).save(task.folder / "results.json")
