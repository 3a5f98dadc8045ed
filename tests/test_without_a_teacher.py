"""Labels alone: the twin that a student is compared with, by the same trainer and without a teacher."""

import copy

import pytest
import torch
from shapes import TRAINERS_OWN, WORDS, make_collator, make_model, make_rows, make_tokenizer, make_trainer, weights_of
from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling, MixtralConfig, MixtralForCausalLM

from kdcourse import DistillationArguments, DistillationTrainer
from kdcourse.schedules import Schedule

PIECES = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3, "max_steps": 2}


def alone(student, rows, folder, collator, **settings):
    defaults = {
        "alpha": 1.0, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "logging_steps": 1,
        "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    arguments = DistillationArguments(str(folder), **defaults | settings)
    return DistillationTrainer(student, arguments, train_dataset=rows, data_collator=collator)


def with_experts():
    """A language model whose routers have a loss of their own."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    routers = {"num_local_experts": 3, "output_router_logits": True, "router_aux_loss_coef": 0.5}
    return MixtralForCausalLM(MixtralConfig(vocab_size=WORDS, num_key_value_heads=2, **sizes, **routers))


@pytest.mark.parametrize(
    ("shape", "make", "fused"),
    [
        ("bert-classifier", lambda: make_model("bert-classifier"), True),
        ("gpt2-lm", lambda: make_model("gpt2-lm"), True),
        ("gpt2-lm", lambda: make_model("gpt2-lm"), False),
        ("gpt2-lm", with_experts, True),
    ],
)
def test_labels_alone_take_the_step_that_they_take_beside_a_teacher(shape, make, fused, tmp_path):
    """A twin that needs another trainer, whose loss differs in more than the teacher."""
    rows, settings = make_rows(shape), PIECES | {"fused": fused}
    beside = make_trainer(shape, tmp_path, student=make(), rows=rows, alpha=1.0, **settings)
    without = alone(make(), rows, tmp_path, make_collator(shape), **settings)
    beside.train()
    without.train()
    assert torch.allclose(weights_of(beside.model), weights_of(without.model), atol=1e-6)
    first, second = (trainer.state.log_history[0] for trainer in (beside, without))
    assert second["hard_loss"] == pytest.approx(first["hard_loss"], rel=1e-5)
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert (second["loss"] == pytest.approx(second["hard_loss"])) == (make is not with_experts)
    assert "soft_loss" in first and "soft_loss" not in second
    evaluated = without.evaluate(rows)
    assert evaluated["eval_loss"] == evaluated["eval_hard_loss"] > 0
    assert "eval_soft_loss" not in evaluated


def test_masked_words_need_no_teacher_either(tmp_path):
    """A twin that is told to leave the teacher in the loop."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    collate = DataCollatorForLanguageModeling(make_tokenizer(mask_token="w3"), mlm_probability=0.5)
    rows = make_rows("gpt2-lm").remove_columns("labels")
    trainer = alone(BertForMaskedLM(BertConfig(vocab_size=40, **sizes)), rows, tmp_path, collate, max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["hard_loss"] > 0


def test_with_any_weight_for_a_teacher_there_has_to_be_one(tmp_path):
    """A student that learns from labels alone, and is taken for a distilled one; also from the second step on."""
    shape = "bert-classifier"
    for alpha in (0.0, 0.99):
        with pytest.raises(ValueError, match=r"There is no teacher: .* none is needed at alpha=1"):
            alone(make_model(shape), make_rows(shape), tmp_path, make_collator(shape), alpha=alpha).train()
    trainer = alone(make_model(shape), make_rows(shape), tmp_path, make_collator(shape), max_steps=2)
    trainer.add_callback(Schedule(alpha=lambda done: 1 - done))
    with pytest.raises(ValueError, match="There is no teacher"):
        trainer.train()


def test_logits_in_a_column_are_still_counted(tmp_path):
    """A soft term that vanishes from the logs at alpha=1 although the rows bring a teacher's answers."""
    shape = "bert-classifier"
    rows = make_rows(shape)
    rows = rows.add_column("teacher_logits", torch.randn(len(rows), 3).tolist())
    trainer = alone(make_model(shape), rows, tmp_path, make_collator(shape), max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["soft_loss"] > 0


def test_a_classifiers_own_collator_is_the_packages(tmp_path):
    """Uneven rows that only a collator of one's own makes a batch of."""
    shape, tokenizer = "bert-classifier", make_tokenizer()
    ours = make_trainer(shape, tmp_path, collator=TRAINERS_OWN, processing_class=tokenizer)
    both = make_trainer(
        shape, tmp_path, collator=TRAINERS_OWN, processing_class=tokenizer,
        teacher_processing_class=copy.deepcopy(tokenizer),
    )  # fmt: skip
    ours.train()
    both.train()
    assert torch.equal(weights_of(ours.model), weights_of(both.model))
