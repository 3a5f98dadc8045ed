"""The language model's loss without its logits, beside other ways: `make bench`, about seven minutes on 2 quiet cores.

Each way is measured in a process of its own: first its loss and gradients are compared with float64, and the most
memory of a step is taken; then it is timed in turn with the floor, the four products of hidden states and heads that no
exact way can do without. A ratio is that of one round, so that whatever else the machine does hits both. Ways
that are not installed are skipped; `make bench` has an environment of its own, in which they are.

It writes `docs/fused.json`, what was measured, and of that `docs/fused.md`, `docs/fused.svg` and a line of the README.
Ends in 1 if an aim that does not depend on others is missed.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import torch
import typer
from rich.console import Console
from ways import AGREEMENT, FLOOR_ROWS, WAYS, Case, Way

from kdcourse.labs.figures.style import BLUE, GREY, STYLE

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

MAIN = Case()
OTHER_TEMPERATURE = 3.7
LESS_MEMORY = 66 * 10**6
"""Bytes of which ours is asked what they cost in time."""

MEGABYTE = 10**6

# What the allocator of the C library does with memory that is free again. Whether a temporary of hundreds of megabytes
# is kept or asked for anew decides how fast a way with large ones is, so time is measured both as the system has it and
# with memory kept, as this course's Makefile does; and memory so that the system sees what is in use.
SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
KEEPING = {"MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_MMAP_THRESHOLD_": "1073741824"}
GIVING_BACK = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "65536"}

KEPT = ("ours", "full", "liger_compiled", "liger_small")
"""Ways that are timed with memory kept, too, without `--full`."""

LARGEST_PEAK = 11
"""Tensors of the size of the logits that a way without chunks may need at once: more than the memory has is skipped."""

SVG = {"svg.fonttype": "none", "svg.hashsalt": "kdcourse"}

PAGE = """\
# The loss without the logits, measured

`fused_lm_distillation_loss` computes logits for a few hundred tokens at a time, and their gradient with them. The floor
is what no exact way can do without: four matrix products, two for the logits and two for the gradients, with nothing in
between, and the layout and the chunk that suit them best.

Every way computes the same: alpha {alpha:g}, T = {temperature:g}, forward KL, for {tokens:,} tokens, a vocabulary of
{vocabulary:,}, hidden states of {student_width} and {teacher_width}, {dtype}, forward and backward. Loss and gradients
are compared with float64 first, and a way that is off is not timed.

Time is relative to the floor, in the same process and the same round: the median, the lowest and the highest. "With
memory kept" is the same where the C library's allocator is told to keep what is free (`MALLOC_TRIM_THRESHOLD_`,
`MALLOC_MMAP_THRESHOLD_`), which large temporaries gain from. Memory is the most that the process held beyond inputs and
their gradients, as the system counts; in brackets, as PyTorch does, which does not see the buffers of other libraries.

![{alt}](fused.svg)

| way | version | time, in floors | first call | with memory kept | memory | gradient off by |
|---|---|---|---|---|---|---|
{ways}

Measured with torch {torch} on {device}, {threads} threads. Checkpointed chunks are of {rows} tokens, about as many as
ours has.

## Ours, with other shapes and settings

| tokens | vocabulary | T | memory allowed | dtype | time, in floors | memory |
|---|---|---|---|---|---|---|
{cases}

## What was aimed at

| aim | limit | measured | |
|---|---|---|---|
{aims}

A chunk's logits of student and teacher stay in memory until the student's gradient has been made of them, since the
sums over the whole vocabulary come first: two blocks of {block:,.0f} MB with {rows} tokens. The leanest other way holds
{blocks:.1f} with chunks of that size; a third of those is out of reach without computing the products twice. Smaller
chunks reach it, at the price that the table above shows ({less:,.0f} MB allowed).

`make bench` makes this page, from `docs/fused.json`, which it writes anew; `python benchmarks/fused_loss.py --full`
adds tokens, vocabularies, chunks and precisions for every way. On a GPU, `--device cuda` measures Triton kernels and
CUDA's memory too; here they were {gpu}.
"""


def questions(full: bool, device: str) -> Iterator[dict[str, Any]]:
    """What is asked of one process each, in the order in which it is measured."""
    main = replace(MAIN, device=device)
    ours = [
        *(replace(main, tokens=tokens) for tokens in (512, 16_384)),
        replace(main, tokens=512, vocabulary=152_064),
        replace(main, memory=LESS_MEMORY),
    ]
    others = [
        *(replace(main, tokens=tokens) for tokens in (512, 8192, 16_384)),
        *(replace(main, vocabulary=vocabulary) for vocabulary in (8192, 152_064)),
        *(replace(main, memory=main.memory * part // 4, rows=main.rows * part // 4) for part in (1, 8)),
        replace(main, dtype="bfloat16"),
    ]
    for name in WAYS:
        for case in [main, *(ours if name == "ours" else []), *(others if full else [])]:
            yield {"way": name, "measure": "memory", "case": asdict(case)}
    for name in WAYS:
        time = {"way": name, "measure": "time", "rounds": 5 if name == "ours" else 3}
        time["floors"] = FLOOR_ROWS if name == "ours" else FLOOR_ROWS[1:2]
        changed = [replace(main, temperature=OTHER_TEMPERATURE), replace(main, memory=LESS_MEMORY)]
        for case in [main, *(changed if name == "ours" else []), *(others if full else [])]:
            yield {**time, "case": asdict(case)}
        if full or name in KEPT:
            yield {**time, "measure": "kept", "case": asdict(main)}


def too_large(way: str, case: Case) -> bool:
    """A way that makes whole logits, where they do not fit."""
    with_chunks = {"ours", "checkpointed", "liger", "liger_compiled", "liger_small", "liger_triton", "trl_kernels"}
    if way in with_chunks or not hasattr(os, "sysconf") or case.device != "cpu":
        return False
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return LARGEST_PEAK * 4 * case.tokens * case.vocabulary > available


def ask(question: dict[str, Any]) -> dict[str, Any]:
    """The answer of a process of its own."""
    if too_large(question["way"], Case(**question["case"])):
        return {**question, "skipped": "whole logits do not fit into this machine's memory"}
    settings = {"time": {}, "kept": KEEPING, "memory": GIVING_BACK}[question["measure"]]
    system = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, str(Path(__file__).with_name("ways.py")), json.dumps(question)]
    done = subprocess.run(command, env={**system, **settings}, capture_output=True, text=True, check=False)  # noqa: S603
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {**question, "skipped": f"failed: exit code {done.returncode}"}


def is_off(answer: dict[str, Any]) -> bool:
    """Its loss or gradient is another."""
    most = AGREEMENT[answer["case"]["dtype"]]
    return not max(answer.get("loss_off", 0), answer.get("gradient_off", 0)) <= most  # NaN is off


def measure(full: bool, device: str) -> list[dict[str, Any]]:
    """All questions asked; a way that was skipped, or computes something else, is not timed."""
    console, answers, out = Console(), [], set()
    for question in questions(full, device):
        if question["measure"] != "memory" and question["way"] in out:
            continue
        answer = ask(question)
        if is_off(answer):
            answer["skipped"] = "computes something else"
        if "skipped" in answer and answer["case"] == asdict(replace(MAIN, device=device)):
            out.add(question["way"])
        answers.append(answer)
        console.print(f"{question['way']}, {question['measure']}: {told(answer)}", highlight=False)
    return answers


def told(answer: dict[str, Any]) -> str:
    if "skipped" in answer:
        return answer["skipped"]
    return memory(answer) if answer["measure"] == "memory" else ratio(answer)


def ratio(answer: dict[str, Any] | None) -> str:
    if answer is None or "skipped" in answer:
        return "–"
    ratios = answer["ratios"]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def peak(answer: dict[str, Any]) -> int:
    """Bytes, by the system if it tells, or else by the allocator."""
    return answer.get("resident") or answer["allocated"]


def memory(answer: dict[str, Any] | None) -> str:
    if answer is None or "skipped" in answer:
        return "–"
    if answer.get("resident") is None:
        return f"{answer['allocated'] / MEGABYTE:,.0f} MB"
    return f"{answer['resident'] / MEGABYTE:,.0f} MB ({answer['allocated'] / MEGABYTE:,.0f})"


class Found:
    """What was measured, by way and case."""

    def __init__(self, stored: dict[str, Any]) -> None:
        self.about = stored["about"]
        self.answers = {self._key(each["way"], each["measure"], each["case"]): each for each in stored["answers"]}
        self.main = replace(MAIN, device=self.about["kind"])

    @staticmethod
    def _key(way: str, measure: str, case: dict[str, Any]) -> str:
        return json.dumps([way, measure, case], sort_keys=True)

    def get(self, way: str, measure: str, case: Case | None = None) -> dict[str, Any] | None:
        return self.answers.get(self._key(way, measure, asdict(case or self.main)))

    def good(self, measure: str) -> dict[str, dict[str, Any]]:
        """Answers about the main case of the ways that have one."""
        answers = {way: self.get(way, measure) for way in WAYS}
        return {way: each for way, each in answers.items() if each is not None and "skipped" not in each}

    def median(self, way: str, case: Case | None = None) -> float:
        answer = self.get(way, "time", case)
        return statistics.median(answer["ratios"]) if answer and "ratios" in answer else float("nan")

    def peak(self, way: str, **changes: Any) -> float:
        answer = self.get(way, "memory", replace(self.main, **changes))
        return peak(answer) / MEGABYTE if answer and "allocated" in answer else float("nan")


OUR_CHUNKS = ("checkpointed", "liger_small")
"""Ways that were given chunks as small as ours."""

PEERS = [name for name in WAYS if name not in ("ours", "full")]
"""Whoever looks for a way without whole logits, and other libraries."""


@dataclass(frozen=True)
class Aim:
    """NaN is what was not measured: it is neither reached nor missed."""

    what: str
    most: float
    value: float
    unit: str = ""
    beside_others: bool = False

    @property
    def missed(self) -> bool:
        return self.value > self.most

    def __str__(self) -> str:
        measured = "not measured" if math.isnan(self.value) else f"{self.value:.3g}{self.unit}"
        verdict = "" if math.isnan(self.value) else "missed" if self.missed else "reached"
        return f"| {self.what} | {self.most:.3g}{self.unit} | {measured} | {verdict} |"


def aims(found: Found) -> list[Aim]:
    hot = replace(found.main, temperature=OTHER_TEMPERATURE)
    nan = float("nan")
    fastest = min((found.median(name) for name in PEERS if name in found.good("time")), default=nan)
    peaks = {name: found.peak(name) for name in PEERS if name in found.good("memory")}
    leanest = min(peaks.values(), default=nan)
    as_it_comes = min((peak for name, peak in peaks.items() if name not in OUR_CHUNKS), default=nan)
    ours = found.peak("ours")
    over_tokens = [found.peak("ours", tokens=tokens) / ours for tokens in (512, 16_384)]
    return [
        Aim("time, in floors", 1.20, found.median("ours")),
        Aim(f"time at T = {OTHER_TEMPERATURE:g}, in floors", 1.30, found.median("ours", hot)),
        Aim("time, of the fastest other way's", 1 / 1.25, found.median("ours") / fastest, beside_others=True),
        Aim("memory", 130, ours, " MB"),
        Aim("memory, of the leanest other way's as it comes", 1 / 3, ours / as_it_comes, beside_others=True),
        Aim("memory, of the leanest other way's with chunks of ours", 1 / 3, ours / leanest, beside_others=True),
        Aim("memory, of that with full logits", 1 / 20, ours / found.peak("full"), beside_others=True),
        Aim("memory of 512 or 16,384 tokens, off that of 2,048 by", 0.1, max(abs(each - 1) for each in over_tokens)),
        Aim("memory with a vocabulary of 152,064", 130, found.peak("ours", tokens=512, vocabulary=152_064), " MB"),
    ]


def picture(found: Found) -> tuple[Any, str]:
    """Time and memory of each way, as bars, and the alt text."""
    times, peaks = found.good("time"), found.good("memory")
    names = sorted(times, key=found.median, reverse=True)
    titles = [WAYS[name].title.replace("`", "") for name in names]
    colours = [BLUE if name == "ours" else GREY for name in names]
    with plt.rc_context({**STYLE, **SVG}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 0.5 + 0.42 * len(names)), sharey=True)
        middle = [found.median(name) for name in names]
        spread = [
            [value - min(times[name]["ratios"]) for name, value in zip(names, middle, strict=True)],
            [max(times[name]["ratios"]) - value for name, value in zip(names, middle, strict=True)],
        ]
        left.barh(titles, middle, xerr=spread, color=colours, ecolor="black", capsize=3)
        left.axvline(1, color="black", linewidth=1, linestyle="--")
        left.set(xlabel="time, in floors (the dashed line)")
        right.barh(titles, [peak(peaks[name]) / MEGABYTE for name in names], color=colours)
        right.set(xlabel="memory (MB)\nbeyond inputs and gradients", xscale="log")
    shown = "; ".join(
        f"{title}, {found.median(name):.2f} floors and {peak(peaks[name]) / MEGABYTE:,.0f} MB"
        for name, title in reversed(list(zip(names, titles, strict=True)))
    )
    return figure, f"Time and memory of each way, fastest first: {shown}."


def page_of(stored: dict[str, Any], alt: str) -> str:
    """The page, in Markdown."""
    found = Found(stored)
    ways = [_row_of(found, name, way) for name, way in WAYS.items()]
    cases = [
        Case(**each["case"])
        for each in stored["answers"]
        if each["way"] == "ours" and "skipped" not in each
    ]  # fmt: skip
    unique = sorted(dict.fromkeys(cases), key=_place)
    triton = found.get("liger_triton", "memory")
    block = 4 * found.main.rows * found.main.vocabulary / MEGABYTE
    return PAGE.format(
        **asdict(found.main) | {"device": found.about["device"]},
        torch=found.about["torch"],
        threads=found.about["threads"],
        alt=alt,
        ways="\n".join(ways),
        cases="\n".join(
            f"| {case.tokens:,} | {case.vocabulary:,} | {case.temperature:g} | {case.memory / MEGABYTE:,.0f} MB "
            f"| {case.dtype} | {ratio(found.get('ours', 'time', case))} | {memory(found.get('ours', 'memory', case))} |"
            for case in unique
        ),
        aims="\n".join(map(str, aims(found))),
        block=block,
        blocks=found.peak("liger_small") / block,
        less=LESS_MEMORY / MEGABYTE,
        gpu="measured" if triton and "skipped" not in triton else "not measured",
    )


def _place(case: Case) -> tuple[Any, ...]:
    """Where its row stands in the table."""
    return case.dtype != "float32", case.vocabulary, case.tokens, -case.memory, case.temperature


def _row_of(found: Found, name: str, way: Way) -> str:
    memory_, time = found.get(name, "memory"), found.get(name, "time")
    number = found.about["versions"].get(way.package, "–") if way.package != "torch" else "–"
    reason = next((each["skipped"] for each in (memory_, time) if each and "skipped" in each), None)
    if reason or memory_ is None or time is None:
        return f"| {way.title} | {number} | {reason or 'not measured'} | – | – | – | – |"
    return (
        f"| {way.title} | {number} | {ratio(time)} | {time['first_seconds']:.1f} s | {ratio(found.get(name, 'kept'))} "
        f"| {memory(memory_)} | {memory_['gradient_off']:.0e} |"
    )


def line_of(stored: dict[str, Any]) -> str:
    """The README's."""
    found = Found(stored)
    return (
        f"- [**A language model's loss without its logits**](docs/fused.md): {found.median('ours'):.2f} times its four "
        f"matrix products,\n  in {found.peak('ours'):,.0f} MB where full logits take "
        f"{found.peak('full'):,.0f} ({found.main.tokens:,} tokens, a vocabulary of {found.main.vocabulary:,})."
    )


IN_README = re.compile(r"^- \[\*\*A language model's loss without its logits\*\*\].*\n  .*$", re.MULTILINE)


def write(stored: dict[str, Any]) -> None:
    """The four files."""
    (DOCS / "fused.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    figure, alt = picture(Found(stored))
    with plt.rc_context(SVG):
        figure.savefig(DOCS / "fused.svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    drawn = (DOCS / "fused.svg").read_text(encoding="utf-8").splitlines()
    (DOCS / "fused.svg").write_text("\n".join(map(str.rstrip, drawn)) + "\n", encoding="utf-8")
    (DOCS / "fused.md").write_text(page_of(stored, alt), encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (ROOT / "README.md").write_text(IN_README.sub(lambda _: line_of(stored), readme), encoding="utf-8")


def about(device: str) -> dict[str, Any]:
    versions = {}
    for package in {way.package for way in WAYS.values()} - {"torch"}:
        try:
            versions[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            continue
    name = torch.cuda.get_device_name() if device != "cpu" else f"a CPU ({platform.machine()})"
    return {
        "torch": torch.__version__.partition("+")[0],
        "kind": device,
        "device": name,
        "threads": torch.get_num_threads(),
        "versions": dict(sorted(versions.items())),
    }


def main(
    full: Annotated[bool, typer.Option("--full", help="More tokens, vocabularies, chunks and precisions.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU if there is one.")] = None,
) -> None:
    """Measure the fused loss beside other ways. Example: fused_loss.py --full --device cpu"""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    stored = {"about": about(device), "answers": measure(full, device)}
    write(stored)
    missed = [aim for aim in aims(Found(stored)) if aim.missed]
    print(*missed, sep="\n")
    if not all(aim.beside_others for aim in missed):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
