"""A top k of somebody else's: put where the student predicts, padded, and refused in words where it is none."""

import math

import pytest
import torch
from datasets import Dataset
from shapes import TRAINERS_OWN, WORDS, logged_loss, make_model, make_rows, make_tokenizer, make_trainer, weights_of
from transformers import DataCollatorWithFlattening

from kdcourse import MismatchError, forward_kl, lm_distillation_loss
from kdcourse.collators import LanguageModelCollator
from kdcourse.columns import TOPK_IDS_COLUMN, TOPK_LOG_PROBS_COLUMN
from kdcourse.served import require_served, served_top_k
from kdcourse.teacher import ColumnTeacher, add_top_k, cache_logits
from kdcourse.topk import bucket_log_probs

T1 = {"alpha": 0.4, "temperature": 1.0}


def served_by(model, rows, k, prompts=True):
    """What a server says of each text: nothing of its first token, `k` tokens or fewer in the place of each other.

    With `prompts=False`, also nothing of tokens without a label.
    """
    ids, log_probs = [], []
    for row in rows:
        with torch.no_grad():
            before = model.eval()(torch.tensor([row["input_ids"]])).logits[0, :-1].double().log_softmax(-1)
        said = [
            [] if not (prompts or label != -100) else each.topk(k - place % 2)
            for place, (each, label) in enumerate(zip(before, row["labels"][1:], strict=True))
        ]
        ids.append([None, *([] if each == [] else each.indices.tolist() for each in said)])
        log_probs.append([None, *([] if each == [] else each.values.tolist() for each in said)])
    return ids, log_probs


def taught(rows, model, k, **options):
    return add_top_k(rows, *served_by(model, rows, k, **options))


@pytest.mark.parametrize("side", ["left", "right"])
def test_entries_are_put_where_their_token_is_predicted(side):
    """A teacher that is off by one token, or by the padding."""
    rows = [
        {"input_ids": [3, 4, 5], TOPK_IDS_COLUMN: [None, [7, 8], [9]], TOPK_LOG_PROBS_COLUMN: [[], [-1.0, -2.0], [-3]]},
        {"input_ids": [6, 7], TOPK_IDS_COLUMN: [[], [1]], TOPK_LOG_PROBS_COLUMN: [None, [-4.0]]},
    ]
    batch = LanguageModelCollator(make_tokenizer(pad_side=side))(rows)
    none, gone = [-1, -1], [-math.inf] * 2
    short = [[1, -1], none, none], [[-4, -math.inf], gone, gone]
    assert batch[TOPK_IDS_COLUMN].tolist() == [[[7, 8], [9, -1], none], short[0]]
    assert batch[TOPK_LOG_PROBS_COLUMN].tolist() == [[[-1, -2], [-3, -math.inf], gone], short[1]]
    assert batch["input_ids"].shape == (2, 3)
    assert (batch[TOPK_IDS_COLUMN].dtype, batch[TOPK_LOG_PROBS_COLUMN].dtype) == (torch.long, torch.float32)


def by_hand(student_row, ids, log_probs):
    """KL over the entries and the rest, in float64; the student's row is of logits."""
    student = student_row.double().softmax(-1)
    ours = torch.cat([student[ids], 1 - student[ids].sum(0, keepdim=True)])
    theirs = torch.tensor(log_probs, dtype=torch.float64).exp()
    theirs = torch.cat([theirs, 1 - theirs.sum(0, keepdim=True)])
    return forward_kl(ours.log(), theirs.log()).item()


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_loss_is_the_formula_token_by_token(side):
    """Places that are missing counted as classes, a class 0 that is taken for padding, a rest without its weight."""
    student, rows = make_model("llama-lm"), make_rows("llama-lm", 5)
    ids, log_probs = served_by(make_model("llama-lm", 1), rows, 4, prompts=False)
    batch = LanguageModelCollator(make_tokenizer(pad_side=side))(add_top_k(rows, ids, log_probs).to_list())
    teacher = ColumnTeacher(WORDS).logits(batch)
    with torch.no_grad():
        logits = student.eval()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    loss = lm_distillation_loss(logits, teacher, batch["labels"], alpha=0, temperature=1.0)
    terms = []
    for number, row in enumerate(rows):
        for place in range(1, len(row["input_ids"])):
            if row["labels"][place] != -100:
                terms.append(by_hand(logits[number, place - 1], ids[number][place], log_probs[number][place]))
    assert len(terms) > 10
    assert loss.soft.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_a_trainer_learns_from_it_as_from_a_cache_of_the_same(tmp_path):
    """Columns that vanish, or are handed to the teacher or the student; another step than that of the same numbers."""
    teacher, rows, tokenizer = make_model("llama-lm", 1), make_rows("llama-lm"), make_tokenizer()
    ids, log_probs = served_by(teacher, rows, 5)
    even = (
        [[each and each[:4] for each in row] for row in ids],
        [[each and each[:4] for each in row] for row in log_probs],
    )
    rows_taught = add_top_k(rows, *even)
    steps = []
    cached = cache_logits(tmp_path / "cache", teacher, tokenizer, rows, k=4, temperature=1.0)
    for source, given in ((cached, cached.add_rows(rows)), (None, rows_taught)):
        trainer = make_trainer(
            "llama-lm", tmp_path / "out", rows=given, eval_rows=given, collator=TRAINERS_OWN,
            processing_class=tokenizer, teacher=source or ColumnTeacher(WORDS), **T1,
        )  # fmt: skip
        if source is None:
            default = type(trainer)(trainer.model, trainer.args, train_dataset=given, processing_class=tokenizer)
            assert default.teacher.vocabulary == WORDS
        steps.append((trainer.evaluate()["eval_loss"], logged_loss(trainer), weights_of(trainer.model)))
    assert steps[1][:2] == pytest.approx(steps[0][:2], rel=1e-5)
    torch.testing.assert_close(steps[1][2], steps[0][2], rtol=1e-4, atol=1e-6)


def test_packed_texts_learn_what_padded_ones_do(tmp_path):
    """What a server said of one text, put beside another; a cache whose column a collator has dropped."""
    teacher, rows, tokenizer = make_model("llama-lm", 1), make_rows("llama-lm", 7), make_tokenizer()
    caches = [
        cache_logits(tmp_path / str(number), teacher, tokenizer, rows, **kept)
        for number, kept in enumerate([{}, {"k": 4, "temperature": 1.0}, {"k": 4, "temperature": 1.0, "sampled": True}])
    ]
    sources = [(cached, cached.add_rows(rows)) for cached in caches]
    for source, given in [*sources, (ColumnTeacher(WORDS), taught(rows, teacher, 5))]:
        found = []
        for packed in (False, True):
            trainer = make_trainer(
                "llama-lm", tmp_path / "out", rows=given.remove_columns("attention_mask"), eval_rows=given,
                collator=LanguageModelCollator(tokenizer, packed=packed), teacher=source, per_device_eval_batch_size=3,
                **T1,
            )  # fmt: skip
            found.append((trainer.evaluate()["eval_loss"], logged_loss(trainer)))
        assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_a_column_that_a_collator_dropped_is_named(tmp_path):
    """Somebody who passed a teacher is told that there is none."""
    rows, tokenizer = make_rows("llama-lm"), make_tokenizer()
    cached = cache_logits(tmp_path / "cache", make_model("llama-lm", 1), tokenizer, rows)
    trainer = make_trainer(
        "llama-lm", tmp_path, rows=cached.add_rows(rows), teacher=cached, collator=DataCollatorWithFlattening()
    )
    with pytest.raises(ValueError, match=r"^The batch has \[.*\] and no teacher_row, by which the cache finds a row's"):
        trainer.train()


@pytest.mark.parametrize("form", ["torch", "numpy"])
def test_rows_of_any_format_are_read(form, tmp_path):
    """A warning for each run, which is an error here, and tensors that no column can hold."""
    rows = make_rows("llama-lm", 4)
    ids, log_probs = served_by(make_model("llama-lm", 1), rows, 4)
    of_tensors = [
        [[None if each is None else torch.tensor(each) for each in row] for row in x] for x in (ids, log_probs)
    ]
    collate = LanguageModelCollator(make_tokenizer())
    expected = collate(add_top_k(rows, ids, log_probs).to_list())
    batch = collate(list(add_top_k(rows.with_format(form), *of_tensors)))
    assert batch.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(batch[name], values, rtol=1e-6, atol=0)


def test_another_temperature_is_refused(tmp_path):
    """A rest that is known at temperature 1, used at 2."""
    rows = taught(make_rows("llama-lm"), make_model("llama-lm", 1), 4)
    trainer = make_trainer(
        "llama-lm", tmp_path, rows=rows, collator=TRAINERS_OWN, processing_class=make_tokenizer(),
        teacher=ColumnTeacher(WORDS), temperature=2.0,
    )  # fmt: skip
    with pytest.raises(
        MismatchError, match=r"top \d were kept for 1\.0, and the weight of the rest is known there only"
    ):
        trainer.train()


def test_a_width_that_nobody_said_is_asked_for():
    """The largest id taken for the vocabulary."""
    batch = {TOPK_IDS_COLUMN: torch.zeros(1, 2, 1).long(), TOPK_LOG_PROBS_COLUMN: torch.zeros(1, 2, 1)}
    with pytest.raises(ValueError, match=r"nothing says how many token ids there are; pass .*vocabulary="):
        ColumnTeacher().logits(batch)


@pytest.mark.parametrize("k", [1, 3, 4, 5])
def test_the_rest_is_what_is_missing_to_one(k):
    """A rest of nothing where classes are left, or of something where none is; k beside k - 1 and C."""
    probs = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625])
    ids = torch.arange(k).expand(1, 1, k)
    teacher = served_top_k(ids, probs[:k].log().expand(1, 1, k), 5)
    student = torch.zeros(1, 1, 5, dtype=torch.float64)
    expected = sum(p * math.log(5 * p) for p in probs[:k].tolist())
    left = 1 - probs[:k].sum().item()
    expected += left * math.log(left / (1 - k / 5)) if k < 5 else 0
    loss = lm_distillation_loss(
        student.expand(1, 2, 5), teacher[:, [0, 0]], torch.zeros(1, 2).long(), alpha=0, temperature=1.0
    )
    assert loss.soft.item() == pytest.approx(expected, rel=1e-5)
    for divergence in ("reverse_kl", "jensen_shannon"):
        loss = lm_distillation_loss(
            student.expand(1, 2, 5), teacher[:, [0, 0]], torch.zeros(1, 2).long(), alpha=0, temperature=1.0,
            divergence=divergence,
        )  # fmt: skip
        assert math.isfinite(loss.soft)


def test_a_place_of_which_everything_was_said_stands_beside_one_of_which_little_was():
    """A rest that is lost because its neighbour has none, or because all places together name as many ids."""
    ids = torch.tensor([[[0, 1, 2, 3, 4], [3, -1, -1, -1, -1]]])
    log_probs = torch.tensor([[[0.2] * 5, [0.25] + [0.0] * 4]]).log()
    teacher = served_top_k(ids, log_probs, 5)
    assert teacher.rest.dtype == log_probs.dtype == torch.float32
    ours, theirs = bucket_log_probs(torch.full((1, 2, 5), 0.2).log(), teacher, 1.0)
    assert theirs.exp()[0, 0].tolist() == pytest.approx([0.2] * 5 + [0, 0])
    assert theirs.exp()[0, 1].tolist() == pytest.approx([0.25] + [0] * 5 + [0.75])
    assert ours.exp()[0, 1].tolist() == pytest.approx([0.2] + [0] * 5 + [0.8])
    several = served_top_k(torch.tensor([[0, 1, 2], [3, 4, -1]]), torch.tensor([[0.2] * 3, [0.2, 0.2, 0]]).log(), 5)
    assert several.rest.exp().tolist() == pytest.approx([0.4, 0.6])


def test_probabilities_that_add_up_to_one_leave_something_to_the_rest():
    """Reverse KL without end, since log-probabilities of a server are rounded."""
    ids, log_probs = torch.tensor([[[0, 1]]]), torch.tensor([[[0.001, -9.0]]])
    rest = served_top_k(ids, log_probs, 50).rest.item()
    assert -17 < rest < -16


IDS, LOG_PROBS = [[], [4, 5], [6]], [[], [-1.0, -2.0], [-0.5]]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"ids": IDS[1:]}, MismatchError,
         "A text has 3 tokens, 2 lists in teacher_topk_ids and 3 in teacher_topk_log_probs, but there is one list for "
         "each token, and an empty one where nothing was said."),
        ({"ids": [[], [4], [6]]}, MismatchError,
         "A text, token 1: there are 1 ids and 2 log-probabilities, but each id has its own."),
        ({"ids": [[4, 5], [6], []], "log_probs": [[-1.0, -2.0], [-0.5], []]}, MismatchError,
         "A text has 2 ids for its first token, which nothing predicts: entries stand beside the token that they "
         "predict; if yours stand beside the one before it, as a model's logits do, put an empty list in front and "
         "leave out the last."),
        ({"ids": [[], [4], None], "log_probs": [[], [-1.0], None]}, MismatchError,
         "A text, token 2: it has a label, and nothing was said in its place. Give it the label -100, if it is not to "
         "be learned. Else, entries stand beside the token that they predict; if yours stand beside the one before it, "
         "as a model's logits do, put an empty list in front and leave out the last."),
        ({"ids": [[], [4, 40], [6]]}, ValueError,
         "A text, token 1: 40 is no token id, which are 0 to 39; leave it out, and its probability belongs to the "
         "rest."),
        ({"ids": [[], [4, 5], [-1]]}, ValueError,
         "A text, token 2: -1 is no token id, which are 0 to 39; leave it out, and its probability belongs to the "
         "rest."),
        ({"ids": [[], [4, -5], [6]], "vocabulary": None}, ValueError,
         "A text, token 1: -5 is no token id, which are from 0 on; leave it out, and its probability belongs to the "
         "rest."),
        ({"ids": [[], [4, 4], [6]]}, ValueError, "A text, token 1: id 4 is there twice, but each counts once."),
        ({"ids": [[], ["der", "die"], [6]]}, ValueError,
         "teacher_topk_ids holds ['der', 'die'] for a token, but ids are whole numbers and log-probabilities are "
         "numbers."),
        ({"ids": [[], [4.5, 5.0], [6]]}, ValueError,
         "teacher_topk_ids holds [4.5, 5.0] for a token, but ids are whole numbers and log-probabilities are numbers."),
        ({"ids": [[], {4: 1, 5: 1}.keys(), [6]]}, ValueError,
         "teacher_topk_ids holds dict_keys([4, 5]), which is no list, for a token, but ids are whole numbers and "
         "log-probabilities are numbers."),
        ({"log_probs": [[], [-1.0, None], [-0.5]]}, ValueError,
         "teacher_topk_log_probs holds [-1.0, None] for a token, but ids are whole numbers and log-probabilities are "
         "numbers."),
        ({"log_probs": [[], [-1.0, math.nan], [-0.5]]}, ValueError,
         "A text, token 1: the log-probability of id 5 is not a number."),
        ({"log_probs": [[], [-1.0, -2.0], [0.75]]}, ValueError,
         "A text, token 2: the log-probability of id 6 is 0.75, but a probability is at most 1 and its logarithm at "
         "most 0; if these are probabilities, take their logarithms."),
        ({"log_probs": [[], [math.log(0.9), math.log(0.115)], [-0.5]]}, ValueError,
         "A text, token 1: the probabilities of its 2 ids add up to 1.015, but those of all ids are 1 together; ask "
         "for natural logarithms at temperature 1."),
        ({"log_probs": [[], [-0.5, -0.5], [-0.5]]}, ValueError,
         "A text, token 1: the probabilities of its 2 ids add up to 1.213, but those of all ids are 1 together; ask "
         "for natural logarithms at temperature 1."),
    ],
)  # fmt: skip
def test_what_is_no_top_k_is_said(change, error, words):
    """A student that learns the wrong token's distribution, or none."""
    given = {"ids": IDS, "log_probs": LOG_PROBS, "tokens": [3, 4, 6], "vocabulary": 40} | change
    with pytest.raises(error) as refused:
        require_served("A text", **given)
    assert str(refused.value) == words


def test_what_is_a_top_k_is_taken():
    """None for nothing, arrays for lists, a prompt without entries, -inf and a sum that rounding lifts above 1."""
    given = {"ids": [None, [], torch.tensor([6, 0])], "log_probs": [None, [], torch.tensor([0.001, -math.inf])]}
    counts, ids, log_probs = require_served("A text", tokens=[3, 4, 6], labels=[-100, -100, 6], **given)
    assert (counts, ids.tolist(), log_probs[1]) == ([0, 0, 2], [6, 0], -math.inf)
    assert require_served("A text", [[]], [None], [3])[0] == [0]


def test_each_row_needs_both_columns():
    """A batch in which one text learns from nothing."""
    good = {"input_ids": [3, 4], TOPK_IDS_COLUMN: [[], [1]], TOPK_LOG_PROBS_COLUMN: [[], [-1.0]]}
    collate = LanguageModelCollator(make_tokenizer())
    for lost in (TOPK_IDS_COLUMN, TOPK_LOG_PROBS_COLUMN):
        bad = {name: value for name, value in good.items() if name != lost}
        with pytest.raises(MismatchError, match=f"^Row 1 of the batch has no {lost}, but a top k is both columns"):
            collate([good, bad])
    assert TOPK_IDS_COLUMN not in collate([{"input_ids": [3, 4]}])
    with pytest.raises(ValueError, match=r"Row 0 of the batch, token 1: 40 is no token id, which are 0 to 39"):
        collate([good | {TOPK_IDS_COLUMN: [[], [40]]}])


def test_a_batch_of_which_nothing_was_said_has_a_place():
    """A batch of prompts alone, without a column k."""
    row = {"input_ids": [3, 4], "labels": [-100] * 2, TOPK_IDS_COLUMN: [[], []], TOPK_LOG_PROBS_COLUMN: [[], []]}
    batch = LanguageModelCollator(make_tokenizer())([row, row])
    assert batch[TOPK_IDS_COLUMN].tolist() == [[[-1], [-1]]] * 2
    teacher = ColumnTeacher(WORDS).logits(batch)
    student = torch.zeros(2, 2, WORDS, requires_grad=True)
    loss = lm_distillation_loss(student, teacher, batch["labels"], alpha=0.5, temperature=1.0)
    assert loss.total.item() == 0


def test_a_dataset_is_looked_at_before_it_is_learned_from():
    """Row 7,000 of the wrong length, found after an hour of training."""
    rows = Dataset.from_dict({"input_ids": [[3, 4], [3, 4]], "labels": [[3, 4], [-100, -100]]})
    with pytest.raises(
        MismatchError, match=r"There are ids for 1 rows and log_probs for 2, and the dataset has 2; each"
    ):
        add_top_k(rows, [[[], [1]]], [[[], [-1.0]]] * 2)
    with pytest.raises(MismatchError, match=r"Row 0, token 1: it has a label, and nothing was said"):
        add_top_k(rows, [[[], []]] * 2, [[[], []]] * 2)
    kept = add_top_k(rows, [[None, [1]], [None, None]], [[None, [-1.0]], [None, None]])
    batch = LanguageModelCollator(make_tokenizer())(kept.to_list())
    assert batch[TOPK_IDS_COLUMN].tolist() == [[[1], [-1]], [[-1], [-1]]]


def test_packed_entries_are_put_where_their_token_is_predicted():
    """A text's entries that slip into its neighbour, by one place for each text before it."""
    rows = [
        {"input_ids": [3, 4, 5], TOPK_IDS_COLUMN: [None, [7, 8], [9]], TOPK_LOG_PROBS_COLUMN: [[], [-1.0, -2.0], [-3]]},
        {"input_ids": [6, 7], TOPK_IDS_COLUMN: [[], [1]], TOPK_LOG_PROBS_COLUMN: [None, [-4.0]]},
    ]
    for side in ("left", "right"):
        batch = LanguageModelCollator(make_tokenizer(pad_side=side), packed=True)(rows)
        assert batch[TOPK_IDS_COLUMN].tolist() == [[[7, 8], [9, -1], [-1, -1], [1, -1], [-1, -1]]]
        assert batch["labels"].tolist() == [[-100, 4, 5, -100, 7]]
        assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
