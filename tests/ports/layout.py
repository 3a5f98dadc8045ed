"""What the scripts ask for, laid out in a folder: tiny models, tokenizers, and data; and the metric that has no hub."""

import json
import random

import datasets
import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

ROWS = 12
"""One batch of each script, so that its first step is over all rows, in whatever order they come."""

ACCURACY = '''"""Accuracy of class ids, for `evaluate.load("accuracy")` where there is no hub."""

import datasets
import evaluate
import numpy as np


class Accuracy(evaluate.Metric):
    def _info(self):
        ids = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=__doc__, citation="", features=ids)

    def _compute(self, predictions, references):
        return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}
'''
"""`evaluate` looks in the working directory before it asks the hub."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

ADJECTIVES = ["good", "lovely", "moving", "funny", "fresh", "bad", "dull", "empty", "stale", "clumsy"]

COLOURS = ["red", "green", "blue"]
PIXELS = 32


def save(model_class, config, folder, seed):
    """A model whose weights are large enough that two of them disagree by more than rounding."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "position" not in name:
                weight.data.mul_(15)
    model.save_pretrained(folder)


def lay_out_metric(folder):
    """The folder `accuracy` in the directory that a script runs in."""
    (folder / "accuracy").mkdir()
    (folder / "accuracy" / "accuracy.py").write_text(ACCURACY, encoding="utf-8")


def conversations(count, seed):
    """Questions and answers of uneven length; some with a turn before."""
    draw = random.Random(seed)

    def say(words):
        return " ".join(draw.choices(ADJECTIVES, k=words)).capitalize() + "."

    for number in range(count):
        roles = ["user", "assistant"] * (1 + number % 2)
        yield [{"role": role, "content": say(draw.randint(1, 6))} for role in roles]


def lay_out_conversations(folder):
    """`student`, `teacher` and `data` for GKD."""
    rows = {"train": list(conversations(ROWS, 0)), "test": list(conversations(4, 1))}
    texts = [message["content"] for messages in rows["train"] for message in messages]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )
    for role, width in (("student", 16), ("teacher", 32)):
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        save(LlamaForCausalLM, config, folder / role, seed=width)
        tokenizer.save_pretrained(folder / role)
    (folder / "data").mkdir()
    for split, each in rows.items():
        lines = [json.dumps({"messages": messages}) for messages in each]
        (folder / "data" / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def pictures(count, seed):
    """Noise in which one colour is stronger than the others, and which."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        picture = draw.integers(0, 128, (PIXELS, PIXELS, 3))
        picture[..., number % len(COLOURS)] += 100
        yield picture.astype(np.uint8), number % len(COLOURS)


def lay_out_pictures(folder):
    """`teacher` and `data` for the vision guide."""
    datasets.disable_progress_bars()
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=PIXELS,
        patch_size=8, num_labels=len(COLOURS),
    )  # fmt: skip
    save(ViTForImageClassification, config, folder / "teacher", seed=1)
    ViTImageProcessorPil(size={"height": PIXELS, "width": PIXELS}).save_pretrained(folder / "teacher")
    (folder / "data").mkdir()
    features = Features({"image": Image(), "labels": ClassLabel(names=COLOURS)})
    for seed, (split, count) in enumerate({"train": ROWS, "validation": 6, "test": 6}.items()):
        arrays, labels = zip(*pictures(count, seed), strict=True)
        rows = Dataset.from_dict({"image": list(arrays), "labels": list(labels)}, features=features)
        rows.to_parquet(folder / "data" / f"{split}.parquet")


def pairs(count, seed):
    """Two sentences, and whether the second says the same as the first."""
    draw = random.Random(seed)
    for number in range(count):
        words = draw.sample(ADJECTIVES, 3)
        same = number % 2
        second = words[:2] if same else words[1:]
        yield {"sentence1": " ".join(words[:2]), "sentence2": " ".join(second), "label": same}


def lay_out_pairs(folder):
    """`bert`, `distilbert` and three json files for run_glue."""
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ADJECTIVES])}
    size, no_dropout = len(vocabulary), {"attention_dropout": 0.0, "dropout": 0.0, "seq_classif_dropout": 0.0}
    bert = BertConfig(
        vocab_size=size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    save(BertForSequenceClassification, bert, folder / "bert", seed=1)
    distilbert = DistilBertConfig(vocab_size=size, dim=16, n_layers=1, n_heads=2, hidden_dim=32, **no_dropout)
    save(DistilBertForSequenceClassification, distilbert, folder / "distilbert", seed=2)
    BertTokenizer(vocabulary, model_max_length=512).save_pretrained(folder / "bert")
    DistilBertTokenizer(vocabulary, model_max_length=512).save_pretrained(folder / "distilbert")
    for seed, (split, count) in enumerate({"train": ROWS, "validation": 6, "test": 6}.items()):
        Dataset.from_list(list(pairs(count, seed))).to_json(folder / f"{split}.json")
