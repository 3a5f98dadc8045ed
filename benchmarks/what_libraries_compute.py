"""What each library computes: `python benchmarks/what_libraries_compute.py`, about half a minute.

`kdcourse diagnose` over the losses of others, as far as they are installed. They go beside the course, into a folder on
PYTHONPATH, and without what they depend on, since some ask for an older torch or transformers:

    pip install --no-deps --target peers torchdistill==1.1.5 trl==1.16.0 liger-kernel==0.8.5 nvidia-modelopt==0.47.0 \
        torchtune==0.6.1 textbrewer==0.2.1.post1
    pip install --no-deps --target peers omegaconf antlr4-python3-runtime==4.9.3 pulp torchao tensorboard \
        tensorboard-data-server absl-py grpcio markdown protobuf werkzeug

DistillKit is in no package index: its folder `distillkit`, from arcee-ai/DistillKit at the commit in SOURCES, goes
there as well.

It writes `docs/libraries.json`, what was found, and `docs/libraries.md`, the page that is made of it. A library that is
not there, or cannot be imported, keeps what was found before.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from kdcourse.course.diagnose import Report, diagnose_loss, load

DOCS = Path(__file__).parents[1] / "docs"

INTRODUCTION = """\
# What each library computes

`kdcourse diagnose` was given a loss of each library below ([how it works](diagnose.md)), on one CPU with torch {torch}.
The table says what it found by calling them, and the sections what else is worth knowing. A choice is not a mistake:
a library without T², or with a reverse KL, may mean it. What matters is that its user knows.

Liger's loss takes hidden states and heads, and was given heads that are the identity, without compilation. ModelOpt's
has its default reduction, torchtune's module was loaded without the package around it, and of TRL's trainer only
`compute_loss` was called. DistillKit's losses were masked as its trainer does it, and its sparse one was given the
teacher's three likeliest classes, their log-probabilities, and `SYMMETRIC_UNIFORM` for the rest.

`python benchmarks/what_libraries_compute.py` makes this page, from `docs/libraries.json`, which it writes anew for
libraries that are installed.

| loss | version | divergence | divided by | T² | weight 1 is |
|---|---|---|---|---|---|
"""


def torchdistill() -> Any:
    from torchdistill.losses.mid_level import KDLoss

    class KDLossOfLogits(nn.Module):
        """Its inputs are dictionaries of modules' outputs."""

        def __init__(self, temperature: float, alpha: float) -> None:
            super().__init__()
            self.loss = KDLoss("head", "output", "head", "output", temperature, alpha)

        def forward(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
            student, teacher = ({"head": {"output": logits}} for logits in (student_logits, teacher_logits))
            return self.loss(student, teacher, targets)

    return KDLossOfLogits


def trl_gkd() -> Any:
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    return GKDTrainer.generalized_jsd_loss


def trl_gkd_trainer() -> Any:
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    return GKDTrainer


def liger() -> Any:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    class OfLogits(nn.Module):
        """It takes hidden states and heads; a head that is the identity makes logits of them."""

        def __init__(self, weight_hard_loss: float, weight_soft_loss: float, beta: float, temperature: float) -> None:
            super().__init__()
            self.loss = LigerFusedLinearJSDLoss(
                weight_hard_loss, weight_soft_loss, beta, temperature=temperature, compiled=False
            )

        def forward(self, student_logits: Tensor, teacher_logits: Tensor, true_labels: Tensor) -> Tensor:
            heads = (torch.eye(each.shape[-1], dtype=each.dtype) for each in (student_logits, teacher_logits))
            student_head, teacher_head = heads
            return self.loss(student_logits, student_head, teacher_logits, teacher_head, true_labels)

    return OfLogits


def modelopt() -> Any:
    from modelopt.torch.distill.losses import LogitsDistillationLoss

    def default(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
        return LogitsDistillationLoss(temperature)(student_logits, teacher_logits)

    return default


def torchtune_forward() -> Any:
    return load(f"{_torchtune()}:ForwardKLLoss")()


def torchtune_reverse() -> Any:
    return load(f"{_torchtune()}:ReverseKLLoss")()


def _torchtune() -> Path:
    """The module itself: the package around it wants a torchao that goes with an older torch."""
    spec = importlib.util.find_spec("torchtune")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchtune")
    return Path(spec.origin).parent / "modules" / "loss" / "kd_losses.py"


def distillkit(module: str, name: str) -> Any:
    from distillkit.signals import DenseSignal

    kind = getattr(importlib.import_module(f"distillkit.lossfuncs.{module}"), name)

    class OfLogits(nn.Module):
        """Its trainer makes the mask of labels, which it does not shift."""

        def __init__(self, **settings: float) -> None:
            super().__init__()
            self.loss = kind(**settings)

        def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
            mask = _mask_of_distillkit(labels)
            signal = DenseSignal(1.0, None, teacher_logits.shape[-1], teacher_logits)
            return self.loss(SimpleNamespace(logits=student_logits), signal, mask)

    OfLogits.__signature__ = inspect.signature(kind)  # type: ignore[attr-defined]
    return OfLogits


def distillkit_sparse() -> Any:
    from distillkit.lossfuncs.kl import KLDLoss
    from distillkit.missing_probability import MissingProbabilityHandling
    from distillkit.signals import SparseSignal

    def top_3(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
        values, ids = teacher_logits.log_softmax(-1).topk(3)
        loss = KLDLoss(temperature, MissingProbabilityHandling.SYMMETRIC_UNIFORM)
        signal = SparseSignal(1.0, None, teacher_logits.shape[-1], ids, values, log_values=True)
        return loss(SimpleNamespace(logits=student_logits), signal, _mask_of_distillkit(labels))

    return top_3


def _mask_of_distillkit(labels: Tensor) -> Tensor:
    """As its trainer makes it; of rows without texts it would broadcast to (rows, rows)."""
    if labels.ndim == 1:
        raise ValueError("(texts, tokens, vocabulary) is asked for")
    return (labels >= 0).unsqueeze(-1)


def textbrewer_ce() -> Any:
    from textbrewer.losses import kd_ce_loss

    return kd_ce_loss


def textbrewer_mse() -> Any:
    from textbrewer.losses import kd_mse_loss

    return kd_mse_loss


def pytorch() -> Any:
    return nn.KLDivLoss(reduction="batchmean")


LOSSES: dict[str, tuple[str, Callable[[], Any]]] = {
    'PyTorch, `nn.KLDivLoss(reduction="batchmean")`': ("torch", pytorch),
    "torchdistill, `KDLoss`": ("torchdistill", torchdistill),
    "TRL, `GKDTrainer.compute_loss`": ("trl", trl_gkd_trainer),
    "TRL, `GKDTrainer.generalized_jsd_loss`": ("trl", trl_gkd),
    "Liger, `LigerFusedLinearJSDLoss`": ("liger-kernel", liger),
    "ModelOpt, `LogitsDistillationLoss`": ("nvidia-modelopt", modelopt),
    "torchtune, `ForwardKLLoss`": ("torchtune", torchtune_forward),
    "torchtune, `ReverseKLLoss`": ("torchtune", torchtune_reverse),
    "DistillKit, `KLDLoss`": ("distillkit", partial(distillkit, "kl", "KLDLoss")),
    "DistillKit, `JSDLoss`": ("distillkit", partial(distillkit, "jsd", "JSDLoss")),
    "DistillKit, `TVDLoss`": ("distillkit", partial(distillkit, "tvd", "TVDLoss")),
    "DistillKit, `KLDLoss` of a top 3": ("distillkit", distillkit_sparse),
    "TextBrewer, `kd_ce_loss`": ("textbrewer", textbrewer_ce),
    "TextBrewer, `kd_mse_loss`": ("textbrewer", textbrewer_mse),
}
"""By title: the distribution, and how to get at the loss."""

SOURCES = {"distillkit": "1.0.0 at a61c2e7"}
"""The version and the commit of what is in no package index."""


def version_of(distribution: str) -> str:
    return SOURCES.get(distribution) or importlib.metadata.version(distribution).partition("+")[0]


def page_of(found: dict[str, Any]) -> str:
    """The page, in Markdown."""
    losses = found["losses"]
    lines = [INTRODUCTION.format(torch=found["torch"])]
    lines += [f"{_row(title, each)}\n" for title, each in losses.items()]
    for title, each in losses.items():
        lines.append(f"\n## {title.partition(',')[0]} {each['version']}: {title.partition(', ')[2]}\n\n")
        told = [
            finding for finding in each["findings"] if finding["level"] != "ok" or finding["question"] == "direction"
        ]
        lines += [f"- {finding['words']} Lesson {finding['lesson']}.\n" for finding in told]
    return "".join(lines)


def _row(title: str, each: dict[str, Any]) -> str:
    answers = {finding["question"]: finding["answer"].replace("_", " ") for finding in each["findings"]}
    wanted = (answers.get(question, "–") for question in ("direction", "divisor", "t_squared", "weight"))
    return f"| {title} | {each['version']} | {' | '.join(wanted)} |"


def main() -> None:
    path = DOCS / "libraries.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"losses": {}}
    found["torch"] = torch.__version__.partition("+")[0]
    before, found["losses"] = found["losses"], {}
    for title, (distribution, get) in LOSSES.items():
        try:
            loss = get()
            version = version_of(distribution)
        except Exception as error:  # whatever an import of others raises
            print(f"{title}: {type(error).__name__}: {error}")
            if title in before:
                found["losses"][title] = before[title]
            continue
        report: Report = diagnose_loss(loss)
        found["losses"][title] = {"version": version, **report.as_json()}
        print(f"{title} {version}: {report['direction'].answer}, {len(report.problems)} problems")
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (DOCS / "libraries.md").write_text(page_of(found), encoding="utf-8")


if __name__ == "__main__":
    main()
