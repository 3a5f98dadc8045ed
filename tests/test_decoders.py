"""Masked language models and encoder-decoders: each token is compared where it stands, and labels reach the decoder."""

import copy
import random

import numpy as np
import objective_reference
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from shapes import PAD, TRAINERS_OWN, WORDS, make_model, make_tokenizer, make_trainer, weights_of
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    FSMTConfig,
    FSMTForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    VoxtralForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
    XLMConfig,
    XLMWithLMHeadModel,
)

from kdcourse import Feature, MismatchError, OnPolicy
from kdcourse.compat import check_fit, vocabulary_of
from kdcourse.decoders import decoder_ids
from kdcourse.tasks import task_of
from kdcourse.teacher import ColumnTeacher, cache_logits, score

ALPHA, T, RATE = 0.4, 2.0, 0.1
FIRST = {"t5": 0, "bart": 1, "whisper": 3}
"""The token that a decoder begins with."""

ROOM, FRAMES, BINS = 16, 8, 4


def t5(**changes):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
    special = {"pad_token_id": PAD, "eos_token_id": 1, "decoder_start_token_id": FIRST["t5"]}
    return T5ForConditionalGeneration(T5Config(**{"vocab_size": WORDS, **sizes, **special, **changes}))


HALVES = {
    f"{half}_{name}": size
    for half in ("encoder", "decoder")
    for name, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
}
CERTAIN = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
SPECIAL = {"vocab_size": WORDS, "d_model": 16, "pad_token_id": PAD, "bos_token_id": 2, "eos_token_id": 1}


def bart(model_class=BartForConditionalGeneration, config_class=BartConfig, **changes):
    more = {"max_position_embeddings": ROOM, "decoder_start_token_id": FIRST["bart"]}
    return model_class(config_class(**{**SPECIAL, **HALVES, **CERTAIN, **more, **changes}))


def whisper(**changes):
    more = {"num_mel_bins": BINS, "max_source_positions": FRAMES, "max_target_positions": ROOM}
    first = {"decoder_start_token_id": FIRST["whisper"]}
    return WhisperForConditionalGeneration(
        WhisperConfig(**{**SPECIAL, **HALVES, **CERTAIN, **more, **first, **changes})
    )


SIZES = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def bert(**changes):
    return BertForMaskedLM(BertConfig(**{"vocab_size": WORDS, **SIZES, **changes}))


MAKERS = {"t5": t5, "bart": bart, "whisper": whisper, "bert": bert}


def make(name, seed=0, **changes):
    """Random weights of a size that makes every layer matter."""
    torch.manual_seed(seed)
    model = MAKERS[name](**changes)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(3 * torch.randn_like(weight) * weight[0].numel() ** -0.5)
    return model


def make_examples(name, rows=16):
    """Uneven texts or recordings, uneven labels with some -100 among them, and a column that nobody reads."""
    number = random.Random(0)
    found = []
    for _ in range(rows):
        ids = [number.randrange(4, WORDS) for _ in range(number.randint(3, 12))]
        said = ids if name == "bert" else [number.randrange(4, WORDS) for _ in range(number.randint(2, 9))]
        labels = [-100 if number.random() < (0.7 if name == "bert" else 0.2) else token for token in said]
        labels[-1] = said[-1]
        row = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        if name == "whisper":
            row = {"input_features": [[number.gauss(0, 1) for _ in range(2 * FRAMES)] for _ in range(BINS)]}
        found.append({**row, "labels": labels, "title": "nobody reads this"})
    return found


FILLING = {"labels": -100, "input_ids": PAD, "attention_mask": 0, "decoder_input_ids": PAD}


def padded(rows):
    """Each column as a tensor, filled up on the right."""
    batch = {}
    for name in (each for each in rows[0] if each != "title"):
        column = [row[name] for row in rows]
        if name in FILLING:
            longest = max(map(len, column))
            column = [[*each, *[FILLING[name]] * (longest - len(each))] for each in column]
        batch[name] = torch.tensor(column)
    return batch


def by_hand(name, student, teacher, rows):
    """Loss, both terms, and the change of each weight in one step of SGD, in float64 from the formulas."""
    batch = padded(rows)
    labels = batch.pop("labels")
    if name in FIRST:
        said = [[FIRST[name], *each[:-1]] for each in labels.tolist()]
        batch["decoder_input_ids"] = torch.tensor(
            [[PAD if token == -100 else token for token in each] for each in said]
        )
    batch = {column: each.double() if each.is_floating_point() else each for column, each in batch.items()}
    student, teacher = (copy.deepcopy(each).double() for each in (student, teacher.eval()))
    logits = student(**batch).logits
    with torch.no_grad():
        answers = teacher(**batch).logits
    where = (labels != -100).numpy()
    objective = objective_reference.objective(
        logits.detach().numpy()[where], answers.numpy()[where], labels.numpy()[where], alpha=ALPHA, temperature=T
    )
    gradient = np.zeros(logits.shape)
    gradient[where] = objective.total.gradient
    logits.backward(torch.from_numpy(gradient))
    changes = torch.cat(
        [-RATE * (torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in student.parameters()]
    )
    terms = {"loss": objective.total, "hard_loss": objective.hard, "soft_loss": objective.soft}
    return {term: each.value for term, each in terms.items()}, changes


def trainer_of(name, folder, rows=None, **settings):
    """The trainer's own collator for texts that are answered; `padded` for others."""
    rows = rows or make_examples(name)
    texts = name in ("t5", "bart")
    defaults = {
        "student": make(name), "teacher": make(name, seed=1), "rows": Dataset.from_list(rows),
        "collator": TRAINERS_OWN if texts else padded, **({"processing_class": make_tokenizer()} if texts else {}),
    }  # fmt: skip
    return make_trainer("bert-classifier", folder, **{**defaults, **settings})


@pytest.fixture(scope="module", params=MAKERS)
def right(request):
    """A kind of model, and the step that is right for it."""
    return request.param, by_hand(
        request.param, make(request.param), make(request.param, 1), make_examples(request.param)
    )


@pytest.mark.parametrize(("batch", "accumulation"), [(16, 1), (5, 4), (1, 16)])
def test_a_step_is_the_one_by_hand_however_it_is_cut(right, batch, accumulation, tmp_path):
    """Logits shifted against labels, a decoder that reads the encoder's text (BART, where labels are hidden), a teacher
    that reads other ids, means of means over uneven -100, columns that were dropped or not."""
    name, (losses, changes) = right
    trainer = trainer_of(name, tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert {term: logged[term] for term in losses} == pytest.approx(losses, rel=1e-4)
    moved = weights_of(trainer.model).double() - weights_of(make(name)).double()
    assert changes.norm() > 0
    assert (moved - changes).norm() / changes.norm() < 1e-3


def test_an_evaluation_is_the_objective_over_all_tokens(right, tmp_path):
    """Means of means over batches of other lengths, in which the last is smaller; logits that no metric can use."""
    name, (losses, _) = right
    seen = []
    trainer = trainer_of(name, tmp_path, eval_rows=Dataset.from_list(make_examples(name)), per_device_eval_batch_size=5)
    trainer.compute_metrics = lambda found: seen.append(found) or {}
    metrics = trainer.evaluate()
    assert {term: metrics[f"eval_{term}"] for term in losses} == pytest.approx(losses, rel=1e-4)
    assert seen[0].predictions.shape == (*seen[0].label_ids.shape, WORDS)
    assert (seen[0].label_ids != -100).sum() == (padded(make_examples(name))["labels"] != -100).sum()


def test_labels_are_padded_on_the_right_whatever_the_tokenizer_does(tmp_path):
    """A tokenizer that pads on the left, after which a decoder's first token follows on padding."""
    losses, _ = by_hand("t5", make("t5"), make("t5", 1), make_examples("t5"))
    trainer = trainer_of("t5", tmp_path, processing_class=make_tokenizer(pad_side="left"))
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(losses["loss"], rel=1e-4)
    assert trainer.processing_class.padding_side == "left"


def test_labels_that_somebody_else_pads_on_the_left_are_refused(tmp_path):
    """A decoder that begins each text with as much padding as the longest one of its batch has more tokens."""
    collate = DataCollatorForSeq2Seq(make_tokenizer(pad_side="left"))
    texts = [[4], [4, 5], [4, 5, 6]]
    rows = [{"input_ids": [*text, 7], "attention_mask": [1] * (len(text) + 1), "labels": text} for text in texts]
    with pytest.raises(MismatchError, match=r"Labels are padded on the left.*padding_side = 'right'"):
        trainer_of("t5", tmp_path, rows, collator=collate).train()
    collate.tokenizer.padding_side = "right"
    trainer_of("t5", tmp_path, rows, collator=collate).train()
    for row in rows:  # a first word that is not to be learnt is no padding
        row |= {"input_ids": [7, 8], "attention_mask": [1, 1], "labels": [-100, 5] if row["labels"] == [4] else [4, 5]}
    trainer_of("t5", tmp_path, rows, collator=collate).train()


def test_ids_that_a_batch_brings_are_kept(tmp_path):
    """A prompt of the decoder that has no labels, overwritten by padding."""
    rows = make_examples("t5")
    for row in rows:
        row["decoder_input_ids"] = [7] * len(row["labels"])

    def loss(rows):
        trainer = trainer_of("t5", tmp_path, rows, collator=padded)
        trainer.train()
        return trainer.state.log_history[0]["loss"]

    student, teacher, batch = make("t5"), make("t5", 1), padded(rows)
    labels, where = batch.pop("labels"), padded(rows)["labels"] != -100
    with torch.no_grad():
        logits = [model(**batch).logits[where].double().numpy() for model in (student, teacher)]
    expected = objective_reference.objective(*logits, labels[where].numpy(), alpha=ALPHA, temperature=T).total.value
    assert loss(rows) == pytest.approx(expected, rel=1e-4)
    assert loss(make_examples("t5")) != pytest.approx(expected, rel=1e-2)


def test_a_teacher_with_columns_of_its_own_reads_the_same_ids(tmp_path):
    """Whisper's teacher of other mel bins: without ids it fails, and BART's would read its own text."""
    rows = make_examples("whisper")
    for row in rows:
        row["teacher_input_features"] = [[2 * value for value in bin_] for bin_ in [*row["input_features"]] * 2]
    trainer = trainer_of("whisper", tmp_path, rows, teacher=make("whisper", 1, num_mel_bins=2 * BINS))
    trainer.train()
    batch = padded(rows)
    labels = batch["labels"]
    ids = torch.tensor([[FIRST["whisper"], *[max(token, PAD) for token in each[:-1]]] for each in labels.tolist()])
    with torch.no_grad():
        ours = make("whisper")(input_features=batch["input_features"], decoder_input_ids=ids).logits
        theirs = (
            make("whisper", 1, num_mel_bins=2 * BINS)
            .eval()(input_features=batch["teacher_input_features"], decoder_input_ids=ids)
            .logits
        )
    where = labels != -100
    rows_of = [each[where].double().numpy() for each in (ours, theirs)]
    expected = objective_reference.objective(*rows_of, labels[where].numpy(), alpha=ALPHA, temperature=T).total.value
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-4)


# peft reads a property that transformers has renamed; both names mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_adapters_and_several_teachers_read_the_same_ids(tmp_path):
    """A wrapper whose own forward is looked at for what a decoder reads, and a second teacher that is given no ids."""
    losses, _ = by_hand("t5", make("t5"), make("t5", 1), make_examples("t5"))
    adapted = get_peft_model(make("t5"), LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q"]))
    trainer = trainer_of("t5", tmp_path, student=adapted, teacher=[make("t5", 1), make("t5", 1)])
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(losses["loss"], rel=1e-4)


def test_the_vocabularies_are_those_of_language_models(tmp_path):
    """A T5 padded to 48 ids, taught by one of 40: refused without tokenizers, cut to the shared ids with them."""
    wide = make("t5", vocab_size=WORDS + 8)
    with pytest.raises(MismatchError, match="vocabulary has 48 ids and the teacher's 40"):
        trainer_of("t5", tmp_path, student=wide)
    trainer = trainer_of("t5", tmp_path, student=copy.deepcopy(wide), teacher_processing_class=make_tokenizer())
    trainer.train()
    narrow = copy.deepcopy(wide)
    narrow.lm_head.weight = nn.Parameter(wide.lm_head.weight[:WORDS].detach().clone())
    losses, _ = by_hand("t5", narrow, make("t5", 1), make_examples("t5"))
    assert trainer.state.log_history[0]["loss"] == pytest.approx(losses["loss"], rel=1e-4)
    assert vocabulary_of(make("whisper")) == WORDS  # which reads sounds
    with pytest.raises(MismatchError, match="differ in 2: id 7"):
        trainer_of(
            "whisper", tmp_path, processing_class=make_tokenizer(), teacher_processing_class=make_tokenizer(swap=(7, 9))
        )
    with pytest.raises(MismatchError, match="differ in 2: id 7"):
        trainer_of(
            "bert", tmp_path, processing_class=make_tokenizer(), teacher_processing_class=make_tokenizer(swap=(7, 9))
        )


def test_a_decoder_begins_by_its_models_own_rule():
    """mBART's, which begins with the last label, begun as BART's; and FSMT's, which overwrites -100 in the labels."""
    labels = torch.tensor([[5, 6, 7], [8, 9, -100]])
    kept = labels.clone()
    assert decoder_ids(labels, [make("bart")]).tolist() == [[1, 5, 6], [1, 8, 9]]
    assert decoder_ids(labels, [bart(MBartForConditionalGeneration, MBartConfig)]).tolist() == [[7, 5, 6], [9, 8, 9]]
    sizes = {
        "src_vocab_size": WORDS,
        "tgt_vocab_size": WORDS,
        "langs": ["en", "de"],
        "d_model": 16,
        "pad_token_id": PAD,
    }
    fsmt = FSMTForConditionalGeneration(FSMTConfig(**sizes, **HALVES))
    assert decoder_ids(labels, [fsmt]).tolist() == [[7, 5, 6], [9, 8, 9]]
    assert torch.equal(labels, kept)
    assert decoder_ids(labels, [make("whisper")]).tolist() == [[3, 5, 6], [3, 8, 9]]
    assert decoder_ids(torch.tensor([[5, -100, 7]]), [nn.Linear(1, 1), make("whisper")]).tolist() == [[3, 5, PAD]]


def test_two_that_begin_differently_are_refused():
    """A teacher that reads a first token which it was never trained to begin with."""
    with pytest.raises(MismatchError, match=r"decoder_start_token_id 5\) and teacher .* 1\) begin a text differently"):
        check_fit(make("bart", decoder_start_token_id=5), make("bart", 1), None, None)
    with pytest.raises(MismatchError, match="begin a text differently"):
        check_fit(make("bart"), bart(MBartForConditionalGeneration, MBartConfig), None, None)
    check_fit(make("bart"), make("t5", 1, decoder_start_token_id=FIRST["bart"]), None, None)


@pytest.mark.parametrize(
    ("name", "unsaid"),
    [("t5", "decoder_start_token_id"), ("bart", "decoder_start_token_id"), ("whisper", "pad_token_id")],
)
def test_nobody_knows_how_a_text_begins(name, unsaid, tmp_path):
    """An error from inside of a model, about a None."""
    models = {"student": make(name), "teacher": make(name, 1)}
    for model in models.values():
        setattr(model.config, unsaid, None)
    with pytest.raises(MismatchError, match=r"set config\.decoder_start_token_id and config\.pad_token_id"):
        trainer_of(name, tmp_path, **models).train()


def test_a_configuration_need_not_know_how_a_text_begins(tmp_path):
    """An AttributeError for `decoder_start_token_id`, which T5's configuration lacks until somebody sets it."""
    models = {"student": make("t5"), "teacher": make("t5", 1)}
    for model in models.values():
        del model.config.decoder_start_token_id
    with pytest.raises(MismatchError, match=r"set config\.decoder_start_token_id"):
        trainer_of("t5", tmp_path, **models).train()


def test_a_text_cannot_be_scored_without_a_beginning(tmp_path):
    """BART, which scores its own input where it is asked for nothing."""
    rows = Dataset.from_list(make_examples("bart")).remove_columns("labels")
    with pytest.raises(ValueError, match="neither labels nor decoder_input_ids"):
        trainer_of("bart", tmp_path).predict(rows)


def test_labels_beyond_a_decoders_positions_are_refused(tmp_path):
    """An index error in an embedding; on a GPU, the end of the process."""
    for name, message in (("bart", "20 labels in a row"), ("whisper", "20 labels in a row")):
        rows = make_examples(name)
        rows[3]["labels"] = [5] * (ROOM + 4)
        with pytest.raises(MismatchError, match=message):
            trainer_of(name, tmp_path, rows).train()
    rows = make_examples("bart")
    rows[3] |= {"input_ids": [5] * (ROOM + 4), "attention_mask": [1] * (ROOM + 4)}
    with pytest.raises(MismatchError, match="20 tokens in a row"):
        trainer_of("bart", tmp_path, rows).train()


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_stored_of_their_teachers(name, tmp_path):
    """Answers for a text that was masked otherwise, or for no labels at all (BART's, for its own input)."""
    rows, tokenizer = Dataset.from_list(make_examples(name)), make_tokenizer()
    with pytest.raises(MismatchError, match="Leave it in the loop"):
        cache_logits(tmp_path / "cache", make(name, 1), tokenizer, rows)
    with pytest.raises(MismatchError, match="Leave it in the loop"):
        score(make(name, 1), tokenizer, rows)
    with pytest.raises(MismatchError, match="the teacher is a ColumnTeacher: "):
        trainer_of(name, tmp_path, teacher=ColumnTeacher())


@pytest.mark.parametrize("name", MAKERS)
def test_they_write_no_text_of_their_own(name, tmp_path):
    """`generate` of an encoder-decoder, taken for the continuation of a prompt."""
    with pytest.raises(MismatchError, match="writes no text"):
        trainer_of(name, tmp_path, on_policy=OnPolicy(share=1.0), alpha=0.0)


@pytest.mark.parametrize("name", ["t5", "bert"])
def test_packed_rows_are_refused(name, tmp_path):
    """Texts that see one another, since these models do not look at positions that begin anew."""
    row = {"input_ids": [[5, 6, 7, 8]], "position_ids": [[0, 1, 0, 1]], "labels": [[5, -100, 7, 8]]}
    batch = {column: torch.tensor(value) for column, value in row.items()}
    with pytest.raises(MismatchError, match=r"packed into one row, and an? .* would read across them"):
        trainer_of(name, tmp_path, collator=lambda _: batch).train()


def test_features_of_an_encoder_decoder_are_refused(tmp_path):
    """Layers of a decoder, averaged over the tokens of the encoder's text."""
    with pytest.raises(MismatchError, match="an encoder-decoder reads two texts"):
        trainer_of("t5", tmp_path, features=[Feature("hidden_states.0", "hidden_states.0")])


def test_a_masked_language_model_learns_layers_as_distilbert_did(tmp_path):
    """The cosine of DistilBERT's recipe, averaged over tokens with a label and not over all of a text."""
    rows, layer = make_examples("bert"), "bert.encoder.layer.0"
    losses, _ = by_hand("bert", make("bert"), make("bert", 1), rows)
    trainer = trainer_of("bert", tmp_path, rows, features=[Feature(layer, layer, loss="cosine", weight=0.5)])
    trainer.train()
    batch = {column: each for column, each in padded(rows).items() if column != "labels"}
    with torch.no_grad():
        states = [make("bert", seed)(**batch, output_hidden_states=True).hidden_states[1] for seed in (0, 1)]
    real = batch["attention_mask"].bool()
    distance = 1 - nn.functional.cosine_similarity(*(each[real].double() for each in states), dim=-1).mean()
    logged = trainer.state.log_history[0]
    assert logged["feature_loss"] == pytest.approx(0.5 * distance.item(), rel=1e-4)
    assert logged["loss"] == pytest.approx(losses["loss"] + 0.5 * distance.item(), rel=1e-4)


def masking_trainer(folder, **settings):
    tokenizer = make_tokenizer(mask_token="w3")
    torch.manual_seed(5)
    return trainer_of(
        "bert", folder, rows=[{"input_ids": row["input_ids"]} for row in make_examples("bert")],
        collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.4), processing_class=tokenizer,
        max_steps=4, per_device_train_batch_size=4, gradient_accumulation_steps=2, save_strategy="steps", save_steps=2,
        **settings,
    )  # fmt: skip


def test_masks_are_drawn_anew_and_a_resumed_run_draws_the_same(tmp_path):
    """A training that is resumed with other masks than it would have had."""
    whole = masking_trainer(tmp_path / "whole")
    whole.train()
    resumed = masking_trainer(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert torch.equal(weights_of(whole.model), weights_of(resumed.model))
    losses = [log["hard_loss"] for log in whole.state.log_history if "hard_loss" in log]
    assert len(losses) == 4


def test_a_masked_language_model_without_labels_is_a_sentence(tmp_path):
    """Texts that nobody has masked, trained on nothing."""
    rows = [{"input_ids": [5, 6, 7]} for _ in range(16)]
    with pytest.raises(ValueError, match="what is not masked"):
        trainer_of("bert", tmp_path, rows).train()


def pair_of_berts(is_decoder=True):
    half = {"vocab_size": WORDS, **SIZES}
    decoder = BertConfig(**half, is_decoder=True, add_cross_attention=True)
    config = EncoderDecoderConfig(
        encoder=BertConfig(**half), decoder=decoder, decoder_start_token_id=1, pad_token_id=PAD
    )
    model = EncoderDecoderModel(config)
    model.config.decoder.is_decoder = is_decoder
    return model


def test_the_task_goes_by_what_a_model_can_do():
    """BART filed under masked language models, XLM under causal ones, and Voxtral, without a decoder, as one with."""
    assert task_of(make("bart")) == task_of(make("whisper")) == task_of(pair_of_berts()) == "encoder-decoder"
    xlm = {"emb_dim": 16, "n_layers": 1, "n_heads": 2, "n_words": WORDS}
    assert task_of(make("bert")) == task_of(XLMWithLMHeadModel(XLMConfig(**xlm))) == "masked language model"
    assert task_of(BertLMHeadModel(BertConfig(vocab_size=WORDS, is_decoder=True, **SIZES))) == "language model"
    sounds_and_text = type("VoxtralForConditionalGeneration", (type(make_model("bert-classifier")).__mro__[1],), {})
    assert issubclass(VoxtralForConditionalGeneration, nn.Module)
    with pytest.raises(MismatchError, match="nor an encoder-decoder that reads decoder_input_ids"):
        task_of(sounds_and_text(make_model("bert-classifier").config))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: make("bert", is_decoder=True), "is_decoder=False"),
        (
            lambda: XLMWithLMHeadModel(XLMConfig(emb_dim=16, n_layers=1, n_heads=2, n_words=WORDS, causal=True)),
            "causal=False",
        ),
        (lambda: pair_of_berts(is_decoder=False), r"config\.decoder\.is_decoder=True"),
        (lambda: make("bart", output_router_logits=True), "losses of routers"),
    ],
)
def test_one_that_is_set_otherwise_is_refused(model, words):
    """A decoder that sees what it is to say, a masked token that is told from one side, a loss that is left out."""
    with pytest.raises(MismatchError, match=words):
        task_of(model())


class Decoder(nn.Module):
    """A module of somebody's own."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.table = nn.Embedding(WORDS, WORDS)

    def forward(self, input_ids, decoder_input_ids):
        return self.table(input_ids).mean(dim=1, keepdim=True) + self.table(decoder_input_ids)


def test_a_module_of_ones_own_says_its_task(tmp_path):
    """An encoder-decoder that transformers lacks, whose ids nobody makes."""
    rows = [{"input_ids": [5, 6], "labels": [7, 8, -100, 9]} for _ in range(16)]
    models = {"student": Decoder(0), "teacher": Decoder(1)}
    with pytest.raises(MismatchError, match="let the data_collator add decoder_input_ids"):
        trainer_of("t5", tmp_path, rows, collator=padded, task="encoder-decoder", **models).train()
    with_ids = [{**row, "decoder_input_ids": [2, 7, 8, PAD]} for row in rows]
    trainer = trainer_of("t5", tmp_path, with_ids, collator=padded, task="encoder-decoder", **models)
    ids = torch.tensor([[5, 6]]), torch.tensor([[2, 7, 9]])
    with torch.no_grad():
        logits = [model(ids[0], torch.tensor([[2, 7, PAD]]))[0].double().numpy() for model in (Decoder(0), Decoder(1))]
    trainer.train()
    expected = objective_reference.objective(*logits, np.array([7, 8, 9]), alpha=ALPHA, temperature=T).total.value
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-4)
