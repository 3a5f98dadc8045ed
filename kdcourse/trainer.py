"""`DistillationTrainer`: the objective of `loss.py` on `transformers.Trainer` (lesson 05)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from kdcourse.checkpoints import EpochOrder, require_whole, said_of_a_checkpoint
from kdcourse.checks import IGNORED_LABEL, MismatchError, require_logits, require_mix, require_weights
from kdcourse.collators import WRITTEN_OUT, LanguageModelCollator, collator, padding_on_the_right
from kdcourse.columns import (
    LABELS,
    TEACHER_PREFIX,
    Batch,
    SignatureColumns,
    arguments_of,
    has_own_columns,
    is_packed,
    only_read_by,
    student_features,
    unwrapped,
)
from kdcourse.compat import (
    balance_weight,
    check_alone,
    check_fit,
    differing_ids,
    first_misread,
    lost_steps,
    positions_of,
    require_label_ids,
    require_output_per_label,
    require_room,
    require_same_names,
    require_segments,
    said_of_misread,
    shared_vocabulary,
    tokenizer_of,
    vocabulary_of,
)
from kdcourse.counting import Averages, WrittenBatch, count_items, labels_of
from kdcourse.decoders import with_decoder_ids
from kdcourse.feature_trainer import FeatureTrainer
from kdcourse.features import Feature, Features
from kdcourse.heads import HeadAside, ImplicitLogits, cut, implicit_lm_distillation_loss
from kdcourse.loss import (
    DistillationLoss,
    distillation_loss,
    lm_distillation_loss,
    mix,
    resolve_divergence,
    token_distillation_loss,
)
from kdcourse.on_policy import OnPolicy, Writer, require_writer
from kdcourse.packing import holds_several_texts, require_read_apart
from kdcourse.padding import Places, Reader
from kdcourse.schedules import Schedule
from kdcourse.tasks import LABELLED_TASKS, TASKS, VOCABULARY_TASKS, Task, task_of, with_article
from kdcourse.teacher import (
    CachedTeacher,
    ColumnTeacher,
    ModelTeacher,
    Teacher,
    ask,
    logits_of,
    placed,
    require_in_the_loop,
)
from kdcourse.teachers import (
    Teachers,
    is_for_a_teacher,
    models_of,
    nothing_from,
    require_mixture,
    require_teachers,
    said_of,
    sources_of,
)
from kdcourse.topk import Logits

logger = logging.getLogger(__name__)

ROWS_AND_CLASSES = 2
"""Dimensions of a classifier's logits; those for tokens have one more."""

OBJECTIVES: dict[Task, Callable[..., DistillationLoss]] = {
    "classifier": distillation_loss,
    "token classifier": token_distillation_loss,
    "language model": lm_distillation_loss,
    "masked language model": token_distillation_loss,
    "encoder-decoder": token_distillation_loss,
}

NEVER_PACKED: tuple[Task, ...] = ("masked language model", "encoder-decoder")
"""Tasks whose models would read across texts that are packed into one row."""

PACKED: tuple[Task, ...] = ("language model", "token classifier")
"""Tasks for which some models do, and some do not."""

Teaching = nn.Module | Teacher | Sequence[nn.Module | Teacher | None] | None
"""A teacher, or several."""

StudentLogits = Tensor | ImplicitLogits
TeacherLogits = Logits | ImplicitLogits


@dataclass
class DistillationArguments(TrainingArguments):
    """`TrainingArguments` and what distillation adds. `label_smoothing_factor` smooths the labels of the hard term."""

    alpha: float = field(default=0.5, metadata={"help": "Weight of the labels, 0 (teacher only) to 1 (labels only)."})
    temperature: float = field(default=2.0, metadata={"help": "T, which softens student and teacher."})
    divergence: str = field(default="forward_kl", metadata={"help": "forward_kl, reverse_kl or jensen_shannon."})
    beta: float | None = field(
        default=None, metadata={"help": "Weight of the teacher in jensen_shannon, between 0 and 1; 0.5 if not said."}
    )
    task: str | None = field(
        default=None,
        metadata={
            "help": "classifier, token classifier, language model, masked language model or encoder-decoder, for a "
            "student that transformers lacks."
        },
    )
    class_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each class in the hard term, in the order of the label ids."}
    )
    fused: bool = field(
        default=True,
        metadata={"help": "Compute a language model's loss without its whole logits, where its head can be seen."},
    )

    on_policy: OnPolicy | str | dict[str, Any] | None = field(
        default=None,
        metadata={"help": "Of a language model, the share of steps on text that it writes itself, and how it does."},
    )

    teacher_weights: list[float] | None = field(
        default=None, metadata={"help": "Of several teachers, the weight of each; together 1. Equal ones if not said."}
    )
    teacher_mix: str = field(
        default="probabilities", metadata={"help": "What of several teachers is averaged: probabilities or logits."}
    )

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "on_policy"]  # noqa: RUF012  (as they have it)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.on_policy = OnPolicy.of(self.on_policy)
        self.require_legal()
        # A search casts each value to the type that it finds: 0.7 would become 0 where alpha was the integer 0.
        self.alpha, self.temperature = float(self.alpha), float(self.temperature)

    def require_legal(self) -> None:
        """
        Raises:
            ValueError: a setting of distillation is out of range.
        """
        require_mix(self.alpha, self.temperature)
        if self.own_text is not None and self.own_text.share and self.alpha == 1:
            raise ValueError(
                "alpha is 1, so that only labels teach, and what the student writes has none: the steps of on_policy "
                "would teach nothing. Take a smaller alpha (0 for the teacher alone), or leave on_policy out."
            )
        resolve_divergence(self.divergence, self.beta)
        require_weights(self.class_weights or [])
        require_mixture(self.teacher_weights, self.teacher_mix)
        if self.task not in (None, *TASKS):
            raise ValueError(
                f"task is {self.task!r}; it can be {', '.join(TASKS)}, or None to go by the student's class."
            )

    @property
    def said_task(self) -> Task | None:
        """`task`, which is one of those that there are."""
        return cast("Task | None", self.task)

    @property
    def own_text(self) -> OnPolicy | None:
        """`on_policy`, in whichever form it was given."""
        return OnPolicy.of(self.on_policy)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it, and as `DistillationArguments(**…)` takes it."""
        values = super().to_dict()
        return values | {"on_policy": asdict(self.own_text) if self.own_text else None}


class DistillationTrainer(FeatureTrainer):
    """Trains a classifier (of examples or of tokens), a language model (causal or masked) or an encoder-decoder on
    labels and on a teacher.

    Args:
        teacher: a model that scores each batch; or a source of logits, such as `kdcourse.teacher.CachedTeacher`; or
            None if the examples carry them in the column `teacher_logits` (see `kdcourse.teacher.add_logits`), or a top
            k from elsewhere (`add_top_k`), or if labels alone teach (alpha=1). A list of several teachers is mixed (see
            `kdcourse.teachers`), by `teacher_weights` and `teacher_mix` of the arguments; each is checked as one alone
            would be.
        teacher_processing_class: the teacher's tokenizer, or those of several. It is compared with the student's
            `processing_class`, which is needed where the two models' vocabularies have different sizes.
        data_collator: for a language model that has a tokenizer, `LanguageModelCollator` if you pass none: it pads
            labels with ids, and reads conversations. For a classifier whose teacher has a tokenizer of its own,
            `kdcourse.collators.collator` of both. For an encoder-decoder, `DataCollatorForSeq2Seq`, if
            `processing_class` is a tokenizer. A masked language model needs one that masks, such as
            `DataCollatorForLanguageModeling`.
        args: `DistillationArguments`.
        features: layers of the student that learn from layers of the teacher, which is a model then; what they give is
            added to the objective, Σ weight · loss (see `kdcourse.Feature`).

    A row whose label is -100 teaches a classifier by the teacher alone; a token without a label does not teach. The
    loss of an optimizer step is the same however it is cut into micro-batches and spread over processes: sums are
    divided by the rows of the whole step, not of each piece. `hard_loss` and `soft_loss` are logged beside `loss`, in
    nats per labelled and per taught row; and `feature_loss`, the sum that features add.
    """

    args: DistillationArguments
    _signature_columns: Any

    # compute_loss divides by the counts of the whole step; without this the Trainer would divide once more.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module | None = None,
        args: DistillationArguments | None = None,
        *,
        teacher: Teaching = None,
        teacher_processing_class: PreTrainedTokenizerBase | Sequence[PreTrainedTokenizerBase] | None = None,
        features: Sequence[Feature] = (),
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, DistillationArguments):
            raise TypeError(
                f"args is {type(args).__name__}, but alpha and temperature come with DistillationArguments."
            )
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("compute_loss_func would replace the objective of distillation; leave it out.")
        readers = sources_of(teacher_processing_class)
        require_teachers(teacher, args, readers)
        teacher = teacher[0] if isinstance(teacher, Sequence) and len(teacher) == 1 else teacher
        super().__init__(model, args, **kwargs)
        self._teachers_tokenizers = [tokenizer_of(reader) for reader in readers]
        self._pairs = features
        self._meet(self.model, teacher)
        tokenizer = tokenizer_of(self.processing_class)
        if kwargs.get("data_collator") is None:  # the Trainer's own does not pad labels
            if tokenizer is not None and self._is_shifted:
                self.data_collator = LanguageModelCollator(tokenizer)
            elif isinstance(self.processing_class, PreTrainedTokenizerBase):
                if self._task == "encoder-decoder":  # on the left, the decoder would read padding before a text
                    self.data_collator = DataCollatorForSeq2Seq(padding_on_the_right(self.processing_class))
                elif self._task == "classifier":  # all teachers read the same columns of their own
                    self.data_collator = collator(self.processing_class, self._teachers_tokenizers[0])
        self._given = teacher
        # An attribute of the trainer, not of the student: model.train() must not reach it, nor a checkpoint hold it.
        sources = [self._source(each) for each in sources_of(teacher)]
        self.teacher: Teacher = sources[0] if len(sources) == 1 else Teachers(sources, args)
        self._trained, self._evaluated = Averages(self.features.weights), Averages(self.features.weights)
        self._epoch_order = EpochOrder()
        self.add_callback(self._epoch_order)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """A new student for each training, which is looked at as the first one was."""
        student = super().call_model_init(trial)
        if hasattr(self, "teacher"):  # the first one comes before its teacher
            self._meet(student, self._given)
            for given, source in zip(sources_of(self._given), sources_of(self.teacher), strict=True):
                if isinstance(given, nn.Module):
                    cast("ModelTeacher", source).vocabulary = self._vocabulary
        return student

    def _meet(self, student: Any, teacher: Teaching) -> None:
        """Refuse a student that cannot learn from these teachers; else keep what a step has to know of them."""
        self._task: Task | None = self.args.said_task or task_of(student)
        self._vocabulary: int | None = None
        self._not_the_students: frozenset[str] = frozenset()
        sources = sources_of(teacher)
        self._readers = self._teachers_tokenizers * (len(sources) // len(self._teachers_tokenizers))
        self._differing = [self._differing_ids(reader) for reader in self._readers]
        for number, (source, reader) in enumerate(zip(sources, self._readers, strict=True)):
            with said_of(number, len(sources)):
                self._meet_one(student, source, reader)
        if self._pairs and self._task == "encoder-decoder":
            raise MismatchError(
                "features are averaged over the tokens that a model reads, but an encoder-decoder reads two texts, and "
                "nothing says which of them a layer is about; leave features out."
            )
        self.features = Features(self._pairs, student, _model_of(teacher), self.args.seed)
        self._require_one_place()
        self._counts_labels = task_of(student, self.args.said_task) in LABELLED_TASKS
        self._signature_columns = None
        self._has_looked_at_logits = self._has_looked_at_packed = False
        self._places = Places()
        self.students_head, self.teachers_head = HeadAside("student"), HeadAside("teacher")

    def _meet_one(self, student: Any, teacher: Any, teachers_tokenizer: PreTrainedTokenizerBase | None) -> None:
        tokenizer = tokenizer_of(self.processing_class)
        if isinstance(teacher, nn.Module):
            self._task = self._task or task_of(teacher)
            shared = check_fit(student, teacher, tokenizer, teachers_tokenizer, self.args.said_task)
            self._vocabulary = shared if self._vocabulary is None else self._vocabulary
            self._not_the_students |= only_read_by(teacher, student)
        else:
            check_alone("student", student, tokenizer, self.args.said_task)
            require_same_names(student, getattr(teacher, "label_names", []))
            if teacher is not None or self.args.alpha < 1:
                require_in_the_loop(self._task, teacher)
            if isinstance(teacher, CachedTeacher) and tokenizer is not None and teachers_tokenizer is not None:
                widths = vocabulary_of(student), teacher.cache.width
                if self._is_shifted and all(widths):
                    self._vocabulary = shared_vocabulary(*widths, tokenizer, teachers_tokenizer)
        if self.args.own_text is not None:
            spread_by = "FSDP" if self.is_fsdp_enabled else "DeepSpeed" if self.is_deepspeed_enabled else None
            require_writer(self.args.own_text, student, teacher, self._task, spread_by)

    def _source(self, teacher: nn.Module | Teacher | None) -> Teacher:
        if isinstance(teacher, nn.Module):
            return ModelTeacher(placed(teacher, self.args.device), self._vocabulary)
        if isinstance(teacher, CachedTeacher) and self._vocabulary is not None:
            return CachedTeacher(teacher.cache, self._vocabulary)
        return ColumnTeacher(vocabulary_of(self.model)) if teacher is None else teacher

    def _hp_search_setup(self, trial: Any) -> None:
        super()._hp_search_setup(trial)
        self.args.require_legal()

    def _inner_training_loop(self, *args: Any, **options: Any) -> TrainOutput:
        self._trained = Averages(self.features.weights)  # one before it, or out of memory, may have left sums
        self._places.look_again()
        self._warn_of_lost_steps()
        given = self.args.alpha, self.args.temperature
        try:
            return super()._inner_training_loop(*args, **options)
        finally:  # a schedule has changed them, and the next trainer may be given the same arguments
            self.args.alpha, self.args.temperature = given

    def _warn_of_lost_steps(self) -> None:
        # These keep weights of 32 bits, or what was rounded away.
        keeps_steps = self._is_spread or self.args.optim == "adamw_anyprecision"
        words = lost_steps(cast("nn.Module", self.model), self.args.learning_rate)
        if words and not keeps_steps and self.is_world_process_zero():
            logger.warning(words)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective on one batch; with `num_items_in_batch` (labelled, taught), its share of an optimizer step."""
        inputs = self._complete(inputs)
        with self.features.watched(model, "student") as ours:
            outputs, logits = self._ask_student(model, inputs, whole=return_outputs)
        with self._watched_teacher() as theirs:
            teacher_logits = self._teacher_logits(inputs, whole=isinstance(logits, Tensor))
        labels, is_own = labels_of(inputs, self._is_shifted), isinstance(inputs, WrittenBatch)
        alpha = 0.0 if is_own else self.args.alpha
        num_items, of_features = self._split(num_items_in_batch)
        loss = self._objective(logits, teacher_logits, labels, num_items, alpha)
        if is_own:
            loss = without_labels(loss, self.args.alpha)
        total = loss.total + self._router_loss(outputs, inputs, num_items)
        features = self._feature_losses(ours, theirs, inputs, of_features)
        if features is not None:
            total = total + self.features.weigh(features)
        if num_items_in_batch is not None:
            self._trained.add_sums(loss, torch.as_tensor(num_items_in_batch), features)
            # The sums are divided by the rows of all processes, and then the processes' gradients are averaged.
            total = total * self.args.world_size
        return (total, outputs) if return_outputs else total

    def get_batch_samples(self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device) -> Any:
        """The micro-batches of one optimizer step, and how many (labelled, taught) rows all processes' pieces hold; and
        behind those two, what each feature is averaged over.

        Raises:
            ValueError: a stream ends before the first step is whole; or on_policy leaves nothing to learn from.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if is_own := self._is_on_own_text():  # before anything is counted: what is written has labels of its own
            batches = [self._written(batch, number) for number, batch in enumerate(batches)]
        self.features.projections.zero_grad()  # the Trainer does so for the student's weights
        nothing = torch.zeros(2 + len(self.features), dtype=torch.long, device=device)
        counts = sum((self._count(batch).to(device) for batch in batches), nothing)
        self._trained.add_items(counts)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts.unsqueeze(0)).sum(dim=0)
        settings = self.args.own_text
        if batches and settings is not None and settings.share and not is_own and not counts[:2].any():
            raise ValueError(
                f"on_policy has share={settings.share}, so that this step is on the data's text, and its rows are "
                "prompts alone: no token has a label. Take share=1, or add the column `completion`."
            )
        return batches, counts

    def _count(self, batch: Batch) -> Tensor:
        items = count_items(batch, self._is_shifted)
        if self._is_untaught(batch):
            items = items * torch.tensor([1, 0], device=items.device)
        if not self.features:
            return items
        self._meet_layers(batch)
        return torch.cat([items, self.features.counts(batch).to(items.device)])

    def _is_on_own_text(self) -> bool:
        """Whether the step that is about to begin is on what the student writes; all processes say the same."""
        settings = self.args.own_text
        return settings is not None and settings.is_drawn(self.args.seed, self.state.global_step)

    def _written(self, batch: Batch, number: int) -> WrittenBatch:
        """What the student writes after the prompts of the micro-batch with this number.

        Its rows are counted through the step as they would be in one batch, so that each row's text is the same however
        the step is cut.
        """
        settings = cast("OnPolicy", self.args.own_text)
        first = (number * self.args.world_size + self.args.process_index) * self._train_batch_size
        step = (self.args.seed, self.state.global_step)
        rows = range(first + 1, first + 1 + len(batch["input_ids"]))  # 0 is the draw of the step itself
        student = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        # The teacher with the shortest table of positions, if one has a table.
        teacher = min(models_of(self.teacher), key=lambda model: positions_of(model) or math.inf, default=None)
        writer = Writer(student, settings, tokenizer_of(self.processing_class), self._vocabulary, teacher)
        return writer.write(batch, [(*step, row) for row in rows])

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Loss, logits and labels of an evaluation batch; the loss only if the batch has all that alpha asks for."""
        inputs = self._complete(self._prepare_inputs(inputs))
        labels = inputs.get("labels")
        with torch.no_grad(), self.compute_loss_context_manager():
            with self.features.watched(model, "student") as ours:
                _, logits = self._ask_student(model, inputs, whole=not prediction_loss_only)
            with self._watched_teacher() as theirs:
                is_asked = bool(self.features) or self._misread(inputs) is None
                teacher_logits = self._ask_teacher(inputs, whole=isinstance(logits, Tensor)) if is_asked else None
            own = self._own_rows(self.args.eval_batch_size if self._is_packed(inputs) else len(logits))
            features = self._feature_losses(ours, theirs, inputs, None, own)
            loss = self._evaluate_batch(logits, teacher_logits, inputs, features, own)
        return (loss, None, None) if prediction_loss_only else (loss, cast("Tensor", logits), labels)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As the Trainer's, with losses per row or token: the Trainer's own are means over the means of batches."""
        self._evaluated = Averages(self.features.weights)
        self._places.look_again()
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        metrics: dict[str, float] = output.metrics or {}
        means = self._evaluated.means(self.accelerator)
        if f"{metric_key_prefix}_loss" in metrics:
            logits_loss = mix(self.args.alpha, means.get("hard_loss", 0.0), means.get("soft_loss", 0.0))
            means["loss"] = logits_loss + means.get("feature_loss", 0.0)
        metrics |= {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        return output._replace(metrics=metrics)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the two parts of the training loss, per labelled and per taught row since the last log, and what is
        scheduled.
        """
        if "loss" in logs:
            logs |= self._trained.means(self.accelerator)
            self._trained = Averages(self.features.weights)
            if any(isinstance(each, Schedule) for each in self.callback_handler.callbacks):
                logs |= {"alpha": self.args.alpha, "temperature": self.args.temperature}
        super().log(logs, *args, **kwargs)

    def _complete(self, inputs: Batch) -> Any:
        """The batch with what the task's models read beside what it brings.

        Raises:
            MismatchError: texts packed into one row, of a task whose models would read across them.
        """
        if self._task in NEVER_PACKED and holds_several_texts(inputs):
            raise MismatchError(
                f"Several texts are packed into one row, and {with_article(self._task)} would read across them; let "
                "the data_collator pad them instead."
            )
        self._require_read_apart(inputs)
        if self._task == "encoder-decoder":
            inputs = with_decoder_ids(inputs, [self.model, *models_of(self.teacher)])
        return self._placed(inputs)

    def _students_logits(self, model: nn.Module, batch: Batch) -> Tensor:
        return logits_of(model(**student_features(batch, self._not_the_students)))

    def _placed(self, inputs: Batch) -> Batch:
        """With positions that begin with each text, where models would count them from padding on its left."""
        if self._is_spread:
            return inputs
        readers = [Reader("student", cast("nn.Module", self.model), self._students_logits)]
        for teacher in models_of(self.teacher):
            prefix = TEACHER_PREFIX if has_own_columns(inputs, teacher) else ""
            readers.append(Reader("teacher", teacher, ask, prefix))
        return self._places.placed(inputs, readers, is_rounded=self.accelerator.mixed_precision != "no")

    def _require_read_apart(self, inputs: Batch) -> None:
        """Student and teachers read packed texts one by one, as the first batch of such texts finds."""
        if self._has_looked_at_packed or self._is_spread or self._task not in PACKED or not holds_several_texts(inputs):
            return
        require_read_apart("student", cast("nn.Module", self.model), inputs, self._students_logits)
        for teacher in models_of(self.teacher):
            if not has_own_columns(inputs, teacher):
                require_read_apart("teacher", teacher, inputs, ask)
        self._has_looked_at_packed = True

    def _ask_student(self, model: nn.Module, inputs: Batch, *, whole: bool) -> tuple[Any, StudentLogits]:
        """The outputs and the logits; those of a language model, if not wanted whole, implicit where they can be."""
        features = student_features(inputs, self._not_the_students)
        if self._task == "encoder-decoder" and "use_cache" in arguments_of(model):
            features["use_cache"] = False  # as where a model sees labels; with a cache, FSMT's decoder looks ahead
        require_room("student", model, features)
        if self.args.fused and self._is_shifted and not whole:
            return self.students_head.ask(model, features)
        outputs = model(**features)
        return outputs, logits_of(outputs)

    def _objective(
        self,
        logits: StudentLogits,
        teacher_logits: TeacherLogits | None,
        labels: Tensor | None,
        num_items: Tensor | int | None = None,
        alpha: float | None = None,
    ) -> DistillationLoss:
        if teacher_logits is None:  # a soft term of 0
            teacher_logits = cut(logits, self._vocabulary)
        objective: Callable[..., DistillationLoss] = implicit_lm_distillation_loss
        if isinstance(logits, Tensor):
            objective = OBJECTIVES[self._task_for(logits)]
        weights = self.args.class_weights
        if not self._has_looked_at_logits:
            require_logits(student_logits=logits, teacher_logits=teacher_logits)
            self._has_looked_at_logits = True
        return objective(
            cut(logits, self._vocabulary),
            teacher_logits.to(logits.device),
            labels,
            alpha=self.args.alpha if alpha is None else alpha,
            temperature=self.args.temperature,
            divergence=self.args.divergence,
            beta=self.args.beta,
            num_items=num_items,
            label_smoothing=self.args.label_smoothing_factor,
            class_weights=weights if weights is None else torch.tensor(weights),
        )

    @property
    def _is_spread(self) -> bool:
        """Whether weights lie in several processes, which would all have to ask the model at once."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    @property
    def _is_shifted(self) -> bool:
        return self._task == "language model"

    def _router_loss(self, outputs: Any, inputs: Batch, num_items: Tensor | int | None) -> Tensor | float:
        """What keeps a mixture of experts balanced, where the student's configuration asks for it; else 0.

        It is a mean over a batch. So that a step in pieces comes as near to a whole one as can be, each piece has its
        share of the step's tokens.
        """
        router_loss = getattr(outputs, "aux_loss", None)
        if router_loss is None:
            return 0.0
        weight = balance_weight(self.model)
        if num_items is None:
            return weight * router_loss
        kind = 0 if self._is_untaught(inputs) else 1  # labelled or taught
        of_piece, of_step = count_items(inputs, self._is_shifted)[kind], torch.as_tensor(num_items).expand(2)[kind]
        return weight * router_loss * of_piece.to(router_loss.device) / of_step.clamp(min=1)

    def _task_for(self, logits: Tensor) -> Task:
        """The task, as far as only logits tell it.

        Raises:
            MismatchError: nobody has said whether tokens are to be compared where they are, or with the next one; or
                there is one output, over which every softmax is 1; or outputs that are no labels.
        """
        if logits.shape[-1] < 2:  # noqa: PLR2004
            raise MismatchError(
                f"Logits have shape {tuple(logits.shape)}: one output, over which a softmax is always 1. A classifier "
                "needs at least 2 classes (two classes: num_labels=2, not 1); regression is not distilled here."
            )
        if self._counts_labels:
            require_output_per_label(self.model, logits)
        if self._task is None and logits.ndim != ROWS_AND_CLASSES:
            raise MismatchError(
                f"Logits have shape {tuple(logits.shape)}, and {type(unwrapped(self.model)).__name__} is no class of "
                "transformers that says whether a token is compared where it is, or with the next one. Pass "
                "DistillationArguments(task='token classifier') or task='language model'."
            )
        return self._task or "classifier"

    def _ask_teacher(self, inputs: Batch, *, whole: bool) -> TeacherLogits | None:
        if not self._has_looked_at_logits:
            tokenizer = tokenizer_of(self.processing_class)
            for model in models_of(self.teacher):
                require_segments(model, inputs, tokenizer)
        if whole or not isinstance(self.teacher, ModelTeacher):
            return self.teacher.logits(inputs)
        _, logits = self.teacher.answer(inputs, self.teachers_head.ask)
        return cut(logits, self.teacher.vocabulary)

    def _differing_ids(self, reader: PreTrainedTokenizerBase | None) -> Tensor:
        """Which of the student's ids a teacher would misread; none where a task's vocabularies are compared anyway."""
        tokenizer = tokenizer_of(self.processing_class)
        if reader is None or tokenizer is None or reader is tokenizer or self._task in VOCABULARY_TASKS:
            return torch.empty(0, dtype=torch.long)
        return differing_ids(tokenizer, reader)

    def _misread(self, inputs: Batch) -> tuple[nn.Module, PreTrainedTokenizerBase, int] | None:
        """A teacher with a tokenizer of its own that would read a batch otherwise, and its first such id."""
        for source, reader, differing in zip(sources_of(self.teacher), self._readers, self._differing, strict=True):
            if reader is not None and isinstance(source, ModelTeacher):
                index = first_misread(source.model, inputs, differing)
                if index is not None:
                    return source.model, reader, index
        return None

    def _teacher_logits(self, inputs: Batch, *, whole: bool) -> TeacherLogits | None:
        """
        Raises:
            MismatchError: a teacher would read other words than the student.
            ValueError: there is no answer of a teacher, and labels alone do not teach.
        """
        if misread := self._misread(inputs):
            teacher, reader, index = misread
            ours = cast("PreTrainedTokenizerBase", tokenizer_of(self.processing_class))
            raise MismatchError(said_of_misread(teacher, index, ours, reader))
        logits = self._ask_teacher(inputs, whole=whole)
        if logits is None and not self._is_untaught(inputs):
            raise ValueError(nothing_from(self.teacher, inputs))
        return logits

    def _is_untaught(self, inputs: Batch) -> bool:
        """Whether labels alone teach, and nobody has passed a teacher: the twin that a student is compared with."""
        teacher = self.teacher
        return self.args.alpha == 1 and isinstance(teacher, ColumnTeacher) and not teacher.has_answers(inputs)

    def _evaluate_batch(
        self,
        logits: StudentLogits,
        teacher_logits: TeacherLogits | None,
        inputs: Batch,
        features: Tensor | None,
        own: int,
    ) -> Tensor | None:
        """Count a batch towards the evaluation's losses, whichever of the two parts it has.

        Args:
            own: how many of its rows count, or of its texts, if they are packed into one row.
        """
        labels = self._own_labels(inputs)
        rows = 1 if self._is_packed(inputs) else own
        targets = torch.full(logits.shape[:-1], IGNORED_LABEL, device=logits.device) if labels is None else labels
        targets, logits = targets[:rows], logits[:rows]
        taught = teacher_logits is not None
        loss = self._objective(logits, None if teacher_logits is None else teacher_logits[:rows], targets)
        items = count_items({"labels": targets}, self._is_shifted) * torch.tensor(
            [1, int(taught)], device=targets.device
        )
        if features is not None:
            items = torch.cat([items, self.features.counts(inputs, own)])
        self._evaluated.add_sums(loss, items, features)
        self._evaluated.add_items(items)
        is_whole = (taught or self.args.alpha == 1) and (labels is not None or self.args.alpha == 0)
        if not is_whole:
            return None
        return loss.total if features is None else loss.total + self.features.weigh(features)

    def _own_labels(self, inputs: Batch) -> Tensor | None:
        """The labels of an evaluation batch; of texts packed into one row, only those that do not fill the batch up."""
        labels = labels_of(inputs, self._is_shifted)
        if labels is None or not self._is_packed(inputs):
            return labels
        number_of_text = (inputs["position_ids"] == 0).cumsum(dim=1)
        return labels.masked_fill(number_of_text > self._own_rows(self.args.eval_batch_size), IGNORED_LABEL)

    def _is_packed(self, inputs: Batch) -> bool:
        """Whether a row may hold several texts; that of a classifier of texts has positions, and one label."""
        return self._task in PACKED and is_packed(inputs)

    def _own_rows(self, rows: int) -> int:
        """How many rows of an evaluation batch count: the last one is filled up, so that all processes have as many."""
        state = self.accelerator.gradient_state
        if not state.end_of_dataloader or state.remainder <= 0:
            return rows
        return min(max(state.remainder - self.args.process_index * rows, 0), rows)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **options: Any) -> None:
        require_whole(Path(resume_from_checkpoint))
        self._epoch_order.resumed_from = Path(resume_from_checkpoint)
        with said_of_a_checkpoint(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **options)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with said_of_a_checkpoint(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with said_of_a_checkpoint(checkpoint):
            super()._load_rng_state(checkpoint)

    def _set_signature_columns_if_needed(self) -> None:
        """Keep what is the teacher's when the Trainer drops the columns that the student's forward does not name."""
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            collated = WRITTEN_OUT if isinstance(self.data_collator, LanguageModelCollator) else []
            names = [*(self._signature_columns or []), *self._not_the_students, LABELS, *collated]
            self._signature_columns = SignatureColumns(names, self._is_theirs)

    def _is_theirs(self, name: str) -> bool:
        return is_for_a_teacher(name, self.teacher)

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        self._set_signature_columns_if_needed()
        if self._task in LABELLED_TASKS and not _is_of_ones_own(self.data_collator):
            require_label_ids(dataset)
        theirs = filter(self._is_theirs, dataset.column_names)
        names = dict.fromkeys([*self._signature_columns, *theirs])
        self._signature_columns = SignatureColumns(names, self._is_theirs)
        return super()._remove_unused_columns(dataset, description)


def _is_of_ones_own(collate: Any) -> bool:
    """Whether a collator may do anything with rows, as labels that are names: it is none of a library's."""
    return getattr(collate, "__module__", "").partition(".")[0] not in ("transformers", "kdcourse")


def _model_of(teacher: Teaching) -> Any:
    """The model that a source of logits asks; what else it is, if it asks none."""
    return teacher.model if isinstance(teacher, ModelTeacher) else teacher


def without_labels(loss: DistillationLoss, alpha: float) -> DistillationLoss:
    """The loss on a text whose tokens have no labels: (1 − alpha) · soft, as for an unlabelled row of a classifier.

    A hard term would take what the student has written for what is right.
    """
    return loss._replace(total=(1 - alpha) * loss.total, hard=torch.zeros_like(loss.hard))
