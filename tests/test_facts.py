"""What PyTorch and transformers themselves do, row by row of "what the notes say, what is true".

These tests hold the ground that the lessons stand on: where a new version changes one, the lesson must change, too.
None of them calls the package.
"""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from shapes import load_without_head, make_collator, make_model, make_rows, make_tokenizer
from torch import nn
from transformers import (
    BertConfig,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

P, Q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.1, 0.3, 0.6]])


def kl(p, q):
    return (p * (p / q).log()).sum().item()


def make_stock_trainer(folder, trainer_class=Trainer, shape="bert-classifier", rows=None, model=None, **settings):
    defaults = {
        "max_steps": 1, "per_device_train_batch_size": 8, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0,
        "logging_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    return trainer_class(
        model or make_model(shape),
        TrainingArguments(str(folder), **defaults | settings),
        train_dataset=rows or make_rows(shape, 8),
        data_collator=make_collator(shape),
    )


def test_row_1_kl_div_has_the_target_first():
    """KL(input ‖ target), as its documentation's variable names suggest."""
    computed = F.kl_div(P.log(), Q, reduction="sum").item()
    assert kl(P, Q) == pytest.approx(1.1019, abs=1e-4)
    assert computed == pytest.approx(kl(Q, P))
    assert computed == pytest.approx(1.0021, abs=1e-4)


def test_row_2_softmax_on_both_sides_goes_negative():
    """ "Something completely different", and how it can be recognised."""
    assert F.kl_div(P, Q, reduction="sum").item() == pytest.approx(-1.088, abs=1e-3)
    assert F.kl_div(Q, Q, reduction="sum").item() == pytest.approx(-1.358, abs=1e-3)


def test_row_3_softmax_underflows_and_does_not_overflow():
    """Softmax, then log: no overflow, but −inf in the value and NaN in the gradient."""
    logits = torch.tensor([200.0, 0.0, -200.0], requires_grad=True)
    target = torch.tensor([0.5, 0.3, 0.2])
    assert torch.softmax(logits * 1000, -1).isfinite().all()
    naive = -(target * torch.softmax(logits, -1).log()).sum()
    assert naive == torch.inf
    assert torch.autograd.grad(naive, logits)[0].isnan().all()
    stable = -(target * logits.log_softmax(-1)).sum()
    torch.testing.assert_close(torch.autograd.grad(stable, logits)[0], torch.tensor([0.5, -0.3, -0.2]))


def test_row_4_the_shift_is_the_point_of_log_softmax():
    """x − log Σ exp x overflows like the naive form."""
    logits = torch.tensor([200.0, 0.0, -200.0])
    assert (logits - logits.exp().sum().log())[0] == -torch.inf
    torch.testing.assert_close(logits.log_softmax(-1), torch.tensor([0.0, -200.0, -400.0]))


def test_row_5_t_squared_is_exact_in_the_limit_only():
    """The gradient of the softened KL shrinks like 1/T² for high T, and by less for low T."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 64, 10, dtype=torch.float64, generator=generator)

    def gradient_norm(temperature):
        leaf = student.clone().requires_grad_()
        loss = F.kl_div(
            (leaf / temperature).log_softmax(-1), (teacher / temperature).softmax(-1), reduction="batchmean"
        )
        return torch.autograd.grad(loss, leaf)[0].norm().item()

    rescaled = {temperature: temperature**2 * gradient_norm(temperature) for temperature in (1, 2, 4, 16, 64, 256)}
    assert rescaled[256] == pytest.approx(rescaled[64], rel=0.02)
    assert rescaled[1] < 0.85 * rescaled[64]
    limit = student - teacher - (student - teacher).mean(-1, keepdim=True)
    assert rescaled[256] == pytest.approx((limit / 10 / 64).norm().item(), rel=0.01)


def test_row_6_batchmean_divides_by_the_first_dimension_only():
    """(4, 7, 11): seven times too large."""
    student, teacher = torch.randn(2, 4, 7, 11).log_softmax(-1)
    summed = F.kl_div(student, teacher.exp(), reduction="batchmean")
    per_token = F.kl_div(student, teacher.exp(), reduction="none").sum(-1).mean()
    assert (summed / per_token).item() == pytest.approx(7.0, rel=1e-5)


@pytest.mark.parametrize(("student", "teacher"), [((8, 1), (8, 2)), ((8, 3), (1, 3))])
def test_row_7_shapes_that_differ_broadcast_in_silence(student, teacher, recwarn):
    """KL "cannot be computed" if shapes differ: it can, and there is no warning."""
    loss = F.kl_div(torch.randn(student).log_softmax(-1), torch.randn(teacher).softmax(-1), reduction="batchmean")
    assert loss.isfinite()
    assert not recwarn


def test_row_8_the_same_ids_are_other_words_to_another_tokenizer():
    """ "The tokenizer can differ", with one set of inputs for both."""
    ours, theirs = make_tokenizer(), make_tokenizer(swap=(7, 9))
    ids = ours("w7 w8")["input_ids"]
    assert theirs.decode(ids) == "w9 w8"
    with pytest.raises(IndexError):
        make_model("bert-classifier", vocab_size=8)(torch.tensor([ids]))


def test_row_9_resized_embeddings_are_as_wide_and_mean_nothing_new():
    """Equal width is not equal meaning."""
    model = make_model("gpt2-lm")
    before = model.get_input_embeddings().weight.detach().clone()
    model.resize_token_embeddings(60, mean_resizing=False)
    assert model.get_input_embeddings().weight.shape[0] == 60
    assert torch.equal(model.get_input_embeddings().weight[:40], before)


def test_row_10_a_checkpoint_without_a_head_gets_a_random_one(tmp_path):
    """A teacher that answers, and knows nothing."""
    answers = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = load_without_head(tmp_path)
        answers.append(model(torch.tensor([[5, 6, 7]])).logits)
        assert not model.classifier.bias.any()
    assert not torch.allclose(*answers)


def test_row_11_the_models_own_loss_is_cross_entropy_for_integer_labels_only():
    """num_labels = 1 is MSE, float labels are BCE."""
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    model = make_model("bert-classifier")
    out = model(ids, labels=torch.tensor([0, 2]))
    torch.testing.assert_close(out.loss, F.cross_entropy(out.logits, torch.tensor([0, 2])))
    floats = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    out = make_model("bert-classifier")(ids, labels=floats)
    torch.testing.assert_close(out.loss, F.binary_cross_entropy_with_logits(out.logits, floats))
    out = make_model("bert-classifier", num_labels=1)(ids, labels=torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(out.loss, F.mse_loss(out.logits.squeeze(), torch.tensor([0.0, 1.0])))


def test_row_12_label_ids_that_are_strings_stay_strings(tmp_path):
    """id2label keys are converted, label2id values are not, and are saved so."""
    config = BertConfig(id2label={"0": "neg", "1": "pos"}, label2id={"neg": "0", "pos": "1"})
    assert config.id2label == {0: "neg", 1: "pos"}
    config.save_pretrained(tmp_path)
    assert BertConfig.from_pretrained(tmp_path).label2id == {"neg": "0", "pos": "1"}


def test_row_13_the_collator_renames_label_and_label_wins():
    """Two columns of labels, and one is dropped without a word."""
    collate = DataCollatorWithPadding(make_tokenizer())
    assert collate([{"input_ids": [5], "label": 1}])["labels"].tolist() == [1]
    assert collate([{"input_ids": [5], "label": 1, "labels": 0}])["labels"].tolist() == [1]


def test_row_14_a_compute_loss_of_two_arguments_fails_and_a_mean_is_four_times_too_large(tmp_path):
    """The notes' signature; and num_items_in_batch accepted and ignored, at 4 accumulation steps."""

    class Notes(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False):
            return model(**inputs).loss

    class Ignores(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return model(**inputs).loss

    rows = make_rows("bert-classifier", 8).filter(lambda row: row["labels"] >= 0).select(range(4))
    with pytest.raises(TypeError, match="num_items_in_batch"):
        make_stock_trainer(tmp_path, Notes, rows=rows).train()
    norms = {}
    for steps in (1, 4):
        trainer = make_stock_trainer(
            tmp_path, Ignores, rows=rows, per_device_train_batch_size=4 // steps, gradient_accumulation_steps=steps,
            max_grad_norm=1e9,
        )  # fmt: skip
        trainer.train()
        norms[steps] = trainer.state.log_history[0]["grad_norm"]
    assert norms[4] / norms[1] == pytest.approx(4.0, rel=1e-4)


def test_row_15_gpt2_needs_a_pad_token_and_position_ids():
    """batch > 1 raises; padding on the left changes the logits unless positions are passed."""
    with pytest.raises(ValueError, match="no padding token"):
        make_model("gpt2-classifier", pad_token_id=None)(torch.tensor([[5, 6], [7, 8]]))
    model = make_model("gpt2-lm").eval()
    alone = model(torch.tensor([[5, 6, 7]])).logits[0, -1]
    padded = {"input_ids": torch.tensor([[0, 0, 5, 6, 7]]), "attention_mask": torch.tensor([[0, 0, 1, 1, 1]])}
    assert not torch.allclose(model(**padded).logits[0, -1], alone, atol=1e-3)
    positions = torch.tensor([[0, 0, 0, 1, 2]])
    assert torch.allclose(model(**padded, position_ids=positions).logits[0, -1], alone, atol=1e-5)


def test_row_16_a_submodule_is_put_back_into_training_mode():
    """A teacher that is an attribute of the student."""
    student = nn.Sequential(nn.Linear(2, 2))
    student.teacher = nn.Dropout().eval()
    student.train()
    assert student.teacher.training


def test_row_17_without_t_squared_the_soft_term_fades_as_t_grows():
    """alpha and T cannot be chosen one after the other."""
    student, teacher = torch.randn(2, 64, 10, generator=torch.Generator().manual_seed(0))
    softened = {
        temperature: F.kl_div(
            (student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1), reduction="batchmean"
        ).item()
        for temperature in (1, 8)
    }
    assert softened[8] < softened[1] / 30


def test_row_19_label_smoothing_is_ignored_by_a_compute_loss_of_ones_own(tmp_path):
    """The setting is accepted, and changes nothing."""

    class Own(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return model(**inputs).loss

    losses = {}
    for trainer_class in (Own, Trainer):
        for smoothing in (0.0, 0.3):
            trainer = make_stock_trainer(tmp_path, trainer_class, label_smoothing_factor=smoothing)
            trainer.train()
            losses[trainer_class, smoothing] = trainer.state.log_history[0]["loss"]
    assert losses[Own, 0.3] == losses[Own, 0.0]
    assert losses[Trainer, 0.3] != losses[Trainer, 0.0]
