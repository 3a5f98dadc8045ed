"""Train the review teacher that the course ships: `make teacher`.

MiniLM stays as it is; a low-rank adapter, the pooler and the head learn the labels of the review sentences. What comes
out is small enough to ship: the adapter, the logits of every sentence that the lessons distil on, and a report.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from datasets import Dataset, DatasetDict
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import EvalPrediction, PreTrainedTokenizerBase, Trainer, TrainingArguments

from kdcourse.cache import fingerprint, save_logits
from kdcourse.collators import collator
from kdcourse.files import write_whole, written_whole
from kdcourse.labs import assets, data, models
from kdcourse.teacher import score

TARGET_ACCURACY = 0.855
"""On the test sentences; what the lessons are written for."""

RANK = 16
SEED = 0


def main() -> int:
    """Train, score, and ship what is good enough; otherwise say so, return 1, and leave the shipped teacher alone."""
    started = time.monotonic()
    tokenizer = models.load_tokenizer()
    reviews = data.tokenize(data.load_reviews(), tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        train(Path(scratch), reviews, tokenizer)
        report = ship(Path(scratch), reviews, tokenizer)
    print(json.dumps(report | {"minutes": round((time.monotonic() - started) / 60, 1)}, indent=2))
    if report["test accuracy"] < TARGET_ACCURACY:
        print(
            f"Below the target of {TARGET_ACCURACY:.1%} on test: the shipped teacher was left as it is.",
            file=sys.stderr,
        )
        return 1
    return 0


def train(folder: Path, reviews: DatasetDict, tokenizer: PreTrainedTokenizerBase) -> None:
    """Train an adapter on the labels, and save it into `folder`."""
    transformers.set_seed(SEED)
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=0.1,
        target_modules=["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
        modules_to_save=["pooler", "classifier"],
    )
    model = get_peft_model(models.load_untrained_teacher(), lora)
    arguments = TrainingArguments(
        str(folder / "trainer"),
        num_train_epochs=3,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.01,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        eval_strategy="epoch",
        save_strategy="no",
        logging_steps=50,
        report_to="none",
        seed=SEED,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=reviews["train"],
        eval_dataset=reviews["validation"],
        data_collator=collator(tokenizer),
        compute_metrics=_accuracy,
    )
    trainer.train()
    save_adapter(model, folder)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """The adapter in half precision; it names the encoder by its hub name, not by a path of this machine."""
    hub = assets.catalogue()["minilm"].hub
    config: Any = model.peft_config["default"]
    config.base_model_name_or_path = hub.repo if hub else None
    config.target_modules = sorted(config.target_modules)  # a set has another order in every process
    model.save_pretrained(str(folder))
    weights = folder / "adapter_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights)


def ship(folder: Path, reviews: DatasetDict, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Score all sentences with the adapter in `folder`; if it is good enough, it takes the shipped one's place."""
    teacher = models.load_teacher(folder)
    elsewhere = {"transfer": data.load_transfer(), **{name: data.load_domain(name) for name in data.DOMAINS}}
    scored: dict[str, Dataset] = {
        **reviews,
        **{name: data.tokenize(rows, tokenizer) for name, rows in elsewhere.items()},
    }
    logits = {name: score(teacher, tokenizer, dataset, progress=True) for name, dataset in scored.items()}
    right = {name: np.mean(logits[name].argmax(-1).numpy() == reviews[name]["label"][:]) for name in reviews}
    report: dict[str, Any] = {f"{name} accuracy": round(float(share), 4) for name, share in right.items()}
    report |= {package: version(package) for package in ("torch", "transformers", "peft")}
    if report["test accuracy"] >= TARGET_ACCURACY:
        models.TEACHER_FOLDER.mkdir(parents=True, exist_ok=True)
        for file in models.ADAPTER_FILES:
            with written_whole(models.TEACHER_FOLDER / file) as unfinished:
                shutil.copyfile(folder / file, unfinished)
        digest = models.teacher_digest()
        prints = {name: fingerprint(digest, tokenizer, dataset) for name, dataset in scored.items()}
        save_logits(models.TEACHER_LOGITS, logits, prints)
        write_whole(models.TEACHER_FOLDER / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def _accuracy(predictions: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float(np.mean(np.argmax(predictions.predictions, axis=-1) == predictions.label_ids))}


if __name__ == "__main__":
    sys.exit(main())
