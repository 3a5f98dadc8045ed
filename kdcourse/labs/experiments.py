"""The arms of an experiment: students that differ in what they learn from, and in nothing else (lesson 07).

An arm is run once for each seed. What comes out, the trained student and its answers on the test sets, is kept in a
folder whose name ends in a fingerprint of everything that it depends on, with the SHA-256 of each file. A folder that
is there is complete, so an experiment that was interrupted resumes where it was: with the next arm, and in a long one
with its last checkpoint. What has been damaged since is set aside, and trained anew.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import safetensors.torch
import torch
from filelock import FileLock
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from kdcourse.checkpoints import EpochOrder, last_checkpoint, require_whole
from kdcourse.collators import collator
from kdcourse.columns import LOGITS_COLUMN
from kdcourse.files import says_full, set_aside
from kdcourse.hashing import hash_columns, hash_file, hash_json, hash_weights
from kdcourse.teacher import score
from kdcourse.trainer import DistillationArguments, DistillationTrainer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGITS_FILE, COST_FILE, DIGESTS_FILE = "logits.safetensors", "cost.json", "digests.json"
COLUMNS = ("input_ids", "attention_mask", "label", LOGITS_COLUMN)
Fitted = TypeVar("Fitted")

CHECKPOINTS = 4
"""How many times a run is saved on its way: an interruption loses at most this share of it."""
FULL = 1_000_000
"""Bytes of a disk on which nothing of an arm has room."""


@dataclass(frozen=True)
class Budget:
    """What every arm of an experiment has in common."""

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    temperature: float = 2.0
    bf16: bool = False
    fp16: bool = False


@dataclass(frozen=True)
class Arm:
    """One way to teach: these sentences, and this weight of their labels.

    `rows` is tokenized and has the columns `label` (-100 for none) and, unless labels are all that it learns from,
    `teacher_logits`.
    """

    name: str
    rows: Dataset
    alpha: float

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that the arm learns from."""
        return hash_columns(self.rows, [name for name in COLUMNS if name in self.rows.column_names])

    @property
    def trainer(self) -> type[Trainer]:
        """The stock Trainer where there is no teacher to listen to."""
        return DistillationTrainer if LOGITS_COLUMN in self.rows.column_names else Trainer


@dataclass(frozen=True)
class Run:
    """A finished run: where its student is, and its logits (N, C) on each test set.

    `cost` is what training took since the last interruption: `seconds`, and `cpu seconds` over all cores.
    """

    folder: Path
    logits: Mapping[str, Tensor]
    cost: Mapping[str, float]

    def student(self) -> PreTrainedModel:
        """The trained student, in eval mode.

        Raises:
            FileNotFoundError: it was not kept.
        """
        if not has_student(self.folder):
            raise FileNotFoundError(
                f"{self.folder} has the answers of a student, and not the student; run it with keep_student=True."
            )
        return AutoModelForSequenceClassification.from_pretrained(self.folder).eval()


@dataclass(frozen=True)
class Experiment:
    """Arms on one budget, scored on the same test sets.

    Args:
        folder: keeps what is finished.
        make_student: a new student for a seed; the same weights for the same seed.
        tests: tokenized sentences by name.
    """

    folder: Path
    budget: Budget
    make_student: Callable[[int], PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    tests: Mapping[str, Dataset]

    def run(self, arm: Arm, seed: int, *, keep_student: bool = True) -> Run:
        """Train and score one student, or fetch what an earlier call has left.

        Args:
            keep_student: keep its weights as well, and train anew if an earlier call did not. Its answers and costs are
                always kept, and are all that a comparison needs: 160 students of GPT-2 fill 80 GB.

        Raises:
            OSError: the disk is full; what was finished before is kept.
        """
        student = self.make_student(seed)
        name = f"{arm.name.replace(' ', '-')}-{seed}-{self._digest(arm, seed, student)[:16]}"
        finished, unfinished = self.folder / name, self.folder / f".{name}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{name}.lock"):
            if finished.exists() and not _is_whole(finished):
                print(f"{finished} was damaged: it is now {set_aside(finished).name}, and is trained anew.")
            if not finished.exists() or (keep_student and not has_student(finished)):
                with self._room_for(name):
                    student, cost = self._train(arm, seed, student, unfinished / "checkpoints")
                    self._write(student, cost, unfinished / "run", keep_student)
                    shutil.rmtree(finished, ignore_errors=True)
                    (unfinished / "run").rename(finished)
            shutil.rmtree(unfinished, ignore_errors=True)
        cost = json.loads((finished / COST_FILE).read_text(encoding="utf-8"))
        return Run(finished, safetensors.torch.load_file(finished / LOGITS_FILE), cost)

    @contextmanager
    def _room_for(self, name: str) -> Iterator[None]:
        """Say of a full disk what it is: of PyTorch's own words nobody can tell."""
        try:
            yield
        except Exception as error:
            if not says_full(str(error)) and shutil.disk_usage(self.folder).free > FULL:
                raise
            raise OSError(
                errno.ENOSPC,
                f"{os.strerror(errno.ENOSPC)} in {self.folder} for {name}; free some, and run it again: what was "
                "finished before is kept",
            ) from None

    def _train(
        self, arm: Arm, seed: int, student: PreTrainedModel, checkpoints: Path
    ) -> tuple[PreTrainedModel, dict[str, float]]:
        """Train `student` in place, from the last checkpoint of an earlier call; what that cost.

        Where the checkpoint is damaged, it is another student: a new one, from the beginning.
        """
        untouched = [student]  # a checkpoint that cannot be read to its end may have changed it

        def fit(progress: Progress, checkpoint: Path | None) -> tuple[PreTrainedModel, dict[str, float]]:
            own = untouched.pop() if untouched else self.make_student(seed)
            return own, self._fit(arm, seed, own, checkpoints, progress, checkpoint)

        return from_last_checkpoint(checkpoints, f"{arm.name}, seed {seed},", fit)

    def _fit(
        self,
        arm: Arm,
        seed: int,
        student: PreTrainedModel,
        checkpoints: Path,
        progress: Progress,
        checkpoint: Path | None = None,
    ) -> dict[str, float]:
        started, cpu_started = time.perf_counter(), time.process_time()
        budget = self.budget
        arguments = DistillationArguments(
            str(checkpoints),
            alpha=arm.alpha,
            temperature=budget.temperature,
            max_steps=budget.steps,
            per_device_train_batch_size=budget.batch_size,
            train_sampling_strategy="group_by_length",
            learning_rate=budget.learning_rate,
            warmup_steps=0.1,
            bf16=budget.bf16,
            fp16=budget.fp16,
            seed=seed,
            save_steps=max(1, budget.steps // CHECKPOINTS),
            save_total_limit=1,
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        # A list, because the Trainer looks at every row to group them by length, and a Dataset makes it wait.
        columns = [name for name in COLUMNS if name in arm.rows.column_names]
        rows = arm.rows.select_columns(columns).to_list()
        trainer = arm.trainer(student, arguments, train_dataset=rows, data_collator=collator(self.tokenizer))
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(progress)
        if not isinstance(trainer, DistillationTrainer):  # which keeps it itself
            trainer.add_callback(EpochOrder(checkpoint))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return {"seconds": time.perf_counter() - started, "cpu seconds": time.process_time() - cpu_started}

    def _write(self, student: PreTrainedModel, cost: Mapping[str, float], folder: Path, keep_student: bool) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if keep_student:
            student.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        logits = {name: score(student, self.tokenizer, rows) for name, rows in self.tests.items()}
        safetensors.torch.save_file(logits, folder / LOGITS_FILE)
        (folder / COST_FILE).write_text(json.dumps(dict(cost)), encoding="utf-8")
        digests = {path.name: hash_file(path) for path in folder.iterdir()}
        (folder / DIGESTS_FILE).write_text(json.dumps(digests, indent=1, sort_keys=True), encoding="utf-8")

    def _digest(self, arm: Arm, seed: int, student: PreTrainedModel) -> str:
        depends_on = {
            "rows": arm.fingerprint,
            "alpha": arm.alpha,
            "budget": _in_use(self.budget),
            "seed": seed,
            "student": hash_weights(student),
            "tests": {name: hash_columns(rows, ["input_ids"]) for name, rows in self.tests.items()},
            "versions": versions(),
        }
        return hash_json(depends_on)


class Progress(TrainerCallback):
    """Whether a training has come to a step: until then it reads what it goes on from."""

    has_begun = False

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.has_begun = True


def has_student(finished: Path) -> bool:
    """Whether a finished run kept its student's weights, in one file or in several."""
    return any(finished.glob("model*.safetensors"))


def _in_use(budget: Budget) -> dict[str, Any]:
    """A setting that came later and is not used leaves older runs what they are."""
    return {name: value for name, value in asdict(budget).items() if name != "fp16" or value}


def _is_whole(finished: Path) -> bool:
    """Whether each file of a finished run is there, and as it was written."""
    try:
        digests = json.loads((finished / DIGESTS_FILE).read_text(encoding="utf-8"))
        return digests.keys() >= {LOGITS_FILE, COST_FILE} and all(
            hash_file(finished / name) == digest for name, digest in digests.items()
        )
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {name: version(name) for name in ("torch", "transformers")}


def from_last_checkpoint(checkpoints: Path, who: str, fit: Callable[[Progress, Path | None], Fitted]) -> Fitted:
    """What `fit` gives from the last checkpoint in a folder; from the beginning if there is none, or it is damaged."""
    checkpoint, progress = last_checkpoint(checkpoints), Progress()
    if checkpoint is not None:
        try:
            require_whole(checkpoint)
            return fit(progress, checkpoint)
        except Exception as error:
            if progress.has_begun or says_full(str(error)):
                raise
            print(f"{who} is trained from the beginning: its {checkpoint.name} is damaged.")
            set_aside(checkpoints)  # and not deleted: its files may not be what was wrong
    return fit(progress, None)
