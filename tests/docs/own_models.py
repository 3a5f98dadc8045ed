"""What `docs/own-student.md` begins with: tiny models in a hub's cache, under the page's names, and files.

`python tests/docs/own_models.py try` lays them out for whoever wants to run the page before having models of their own.
"""

import json
import random
import re
import sys
from pathlib import Path

import torch
from pages import ROOT
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

PAGE = ROOT / "docs" / "own-student.md"
NAMED = re.compile(r'^(TEACHER|STUDENT)\w* = "([^"]+)", "([0-9a-f]{40})"', re.MULTILINE)
"""How the page names a model: the repository and the commit."""

GOOD, BAD = ("good", "fine", "great"), ("bad", "dull", "poor")
REST = ("the", "a", "film", "plot", "actor", "is", "was", "very", "how")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
END = "<end>"


def named_models():
    """(repository, commit) of the page's classifiers, teacher and student, and of its language models."""
    return [(name, commit) for _, name, commit in NAMED.findall(PAGE.read_text(encoding="utf-8"))]


def tokenizer_of(words, ends_texts=False):
    """One id for each word; a classifier's has special tokens, a language model's an end and nothing to pad with."""
    special = [END] if ends_texts else list(SPECIAL)
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate([*special, *words])}, special[-1]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends_texts:
        return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=END, eos_token=END, unk_token=END)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names)


def classifiers():
    """A teacher that knows what the words mean, and a student without a head that has other ids for them."""
    torch.manual_seed(0)
    words = [*GOOD, *BAD, *REST]
    theirs, ours = tokenizer_of(words), tokenizer_of(words[::-1])
    sizes = {
        "vocab_size": len(theirs), "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2,
        "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    names = {"id2label": {0: "against", 1: "for"}, "label2id": {"against": 0, "for": 1}}
    teacher = BertForSequenceClassification(BertConfig(num_hidden_layers=2, **sizes, **names))
    learn(teacher, theirs)
    return [(teacher, theirs), (BertModel(BertConfig(num_hidden_layers=1, initializer_range=0.2, **sizes)), ours)]


def learn(teacher, tokenizer, steps=60):
    """Teach a teacher by hand; a head that was never trained is refused."""
    texts, labels = zip(*reviews(64, seed=1), strict=True)
    batch = tokenizer(list(texts), padding=True, return_tensors="pt", return_token_type_ids=False)
    targets = torch.tensor([teacher.config.label2id[label] for label in labels])
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=5e-3)
    for _ in range(steps):
        torch.nn.functional.cross_entropy(teacher(**batch).logits, targets).backward()
        optimizer.step()
        optimizer.zero_grad()


def language_models():
    """A Llama and a GPT-2 that read the same words, in a wider vocabulary and a tight one; 16-bit weights."""
    torch.manual_seed(0)
    words = [*GOOD, *BAD, *REST]
    tokenizer = tokenizer_of(words, ends_texts=True)
    of_teacher = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    of_student = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=512, bos_token_id=0, eos_token_id=0
    )
    teacher = LlamaForCausalLM(of_teacher)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=5e-3)
    ids = [tokenizer(f"{row['prompt']} {row['completion']} {END}")["input_ids"] for row in answers(64, seed=1)]
    batch = torch.tensor(ids)
    for _ in range(60):
        teacher(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return [(teacher.to(torch.bfloat16), tokenizer), (GPT2LMHeadModel(of_student).to(torch.bfloat16), tokenizer)]


def reviews(count, seed):
    """(text, label); of uneven lengths."""
    draw = random.Random(seed)
    for _ in range(count):
        label = draw.choice(["against", "for"])
        filler = " ".join(draw.choices(REST, k=draw.randint(1, 6)))
        yield f"{filler} {draw.choice(GOOD if label == 'for' else BAD)}", label


def answers(count, seed):
    """Prompts and completions, all of one length."""
    draw = random.Random(seed)
    for _ in range(count):
        word = draw.choice([*GOOD, *BAD])
        yield {"prompt": f"how was the {draw.choice(['film', 'plot'])}", "completion": f"was {word}"}


def lay_out(folder):
    """Models in the cache of a hub, `huggingface`, and the page's files beside it."""
    cache = folder / "huggingface" / "hub"
    for (name, commit), (model, tokenizer) in zip(named_models(), [*classifiers(), *language_models()], strict=True):
        snapshot = cache / f"models--{name.replace('/', '--')}" / "snapshots" / commit
        model.save_pretrained(snapshot)
        tokenizer.save_pretrained(snapshot)
    for number, (part, few, more) in enumerate([("train", 48, 160), ("validation", 16, 32), ("test", 16, 32)]):
        rows = "".join(f"{text},{label}\n" for text, label in reviews(more, 10 + number))
        (folder / f"{part}.csv").write_text("text,label\n" + rows, encoding="utf-8")
        lines = "".join(json.dumps(row) + "\n" for row in answers(few, 10 + number))
        (folder / f"{part}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    lay_out(Path(sys.argv[1]))
