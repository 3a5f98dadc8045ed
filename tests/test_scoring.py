"""Pictures, recordings and rows of any format: scored and cached as the trainer would read them."""

import pytest
import torch
from datasets import Array3D, Dataset, Features, Value
from shapes import LABELS, make_model, make_rows, make_tokenizer, make_trainer
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForAudioFrameClassification,
    Wav2Vec2ForSequenceClassification,
)
from transformers.image_processing_utils import BaseImageProcessor

from kdcourse.cache import CacheMismatchError
from kdcourse.teacher import cache_logits, score

TOKENIZER = make_tokenizer()
PIXELS = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
WAVES = [torch.randn(600 + 50 * row, generator=torch.Generator().manual_seed(row)).tolist() for row in range(5)]


class PictureProcessor(BaseImageProcessor):
    """What comes in place of a tokenizer; its `pad` is for pictures, and not for rows."""

    pad = None


def vit(seed=1):
    torch.manual_seed(seed)
    config = ViTConfig(image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=1,
                       num_attention_heads=2, intermediate_size=16, num_labels=LABELS)  # fmt: skip
    model = ViTForImageClassification(config).eval()
    model.classifier.weight.data.mul_(50)
    return model


def wav2vec(make=Wav2Vec2ForSequenceClassification):
    torch.manual_seed(1)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_kernel=(10, 3), conv_stride=(5, 2), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, feat_extract_norm="layer", classifier_proj_size=8, num_labels=LABELS,
        apply_spec_augment=False,
    )  # fmt: skip
    return make(config).eval()


def pictures(kind):
    """Ten pictures, as somebody would keep them."""
    arrays = PIXELS.numpy()
    labels = [row % LABELS for row in range(10)]
    if kind == "lists":
        return Dataset.from_dict({"pixel_values": arrays.tolist(), "labels": labels})
    if kind == "a transform":  # as with_transform(processor) does: what is stored is no tensor yet
        made = Dataset.from_dict({"number": list(range(10)), "labels": labels})
        return made.with_transform(
            lambda rows: {"pixel_values": [PIXELS[number] for number in rows["number"]], "labels": rows["labels"]}
        )
    features = Features({"pixel_values": Array3D((1, 8, 8), "float32"), "labels": Value("int64")})
    rows = Dataset.from_dict({"pixel_values": list(arrays), "labels": labels}, features)
    return rows if kind == "arrays" else rows.with_format(kind)


@pytest.mark.parametrize("processor", ["image processor", "none"])
@pytest.mark.parametrize("kind", ["lists", "arrays", "torch", "numpy", "a transform"])
def test_pictures_are_scored(kind, processor, tmp_path):
    """A KeyError for `input_ids`, or an image processor without `pad`."""
    teacher, rows = vit(), pictures(kind)
    processor = PictureProcessor(size=8) if processor == "image processor" else None
    with torch.no_grad():
        right = teacher(PIXELS).logits
    assert torch.allclose(score(teacher, processor, rows, batch_size=3), right, atol=1e-5)
    cached = cache_logits(tmp_path / "cache", teacher, processor, rows, rows_per_file=4)
    assert torch.allclose(torch.stack([cached.cache[row] for row in range(10)]), right, atol=1e-5)
    cache_logits(tmp_path / "cache", teacher, processor, rows)
    with pytest.raises(CacheMismatchError, match="other pixel_values"):
        cache_logits(tmp_path / "cache", teacher, processor, rows.select([*range(9), 8]))


def test_a_cached_vision_teacher_is_the_teacher(tmp_path):
    """Answers that go to other pictures."""
    teacher, rows = vit(), pictures("torch")
    cached = cache_logits(tmp_path / "cache", teacher, None, rows)
    settings = {"collator": stacked, "per_device_train_batch_size": 4, "max_steps": 3}

    def losses(source, data):
        trainer = make_trainer("vit", tmp_path, student=vit(0), teacher=source, rows=data, **settings)
        trainer.train()
        return [log["loss"] for log in trainer.state.log_history if "loss" in log]

    assert losses(cached, cached.add_rows(rows)) == pytest.approx(losses(teacher, rows), abs=1e-4)


def stacked(rows):
    names = rows[0].keys() - {"attention_mask"}
    return {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in names}


@pytest.mark.parametrize("kind", ["lists", "torch", "numpy"])
def test_recordings_are_padded(kind, tmp_path):
    """A feature extractor taken for a tokenizer, or uneven recordings that are stacked."""
    teacher, extractor = wav2vec(), Wav2Vec2FeatureExtractor(return_attention_mask=True)
    rows = Dataset.from_dict({"input_values": WAVES})
    if kind != "lists":
        rows = rows.with_format(kind)
    cached = cache_logits(tmp_path / "cache", teacher, extractor, rows, batch_size=2)
    for row, wave in enumerate(WAVES):
        with torch.no_grad():
            right = teacher(torch.tensor([wave])).logits[0]
        assert torch.allclose(cached.cache[row], right, atol=1e-4)
    louder = Dataset.from_dict({"input_values": [[2 * value for value in wave] for wave in WAVES]})
    with pytest.raises(CacheMismatchError, match="other input_values"):
        cache_logits(tmp_path / "cache", teacher, extractor, louder)


def test_the_mask_of_a_recording_is_part_of_it(tmp_path):
    """Half a recording, and the answers to all of it."""
    teacher, extractor = wav2vec(), Wav2Vec2FeatureExtractor(return_attention_mask=True)

    def recordings(heard):
        masks = [[1] * heard + [0] * (len(wave) - heard) for wave in WAVES]
        return Dataset.from_dict({"input_values": WAVES, "attention_mask": masks})

    whole = cache_logits(tmp_path / "whole", teacher, extractor, recordings(600)).cache
    half = cache_logits(tmp_path / "half", teacher, extractor, recordings(300)).cache
    assert not torch.allclose(whole[0], half[0], atol=1e-4)
    with pytest.raises(CacheMismatchError, match="other attention_mask"):
        cache_logits(tmp_path / "whole", teacher, extractor, recordings(300))


def test_frames_are_no_tokens(tmp_path):
    """One answer for each frame, cut by a mask over samples."""
    teacher, extractor = wav2vec(Wav2Vec2ForAudioFrameClassification), Wav2Vec2FeatureExtractor()
    with pytest.raises(ValueError, match="leave this teacher in the loop"):
        cache_logits(tmp_path / "cache", teacher, extractor, Dataset.from_dict({"input_values": WAVES}))


def test_a_collating_function_of_ones_own(tmp_path):
    """Positions that the tokenizer does not pad."""
    teacher, rows = make_model("bert-classifier"), make_rows("bert-classifier")
    placed = rows.map(lambda row: {"position_ids": list(range(1, 1 + len(row["input_ids"])))})

    def padded(given):
        assert set(given[0]) == {"input_ids", "attention_mask", "position_ids"}
        return {
            name: torch.nn.utils.rnn.pad_sequence([torch.tensor(row[name]) for row in given], batch_first=True)
            for name in given[0]
        }

    logits = score(teacher, TOKENIZER, placed, collate=padded, batch_size=5)
    first = placed[0]
    with torch.no_grad():
        right = teacher(torch.tensor([first["input_ids"]]), position_ids=torch.tensor([first["position_ids"]])).logits
    assert torch.allclose(logits[0], right[0], atol=1e-5)
    cached = cache_logits(tmp_path / "cache", teacher, TOKENIZER, placed, collate=padded)
    assert torch.allclose(cached.cache[0], right[0], atol=1e-5)
    moved = placed.map(lambda row: {"position_ids": [position + 1 for position in row["position_ids"]]})
    with pytest.raises(CacheMismatchError, match="other position_ids"):
        cache_logits(tmp_path / "cache", teacher, TOKENIZER, moved, collate=padded)


@pytest.mark.parametrize("shape", ["bert-classifier", "llama-lm"])
@pytest.mark.parametrize("kind", ["torch", "numpy", "no mask", "a transform"])
def test_texts_of_every_format_are_scored_alike(kind, shape, tmp_path):
    """Tensors that JSON has no word for, a mask that nobody stored, rows that are made when they are asked for."""
    teacher, rows = make_model(shape, 1), make_rows(shape)
    expected = cache_logits(tmp_path / "plain", teacher, TOKENIZER, rows).cache
    if kind == "no mask":
        other = rows.remove_columns("attention_mask")
    elif kind == "a transform":
        other = rows.with_transform(lambda batch: batch)
    else:
        other = rows.with_format(kind)
    cached = cache_logits(tmp_path / "plain", teacher, TOKENIZER, other).cache  # it is the same question
    again = cache_logits(tmp_path / "other", teacher, TOKENIZER, other).cache
    for row in range(len(rows)):
        assert torch.equal(cached[row], expected[row])
        assert torch.equal(again[row], expected[row])


@pytest.mark.parametrize("prefix", ["", "teacher_"])
def test_rows_of_one_length_are_scored_together(prefix):
    """Short texts padded to the longest: most of a night goes into padding."""
    rows = make_rows("bert-classifier", 16).remove_columns("labels")
    rows = rows.rename_columns({name: prefix + name for name in rows.column_names})
    lengths, model = [], make_model("bert-classifier")
    model.bert.register_forward_hook(
        lambda module, given, named, answer: lengths.append(tuple(named.get("input_ids", (given or [None])[0]).shape)),
        with_kwargs=True,
    )
    score(model, TOKENIZER, rows, batch_size=4)
    in_order = sorted(len(ids) for ids in rows[prefix + "input_ids"])
    assert lengths == [(4, in_order[last]) for last in (3, 7, 11, 15)]


def test_tokens_of_a_batch_without_a_mask_are_all_text(tmp_path):
    """A collating function for rows of one length makes no mask, and needs none."""
    teacher, rows = make_model("llama-lm"), Dataset.from_dict({"input_ids": [[3, 4, 5], [6, 7, 8]]})
    cached = cache_logits(tmp_path / "cache", teacher, TOKENIZER, rows, collate=stacked).cache
    with torch.no_grad():
        right = teacher(torch.tensor([[3, 4, 5], [6, 7, 8]])).logits
    assert torch.allclose(torch.stack([cached[0], cached[1]]), right, atol=1e-5)


def test_each_module_gets_its_mode_back():
    """A frozen part that was in eval mode, and has dropout after it was scored."""
    model = make_model("bert-classifier", dropout=0.1)
    model.train()
    model.bert.embeddings.eval()
    score(model, TOKENIZER, make_rows("bert-classifier", 2))
    assert model.training
    assert not model.bert.embeddings.dropout.training
    with pytest.raises(IndexError):
        score(model, TOKENIZER, Dataset.from_dict({"input_ids": [[1000]]}))
    assert model.training


@pytest.mark.parametrize("kind", ["lists", "torch"])
def test_uneven_rows_that_nothing_pads_are_a_sentence(kind):
    """An error about the length of a sequence, from the depths."""
    rows = make_rows("bert-classifier")
    with pytest.raises(ValueError, match=r"rows are uneven \(.*\) and nothing pads them"):
        score(make_model("bert-classifier"), None, rows.with_format("torch") if kind == "torch" else rows)


def test_nothing_to_score_is_a_sentence():
    """An error about an empty list of tensors."""
    with pytest.raises(ValueError, match="no rows to score"):
        score(vit(), None, Dataset.from_dict({"pixel_values": []}))


def test_nothing_to_score_makes_an_empty_cache(tmp_path):
    """A loop without end, or an error about no tensors."""
    cached = cache_logits(tmp_path / "cache", vit(), None, Dataset.from_dict({"pixel_values": []}))
    assert len(cached.cache) == 0
