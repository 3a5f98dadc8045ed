"""Trainings with drawn settings end as a loop by hand does, in float64, or in a sentence of the library's.

With KDCOURSE_DEEP=1, three hundred that are drawn anew: one that fails is made smaller for minutes.
"""

import copy
import os
import shutil
import tempfile
import traceback
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from settings.by_hand import IGNORED, LEARNING_RATE, distance
from shapes import LABELS, PAD, SHAPES, make_model, make_rows, make_tokenizer, make_trainer, weights_of
from test_decoders import FIRST, MAKERS, make, make_examples
from transformers import BertForTokenClassification, DataCollatorForSeq2Seq, DataCollatorForTokenClassification

import kdcourse
from kdcourse.checkpoints import CheckpointError
from kdcourse.collators import LanguageModelCollator, collator
from kdcourse.teacher import ColumnTeacher, add_logits, cache_logits

DEEP = bool(os.environ.get("KDCOURSE_DEEP"))
T = 2.0
OF_TEXTS = [shape for shape in SHAPES if shape.endswith("classifier")]
CAUSAL = [shape for shape in SHAPES if shape.endswith("lm")]

FLAGS = {
    "checkpointing": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "names of labels": {"label_names": ["labels"]},
    "no names of labels": {"label_names": []},
    "all columns": {"remove_unused_columns": False},
    "tokens counted": {"include_num_input_tokens_seen": "non_padding"},
    "by length": {"train_sampling_strategy": "group_by_length"},
    "in order": {"train_sampling_strategy": "sequential"},
    "last batch dropped": {"dataloader_drop_last": True},
    "not averaged over devices": {"average_tokens_across_devices": False},
    "whole logits": {"fused": False},
    "a worker": {"dataloader_num_workers": 1},
    "only losses": {"prediction_loss_only": True},
    "fetched at each batch": {"eval_accumulation_steps": 1},
    "evaluated at each step": {"eval_strategy": "steps", "eval_steps": 1},
    "logged at each other step": {"logging_steps": 2},
    "dealt out": {"accelerator_config": {"dispatch_batches": True}},
}
"""None of them changes what a step is."""

DRAWN = {
    "kind": st.sampled_from([*SHAPES, "tokens", "t5", "bart", "bert"]),
    "source": st.sampled_from(["model", "cache", "column", "two models"]),
    "is_left": st.booleans(),
    "is_packed": st.booleans(),
    "is_streamed": st.booleans(),
    "rows": st.integers(5, 12),
    "batch": st.integers(1, 4),
    "accumulation": st.integers(1, 3),
    "steps": st.integers(2, 5),
    "resumed_at": st.integers(0, 3),
    "eval_rows": st.integers(1, 9),
    "eval_batch": st.integers(1, 4),
    "has_metrics": st.booleans(),
    "alpha": st.sampled_from([0.4, 0.0, 1.0]),
    "smoothing": st.sampled_from([0.0, 0.2]),
    "divergence": st.sampled_from(["forward_kl", "reverse_kl", "jensen_shannon"]),
    "longest": st.sampled_from([0.0, 0.05]),
    "flags": st.sets(st.sampled_from(sorted(FLAGS)), max_size=3),
}


def fitting(drawn):
    """Without what nobody could collate: packed texts with one label each, or logits of tokens in a column."""
    if drawn["kind"] not in OF_TEXTS and drawn["source"] == "column":
        drawn = drawn | {"source": "model"}
    return SimpleNamespace(**drawn | {"is_packed": drawn["is_packed"] and drawn["kind"] in CAUSAL})


def make_one(kind, seed):
    if kind in MAKERS:
        return make(kind, seed).double()
    if kind == "tokens":
        torch.manual_seed(seed)
        return BertForTokenClassification(make_model("bert-classifier").config).double()
    return make_model(kind, seed=seed).double()


def make_data(drawn):
    """Rows to train on, and behind them those to evaluate."""
    number = drawn.rows + drawn.eval_rows
    if drawn.kind in MAKERS:
        return Dataset.from_list(make_examples(drawn.kind, number)).remove_columns("title")
    if drawn.kind != "tokens":
        return make_rows(drawn.kind, number)
    texts = make_rows("gpt2-classifier", number).to_list()
    labels = [[token % LABELS if token % 4 else IGNORED for token in row["input_ids"]] for row in texts]
    return Dataset.from_list([row | {"labels": each} for row, each in zip(texts, labels, strict=True)])


def make_collate(drawn):
    tokenizer = make_tokenizer(pad_side="left" if drawn.is_left else "right")
    if drawn.is_packed:
        return LanguageModelCollator(tokenizer, packed=True)
    if drawn.kind in ("bert", "tokens"):
        return DataCollatorForTokenClassification(tokenizer)
    return collator(tokenizer) if drawn.kind in OF_TEXTS else DataCollatorForSeq2Seq(tokenizer)


def padded(rows):
    filling = {"input_ids": PAD, "attention_mask": 0, "labels": IGNORED}
    columns = {name: [row[name] for row in rows] for name in filling}
    for name, column in columns.items():
        if isinstance(column[0], list):
            longest = max(map(len, column))
            columns[name] = [[*each, *[filling[name]] * (longest - len(each))] for each in column]
    return {name: torch.tensor(column) for name, column in columns.items()}


def texts_of(batch):
    """The ids of each text, which tell rows apart."""
    ids = batch["input_ids"]
    if "attention_mask" in batch:
        return [tuple(row[mask.bool()].tolist()) for row, mask in zip(ids, batch["attention_mask"], strict=True)]
    starts = (batch["position_ids"][0] == 0).nonzero()[:, 0].tolist()
    return [tuple(text.tolist()) for text in ids[0].tensor_split(starts[1:])]


def losses(drawn, student, teachers, rows):
    """The total, and each part with how many rows or tokens it is averaged over, of rows as one batch."""
    batch = padded(rows)
    labels = batch.pop("labels")
    if drawn.kind in FIRST:
        ids = torch.cat([torch.full_like(labels[:, :1], FIRST[drawn.kind]), labels[:, :-1]], dim=1)
        batch["decoder_input_ids"] = ids.masked_fill(ids == IGNORED, PAD)
    ours = student(**batch).logits
    with torch.no_grad():
        theirs = [teacher(**batch).logits for teacher in teachers]
    if drawn.kind in CAUSAL:
        ours, *theirs = (each[:, :-1] for each in (ours, *theirs))
        labels = labels[:, 1:]
    if drawn.kind not in OF_TEXTS:
        taught = labels != IGNORED
        ours, labels, *theirs = (each[taught] for each in (ours, labels, *theirs))
    known = labels != IGNORED
    log_p = ours[known].log_softmax(-1)
    hard = -(1 - drawn.smoothing) * log_p.gather(1, labels[known, None])[:, 0] - drawn.smoothing * log_p.mean(-1)
    q, log_s = sum((each / T).softmax(-1) for each in theirs) / len(theirs), (ours / T).log_softmax(-1)
    s, log_q, log_m = log_s.exp(), q.log(), ((q + log_s.exp()) / 2).log()
    forward, reverse = (q * (log_q - log_s)).sum(-1), (s * (log_s - log_q)).sum(-1)
    middle = ((q * (log_q - log_m)).sum(-1) + (s * (log_s - log_m)).sum(-1)) / 2
    soft = T**2 * {"forward_kl": forward, "reverse_kl": reverse, "jensen_shannon": middle}[drawn.divergence]
    parts = {"hard_loss": (hard.sum() / max(len(hard), 1), len(hard)), "soft_loss": (soft.mean(), len(soft))}
    return drawn.alpha * parts["hard_loss"][0] + (1 - drawn.alpha) * parts["soft_loss"][0], parts


def require_evaluated(drawn, metrics, student, teachers, rows):
    if "last batch dropped" in drawn.flags and drawn.eval_rows % drawn.eval_batch:
        return  # of an evaluation, too: the Trainer's own rule
    with torch.no_grad():
        total, parts = losses(drawn, copy.deepcopy(student).eval(), teachers, rows)
    for name, (value, count) in parts.items():
        assert metrics.get(f"eval_{name}") == (pytest.approx(value.item(), rel=1e-5, abs=1e-7) if count else None)
    if all(count for _, count in parts.values()):
        assert metrics["eval_loss"] == pytest.approx(total.item(), rel=1e-5)


class Training:
    """The trainer of one draw, with what reaches its steps."""

    def __init__(self, drawn, folder, student, teacher, rows, eval_rows):
        self.seen = {}
        options = {name: value for flag in sorted(drawn.flags) for name, value in FLAGS[flag].items()}
        if drawn.is_streamed:
            rows, eval_rows = rows.to_iterable_dataset(), eval_rows.to_iterable_dataset()
        self.trainer = make_trainer(
            "bert-classifier", folder, student=copy.deepcopy(student), teacher=teacher, rows=rows, eval_rows=eval_rows,
            collator=make_collate(drawn), per_device_train_batch_size=drawn.batch, max_steps=drawn.steps,
            gradient_accumulation_steps=drawn.accumulation, per_device_eval_batch_size=drawn.eval_batch,
            alpha=drawn.alpha, label_smoothing_factor=drawn.smoothing, divergence=drawn.divergence,
            max_grad_norm=drawn.longest, lr_scheduler_type="constant", save_strategy="steps", save_steps=1, **options,
        )  # fmt: skip
        if drawn.has_metrics:
            self.trainer.compute_metrics = lambda prediction: {"rows": len(prediction.predictions)}
        self._step = self.trainer.training_step
        self.trainer.training_step = self._watched

    def _watched(self, model, inputs, *args):
        self.seen.setdefault(self.trainer.state.global_step, []).append(texts_of(inputs))
        return self._step(model, inputs, *args)

    @property
    def weights(self):
        return weights_of(self.trainer.model).double()


def teach(drawn, folder, data):
    """What teaches, the models behind it, and the rows with what it brings."""
    teachers = [make_one(drawn.kind, seed) for seed in ((1, 2) if drawn.source == "two models" else (1,))]
    given = copy.deepcopy(teachers) if len(teachers) > 1 else copy.deepcopy(teachers[0])
    if drawn.source == "cache":
        given = cache_logits(folder / "cache", given, make_tokenizer(), data, batch_size=4, rows_per_file=5)
        data = given.add_rows(data)
    elif drawn.source == "column":
        batch = padded(list(data))
        with torch.no_grad():
            answers = teachers[0].eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        given, data = ColumnTeacher(), add_logits(data, answers)
    return given, [teacher.eval() for teacher in teachers], data


def train_and_compare(drawn, folder):
    student, plain = make_one(drawn.kind, 0), make_data(drawn)
    given, teachers, data = teach(drawn, folder, plain)
    rows, eval_rows = (data.select(part) for part in (range(drawn.rows), range(drawn.rows, len(data))))
    training = Training(drawn, folder / "whole", student, given, rows, eval_rows)
    training.trainer.train()
    by_text = {tuple(row["input_ids"]): row for row in plain}
    evaluated = plain.select(range(drawn.rows, len(plain)))
    logs = training.trainer.state.log_history
    hand, totals = copy.deepcopy(student).train(), []
    for step in range(drawn.steps):
        hand.zero_grad()
        texts = [text for micro_batch in training.seen[step] for text in micro_batch]
        total, _ = losses(drawn, hand, teachers, [by_text[text] for text in texts])
        total.backward()
        totals.append(total.item())
        weights = [weight for weight in hand.parameters() if weight.grad is not None]
        norm = torch.stack([weight.grad.norm() for weight in weights]).norm()
        scale = min(1.0, drawn.longest / (norm.item() + 1e-6)) if drawn.longest else 1.0
        for weight in weights:
            weight.data -= LEARNING_RATE * scale * weight.grad
        for log in (each for each in logs if each["step"] == step + 1):
            if "eval_runtime" in log:
                require_evaluated(drawn, log, hand, teachers, list(evaluated))
            if "loss" in log:
                assert log["loss"] == pytest.approx(sum(totals) / len(totals), rel=1e-5, abs=1e-7)
                totals = []
    expected = weights_of(hand)
    assert distance(training.weights, expected, weights_of(student)) < 1e-4
    require_evaluated(drawn, training.trainer.evaluate(), hand, teachers, list(evaluated))
    order = [text for step in sorted(training.seen) for micro_batch in training.seen[step] for text in micro_batch]
    if "last batch dropped" not in drawn.flags:  # each pass sees each row once
        passes = [order[first : first + drawn.rows] for first in range(0, len(order) - drawn.rows + 1, drawn.rows)]
        assert all(sorted(each) == sorted(map(tuple, rows["input_ids"])) for each in passes)
    if 0 < drawn.resumed_at < drawn.steps:
        resumed = Training(drawn, folder / "resumed", student, given, rows, eval_rows)
        resumed.trainer.train(resume_from_checkpoint=str(folder / "whole" / f"checkpoint-{drawn.resumed_at}"))
        assert resumed.seen == {step: seen for step, seen in training.seen.items() if step >= drawn.resumed_at}
        assert torch.equal(resumed.weights, training.weights)


# transformers has renamed the setting to activation_checkpointing; both mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.slow
@pytest.mark.skipif(not DEEP, reason="minutes; make test-deep")
@settings(
    max_examples=300, database=None, deadline=None, print_blob=True, report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(st.fixed_dictionaries(DRAWN))
def test_a_training_is_the_loop_by_hand_or_a_sentence(drawn):
    """Two settings that are right alone and wrong together: packed texts of a stream with a cache, a resume in a
    stream's second pass, GPT-2 with padding on the left and a teacher in the loop."""
    folder = Path(tempfile.mkdtemp())
    try:
        train_and_compare(fitting(drawn), folder)
    except (ValueError, CheckpointError) as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        assert Path(kdcourse.__file__).parent in Path(last.filename).parents, "an error that is no sentence"
    finally:
        shutil.rmtree(folder)
