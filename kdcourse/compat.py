"""May this student learn from this teacher? What must match, and the error that says what does not (lesson 06)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from kdcourse.checks import MismatchError
from kdcourse.columns import (
    ANSWERS,
    DECODER_COLUMN,
    LABEL_COLUMNS,
    LABELS,
    TEACHER_PREFIX,
    has_own_columns,
    once_per_model,
    reads_segments,
    unwrapped,
)
from kdcourse.decoders import require_same_beginning
from kdcourse.tasks import LABELLED_TASKS, VOCABULARY_TASKS, Task, registered_task, task_of, with_article

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHOWN_DIFFERENCES = 3

POSITION_TABLES = ("position_embeddings", "wpe", "embed_positions", "positions_embed")
"""What models call the table that they look positions up in."""

NO_TABLE_BUT_AN_END = ("canary_decoder", "canine", "codegen", "cohere_asr", "ctrl", "gptj", "mpt", "reformer")
"""Model types that have positions for as many tokens as their configuration says, in no table of that many rows; or in
one whose name (`pos_emb`) others have for something else.
"""

ROWS_BEFORE_THE_FIRST = 2
"""The most that a table of positions has more rows than a model has positions."""

SURE = 7
"""Standard errors from what initialisation draws, beyond which a head has been trained."""


def check_classifiers(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    student_tokenizer: PreTrainedTokenizerBase | None = None,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    repair: bool = False,
) -> None:
    """Do two classifiers answer the same question, and are both fit to answer it?

    They need the same labels in the same order, one label per example, integer label ids, a pad token where the
    last real token is looked up, and a teacher whose head was trained. They may read different tokenizers.

    Args:
        student, teacher: sequence classifiers of transformers, with or without an adapter of peft.
        student_tokenizer, teacher_tokenizer: from which a missing pad token can be taken.
        repair: change what is safe to change, in the models' configurations: label ids that are strings become
            integers, and a missing pad token becomes the tokenizer's.

    Raises:
        MismatchError: the first thing that does not match, and what to do about it.
    """
    check_classifier("student", student, student_tokenizer, repair=repair)
    check_classifier("teacher", teacher, teacher_tokenizer, repair=repair)
    _require_same_labels(student.config, teacher.config)


def check_language_models(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    student_tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase,
) -> int:
    """Does each token id mean the same to both language models?

    The tokenizers are compared id by id, special tokens included. The models may be wider than the tokenizer, each by
    another padding (151,936 and 152,064 for one tokenizer): the ids in between mean nothing.

    Returns:
        The size of the shared vocabulary: slice both models' logits to `[..., :size]`.

    Raises:
        MismatchError: it shows the first ids that differ, and says what to do.
    """
    return shared_vocabulary(vocabulary_of(student), vocabulary_of(teacher), student_tokenizer, teacher_tokenizer)


def shared_vocabulary(
    students: int | None,
    teachers: int | None,
    student_tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase,
) -> int:
    """Of two language models, as `check_language_models` has it, that have logits for so many token ids.

    Raises:
        MismatchError: see there.
    """
    ours, theirs = _tokens_by_id(student_tokenizer), _tokens_by_id(teacher_tokenizer)
    differing = [index for index in sorted(ours.keys() | theirs.keys()) if ours.get(index) != theirs.get(index)]
    if differing:
        raise MismatchError(_describe_difference(ours, theirs, differing))
    _require_same_special_tokens(student_tokenizer, teacher_tokenizer)
    shared = max(ours) + 1
    for role, width in (("student", students or 0), ("teacher", teachers or 0)):
        if width < shared:
            raise MismatchError(
                f"The {role} has {width:,} token ids and the tokenizer {shared:,}: it can neither read "
                "nor predict the last ones. Load the tokenizer that it was trained with, without added tokens."
            )
    return shared


def check_fit(
    student: Any,
    teacher: Any,
    student_tokenizer: Any,
    teacher_tokenizer: PreTrainedTokenizerBase | None,
    said: Task | None = None,
) -> int | None:
    """Refuse a pair that cannot work; for language models, of whichever task, the vocabulary that they share.

    Modules that are no models of transformers, and classes of one's own of which somebody has `said` the task, are not
    looked into; the first batch is, and shapes are at each step.

    Raises:
        MismatchError: see `check_classifiers`, `check_language_models` and `decoders.require_same_beginning`.
        ValueError: student and teacher share weights, which the student's training would change.
    """
    if {id(weight) for weight in student.parameters()} & {id(weight) for weight in teacher.parameters()}:
        raise ValueError(
            "Student and teacher share weights: each step would change the teacher, and the teacher is frozen. "
            "Pass copy.deepcopy(model) as the teacher."
        )
    if (task := require_same_task(student, teacher, said)) is None:
        check_alone("student", student, student_tokenizer, said)
        check_alone("teacher", teacher, teacher_tokenizer or student_tokenizer, said)
        return None
    if task in LABELLED_TASKS:
        check_classifiers(student, teacher, student_tokenizer, teacher_tokenizer or student_tokenizer, repair=True)
    if task == "encoder-decoder":
        require_same_beginning(student, teacher)
    if student_tokenizer is not None and teacher_tokenizer is not None and task in VOCABULARY_TASKS:
        return check_language_models(student, teacher, student_tokenizer, teacher_tokenizer)
    ours, theirs = vocabulary_of(student), vocabulary_of(teacher)
    if ours and theirs and ours != theirs and teacher_tokenizer is None:
        raise MismatchError(
            f"The student's vocabulary has {ours:,} ids and the teacher's {theirs:,}, so an id may mean "
            "another word to each. Pass the two tokenizers, processing_class and teacher_processing_class: language "
            "models are then compared id by id, and a classifier's teacher can read columns of its own (see "
            "kdcourse.columns.tokenize)."
        )
    return None


def tokenizer_of(processing_class: Any) -> PreTrainedTokenizerBase | None:
    """The tokenizer among what prepares a model's inputs: all of it, a part of it, or none (of pictures)."""
    from transformers import PreTrainedTokenizerBase

    if isinstance(processing_class, PreTrainedTokenizerBase):
        return processing_class
    return getattr(processing_class, "tokenizer", None)


def require_room(role: str, model: Any, features: Mapping[str, Any]) -> None:
    """A text is not longer than the table of positions of a model that has one, nor what a decoder says.

    Raises:
        MismatchError: it is; on a GPU, the look-up would end the process, not the call.
    """
    readers = {"input_ids": model}
    if DECODER_COLUMN in features and hasattr(inside := unwrapped(model), "get_decoder"):
        readers = {"input_ids": inside.get_encoder(), DECODER_COLUMN: inside.get_decoder()}
    for column, reader in readers.items():
        ids = features.get(column)
        if ids is None or (room := positions_of(reader)) is None:
            continue
        positions = features.get(column.replace("input", "position"))  # of packed texts, or of text behind padding
        if ids.shape[1] > room and (positions is None or positions.max() >= room):
            what = "tokens" if column == "input_ids" else "labels"
            raise MismatchError(
                f"A batch has {ids.shape[1]:,} {what} in a row, and the {role} ({type(unwrapped(model)).__name__}) has "
                f"{room:,} positions; cut the texts at max_length={room} when they are tokenized."
            )


def differing_ids(student_tokenizer: PreTrainedTokenizerBase, teacher_tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """The student's ids that are another token to the teacher, or none: (K,), ascending."""
    ours, theirs = _tokens_by_id(student_tokenizer), _tokens_by_id(teacher_tokenizer)
    return torch.tensor([index for index in sorted(ours) if ours[index] != theirs.get(index)], dtype=torch.long)


def first_misread(teacher: Any, batch: Mapping[str, Any], differing: Tensor) -> int | None:
    """The lowest id of a batch that a teacher would take for another token; None if it has columns of its own, or reads
    all as the student does.

    Args:
        differing: see `differing_ids`. Where there are some, this waits for the device.
    """
    ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    if ids is None or not len(differing) or has_own_columns(batch, teacher):
        return None
    read = ids if mask is None or mask.shape != ids.shape else ids[mask.bool()]  # a pad token is read by nobody
    wrong = read[torch.isin(read, differing.to(read.device))]
    return int(wrong.min()) if len(wrong) else None


def said_of_misread(
    teacher: Any, index: int, student_tokenizer: PreTrainedTokenizerBase, teacher_tokenizer: PreTrainedTokenizerBase
) -> str:
    """What to say where a teacher would read an id of the student's as another token."""
    ours, theirs = _tokens_by_id(student_tokenizer), _tokens_by_id(teacher_tokenizer)
    return (
        f"The teacher ({type(unwrapped(teacher)).__name__}) has a tokenizer of its own, and the rows have the "
        f"student's ids alone: id {index} is {_quote(ours[index])} to the student and {_quote(theirs.get(index))} to "
        f"the teacher. Add what the teacher reads, kdcourse.columns.tokenize(rows, teacher_tokenizer, "
        f"prefix={TEACHER_PREFIX!r})."
    )


def require_segments(teacher: Any, batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase | None) -> None:
    """A teacher that tells two texts of a row apart by token types is given them, or columns of its own.

    Raises:
        MismatchError: a row holds a pair, and nothing says where the second text begins: a student's tokenizer, such as
            DistilBERT's, makes no token types, and the teacher would read both texts as the first.
    """
    separator, ids = getattr(tokenizer, "sep_token_id", None), batch.get("input_ids")
    if separator is None or ids is None or "token_type_ids" in batch or not reads_segments(teacher):
        return
    if has_own_columns(batch, teacher) or any(name in batch for name in ANSWERS):
        return
    if ((ids == separator).sum(dim=1) > 1).any():
        raise MismatchError(
            f"A row holds two texts, and the batch has no token_type_ids, by which the teacher "
            f"({type(unwrapped(teacher)).__name__}) tells them apart: {type(tokenizer).__name__} makes none. Tokenize "
            "with the teacher's tokenizer; the student is not shown what it does not read. (Was the teacher trained "
            "without them? Add a column of zeros.)"
        )


def require_label_ids(dataset: Any) -> None:
    """The labels of a `datasets.Dataset` are class ids, and not names of classes, unless it makes them as it is read.

    Raises:
        MismatchError: they are texts, as in most files of comma-separated values.
    """
    if getattr(dataset, "format", {}).get("type") == "custom":  # with_transform
        return
    for name in LABEL_COLUMNS:
        feature = (dataset.features or {}).get(name)
        while (inner := getattr(feature, "feature", None)) is not None:  # of tokens, there is a list of them
            feature = inner
        if getattr(feature, "dtype", None) in ("string", "large_string"):
            new = LABELS if name != LABELS else "label"
            raise MismatchError(
                f"The column {name!r} holds texts, and a label is a class id. Take the id that the models have for "
                f"each, into a column of another name, since datasets may turn an id in this one back into text: "
                f"dataset.map(lambda row: {{{new!r}: model.config.label2id[row[{name!r}]]}}, "
                f"remove_columns=[{name!r}])."
            )


def lost_steps(student: nn.Module, learning_rate: float) -> str | None:
    """In words, that training a student's weights in 16 bits loses steps; None if they have more.

    A weight w has neighbours at a distance of at least eps · |w| / 2, and stays where it is by a step of less than half
    of that. AdamW's step is about the learning rate.
    """
    for weight in student.parameters():
        if weight.requires_grad and weight.is_floating_point() and weight.element_size() < 4:  # noqa: PLR2004  (32 bits)
            kind = str(weight.dtype).removeprefix("torch.")
            return (
                f"The student's weights are {kind}, as transformers loads them from such a checkpoint. A weight above "
                f"{4 * learning_rate / torch.finfo(weight.dtype).eps:.2g} in size does not move by a step of "
                f"learning_rate={learning_rate:g}, which is rounded away. Load the student with dtype=torch.float32; "
                "bf16=True computes in 16 bits all the same."
            )
    return None


@once_per_model
def positions_of(model: Any) -> int | None:
    """The most tokens that a table of positions has room for; None if the model computes positions, or has none."""
    model = unwrapped(model)
    config = _config_of_texts(model)
    declared = getattr(config, "max_position_embeddings", None)
    if getattr(config, "model_type", None) in NO_TABLE_BUT_AN_END:
        return declared or config.max_seq_len
    if getattr(config, "reset_position_index_per_cell", False):  # Tapas counts anew in each cell of a table
        return None
    for name, module in model.named_modules():
        rows = _rows(module) if name.rpartition(".")[2] in POSITION_TABLES else None
        if rows is None or hasattr(module, "make_weight"):  # FSMT's table grows with the text
            continue
        if declared and not 0 <= rows - declared <= ROWS_BEFORE_THE_FIRST:  # that of sounds beside the text, say
            continue
        # Tables that count from the padding token on (RoBERTa, OPT) have as many rows more.
        padding = getattr(module, "padding_idx", None)
        room = rows - getattr(module, "offset", 0 if padding is None else padding + 1)
        holder = model.get_submodule(name.rpartition(".")[0])
        if hasattr(holder, "ngram_embeddings"):  # ProphetNet's decoder looks up the position that it predicts, too
            room -= 1
        return min(room, declared) if declared else room
    return None


def _config_of_texts(model: Any) -> Any:
    config = getattr(model, "config", None)
    return config.get_text_config() if config is not None and hasattr(config, "get_text_config") else config


def _rows(module: nn.Module) -> int | None:
    """The rows of a table: an `nn.Embedding`, or a class of somebody's own with such a weight (I-BERT)."""
    weight = getattr(module, "weight", None)
    return len(weight) if isinstance(weight, Tensor) and weight.ndim == 2 else None  # noqa: PLR2004


def balance_weight(model: Any) -> float:
    """What the loss of a mixture's router weighs in the model's own loss, which calls it by several names.

    Raises:
        MismatchError: it is nowhere to be found.
    """
    model = unwrapped(model)
    for holder in (model, _config_of_texts(model)):
        for name in ("router_aux_loss_coef", "aux_loss_coef"):
            if (weight := getattr(holder, name, None)) is not None:
                return float(weight)
    raise MismatchError(
        f"{type(model).__name__} gives a router's loss, and neither the model nor its configuration has a "
        "router_aux_loss_coef that says what it weighs; set config.router_aux_loss_coef, or output_router_logits=False."
    )


def require_output_per_label(model: Any, logits: Tensor) -> None:
    """A classifier of transformers gives one logit for each label that its configuration counts.

    Raises:
        MismatchError: it gives others; they may be answers to several questions at once, one sigmoid each.
    """
    config = unwrapped(model).config
    if logits.shape[-1] != config.num_labels:
        raise MismatchError(
            f"{type(unwrapped(model)).__name__} gives {logits.shape[-1]} outputs and its configuration counts "
            f"{config.num_labels} labels, but a softmax is over the labels; load it with "
            f"num_labels={logits.shape[-1]} if each output is one of them."
        )


def require_same_task(student: Any, teacher: Any, said: Task | None = None) -> Task | None:
    """The task of both (see `kdcourse.tasks.task_of`); None if one of them is a class of one's own.

    Raises:
        MismatchError: the tasks differ, or are not among those that are known.
    """
    ours, theirs = task_of(student, said), task_of(teacher, said)
    if ours and theirs and ours != theirs:
        raise MismatchError(
            f"The student ({type(unwrapped(student)).__name__}) is {with_article(ours)} and the teacher "
            f"({type(unwrapped(teacher)).__name__}) {with_article(theirs)}; load the teacher with the student's class."
        )
    return ours if theirs else None


def check_classifier(
    role: str, model: Any, tokenizer: PreTrainedTokenizerBase | None = None, *, repair: bool = False
) -> None:
    """Does this model give a distribution over classes that is worth learning? Role is "student" or "teacher".

    Args:
        tokenizer, repair: as in `check_classifiers`.

    Raises:
        MismatchError: several labels for one example, regression, label ids that are none, a missing pad token, or a
            teacher whose head was never trained.
    """
    if repair:
        _repair_label_ids(model.config)
        _repair_pad_token(model.config, tokenizer)
    _require_one_label_per_example(role, model.config)
    _require_integer_label_ids(role, model.config)
    _require_pad_token(role, model)
    if role == "teacher":
        _require_trained_head(model)


def check_alone(role: str, model: Any, tokenizer: Any, said: Task | None = None) -> None:
    """Refuse a classifier whose own configuration says that it gives no distribution over classes.

    Raises:
        MismatchError: see `check_classifier`.
    """
    if task_of(model, said) in LABELLED_TASKS:
        check_classifier(role, unwrapped(model), tokenizer, repair=True)


def require_same_names(student: Any, names: Sequence[str]) -> None:
    """The student's labels against those that a source of logits was written with; unnamed ones fit all.

    Raises:
        MismatchError: other labels, or another order.
    """
    ours = label_names(student)
    if ours and names and ours != list(names):
        raise MismatchError(
            f"The student's labels are {ours} and the logits were computed for {list(names)}; load the student with "
            "those labels in that order."
        )


def label_names(model: Any) -> list[str]:
    """Names by class; none if the model has none, or only those that transformers fills in."""
    config = getattr(unwrapped(model), "config", None)
    return _label_names(config) if getattr(config, "id2label", None) else []


def vocabulary_of(model: Any) -> int | None:
    """How many ids a model reads, or the decoder of one can say; None if it reads something else, such as pictures."""
    model = unwrapped(model)
    if registered_task(model) == "encoder-decoder" and (head := model.get_output_embeddings()) is not None:
        return len(head.weight)
    if getattr(model, "main_input_name", None) != "input_ids":
        return None
    return getattr(model.config.get_text_config(), "vocab_size", None)


def _require_one_label_per_example(role: str, config: Any) -> None:
    kind = getattr(config, "problem_type", None)
    if kind not in (None, "single_label_classification"):
        raise MismatchError(
            f"The {role}'s problem_type is {kind}, but the objective compares distributions over classes that exclude "
            "each other; set it to 'single_label_classification' if they do."
        )
    if config.num_labels < 2:  # noqa: PLR2004  (a softmax over one class is always 1)
        raise MismatchError(
            f"The {role} has num_labels={config.num_labels}, which transformers takes for regression; a classifier "
            "needs at least 2 (two classes: num_labels=2, not 1)."
        )


def _require_integer_label_ids(role: str, config: Any) -> None:
    if config.id2label is None:  # some configurations count labels, and name none
        return
    not_integers = {name: index for name, index in (config.label2id or {}).items() if not isinstance(index, int)}
    if not_integers:
        raise MismatchError(
            f"The {role}'s label2id holds {not_integers}, but a label id is an integer: transformers keeps and saves "
            "strings without a word. Pass repair=True, or set label2id={'negative': 0, …}."
        )
    if sorted(config.id2label) != list(range(config.num_labels)):
        raise MismatchError(
            f"The {role}'s id2label has the ids {sorted(config.id2label)}, but classes are counted 0, 1, 2 …; name all."
        )
    # A name that is a number comes back as a string when it is loaded, and as a number when it was set just now.
    ids = {str(name): index for name, index in (config.label2id or {}).items()}
    if ids != {str(name): index for index, name in config.id2label.items()}:
        raise MismatchError(
            f"The {role}'s label2id {config.label2id} is not the inverse of its id2label {config.id2label}; "
            "they must name the same labels with the same ids."
        )


def _require_same_labels(student: Any, teacher: Any) -> None:
    if student.num_labels != teacher.num_labels:
        raise MismatchError(
            f"The student has {student.num_labels} labels and the teacher {teacher.num_labels}, but they must "
            f"distribute over the same classes; load the student with num_labels={teacher.num_labels}."
        )
    ours, theirs = _label_names(student), _label_names(teacher)
    if ours == theirs or not ours or not theirs:
        return
    if sorted(ours) == sorted(theirs):
        order = [theirs.index(name) for name in ours]
        raise MismatchError(
            f"Student and teacher have the same labels in another order, {ours} and {theirs}: class 0 of one is not "
            f"class 0 of the other. Load the student with id2label={dict(enumerate(theirs))}, or reorder the teacher's "
            f"logits: logits[:, {order}]."
        )
    raise MismatchError(
        f"The student's labels are {ours} and the teacher's {theirs}. If they mean the same, give both models the same "
        "id2label and label2id; if not, this teacher cannot teach this student."
    )


def _label_names(config: Any) -> list[str]:
    """Names by class; none if there are none, or the `LABEL_0`, `LABEL_1` that transformers fills in."""
    if config.id2label is None:
        return []
    names = [str(config.id2label[index]) for index in range(config.num_labels)]
    return [] if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names


def _require_pad_token(role: str, model: PreTrainedModel) -> None:
    if _pools_last_token(model) and _pad_token(model.config) is None:
        raise MismatchError(
            f"The {role} ({type(model).__name__}) classifies by the last token that is no padding, and its "
            "configuration has no pad_token_id: it fails on two sentences of different length. Pass its tokenizer and "
            "repair=True, or set config.pad_token_id."
        )


def _pools_last_token(model: PreTrainedModel) -> bool:
    """GPT-2, Llama and other decoders look for the last real token; encoders have one at the front."""
    model = unwrapped(model)
    return task_of(model) == "classifier" and any(name == "score" for name, _ in model.named_children())


def _pad_token(config: Any) -> int | None:
    """A model of pictures and words keeps it with what it knows of words."""
    return getattr(config.get_text_config(), "pad_token_id", None)


def _require_trained_head(teacher: PreTrainedModel) -> None:
    """A head that was missing from the checkpoint is random, and its answers are noise with a softmax over it."""
    head = _head(teacher)
    if head is None or not _came_from_checkpoint(teacher) or _is_loaded(head.weight) or _is_trained_copy(teacher, head):
        return
    if _looks_fresh(teacher, head):
        raise MismatchError(
            f"The classification head of the teacher ({type(teacher).__name__}) was not in the checkpoint that it was "
            "loaded from: it is random, and so is what it would teach. Fine-tune it first, or load a checkpoint with "
            "a head (if you have trained it just now: save it and load it)."
        )


def _head(model: PreTrainedModel) -> nn.Linear | None:
    """The last layer that ends in one output per label."""
    fitting = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == model.config.num_labels and "lora_" not in name
    ]
    return fitting[-1] if fitting else None


def _is_trained_copy(teacher: nn.Module, head: nn.Linear) -> bool:
    """peft trains a copy of the head beside an adapter (`modules_to_save`), which begins as the original."""
    for module in teacher.modules():
        copies: Any = getattr(module, "modules_to_save", None)
        if isinstance(copies, nn.ModuleDict) and any(copy is head for copy in copies.values()):
            original = cast("nn.Linear", module.original_module).weight
            return _is_loaded(original) or not torch.equal(head.weight, original)
    return False


def _looks_fresh(teacher: PreTrainedModel, head: nn.Linear) -> bool:
    """Whether a head could be what initialisation draws; one that was trained since, or merged, leaves no other trace.

    Initialisation centres weights, with the spread that the model's class gives to a linear layer, or the square root
    of one over its width, or less; and most classes set the bias to 0.
    """
    usual = nn.Linear(head.in_features, head.out_features)
    with torch.random.fork_rng(devices=[]):
        unwrapped(teacher)._init_weights(usual)
    if head.bias is not None and head.bias.any() and not usual.bias.any():
        return False
    weight = head.weight.detach().float()
    centre, spread = weight.mean().item(), weight.std().item()
    error = SURE * spread / weight.numel() ** 0.5
    is_usual = spread - error <= usual.weight.std().item() or abs(spread - head.in_features**-0.5) <= error
    return abs(centre) <= error and is_usual


def _came_from_checkpoint(model: nn.Module) -> bool:
    return any(map(_is_loaded, model.parameters()))


def _is_loaded(parameter: Tensor) -> bool:
    """transformers marks what it finds in a checkpoint, so that it does not initialise it."""
    return getattr(parameter, "_is_hf_initialized", False) is True


def _repair_label_ids(config: Any) -> None:
    if config.label2id and all(str(index).isdigit() for index in config.label2id.values()):
        config.label2id = {name: int(index) for name, index in config.label2id.items()}


def _repair_pad_token(config: Any, tokenizer: PreTrainedTokenizerBase | None) -> None:
    if _pad_token(config) is None and tokenizer is not None:
        config.get_text_config().pad_token_id = tokenizer.pad_token_id


def _tokens_by_id(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}


def _describe_difference(ours: dict[int, str], theirs: dict[int, str], differing: list[int]) -> str:
    shown = "; ".join(
        f"id {index} is {_quote(ours.get(index))} here and {_quote(theirs.get(index))} there"
        for index in itertools.islice(differing, SHOWN_DIFFERENCES)
    )
    same = len(ours.keys() | theirs.keys()) - len(differing)
    return (
        f"The tokenizers of student ({len(ours):,} tokens) and teacher ({len(theirs):,}) agree in {same:,} ids and "
        f"differ in {len(differing):,}: {shown}. A language model's distribution is over ids, so each id must mean the "
        "same; use the teacher's tokenizer for both. resize_token_embeddings would make the widths equal, not the "
        "meanings."
    )


def _quote(token: str | None) -> str:
    return "nothing" if token is None else repr(token)


def _require_same_special_tokens(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """bos and eos decide where a text begins and ends; a pad token is masked, so it may differ."""
    for name in ("bos_token_id", "eos_token_id", "unk_token_id"):
        if getattr(student, name) != getattr(teacher, name):
            raise MismatchError(
                f"The student's {name} is {getattr(student, name)} and the teacher's {getattr(teacher, name)}: the "
                "same ids, but a text begins or ends differently for each. Set both to the token that the teacher was "
                "trained with."
            )
