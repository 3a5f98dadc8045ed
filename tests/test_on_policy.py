"""The student writes and the teacher judges: held to a loop by hand in float64, and to what it ought to write."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from objective_reference import lm_objective, log_softmax
from peft import LoraConfig, get_peft_model
from shapes import (
    TRAINERS_OWN,
    WORDS,
    make_collator,
    make_model,
    make_prompted_rows,
    make_tokenizer,
    make_trainer,
    weights_of,
)
from test_collators import ANSWER, QUESTION, SHORT, make_chat_tokenizer
from transformers import GPT2LMHeadModel, HfArgumentParser, TrainerCallback

from kdcourse import DistillationArguments, DistillationTrainer, MismatchError, OnPolicy
from kdcourse.on_policy import Writer, prompts_of, require_writer
from kdcourse.teacher import CachedTeacher

END = 1
ALPHA = 0.4
LONGEST = 6
SHAPES = ("gpt2-lm", "llama-lm")
DIVERGENCES = {
    "forward_kl": {"divergence": "forward_kl"},
    "reverse_kl": {"divergence": "reverse_kl"},
    "jensen_shannon": {"divergence": "jensen_shannon", "beta": 0.1},
}


@pytest.fixture(scope="module")
def rows():
    return make_prompted_rows()


def prompts_in(rows):
    """Nothing is asked of the package: a prompt is what has no label."""
    return [[i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100] for row in rows]


def make_writer_trainer(folder, rows, shape="gpt2-lm", *, side="right", pad_token="w0", share=1.0, **settings):
    tokenizer = make_tokenizer(pad_side=side, pad_token=pad_token)
    own = {name: settings.pop(name) for name in ("max_new_tokens", "top_k", "top_p") if name in settings}
    on_policy = OnPolicy(share=share, **{"max_new_tokens": LONGEST} | own)
    return make_trainer(
        shape, folder, rows=rows, collator=make_collator(shape, tokenizer), processing_class=tokenizer,
        **{"on_policy": on_policy, "alpha": ALPHA} | settings,
    )  # fmt: skip


def watch(trainer):
    """The batches that the trainer is going to learn from, as they come."""
    seen, compute_loss = [], trainer.compute_loss
    trainer.compute_loss = lambda model, inputs, *args, **kwargs: (
        seen.append({name: value.clone() for name, value in inputs.items()}),
        compute_loss(model, inputs, *args, **kwargs),
    )[1]
    return seen


class Gradients(TrainerCallback):
    """Those of each step, before the optimizer has them."""

    def __init__(self):
        self.of_steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.of_steps.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]).double())


def texts_in(batches):
    """The texts of batches, without padding, in the order of their rows."""
    return [
        text[mask.bool()].tolist()
        for batch in batches
        for text, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def labelled_in(batches):
    return [label[label != -100].tolist() for batch in batches for label in batch["labels"]]


def write_by_hand(student, prompts, *, step=0, seed=42, longest=LONGEST, temperature=1.0):
    """Row by row, without padding, without a cache, and by nobody's generate."""
    texts = []
    for row, prompt in enumerate(prompts, start=1):
        text = list(prompt)
        for point in np.random.default_rng((seed, step, row)).random(longest):
            with torch.no_grad():
                logits = student(torch.tensor([text])).logits[0, -1].double().numpy()
            line = np.exp(log_softmax(logits / temperature)).cumsum()
            text.append(int(np.searchsorted(line, point * line[-1], side="right")))
            if text[-1] == END:
                break
        texts.append(text)
    return texts


def judge_by_hand(student, teacher, prompts, texts, **objective):
    """The loss of one step on these texts and its gradient, in float64, by the formula."""
    student, teacher = copy.deepcopy(student).double().eval(), copy.deepcopy(teacher).double().eval()
    written = sum(map(len, texts)) - sum(map(len, prompts))
    loss = 0.0
    for prompt, text in zip(prompts, texts, strict=True):
        ids = torch.tensor([text])
        logits = student(ids).logits
        labels = np.array([[-100] * len(prompt) + text[len(prompt) :]])
        of_teacher = teacher(ids).logits.detach().numpy()
        soft = lm_objective(logits.detach().numpy(), of_teacher, labels, alpha=0, num_items=written, **objective).soft
        loss += soft.value
        logits.backward(torch.from_numpy(soft.gradient))
    return loss, torch.cat([weight.grad.flatten() for weight in student.parameters()])


# The step


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_is_that_of_the_loop_by_hand(shape, divergence, side, rows, tmp_path):
    """Prompts that teach, positions that count padding, a text that nobody would have written, a divergence that is
    tied to whose text it is, or a mean over the data's tokens.
    """
    student, teacher = make_model(shape), make_model(shape, seed=1, dropout=0.1)
    trainer = make_writer_trainer(
        tmp_path, rows, shape, side=side, student=copy.deepcopy(student), teacher=teacher, **DIVERGENCES[divergence]
    )
    batches, gradients = watch(trainer), Gradients()
    trainer.add_callback(gradients)
    trainer.train()
    order = [text[: len(text) - len(own)] for text, own in zip(texts_in(batches), labelled_in(batches), strict=True)]
    assert sorted(order) == sorted(prompts_in(rows))

    texts = write_by_hand(student, order)
    assert texts_in(batches) == texts
    loss, gradient = judge_by_hand(student, teacher, order, texts, temperature=2.0, **DIVERGENCES[divergence])
    logged = trainer.state.log_history[0]
    assert logged["soft_loss"] == pytest.approx(loss, rel=1e-5)
    assert logged["loss"] == pytest.approx((1 - ALPHA) * loss, rel=1e-5)
    assert "hard_loss" not in logged
    assert gradient.norm() > 0
    assert (gradients.of_steps[0] - (1 - ALPHA) * gradient).norm() / gradient.norm() < 1e-5


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 4), (1, 16), (5, 4)])
def test_a_step_is_the_same_however_it_is_cut(batch, accumulation, rows, tmp_path):
    """A count that is taken before anything is written, whose labels are the data's (TRL's GKDTrainer); random numbers
    that rows share; micro-batches of one step on text of two kinds.
    """
    whole = make_writer_trainer(tmp_path, rows, share=0.5, max_steps=6)
    cut = make_writer_trainer(
        tmp_path, rows, share=0.5, max_steps=6, per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    texts, of_pieces = watch(whole), watch(cut)
    whole.train()
    cut.train()
    assert texts_in(of_pieces) == texts_in(texts)
    step = (weights_of(whole.model) - weights_of(make_model("gpt2-lm"))).norm()
    assert (weights_of(whole.model) - weights_of(cut.model)).norm() / step < 1e-5
    kinds = ["hard_loss" in log for log in whole.state.log_history[:6]]
    assert set(kinds) == {True, False}
    for of_whole, of_cut in zip(whole.state.log_history[:6], cut.state.log_history[:6], strict=True):
        for name in ("loss", "soft_loss"):
            assert of_cut[name] == pytest.approx(of_whole[name], rel=1e-4)


def test_tokens_are_counted_after_they_are_written(rows, tmp_path):
    """TRL's GKDTrainer divides by the tokens of the data, which are other ones: every gradient is off by a factor."""
    trainer = make_writer_trainer(tmp_path, rows, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    counts, get_batch_samples = [], trainer.get_batch_samples

    def counted(*args):
        batches, count = get_batch_samples(*args)
        counts.append(count.tolist())
        return batches, count

    trainer.get_batch_samples = counted
    batches = watch(trainer)
    trainer.train()
    written = sum(map(len, labelled_in(batches)))
    of_the_data = sum(label != -100 for row in rows for label in row["labels"][1:])
    assert counts == [[0, written]]
    assert written != of_the_data


def test_no_share_changes_nothing(rows, tmp_path):
    """Random numbers that a draw has used up, a mode or a cache that stays, another loss on the data's text."""
    ends = []
    for number, on_policy in enumerate([None, OnPolicy(share=0.0)]):
        weights = []

        class Keep(TrainerCallback):
            def on_step_end(self, args, state, control, model=None, **_):
                weights.append(weights_of(model).clone())  # noqa: B023  (called before the next round)

        trainer = make_trainer(
            "gpt2-lm", tmp_path / str(number), student=make_model("gpt2-lm", dropout=0.1), rows=rows, max_steps=5,
            per_device_train_batch_size=4, gradient_accumulation_steps=2, on_policy=on_policy, optim="adamw_torch",
        )  # fmt: skip
        trainer.add_callback(Keep())
        trainer.train()
        logged = [
            {name: log.get(name) for name in ("loss", "hard_loss", "soft_loss")} for log in trainer.state.log_history
        ]
        ends.append((torch.stack(weights), logged))
    assert torch.equal(ends[0][0], ends[1][0])
    assert len(ends[0][0]) == 5
    assert ends[0][1] == ends[1][1]


def test_an_evaluation_is_on_the_data(rows, tmp_path):
    """A loss that cannot be compared over time, since each evaluation would be on another text."""
    losses = []
    for share in (0.0, 1.0):
        trainer = make_writer_trainer(tmp_path, rows, share=share, eval_rows=rows)
        losses.append([trainer.evaluate()[f"eval_{name}"] for name in ("loss", "hard_loss", "soft_loss")])
    assert losses[0] == losses[1]


def test_labels_have_no_part_in_a_step_of_its_own(rows, tmp_path):
    """What the student has written, taken for what is right: smoothed, weighted, and a share alpha of the step."""
    weights = []
    for settings in ({}, {"label_smoothing_factor": 0.5, "class_weights": [2.0] * WORDS}):
        trainer = make_writer_trainer(tmp_path, rows, **settings)
        trainer.train()
        weights.append(weights_of(trainer.model))
    assert torch.allclose(*weights, atol=1e-7)  # smoothed labels take another way to the same gradient


# What is drawn


def test_steps_are_drawn_by_their_number():
    """A draw that differs between processes, or after a checkpoint; one that comes too often."""
    settings = OnPolicy(share=0.3)
    drawn = [settings.is_drawn(7, step) for step in range(2000)]
    assert drawn == [settings.is_drawn(7, step) for step in range(2000)]
    assert abs(sum(drawn) - 600) < 5 * math.sqrt(2000 * 0.3 * 0.7)
    assert drawn != [settings.is_drawn(8, step) for step in range(2000)]
    assert not any(OnPolicy(share=0.0).is_drawn(7, step) for step in range(2000))
    assert all(OnPolicy(share=1.0).is_drawn(7, step) for step in range(2000))


def test_each_row_of_each_step_has_random_numbers_of_its_own(rows, tmp_path, monkeypatch):
    """The same text for a prompt in each micro-batch or epoch; a first token that tells whether its step was drawn:
    NumPy takes the keys (42, 3) and (42, 3, 0) for the same.
    """
    keys, write = [], Writer.write
    monkeypatch.setattr(
        Writer, "write", lambda self, batch, of_rows: (keys.extend(of_rows), write(self, batch, of_rows))[1]
    )
    make_writer_trainer(
        tmp_path, rows, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=3
    ).train()
    first = {np.random.default_rng(key).random() for key in keys}
    assert len(first) == 3 * 8
    assert not first & {np.random.default_rng((42, step)).random() for step in range(3)}


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.5}, {"temperature": 2.0, "top_k": 5}, {"top_p": 0.6}], ids=str
)
def test_tokens_come_as_often_as_they_are_likely(settings):
    """Sampling at another temperature, from the wrong tokens, or with the model's own defaults (trl#6337)."""
    student, draws = make_model("llama-lm"), 4000
    student.generation_config.update(top_p=0.1, repetition_penalty=5.0, do_sample=True, temperature=0.1)
    prompt = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        logits = student(prompt).logits[0, -1].double().numpy() / settings.get("temperature", 1.0)
    likely = np.exp(log_softmax(logits))
    order = np.argsort(-likely)
    kept = order[: settings.get("top_k", WORDS)]
    if "top_p" in settings:
        kept = order[: int((likely[order].cumsum() < settings["top_p"]).sum()) + 1]
    expected = np.zeros(WORDS)
    expected[kept] = likely[kept] / likely[kept].sum()

    writer = Writer(student, OnPolicy(max_new_tokens=1, **settings))
    written = writer.write({"input_ids": prompt.repeat(draws, 1)}, [(0, row) for row in range(draws)])
    seen = np.bincount(written["input_ids"][:, -1], minlength=WORDS) / draws
    assert (np.abs(seen - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws)).all()


def test_a_text_does_not_depend_on_the_rows_beside_it(rows):
    """Random numbers that rows share, so that a larger batch writes another text."""
    writer = Writer(make_model("gpt2-lm"), OnPolicy(max_new_tokens=LONGEST), make_tokenizer())
    batch = make_collator("gpt2-lm")(rows.to_list())
    together = writer.write(batch, [(3, row) for row in range(16)])
    alone = writer.write({name: column[7:8] for name, column in batch.items()}, [(3, 7)])
    assert texts_in([alone]) == texts_in([together])[7:8]


# Where a text ends


@pytest.mark.parametrize("pad_token", ["w0", "w1"])
def test_a_text_ends_with_its_end(pad_token, rows, tmp_path):
    """An end that has no label where padding is the same token, so that the student never learns to stop (trl#6357);
    padding behind it that has one, or is read.
    """
    student = make_model("gpt2-lm")
    student.lm_head.weight = torch.nn.Parameter(student.lm_head.weight.detach().clone())
    student.lm_head.weight.data[END] *= 4  # likely to be written, and not at once
    trainer = make_writer_trainer(tmp_path, rows, pad_token=pad_token, student=student, max_new_tokens=12)
    batches = watch(trainer)
    trainer.train()
    written = labelled_in(batches)
    ended = [END in text for text in written]
    assert 0 < sum(ended) < len(ended)
    assert len({len(text) for text in written}) > 2
    for text, has_ended in zip(written, ended, strict=True):
        assert text.count(END) == has_ended
        assert text[-1] == END if has_ended else len(text) == 12
    (batch,) = batches
    is_padding = batch["attention_mask"] == 0
    assert (batch["labels"][is_padding] == -100).all()
    assert sorted(text[: len(text) - len(own)] for text, own in zip(texts_in(batches), written, strict=True)) == sorted(
        prompts_in(rows)
    )


def test_any_of_a_models_ends_will_do():
    """A turn that ends by another token than a text, and is written on behind it (Llama 3)."""
    student = make_model("llama-lm")
    student.generation_config.eos_token_id = [30, 31]
    writer = Writer(student, OnPolicy(), make_tokenizer())
    assert writer.ends == [30, 31, 1]
    student.generation_config.eos_token_id = None
    assert Writer(student, OnPolicy()).ends == []
    assert (
        len(
            labelled_in(
                [Writer(student, OnPolicy(max_new_tokens=4)).write({"input_ids": torch.tensor([[5]])}, [(1,)])]
            )[0]
        )
        == 4
    )


# What is a prompt


def test_a_prompt_is_what_stands_before_the_first_label():
    """A prompt that ends in its answer, padding that is read, or a pad token inside a prompt that is not."""
    batch = {
        "input_ids": torch.tensor([[0, 0, 5, 0, 7, 8], [4, 0, 6, 7, 8, 0], [3, 4, 0, 0, 0, 0]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]]),
        "labels": torch.tensor(
            [[-100, -100, -100, -100, 7, 8], [-100, -100, 6, -100, 8, -100], [-100] * 6]
        ),
    }  # fmt: skip
    assert [prompt.tolist() for prompt in prompts_of(batch)] == [[5, 0], [4, 0], [3, 4]]
    assert [prompt.tolist() for prompt in prompts_of({"input_ids": torch.tensor([[5, 6]])})] == [[5, 6]]


ASKED = [3, 30, 31, 5, 4]
"""The question, written out up to where an answer begins."""


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"messages": [QUESTION, ANSWER]}, ASKED),
        ({"messages": [QUESTION, SHORT, QUESTION, ANSWER]}, [*ASKED, 35, 5, *ASKED]),
        ({"prompt": [QUESTION]}, ASKED),
        ({"prompt": [QUESTION], "completion": [ANSWER]}, ASKED),
        ({"prompt": "w30 w31"}, [30, 31]),
        ({"prompt": "w30 w31", "completion": "w32"}, [30, 31]),
    ],
    ids=["messages", "two questions", "asked", "asked and answered", "text", "text and completion"],
)
def test_conversations_and_prompts_reach_the_student(row, prompt, tmp_path):
    """A column that the Trainer drops; a student that goes on as the user, or after the data's answer."""
    trainer = make_trainer(
        "llama-lm", tmp_path, rows=Dataset.from_list([row] * 4), collator=TRAINERS_OWN,
        processing_class=make_chat_tokenizer(), on_policy=OnPolicy(share=1.0, max_new_tokens=3),
    )  # fmt: skip
    batches = watch(trainer)
    trainer.train()
    assert len(texts_in(batches)) == 4
    for text, own in zip(texts_in(batches), labelled_in(batches), strict=True):
        assert text == prompt + own
        assert 1 <= len(own) <= 3


def test_a_prompt_and_its_completion_are_the_data():
    """A completion without an end, or a prompt that is learned."""
    batch = make_collator("gpt2-lm")([{"prompt": "w30 w31", "completion": "w32"}, {"prompt": "w33"}])
    assert batch["input_ids"].tolist() == [[30, 31, 32, 1], [33, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 32, 1], [-100] * 4]
    with pytest.raises(TypeError, match="prompt is a str and the completion a list"):
        make_collator("gpt2-lm")([{"prompt": "w30", "completion": [ANSWER]}])


# How the student is while it writes


class Call:
    """What a forward pass of the student was like."""

    def __init__(self, module, kwargs):
        self.is_training = {part.training for part in module.modules()}
        self.learns = torch.is_grad_enabled()
        self.rows, self.tokens = kwargs["input_ids"].shape
        self.cache = kwargs.get("past_key_values")


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # still the name that people use
def test_a_cache_is_for_writing_and_not_for_training(rows, tmp_path):
    """Dropout while it writes, none afterwards; a prompt that is read anew for each token since activations are
    recomputed (TRL's GKDTrainer gives the cache up); keys and values that are kept in a training step.
    """
    student = make_model("llama-lm", dropout=0.1)
    trainer = make_writer_trainer(
        tmp_path, rows, "llama-lm", student=student, gradient_checkpointing=True, share=1.0, max_steps=2
    )
    calls = []
    trainer.model.register_forward_pre_hook(
        lambda module, _, kwargs: calls.append(Call(module, kwargs)), with_kwargs=True
    )
    trainer.train()
    writing, training = ([call for call in calls if call.learns is learns] for learns in (False, True))
    assert all(call.is_training == {False} for call in writing)
    writing = [call for call in writing if call.rows == 16]  # others try what a single prompt does
    assert all(call.is_training == {True} for call in training)
    assert len(writing) == 2 * LONGEST
    assert [call.tokens == 1 for call in writing] == 2 * [False, *[True] * (LONGEST - 1)]
    assert all(call.cache is not None for call in writing)
    assert all(call.cache is None for call in training)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
def test_the_student_is_left_as_it_was(rows):
    """A frozen part in train mode, generation settings that are gone, an adapter that loses its own."""
    student = get_peft_model(make_model("llama-lm", dropout=0.1), LoraConfig(task_type="CAUSAL_LM", r=2)).train()
    student.base_model.model.model.layers[0].eval()
    modes = {name: module.training for name, module in student.named_modules()}
    settings = student.generation_config, student.base_model.model.generation_config
    state = torch.get_rng_state()
    written = Writer(student, OnPolicy(max_new_tokens=3)).write(
        {"input_ids": torch.tensor([[5, 6], [7, 8]])}, [(0, 1), (0, 2)]
    )
    assert written["input_ids"].shape == (2, 5)
    assert {name: module.training for name, module in student.named_modules()} == modes
    assert student.generation_config is settings[0]
    assert student.base_model.model.generation_config is settings[1]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
def test_an_adapter_writes(rows, tmp_path):
    """The text of the model beneath the adapter."""
    student = get_peft_model(make_model("llama-lm"), LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights=False))
    trainer = make_writer_trainer(tmp_path, rows, "llama-lm", student=copy.deepcopy(student))
    batches = watch(trainer)
    trainer.train()
    order = [text[: len(text) - len(own)] for text, own in zip(texts_in(batches), labelled_in(batches), strict=True)]
    assert texts_in(batches) == write_by_hand(student.eval(), order)
    with student.disable_adapter():
        assert texts_in(batches) != write_by_hand(student, order)


class BlindToMasks(GPT2LMHeadModel):
    """Reads padding as words, as a model with a state for the whole text does."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, **kwargs):
        return super().forward(input_ids=input_ids, **kwargs)


def test_a_model_that_reads_padding_is_given_none(rows, tmp_path):
    """Short prompts that are continued as if something stood before them."""
    student = BlindToMasks(make_model("gpt2-lm").config)
    student.load_state_dict(make_model("gpt2-lm").state_dict())
    trainer = make_writer_trainer(tmp_path, rows, student=copy.deepcopy(student))
    batches = watch(trainer)
    trainer.train()
    order = [text[: len(text) - len(own)] for text, own in zip(texts_in(batches), labelled_in(batches), strict=True)]
    assert texts_in(batches) == write_by_hand(student, order)


def test_ids_that_the_teacher_lacks_are_not_written(rows, tmp_path):
    """A student whose padded vocabulary is larger writes an id, and the teacher's look-up ends the process."""
    student = make_model("llama-lm", vocab_size=WORDS + 24)
    student.lm_head.weight.data[WORDS:] *= 3  # which it would like to write
    tokenizer = make_tokenizer()
    trainer = make_trainer(
        "llama-lm", tmp_path, student=student, rows=rows, on_policy=OnPolicy(share=1.0, max_new_tokens=LONGEST),
        processing_class=tokenizer, teacher_processing_class=tokenizer,
    )  # fmt: skip
    batches = watch(trainer)
    trainer.train()
    assert max(map(max, texts_in(batches))) < WORDS


# What is refused, and how settings are given


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"share": 1.5}, "share is 1.5, but it is a share of the steps"),
        ({"share": -0.1}, "share is -0.1"),
        ({"share": math.nan}, "share is nan"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0, but it counts tokens"),
        ({"max_new_tokens": 8.0}, "max_new_tokens is 8.0"),
        ({"temperature": 0.0}, "temperature is 0.0.* top_k=1"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": 0}, "top_k is 0, .*None is for all"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    """A share of 50 for 50%, or TRL's top_k=0."""
    with pytest.raises(ValueError, match=words):
        OnPolicy(**settings)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (0.5, TypeError, r"pass kdcourse.OnPolicy\(share=0.5\)"),
        ("half", ValueError, "as a text, it is JSON"),
        ({"lmbda": 0.5}, ValueError, "on_policy has no 'lmbda'; it has share"),
    ],
    ids=str,
)
def test_other_forms_are_refused(given, error, words, tmp_path):
    """A number that is taken for something else, or a name that is left out in silence."""
    with pytest.raises(error, match=words):
        DistillationArguments(str(tmp_path), on_policy=given)


def test_labels_alone_do_not_teach_on_its_own_text(tmp_path):
    """Steps that cost a generation, and whose gradient is 0."""
    with pytest.raises(ValueError, match="alpha is 1, so that only labels teach"):
        DistillationArguments(str(tmp_path), alpha=1.0, on_policy=OnPolicy())
    assert DistillationArguments(str(tmp_path), alpha=1.0, on_policy=OnPolicy(share=0.0)).alpha == 1


def test_settings_travel(tmp_path):
    """Arguments that cannot be logged, saved, or given on a command line."""
    expected = OnPolicy(share=0.25, max_new_tokens=9, top_k=3)
    arguments = DistillationArguments(str(tmp_path), on_policy=expected)
    kept = json.loads(arguments.to_json_string())["on_policy"]
    assert kept == {"share": 0.25, "max_new_tokens": 9, "temperature": 1.0, "top_k": 3, "top_p": None}
    assert DistillationArguments(str(tmp_path), on_policy=kept).on_policy == expected
    assert json.loads(DistillationArguments(str(tmp_path)).to_json_string())["on_policy"] is None
    (parsed,) = HfArgumentParser(DistillationArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--on_policy", json.dumps(kept)]
    )
    assert parsed.on_policy == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": "gpt2-classifier"}, r"the student \(GPT2ForSequenceClassification\) writes no text"),
        ({"teacher": CachedTeacher(None)}, "the teacher is a CachedTeacher: answers that were computed before"),
    ],
    ids=["classifier", "cache"],
)
def test_who_cannot_write_or_judge_is_refused(change, words, tmp_path):
    """A cache that is asked about a text that nobody had scored: it answers for another."""
    shape = change.pop("shape", "gpt2-lm")
    with pytest.raises(MismatchError, match=words):
        make_trainer(shape, tmp_path, on_policy=OnPolicy(), **change)
    assert make_trainer(shape, tmp_path, on_policy=OnPolicy(share=0.0), **change)


def test_weights_in_pieces_are_refused():
    """Processes that wait for each other, since one has written its text and the other has not."""
    with pytest.raises(MismatchError, match="FSDP keeps the student's weights in pieces"):
        require_writer(OnPolicy(), make_model("gpt2-lm"), make_model("gpt2-lm"), "language model", "FSDP")


def test_a_teacher_in_columns_is_refused(rows, tmp_path):
    """The answers of the examples, which are for the data's text."""
    arguments = DistillationArguments(str(tmp_path), on_policy=OnPolicy(), report_to="none")
    with pytest.raises(MismatchError, match="there is no teacher model"):
        DistillationTrainer(make_model("gpt2-lm"), arguments, train_dataset=rows)


def test_a_model_that_reads_and_writes_apart_is_refused(tmp_path):
    """An encoder-decoder, whose prompt and answer are in two places."""
    from transformers import T5Config, T5ForConditionalGeneration

    small = T5Config(vocab_size=WORDS, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2)
    arguments = DistillationArguments(str(tmp_path), on_policy=OnPolicy(), report_to="none")
    with pytest.raises(MismatchError, match=r"the student \(T5ForConditionalGeneration\) writes no text"):
        DistillationTrainer(T5ForConditionalGeneration(small), arguments, teacher=T5ForConditionalGeneration(small))


@pytest.mark.parametrize("short", ["student", "teacher"])
def test_a_text_has_room(short, rows, tmp_path):
    """A look-up beyond the table of positions, which on a GPU ends the process; the teacher's may be shorter."""
    models = {"student": make_model("gpt2-lm"), "teacher": make_model("gpt2-lm", seed=1)}
    models[short] = make_model("gpt2-lm", n_positions=16)
    longest = max(map(len, prompts_in(rows)))
    trainer = make_writer_trainer(tmp_path, rows, max_new_tokens=17 - longest, **models)
    with pytest.raises(
        MismatchError, match=rf"the {short} \(GPT2LMHeadModel\) has 16 positions; .*write {16 - longest} "
    ):
        trainer.train()
    make_writer_trainer(tmp_path, rows, max_new_tokens=16 - longest, **models).train()


def test_rows_that_leave_nothing_to_write_are_refused(rows, tmp_path):
    """A text that is continued from padding, or a data's step that teaches nothing."""
    unprompted = Dataset.from_list([{"input_ids": [5, 6, 7]}] * 4)
    with pytest.raises(ValueError, match="Row 0 of a batch has no prompt"):
        make_writer_trainer(tmp_path, unprompted).train()
    prompts = Dataset.from_list([{"prompt": "w5 w6"}] * 16)
    with pytest.raises(ValueError, match=r"share=0.5, so that this step is on the data's text"):
        make_writer_trainer(tmp_path, prompts, share=0.5, max_steps=20).train()


def test_columns_of_the_data_are_refused(rows, tmp_path):
    """Positions, token types or a teacher's ids of the data's text, beside another text."""
    wide = rows.add_column("token_type_ids", [[0] * len(row["input_ids"]) for row in rows])
    with pytest.raises(MismatchError, match="The batch brings token_type_ids"):
        make_writer_trainer(tmp_path, wide).train()
