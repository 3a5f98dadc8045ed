"""Settings of the Trainer that change how a step is computed: its value is held to the same step in float64."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from settings.by_hand import distance, losses, step
from shapes import make_collator, make_model, make_rows, make_trainer, weights_of

from kdcourse.columns import unwrapped
from kdcourse.teacher import ColumnTeacher, add_logits

SHAPES = ["bert-classifier", "gpt2-lm", "llama-lm"]
EXACT = 5e-5
"""Of the length of a step: float32 rounds its sums."""

EXACTLY_THE_SAME_STEP = {
    "nothing": {},
    "checkpointing": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "reentrant checkpointing": {
        "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True},
    },
    "pieces by length": {
        "train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 6,
    },
    "pieces not averaged over devices": {
        "average_tokens_across_devices": False, "per_device_train_batch_size": 5, "gradient_accumulation_steps": 4,
    },
    "a worker": {"dataloader_num_workers": 1},
    "tokens counted": {"include_num_input_tokens_seen": "all"},
    "emptied cache": {"torch_empty_cache_steps": 1},
    "last batch dropped": {"dataloader_drop_last": True},
    "names of labels": {"label_names": ["labels"]},
    "another order": {"data_seed": 3},
    "whole logits": {"fused": False},
}  # fmt: skip


@pytest.fixture(scope="module", params=SHAPES)
def expected(request):
    """A shape, and its step by hand: losses and weights."""
    return request.param, *step(request.param, make_rows(request.param))


def run(shape, folder, **settings):
    """What the first step logs, and the weights after it."""
    trainer = make_trainer(shape, folder, **settings)
    trainer.train()
    return trainer.state.log_history[0], weights_of(unwrapped(trainer.model))


def require_losses(log, by_hand, **tolerance):
    for name, value in zip(("loss", "hard_loss", "soft_loss"), by_hand, strict=True):
        assert log[name] == pytest.approx(value.item(), **tolerance), name


def start_of(shape):
    return weights_of(make_model(shape)).double()


# transformers has renamed the setting to activation_checkpointing; both mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("setting", EXACTLY_THE_SAME_STEP)
def test_the_step_is_that_of_the_formula(expected, setting, tmp_path):
    """A setting that is for speed or memory and moves the loss, or hides the student from the trainer."""
    shape, by_hand, weights = expected
    log, got = run(shape, tmp_path, **EXACTLY_THE_SAME_STEP[setting])
    require_losses(log, by_hand, rel=1e-5)
    assert distance(got, weights, start_of(shape)) < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_student_makes_the_same_step(expected, backend, tmp_path, monkeypatch):
    """The wrapper of `torch.compile` has its own signature: columns, task and vocabulary are the inner model's."""
    # The arguments set this variable and leave it: each later trainer, and each process it starts, would compile, too.
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", backend)
    shape, by_hand, weights = expected
    torch.compiler.reset()
    log, got = run(shape, tmp_path, torch_compile=True, torch_compile_backend=backend)
    require_losses(log, by_hand, rel=1e-5)
    assert distance(got, weights, start_of(shape)) < EXACT


def test_autocast_leaves_the_objective_in_float32(expected, tmp_path):
    """Softmax in 16 bits, of student or teacher: the models round (2^-8), the objective does not."""
    shape, by_hand, weights = expected
    log, got = run(shape, tmp_path, bf16=True)
    require_losses(log, by_hand, rel=2e-3, abs=1e-3)
    assert distance(got, weights, start_of(shape)) < 0.05


def test_models_in_bfloat16_are_compared_in_float32(expected, tmp_path):
    """A loss that is rounded to 8 bits because the logits are: 2.0 where 2.0012 is right."""
    shape, *_ = expected
    student, teacher = (make_model(shape, seed=seed).to(torch.bfloat16) for seed in (0, 1))
    by_hand, _ = step(shape, make_rows(shape), student=student, teacher=teacher)
    log, _ = run(shape, tmp_path, student=student, teacher=teacher)
    require_losses(log, by_hand, rel=2e-3, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_counts_nothing(dtype, tmp_path):
    """Rows that are counted in bfloat16, which has no 301: a loss was divided by 300 or 302."""
    shape = "bert-classifier"
    rows = make_rows(shape, 301)
    by_hand, _ = step(shape, rows)
    student, teacher = make_model(shape), make_model(shape, seed=1)
    torch.set_default_dtype(dtype)
    try:
        log, _ = run(
            shape, tmp_path, student=student, teacher=teacher, rows=rows, per_device_train_batch_size=10,
            gradient_accumulation_steps=31,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in (("hard_loss", by_hand.hard), ("soft_loss", by_hand.soft)):
        assert log[name] == pytest.approx(value.item(), rel=1e-5)


# peft reads a property that transformers has renamed; both names mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("shape", SHAPES)
def test_an_adapter_makes_the_step_of_its_weights(shape, tmp_path):
    """LoRA: only what is trained moves, by its gradient in float64, and the loss is that of the whole model."""
    task = "SEQ_CLS" if shape == "bert-classifier" else "CAUSAL_LM"

    def adapted():
        torch.manual_seed(5)
        targets = ["c_attn"] if shape == "gpt2-lm" else "all-linear"
        fan_in = shape == "gpt2-lm"
        config = LoraConfig(task_type=task, r=2, target_modules=targets, fan_in_fan_out=fan_in, init_lora_weights=False)
        return get_peft_model(make_model(shape), config)

    by_hand, weights = step(shape, make_rows(shape), student=adapted())
    start = adapted()
    student = adapted()
    log, _ = run(shape, tmp_path, student=student)
    require_losses(log, by_hand, rel=1e-5)
    assert distance(weights_of(student), weights, weights_of(start).double()) < EXACT
    frozen = [name for name, weight in start.named_parameters() if not weight.requires_grad]
    before, after = dict(start.named_parameters()), dict(student.named_parameters())
    assert frozen
    assert all(torch.equal(before[name], after[name]) for name in frozen)


def teachers_logits(shape, rows):
    batch = make_collator(shape)(list(rows))
    with torch.no_grad():
        return make_model(shape, seed=1).eval()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits


@pytest.mark.parametrize("names_known", [True, False])
def test_rows_that_stream_make_the_same_step(expected, names_known, tmp_path):
    """A stream that was mapped does not know its columns: text reaches the student, or the teacher's columns vanish."""
    shape, by_hand, weights = expected
    stream = make_rows(shape).add_column("text", ["not a number"] * 16).to_iterable_dataset()
    stream = stream if names_known else stream.map(lambda row: row)
    assert (stream.column_names is None) is not names_known
    log, got = run(shape, tmp_path, rows=stream)
    require_losses(log, by_hand, rel=1e-5)
    assert distance(got, weights, start_of(shape)) < EXACT


def test_the_teachers_logits_stream(tmp_path):
    """`teacher_logits` dropped from a stream whose columns have no names yet."""
    shape = "bert-classifier"
    rows = make_rows(shape)
    stream = add_logits(rows, teachers_logits(shape, rows)).to_iterable_dataset().map(lambda row: row)
    log, _ = run(shape, tmp_path, rows=stream, teacher=ColumnTeacher())
    require_losses(log, step(shape, rows)[0], rel=1e-5)


def test_clipping_shortens_the_step_and_nothing_else(expected, tmp_path):
    """A gradient that is clipped before it is summed, or clipped by a norm of another step."""
    shape, by_hand, weights = expected
    log, got = run(shape, tmp_path, max_grad_norm=0.01)
    start = start_of(shape)
    gradient = (start - weights).norm() / 0.1
    assert log["grad_norm"] == pytest.approx(gradient.item(), rel=1e-4)
    assert distance(got, start + (weights - start) * 0.01 / gradient, start) < 1e-3
    require_losses(log, by_hand, rel=1e-5)


def test_noise_is_the_students_alone(tmp_path):
    """NEFTune: noise that reaches the teacher, or an evaluation, which then measures it."""
    shape = "gpt2-lm"
    rows = make_rows(shape)
    trainer = make_trainer(shape, tmp_path, neftune_noise_alpha=20.0, eval_rows=rows, learning_rate=0.0)
    trainer.train()
    by_hand = losses(shape, rows, make_model(shape), make_model(shape, seed=1))
    assert trainer.state.log_history[0]["loss"] != pytest.approx(by_hand.total.item(), rel=1e-3)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(by_hand.total.item(), rel=1e-5)


@pytest.mark.slow
def test_a_batch_size_that_did_not_fit_leaves_nothing_in_the_logs(tmp_path, monkeypatch):
    """`auto_find_batch_size`: rows of the attempt that ran out of memory were counted with those of the next."""
    shape = "bert-classifier"
    rows = make_rows(shape)
    trainer = make_trainer(shape, tmp_path, rows=rows, auto_find_batch_size=True, gradient_accumulation_steps=2)
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = 16
    ask = trainer._ask_student

    def out_of_memory_above_eight(model, inputs, **options):
        if len(inputs["labels"]) > 8:
            raise RuntimeError("CUDA out of memory.")
        return ask(model, inputs, **options)

    monkeypatch.setattr(trainer, "_ask_student", out_of_memory_above_eight)
    trainer.train()
    require_losses(trainer.state.log_history[0], step(shape, rows)[0], rel=1e-5)
