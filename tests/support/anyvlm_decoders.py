"""LLaVA over decoders that the family written by hand does not describe."""

from __future__ import annotations

from typing import Any

from tests.support import anyvlm_classes as classes
from tests.support.anyvlm import IMAGE, Case, text, tower

__all__ = ["llava"]


def llava(kind: str, **more: Any) -> Case:
    """LLaVA over another decoder than Llama."""

    def config() -> Any:
        import transformers as tf

        return tf.LlavaConfig(
            vision_config=tower("clip_vision_model"),
            text_config=text(kind, **more),
            image_token_index=IMAGE,
        )

    return Case(kind, config, classes._one(16))
