"""``tiny-llava``: ``LlavaForConditionalGeneration``: CLIP tower, MLP projector, Llama."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from mechvrp.data.scene_layout import IMAGE_SIZE
from mechvrp.data.scene_questions import Question
from mechvrp.models.zoo.matching import start_matching
from mechvrp.models.zoo.packing import Branch, Packed, pack_branches
from mechvrp.models.zoo.tokenizer import IMAGE, build_tokenizer

__all__ = ["TinyLlava"]

_PATCH = 4
_SIDE = IMAGE_SIZE // _PATCH
_WIDTH = 96

# The form of llava-hf's checkpoints, with the end token after an answer that LLaVA trains with.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}"
    "{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

# Loss weight of an auxiliary caption's tokens: there are many of them, and captions are not the
# aim.
_CAPTION_WEIGHT = 0.5


class TinyLlava:
    """The LLaVA family of the zoo (see ``recipe.ZooFamily``)."""

    name = "tiny-llava"
    grid = (_SIDE, _SIDE)

    def build(self, seed: int) -> tuple[Any, Any]:
        """A fresh model of about a million parameters, and its processor."""
        from transformers import (
            CLIPVisionConfig,
            LlamaConfig,
            LlavaConfig,
            LlavaForConditionalGeneration,
        )

        processor = self._processor()
        tokenizer = processor.tokenizer
        vision = CLIPVisionConfig(
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=_PATCH,
            projection_dim=_WIDTH,
            hidden_act="gelu",  # fused on a CPU; quick_gelu took a third of the time
        )
        text = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=_WIDTH,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            initializer_range=0.08,  # narrow model: 0.02 would leave attention flat for long
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=False,
        )
        extra: dict[str, Any] = {
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "mechvrp_instruction": "",  # ask it the bare question, without "answer in one word"
        }
        config = LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
            image_seq_length=_SIDE * _SIDE,
            vision_feature_layer=-1,  # three layers are few: none is left unused, unlike LLaVA's -2
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
            **extra,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlavaForConditionalGeneration(config)
        start_matching(model.model.language_model.layers)
        return model.eval(), processor

    def _processor(self) -> Any:
        from transformers import CLIPImageProcessor, LlavaProcessor

        images = CLIPImageProcessor(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )
        return LlavaProcessor(
            image_processor=images,
            tokenizer=build_tokenizer(),
            patch_size=_PATCH,
            vision_feature_select_strategy="default",
            chat_template=CHAT_TEMPLATE,
            image_token=IMAGE,
            num_additional_image_tokens=1,  # the class token, which "default" drops again
        )

    def pixels(self, processor: Any, images: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """``pixel_values`` ``[batch, 3, 48, 48]``."""
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return {
            "pixel_values": processor.image_processor(batch, return_tensors="pt")["pixel_values"]
        }

    def features(self, model: Any, pixels: dict[str, torch.Tensor]) -> torch.Tensor:
        """Projected image tokens ``[batch, 12, 12, 96]``."""
        features = torch.stack(
            tuple(model.get_image_features(**pixels, return_dict=True).pooler_output)
        )
        return features.unflatten(1, self.grid)

    def tower(self, model: Any) -> torch.nn.Module:
        """The CLIP tower."""
        return model.model.vision_tower

    def pack(self, processor: Any, questions: Sequence[Sequence[Question]]) -> Packed:
        """Branches behind ``<s>USER: <image>``; captions stand in the same place in all rows."""
        prefix = list(_prefix(processor))
        rows = [[_branch(processor, q.text, q.answer, q.task) for q in row] for row in questions]
        short, long = _rooms(processor)
        slots = [long if q.task == "caption" else short for q in questions[0]]
        return pack_branches(prefix, rows, slots, pad=processor.tokenizer.pad_token_id)


def _chat(processor: Any, question: str, answer: str | None) -> str:
    """The chat template's text of one question, with its answer or ready for one."""
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    if answer is None:
        return processor.apply_chat_template([user], add_generation_prompt=True)
    reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    return processor.apply_chat_template([user, reply])


@lru_cache(maxsize=4)
def _prefix(processor: Any) -> tuple[int, ...]:
    """Ids up to the last image token, as the processor itself gives them for any prompt."""
    blank = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    ids = processor(text=_chat(processor, "Is there?", None), images=blank)["input_ids"][0]
    last = max(i for i, token in enumerate(ids) if token == processor.image_token_id)
    return tuple(int(i) for i in ids[: last + 1])


@lru_cache(maxsize=200_000)
def _branch(processor: Any, question: str, answer: str, task: str) -> Branch:
    tokenizer = processor.tokenizer
    prompt, whole = (_chat(processor, question, a).split(IMAGE, 1)[1] for a in (None, answer))
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return Branch(ids, start, _CAPTION_WEIGHT if task == "caption" else 1.0)


@lru_cache(maxsize=4)
def _rooms(processor: Any) -> tuple[int, int]:
    """Tokens that the longest question with a one-word answer takes, and the longest caption."""
    from mechvrp.data.scene_layout import CELL_NAMES, CROWD
    from mechvrp.models.zoo.corpus import questions

    short = max(len(_branch(processor, text, "seven", "vqa").ids) for text in questions())
    full = ", ".join([f"{CELL_NAMES[0][0]} seven"] * max(CROWD))
    return short, len(_branch(processor, "Describe the image.", full, "caption").ids)
