"""Six examples for an architecture, uneven where it reads rows, with labels for its task; and a batch of them."""

from __future__ import annotations

import inspect

import torch

from census.architectures import DECODERS, FRAMES, LANGUAGE, MASKED, TOKENS
from census.shrinking import CLASSES, EOS, FIRST_WORD, WORDS

LENGTHS = (9, 5, 12, 3, 7, 12)
LABELS = (0, 1, -100, 2, 1, 0)

SAID = (4, 11, 6, 8, 11, 5)
"""Tokens that a decoder is to say."""

POSITIONS = 64
"""Of a tiny model that has a table of them."""


def make_rows(architecture, model, lengths=LENGTHS, said=SAID):
    """Examples with everything that the model reads, and labels."""
    torch.manual_seed(2)
    rows = [features_of(model, length) for length in lengths]
    for number, row in enumerate(rows):
        if architecture.task in DECODERS and reads(model, "decoder_input_ids"):
            row["labels"] = answer(said[number])
        else:
            row["labels"] = labels_of(architecture.task, model, row, number)
    return rows


def answer(length):
    """Tokens that are to be said, all of them asked for: on what a decoder reads for a -100 inside, models differ."""
    ids = torch.randint(FIRST_WORD, WORDS, (length,))
    ids[-1] = EOS
    return ids


def too_long(architecture, model):
    """Examples beyond the positions of a model of texts, or of a decoder; none for one of anything else."""
    beyond, few = (POSITIONS + 20,) * 2, LENGTHS[:2]
    found = []
    reads_on = architecture.task in DECODERS and model.config.model_type == "prophetnet"  # as if at its last position
    if model.main_input_name == "input_ids" and model.config.model_type not in MORE and not reads_on:
        found.append(make_rows(architecture, model, lengths=beyond))
    if architecture.task in DECODERS:
        found.append(make_rows(architecture, model, lengths=few, said=beyond))
    return found


def labels_of(task, model, row, number):
    ids = row.get("input_ids", row.get("inputs"))
    if task in (LANGUAGE, *DECODERS):  # the prompt is not learnt
        return torch.where(torch.arange(len(ids)) < len(ids) // 3, -100, ids)
    if task == MASKED:
        return torch.where(torch.arange(len(ids)) % 3 == 2, ids, -100)
    if task in (TOKENS, FRAMES):
        places = torch.arange(len(row["input_ids"]) if task == TOKENS else count_frames(model, row))
        return torch.where(places % 3 == 2, -100, (places + number) % CLASSES)
    return torch.tensor(min(LABELS[number], model.config.num_labels - 1))


def count_frames(model, row):
    if "input_features" in row:
        return len(row["input_features"])
    return int(model._get_feat_extract_output_lengths(torch.tensor(len(row["input_values"]))))


def features_of(model, length):
    make = MAKERS["input_values" if model.config.model_type == "speech-encoder-decoder" else model.main_input_name]
    row = make(model, length)
    more = MORE.get(model.config.model_type)
    return row | (more(model, length) if more else {})


def text(model, length):
    ids = torch.randint(FIRST_WORD, WORDS, (length,))
    ids[-1] = EOS
    row = {"input_ids": ids}
    if reads(model, "attention_mask"):
        row["attention_mask"] = torch.ones_like(ids)
    if reads(model, "token_type_ids") and has_segments(model.config):
        row["token_type_ids"] = (torch.arange(length) >= length // 2).long()
        if model.config.model_type == "tapas":  # where in a table a word is, in seven numbers
            row["token_type_ids"] = row["token_type_ids"][:, None].repeat(1, 7)
    return row


def has_segments(config):
    """Whether there are two kinds of tokens, which a tokenizer of pairs tells apart."""
    return config.model_type in ("xlnet", "tapas") or (getattr(config, "type_vocab_size", 0) or 0) > 1


def picture(model, length):
    size = getattr(model.config, "image_size", None) or 32
    height, width = (size, size) if isinstance(size, int) else size
    channels = getattr(model.config, "num_channels", 3)
    shape = (channels, height, width)
    if "Video" in type(model).__name__:
        shape = (getattr(model.config, "num_frames", 4), *shape)
    return {"pixel_values": torch.randn(shape)}


def video(model, length):
    config = model.config
    size = getattr(config, "crop_size", None) or config.image_size
    frames = getattr(config, "frames_per_clip", None) or config.num_frames
    return {"pixel_values_videos": torch.randn(frames, 3, size, size)}


def sound(model, length):
    config = model.config
    if config.model_type == "audio-spectrogram-transformer":
        return {"input_values": torch.randn(config.max_length, config.num_mel_bins)}
    row = {"input_values": torch.randn(400 + 80 * length)}
    if reads(model, "attention_mask"):
        row["attention_mask"] = torch.ones(len(row["input_values"])).long()
    return row


def spectrum(model, length):
    config = model.config
    if hasattr(config, "num_mel_bins"):
        return {"input_features": torch.randn(config.num_mel_bins, 2 * config.max_source_positions)}
    named = (getattr(config, name, None) for name in ("feature_projection_input_dim", "input_feat_per_channel"))
    part = getattr(config, "audio_config", None) or getattr(config, "encoder_config", None)
    features = next(filter(None, named), None) or part.num_mel_bins
    row = {"input_features": torch.randn(2 * length, features)}
    return row | {"attention_mask": torch.ones(2 * length).long()}


def latent(model, length):
    if "Image" not in type(model).__name__:
        ids = torch.randint(FIRST_WORD, WORDS, (length,))
        if "MaskedLM" in type(model).__name__:  # which answers for all positions that it has
            ids = torch.nn.functional.pad(ids, (0, POSITIONS - length))
        return {"inputs": ids, "attention_mask": (torch.arange(len(ids)) < length).long()}
    size = model.config.image_size
    return {"inputs": torch.randn(3, size, size)}


MAKERS = {
    "input_ids": text, "pixel_values": picture, "pixel_values_videos": video, "input_values": sound,
    "input_features": spectrum, "inputs": latent,
}  # fmt: skip


def boxes(model, length):
    corners = torch.randint(0, 8, (length, 2))
    return {"bbox": torch.cat([corners, corners + torch.randint(1, 8, (length, 2))], dim=1)}


def fractions(model, length):
    return {"bbox": boxes(model, length)["bbox"].float()[:, [0, 1, 2, 1, 2, 3, 0, 3]] / 16}


def patches(model, length):
    return {
        "pixel_values": torch.randn(16, 3 * model.config.vision_config.patch_size ** 2),
        "pixel_attention_mask": torch.ones(16).long(), "spatial_shapes": torch.tensor([4, 4]),
    }  # fmt: skip


MORE = {"layoutlm": boxes, "lilt": boxes, "layoutlmv3": boxes, "bros": fractions, "siglip2": patches}
"""What else a model reads."""


def reads(model, name):
    return name in inspect.signature(model.forward).parameters


def collate(rows):
    """Rows of one batch, filled up with 0, labels with -100."""
    batch = {}
    for name in rows[0]:
        column = [row[name] for row in rows]
        filling = -100 if name == "labels" else 0
        batch[name] = (
            torch.nn.utils.rnn.pad_sequence(column, batch_first=True, padding_value=filling)
            if column[0].ndim
            else torch.stack(column)
        )
    return batch
