"""The census as it is kept: `docs/census.json`, and the page that is made of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import transformers

from census.architectures import LANGUAGE, REGISTERS, Architecture
from census.judging import EQUAL, NOT_BUILT, REFUSED, Verdict

DOCS = Path(__file__).parents[2] / "docs"
RECORD, PAGE = DOCS / "census.json", DOCS / "census.md"

VERDICTS = (EQUAL, REFUSED, NOT_BUILT)
HEAD = """# The census of architectures

Each model class that transformers registers for a task of this package is built tiny, with random weights, and takes
one optimizer step in `DistillationTrainer`, as student and as teacher. Beside it, the same step is computed from the
formulas in float64, on logits that the models give when they are asked directly. The loss, both of its terms and the
change of all weights must agree; as the teacher of a student that names one column only, the class must read its others
all the same. What the decoder of an encoder-decoder reads of the labels, the step by hand leaves to the model. Neither
a language model nor a decoder must see the tokens that it is to predict, and a text that is too long must be read or be
a sentence.

- **equal**: the step is right. The last column holds what the class reads as a teacher: without it, its logits move.
- **refused**: the trainer says in a sentence why it does not train this, and what to do.
- **not built**: it needs a package that is not installed here, or cannot be made tiny.

Of a causal language model, the page says whether its **head** is seen. If it is, the step is computed from hidden
states, [without the logits](package.md#the-loss-without-the-logits), and once more with them, and both are right.

`make census` takes it anew, and writes [census.json](census.json) and this page. `make test` holds a sample of it, and
`make test-deep` the whole: a new version of transformers moves a verdict knowingly or not at all.
"""


def load() -> tuple[str, dict[Architecture, Verdict]]:
    """The version of transformers, and the verdicts."""
    stored = json.loads(RECORD.read_text(encoding="utf-8"))
    return stored["transformers"], {
        Architecture(*(row[name] for name in Architecture._fields)): Verdict(
            row["verdict"], row["reason"], tuple(row["reads"]), row.get("head", "")
        )
        for row in stored["architectures"]
    }


def save(verdicts: dict[Architecture, Verdict]) -> None:
    rows = [architecture._asdict() | verdict._asdict() for architecture, verdict in sorted(verdicts.items())]
    for row in rows:
        if not row["head"]:  # of a classifier
            del row["head"]
    lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    RECORD.write_text(
        f'{{"transformers": "{transformers.__version__}", "architectures": [\n  {lines}\n]}}\n', encoding="utf-8"
    )
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    version, verdicts = load()
    return "\n".join(
        [HEAD, summary(version, verdicts), heads(verdicts), *(table(task, verdicts) for task in REGISTERS)]
    )


def summary(version: str, verdicts: dict[Architecture, Verdict]) -> str:
    counts = Counter((architecture.task, each.verdict) for architecture, each in verdicts.items())
    rows = [
        f"| {task} | " + " | ".join(str(counts[task, verdict]) for verdict in VERDICTS) + " |" for task in REGISTERS
    ]
    total = Counter(each.verdict for each in verdicts.values())
    return "\n".join(
        [f"## With transformers {version}\n", f"| task | {' | '.join(VERDICTS)} |", "|---|---|---|---|", *rows,
         f"| **all {len(verdicts)}** | " + " | ".join(f"**{total[verdict]}**" for verdict in VERDICTS) + " |", ""]
    )  # fmt: skip


def heads(verdicts: dict[Architecture, Verdict]) -> str:
    found = Counter(each.head for each in verdicts.values() if each.head)
    rows = [f"| {escaped(head)} | {number} |" for head, number in found.most_common()]
    return "\n".join(["| head of a causal language model | architectures |", "|---|---|", *rows, ""])


def table(task: str, verdicts: dict[Architecture, Verdict]) -> str:
    head, line = (" head |", "---|") if task == LANGUAGE else ("", "")
    rows = [
        f"| `{each.class_name}` | {each.model_type}{f', `{each.setting}`' if each.setting else ''} | {verdict.verdict} "
        f"| {described(verdict)} |" + (f" {escaped(verdict.head)} |" if head else "")
        for each, verdict in sorted(verdicts.items())
        if each.task == task
    ]
    return "\n".join(
        [
            f"## {task.capitalize()}\n",
            f"| class | model type | verdict | reads, or why |{head}",
            f"|---|---|---|---|{line}",
            *rows,
            "",
        ]
    )


def described(verdict: Verdict) -> str:
    return ", ".join(f"`{name}`" for name in verdict.reads) or escaped(verdict.reason)


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
