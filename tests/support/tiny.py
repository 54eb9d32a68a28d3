"""Untrained models of every family, a few thousand weights each, with real processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from mechvrp.data import Sample

#: One name for each architecture that the families describe.
NAMES = ("llava-clip", "llava-siglip", "paligemma", "paligemma2", "qwen2-vl", "qwen2.5-vl")

IMAGE = "<image>"
QWEN_SPECIALS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
LLAVA_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}{% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] + ' ' }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def tokenizer(bos: bool) -> Any:
    """Byte-level, lossless, 256 bytes and the special tokens of all families."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<s>", "</s>", IMAGE, "<|video_pad|>", *QWEN_SPECIALS]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {t: i for i, t in enumerate([*specials, *alphabet])}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(specials)
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
    )


VOCAB = 272  # 9 special tokens and 256 bytes, with room


def _text(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **more,
    }


def _tower(kind: str) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    }


def config(name: str) -> Any:
    import transformers as tf

    if name.startswith("llava"):
        clip = name == "llava-clip"
        return tf.LlavaConfig(
            vision_config=_tower("clip_vision_model" if clip else "siglip_vision_model"),
            text_config=_text("llama"),
            image_token_id=3,
            vision_feature_layer=-2 if clip else -1,
            vision_feature_select_strategy="default" if clip else "full",
        )
    if name.startswith("paligemma"):
        kind = "gemma2" if name.endswith("2") else "gemma"
        # Two heads of 8 in Gemma 2: d_head is not d_model / n_heads.
        heads = {"head_dim": 8} if kind == "gemma" else {"head_dim": 16, "sliding_window": 12}
        heads["num_key_value_heads"] = 1 if kind == "gemma" else 2
        return tf.PaliGemmaConfig(
            vision_config={**_tower("siglip_vision_model"), "projection_dim": 32},
            text_config=_text(kind, **heads),
            projection_dim=32,
            image_token_id=3,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}
    ids = {"image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 7}
    ids["vision_end_token_id"] = 8
    if name == "qwen2-vl":
        return tf.Qwen2VLConfig(
            text_config=_text("qwen2_vl_text", rope_parameters=rope),
            vision_config={
                "depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2,
                "patch_size": 4,
            },
            **ids,
        )  # fmt: skip
    return tf.Qwen2_5_VLConfig(
        text_config=_text("qwen2_5_vl_text", rope_parameters=rope),
        vision_config={
            "depth": 2, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 40,
            "num_heads": 2, "patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1],
        },
        **ids,
    )  # fmt: skip


def hf_model(name: str, *, attn: str = "sdpa", seed: int = 0, **changes: Any) -> Any:
    """A fresh Hugging Face model: no forward has run, so raw hooks can still be registered."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(seed)
    settings = config(name)
    for key, value in changes.items():
        setattr(settings, key, value)
    # transformers has no SDPA for Gemma 2, whose scores are soft-capped.
    chosen: Any = {"text_config": "eager", "vision_config": attn} if name == "paligemma2" else attn
    model = AutoModelForImageTextToText.from_config(settings, attn_implementation=chosen)
    with torch.no_grad():  # the default scale leaves such small models all but linear
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.eval()


def processor(name: str) -> Any:
    import transformers as tf

    size = {"height": 16, "width": 16}
    if name.startswith("llava"):
        clip = name == "llava-clip"
        kind = tf.CLIPImageProcessor if clip else tf.SiglipImageProcessor
        options = {"size": {"shortest_edge": 16}, "crop_size": size} if clip else {"size": size}
        return tf.LlavaProcessor(
            kind(**options),
            tokenizer(bos=True),
            patch_size=4,
            vision_feature_select_strategy="default" if clip else "full",
            num_additional_image_tokens=int(clip),
            chat_template=LLAVA_TEMPLATE,
        )
    if name.startswith("paligemma"):
        images = tf.SiglipImageProcessor(size=size)
        images.image_seq_length = 16
        return tf.PaliGemmaProcessor(images, tokenizer(bos=False))
    tok = tokenizer(bos=False)
    images = tf.Qwen2VLImageProcessor(patch_size=4, min_pixels=64, max_pixels=1600)
    video = tf.Qwen2VLVideoProcessor(patch_size=4)
    tok.image_token, tok.video_token = IMAGE, "<|video_pad|>"
    made = tf.Qwen2VLProcessor(images, tok, video)
    made.image_token = IMAGE
    return made


def image(seed: int, width: int = 16, height: int = 16) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def samples() -> list[Sample]:
    """Questions of three lengths about images of three shapes."""
    return [
        Sample(image(0), "Is there a seven in the image?", "yes", "a", "existence"),
        Sample(image(1, 32, 16), "What digit is at the top left?", "two", "b", "identification"),
        Sample(image(2, 16, 24), "How many?", "three", "c", "counting"),
    ]
