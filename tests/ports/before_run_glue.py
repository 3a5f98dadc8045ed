"""What transformers' example `run_glue.py` does with files of one's own: it reads sentences or pairs of them, trains,
evaluates and predicts, and saves what it measured. It has the example's arguments, in its three groups:

    python run_glue.py --model_name_or_path STUDENT --tokenizer_name TOKENIZER --train_file train.json
        --validation_file validation.json --test_file test.json --do_train --do_eval --do_predict --output_dir OUTPUT

Left out are the example's tasks by name, its options of the hub, and regression.
"""

from dataclasses import dataclass, field
from pathlib import Path

import evaluate
import numpy as np
from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)


@dataclass
class DataTrainingArguments:
    """What is read."""

    train_file: str = field(metadata={"help": "A csv or json file to train on."})
    validation_file: str = field(metadata={"help": "A csv or json file to evaluate on."})
    test_file: str | None = field(default=None, metadata={"help": "A csv or json file to predict."})
    max_seq_length: int = field(default=128, metadata={"help": "Tokens that a text or a pair is cut at."})
    pad_to_max_length: bool = field(default=True, metadata={"help": "Pad to max_seq_length, not to the batch."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first rows only."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate the first rows only."})


@dataclass
class ModelArguments:
    """Who reads it."""

    model_name_or_path: str = field(metadata={"help": "The model to be trained."})
    config_name: str | None = field(default=None, metadata={"help": "Its configuration, if that is elsewhere."})
    tokenizer_name: str | None = field(default=None, metadata={"help": "Its tokenizer, if that is elsewhere."})


def first(rows, most):
    """At most so many rows of a dataset; all if there is no limit."""
    return rows if most is None else rows.select(range(min(most, len(rows))))


def sentence_columns(names):
    """The columns that hold the text: one, or two for pairs."""
    texts = [name for name in names if name != "label"]
    return ["sentence1", "sentence2"] if {"sentence1", "sentence2"} <= set(texts) else texts[:2]


def main():
    parser = HfArgumentParser((ModelArguments, DataTrainingArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)

    files = {"train": data_args.train_file, "validation": data_args.validation_file}
    if training_args.do_predict:
        files["test"] = data_args.test_file
    raw_datasets = load_dataset(Path(data_args.train_file).suffix[1:], data_files=files)

    labels = sorted(raw_datasets["train"].unique("label"))
    config = AutoConfig.from_pretrained(model_args.config_name or model_args.model_name_or_path, num_labels=len(labels))
    tokenizer = AutoTokenizer.from_pretrained(model_args.tokenizer_name or model_args.model_name_or_path)
    model = AutoModelForSequenceClassification.from_pretrained(model_args.model_name_or_path, config=config)

    # The example names the classes by the labels of the file, whatever type these have.
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    model.config.id2label = dict(enumerate(labels))

    keys = sentence_columns(raw_datasets["train"].column_names)
    padding = "max_length" if data_args.pad_to_max_length else False
    max_length = min(data_args.max_seq_length, tokenizer.model_max_length)

    def preprocess(rows):
        encoded = tokenizer(*(rows[key] for key in keys), padding=padding, max_length=max_length, truncation=True)
        return encoded | {"label": [labels.index(label) if label != -1 else -1 for label in rows["label"]]}

    with training_args.main_process_first(desc="tokenize"):
        raw_datasets = raw_datasets.map(preprocess, batched=True)
    train_dataset = first(raw_datasets["train"], data_args.max_train_samples)
    eval_dataset = first(raw_datasets["validation"], data_args.max_eval_samples)

    metric = evaluate.load("accuracy")

    def compute_metrics(evaluated):
        return metric.compute(predictions=np.argmax(evaluated.predictions, axis=1), references=evaluated.label_ids)

    # None: the trainer pads each batch with its tokenizer.
    data_collator = None
    if data_args.pad_to_max_length:
        data_collator = default_data_collator
    elif training_args.fp16:
        data_collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)

    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset if training_args.do_train else None,
        eval_dataset=eval_dataset if training_args.do_eval else None,
        compute_metrics=compute_metrics,
        processing_class=tokenizer,
        data_collator=data_collator,
    )

    if training_args.do_train:
        metrics = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint).metrics
        trainer.save_model()
        trainer.log_metrics("train", metrics)
        trainer.save_metrics("train", metrics)
        trainer.save_state()

    if training_args.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)

    if training_args.do_predict:
        unlabelled = raw_datasets["test"].remove_columns("label")  # GLUE's are all -1
        predicted = trainer.predict(unlabelled, metric_key_prefix="predict").predictions.argmax(axis=1)
        lines = [f"{index}\t{labels[item]}" for index, item in enumerate(predicted)]
        Path(training_args.output_dir, "predict_results.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
