"""What each kind of cache costs and loses: `python benchmarks/cache_kinds.py`, a minute or two on one core.

A teacher over 49,152 tokens, whose probabilities fall off with the rank of a token as those of words do, is stored in
each way that a cache knows, and the gradient of a student's head is computed from that. All is drawn from fixed seeds.
It writes `docs/caches.json`, what was found, and the tables of `docs/caches.md`.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdcourse import distillation_loss
from kdcourse.cache import LogitsCache
from kdcourse.pieces import narrowed
from kdcourse.sampled import sample_k
from kdcourse.topk import Logits, top_k

DOCS = Path(__file__).parents[1] / "docs"
VOCABULARY, TOKENS, HIDDEN = 49_152, 64, 32
COLUMNS = {
    "T = 1, far": (1.0, "far"),
    "T = 1, near": (1.0, "near"),
    "T = 1, tail": (1.0, "tail"),
    "T = 2, far": (2.0, "far"),
}
"""Temperature and student."""

DRAWS = 16
LEARNED = 200
"""How many tokens of each place the student named "tail" has learned."""

PER_CENT = 100
SHORT = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Kind:
    """A way to keep logits: `k` of each row or all, the largest or drawn ones, in a precision."""

    name: str
    k: int | None = None
    is_drawn: bool = False
    dtype: str = "float32"

    def kept(self, logits: Tensor, temperature: float, seed: int = 0) -> Logits:
        whole: Logits = logits
        if self.k is not None:
            whole = sample_k(logits, self.k, temperature, seed) if self.is_drawn else top_k(logits, self.k, temperature)
        return narrowed(whole, SHORT[self.dtype])


KINDS = [
    Kind("all"),
    Kind("all", dtype="float16"),
    Kind("all", dtype="bfloat16"),
    *(
        Kind(f"{k} drawn" if is_drawn else f"top {k}", k, is_drawn, dtype)
        for is_drawn in (False, True)
        for k, dtype in ((12, "float16"), (50, "float32"), (50, "float16"), (200, "float16"))
    ),
]
"""What a cache knows, in the order of the table."""


@dataclass(frozen=True)
class Setting:
    """Hidden states (tokens, hidden) of a student, its logits and its teacher's (tokens, vocabulary)."""

    hidden: Tensor
    student: Tensor
    teacher: Tensor


def make_setting(student: str, vocabulary: int = VOCABULARY, tokens: int = TOKENS) -> Setting:
    """Probabilities like rank^-s with s from 1 to 3, from open places to nearly certain ones.

    Which tokens are likely depends on the token and on the place. A student that is far is less sure than its teacher,
    and off by a nat for each token; one that is near is off by a tenth of a nat. To the third, only the tail is left:
    it gives the likeliest tokens what the teacher does, and all others alike what remains.
    """
    random = torch.Generator().manual_seed(0)
    of_token = torch.arange(1, vocabulary + 1).log()
    order = of_token + 2 * torch.randn(tokens, vocabulary, generator=random)
    ranks = order.argsort(dim=-1).argsort(dim=-1) + 1
    steepness = torch.linspace(1, 3, tokens).unsqueeze(1)
    teacher = -steepness * ranks.log()
    off = torch.randn(teacher.shape, generator=random)
    in_tail = ranks > LEARNED
    even = teacher.masked_fill(~in_tail, -torch.inf).logsumexp(-1, keepdim=True) - in_tail.sum(-1, keepdim=True).log()
    logits = {
        "far": 0.7 * teacher + off,
        "near": teacher + 0.1 * off,
        "tail": torch.where(in_tail, even, teacher),
    }[student]
    return Setting(torch.randn(tokens, HIDDEN, generator=random), logits, teacher)


def soft_and_gradient(setting: Setting, teacher: Logits, temperature: float) -> tuple[float, Tensor]:
    """The soft loss, and its gradient with respect to the student's head, (vocabulary, hidden)."""
    student = setting.student.clone().requires_grad_()
    loss = distillation_loss(student, teacher, alpha=0, temperature=temperature)
    loss.total.backward()
    return loss.soft.item(), student.grad.T @ setting.hidden


def bytes_per_token(text: Logits, texts: int = 8) -> float:
    """Of the file that a cache writes for a text, several times over."""
    with tempfile.TemporaryDirectory() as folder:
        cache = LogitsCache(Path(folder) / "cache", {})
        cache.append([text] * texts)
        return sum(path.stat().st_size for path in cache.folder.iterdir()) / (texts * len(text))


def measure_kind(
    setting: Setting, kind: Kind, temperature: float, exact: tuple[float, Tensor], draws: int = DRAWS
) -> dict[str, float]:
    """Bytes per token; the gradient's error in one cache, and in the mean of many, both over the exact gradient's norm.

    What is left in the mean of many caches is bias, and of a drawn one's noise the share 1 / √draws.
    """
    value, gradient = exact
    seeds = range(draws if kind.is_drawn else 1)
    values, gradients = zip(
        *(soft_and_gradient(setting, kind.kept(setting.teacher, temperature, seed), temperature) for seed in seeds),
        strict=True,
    )
    mean = sum(gradients) / len(gradients)
    one = [((each - gradient).norm() / gradient.norm()).item() for each in gradients]
    return {
        "bytes": bytes_per_token(kind.kept(setting.teacher, temperature)),
        "value": sum(values) / len(values) / value - 1,
        "one": sum(one) / len(one),
        "mean": ((mean - gradient).norm() / gradient.norm()).item(),
        "draws": len(seeds),
    }


def with_replacement(setting: Setting, temperature: float, number: int, seed: int) -> tuple[Tensor, float]:
    """Targets as in arXiv 2503.16870: how often each token came in `number` draws; and how many came, on average."""
    probs = (setting.teacher / temperature).softmax(-1)
    drawn = probs.multinomial(number, replacement=True, generator=torch.Generator().manual_seed(seed))
    targets = torch.zeros_like(probs).scatter_add(-1, drawn, torch.full(drawn.shape, 1 / number))
    return targets, (targets > 0).sum(-1).double().mean().item()


def without_a_rest(setting: Setting, temperature: float, k: int) -> Tensor:
    """Targets of a top k that is scaled to add up to 1, as many implementations have it."""
    logits, classes = (setting.teacher / temperature).topk(k)
    return torch.zeros_like(setting.teacher).scatter(-1, classes, logits.softmax(-1))


def measure_others(
    setting: Setting, temperature: float, gradient: Tensor, draws: int = DRAWS
) -> dict[str, dict[str, float]]:
    """The same errors for ways of others, whose gradient is T · (p_T - target)."""
    probs = (setting.student / temperature).softmax(-1)

    def error(targets: list[Tensor]) -> tuple[float, float]:
        found = [temperature * (probs - each).T @ setting.hidden / len(probs) for each in targets]
        one = [((each - gradient).norm() / gradient.norm()).item() for each in found]
        return sum(one) / len(one), ((sum(found) / len(found) - gradient).norm() / gradient.norm()).item()

    drawn, kept = zip(*(with_replacement(setting, temperature, 50, seed) for seed in range(draws)), strict=True)
    scaled = {f"top {k}, scaled to 1": error([without_a_rest(setting, temperature, k)]) for k in (12, 50, 200)}
    labels = [with_replacement(setting, temperature, 1, seed)[0] for seed in range(draws)]
    named = {"50 draws with replacement": error(list(drawn)), "one draw: a label": error(labels)} | scaled
    measured = {name: {"one": one, "mean": mean} for name, (one, mean) in named.items()}
    measured["50 draws with replacement"]["kept"] = sum(kept) / len(kept)
    return measured


def measure() -> dict[str, Any]:
    """All of it, by student and temperature."""
    found: dict[str, Any] = {"vocabulary": VOCABULARY, "tokens": TOKENS, "draws": DRAWS}
    probs = make_setting("far").teacher.softmax(-1)
    entropies = -(probs * probs.log()).nansum(-1)
    found["entropy"] = [entropies.min().item(), entropies.median().item(), entropies.max().item()]
    found |= {"soft": {}, "kinds": {}, "others": {}}
    for name, (temperature, student) in COLUMNS.items():
        setting = make_setting(student)
        exact = soft_and_gradient(setting, setting.teacher, temperature)
        found["soft"][name] = exact[0]
        found["kinds"][name] = [
            {"name": kind.name, "dtype": kind.dtype, **measure_kind(setting, kind, temperature, exact)}
            for kind in KINDS
        ]
        found["others"][name] = measure_others(setting, temperature, exact[1])
    return found


def shown(error: dict[str, float]) -> str:
    """In per cent, two digits that count; ± before what is noise, and goes away in the mean."""
    number = PER_CENT * error["one"]
    is_noise = error["mean"] < error["one"] / 2
    return ("± " if is_noise else "") + (f"{number:.2g}%" if number < PER_CENT - 0.5 else f"{number:,.0f}%")


def table_of_kinds(found: dict[str, Any]) -> str:
    lines = [f"| kept | on disk | bytes per token | {' | '.join(COLUMNS)} |", "|---|---|---:|" + "---:|" * len(COLUMNS)]
    for row in zip(*(found["kinds"][name] for name in COLUMNS), strict=True):
        name, dtype, size = (row[0][field] for field in ("name", "dtype", "bytes"))
        lines.append(f"| {name} | {dtype} | {size:,.0f} | {' | '.join(map(shown, row))} |")
    return "\n".join(lines)


def table_of_others(found: dict[str, Any]) -> str:
    lines = [f"| kept | {' | '.join(COLUMNS)} |", "|---|" + "---:|" * len(COLUMNS)]
    for name in found["others"][next(iter(COLUMNS))]:
        errors = [shown(found["others"][each][name]) for each in COLUMNS]
        lines.append(f"| {name} | {' | '.join(errors)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {"kinds": table_of_kinds, "others": table_of_others}


def with_tables(page: str, found: dict[str, Any]) -> str:
    """The page with the tables of what was found, between the comments that mark their places."""
    for name, table in TABLES.items():
        marks = re.compile(rf"(<!-- table: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        page = marks.sub(lambda match, table=table: match[1] + "\n" + table(found) + "\n" + match[2], page)
    return page


if __name__ == "__main__":
    measured = measure()
    (DOCS / "caches.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    page = DOCS / "caches.md"
    page.write_text(with_tables(page.read_text(encoding="utf-8"), measured), encoding="utf-8")
