"""What lab 09 works on: whose text should the student learn on?

A teacher of 380,000 parameters and students of 27,000 read the beginnings of movie texts, 48 tokens each: a prompt of
8, and 40 that teach. An arm is whose text the 40 are (people's, the teacher's, the student's own, or at each step one
of people's and the student's) and which divergence is taken. All arms of a seed begin with one student that has read
labels, take the same prompts in the same order, and stop at the same cost; what is written counts as well.

    python -m kdcourse.labs.lab09             # all arms and seeds, some five minutes of one core
    python -m kdcourse.labs.lab09 --teacher   # the tokenizer and the teacher anew, four minutes
"""

from __future__ import annotations

import argparse
import base64
import copy
import importlib.resources
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kdcourse.costs import model_costs
from kdcourse.divergence import DIVERGENCES
from kdcourse.labs import data, models
from kdcourse.labs.experiments import versions
from kdcourse.labs.record import Record, five_digits
from kdcourse.labs.verdict import Verdict, compare_paired
from kdcourse.on_policy import OnPolicy, Writer

RESOURCES = Path(str(importlib.resources.files("kdcourse.labs"))) / "resources"
RESULTS = RESOURCES / "lab09.json"
"""What `python -m kdcourse.labs.lab09` measured."""
TEACHER, TOKENIZER = RESOURCES / "lab09" / "teacher.safetensors", RESOURCES / "lab09" / "tokenizer.json"

VOCABULARY = 512
PROMPT, WRITTEN = 8, 40
END = "<|end|>"
CHARACTERS = 1000
"""Of a text are enough for its first tokens: one of this tokenizer's is at most some ten long."""


REAL_TEXTS = 200
"""Movie texts on which two real tokenizers are compared."""


@dataclass(frozen=True)
class Arm:
    """Whose text, and which divergence: two choices."""

    text: str
    """`people`, `teacher`, `student`, or `mixed`: each step on the student's or on people's, as `OnPolicy` draws."""
    divergence: str


TEXTS = {
    "people": "people's text",
    "teacher": "the teacher's text",
    "mixed": "half people's, half the student's",
    "student": "the student's own text",
}
ARMS = {f"{text}, {divergence}": Arm(text, divergence) for text in TEXTS for divergence in ("forward_kl", "reverse_kl")}

JUDGES = {
    "loss": "loss on people's text",
    "people_forward": "forward KL on people's text",
    "people_reverse": "reverse KL on people's text",
    "own_reverse": "reverse KL on what the student writes",
    "own_teacher_loss": "the teacher's loss on what the student writes",
}
"""By what a student is judged, all in nats per token, all on prompts and texts that nobody has learned from."""


@dataclass(frozen=True)
class Plan:
    """What all arms have in common."""

    steps: int = 60
    """Of an arm on people's text, which is the cheapest; the others take as many as the same cost allows."""
    warm_up: int = 600
    """Steps on labels, before an arm begins; the same student for all arms of a seed."""
    warm_up_rate: float = 1e-2
    batch_size: int = 16
    learning_rate: float = 3e-3
    """Of AdamW, constant, so that a run that is stopped is what a shorter one is; `try_rates` says what others give."""
    seeds: int = 5
    rows: int = 4000
    """Texts to learn from."""
    judged: int = 64
    """Texts that judge."""
    costs: tuple[str, ...] = ("seconds",)
    """What is equal when students are judged: CPU `seconds`, `flops`, or each of them in turn."""


@dataclass(frozen=True)
class Ground:
    """Texts as ids, (N, PROMPT + WRITTEN), and the teacher."""

    tokenizer: PreTrainedTokenizerFast
    teacher: LlamaForCausalLM
    train: Tensor
    validation: Tensor
    test: Tensor


def language_model(width: int, inner: int, layers: int, seed: int = 0) -> LlamaForCausalLM:
    """A Llama with new weights. It has no token that ends a text, since all texts here are cut at one length."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=PROMPT + WRITTEN, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def new_teacher() -> LlamaForCausalLM:
    return language_model(96, 256, 3)


def new_student(seed: int) -> LlamaForCausalLM:
    return language_model(32, 64, 1, seed)


def load_ground(plan: Plan) -> Ground:
    """The texts of a plan, and the teacher that is shipped."""
    teacher = new_teacher()
    teacher.load_state_dict({name: weight.float() for name, weight in load_file(TEACHER).items()}, strict=False)
    teacher.tie_weights()
    tokenizer = load_tokenizer()
    texts = data.load_movie_texts()
    return Ground(
        tokenizer,
        teacher.requires_grad_(False),
        blocks(texts["train"]["text"], tokenizer, plan.rows),
        blocks(texts["validation"]["text"], tokenizer, plan.judged),
        blocks(texts["test"]["text"], tokenizer, plan.judged),
    )


def load_tokenizer(file: Path = TOKENIZER) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=END, pad_token=END)


def blocks(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, count: int) -> Tensor:
    """The beginnings of so many texts, (count, PROMPT + WRITTEN)."""
    beginnings = (text[:CHARACTERS] for text in texts)
    return torch.tensor(data.first_blocks(beginnings, tokenizer, PROMPT + WRITTEN, count)["input_ids"][:])


def train_tokenizer(texts: Iterable[str], size: int = VOCABULARY) -> Tokenizer:
    """A byte-level BPE, like that of GPT-2."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    settings = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, settings)
    return backend


# ---------------------------------------------------------------------------------------------------------------------
# Writing and learning


def write(model: Any, prompts: Tensor, keys: Sequence[tuple[int, ...]]) -> Tensor:
    """Prompts and what a model writes after them, (B, PROMPT + WRITTEN), as the trainer has it written."""
    writer = Writer(model, OnPolicy(share=1.0, max_new_tokens=WRITTEN))
    own = writer.continue_all(list(prompts), keys, prompts.device)
    return torch.cat([prompts, torch.stack(own)], dim=1)


def log_probs(model: Any, texts: Tensor) -> Tensor:
    """Of each token that teaches: (B, WRITTEN, VOCABULARY)."""
    return model(texts, use_cache=False).logits[:, PROMPT - 1 : -1].log_softmax(-1)


def loss_of(student: Any, ground: Ground, texts: Tensor, divergence: str) -> Tensor:
    """The divergence in nats per token."""
    with torch.no_grad():
        answers = log_probs(ground.teacher, texts)
    return DIVERGENCES[divergence](log_probs(student, texts), answers).mean()


def texts_of_step(ground: Ground, arm: Arm, student: Any, rows: Tensor, seed: int, step: int) -> Tensor:
    """The texts of people, or what somebody writes after their first PROMPT tokens."""
    keys = [(0, seed, step, row) for row in range(len(rows))]
    text = arm.text
    if text == "mixed":
        text = "student" if OnPolicy(share=0.5).is_drawn(seed, step) else "people"
    if text == "people":
        return ground.train[rows]
    return write(student if text == "student" else ground.teacher, ground.train[rows, :PROMPT], keys)


def batches(plan: Plan, rows: int, seed: int, steps: int) -> Tensor:
    """Which texts each step takes, (steps, batch_size): round after round in another order."""
    generator = torch.Generator().manual_seed(seed)
    rounds = -(-steps * plan.batch_size // rows)
    order = torch.cat([torch.randperm(rows, generator=generator) for _ in range(rounds)])
    return order[: steps * plan.batch_size].reshape(steps, plan.batch_size)


def warmed_up(ground: Ground, plan: Plan, seed: int) -> LlamaForCausalLM:
    """The student with which all arms of a seed begin; it has read labels."""
    student = new_student(seed).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=plan.warm_up_rate)
    for rows in batches(plan, len(ground.train), 1000 + seed, plan.warm_up):
        of_labels(student, ground.train[rows]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return student


def of_labels(model: Any, texts: Tensor) -> Tensor:
    """The loss of each token that teaches, (B, WRITTEN), in nats."""
    said = log_probs(model, texts)
    return -said.gather(-1, texts[:, PROMPT:, None]).squeeze(-1)


def train(
    ground: Ground,
    plan: Plan,
    arm: Arm,
    student: Any,
    *,
    seed: int,
    steps: int,
    look: Callable[[int, Any], object] = lambda step, student: None,
) -> Any:
    """A copy of the student after so many steps of an arm; `look` gets number and student after each one."""
    student = copy.deepcopy(student).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=plan.learning_rate)
    for step, rows in enumerate(batches(plan, len(ground.train), seed, steps)):
        texts = texts_of_step(ground, arm, student, rows, seed, step)
        loss_of(student, ground, texts, arm.divergence).backward()
        optimizer.step()
        optimizer.zero_grad()
        look(step + 1, student)
    return student


# ---------------------------------------------------------------------------------------------------------------------
# What it costs


def flops_per_text(text: str) -> float:
    """Of one text in one step, counted by `kdcourse.costs`: the student learns, the teacher judges, and the text is
    written, which with a cache is one pass over it. `mixed` writes every other time.
    """
    student, teacher = (model_costs(model.config, PROMPT + WRITTEN) for model in (new_student(0), new_teacher()))
    written = {"people": 0.0, "teacher": 1.0 * teacher.forward_flops, "student": 1.0 * student.forward_flops}
    written["mixed"] = (written["people"] + written["student"]) / 2
    return student.training_flops + teacher.forward_flops + written[text]


def seconds_per_step(ground: Ground, plan: Plan, text: str, repeats: int = 9) -> float:
    """CPU seconds of this process, which others on the machine hardly move; the median."""
    taken, before = [], time.process_time()

    def look(step: int, student: Any) -> None:
        nonlocal before
        taken.append(time.process_time() - before)
        before = time.process_time()

    train(ground, plan, Arm(text, "forward_kl"), new_student(0), seed=0, steps=repeats + 3, look=look)
    return median(taken[3:])


def steps_at_equal(cost: Mapping[str, float], plan: Plan) -> dict[str, int]:
    """How many steps each text is given, so that all cost what `plan.steps` on people's text do."""
    return {text: round(plan.steps * cost["people"] / each) for text, each in cost.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Judging


def judge(ground: Ground, student: Any, seed: int, texts: Tensor | None = None) -> dict[str, Tensor]:
    """By name of `JUDGES`, and `own_forward`: each (texts, WRITTEN), in nats per token.

    The student continues the same prompts that people continued; `texts` are the test texts if nothing is said.
    """
    texts = ground.test if texts is None else texts
    student.eval()
    forward, reverse = DIVERGENCES["forward_kl"], DIVERGENCES["reverse_kl"]
    own = write(student, texts[:, :PROMPT], [(1, seed, 0, row) for row in range(len(texts))])
    with torch.no_grad():
        students, teachers = (log_probs(model, texts) for model in (student, ground.teacher))
        on_own, of_teacher = (log_probs(model, own) for model in (student, ground.teacher))
        return {
            "loss": of_labels(student, texts),
            "people_forward": forward(students, teachers),
            "people_reverse": reverse(students, teachers),
            "own_forward": forward(on_own, of_teacher),
            "own_reverse": reverse(on_own, of_teacher),
            "own_teacher_loss": of_labels(ground.teacher, own),
        }


@dataclass(frozen=True)
class Results(Record):
    """What was measured, at each cost of the plan."""

    stored = RESULTS
    rounded = five_digits

    plan: dict[str, Any]
    seconds: dict[str, float]
    """Of a step, for each text, on one core."""
    flops: dict[str, float]
    """Of a step, for each text."""
    steps: dict[str, dict[str, int]]
    """At each cost, for each text."""
    scores: dict[str, dict[str, dict[str, list[str]]]]
    """By cost, arm and judge, one for each seed: the mean over the tokens of each text, as `pack` has it."""
    positions: dict[str, dict[str, list[list[float]]]]
    """By arm and judge, one for each seed: the mean over texts at each position, at equal seconds."""
    course: dict[str, list[dict[str, list[float]]]]
    """By arm, one for each seed: cost in seconds and the mean of each judge, a few times on the way."""
    reference: dict[str, float]
    """Of the teacher: its loss on people's text, and on its own; and the loss of token frequencies."""
    start: dict[str, list[str]] = field(default_factory=dict)
    """By judge, one for each seed: the student with which all arms begin."""
    exposure: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By steps on labels and judge, one for each of some seeds: what `along_labels` says."""
    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    """By learning rate and arm: what `try_rates` says."""
    tokenizers: dict[str, Any] = field(default_factory=dict)
    """SmolLM2's beside MiniLM's on movie texts: what `measure_ends` says."""
    minutes: float = 0.0
    """CPU minutes in all."""
    versions: dict[str, str] = field(default_factory=dict)

    def of(self, arm: str, judge: str, cost: str = "seconds") -> np.ndarray:
        """(seeds, texts), in nats per token."""
        return np.stack([unpack(packed) for packed in self.scores[cost][arm][judge]])

    def compare(self, first: str, second: str, judge: str, cost: str = "seconds") -> Verdict:
        """How much *less* the second arm has of what is judged: `better` is what is below."""
        return compare_paired(-self.of(first, judge, cost), -self.of(second, judge, cost))


def pack(values: Any) -> str:
    """Numbers as float16 in base64: three digits, and three characters for each."""
    return base64.b64encode(np.asarray(values, dtype="<f2").tobytes()).decode("ascii")


def unpack(packed: str) -> np.ndarray:
    """What `pack` was given, as float64."""
    return np.frombuffer(base64.b64decode(packed), dtype="<f2").astype(float)


def measure(
    ground: Ground,
    plan: Plan,
    names: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] | None = None,
    say: Callable[[str], object] = print,
    keep: Callable[[Results], object] = lambda results: None,
) -> Results:
    """All arms and seeds; `keep` is given what there is after each seed."""
    began = time.process_time()
    seconds = {text: seconds_per_step(ground, plan, text) for text in TEXTS if text != "mixed"}
    seconds["mixed"] = (seconds["people"] + seconds["student"]) / 2
    flops = {text: plan.batch_size * flops_per_text(text) for text in TEXTS}
    results = Results(
        asdict(plan), seconds, flops,
        steps={cost: steps_at_equal({"seconds": seconds, "flops": flops}[cost], plan) for cost in plan.costs},
        scores={cost: {name: {each: [] for each in JUDGES} for name in names} for cost in plan.costs},
        positions={}, course={name: [] for name in names}, reference=judge_the_teacher(ground), start={},
        versions=versions(),
    )  # fmt: skip
    say(f"{results.seconds}, {results.steps}")
    for number, seed in enumerate(range(plan.seeds) if seeds is None else seeds, start=1):
        student = warmed_up(ground, plan, seed)
        begun = judge(ground, student, seed)
        _keep(results.start, begun)
        for name in names:
            _run(results, ground, plan, name, student, begun, seed)
            means = {each: results.of(name, each)[-1].mean() for each in JUDGES}
            say(f"seed {seed}, {name}: " + ", ".join(f"{each} {mean:.3f}" for each, mean in means.items()))
        done = results.plan | {"seeds": number}
        results = replace(results, plan=done, minutes=(time.process_time() - began) / 60)
        keep(results)
    return results


ON_LABELS, FEW_SEEDS = (125, 500, 2000), 3


def along_labels(ground: Ground, plan: Plan) -> dict[str, dict[str, list[float]]]:
    """How far students are from the teacher on people's text and on their own, while they learn from labels alone."""
    found: dict[str, dict[str, list[float]]] = {str(steps): {} for steps in ON_LABELS}
    for seed in range(FEW_SEEDS):
        for steps in ON_LABELS:
            judged = judge(ground, warmed_up(ground, replace(plan, warm_up=steps), seed), seed)
            for each in ("people_forward", "own_forward", "people_reverse", "own_reverse"):
                found[str(steps)].setdefault(each, []).append(judged[each].mean().item())
    return found


RATES = (1e-3, 3e-3, 1e-2)
UNTIMELY = 100
"""A seed of its own, for what is chosen."""


def try_rates(ground: Ground, plan: Plan, steps: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Of two arms, what each minimizes, on validation texts, by learning rate, which is one for all."""
    student = warmed_up(ground, plan, UNTIMELY)
    found: dict[str, dict[str, float]] = {f"{rate:g}": {} for rate in RATES}
    for rate in RATES:
        for name, own in {"people, forward_kl": "people_forward", "student, reverse_kl": "own_reverse"}.items():
            arm, tried = ARMS[name], replace(plan, learning_rate=rate)
            done = train(ground, tried, arm, student, seed=UNTIMELY, steps=steps[arm.text])
            found[f"{rate:g}"][name] = judge(ground, done, UNTIMELY, ground.validation)[own].mean().item()
    return found


def _run(
    results: Results, ground: Ground, plan: Plan, name: str, student: Any, begun: dict[str, Tensor], seed: int
) -> None:
    arm, course = ARMS[name], {"seconds": [0.0], **{each: [begun[each].mean().item()] for each in JUDGES}}
    ends = {cost: steps[arm.text] for cost, steps in results.steps.items()}
    looked_at = {round(ends["seconds"] / 2), *ends.values()}

    def look(step: int, student: Any) -> None:
        if step not in looked_at:
            return
        judged = judge(ground, student, seed)
        student.train()
        course["seconds"].append(step * results.seconds[arm.text])
        for each in JUDGES:
            course[each].append(judged[each].mean().item())
        for cost in (cost for cost, end in ends.items() if end == step):
            _keep(results.scores[cost][name], judged)
            if cost == "seconds":
                for each, values in judged.items():
                    of_arm = results.positions.setdefault(name, {})
                    of_arm.setdefault(each, []).append(values.mean(dim=0).tolist())

    train(ground, plan, arm, student, seed=seed, steps=max(ends.values()), look=look)
    results.course[name].append(course)


def _keep(where: dict[str, list[str]], judged: Mapping[str, Tensor]) -> None:
    for each in JUDGES:
        where.setdefault(each, []).append(pack(judged[each].mean(dim=1)))


def judge_the_teacher(ground: Ground) -> dict[str, float]:
    """Its loss on people's text and on what it writes itself, and that of token frequencies, in nats per token."""
    own = write(ground.teacher, ground.test[:, :PROMPT], [(2, 0, 0, row) for row in range(len(ground.test))])
    counts = torch.bincount(ground.train.flatten(), minlength=VOCABULARY) + 1.0
    by_frequency = -(counts / counts.sum()).log()[ground.test[:, PROMPT:]]
    with torch.no_grad():
        return {
            "teacher": of_labels(ground.teacher, ground.test).mean().item(),
            "teacher on its own": of_labels(ground.teacher, own).mean().item(),
            "frequencies": by_frequency.mean().item(),
        }


# ---------------------------------------------------------------------------------------------------------------------
# Two tokenizers


def token_ends(tokenizer: Any, text: str) -> dict[int, int]:
    """After which character a token ends, and how many tokens that makes."""
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return {end: count for count, (_, end) in enumerate(places, start=1)}


def measure_ends(texts: Sequence[str], first: Any, second: Any) -> dict[str, int]:
    """How many tokens each makes of the texts, and how often both end one after the same character."""
    ours, theirs = ([token_ends(tokenizer, text) for text in texts] for tokenizer in (first, second))
    return {
        "texts": len(texts),
        "first": sum(max(each.values()) for each in ours),
        "second": sum(max(each.values()) for each in theirs),
        "shared": sum(len(a.keys() & b.keys()) for a, b in zip(ours, theirs, strict=True)),
    }


def make_teacher(steps: int = 2000, batch_size: int = 32, say: Callable[[str], object] = print) -> None:
    """Train the tokenizer and the teacher on people's text, and store both where they are shipped."""
    texts = data.load_movie_texts()
    TOKENIZER.parent.mkdir(parents=True, exist_ok=True)
    train_tokenizer(texts["train"]["text"][:4000]).save(str(TOKENIZER))
    tokenizer = load_tokenizer()
    rows = blocks(texts["train"]["text"], tokenizer, 21_000)
    teacher = new_teacher().train()
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.05)
    for step, chosen in enumerate(batches(Plan(batch_size=batch_size), len(rows), 0, steps)):
        loss = of_labels(teacher, rows[chosen]).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 200 == 0:
            say(f"step {step}: {loss.item():.3f}")
    state = {name: weight.half() for name, weight in teacher.state_dict().items() if name != "lm_head.weight"}
    save_file(state, TEACHER)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m kdcourse.labs.lab09", description=__doc__.partition("\n")[0])
    parser.add_argument("--teacher", action="store_true", help="make tokenizer and teacher anew, and no more")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seeds", nargs="+", type=int, help="numbers; all of the plan if none is named")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if chosen.teacher:
        make_teacher()
        return 0
    plan = Plan()
    texts = [text[:CHARACTERS] for text in data.load_movie_texts()["test"]["text"][:REAL_TEXTS]]
    ends = measure_ends(texts, models.load_smollm2_tokenizer(), models.load_tokenizer())

    def keep(results: Results) -> None:
        replace(results, tokenizers=ends).save(chosen.out)

    ground = load_ground(plan)
    results = replace(measure(ground, plan, seeds=chosen.seeds, keep=keep), tokenizers=ends)
    rates = try_rates(ground, plan, results.steps["seconds"])
    replace(results, rates=rates, exposure=along_labels(ground, plan)).save(chosen.out)
    print(f"{chosen.out} has what was measured.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
