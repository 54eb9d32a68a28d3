"""LLaVA-1.5: a CLIP or SigLIP tower, a two-layer MLP projector, a causal decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mechvrp.errors import UnsupportedModelError
from mechvrp.models.families.base import Family, Grid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Llava"]

#: Liu et al. 2023, the conversation prefix of LLaVA-1.5 (``vicuna_v1``).
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
#: Its instruction for short answers (VQA and POPE evaluation).
INSTRUCTION = "\nAnswer the question using a single word or phrase."
#: Its instructions for other questions: a choice by letter, and an answer in sentences.
BY_TASK = {
    "multiple-choice": "\nAnswer with the option's letter from the given choices directly.",
    "open-ended": "",
}
#: Towers whose tokens form one square grid.
TOWERS = ("clip_vision_model", "siglip_vision_model")
#: Text models whose blocks add what attention and MLP give, one after the other, as it is.
TEXTS = ("llama", "mistral", "qwen2", "qwen3", "gemma")


class Llava(Family):
    name = "llava"
    model_types = ("llava",)
    features_as = "parts"

    def describes(self, config: Any) -> bool:
        # Of this class are Pixtral checkpoints, too, which have images of any size, and models over any
        # other decoder: with norms behind its parts (Gemma 2), scaled (Granite) or parallel ones (Cohere).
        return config.vision_config.model_type in TOWERS and config.text_config.model_type in TEXTS

    def prompt(self, processor: Any, question: str, *, task: str, instruction: str | None) -> str:
        system = SYSTEM if instruction is None else None
        question += BY_TASK.get(task, INSTRUCTION) if instruction is None else instruction
        if getattr(processor, "chat_template", None):
            return self._chat(processor, question, system)
        start = f"{system} " if system else ""
        return f"{start}USER: {processor.image_token}\n{question} ASSISTANT:"

    def grids(self, model: Any, inputs: dict[str, Tensor]) -> list[Grid]:
        pixels = inputs["pixel_values"]
        patch = model.config.vision_config.patch_size
        rows, cols = pixels.shape[-2] // patch, pixels.shape[-1] // patch
        # CLIP has a class token, which only the "default" strategy drops.
        clip = model.config.vision_config.model_type == "clip_vision_model"
        default = model.config.vision_feature_select_strategy == "default"
        if default and not clip:
            raise UnsupportedModelError(
                "vision_feature_select_strategy='default' drops the first token, which in a SigLIP "
                "tower is an image patch, so the tokens form no grid; use 'full'"
            )
        return [Grid(rows, cols, extra=int(clip and not default))] * pixels.shape[0]
