"""What lab 08 works on: what does a small language model gain from a large one?

Students are cut from their teacher's own layers. Layers that were never neighbours add up to nonsense, so each student
first heals on labels; from there it learns for equally many tokens in one of six ways, each with the learning rate that
suits it. It is stopped where the validation texts say; then its losses are kept text by text, so that intervals can
cover texts and seeds. The teacher reads each text once: its last hidden states are kept, 2 bytes for each of 576
numbers, where its logits would take 49,152 numbers a token. Whatever is finished is kept under a name that ends in a
fingerprint of all that it depends on, so that a run that was interrupted, or killed, goes on where it was.

    python -m kdcourse.labs.lab08 --profile full --folder build/lab08
"""

from __future__ import annotations

import argparse
import copy
import importlib.resources
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kdcourse.columns import ROW_COLUMN, Batch
from kdcourse.compat import check_language_models
from kdcourse.files import set_aside, write_whole, written_whole
from kdcourse.fused import Head
from kdcourse.hashing import hash_json, hash_tensors, hash_weights
from kdcourse.heads import HeadAside, ImplicitLogits
from kdcourse.labs import data, models
from kdcourse.labs.experiments import Progress, from_last_checkpoint, versions
from kdcourse.labs.kept import kept, save_sealed, undamaged
from kdcourse.labs.metrics.calibration_error import BINS
from kdcourse.labs.record import COMPACT, Record, five_places
from kdcourse.labs.verdict import Verdict, compare_paired
from kdcourse.trainer import DistillationArguments, DistillationTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RESULTS = Path(str(importlib.resources.files("kdcourse.labs"))) / "resources" / "lab08.json"
"""What the full profile measured."""

JUDGED = ("test", "editorials", "products")
"""Movie texts that nobody has learned from, and two other domains."""

METRICS = ("loss", "agrees", "bins")
"""What is kept of a student on each set; see `measure`."""

TEXTS_AT_ONCE = 8


@dataclass(frozen=True)
class Arm:
    """One way to learn: what is minimized, and whose texts are read."""

    words: str
    alpha: float
    divergence: str = "forward_kl"
    reads: str = "train"
    """The set of texts; see `Task.read_by`."""


TEACHERS_TEXT, MIXED = "teacher's text", "mixed"

ARMS = {
    "labels": Arm("labels only", alpha=1.0),
    "teacher's text": Arm("the teacher's own text as labels", alpha=1.0, reads=TEACHERS_TEXT),
    "forward KL": Arm("the teacher's distributions, forward KL", alpha=0.0),
    "reverse KL": Arm("the teacher's distributions, reverse KL", alpha=0.0, divergence="reverse_kl"),
    "Jensen-Shannon": Arm("the teacher's distributions, Jensen-Shannon", alpha=0.0, divergence="jensen_shannon"),
    "mixed texts": Arm("forward KL, half of the texts editorials", alpha=0.0, reads=MIXED),
}
"""The arms of the experiment. All but the second read what people wrote; temperature is 1 everywhere."""


@dataclass(frozen=True)
class Plan:
    """What every arm of the experiment has in common."""

    layers: tuple[int, ...]
    """Those of the teacher that a student keeps."""
    steps: int
    tried: tuple[int, ...]
    """The numbers of steps after which the validation texts are asked."""
    texts: Mapping[str, int]
    """How many there are of each set."""
    length: int = 128
    """Tokens of a text."""
    opening: int = 16
    """Tokens of a text of the teacher's that are a person's."""
    batch_size: int = 4
    """Texts of a step."""
    learning_rate: float = 1e-3
    warmup: int = 10
    """Steps until the learning rate is whole; then it stays, so that a run that is stopped is what a shorter one is."""
    healing: int = 0
    """Steps on labels that come before, the same for every arm of a seed."""
    healing_rate: float = 1e-3
    seeds: int = 3
    rates: tuple[float, ...] = ()
    """Learning rates that each arm tries for `trial` steps; none to take `learning_rate` as it is."""
    trial: int = 0
    cutting: int = 0
    """Steps for which each way to cut is tried; 0 to leave that out."""

    def __post_init__(self) -> None:
        if not self.tried or sorted(set(self.tried)) != list(self.tried) or not 0 < self.tried[0] <= self.steps:
            raise ValueError(f"tried is {self.tried}; it holds numbers of steps that rise, from 1 to {self.steps}.")
        if self.tried[-1] != self.steps:
            raise ValueError(
                f"A run takes {self.steps} steps and is tried last after {self.tried[-1]}; make them equal."
            )


FULL = Plan(
    layers=(0, 1, 2, 27, 28, 29),
    steps=72,
    tried=(18, 36, 54, 72),
    texts={
        "train": 288,
        "healing": 144,
        "transfer": 144,
        "validation": 32,
        "test": 128,
        "editorials": 64,
        "products": 48,
    },
    healing=36,
    rates=(5e-4, 1e-3, 2e-3),
    trial=24,
    cutting=32,
)
QUICK = Plan(
    layers=(0, 29),
    steps=4,
    tried=(2, 4),
    texts={"train": 16, "healing": 8, "transfer": 8, "validation": 4, "test": 8, "editorials": 6, "products": 6},
    length=48,
    warmup=2,
    healing=2,
    seeds=1,
)
PROFILES = {"full": FULL, "quick": QUICK}


class HiddenTeacher:
    """A teacher by its last hidden states (N, T, H), which were computed once; the column `teacher_row` says which."""

    def __init__(self, hidden: Tensor, head: Head) -> None:
        self.hidden, self.head = hidden, head

    def logits(self, inputs: Batch) -> Any:
        """Implicit ones: what the trainer makes of them is what it would make of the model's."""
        rows = inputs[ROW_COLUMN]
        return ImplicitLogits(self.hidden[rows.cpu()].to(rows.device).float(), self.head)


@torch.no_grad()
def read(model: PreTrainedModel, texts: Tensor) -> ImplicitLogits:
    """A model's last hidden states on texts (N, T), as (N, T, H), with its head.

    Raises:
        ValueError: its head cannot be seen.
    """
    was_training = model.training
    model.eval()
    aside, answers = HeadAside("model"), []
    for batch in texts.split(TEXTS_AT_ONCE):
        features = {"input_ids": batch.to(model.device), "attention_mask": torch.ones_like(batch, device=model.device)}
        _, logits = aside.ask(model, features | {"use_cache": False})
        if not isinstance(logits, ImplicitLogits):
            raise ValueError(
                f"The head of {type(model).__name__} cannot be told from its logits, since {aside.reason}."
            )
        answers.append(logits)
    model.train(was_training)
    return ImplicitLogits(torch.cat([each.hidden for each in answers]), answers[0].head)


def measure(answer: ImplicitLogits, texts: Tensor, first_choice: Tensor | None = None) -> dict[str, Tensor]:
    """What a model says of texts (N, T), each token but the first by those before it.

    Args:
        first_choice: of the teacher, (N, T - 1) token ids.

    Returns:
        `loss` (N,), nats per token; `choice` (N, T - 1), the likeliest token ids; `bins` (15, 3): how many tokens, the
        sum of their confidences and how many were right, by confidence; and `agrees` (N,), the share of tokens on which
        model and teacher name the same one, if the teacher's are given.
    """
    losses, choices = [], []
    bins = torch.zeros(BINS, 3, dtype=torch.float64)
    buffer: Tensor | None = None
    for hidden, ids in zip(answer.hidden, texts, strict=True):
        states, targets = hidden[:-1].float(), ids[1:].to(hidden.device)
        if buffer is None:
            buffer = torch.empty(len(states), len(answer.head.weight), device=hidden.device)
        log_probs = answer.head.logits(states, buffer).log_softmax(dim=-1)
        best, choice = log_probs.max(dim=-1)
        losses.append(-log_probs.gather(1, targets[:, None]).mean())
        choices.append(choice)
        confidence = best.exp().double().cpu()
        right = (choice == targets).double().cpu()
        of_bin = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
        bins.index_add_(0, of_bin, torch.stack([torch.ones_like(right), confidence, right], dim=1))
    measured = {"loss": torch.stack(losses).cpu(), "choice": torch.stack(choices).cpu(), "bins": bins}
    if first_choice is not None:
        measured["agrees"] = (measured["choice"] == first_choice).float().mean(dim=1)
    return measured


def calibration_error(bins: np.ndarray | Tensor) -> float:
    """Expected calibration error of `bins` as `measure` gives them: |confidence − accuracy|, weighted by tokens."""
    counts, confidences, right = np.asarray(bins, dtype=float).T
    return float(np.abs(confidences - right).sum() / counts.sum())


@dataclass
class Task:
    """The texts, the teacher, and what is computed of them once and kept in `folder`."""

    folder: Path
    plan: Plan
    tokenizer: PreTrainedTokenizerBase
    teacher: PreTrainedModel
    texts: dict[str, Tensor]
    """By set: token ids (N, T)."""
    make_student: Callable[[], PreTrainedModel] | None = None
    """A new student each time, ready to learn; None to cut it from the teacher, by the plan's layers."""

    def new_student(self) -> PreTrainedModel:
        """One that has learned nothing here."""
        return self.make_student() if self.make_student else models.cut_student(self.teacher, self.plan.layers)

    @cached_property
    def students_digest(self) -> dict[str, str]:
        """What results depend on besides teacher and layers, if the student is another model."""
        return {"student": hash_weights(self.make_student())} if self.make_student else {}

    @cached_property
    def teachers_digest(self) -> str:
        return hash_weights(self.teacher)

    def answers(self, name: str) -> HiddenTeacher:
        """The teacher's hidden states on a set, in float16."""
        texts = self.mixed if name == MIXED else self.texts[name]
        hidden = self._kept(f"hidden-{name}", name, lambda: {"hidden": read(self.teacher, texts).hidden.half()})
        return HiddenTeacher(hidden["hidden"], self.head)

    def teachers_own(self, name: str) -> dict[str, Tensor]:
        """What `measure` says of the teacher on a set."""
        return self._kept(
            f"teacher-{name}", name, lambda: measure(read(self.teacher, self.texts[name]), self.texts[name])
        )

    def read_by(self, arm: Arm) -> Tensor:
        """The texts that an arm learns from, (N, T): people's, the teacher's, or half of them editorials."""
        if arm.reads == TEACHERS_TEXT:
            return self.teachers_text
        return self.mixed if arm.reads == MIXED else self.texts[arm.reads]

    @cached_property
    def mixed(self) -> Tensor:
        """The first half of the texts to train on, and as many editorials."""
        half = len(self.texts["train"]) // 2
        return torch.cat([self.texts["train"][:half], self.texts["transfer"][: len(self.texts["train"]) - half]])

    def healed(self, seed: int) -> PreTrainedModel:
        """A new student that has learned from labels alone for as long as the plan says."""
        student = self.new_student()
        if self.plan.healing:
            shared = ("layers", "length", "batch_size", "warmup", "healing", "healing_rate")
            depends_on = {"plan": {name: getattr(self.plan, name) for name in shared}, "seed": seed}
            depends_on |= self.students_digest
            weights = self._kept(f"healed-{seed}", "healing", lambda: _healed(self, seed), depends_on)
            student.load_state_dict(weights, strict=False)  # a tied head is saved once
        return student

    @cached_property
    def teachers_text(self) -> Tensor:
        """For each text to train on, one that begins like it and that the teacher has written on, (N, T)."""
        return self._kept("text", "train", lambda: {"ids": self._written()})["ids"]

    @cached_property
    def head(self) -> Head:
        head = read(self.teacher, self.texts["train"][:1, :2]).head
        return Head(head.weight.detach(), head.bias, head.scale, head.softcap)

    def _written(self) -> Tensor:
        """Drawn from the teacher's distribution as it is; the end of a text is left out, so that all are as long."""
        written, plan, teacher = [], self.plan, cast("Any", self.teacher)
        settings = {
            "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0,
            "min_new_tokens": plan.length - plan.opening, "max_new_tokens": plan.length - plan.opening,
        }  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for batch in self.texts["train"][:, : plan.opening].split(32):
                ids = batch.to(self.teacher.device)
                written.append(
                    teacher.generate(ids, attention_mask=torch.ones_like(ids), use_cache=True, **settings).cpu()
                )
        return torch.cat(written)

    def _kept(
        self, name: str, texts: str, make: Callable[[], dict[str, Tensor]], also: Mapping[str, Any] | None = None
    ) -> dict[str, Tensor]:
        read_texts = self.mixed if texts == MIXED else self.texts[texts]
        depends_on = {
            "what": name, "teacher": self.teachers_digest, "texts": hash_tensors({"": read_texts}),
            "opening": self.plan.opening, "versions": versions(), **(also or {}),
        }  # fmt: skip
        return kept(self.folder / f"{name}-{hash_json(depends_on)[:16]}.safetensors", make)


TEACHER = "HuggingFaceTB/SmolLM2-135M-Instruct"


def load_task(folder: Path, plan: Plan, *, teacher: str = TEACHER, student: str = "") -> Task:
    """The task of a plan, from the embedded assets or from the hub, as `$KDCOURSE_ASSETS` says.

    Args:
        teacher: a causal language model of the hub, by its name; SmolLM2 is embedded as well. From one that has another
            number of layers than the plan was made for, as many first and last ones are kept.
        student: another, of the same tokenizer; "" cuts one from the teacher.

    Raises:
        AssetError: a model is not there: SmolLM2 was not fetched, or another is named without the hub.
        MismatchError: a token id does not mean the same to both.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    teaching, tokenizer = _language_model(teacher)
    make_student = None
    if student:
        learning, its_tokenizer = _language_model(student)
        shared = check_language_models(learning, teaching, its_tokenizer, tokenizer)
        learning, teaching = (_of_width(shared, model) for model in (learning, teaching))
        make_student = _copies_of(learning.to(device))
    else:
        plan = fitted(plan, teaching)
    texts = _load_texts(plan, tokenizer)
    return Task(folder, plan, tokenizer, teaching.to(device).requires_grad_(False), texts, make_student)


def _language_model(name: str) -> tuple[Any, PreTrainedTokenizerBase]:
    if name == TEACHER:
        return models.load_smollm2(), models.load_smollm2_tokenizer()
    return models.load_language_model(name)


def _of_width(vocabulary: int, model: Any) -> Any:
    """Without the columns behind the last token id, which no text uses; a softmax is then over tokens alone."""
    if model.config.vocab_size > vocabulary:
        model.resize_token_embeddings(vocabulary)
    return model


def _copies_of(model: PreTrainedModel) -> Callable[[], PreTrainedModel]:
    return lambda: copy.deepcopy(model).requires_grad_(True).train()


def fitted(plan: Plan, teacher: PreTrainedModel) -> Plan:
    """The plan with as many layers of this teacher, the first and the last, if it was made for another depth."""
    total = len(models.layer_stack(teacher)[1])
    if plan.layers[-1] == total - 1:
        return plan
    ways = models.ways_to_cut(min(len(plan.layers), total), [0.0] * total)
    return replace(plan, layers=tuple(ways["first and last"]))


def _load_texts(plan: Plan, tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """By set: token ids (N, T)."""
    movies = data.load_movie_texts()
    sources = {name: movies[name] for name in movies} | {
        name: data.load_domain_texts(name) for name in ("editorials", "products")
    }
    # What heals a student, and the editorials that it may read, are the texts behind those of another set.
    behind = {"healing": "train", "transfer": "editorials"}

    def blocks(name: str) -> Tensor:
        source = behind.get(name, name)
        first = plan.texts[source] if name in behind else 0
        rows = data.first_blocks(sources[source]["text"], tokenizer, plan.length, first + plan.texts[name])
        return torch.tensor(rows["input_ids"][first:])

    return {name: blocks(name) for name in plan.texts}


@dataclass(frozen=True)
class Run:
    """A finished run: what `measure` says of its student on each set, what it writes, and what that took.

    `by_steps` has the mean validation loss after each number of steps that was tried; the student is that of the best.
    """

    measured: dict[str, dict[str, Tensor]]
    by_steps: dict[int, float]
    writes: str
    cost: dict[str, float]

    @property
    def steps(self) -> int:
        return min(self.by_steps, key=lambda steps: self.by_steps[steps])


MEASURED_FILE, ABOUT_FILE, BEST_FILE, TRIED_FILE = (
    "measured.safetensors",
    "about.json",
    "best.safetensors",
    "tried.json",
)


def run(task: Task, name: str, seed: int) -> Run:
    """Train and measure one student, or fetch what an earlier call has left; one that was interrupted is resumed."""
    folder = task.folder / f"{name.replace(' ', '-').replace(chr(39), '')}-{seed}-{_digest(task, name, seed)[:16]}"
    task.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(task.folder / f".{folder.name}.lock"):
        if folder.exists() and undamaged(folder / MEASURED_FILE) is None:
            print(f"{folder} was damaged: it is now {set_aside(folder).name}, and is trained anew.")
        if not folder.exists():
            unfinished = task.folder / f".{folder.name}"
            _train_and_measure(task, name, seed, unfinished)
            shutil.rmtree(unfinished / "checkpoints", ignore_errors=True)
            (unfinished / BEST_FILE).unlink(missing_ok=True)
            unfinished.rename(folder)
    about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
    measured: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / MEASURED_FILE).items():
        where, metric = key.split(".")
        measured.setdefault(where, {})[metric] = tensor
    return Run(
        measured, {int(steps): loss for steps, loss in about["by steps"].items()}, about["writes"], about["cost"]
    )


NO_PART_OF_A_RUN = ("seeds", "rates", "trial", "cutting")
"""What a plan says of the whole experiment: a run stays what it is where one of these is another."""


def _digest(task: Task, name: str, seed: int) -> str:
    arm = asdict(ARMS[name])
    del arm["words"]
    depends_on = {
        "plan": {key: value for key, value in asdict(task.plan).items() if key not in NO_PART_OF_A_RUN},
        "arm": arm,
        "seed": seed,
        "teacher": task.teachers_digest,
        "texts": hash_tensors(task.texts),
        "versions": versions(),
        **task.students_digest,
    }
    return hash_json(depends_on)


def _train_and_measure(task: Task, name: str, seed: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    judge, cost = train(task, ARMS[name], seed, folder)
    student = task.new_student()
    student.load_state_dict(load_file(folder / BEST_FILE), strict=False)  # a tied head is saved once
    measured = {
        f"{where}.{metric}": tensor
        for where, of_set in judge_all(student, task).items()
        for metric, tensor in of_set.items()
    }
    save_sealed(measured, folder / MEASURED_FILE)
    about = {"by steps": judge.losses, "writes": writes(student, task), "cost": cost}
    write_whole(folder / ABOUT_FILE, json.dumps(about, indent=1))


def judge_all(student: PreTrainedModel, task: Task) -> dict[str, dict[str, Tensor]]:
    """What `measure` says of a student on each set that judges: `loss`, `agrees` and `bins`."""
    found = {}
    for where in JUDGED:
        answer = measure(read(student, task.texts[where]), task.texts[where], task.teachers_own(where)["choice"])
        found[where] = {metric: answer[metric].contiguous() for metric in METRICS}
    return found


def train(task: Task, arm: Arm, seed: int, folder: Path) -> tuple[Judge, dict[str, float]]:
    """Train a student, from the last checkpoint of an earlier call if there is one that is whole."""
    return from_last_checkpoint(
        folder / "checkpoints",
        f"{arm.words}, seed {seed},",
        lambda progress, checkpoint: _fit(task, arm, seed, folder, progress, checkpoint),
    )


def _fit(
    task: Task, arm: Arm, seed: int, folder: Path, progress: Progress, checkpoint: Path | None
) -> tuple[Judge, dict[str, float]]:
    plan, student = task.plan, task.healed(seed)
    judge = Judge(folder, plan.tried, task.texts["validation"])
    # Where labels are all that counts, the weight of the teacher's answers is 0, and they may be of another text.
    answers = task.answers("train" if arm.reads == TEACHERS_TEXT else arm.reads)
    arguments = arguments_of(
        plan, seed, folder / "checkpoints",
        alpha=arm.alpha, divergence=arm.divergence, max_steps=plan.steps, learning_rate=plan.learning_rate,
    )  # fmt: skip
    trainer = DistillationTrainer(
        student, arguments, teacher=answers, train_dataset=rows_of(task.read_by(arm)), processing_class=task.tokenizer,
        callbacks=[judge, progress],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    started, cpu_started = time.perf_counter(), time.process_time()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    cost = {"seconds": time.perf_counter() - started, "cpu seconds": time.process_time() - cpu_started}
    return judge, cost


def _healed(task: Task, seed: int) -> dict[str, Tensor]:
    """The weights of a new student after it has learned from labels."""
    student = task.new_student()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = arguments_of(
            task.plan, seed, Path(scratch), alpha=1.0, max_steps=task.plan.healing, learning_rate=task.plan.healing_rate
        )
        trainer = DistillationTrainer(
            student, arguments, teacher=task.answers("healing"), train_dataset=rows_of(task.texts["healing"]),
            processing_class=task.tokenizer,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return weights_once(student)


def arguments_of(plan: Plan, seed: int, folder: Path, **own: Any) -> DistillationArguments:
    """What all trainings of a plan have in common."""
    return DistillationArguments(
        str(folder),
        temperature=1.0,
        per_device_train_batch_size=plan.batch_size,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=plan.warmup,
        seed=seed,
        save_strategy="no",  # the judge says when
        save_total_limit=1,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        **own,
    )


def rows_of(texts: Tensor) -> Any:
    """Texts (N, T) as rows that know their number."""
    return [{"input_ids": ids, ROW_COLUMN: row} for row, ids in enumerate(texts.tolist())]


class Judge(TrainerCallback):
    """Asks the validation texts after each number of steps that is tried, and keeps the best student."""

    def __init__(self, folder: Path, tried: Sequence[int], texts: Tensor) -> None:
        self.folder, self.tried, self.texts = folder, tried, texts
        self.losses: dict[int, float] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """What an interrupted run has tried before its checkpoint still holds."""
        known: dict[str, float] = {}
        if state.global_step and (path := self.folder / TRIED_FILE).exists():
            known = json.loads(path.read_text(encoding="utf-8"))
        self.losses = {int(steps): loss for steps, loss in known.items() if int(steps) <= state.global_step}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Before the checkpoint is saved: what was tried is never behind it."""
        if state.global_step not in self.tried:
            return
        student = given["model"]
        loss = measure(read(student, self.texts), self.texts)["loss"].mean().item()
        if all(loss < other for other in self.losses.values()):
            with written_whole(self.folder / BEST_FILE) as unfinished:
                save_file(weights_once(student), unfinished)
        self.losses[state.global_step] = loss
        write_whole(self.folder / TRIED_FILE, json.dumps(self.losses))
        control.should_save = True


def weights_once(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights by name; of those that are tied, one."""
    by_place = {weight.data_ptr(): (name, weight) for name, weight in reversed(list(model.named_parameters()))}
    return {name: weight.detach().contiguous() for name, weight in by_place.values()}


OPENING = "This movie was"


@torch.no_grad()
def writes(model: Any, task: Task, tokens: int = 48) -> str:
    """How a model goes on after `OPENING`, if it takes the likeliest token each time."""
    model.eval()
    ids = task.tokenizer(OPENING, return_tensors="pt")["input_ids"].to(model.device)
    written: Any = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, use_cache=True
    )
    return str(task.tokenizer.decode(written[0], skip_special_tokens=True))


@dataclass(frozen=True)
class Results(Record):
    """What an experiment measured; see `Run`. `losses` and the like have one entry per seed, in order."""

    stored = RESULTS
    rounded = five_places
    layout = COMPACT

    teacher: dict[str, dict[str, Any]]
    """By set: `loss` per text, `bins`."""
    arms: dict[str, dict[str, dict[str, list[Any]]]]
    """By arm and set: `loss` and `agrees` per seed and text, `bins` per seed."""
    by_steps: dict[str, list[dict[str, float]]]
    writes: dict[str, list[str]]
    plan: dict[str, Any]
    minutes: dict[str, float]
    """Of one core, by arm, training and validation."""
    trials: dict[str, dict[str, float]]
    """By arm: the validation loss after a short training with each learning rate that was tried."""
    healed: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """The students from which all arms begin, as in `arms`."""
    cuts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What `try_cuts` has found."""
    versions: dict[str, str] = field(default_factory=dict)

    def losses(self, arm: str, where: str = "test") -> np.ndarray:
        """Nats per token, (seeds, texts); of the `teacher`, (1, texts). `healed` is where every arm began."""
        found = [self.teacher[where]["loss"]] if arm == "teacher" else self._of(arm)[where]["loss"]
        return np.asarray(found, dtype=float)

    def _of(self, arm: str) -> dict[str, dict[str, list[Any]]]:
        return self.healed if arm == "healed" else self.arms[arm]

    def perplexities(self, arm: str, where: str = "test") -> list[float]:
        """One for each seed: exp of the mean loss over all tokens."""
        return [math.exp(loss) for loss in self.losses(arm, where).mean(axis=1)]

    def agreement(self, arm: str, where: str = "test") -> list[float]:
        """The share of tokens on which student and teacher name the same one; one for each seed."""
        return [mean(texts) for texts in self._of(arm)[where]["agrees"]]

    def calibration(self, arm: str, where: str = "test") -> list[float]:
        """Expected calibration error; one for each seed."""
        return [calibration_error(np.asarray(bins)) for bins in self._of(arm)[where]["bins"]]

    def compare(self, first: str, second: str, where: str = "test") -> Verdict:
        """By how many nats per token the second arm is better than the first, over other seeds and other texts."""
        return compare_paired(-self.losses(first, where), -self.losses(second, where))


def collect(
    task: Task, runs: Mapping[str, Sequence[Run]], trials: Mapping[str, Mapping[float, float]], cuts: Mapping[str, Cut],
    seeds: Sequence[int],
) -> Results:  # fmt: skip
    """What an experiment measured: `runs` has one for each seed, in order, for each arm."""

    def of(measured: Sequence[Mapping[str, Mapping[str, Tensor]]]) -> dict[str, dict[str, list[Any]]]:
        return {
            where: {metric: [each[where][metric].tolist() for each in measured] for metric in METRICS}
            for where in JUDGED
        }

    teacher = {where: task.teachers_own(where) for where in JUDGED}
    return Results(
        teacher={
            where: {metric: own[metric].tolist() for metric in ("loss", "bins")} for where, own in teacher.items()
        },
        arms={name: of([each.measured for each in of_arm]) for name, of_arm in runs.items()},
        by_steps={
            name: [{str(steps): loss for steps, loss in each.by_steps.items()} for each in of_arm]
            for name, of_arm in runs.items()
        },
        writes={"teacher": [writes(task.teacher, task)]}
        | {name: [each.writes for each in of_arm] for name, of_arm in runs.items()},
        plan=asdict(task.plan),
        minutes={name: sum(each.cost["cpu seconds"] for each in of_arm) / 60 for name, of_arm in runs.items()},
        trials={name: {str(rate): loss for rate, loss in losses.items()} for name, losses in trials.items()},
        cuts={name: asdict(cut) for name, cut in cuts.items()},
        healed=of([judge_all(task.healed(seed), task) for seed in seeds]),
        versions=versions(),
    )


@dataclass(frozen=True)
class Cut:
    """One rule for the layers to keep, and the mean validation loss that students of it come to, in nats per token."""

    layers: list[int]
    before: float
    after: float


def try_cuts(task: Task, steps: int, say: Callable[[str], object] = print) -> dict[str, Cut]:
    """Which layers to keep: students of each way to cut learn by forward KL for a while; as many layers as the plan's.

    The loss before training is no guide: layers that were never neighbours add up to nonsense, and one kind of it heals
    sooner than another.
    """
    task = replace(task, make_student=None)
    changes = models.residual_change(task.teacher, task.texts["train"][:TEXTS_AT_ONCE].to(task.teacher.device))
    found = {}
    for name, layers in models.ways_to_cut(len(task.plan.layers), changes).items():
        student, texts = models.cut_student(task.teacher, layers), task.texts["validation"]
        before = measure(read(student, texts), texts)["loss"].mean().item()
        after = attempt(task, "forward KL", steps, layers=tuple(layers), healing=0)
        found[name] = Cut(layers, before, after)
        say(f"{name} {layers}: {before:.2f} nats before, {found[name].after:.2f} after {steps} steps")
    return found


def attempt(task: Task, name: str, steps: int, **settings: Any) -> float:
    """The mean validation loss of a short run of an arm with other settings, seed 0, in nats per token."""
    few = {set_name: texts[:TEXTS_AT_ONCE] if set_name in JUDGED else texts for set_name, texts in task.texts.items()}
    plan = replace(task.plan, steps=steps, tried=(steps,), **settings)
    return run(replace(task, plan=plan, texts=few), name, 0).by_steps[steps]


def try_rates(task: Task, name: str) -> dict[float, float]:
    """What an arm comes to with each learning rate of the plan, in a trial from the healed student of seed 0."""
    return {rate: attempt(task, name, task.plan.trial, learning_rate=rate) for rate in task.plan.rates}


def run_all(
    task: Task,
    names: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] | None = None,
    say: Callable[[str], object] = print,
) -> Results:
    """All arms and seeds, each arm with the best rate of `try_rates`; `say` is told of each that is finished."""
    seeds = range(task.plan.seeds) if seeds is None else seeds
    runs: dict[str, list[Run]] = {name: [] for name in names}
    trials = {name: try_rates(task, name) for name in names}
    for seed in seeds:
        for name in names:
            rate = min(trials[name], key=lambda each: trials[name][each], default=task.plan.learning_rate)
            done = run(replace(task, plan=replace(task.plan, learning_rate=rate)), name, seed)
            runs[name].append(done)
            loss = done.measured["test"]["loss"].mean().item()
            say(
                f"{name}, learning rate {rate:g}, seed {seed}: perplexity {math.exp(loss):.1f} on test, stopped after "
                f"{done.steps} steps"
            )
    cuts = try_cuts(task, task.plan.cutting, say) if task.plan.cutting and not task.make_student else {}
    return collect(task, runs, trials, cuts, seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m kdcourse.labs.lab08", description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", choices=PROFILES, default="quick")
    parser.add_argument("--folder", type=Path, default=Path("build/lab08"), help="keeps what is finished")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, help="numbers; all of the profile if none is named")
    chosen = parser.parse_args(arguments)
    task = load_task(chosen.folder / chosen.profile, PROFILES[chosen.profile])
    results = run_all(task, chosen.arms, chosen.seeds)
    results.save(task.folder / "results.json")
    print(f"{task.folder / 'results.json'} has what was measured.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
