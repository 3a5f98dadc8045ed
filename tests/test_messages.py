"""Every refusal of the objective and of the checks, word for word: what was given, which rule it breaks, what to do."""

import math

import pytest
import torch
from shapes import load_without_head, make_classifier, make_model, make_tokenizer

from kdcourse import (
    MismatchError,
    check_classifiers,
    check_language_models,
    distillation_loss,
    forward_kl,
    jensen_shannon,
    lm_distillation_loss,
    reverse_kl,
)
from kdcourse.compat import require_same_task
from kdcourse.loss import resolve_divergence
from kdcourse.tasks import task_of
from kdcourse.topk import top_k

ROWS, TOKENS = torch.zeros(2, 3), torch.zeros(2, 4, 3)
ROW_LABELS, TOKEN_LABELS = torch.tensor([0, 1]), torch.ones(2, 4, dtype=torch.long)


def rows(student=ROWS, teacher=ROWS, labels=ROW_LABELS, **changes):
    return distillation_loss(student, teacher, labels, **{"alpha": 0.5, "temperature": 2.0} | changes)


def tokens(student=TOKENS, teacher=TOKENS, labels=TOKEN_LABELS):
    return lm_distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0)


def refusal(error, call):
    """The words of the error that a call raises."""
    with pytest.raises(error) as refused:
        call()
    return str(refused.value)


def spoiled(value, row=1):
    logits = torch.zeros(3, 3)
    logits[row] = value
    return logits


SHAPES = (
    "{} has shape (2, 3) and {} (2, 1), but they are compared row for row and class for class; check the models' "
    "num_labels (or vocabulary sizes) and batches."
)
NO_NUMBER = (
    "{} hold {} as the largest value of row {}, and no probabilities follow from that; look for an overflow in the "
    "model "
    "(float16?), or for a mask that leaves no class."
)
OBJECTIVE = [
    (lambda: rows(alpha=1.5), "alpha is 1.5, but the weight of the labels must lie between 0 and 1."),
    (lambda: rows(temperature=-1.0),
     "temperature is -1.0, but it must be a finite number above 0; 1 leaves logits alone."),
    (lambda: rows(temperature=1e200),
     "temperature is 1e+200, but it must be a finite number above 0; 1 leaves logits alone."),
    (lambda: rows(labels=None), "alpha is 0.5, but there are no labels to weight; pass labels, or alpha=0."),
    (lambda: rows(divergence="kl"),
     "divergence is 'kl'; it can be forward_kl, reverse_kl, jensen_shannon, or a function."),
    (lambda: rows(num_items=-1), "num_items holds -1.0, but it counts rows: a finite number, 0 or more."),
    (lambda: rows(num_items=(1, math.inf)), "num_items holds inf, but it counts rows: a finite number, 0 or more."),
    (lambda: rows(labels=torch.tensor([0, 3])),
     "labels hold 3, but with 3 classes a label is 0 to 2, or -100 for none."),
    (lambda: rows(labels=torch.tensor([-1, 0])),
     "labels hold -1, but with 3 classes a label is 0 to 2, or -100 for none."),
    (lambda: rows(labels=torch.zeros(2)),
     "labels are torch.float32, but cross-entropy needs whole class ids (torch.long)."),
    (lambda: rows(labels=torch.tensor([True, False])),
     "labels are torch.bool, but cross-entropy needs whole class ids (torch.long)."),
    (lambda: rows(label_smoothing=1.1),
     "label_smoothing is 1.1, but it is a share of the label, between 0 and 1."),
    (lambda: rows(spoiled(math.nan), torch.zeros(3, 3), torch.zeros(3).long()),
     NO_NUMBER.format("student_logits", "nan", 1)),
    (lambda: rows(torch.zeros(3, 3), spoiled(math.inf, 2), torch.zeros(3).long()),
     NO_NUMBER.format("teacher_logits", "inf", 2)),
    (lambda: rows(torch.zeros(3, 3), top_k(spoiled(-math.inf, 0), 2, 2.0), torch.zeros(3).long()),
     NO_NUMBER.format("teacher_logits", "-inf", 0)),
    (lambda: rows(divergence=lambda student, teacher: student.sum(-1) * math.nan),
     "The objective is not a number at temperature 2.0: the divergence gives NaN."),
    (lambda: rows(divergence="jensen_shannon", beta=0),
     "beta is 0, but it must lie strictly between 0 and 1; at the ends use forward_kl or reverse_kl."),
    (lambda: rows(beta=0.1),
     "beta is 0.1, and divergence 'forward_kl' has none; leave it out, or take 'jensen_shannon'."),
    (lambda: rows(reduction="sum"), "reduction is 'sum'; it can be 'mean' or 'none'; for sums, pass num_items=1."),
    (lambda: rows(reduction="none", num_items=3),
     "num_items is what sums are divided by, and reduction='none' makes no sums; leave out one."),
    (lambda: rows(class_weights=torch.tensor([1.0, -0.5, 1.0])),
     "class_weights hold -0.5 for class 1, but a weight is a finite number, 0 or more."),
    (lambda: rows(class_weights=torch.tensor([1.0, 1.0, math.nan])),
     "class_weights hold nan for class 2, but a weight is a finite number, 0 or more."),
    (lambda: rows(torch.full((2, 3), 1e38), temperature=0.01),
     "Logits divided by temperature 0.01 overflow; take a larger one."),
    (lambda: tokens(labels=None),
     "labels are None, but they mark the tokens that teach: pass token ids, with -100 for prompt, padding and "
     "what is not masked."),
    (lambda: top_k(ROWS, 4, 1.0), "k is 4, but of 3 classes between 1 and 3 can be kept."),
    (lambda: top_k(ROWS, 0, 1.0), "k is 0, but of 3 classes between 1 and 3 can be kept."),
    (lambda: jensen_shannon(ROWS, ROWS, 1.0),
     "beta is 1.0, but it must lie strictly between 0 and 1; at the ends use forward_kl or reverse_kl."),
    (lambda: resolve_divergence("tv"),
     "divergence is 'tv'; it can be forward_kl, reverse_kl, jensen_shannon, or a function."),
]  # fmt: skip
MISMATCHES = [
    *((lambda function=function: function(ROWS, torch.zeros(2, 1)),
       SHAPES.format("student_log_probs", "teacher_log_probs"))
      for function in (forward_kl, reverse_kl, jensen_shannon)),
    (lambda: rows(teacher=torch.zeros(2, 1)), SHAPES.format("student_logits", "teacher_logits")),
    (lambda: rows(TOKENS, TOKENS, TOKEN_LABELS),
     "Logits have shape (2, 4, 3), but a classifier's are (N, C): one row per example. For the tokens of a language "
     "model, (B, T, V), there is lm_distillation_loss."),
    (lambda: rows(labels=torch.zeros(2, 3).long()),
     "labels have shape (2, 3) and logits (2, 3), but there must be one label per row; pass class ids, not one-hot "
     "rows."),
    (lambda: rows(class_weights=torch.ones(2)),
     "class_weights have shape (2,) and logits (2, 3), but there must be one weight per class."),
    (lambda: tokens(ROWS, ROWS, ROW_LABELS),
     "Logits have shape (2, 3), but a language model's are (B, T, V). For the rows of a classifier, (N, C), there is "
     "distillation_loss."),
    (lambda: tokens(labels=TOKEN_LABELS[:, 1:]),
     "labels have shape (2, 3) and logits (2, 4, 3), but there must be one label per token, not shifted: the shift is "
     "made here."),
    (lambda: rows(teacher=top_k(torch.zeros(2, 4), 2, 2.0)),
     "student_logits has shape (2, 3) and teacher_logits (2, 4), but they are compared row for row and class for "
     "class; check the models' num_labels (or vocabulary sizes) and batches."),
    (lambda: rows(teacher=top_k(ROWS, 2, 3.0)),
     "temperature is 2.0, but the teacher's top 2 were kept for 3.0, and the weight of the rest is known there only; "
     "take that temperature, or score the teacher anew."),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), OBJECTIVE)
def test_what_is_out_of_range_is_said_whole(call, message):
    """A number from the depths of PyTorch, or an error that names neither the value nor the remedy."""
    assert refusal(ValueError, call) == message


@pytest.mark.parametrize(("call", "message"), MISMATCHES)
def test_what_does_not_fit_is_said_whole(call, message):
    """A mismatch that shows one side only."""
    assert refusal(MismatchError, call) == message


def question_answerer():
    from transformers import BertForQuestionAnswering

    return BertForQuestionAnswering(make_model("bert-classifier").config)


A_B_C, SWAPPED = ["a", "b", "c"], {"a": 0, "b": 2, "c": 1}
PAIRS = [
    (lambda: check_classifiers(make_classifier(), make_classifier(num_labels=2)),
     "The student has 3 labels and the teacher 2, but they must distribute over the same classes; load the student "
     "with num_labels=2."),
    (lambda: check_classifiers(make_classifier(names=A_B_C), make_classifier(names=["c", "a", "b"])),
     "Student and teacher have the same labels in another order, ['a', 'b', 'c'] and ['c', 'a', 'b']: class 0 of one "
     "is not class 0 of the other. Load the student with id2label={0: 'c', 1: 'a', 2: 'b'}, or reorder the teacher's "
     "logits: logits[:, [1, 2, 0]]."),
    (lambda: check_classifiers(make_classifier(names=A_B_C), make_classifier(names=["a", "b", "d"])),
     "The student's labels are ['a', 'b', 'c'] and the teacher's ['a', 'b', 'd']. If they mean the same, give both "
     "models the same id2label and label2id; if not, this teacher cannot teach this student."),
    (lambda: check_classifiers(make_classifier(problem_type="regression"), make_classifier()),
     "The student's problem_type is regression, but the objective compares distributions over classes that exclude "
     "each other; set it to 'single_label_classification' if they do."),
    (lambda: check_classifiers(make_classifier(), make_classifier(num_labels=1)),
     "The teacher has num_labels=1, which transformers takes for regression; a classifier needs at least 2 (two "
     "classes: num_labels=2, not 1)."),
    (lambda: check_classifiers(make_classifier(names=A_B_C, label2id={"a": 0, "b": "1", "c": 2}), make_classifier()),
     "The student's label2id holds {'b': '1'}, but a label id is an integer: transformers keeps and saves strings "
     "without a word. Pass repair=True, or set label2id={'negative': 0, …}."),
    (lambda: check_classifiers(make_classifier(names=A_B_C, label2id=SWAPPED), make_classifier()),
     "The student's label2id {'a': 0, 'b': 2, 'c': 1} is not the inverse of its id2label {0: 'a', 1: 'b', 2: 'c'}; "
     "they must name the same labels with the same ids."),
    (lambda: check_classifiers(make_classifier("gpt2-classifier", pad_token_id=None), make_classifier()),
     "The student (GPT2ForSequenceClassification) classifies by the last token that is no padding, and its "
     "configuration has no pad_token_id: it fails on two sentences of different length. Pass its tokenizer and "
     "repair=True, or set config.pad_token_id."),
    (lambda: require_same_task(make_classifier(), make_model("gpt2-lm")),
     "The student (BertForSequenceClassification) is a classifier and the teacher (GPT2LMHeadModel) a language model; "
     "load the teacher with the student's class."),
    (lambda: task_of(question_answerer()),
     "BertForQuestionAnswering is neither a classifier (of examples or of tokens), nor a causal or masked language "
     "model, nor an encoder-decoder that reads decoder_input_ids, and its logits are compared by other rules. Where "
     "logits and labels stand at the same places, take token_distillation_loss; else distillation_loss on rows that "
     "you select yourself."),
    (lambda: check_language_models(make_model("gpt2-lm"), make_model("gpt2-lm", vocab_size=39), make_tokenizer(),
                                   make_tokenizer()),
     "The teacher has 39 token ids and the tokenizer 40: it can neither read nor predict the last ones. Load the "
     "tokenizer that it was trained with, without added tokens."),
    (lambda: check_language_models(make_model("gpt2-lm"), make_model("gpt2-lm"), make_tokenizer(),
                                   make_tokenizer(swap=(7, 9))),
     "The tokenizers of student (40 tokens) and teacher (40) agree in 38 ids and differ in 2: id 7 is 'w7' here and "
     "'w9' there; id 9 is 'w9' here and 'w7' there. A language model's distribution is over ids, so each id must mean "
     "the same; use the teacher's tokenizer for both. resize_token_embeddings would make the widths equal, not the "
     "meanings."),
    (lambda: check_language_models(make_model("gpt2-lm"), make_model("gpt2-lm"), make_tokenizer(),
                                   make_tokenizer(eos_token="w5")),
     "The student's eos_token_id is 1 and the teacher's 5: the same ids, but a text begins or ends differently for "
     "each. Set both to the token that the teacher was trained with."),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), PAIRS)
def test_a_pair_that_does_not_fit_is_said_whole(call, message):
    """A refusal that leaves the reader to find out which model, which field and which remedy."""
    assert refusal(MismatchError, call) == message


def test_an_untrained_head_is_said_whole(tmp_path):
    """A teacher that is refused, and nobody knows why: it answers."""
    teacher = load_without_head(tmp_path)
    assert refusal(MismatchError, lambda: check_classifiers(make_classifier(), teacher)) == (
        "The classification head of the teacher (BertForSequenceClassification) was not in the checkpoint that it was "
        "loaded from: it is random, and so is what it would teach. Fine-tune it first, or load a checkpoint with a "
        "head (if you have trained it just now: save it and load it)."
    )
