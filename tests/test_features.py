"""Layers that learn from layers: the loss and its gradient by hand, however a step is cut, killed, padded or spread."""

import copy
import json
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from shapes import (
    make_collator,
    make_model,
    make_prompted_rows,
    make_rows,
    make_tokenizer,
    make_trainer,
    weights_of,
)
from torch import nn
from transformers import BertForSequenceClassification, ViTConfig, ViTForImageClassification

from kdcourse import DistillationArguments, DistillationTrainer, Feature, MismatchError, OnPolicy
from kdcourse.checkpoints import CheckpointError
from kdcourse.features import PROJECTIONS
from kdcourse.teacher import ModelTeacher, cache_logits

PIXELS = 8


class Mlp(nn.Module):
    """A classifier of pictures with nothing of transformers in it."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 4, stride=4), nn.Tanh())
        self.pooled = nn.Linear(4 * width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, pixel_values):
        return self.head(self.pooled(self.body(pixel_values).flatten(1)).tanh())


def mlp(seed, width=6):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Mlp(width)


def vit(seed, width=16):
    config = ViTConfig(
        image_size=PIXELS, patch_size=4, hidden_size=width, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ViTForImageClassification(config)


def bert(seed, width=16, **changes):
    model = make_model("bert-classifier", seed=seed, hidden_size=width, **changes)
    model.set_attn_implementation("eager")
    return model


def gpt2(seed, width=16):
    return make_model("gpt2-lm", seed=seed, n_embd=width)


def pictures(rows=16):
    random = torch.Generator().manual_seed(0)
    return [
        {"pixel_values": torch.rand(3, PIXELS, PIXELS, generator=random), "labels": row % 3 if row % 4 else -100}
        for row in range(rows)
    ]


def stacked(rows):
    pixels, labels = [row["pixel_values"] for row in rows], [row["labels"] for row in rows]
    return {"pixel_values": torch.stack(pixels), "labels": torch.tensor(labels)}


KINDS = {
    "pictures": (pictures, stacked),
    "texts": (lambda: make_rows("bert-classifier"), make_collator("bert-classifier")),
    "language": (lambda: make_rows("gpt2-lm"), make_collator("gpt2-lm")),
}

PATCHES = [Feature("vit.layers.0", "hidden_states.2"), Feature("hidden_states.1", "hidden_states.1", "cosine")]
WIDER = [
    Feature("bert.encoder.layer.0", "bert.encoder.layer.1", weight=0.5),
    Feature("hidden_states.2", "hidden_states.2", "cosine"),
]
EQUAL = [
    Feature("hidden_states.0", "hidden_states.0"),
    Feature("hidden_states.1", "hidden_states.2", projection="always"),
]
LOOKS = [Feature("attentions.1", "attentions.0", "attention"), Feature("bert.pooler", "bert.pooler")]
TOKENS = [
    Feature("hidden_states.1", "transformer.h.1"),
    Feature("transformer.h.0", "transformer.h.0", "cosine"),
]

CASES = {
    "mlp, pooled vectors of two widths": (mlp, 10, "pictures", [Feature("pooled", "pooled")]),
    "mlp, pixels of a convolution": (mlp, 10, "pictures", [Feature("body.1", "body.1", "cosine", weight=3)]),
    "vit, patches": (vit, 24, "pictures", PATCHES),
    "vit, attention": (vit, 24, "pictures", [Feature("attentions.0", "attentions.1", "attention", weight=10)]),
    "bert, of other width": (bert, 24, "texts", WIDER),
    "bert, of one width": (bert, 16, "texts", EQUAL),
    "bert, attention and pooled": (bert, 24, "texts", LOOKS),
    "gpt2, tokens": (gpt2, 24, "language", TOKENS),
}


def models_of(name, dtype=torch.float32):
    make, width, *_ = CASES[name]
    return make(0).to(dtype), make(1, width).to(dtype)


def trainer_of(name, folder, *, features=None, models=None, **settings):
    _, _, kind, pairs = CASES[name]
    rows, collate = KINDS[kind]
    student, teacher = models or models_of(name)
    defaults = {
        "max_steps": 1, "per_device_train_batch_size": 16, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0,
        "logging_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True,
        "alpha": 0.4, "temperature": 2.0, "lr_scheduler_type": "constant", "remove_unused_columns": kind != "pictures",
    }  # fmt: skip
    rows = settings.pop("rows", None) or rows()
    return DistillationTrainer(
        student,
        DistillationArguments(str(folder), **defaults | settings),
        teacher=teacher,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=collate,
        features=pairs if features is None else features,
    )


def everything(trainer):
    """What a training changes: the student's weights, and the projections'."""
    return torch.cat([weights_of(trainer.accelerator.unwrap_model(trainer.model)), *(
        weight.detach().flatten() for weight in trainer.features.projections.parameters()
    )])  # fmt: skip


def batch_of(name, dtype, rows=16):
    make, collate = KINDS[CASES[name][2]]
    collated = collate([dict(row) for row in make()][:rows])
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in collated.items()}


# The reference: what a layer gives is fetched in another way than by hooks, and summed number by number.


def layer(model, name, batch):
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    if isinstance(model, Mlp):
        features = model.body(inputs["pixel_values"])
        return features.flatten(2).transpose(1, 2) if name == "body.1" else model.pooled(features.flatten(1))[:, None]
    number = int(name[-1]) if name[-1].isdigit() else -1
    if name.startswith("attentions"):
        return model(**inputs, output_attentions=True).attentions[number]
    if name == "transformer.h.1":  # the last of GPT-2's hidden states has been through a layer norm, the block's not
        caught = []
        handle = model.transformer.ln_f.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
        model(**inputs)
        handle.remove()
        return caught[0]
    states = model(**inputs, output_hidden_states=True).hidden_states
    if name == "bert.pooler":
        return model.bert.pooler(states[-1])[:, None]
    return states[number if name.startswith("hidden_states") else number + 1]


def distance(loss, student, teacher):
    width = len(student)
    if loss == "mse":
        return sum((student[i] - teacher[i]) ** 2 for i in range(width)) / width
    dot = sum(student[i] * teacher[i] for i in range(width))
    lengths = sum(student[i] ** 2 for i in range(width)) * sum(teacher[i] ** 2 for i in range(width))
    return 1 - dot / lengths.sqrt()


def by_hand(pair, student, teacher, batch, projection):
    """A feature's loss on a whole step."""
    ours, theirs = layer(student, pair.student, batch), layer(teacher, pair.teacher, batch).detach()
    mask = batch.get("attention_mask")
    terms = []
    for row in range(len(ours)):
        real = list(range(ours.shape[-2]))
        if mask is not None and ours.shape[-2] == mask.shape[1]:
            real = [token for token in real if mask[row, token]]
        of_row = []
        for place in real:
            if pair.loss == "attention":
                heads = range(ours.shape[1])
                errors = [(ours[row, h, place, key] - theirs[row, h, place, key]) ** 2 for h in heads for key in real]
                of_row.append(sum(errors) / len(errors))
            else:
                vector = ours[row, place]
                if projection is not None:
                    vector = projection.weight @ vector + projection.bias
                of_row.append(distance(pair.loss, vector, theirs[row, place]))
        terms += of_row if mask is not None and ours.shape[-2] == mask.shape[1] else [sum(of_row) / len(of_row)]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_the_formulas(name, tmp_path):
    """Padding that counts, a mean of means, a hook on another layer, a projection that does not learn."""
    student, teacher = models_of(name, torch.float64)
    batch = batch_of(name, torch.float64, 4)
    pairs = CASES[name][3]
    trainer = trainer_of(name, tmp_path, models=(student, teacher))
    plain = trainer_of(name, tmp_path, models=(student, teacher), features=[])
    trainer.model.eval(), teacher.eval()
    _, counts = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    total = trainer.compute_loss(trainer.model, batch, num_items_in_batch=counts)
    without = plain.compute_loss(trainer.model, batch, num_items_in_batch=counts[:2])
    projections = trainer.features.projections
    expected = sum(
        pair.weight * by_hand(pair, student, teacher, batch, dict(projections).get(str(i)))
        for i, pair in enumerate(pairs)
    )
    assert expected > 0
    assert (total - without).item() == pytest.approx(expected.item(), rel=1e-9)
    leaves = [*student.parameters(), *projections.parameters()]
    ours, theirs = (
        torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        for loss in (total - without, expected)
    )
    assert any(gradient.any() for gradient in theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    "name", ["mlp, pixels of a convolution", "bert, of other width", "bert, attention and pooled", "gpt2, tokens"]
)
def test_a_step_is_the_same_however_it_is_cut(name, tmp_path):
    """A mean over micro-batches of unequal length; projections whose gradients pile up from step to step."""
    whole = trainer_of(name, tmp_path, max_steps=2, rows=None)
    whole.train()
    before = torch.cat([weights_of(models_of(name)[0])])
    for batch, accumulation in [(4, 4), (5, 4)]:
        cut = trainer_of(
            name, tmp_path, max_steps=2, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation
        )
        cut.train()
        step = (weights_of(whole.model) - before).norm()
        assert step > 0
        assert (everything(whole) - everything(cut)).norm() / step < 1e-5
        for mine, other in zip(cut.state.log_history[:2], whole.state.log_history[:2], strict=True):
            for logged in ("loss", "hard_loss", "soft_loss", "feature_loss"):
                assert mine[logged] == pytest.approx(other[logged], rel=1e-5)


def test_what_is_logged_adds_up(tmp_path):
    """A loss that leaves the features out, or a feature loss without its weight."""
    trainer = trainer_of("bert, of other width", tmp_path)
    trainer.train()
    log = trainer.state.log_history[0]
    expected = 0.4 * log["hard_loss"] + 0.6 * log["soft_loss"] + log["feature_loss"]
    assert log["loss"] == pytest.approx(expected, rel=1e-6)
    metrics = trainer.evaluate()
    expected = 0.4 * metrics["eval_hard_loss"] + 0.6 * metrics["eval_soft_loss"] + metrics["eval_feature_loss"]
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["bert, of other width", "mlp, pooled vectors of two widths"])
def test_an_evaluation_is_a_mean_over_all_rows(name, tmp_path):
    """A mean over the means of batches, of which the last is small; projections that are not there yet."""
    losses = []
    for batch in (5, 16):
        trainer = trainer_of(name, tmp_path, per_device_eval_batch_size=batch)
        losses.append(trainer.evaluate()["eval_feature_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("name", ["bert, of other width", "bert, attention and pooled"])
def test_padding_changes_nothing(name, tmp_path):
    """Padded tokens that learn, or that attention is divided by; a NaN in the padding of a layer."""
    student, teacher = models_of(name, torch.float64)
    trainer = trainer_of(name, tmp_path, models=(student, teacher))
    batch = batch_of(name, torch.float64, 4)
    padded = {key: nn.functional.pad(value, (0, 5)) if value.ndim == 2 else value for key, value in batch.items()}
    losses = []
    for each in (batch, padded):
        _, counts = trainer.get_batch_samples(iter([each]), 1, torch.device("cpu"))
        losses.append(trainer.compute_loss(trainer.model.eval(), each, num_items_in_batch=counts).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_trying_the_layers_draws_nothing(tmp_path):
    """Dropout and an order of rows that differ because there are features."""
    weights = []
    for features in ([], [Feature("hidden_states.1", "hidden_states.1", weight=1e-30)]):
        student = bert(0, dropout=0.2)
        trainer = trainer_of(
            "bert, of other width", tmp_path, models=(student, bert(1, 16)), features=features, max_steps=2
        )
        trainer.train()
        weights.append(weights_of(trainer.model))
    assert torch.equal(*weights)


def test_a_clipped_step_is_as_long_as_it_may_be(tmp_path):
    """A norm over the student's gradient alone: projections that jump."""
    trainer = trainer_of("bert, of other width", tmp_path, max_grad_norm=0.01)
    trainer.evaluate()  # which makes the projections
    before = everything(trainer)
    trainer.train()
    assert (everything(trainer) - before).norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert trainer.state.log_history[-2]["grad_norm"] > 0.01


RESUMED = {
    "max_steps": 6, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 2, "optim": "adamw_torch",
    "gradient_accumulation_steps": 2, "max_grad_norm": 1.0, "learning_rate": 1e-2, "lr_scheduler_type": "linear",
    "weight_decay": 0.1,
}  # fmt: skip


def with_dropout(folder, **settings):
    return trainer_of("bert, of other width", folder, models=(bert(0, dropout=0.1), bert(1, 24)), **RESUMED | settings)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    trainer = with_dropout(folder)
    trainer.train()
    return folder, trainer


def test_a_training_that_is_resumed_ends_as_if_nothing_had_happened(uninterrupted, tmp_path):
    """Projections, or their moments, that begin anew."""
    folder, whole = uninterrupted
    resumed = with_dropout(tmp_path)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    assert torch.equal(everything(whole), everything(resumed))
    logged = [
        [log["feature_loss"] for log in each.state.log_history if "feature_loss" in log] for each in (whole, resumed)
    ]
    assert logged[0] == logged[1]


def test_projections_come_back_in_their_order(tmp_path):
    """One projection that goes on with the moments of another, in as many runs as a set is in another order."""
    features = [Feature("hidden_states.1", "hidden_states.1")] * 6
    with_dropout(tmp_path / "first", features=features, max_steps=3).train()
    again = with_dropout(tmp_path / "again", features=features)
    again.features.load(tmp_path / "first" / "checkpoint-3")
    assert list(again.features.projections) == ["0", "1", "2", "3", "4", "5"]


def test_projections_are_no_part_of_the_student(uninterrupted):
    """A saved student that asks for weights which nobody needs, or that carries them."""
    folder, trainer = uninterrupted
    student, found = BertForSequenceClassification.from_pretrained(folder / "checkpoint-6", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    assert torch.equal(weights_of(student), weights_of(trainer.model))
    assert (folder / "checkpoint-6" / PROJECTIONS).exists()
    assert set(trainer.features.projections) == {"0", "1"}


def test_a_checkpoint_of_other_features_is_refused(uninterrupted, tmp_path):
    """Projections of one layer that go on as those of another, or begin anew in silence."""
    folder, _ = uninterrupted
    others = with_dropout(tmp_path, features=[Feature("hidden_states.1", "hidden_states.1")])
    with pytest.raises(CheckpointError, match="resume with those"):
        others.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    without = with_dropout(tmp_path, features=[], max_steps=3)
    without.train()
    with pytest.raises(CheckpointError, match=f"has no {PROJECTIONS}"):
        with_dropout(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_the_best_student_comes_back_with_its_projections(tmp_path):
    """An evaluation at the end of a student with the projections of another step."""
    trainer = with_dropout(
        tmp_path, eval_strategy="steps", eval_steps=3, load_best_model_at_end=True,
        metric_for_best_model="eval_feature_loss", greater_is_better=True,
    )  # fmt: skip
    trainer.train()
    best = max(log["eval_feature_loss"] for log in trainer.state.log_history if "eval_feature_loss" in log)
    assert trainer.evaluate()["eval_feature_loss"] == pytest.approx(best, rel=1e-6)


def test_the_best_student_of_checkpoints_without_projections(tmp_path):
    """Projections that are dropped, because `save_only_model` keeps none, and an evaluation that ends in an error."""
    trainer = with_dropout(
        tmp_path, eval_strategy="steps", eval_steps=3, load_best_model_at_end=True, save_only_model=True
    )
    trainer.train()
    assert not (tmp_path / "checkpoint-3" / PROJECTIONS).exists()
    assert trainer.evaluate()["eval_feature_loss"] > 0


def test_the_fused_loss_and_whole_logits_are_the_same_step(tmp_path):
    """Hidden states of a trial of the head, in the place of the step's."""
    trainers = [trainer_of("gpt2, tokens", tmp_path, fused=fused) for fused in (True, False)]
    for trainer in trainers:
        trainer.train()
    assert trainers[0].students_head.is_seen
    assert torch.allclose(everything(trainers[0]), everything(trainers[1]), atol=1e-6)
    assert trainers[0].state.log_history[0]["feature_loss"] == pytest.approx(
        trainers[1].state.log_history[0]["feature_loss"], rel=1e-6
    )


def test_on_the_students_own_text(tmp_path):
    """Features of the data's text for what the student writes, or counts taken before it is written."""
    ends = []
    for batch, accumulation in [(16, 1), (4, 4)]:
        trainer = trainer_of(
            "gpt2, tokens", tmp_path, rows=make_prompted_rows(), max_steps=2, per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation, on_policy=OnPolicy(share=1, max_new_tokens=4),
        )  # fmt: skip
        trainer.train()
        ends.append([log["feature_loss"] for log in trainer.state.log_history if "feature_loss" in log])
    assert len(ends[0]) == 2
    assert ends[0] == pytest.approx(ends[1], rel=1e-5)


# transformers has renamed the setting; both names mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_gradient_checkpointing(tmp_path):
    """A layer without a graph, behind which nothing learns."""
    plain = trainer_of("bert, of other width", tmp_path)
    plain.train()
    for reentrant in (False, True):
        settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
        saving = trainer_of("bert, of other width", tmp_path, **settings)
        saving.train()
        assert torch.allclose(everything(plain), everything(saving), atol=1e-6)
    within = [Feature("bert.encoder.layer.1.output.dense", "hidden_states.2")]
    assert "use_reentrant" in refusal(tmp_path, within, **settings)


def test_models_in_16_bits(tmp_path):
    """A feature loss, or a projection, in bfloat16."""
    student, teacher = models_of("bert, of other width", torch.bfloat16)
    trainer = trainer_of("bert, of other width", tmp_path, models=(student, teacher))
    trainer.train()
    exact = trainer_of("bert, of other width", tmp_path)
    exact.train()
    assert {weight.dtype for weight in trainer.features.projections.parameters()} == {torch.float32}
    losses = [each.state.log_history[0]["feature_loss"] for each in (trainer, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


# peft reads a property that transformers has renamed; both names mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_a_student_with_an_adapter(tmp_path):
    """Names that an adapter has changed; hidden states that a wrapper does not pass on."""
    student, teacher = bert(0), bert(1, 24)
    adapted = get_peft_model(student, LoraConfig(target_modules=["query"], task_type="SEQ_CLS"))
    pairs = [Feature("bert.encoder.layer.1", "hidden_states.2"), Feature("hidden_states.2", "hidden_states.2")]
    trainer = trainer_of("bert, of other width", tmp_path, models=(adapted, teacher), features=pairs)
    trainer.evaluate()
    state = trainer.features.projections["0"].state_dict()
    trainer.features.projections["1"].load_state_dict(state)
    first = trainer.evaluate()["eval_feature_loss"]
    batch = batch_of("bert, of other width", torch.float32)
    expected = 2 * by_hand(pairs[1], student.eval(), teacher, batch, trainer.features.projections["0"])
    assert first == pytest.approx(expected.item(), rel=1e-5)


class Shared(nn.Module):
    """One layer that runs twice, and one that never does."""

    def __init__(self):
        super().__init__()
        self.twice, self.never, self.head = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, pixel_values):
        return self.head(self.twice(self.twice(pixel_values.flatten(2)[:, :, :4].flatten(1))))


def refusal(folder, features, name="bert, of other width", **settings):
    with pytest.raises((MismatchError, ValueError, TypeError)) as refused:
        trainer_of(name, folder, features=features, **settings).train()
    return str(refused.value)


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        (
            Feature("bert.encoder.layers.1", "hidden_states.1"),
            ["student (Bert", "'bert.encoder.layer.1'", "hidden_states"],
        ),
        (Feature("hidden_states.1", "bert.encoder.layer.9"), ["teacher (Bert", "'bert.encoder.layer."]),
        (Feature("hidden_states.3", "hidden_states.1"), ["'hidden_states.3' of the student", "fewer"]),
        (Feature("bert.pooler", "hidden_states.1"), ["(2, 1)", "position by position"]),
        (Feature("hidden_states.1", "hidden_states.1", projection="never"), ["16 wide and the teacher's 24", "'auto'"]),
    ],
    ids=["student's name", "teacher's name", "index", "positions", "widths"],
)
def test_layers_that_do_not_fit_are_refused_before_training(feature, words, tmp_path):
    """A broadcast, or an error from the depths of a model in the middle of a training."""
    said = refusal(tmp_path, [feature])
    for word in words:
        assert word in said


def test_attention_that_is_not_there_is_refused(tmp_path):
    """None, from an implementation that keeps no attention; heads that are broadcast."""
    feature = [Feature("attentions.0", "attentions.0", "attention")]
    student, teacher = bert(0), bert(1)
    student.set_attn_implementation("sdpa")
    assert "attn_implementation='eager'" in refusal(tmp_path, feature, models=(student, teacher))
    heads = bert(1, num_attention_heads=1)
    assert "head for head" in refusal(tmp_path, feature, models=(bert(0), heads))


ATTENTION = {"student": "attentions.0", "teacher": "attentions.0", "loss": "attention"}


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"loss": "l2"}, "mse, cosine, attention"), ({"weight": 0}, "above 0"), ({"weight": math.inf}, "finite"),
        ({"weight": -1.0}, "above 0"), ({"weight": math.nan}, "finite"), ({"projection": "yes"}, "auto, always, never"),
        ({"loss": "attention"}, "'attentions.i' of both"),
        ({"student": "attentions.0", "teacher": "attentions.0"}, "'attentions.i' of both"),
        ({"student": "attentions.0", "loss": "attention"}, "'attentions.i' of both"),
        (ATTENTION | {"projection": "always"}, "no width"),
    ],
)  # fmt: skip
def test_a_feature_that_makes_no_sense_is_refused(settings, word):
    """A weight that is no weight, a loss that nobody knows."""
    with pytest.raises(ValueError, match=word):
        Feature(**{"student": "hidden_states.1", "teacher": "hidden_states.1"} | settings)


def test_a_teacher_without_layers_is_refused(tmp_path):
    """Features that are left out in silence, since a cache has none."""
    pairs = [Feature("hidden_states.1", "hidden_states.1")]
    rows = make_rows("bert-classifier")
    cached = cache_logits(tmp_path / "cache", bert(1), make_tokenizer(), rows)
    assert "CachedTeacher" in refusal(tmp_path, pairs, models=(bert(0), cached), rows=cached.add_rows(rows))
    with pytest.raises(MismatchError, match="no teacher model"):
        DistillationTrainer(
            bert(0), DistillationArguments(str(tmp_path), report_to="none", use_cpu=True), train_dataset=rows,
            features=pairs,
        )  # fmt: skip
    trainer_of("bert, of other width", tmp_path, models=(bert(0), ModelTeacher(bert(1))), features=pairs).train()


def test_a_layer_that_does_not_run_once_is_refused(tmp_path):
    """The last of two answers taken for the only one."""
    models = (Shared(), mlp(1))
    assert "runs 2 times" in refusal(tmp_path, [Feature("twice", "pooled")], "vit, patches", models=models)
    assert "did not run" in refusal(tmp_path, [Feature("never", "pooled")], "vit, patches", models=(Shared(), mlp(1)))


def test_a_frozen_student_is_refused(tmp_path):
    """A feature that only its projection learns."""
    student = bert(0)
    student.bert.embeddings.requires_grad_(False)
    student.bert.encoder.layer[0].requires_grad_(False)
    said = refusal(tmp_path, [Feature("hidden_states.1", "hidden_states.1")], models=(student, bert(1, 24)))
    assert "teach the student nothing" in said


def test_other_tokens_are_refused(tmp_path):
    """Token 3 of one tokenizer compared with token 3 of another."""
    rows = make_rows("bert-classifier")
    rows = rows.add_column("teacher_input_ids", rows["input_ids"]).add_column(
        "teacher_attention_mask", rows["attention_mask"]
    )

    def collate(batch):
        made = make_collator("bert-classifier")(
            [{k: r[k] for k in ("input_ids", "attention_mask", "labels")} for r in batch]
        )
        return made | {f"teacher_{name}": made[name].clone() for name in ("input_ids", "attention_mask")}

    trainer = trainer_of("bert, of other width", tmp_path, rows=rows)
    trainer.data_collator = collate
    with pytest.raises(MismatchError, match="tokens of its own"):
        trainer.train()


def test_an_optimizer_of_ones_own_is_refused_where_projections_would_not_learn(tmp_path):
    """Projections that stay as they were drawn."""
    trainer = trainer_of("bert, of other width", tmp_path)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="Leave `optimizers` out"):
        trainer.train()
    of_one_width = [Feature("hidden_states.1", "hidden_states.1")]
    trainer = trainer_of("bert, of one width", tmp_path, features=of_one_width)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    trainer.train()


@pytest.mark.parametrize("setting", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_weights_in_pieces_are_refused(setting, tmp_path):
    """Gradients of projections that no wrapper averages."""
    trainer = trainer_of("bert, of other width", tmp_path)
    setattr(trainer, setting, True)
    with pytest.raises(MismatchError, match="plain data parallelism"):
        trainer._meet(trainer.model, trainer.teacher)


def test_a_compiled_student_is_refused(tmp_path):
    """Hooks that a graph has left out."""
    assert "torch_compile" in refusal(tmp_path, [Feature("hidden_states.1", "hidden_states.1")], torch_compile=True)


def test_each_new_student_has_new_projections(tmp_path):
    """A student of `model_init` that goes on with the projections of the one before."""
    trainer = trainer_of("bert, of other width", tmp_path)
    trainer.model_init = lambda: copy.deepcopy(models_of("bert, of other width")[0])
    trainer.train()
    first = everything(trainer)
    trainer.train()
    assert torch.equal(first, everything(trainer))


def test_what_is_kept_says_which_features_it_is_for(uninterrupted):
    """A file that nobody can read without this package."""
    from safetensors import safe_open

    folder, _ = uninterrupted
    with safe_open(folder / "checkpoint-3" / PROJECTIONS, "pt") as file:
        (first, _) = json.loads(file.metadata()["features"])
        assert first == ["bert.encoder.layer.0", "bert.encoder.layer.1", "mse", "auto"]
        assert file.get_tensor("0.weight").shape == (24, 16)


def test_a_plain_trainer_is_as_before(tmp_path):
    """A cost, or a name in the logs, where there are no features."""
    trainer = make_trainer("bert-classifier", tmp_path)
    trainer.train()
    assert "feature_loss" not in trainer.state.log_history[0]
    assert not trainer.features
