"""Random models of the families' own shapes, of a few hundred million weights, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

import mechvrp

__all__ = ["SHAPES", "Shape", "answering", "batch", "built", "config", "samples"]

_IMAGE = 10  # id of the image placeholder
_VOCABULARY = 32_000


@dataclass(frozen=True)
class Shape:
    """How large a model is.

    Attributes:
        name: of the family.
        layers, width, inner, heads, kv_heads, head_dim: of the decoder.
        side: image tokens a side.
        text: text tokens.
    """

    name: str
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    side: int
    text: int = 24

    @property
    def image_tokens(self) -> int:
        return self.side**2

    @property
    def tokens(self) -> int:
        return self.image_tokens + self.text

    def smaller(self) -> Shape:
        """The same for a quick look: two layers, 64 wide, 4 x 4 image tokens."""
        return Shape(self.name, 2, 64, 96, 4, min(4, self.kv_heads), 16, 4, 12)


#: LLaVA-1.5 has 24 x 24 image tokens, PaliGemma-224 16 x 16; Qwen2-VL as many as the image asks for.
SHAPES = {
    "llava": Shape("llava", 12, 1024, 2816, 16, 16, 64, 24),
    "qwen2-vl": Shape("qwen2-vl", 12, 896, 4864, 14, 2, 64, 24),
    "qwen2.5-vl": Shape("qwen2.5-vl", 12, 896, 4864, 14, 2, 64, 24),
    "paligemma": Shape("paligemma", 12, 1024, 4096, 8, 1, 128, 16),
}


def config(shape: Shape) -> Any:
    """The Hugging Face config."""
    import transformers as tf

    text = {
        "vocab_size": _VOCABULARY,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    tower = {
        "hidden_size": shape.width // 2,
        "intermediate_size": 2 * shape.width,
        "num_hidden_layers": max(2, shape.layers // 3),
        "num_attention_heads": 8,
        "image_size": 14 * shape.side,
        "patch_size": 14,
    }
    if shape.name == "llava":
        return tf.LlavaConfig(
            vision_config={"model_type": "clip_vision_model", **tower},
            text_config={"model_type": "llama", **text},
            image_token_id=_IMAGE,
        )
    if shape.name == "paligemma":
        return tf.PaliGemmaConfig(
            vision_config={
                "model_type": "siglip_vision_model",
                **tower,
                "projection_dim": shape.width,
            },
            text_config={"model_type": "gemma", **text, "head_dim": shape.head_dim},
            projection_dim=shape.width,
            image_token_id=_IMAGE,
        )
    half = shape.head_dim // 2
    sections = [half // 4, half // 4 + half // 8, half - half // 2 - half // 8]
    sections[2] = half - sections[0] - sections[1]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    seen = {"depth": tower["num_hidden_layers"], "num_heads": 4, "patch_size": 14}
    tokens = {
        "image_token_id": _IMAGE,
        "video_token_id": _IMAGE + 1,
        "vision_start_token_id": _IMAGE + 2,
        "vision_end_token_id": _IMAGE + 3,
    }
    if shape.name == "qwen2.5-vl":
        return tf.Qwen2_5_VLConfig(
            text_config={"model_type": "qwen2_5_vl_text", **text, "rope_parameters": rope},
            vision_config={
                **seen,
                "hidden_size": shape.width // 2,
                "intermediate_size": 2 * shape.width,
                "out_hidden_size": shape.width,
                "fullatt_block_indexes": [tower["num_hidden_layers"] - 1],
            },
            **tokens,
        )
    return tf.Qwen2VLConfig(
        text_config={"model_type": "qwen2_vl_text", **text, "rope_parameters": rope},
        vision_config={**seen, "embed_dim": shape.width // 2, "hidden_size": shape.width},
        **tokens,
    )


def built(shape: Shape, *, attn: str = "sdpa", dtype: torch.dtype = torch.float32) -> Any:
    """A fresh Hugging Face model; the same weights every time."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(
        config(shape), attn_implementation=attn, dtype=dtype
    )
    return model.eval()


def batch(model: mechvrp.VLM, shape: Shape, examples: int, seed: int) -> mechvrp.Batch:
    """Random images and words; equally long prompts."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(100, _VOCABULARY, (examples, shape.text), generator=generator)
    image = torch.full((examples, shape.image_tokens), _IMAGE)
    ids = torch.cat([words[:, :4], image, words[:, 4:]], dim=1)
    inputs: dict[str, torch.Tensor] = {"input_ids": ids}
    side = 14 * shape.side
    if shape.name.startswith("qwen"):
        patches = (2 * shape.side) ** 2
        inputs["pixel_values"] = torch.randn(
            examples * patches, 3 * 2 * 14 * 14, generator=generator
        )
        inputs["image_grid_thw"] = torch.tensor([[1, 2 * shape.side, 2 * shape.side]] * examples)
        inputs["mm_token_type_ids"] = (ids == _IMAGE).long()
    else:
        inputs["pixel_values"] = torch.randn(examples, 3, side, side, generator=generator)
    if shape.name == "paligemma":
        inputs["token_type_ids"] = torch.zeros_like(ids)
    return model.batch(**inputs)


def answering(shape: Shape, *, attn: str = "sdpa") -> mechvrp.VLM:
    """The LLaVA-shaped model with a processor, so that it can be asked: every id is a word of its own.

    Its weights are random, so it is as unsure as can be, and answers until it is stopped.
    """
    import transformers as tf
    from tokenizers import Tokenizer, models, pre_tokenizers

    model = built(shape, attn=attn)
    model.config.mechvrp_instruction = ""  # no instruction behind the question
    words = {f"w{i}": i for i in range(_VOCABULARY)}
    specials = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "<image>": _IMAGE}
    for token, i in specials.items():
        del words[f"w{i}"]
        words[token] = i
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.add_special_tokens(list(specials))
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    side = 14 * shape.side
    images = tf.CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    processor = tf.LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return mechvrp.load(model, processor=processor)


def samples(shape: Shape, examples: int, seed: int) -> list[mechvrp.Sample]:
    """Random images, and questions of equally many random words."""
    rng = np.random.default_rng(seed)
    side = 14 * shape.side
    found = []
    for i in range(examples):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        words = rng.integers(100, _VOCABULARY, shape.text - 2)
        question = " ".join(f"w{word}" for word in words)
        found.append(mechvrp.Sample(Image.fromarray(pixels), question, image_id=f"{seed}-{i}"))
    return found
