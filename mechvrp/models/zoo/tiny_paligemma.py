"""``tiny-paligemma``: ``PaliGemmaForConditionalGeneration``: SigLIP, linear projector, Gemma."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from mechvrp.data.scene_layout import IMAGE_SIZE
from mechvrp.data.scene_questions import Question
from mechvrp.models.zoo.corpus import questions as all_questions
from mechvrp.models.zoo.matching import start_matching
from mechvrp.models.zoo.packing import Branch, Packed
from mechvrp.models.zoo.prefix import PrefixLanguage
from mechvrp.models.zoo.prefix_packing import pack_alone, pack_apart
from mechvrp.models.zoo.recipe import Recipe
from mechvrp.models.zoo.sight import SightPhase
from mechvrp.models.zoo.tokenizer import BOS, EOS, IMAGE, PAD
from mechvrp.models.zoo.wording import family_tokenizer

__all__ = ["TinyPaliGemma"]

_PATCH = 4
_SIDE = IMAGE_SIZE // _PATCH
_WIDTH = 96

_BEGIN, _END = "<bos>", "<eos>"

# PaliGemma has no chat format; this is its question prompt, for callers who write prompts with chat
# templates. The processor adds <bos> and the newline.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}"
    "{{ 'answer en ' + part['text'] }}"
    "{% endfor %}"
    "{% endfor %}"
)

# SigLIP's normalised features vary little from token to token, and a linear projector of the usual
# initial size would hand the decoder tokens that look all the same.
_PROJECTOR_GAIN = 5.0

_CAPTION_WEIGHT = 0.5  # as in tiny-llava: captions have many tokens, and are not the aim


class TinyPaliGemma:
    """The PaliGemma family of the zoo (see ``recipe.ZooFamily``)."""

    name = "tiny-paligemma"
    grid = (_SIDE, _SIDE)
    phases = (SightPhase, PrefixLanguage)
    recipe = Recipe(sight_steps=1500, language_steps=3000, language_batch=24)

    def build(self, seed: int) -> tuple[Any, Any]:
        """A fresh model of about a million parameters, and its processor."""
        from transformers import (
            GemmaConfig,
            PaliGemmaConfig,
            PaliGemmaForConditionalGeneration,
            SiglipVisionConfig,
        )

        processor = _processor()
        tokenizer = processor.tokenizer
        tokens: dict[str, Any] = {
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        # ask it the bare question, without "answer in one word"
        extra: dict[str, Any] = {"mechvrp_instruction": ""}
        vision = SiglipVisionConfig(
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=_PATCH,
            vision_use_head=False,
            hidden_act="gelu_pytorch_tanh",
        )
        text = GemmaConfig(
            vocab_size=len(tokenizer),
            hidden_size=_WIDTH,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=_WIDTH // 4,
            max_position_embeddings=512,
            initializer_range=0.08,  # narrow model: 0.02 would leave attention flat for long
            tie_word_embeddings=True,
            **tokens,
        )
        config = PaliGemmaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
            projection_dim=_WIDTH,
            hidden_size=_WIDTH,
            vocab_size=len(tokenizer),
            tie_word_embeddings=True,
            **tokens,
            **extra,
        )
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            model = PaliGemmaForConditionalGeneration(config)
            model.model.multi_modal_projector.linear.weight *= _PROJECTOR_GAIN
        start_matching(model.model.language_model.layers)
        return model.eval(), processor

    def pixels(self, processor: Any, images: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """``pixel_values`` ``[batch, 3, 48, 48]``."""
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return {
            "pixel_values": processor.image_processor(batch, return_tensors="pt")["pixel_values"]
        }

    def features(self, model: Any, pixels: dict[str, torch.Tensor]) -> torch.Tensor:
        """Projected image tokens ``[batch, 12, 12, 96]``."""
        return self.encoded(model, pixels, 1).pooler_output.unflatten(1, self.grid)

    def encoded(self, model: Any, pixels: dict[str, torch.Tensor], each: int) -> Any:
        """The model's own image outputs, every image ``each`` times in a row."""
        seen = model.get_image_features(**pixels, return_dict=True)
        seen.pooler_output = seen.pooler_output.repeat_interleave(each, dim=0)
        return seen

    def tower(self, model: Any) -> torch.nn.Module:
        """The SigLIP tower."""
        return model.model.vision_tower

    def pack(self, processor: Any, questions: Sequence[Sequence[Question]]) -> Packed:
        """Branches behind an image that sees none; captions stand in the same place in all rows."""
        rows = [[_branch(q.text, q.answer, q.task) for q in row] for row in questions]
        short, long = _rooms()
        slots = [long if q.task == "caption" else short for q in questions[0]]
        return pack_apart(list(_prefix()), rows, slots, pad=processor.tokenizer.pad_token_id)

    def alone(self, processor: Any, questions: Sequence[Question]) -> Packed:
        """One row for every question, as the processor and the model's own mask have them."""
        branches = [_branch(q.text, q.answer, q.task) for q in questions]
        return pack_alone(list(_prefix()), branches, pad=processor.tokenizer.pad_token_id)


@lru_cache(maxsize=1)
def _processor() -> Any:
    from tokenizers import processors
    from transformers import PaliGemmaProcessor, SiglipImageProcessor

    tokenizer = family_tokenizer(
        [f"{_BEGIN}answer en {question}\n" for question in all_questions()],
        special={PAD: PAD, BOS: _BEGIN, EOS: _END, IMAGE: IMAGE},
        bos=True,
    )
    # A suffix is marked by its token type; the processor writes <bos> itself.
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair="$A $B:1", special_tokens=[]
    )
    images = SiglipImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        image_seq_length=_SIDE * _SIDE,  # PaliGemma's processor reads it from here
    )
    return PaliGemmaProcessor(
        image_processor=images, tokenizer=tokenizer, chat_template=CHAT_TEMPLATE
    )


def _prompt(question: str) -> str:
    return f"{IMAGE}answer en {question}"


@lru_cache(maxsize=1)
def _prefix() -> tuple[int, ...]:
    """Ids up to ``<bos>``, as the processor itself gives them for any prompt."""
    blank = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    processor = _processor()
    ids = processor(text=[_prompt("Is there?")], images=[[blank]])["input_ids"][0]
    stop = list(ids).index(processor.tokenizer.bos_token_id) + 1
    return tuple(int(i) for i in ids[:stop])


@lru_cache(maxsize=200_000)
def _branch(question: str, answer: str, task: str) -> Branch:
    tokenizer = _processor().tokenizer
    prompt = tokenizer(f"answer en {question}\n", add_special_tokens=False)["input_ids"]
    suffix = tokenizer(f" {answer}{_END}", add_special_tokens=False)["input_ids"]
    weight = _CAPTION_WEIGHT if task == "caption" else 1.0
    return Branch([*prompt, *suffix], len(prompt), weight)


@lru_cache(maxsize=1)
def _rooms() -> tuple[int, int]:
    """Tokens that the longest question with a one-word answer takes, and the longest caption."""
    from mechvrp.data.scene_layout import CELL_NAMES, CROWD

    short = max(len(_branch(text, "seven", "vqa").ids) for text in all_questions())
    full = ", ".join([f"{CELL_NAMES[0][0]} seven"] * max(CROWD))
    return short, len(_branch("Describe the image.", full, "caption").ids)
