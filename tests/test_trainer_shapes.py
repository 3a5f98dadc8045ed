"""`DistillationTrainer` on tiny models of every shape: what it logs, what it keeps apart, what it refuses."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from datasets import Dataset, concatenate_datasets
from peft import LoraConfig, get_peft_model
from shapes import (
    LABELS,
    SHAPES,
    TRAINERS_OWN,
    WORDS,
    is_language_model,
    logged_loss,
    make_collator,
    make_model,
    make_rows,
    make_tokenizer,
    make_trainer,
    weights_of,
)
from transformers import BertForQuestionAnswering, Trainer, TrainerCallback, TrainingArguments

from kdcourse import MismatchError, distillation_loss, jensen_shannon, lm_distillation_loss
from kdcourse.collators import LanguageModelCollator, collator
from kdcourse.columns import TEACHER_PREFIX
from kdcourse.counting import count_items
from kdcourse.teacher import ColumnTeacher, cache_logits

LANGUAGE_MODELS = [shape for shape in SHAPES if is_language_model(shape)]


def logits_of(model, shape, rows):
    """All rows in one padded batch, without a Trainer."""
    batch = make_collator(shape)(list(rows))
    with torch.no_grad():
        return model.eval()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits, batch["labels"]


def expected_loss(shape, rows, **options):
    student, labels = logits_of(make_model(shape), shape, rows)
    teacher, _ = logits_of(make_model(shape, seed=1), shape, rows)
    objective = lm_distillation_loss if is_language_model(shape) else distillation_loss
    return objective(student, teacher, labels, **{"alpha": 0.4, "temperature": 2.0} | options)


def step_of(trainer):
    trainer.train()
    return weights_of(trainer.model)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_and_evaluation_report_the_objective_per_row_or_token(shape, tmp_path):
    """Losses logged as a mean of means over batches (the Trainer's eval_loss), or without their two parts."""
    rows = make_rows(shape, 13, seed=1)
    trainer = make_trainer(shape, tmp_path, rows=rows, eval_rows=rows, per_device_eval_batch_size=3)
    expected = expected_loss(shape, rows)
    names = ("loss", "hard_loss", "soft_loss")
    evaluated = trainer.evaluate()
    assert [evaluated[f"eval_{name}"] for name in names] == pytest.approx([part.item() for part in expected], rel=1e-5)
    trainer.train()
    logged = next(log for log in trainer.state.log_history if "loss" in log)
    assert [logged[name] for name in names] == pytest.approx([part.item() for part in expected], rel=1e-5)


def test_parts_are_logged_per_item_over_steps_of_different_size(tmp_path):
    """A step with one labelled row that counts as much as a step with seven."""
    shape = "llama-lm"
    rows = make_rows(shape, 6)
    trainer = make_trainer(
        shape, tmp_path, rows=rows, per_device_train_batch_size=1, max_steps=6, logging_steps=6, learning_rate=0.0
    )
    trainer.train()
    expected = expected_loss(shape, rows)
    assert trainer.state.log_history[0]["hard_loss"] == pytest.approx(expected.hard.item(), rel=1e-5)
    assert trainer.state.log_history[0]["soft_loss"] == pytest.approx(expected.soft.item(), rel=1e-5)


def test_evaluation_in_between_leaves_the_training_logs_and_mode_alone(tmp_path):
    """A student that is trained in eval mode from its second epoch on (KD_Lib), or evaluation counted as training."""
    modes = []

    class WatchMode(TrainerCallback):
        def on_step_end(self, *args, model, **kwargs):
            modes.append(model.training)

    runs = {}
    for strategy in ("no", "steps"):
        shape = "bert-classifier"
        trainer = make_trainer(
            shape, tmp_path, eval_rows=make_rows(shape, 5), eval_strategy=strategy, eval_steps=1, max_steps=3,
            logging_steps=3,
        )  # fmt: skip
        trainer.add_callback(WatchMode())
        trainer.train()
        runs[strategy] = next(log for log in trainer.state.log_history if "loss" in log)
    names = ("loss", "hard_loss", "soft_loss")
    assert [runs["no"][name] for name in names] == [runs["steps"][name] for name in names]
    assert modes == [True] * 6


@pytest.mark.parametrize("shape", ["bert-classifier", "gpt2-lm"])
def test_label_smoothing_and_class_weights_are_honoured(shape, tmp_path):
    """label_smoothing_factor, which a custom compute_loss ignores without a word."""
    rows = make_rows(shape)
    weights = torch.linspace(0.5, 2.0, WORDS if is_language_model(shape) else LABELS)
    trainer = make_trainer(
        shape, tmp_path, rows=rows, label_smoothing_factor=0.2, class_weights=weights.tolist(), alpha=1.0
    )
    logits, labels = logits_of(make_model(shape), shape, rows)
    if is_language_model(shape):
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    summed = F.cross_entropy(logits, labels, weights, reduction="sum", label_smoothing=0.2)
    trainer.train()
    expected = (summed / (labels != -100).sum()).item()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_is_that_of_the_trainer(tmp_path):
    """Two meanings of one setting: Trainer's smoother, on the same model and rows, gives the same number."""
    shape = "bert-classifier"
    rows = make_rows(shape).filter(lambda row: row["labels"] >= 0)
    ours = make_trainer(shape, tmp_path, rows=rows, label_smoothing_factor=0.3, alpha=1.0)
    theirs = Trainer(
        make_model(shape), TrainingArguments(str(tmp_path), label_smoothing_factor=0.3, use_cpu=True, report_to="none"),
        eval_dataset=rows, data_collator=make_collator(shape),
    )  # fmt: skip
    assert ours.evaluate(rows)["eval_hard_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], rel=1e-5)


def test_the_side_of_the_padding_changes_no_step(tmp_path):
    """The first token of a text, predicted from the padding before it, and counted: 16 tokens more for 16 texts."""
    shape = "llama-lm"  # whose positions are relative: its logits do not know where a text begins
    whole = [row | {"labels": row["input_ids"]} for row in make_rows(shape).to_list()]
    ends = {}
    for side in ("left", "right"):
        collate = make_collator(shape, make_tokenizer(pad_side=side))
        assert (collate(whole)["attention_mask"][:, 0] == 0).any() == (side == "left")
        trainer = make_trainer(shape, tmp_path, rows=Dataset.from_list(whole), eval_rows=whole, collator=collate)
        trainer.train()
        ends[side] = (weights_of(trainer.model), trainer.state.log_history[0]["loss"], trainer.evaluate()["eval_loss"])
    (left, *left_losses), (right, *right_losses) = ends.values()
    assert left_losses == pytest.approx(right_losses, rel=1e-5)
    assert torch.allclose(left, right, atol=1e-5)


def test_a_tokenizer_that_pads_on_the_left_changes_no_step_of_gpt2(tmp_path):
    """Positions counted from the padding on: the losses were those of other texts."""
    left, right = (
        logged_loss(make_trainer("gpt2-lm", tmp_path, collator=TRAINERS_OWN, processing_class=tokenizer))
        for tokenizer in (make_tokenizer(pad_side="left"), make_tokenizer(pad_side="right"))
    )
    assert left == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("shape", ["bert-classifier", "gpt2-lm"])
def test_beta_is_that_of_the_formula(shape, tmp_path):
    """A beta that is taken and not used: the loss of 0.5."""
    rows = make_rows(shape)
    expected = expected_loss(shape, rows, divergence=partial(jensen_shannon, beta=0.1))
    trainer = make_trainer(shape, tmp_path, rows=rows, divergence="jensen_shannon", beta=0.1)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.total.item(), rel=1e-5)
    assert expected_loss(shape, rows, divergence="jensen_shannon").soft > 2 * expected.soft


def test_tokens_are_counted_after_the_shift():
    """GPT-2's 29 tokens for 25: the Trainer counts before the shift where it does not know the model's loss."""
    labels = torch.full((4, 9), -100)
    for row, length in enumerate((9, 8, 7, 5)):
        labels[row, :length] = 1
    assert count_items({"labels": labels}, is_shifted=True).tolist() == [25, 25]
    assert (labels != -100).sum() == 29


def test_the_students_own_loss_is_never_computed(tmp_path):
    """Labels that reach the student's forward: a second loss by other rules (MSE for one label, BCE for floats)."""
    seen = []
    student = make_model("bert-classifier")
    forward = student.forward
    student.forward = lambda **inputs: (seen.append(set(inputs)), forward(**inputs))[1]
    trainer = make_trainer("bert-classifier", tmp_path, student=student, remove_unused_columns=False)
    trainer.train()
    assert seen == [{"input_ids", "attention_mask"}]


@pytest.mark.parametrize("shape", ["gpt2-classifier", "llama-lm"])
def test_the_teacher_is_kept_apart(shape, tmp_path):
    """Dropout in the targets (torchdistill#333), a gradient into the teacher (KD_Lib), a teacher in the checkpoint."""
    teacher = make_model(shape, seed=1, dropout=0.5).train()
    before = copy.deepcopy(teacher.state_dict())
    trainer = make_trainer(shape, tmp_path, teacher=teacher, max_steps=2, save_strategy="steps", save_steps=2)
    teacher.train()  # as whoever holds it may do at any time
    trainer.train()
    quiet = make_trainer(shape, tmp_path, teacher=make_model(shape, seed=1), max_steps=2)
    assert torch.equal(weights_of(trainer.model), step_of(quiet))
    assert all(torch.equal(before[name], weight) for name, weight in teacher.state_dict().items())
    assert all(weight.grad is None for weight in teacher.parameters())
    again = SHAPES[shape][0].from_pretrained(tmp_path / "checkpoint-2")
    assert again.state_dict().keys() == make_model(shape).state_dict().keys()
    assert torch.equal(weights_of(again), weights_of(trainer.model))


def test_shared_weights_are_refused(tmp_path):
    """A student whose training moves, or whose freezing stops, its own teacher (trl#5862)."""
    model = make_model("bert-classifier")
    with pytest.raises(ValueError, match="share weights") as refused:
        make_trainer("bert-classifier", tmp_path, student=model, teacher=model)
    assert str(refused.value) == (
        "Student and teacher share weights: each step would change the teacher, and the teacher is frozen. Pass "
        "copy.deepcopy(model) as the teacher."
    )
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize(("name", "value"), [("hf_device_map", {"": "cpu"}), ("is_quantized", True)])
def test_a_teacher_that_is_placed_stays_there(name, value, tmp_path):
    """A teacher that is spread over devices or quantised, and that .to() would break."""

    class Placed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, name, value)

        def to(self, *args):
            raise AssertionError("moved")

        def forward(self, input_ids, attention_mask):
            return type("Output", (), {"logits": torch.zeros(len(input_ids), LABELS)})

    make_trainer("bert-classifier", tmp_path, teacher=Placed()).train()


# peft reads a property that transformers has renamed; both names mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("shape", ["bert-classifier", "gpt2-lm"])
def test_an_adapter_can_be_the_student(shape, tmp_path):
    """PEFT: a wrapped model whose columns, checkpoint or gradients go astray."""
    config = LoraConfig(
        task_type="CAUSAL_LM" if is_language_model(shape) else "SEQ_CLS",
        target_modules=["c_attn"] if "gpt2" in shape else ["query", "value"],
        fan_in_fan_out="gpt2" in shape,
    )
    student = get_peft_model(make_model(shape), config)
    before = {name: weight.clone() for name, weight in student.named_parameters()}
    trainer = make_trainer(shape, tmp_path, student=student, max_steps=2)
    trainer.train()
    changed = {name for name, weight in student.named_parameters() if not torch.equal(weight, before[name])}
    trainable = {name for name, weight in student.named_parameters() if weight.requires_grad}
    assert changed
    assert changed <= trainable
    assert any("lora" in name for name in changed)


def test_bfloat16_autocast_gives_nearly_the_same_step(tmp_path):
    """Softmax in 16 bits: the objective is computed in float32, whatever autocast makes of the models."""
    shape = "gpt2-lm"
    exact, rounded = make_trainer(shape, tmp_path), make_trainer(shape, tmp_path, bf16=True)
    exact.train()
    rounded.train()
    for name in ("loss", "hard_loss", "soft_loss"):
        assert rounded.state.log_history[0][name] == pytest.approx(exact.state.log_history[0][name], rel=0.03)


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_the_teachers_survives_the_removal_of_columns(keep, tmp_path):
    """teacher_logits dropped with an info log, or swallowed by the student's **kwargs (DistillKit#1)."""
    shape = "gpt2-classifier"
    rows = make_rows(shape)
    logits, _ = logits_of(make_model(shape, seed=1), shape, rows)
    cached = rows.add_column("teacher_logits", logits.tolist())
    online = step_of(make_trainer(shape, tmp_path, rows=rows))
    trainer = make_trainer(shape, tmp_path, rows=cached, remove_unused_columns=not keep)
    trainer.teacher = ColumnTeacher()
    assert torch.allclose(step_of(trainer), online, atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("k", [None, 5, WORDS])
def test_a_cached_language_model_is_the_model(side, k, tmp_path):
    """Cached tokens that land on padding, a fast path with another objective (trl#5731, #6629)."""
    shape = "llama-lm"
    tokenizer = make_tokenizer(pad_side=side)
    rows = make_rows(shape)
    teacher = make_model(shape, seed=1)
    cached = cache_logits(
        tmp_path / "cache", teacher, tokenizer, rows, k=k, temperature=k and 2.0, batch_size=4, rows_per_file=7
    )
    online = make_trainer(shape, tmp_path, rows=rows, teacher=teacher, collator=make_collator(shape, tokenizer))
    offline = make_trainer(
        shape, tmp_path, rows=cached.add_rows(rows), teacher=cached, collator=make_collator(shape, tokenizer)
    )
    same = torch.allclose(step_of(online), step_of(offline), atol=1e-6)
    assert same == (k != 5)  # five words of forty are less than the whole: another objective, and a smaller one
    soft = [trainer.state.log_history[0]["soft_loss"] for trainer in (offline, online)]
    assert soft[0] <= soft[1] + 1e-6


def test_a_cached_classifier_is_the_model(tmp_path):
    """Rows of the cache that go to other examples when the Trainer shuffles."""
    shape = "bert-classifier"
    rows, teacher = make_rows(shape), make_model(shape, seed=1)
    cached = cache_logits(tmp_path / "cache", teacher, make_tokenizer(), rows, rows_per_file=5)
    settings = {"per_device_train_batch_size": 4, "max_steps": 4}
    online = make_trainer(shape, tmp_path, rows=rows, teacher=teacher, **settings)
    offline = make_trainer(shape, tmp_path, rows=cached.add_rows(rows), teacher=cached, **settings)
    assert torch.allclose(step_of(online), step_of(offline), atol=1e-6)


@pytest.mark.parametrize("is_passed", [True, False])
def test_a_teacher_reads_its_own_tokenizer(is_passed, tmp_path):
    """The student's ids given to a teacher with another vocabulary: other words, or an index error; a sentence about
    excessive nesting, where the collator for two is not passed.
    """
    shape = "bert-classifier"
    ours, theirs = make_tokenizer(), make_tokenizer(words=60)
    teacher = make_model(shape, seed=1, vocab_size=60)
    rows = make_rows(shape).map(
        lambda row: {TEACHER_PREFIX + "input_ids": [index + 20 for index in row["input_ids"]] + [7],
                     TEACHER_PREFIX + "attention_mask": [*row["attention_mask"], 1]}
    )  # fmt: skip
    trainer = make_trainer(
        shape, tmp_path, rows=rows, teacher=teacher, collator=collator(ours, theirs) if is_passed else TRAINERS_OWN,
        processing_class=ours, teacher_processing_class=theirs,
    )  # fmt: skip
    trainer.train()
    seen = make_collator(shape)([{"input_ids": ids} for ids in rows[TEACHER_PREFIX + "input_ids"]])
    with torch.no_grad():
        answers = teacher(**seen).logits
    student, labels = logits_of(make_model(shape), shape, make_rows(shape))
    expected = distillation_loss(student, answers, labels, alpha=0.4, temperature=2.0)
    assert trainer.state.log_history[0]["soft_loss"] == pytest.approx(expected.soft.item(), rel=1e-5)


@pytest.mark.parametrize("size", [WORDS, WORDS + 20])
def test_a_teacher_that_would_read_other_words_is_refused(size, tmp_path):
    """Two tokenizers are passed, the teacher's columns are forgotten, and it answers other sentences, in silence; or
    two tokenizers that differ in a word which is in no row are refused.
    """
    shape, ours, rows = "bert-classifier", make_tokenizer(), make_rows("bert-classifier", rows=3)
    used = {index for row in rows["input_ids"] for index in row}
    one, (unused, another, *_) = min(used), sorted(set(range(3, WORDS)) - used)
    extra = {"collator": TRAINERS_OWN, "processing_class": ours, "rows": rows, "eval_rows": rows}
    teacher = make_model(shape, seed=1, vocab_size=size)

    def trainer(theirs):
        return make_trainer(shape, tmp_path, teacher=teacher, teacher_processing_class=theirs, **extra)

    misread = trainer(make_tokenizer(words=size, swap=(one, unused)))
    with pytest.raises(
        MismatchError, match=rf"id {one} is 'w{one}' to the student and 'w{unused}' to the teacher.*prefix='teacher"
    ):
        misread.train()
    found = misread.evaluate()  # of the student alone
    assert found["eval_hard_loss"] > 0 and "eval_soft_loss" not in found and "eval_loss" not in found
    assert misread.predict(rows).predictions.shape == (len(rows), 3)
    trainer(make_tokenizer(words=size, swap=(unused, another))).train()
    trainer(make_tokenizer(words=size + 1)).train()


@pytest.mark.parametrize("shape", ["bert-classifier", "gpt2-lm"])
def test_vocabularies_of_different_size_need_two_tokenizers(shape, tmp_path):
    """An id that is one word here and another there, found out at the first index error or never."""
    with pytest.raises(MismatchError, match=r"40 ids .* 60"):
        make_trainer(shape, tmp_path, teacher=make_model(shape, seed=1, vocab_size=60))


@pytest.mark.parametrize("wider", ["student", "teacher"])
def test_padded_vocabularies_are_cut_to_what_is_shared(wider, tmp_path):
    """151,936 against 152,064 (trl#2215, LMOps#286, torchtune#2119), or zeros where one model has no logits."""
    shape = "llama-lm"
    widths = {"student": WORDS, "teacher": WORDS} | {wider: WORDS + 8}
    student, teacher = (
        make_model(shape, seed=seed, vocab_size=widths[role]) for seed, role in enumerate(("student", "teacher"))
    )
    rows = make_rows(shape)
    trainer = make_trainer(
        shape, tmp_path, student=copy.deepcopy(student), teacher=teacher, rows=rows, processing_class=make_tokenizer(),
        teacher_processing_class=make_tokenizer(),
    )  # fmt: skip
    trainer.train()
    ours, labels = logits_of(student, shape, rows)
    theirs, _ = logits_of(teacher, shape, rows)
    expected = lm_distillation_loss(ours[..., :WORDS], theirs[..., :WORDS], labels, alpha=0.4, temperature=2.0)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.total.item(), rel=1e-5)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kept", [{}, {"k": WORDS + 8}, {"k": WORDS + 8, "sampled": True}, {"k": WORDS}, {"k": 20}])
def test_a_cached_teacher_with_padded_vocabulary_is_cut_to_what_is_shared(kept, fused, tmp_path):
    """A pair that learns with the model in the loop, and is refused with what the model has said."""
    shape, tokenizer, rows = "llama-lm", make_tokenizer(), make_rows("llama-lm")
    teacher = make_model(shape, seed=1, vocab_size=WORDS + 8)
    kept = kept | {"temperature": 2.0} if kept else kept
    cached = cache_logits(tmp_path / "cache", teacher, tokenizer, rows, **kept)
    taught = cached.add_rows(rows)

    def logs(teacher, evaluated):
        trainer = make_trainer(
            shape, tmp_path, student=make_model(shape, vocab_size=WORDS + 3), teacher=teacher, rows=taught,
            processing_class=tokenizer, teacher_processing_class=make_tokenizer(), eval_rows=evaluated, fused=fused,
        )  # fmt: skip
        trainer.train()
        evaluation = trainer.evaluate()
        return [trainer.state.log_history[0]["soft_loss"], evaluation["eval_hard_loss"], evaluation.get("eval_loss")]

    model, cache = logs(teacher, taught), logs(cached, taught)
    if kept.get("k", WORDS + 8) == WORDS + 8:
        assert cache == pytest.approx(model, rel=1e-4)
    else:  # what is merged into a rest is less to learn
        assert 0 < cache[0] < model[0]
    assert logs(cached, rows) == [cache[0], pytest.approx(cache[1]), None]
    with pytest.raises(MismatchError, match=r"given both tokenizers|vocabulary sizes"):
        make_trainer(
            shape, tmp_path, student=make_model(shape, vocab_size=WORDS + 3), teacher=cached, rows=taught, fused=fused
        ).train()


def test_a_text_keeps_its_end_where_padding_is_the_same_token():
    """pad == eos erases EOS from the labels (trl#6357, DataCollatorForLanguageModeling)."""
    tokenizer = make_tokenizer(pad_token="w1")
    batch = LanguageModelCollator(tokenizer)([{"input_ids": [5, 6, 7, 1]}, {"input_ids": [8, 1]}])
    assert batch["labels"].tolist() == [[5, 6, 7, 1], [8, 1, -100, -100]]
    prompt = LanguageModelCollator(tokenizer)([{"input_ids": [5, 6, 1], "labels": [-100, 6, 1]}])
    assert prompt["labels"].tolist() == [[-100, 6, 1]]


def test_gpt2_teachers_get_the_pad_token_that_the_trainer_gives_the_student_only(tmp_path):
    """batch > 1 raises for want of a pad id, on the teacher."""
    shape = "gpt2-classifier"
    teacher = make_model(shape, seed=1, pad_token_id=None)
    with pytest.raises(MismatchError, match=r"teacher .* no pad_token_id"):
        make_trainer(shape, tmp_path, teacher=teacher)
    make_trainer(shape, tmp_path, teacher=teacher, processing_class=make_tokenizer()).train()
    assert teacher.config.pad_token_id == 0


def test_tasks_with_other_rules_are_refused(tmp_path):
    """Logits of starts and ends of an answer, compared as if they were classes."""
    config = make_model("bert-classifier").config
    for teacher in (BertForQuestionAnswering(config), ColumnTeacher()):
        with pytest.raises(MismatchError, match=r"neither a classifier .* take token_distillation_loss"):
            make_trainer("bert-classifier", tmp_path, student=BertForQuestionAnswering(config), teacher=teacher)


def test_tasks_must_be_the_same(tmp_path):
    """A language model as the teacher of a classifier: logits of another kind."""
    with pytest.raises(MismatchError, match=r"is a classifier and the teacher .* a language model"):
        make_trainer("gpt2-classifier", tmp_path, teacher=make_model("gpt2-lm", seed=1))


def test_prediction_needs_neither_labels_nor_teacher(tmp_path):
    """A student that cannot be used on new text, because its loss has no labels or no teacher there."""
    shape = "bert-classifier"
    trainer = make_trainer(shape, tmp_path)
    new = make_rows(shape).remove_columns("labels")
    with_teacher = trainer.predict(new)
    expected, _ = logits_of(make_model(shape), shape, make_rows(shape))
    assert with_teacher.predictions == pytest.approx(expected.numpy(), rel=1e-4)
    assert "test_loss" not in with_teacher.metrics
    assert with_teacher.metrics["test_soft_loss"] > 0
    trainer.teacher = ColumnTeacher()
    assert not {"test_loss", "test_soft_loss", "test_hard_loss"} & trainer.predict(new).metrics.keys()
    labelled = trainer.evaluate(make_rows(shape))
    assert labelled["eval_hard_loss"] == pytest.approx(expected_loss(shape, make_rows(shape)).hard.item(), rel=1e-5)
    assert "eval_loss" not in labelled


@pytest.mark.parametrize("shape", LANGUAGE_MODELS)
def test_a_step_without_a_supervised_token_changes_nothing(shape, tmp_path):
    """NaN where a whole batch is masked (LMOps#38), a constant without a graph (torchtune)."""
    rows = make_rows(shape).map(lambda row: {"labels": [-100] * len(row["labels"])})
    trainer = make_trainer(shape, tmp_path, rows=rows)
    assert torch.equal(step_of(trainer), weights_of(make_model(shape)))
    assert trainer.state.log_history[0]["loss"] == 0


def test_padding_has_no_say(tmp_path):
    """Padding in the loss (Liger#974, #1478; trl#7024): one row that is much longer changes the others' padding."""
    shape = "gpt2-lm"
    rows = make_rows(shape)
    long = Dataset.from_dict({"input_ids": [[3] * 30], "attention_mask": [[1] * 30], "labels": [[-100] * 30]})
    alone = make_trainer(shape, tmp_path, rows=rows)
    beside = make_trainer(shape, tmp_path, rows=concatenate_datasets([rows, long]), per_device_train_batch_size=17)
    assert torch.allclose(step_of(alone), step_of(beside), atol=1e-6)
