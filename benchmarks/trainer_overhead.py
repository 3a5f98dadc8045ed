"""What distillation adds to a training step: `python benchmarks/trainer_overhead.py`, about three minutes on 2 cores.

One process trains the same student on the same batches in three ways, in turn, several times, so that whatever else the
machine does hits all three alike; the ratios are medians over rounds, each with its spread.

    plain    transformers.Trainer on labels
    cached   DistillationTrainer, the teacher's logits in a column of the dataset      at most 1.05 × plain
    online   DistillationTrainer, the teacher in the loop                              at most 1.03 × (plain + teacher)

`teacher` is the teacher's own work: its forward passes over the same batches, and nothing else. Ends in 1 if a limit is
exceeded.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Annotated

import torch
import transformers
import typer
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import DataCollatorWithPadding, GPT2Config, GPT2ForSequenceClassification, Trainer, TrainingArguments

from kdcourse import DistillationArguments, DistillationTrainer
from kdcourse.labs.models import load_tokenizer

CACHED_LIMIT, ONLINE_LIMIT = 1.05, 1.03
BATCH, TOKENS = 32, 32


def make_model(layers: int, width: int, seed: int) -> GPT2ForSequenceClassification:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=30_522, n_positions=64, n_embd=width, n_layer=layers, n_head=width // 64, num_labels=2,
        pad_token_id=0, bos_token_id=101, eos_token_id=102,
    )  # fmt: skip
    return GPT2ForSequenceClassification(config)


def make_rows(steps: int) -> Dataset:
    """Sentences of equal length, so that a round is the same work each time."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 30_000, (steps * BATCH, TOKENS), generator=generator)
    labels = torch.randint(0, 2, (len(ids),), generator=generator)
    logits = torch.randn(len(ids), 2, generator=generator)
    columns = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "teacher_logits": logits}
    return Dataset.from_dict({name: column.tolist() for name, column in columns.items()})


class Bench:
    """The three trainers, and the teacher on its own, each with the same student and rows."""

    def __init__(self, steps: int, folder: str) -> None:
        self.rows = make_rows(steps)
        self.bare = self.rows.remove_columns("teacher_logits")
        self.teacher = make_model(4, 192, seed=1).eval()
        self.collator = DataCollatorWithPadding(load_tokenizer())
        self.settings = {
            "output_dir": folder, "per_device_train_batch_size": BATCH, "num_train_epochs": 1, "report_to": "none",
            "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True,
            "dataloader_pin_memory": False,
        }  # fmt: skip

    def plain(self) -> float:
        return self._time(
            Trainer(make_model(2, 128, 0), TrainingArguments(**self.settings), train_dataset=self.bare,
                    data_collator=self.collator)
        )  # fmt: skip

    def cached(self) -> float:
        return self._time(self._distil(self.rows, None))

    def online(self) -> float:
        return self._time(self._distil(self.bare, self.teacher))

    @torch.no_grad()
    def teacher_alone(self) -> float:
        batches = [self.collator(self.bare[start : start + BATCH]) for start in range(0, len(self.bare), BATCH)]
        started = time.perf_counter()
        for batch in batches:
            self.teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return time.perf_counter() - started

    def _distil(self, rows: Dataset, teacher: torch.nn.Module | None) -> DistillationTrainer:
        return DistillationTrainer(
            make_model(2, 128, 0), DistillationArguments(**self.settings), teacher=teacher, train_dataset=rows,
            data_collator=self.collator,
        )  # fmt: skip

    @staticmethod
    def _time(trainer: Trainer) -> float:
        trainer.remove_callback(transformers.PrinterCallback)
        started = time.perf_counter()
        trainer.train()
        return time.perf_counter() - started


def main(
    rounds: Annotated[int, typer.Option(help="Times that each way is measured.")] = 7,
    steps: Annotated[int, typer.Option(help="Training steps per measurement.")] = 60,
) -> None:
    """Compare a distillation step with a plain one. Example: trainer_overhead.py --rounds 5"""
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(steps, folder)
        ways = {"plain": bench.plain, "teacher": bench.teacher_alone, "cached": bench.cached, "online": bench.online}
        for way in ways.values():  # once without counting: allocators and caches warm up
            way()
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                seconds[name].append(way())

    measured = list(zip(*seconds.values(), strict=True))
    ratios = {
        "cached / plain": ([cached / plain for plain, _, cached, _ in measured], CACHED_LIMIT),
        "online / (plain + teacher)": (
            [online / (plain + teacher) for plain, teacher, _, online in measured],
            ONLINE_LIMIT,
        ),
    }
    table = Table("ratio", "median", "lowest", "highest", "limit")
    for name, (values, limit) in ratios.items():
        table.add_row(name, *(f"{value:.3f}" for value in (statistics.median(values), min(values), max(values), limit)))
    console = Console()
    console.print({name: f"{statistics.median(values):.2f} s" for name, values in seconds.items()}, table)
    if any(statistics.median(values) > limit for values, limit in ratios.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
