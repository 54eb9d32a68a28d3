"""The classes: a tiny config of each, its image's ids and tensors, and where its parts are, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.support.anyvlm import (
    AFTER,
    BEFORE,
    IMAGE,
    VOCAB,
    Case,
    Encoded,
    images,
    pixels,
    text,
    tower,
)

__all__ = ["CASES"]

# ---- the classes --------------------------------------------------------------------------------


def _llava_next() -> Any:
    import transformers as tf

    return tf.LlavaNextConfig(
        vision_config=tower("clip_vision_model"),
        text_config=text("llama"),
        image_token_id=IMAGE,
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]],
        vision_feature_layer=-2,
    )


#: Of a seed's image: height and width, and the rows and columns that are left of its tiles.
_ANYRES = {0: ((16, 32), (4, 8)), 1: ((30, 30), (8, 8)), 2: ((40, 20), (8, 4))}


def _anyres(seed: int) -> Encoded:
    (height, width), (rows, cols) = _ANYRES[seed % 3]
    tiles = {(4, 8): 3, (8, 4): 3, (8, 8): 5}[rows, cols]
    n = 16 + rows * (cols + 1)
    return [IMAGE] * n, {
        "pixel_values": pixels(seed, 1, tiles, 3, 16, 16),
        "image_sizes": torch.tensor([[height, width]]),
    }


def _idefics3() -> Any:
    import transformers as tf

    return tf.Idefics3Config(
        vision_config=tower("idefics3_vision"),
        text_config=text("llama"),
        image_token_id=IMAGE,
        scale_factor=2,
    )


def _split(seed: int) -> Encoded:
    """Tiles that are 2 x 2 tokens each, every one in its own frame; two, one or three of them."""
    tiles = (2, 1, 3)[seed % 3]
    ids = [token for _ in range(tiles) for token in [BEFORE, *[IMAGE] * 4, AFTER]]
    return ids, {
        "pixel_values": pixels(seed, 1, tiles, 3, 16, 16),
        "pixel_attention_mask": torch.ones(1, tiles, 16, 16, dtype=torch.long),
    }


def _internvl() -> Any:
    import transformers as tf

    return tf.InternVLConfig(
        vision_config=tower("internvl_vision", image_size=[16, 16], patch_size=[4, 4]),
        text_config=text("qwen2"),
        image_token_id=IMAGE,
        image_seq_length=4,
        downsample_ratio=0.5,
    )


def _internvl_tiles(seed: int) -> Encoded:
    tiles = (1, 2, 1)[seed % 3]
    ids = [BEFORE, *[IMAGE] * 4 * tiles, AFTER]
    return ids, {"pixel_values": pixels(seed, tiles, 3, 16, 16)}


def _gemma3() -> Any:
    import transformers as tf

    return tf.Gemma3Config(
        vision_config=tower("siglip_vision_model"),
        text_config=text("gemma3_text", head_dim=16, sliding_window=64),
        image_token_id=IMAGE,
        mm_tokens_per_image=4,
    )


def _one(n: int, around: bool = True, side: int = 16) -> Callable[[int], Encoded]:
    """One image of n tokens."""

    def encode(seed: int) -> Encoded:
        ids = [IMAGE] * n
        return ([BEFORE, *ids, AFTER] if around else ids), {
            "pixel_values": pixels(seed, 1, 3, side, side)
        }

    return encode


def _qwen3_vl() -> Any:
    import transformers as tf

    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}
    return tf.Qwen3VLConfig(
        text_config=text("qwen3_vl_text", rope_parameters=rope, head_dim=8),
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "patch_size": 4,
            "out_hidden_size": 32, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64,
        },
        image_token_id=IMAGE, video_token_id=4, vision_start_token_id=BEFORE, vision_end_token_id=AFTER,
    )  # fmt: skip


#: Rows and columns of merged tokens of a seed's image.
_NATIVE = {0: (2, 3), 1: (3, 2), 2: (2, 2)}


def _native(patch: int = 4, frames: int = 2) -> Callable[[int], Encoded]:
    def encode(seed: int) -> Encoded:
        rows, cols = _NATIVE[seed % 3]
        ids = [BEFORE, *[IMAGE] * (rows * cols), AFTER]
        return ids, {
            "pixel_values": pixels(seed, rows * cols * 4, 3 * frames * patch * patch),
            "image_grid_thw": torch.tensor([[1, 2 * rows, 2 * cols]]),
        }

    return encode


def _native_grid(seed: int) -> list[tuple[int, int]]:
    return [_NATIVE[seed % 3]]


def _vipllava() -> Any:
    import transformers as tf

    return tf.VipLlavaConfig(
        vision_config=tower("clip_vision_model"), text_config=text("llama"), image_token_index=IMAGE,
        vision_feature_layer=[-2, -1, 1],
    )  # fmt: skip


def _llava_onevision() -> Any:
    import transformers as tf

    return tf.LlavaOnevisionConfig(
        vision_config=tower("siglip_vision_model"), text_config=text("qwen2"), image_token_index=IMAGE,
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]],
    )  # fmt: skip


def _smolvlm() -> Any:
    import transformers as tf

    return tf.SmolVLMConfig(
        vision_config=tower("smolvlm_vision"), text_config=text("llama"), image_token_id=IMAGE,
        scale_factor=2,
    )  # fmt: skip


def _mistral3() -> Any:
    import transformers as tf

    return tf.Mistral3Config(
        vision_config=tower("pixtral", head_dim=12, image_size=32),
        text_config=text("mistral", head_dim=8, sliding_window=None),
        image_token_index=IMAGE, spatial_merge_size=2,
    )  # fmt: skip


def _pixtral() -> Any:
    import transformers as tf

    return tf.LlavaConfig(
        vision_config=tower("pixtral", head_dim=12, image_size=32, patch_size=8),
        text_config=text("mistral", head_dim=8, sliding_window=None),
        image_token_index=IMAGE, vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip


def _lighton_ocr() -> Any:
    import transformers as tf

    return tf.LightOnOcrConfig(
        vision_config=tower("pixtral", head_dim=12, image_size=32),
        text_config=text("qwen3", head_dim=8), image_token_id=IMAGE, spatial_merge_size=2,
    )  # fmt: skip


def _sized(seed: int) -> Encoded:
    """Rows of tokens of 8 x 8 pixels each, ended by a token of another id."""
    rows, cols = _NATIVE[seed % 3]
    value = torch.zeros(1, 3, 24, 24)
    value[:, :, : 8 * rows, : 8 * cols] = pixels(seed, 1, 3, 8 * rows, 8 * cols)
    ids = [token for _ in range(rows) for token in [*[IMAGE] * cols, AFTER]]
    return ids, {"pixel_values": value, "image_sizes": torch.tensor([[8 * rows, 8 * cols]])}


def _aya_vision() -> Any:
    import transformers as tf

    return tf.AyaVisionConfig(
        vision_config=tower("siglip_vision_model"), text_config=text("cohere2", head_dim=8),
        image_token_index=IMAGE, downsample_factor=2,
    )  # fmt: skip


def _cohere2_vision() -> Any:
    import transformers as tf

    return tf.Cohere2VisionConfig(
        vision_config=tower("siglip_vision_model"), text_config=text("cohere2", head_dim=8),
        image_token_id=IMAGE, downsample_factor=2, alignment_intermediate_size=32,
    )  # fmt: skip


def _janus() -> Any:
    import transformers as tf

    return tf.JanusConfig(
        vision_config=tower("janus_vision_model", projection_dim=32, num_image_tokens=16, mlp_ratio=2),
        text_config=text("llama"), image_token_id=IMAGE,
        vq_config={"embed_dim": 8, "num_embeddings": 16, "latent_channels": 32, "base_channels": 32,
                   "channel_multiplier": [1, 1], "num_res_blocks": 1, "projection_dim": 32,
                   "num_patches": 4, "image_token_embed_dim": 32, "initializer_range": 0.02},
    )  # fmt: skip


def _deepseek_vl() -> Any:
    import transformers as tf

    return tf.DeepseekVLConfig(
        vision_config=tower("siglip_vision_model"), text_config=text("llama"), image_token_id=IMAGE
    )


def _mllama() -> Any:
    import transformers as tf

    return tf.MllamaConfig(
        vision_config={"hidden_size": 16, "num_hidden_layers": 2, "num_global_layers": 1,
                       "attention_heads": 2, "intermediate_size": 24, "vision_output_dim": 32,
                       "image_size": 16, "patch_size": 4, "max_num_tiles": 2,
                       "intermediate_layers_indices": [1],
                       "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]},
        text_config=text("mllama_text_model", cross_attention_layers=[2], num_hidden_layers=4),
        image_token_index=IMAGE,
    )  # fmt: skip


def _crossed(seed: int) -> Encoded:
    return [IMAGE], {
        "pixel_values": pixels(seed, 1, 1, 2, 3, 16, 16),
        "aspect_ratio_ids": torch.tensor([[2]]),
        "aspect_ratio_mask": torch.ones(1, 1, 2, dtype=torch.long),
    }


def _queries(cls: str, kind: str, decoder: str) -> Callable[[], Any]:
    def config() -> Any:
        import transformers as tf

        qformer = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24,
                   "num_attention_heads": 2, "encoder_hidden_size": 24,
                   "cross_attention_frequency": 1}  # fmt: skip
        return getattr(tf, cls)(
            vision_config=tower(f"{kind}_vision_model", initializer_range=0.02),
            qformer_config=qformer,
            text_config=_opt() if decoder == "opt" else text(decoder),
            num_query_tokens=5,
            image_token_index=IMAGE,
        )

    return config


def _opt() -> dict[str, Any]:
    found = text("opt", ffn_dim=40, word_embed_proj_dim=32, activation_function="relu")
    del found["num_key_value_heads"], found["intermediate_size"]
    return found


def _instruct(seed: int) -> Encoded:
    return [IMAGE] * 5, {
        "pixel_values": pixels(seed, 1, 3, 16, 16),
        "qformer_input_ids": torch.tensor([[3 + seed, 5, 6]]),
        "qformer_attention_mask": torch.ones(1, 3, dtype=torch.long),
    }


def _idefics2() -> Any:
    import transformers as tf

    return tf.Idefics2Config(
        vision_config=tower("idefics2_vision"),
        perceiver_config={"hidden_size": 32, "resampler_n_latents": 5, "resampler_depth": 1,
                          "resampler_n_heads": 2, "resampler_head_dim": 8, "num_key_value_heads": 1},
        text_config=text("mistral", sliding_window=None), image_token_id=IMAGE,
    )  # fmt: skip


def _few(seed: int) -> Encoded:
    return [BEFORE, *[IMAGE] * 5, AFTER], {"pixel_values": pixels(seed, 1, 1, 3, 16, 16)}


def _qwen3_vl_moe() -> Any:
    import transformers as tf

    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}
    return tf.Qwen3VLMoeConfig(
        text_config=text("qwen3_vl_moe_text", rope_parameters=rope, head_dim=8, num_experts=4,
                         num_experts_per_tok=2, moe_intermediate_size=24),
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "patch_size": 4,
            "out_hidden_size": 32, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64,
        },
        image_token_id=IMAGE, video_token_id=4, vision_start_token_id=BEFORE, vision_end_token_id=AFTER,
    )  # fmt: skip


def _glm4v() -> Any:
    import transformers as tf

    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}
    return tf.Glm4vConfig(
        text_config=text("glm4v_text", rope_parameters=rope),
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2, "image_size": 16, "patch_size": 4,
                       "out_hidden_size": 32, "intermediate_size": 40},
        image_token_id=IMAGE, video_token_id=4, image_start_token_id=BEFORE, image_end_token_id=AFTER,
        video_start_token_id=9, video_end_token_id=10,
    )  # fmt: skip


def _aria() -> Any:
    import transformers as tf

    return tf.AriaConfig(
        vision_config=tower("idefics3_vision"), text_config=text("aria_text", moe_num_experts=4),
        projector_patch_to_query_dict={16: 5}, image_token_index=IMAGE,
    )  # fmt: skip


def _ovis2() -> Any:
    import transformers as tf

    return tf.Ovis2Config(
        vision_config=tower("ovis2_vision", vocab_size=40, hidden_stride=1),
        text_config=text("qwen2"), image_token_id=IMAGE, vocab_size=VOCAB, hidden_size=32,
        visual_indicator_token_ids=[5, 6, BEFORE, AFTER, 9],
    )  # fmt: skip


def _lfm2_vl() -> Any:
    import transformers as tf

    return tf.Lfm2VlConfig(
        vision_config={**tower("siglip2_vision_model"), "num_patches": 16},
        text_config=text("lfm2", layer_types=["full_attention", "conv", "full_attention"],
                         block_auto_adjust_ff_dim=False),
        image_token_id=IMAGE, downsample_factor=2, projector_hidden_size=24,
    )  # fmt: skip


def _patches(seed: int) -> Encoded:
    rows, cols = _NATIVE[seed % 3]
    n = 4 * rows * cols
    value = torch.zeros(1, 24, 48)
    value[:, :n] = pixels(seed, 1, n, 48)
    return [BEFORE, *[IMAGE] * (rows * cols), AFTER], {
        "pixel_values": value,
        "spatial_shapes": torch.tensor([[2 * rows, 2 * cols]]),
        "pixel_attention_mask": (torch.arange(24) < n).long()[None],
    }


def _llama4() -> Any:
    import transformers as tf

    return tf.Llama4Config(
        vision_config={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "intermediate_size": 128, "vision_output_dim": 24, "image_size": 16,
                       "patch_size": 4, "pixel_shuffle_ratio": 0.5, "projector_input_dim": 24,
                       "projector_output_dim": 24},
        text_config=text("llama4_text", head_dim=8, intermediate_size_mlp=40, num_local_experts=2,
                         moe_layers=[1], attention_chunk_size=64),
        image_token_index=IMAGE,
    )  # fmt: skip


def _qwen3_5() -> Any:
    import transformers as tf

    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4,
            "partial_rotary_factor": 1.0}  # fmt: skip
    return tf.Qwen3_5Config(
        text_config=text("qwen3_5_text", rope_parameters=rope, head_dim=8, linear_key_head_dim=8,
                         linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
                         layer_types=["full_attention", "linear_attention", "full_attention"]),
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "patch_size": 4,
            "out_hidden_size": 32, "num_position_embeddings": 64,
        },
        image_token_id=IMAGE, video_token_id=4, vision_start_token_id=BEFORE, vision_end_token_id=AFTER,
    )  # fmt: skip


def _got_ocr2() -> Any:
    import transformers as tf

    return tf.GotOcr2Config(
        vision_config={"hidden_size": 16, "output_channels": 8, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "image_size": 64, "patch_size": 4, "mlp_dim": 24,
                       "window_size": 0, "global_attn_indexes": [0, 1], "initializer_range": 0.02},
        text_config=text("qwen2"), image_token_index=IMAGE, image_seq_length=16,
    )  # fmt: skip


CASES = {
    case.name: case
    for case in (
        Case("llava_next", _llava_next, _anyres,
             grid=lambda s: [(4, 4), _ANYRES[s % 3][1]], missing=("projected",)),
        Case("idefics3", _idefics3, _split, decoder="model.text_model",
             tower="model.vision_model.encoder.layers", projector="model.connector",
             grid=lambda s: [(2, 2)] * (2, 1, 3)[s % 3]),
        Case("internvl", _internvl, _internvl_tiles, tower="model.vision_tower.encoder.layer",
             grid=lambda s: [(2, 2)] * (1, 2, 1)[s % 3]),
        Case("gemma3", _gemma3, _one(4), by_token={"token_type_ids": images},
             grid=lambda s: [(2, 2)], attention="image", split=False,
             writes=("post_attention_layernorm", "pre_feedforward_layernorm",
                     "post_feedforward_layernorm")),
        Case("qwen3_vl", _qwen3_vl, _native(), by_token={"mm_token_type_ids": images},
             grid=_native_grid, split=False, tower="model.visual.blocks", projector="model.visual"),
        Case("llava_onevision", _llava_onevision, _anyres,
             grid=lambda s: [(4, 4), _ANYRES[s % 3][1]], missing=("projected",)),
        Case("smolvlm", _smolvlm, _split, decoder="model.text_model",
             tower="model.vision_model.encoder.layers", projector="model.connector",
             grid=lambda s: [(2, 2)] * (2, 1, 3)[s % 3]),
        Case("mistral3", _mistral3, _sized, grid=_native_grid, missing=("vision_resid_post",)),
        Case("llava-pixtral", _pixtral, _sized, grid=_native_grid, missing=("vision_resid_post",),
             tower="model.vision_tower.transformer.layers"),
        Case("lighton_ocr", _lighton_ocr, _sized, grid=_native_grid, missing=("vision_resid_post",),
             projector="model.vision_projection"),
        Case("aya_vision", _aya_vision, _internvl_tiles, missing=("resid_mid",), split=False,
             grid=lambda s: [(2, 2)] * (1, 2, 1)[s % 3]),
        Case("cohere2_vision", _cohere2_vision, _internvl_tiles, missing=("resid_mid",), split=False,
             grid=lambda s: [(2, 2)] * (1, 2, 1)[s % 3]),
        Case("janus", _janus, _one(16), grid=lambda s: [(4, 4)], projector="model.aligner",
             tower="model.vision_model.encoder.layers"),
        Case("deepseek_vl", _deepseek_vl, _one(16), grid=lambda s: [(4, 4)], projector="model.aligner",
             tower="model.vision_model.encoder.layers"),
        Case("vipllava", _vipllava, _one(16), grid=lambda s: [(4, 4)]),
        Case("mllama", _mllama, _crossed, missing=("embed", "projected", "vision_resid_post"), split=False,
             by_token={"cross_attention_mask": lambda ids: torch.ones(*ids.shape, 1, 2).long()}),
        Case("instructblip", _queries("InstructBlipConfig", "instructblip", "llama"), _instruct,
             decoder="language_model.model", tower="vision_model.encoder.layers",
             projector="language_projection", split=False, missing=("embed",)),
        Case("blip_2", _queries("Blip2Config", "blip_2", "opt"), _one(5, around=False),
             decoder="language_model.model.decoder", tower="vision_model.encoder.layers",
             projector="language_projection", split=False, parts={"o": "out_proj"},
             missing=("embed", "projected", "neurons", "attn_out", "mlp_out", "resid_mid")),
        Case("idefics2", _idefics2, _few, decoder="model.text_model", projector="model.connector",
             tower="model.vision_model.encoder.layers"),
        Case("aria", _aria, _one(5), missing=("neurons",)),
        Case("qwen3_vl_moe", _qwen3_vl_moe, _native(), by_token={"mm_token_type_ids": images},
             grid=_native_grid, split=False, tower="model.visual.blocks", projector="model.visual",
             missing=("neurons",)),
        Case("glm4v", _glm4v, _native(), by_token={"mm_token_type_ids": images}, grid=_native_grid,
             tower="model.visual.blocks", projector="model.visual",
             writes=("post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm")),
        Case("ovis2", _ovis2, _one(16), grid=lambda s: [(4, 4)], projector="model.visual_embeddings_table",
             tower="model.vision_tower.transformer.encoder.layers"),
        Case("lfm2_vl", _lfm2_vl, _patches, grid=_native_grid, split=False,
             missing=("resid_mid", "projected"),
             writes=("self_attn", "ffn_norm", "feed_forward"),
             parts={"neurons": "feed_forward.w2", "o": "out_proj"}),
        Case("llama4", _llama4, _one(4), grid=lambda s: [(2, 2)], missing=("vision_resid_post",),
             decoder="language_model.model", projector="multi_modal_projector", split=False,
             writes=("self_attn", "post_attention_layernorm", "feed_forward"),
             parts={"neurons": "feed_forward.down_proj"}),
        Case("qwen3_5", _qwen3_5, _native(), by_token={"mm_token_type_ids": images},
             grid=_native_grid, split=False, missing=("q", "k"), tower="model.visual.blocks",
             projector="model.visual"),
        Case("got_ocr2", _got_ocr2, _one(16, side=64), tower="model.vision_tower.layers"),
    )
}  # fmt: skip
