"""PaliGemma 1 and 2: a SigLIP tower, a linear projector, a decoder that sees its whole prompt."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from mechvrp.errors import DataError
from mechvrp.models.families.base import Family, Grid, Modules

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

__all__ = ["PaliGemma"]


class PaliGemma(Family):
    name = "paligemma"
    model_types = ("paligemma",)
    features_as = "whole"
    attention: Literal["causal", "prefix"] = "prefix"  # type: ignore[misc]
    # Without token_type_ids the mask is bidirectional or causal depending on the attention
    # implementation and on padding.
    required_inputs = ("pixel_values", "token_type_ids")

    def describes(self, config: Any) -> bool:
        return config.text_config.model_type in ("gemma", "gemma2")

    def modules(self, model: nn.Module) -> Modules:
        if model.config.text_config.model_type == "gemma2":  # type: ignore[union-attr]
            # Gemma 2 normalises what attention and MLP write before it is added.
            return Modules(
                attn_write="post_attention_layernorm", mlp_write="post_feedforward_layernorm"
            )
        return Modules()

    def attention_for(self, config: Any, attn: str) -> Any:
        if attn == "sdpa" and config.text_config.model_type == "gemma2":
            # transformers offers no SDPA for Gemma 2, whose scores are soft-capped.
            warnings.warn(
                "PaliGemma 2's decoder runs with eager attention: transformers has no SDPA for it",
                stacklevel=3,
            )
            return {"": attn, "text_config": "eager", "vision_config": attn}
        return attn

    def prompt(self, processor: Any, question: str, *, task: str, instruction: str | None) -> str:
        # The processor puts <bos> behind the image tokens and a newline at the end.
        suffix = instruction or ""
        return f"{processor.image_token}answer en {question}{suffix}"

    def tokenize(
        self, processor: Any, prompts: Sequence[str], images: Sequence[Image]
    ) -> dict[str, Tensor]:
        inputs = super().tokenize(processor, prompts, images)
        inputs.pop("labels", None)  # the processor adds them; with them a forward computes a loss
        bos = (inputs["input_ids"] == processor.tokenizer.bos_token_id).sum(-1)
        if not bool((bos == 1).all()):
            raise DataError(
                f"PaliGemma prompts must hold exactly one <bos>; got {bos.tolist()} from "
                f"{type(processor).__name__}"
            )
        return inputs

    def position_ids(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        return super().position_ids(model, inputs) + 1  # PaliGemma counts from 1

    def grids(self, model: Any, inputs: dict[str, Tensor]) -> list[Grid]:
        pixels = inputs["pixel_values"]
        patch = model.config.vision_config.patch_size
        return [Grid(pixels.shape[-2] // patch, pixels.shape[-1] // patch)] * pixels.shape[0]
