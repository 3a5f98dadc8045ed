"""The architectures that transformers registers with the auto classes of the tasks that are distilled."""

from __future__ import annotations

from typing import NamedTuple

import transformers
from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

TEXTS, TOKENS, PICTURES = "sequence classification", "token classification", "image classification"
VIDEOS, SOUNDS, FRAMES = "video classification", "audio classification", "audio frame classification"
LANGUAGE, MASKED = "causal language model", "masked language model"
TEXT_TO_TEXT, SOUND_TO_TEXT = "encoder-decoder", "encoder-decoder of sounds"

DECODERS = (TEXT_TO_TEXT, SOUND_TO_TEXT)

REGISTERS = {
    TEXTS: "SEQUENCE_CLASSIFICATION", TOKENS: "TOKEN_CLASSIFICATION", PICTURES: "IMAGE_CLASSIFICATION",
    VIDEOS: "VIDEO_CLASSIFICATION", SOUNDS: "AUDIO_CLASSIFICATION", FRAMES: "AUDIO_FRAME_CLASSIFICATION",
    LANGUAGE: "CAUSAL_LM", MASKED: "MASKED_LM",
    TEXT_TO_TEXT: "SEQ_TO_SEQ_CAUSAL_LM", SOUND_TO_TEXT: "SPEECH_SEQ_2_SEQ",
}  # fmt: skip

INSTEAD = {LANGUAGE: MASKED, MASKED: TEXT_TO_TEXT, TEXT_TO_TEXT: LANGUAGE, SOUND_TO_TEXT: TEXT_TO_TEXT}
"""Where a class is listed that stands in both registers: XLM looks both ways, BART has a decoder, and what transcribes
sounds and is a causal language model, too, has none.
"""


class Architecture(NamedTuple):
    """A model class with the configuration that a register gives it, and a setting that changes what it computes."""

    task: str
    model_type: str
    class_name: str
    setting: str = ""

    @property
    def model_class(self):
        return getattr(transformers, self.class_name)

    @property
    def config_class(self):
        return CONFIG_MAPPING[self.model_type]

    @property
    def name(self) -> str:
        return f"{self.class_name} of {self.model_type}" + (f" with {self.setting}" if self.setting else "")


def all_architectures() -> list[Architecture]:
    found = []
    for task in REGISTERS:
        elsewhere = registered(INSTEAD[task]) if task in INSTEAD else set()
        for model_type, name in registered(task) - elsewhere:
            found += [Architecture(task, model_type, name, setting) for setting in settings(task, model_type)]
    return sorted(set(found))


def registered(task: str) -> set[tuple[str, str]]:
    """Model types and classes."""
    register = getattr(modeling_auto, f"MODEL_FOR_{REGISTERS[task]}_MAPPING_NAMES")
    return {
        (model_type, name)
        for model_type, names in register.items()
        for name in ([names] if isinstance(names, str) else names)
    }


def settings(task: str, model_type: str) -> list[str]:
    """What a language model can be told that changes its step: to look back only, to balance its experts."""
    names = fields_of(CONFIG_MAPPING[model_type]) if task == LANGUAGE else set()
    asked = ["output_router_logits=True"] if "output_router_logits" in names else []
    if "is_decoder" in names and model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        asked.append("is_decoder=True")
    return ["", *asked]


def fields_of(config_class) -> set[str]:
    """The settings of a configuration and of the one about words inside it."""
    names = set(getattr(config_class, "__dataclass_fields__", {}))
    inside = getattr(config_class, "sub_configs_defaults", {}).get("text_config")
    return names | (fields_of(inside) if isinstance(inside, type) and issubclass(inside, PreTrainedConfig) else set())


def fitting_config(config, model_class):
    """A language model inside one of pictures and words takes the part of the configuration that is about words."""
    wanted = model_class.config_class
    parts = [config, *(value for value in vars(config).values() if isinstance(value, PreTrainedConfig))]
    return next((part for part in parts if isinstance(part, wanted)), config)
