"""``tiny-qwen2-vl``: ``Qwen2VLForConditionalGeneration``: native resolution, merger, M-RoPE.

Images keep their size: a 48x48 scene is 8x8 tokens, one of 84x84 pixels 14x14. Sizes between are as
welcome (sides are rounded to multiples of six pixels); shapes longer than those it was trained on
are not. The tower knows patches by their distance from each other only,
so where a token is in the image comes from the decoder's rotary positions: temporal, height and
width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from mechvrp.data.scene_layout import IMAGE_SIZE
from mechvrp.data.scene_questions import Question
from mechvrp.data.scene_sizes import resized
from mechvrp.models.zoo.corpus import questions as all_questions
from mechvrp.models.zoo.locality import start_local
from mechvrp.models.zoo.matching import start_matching, start_quiet
from mechvrp.models.zoo.native import NativeLanguage, NativeSight
from mechvrp.models.zoo.packing import Branch, Packed, pack_branches
from mechvrp.models.zoo.recipe import Recipe
from mechvrp.models.zoo.sizes import measure_sizes
from mechvrp.models.zoo.tokenizer import BOS, EOS, IMAGE, PAD
from mechvrp.models.zoo.wording import family_tokenizer

__all__ = ["TinyQwen2VL"]

_PATCH = 3
_MERGE = 2
_TOKEN = _PATCH * _MERGE  # pixels a side of an image token
_LARGEST = 84
_WIDTH = 96
_TOWER_WIDTH = 80

_START, _END, _PADDING = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
_VISION_START, _VISION_END = "<|vision_start|>", "<|vision_end|>"
_IMAGE, _VIDEO = "<|image_pad|>", "<|video_pad|>"

# Qwen2-VL's form without its default system turn. An answer is written with a space in front, so
# that it is the token that questions use for the same word.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ ' ' if message['role'] == 'assistant' else '' }}"
    "{% if message['content'] is string %}"
    "{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_FEW = 4  # images behind whose tokens words are looked at, a step
_CAPTION_WEIGHT = 0.5  # as in tiny-llava: captions have many tokens, and are not the aim


class TinyQwen2VL:
    """The Qwen2-VL family of the zoo at one image size (see ``recipe.ZooFamily``).

    Args:
        size: height and width that scenes are resized to, in pixels.
    """

    name = "tiny-qwen2-vl"
    phases = (NativeSight, NativeLanguage)
    # As Qwen2-VL's own training does, the tower learns on with the decoder.
    recipe = Recipe(
        sight_steps=1200, language_steps=2500, language_batch=24, tower_rate=0.3, sight_share=0.3
    )

    def __init__(self, size: tuple[int, int] = (IMAGE_SIZE, IMAGE_SIZE)) -> None:
        self.size = size
        self.grid = (size[0] // _TOKEN, size[1] // _TOKEN)

    def at(self, size: tuple[int, int]) -> TinyQwen2VL:
        """The family at another image size."""
        return TinyQwen2VL(size)

    def build(self, seed: int) -> tuple[Any, Any]:
        """A fresh model of less than a million parameters, and its processor."""
        from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

        processor = _processor()
        tokenizer = processor.tokenizer
        ids = tokenizer.convert_tokens_to_ids
        text = {
            "vocab_size": len(tokenizer),
            "hidden_size": _WIDTH,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 512,
            "initializer_range": 0.08,  # narrow model: 0.02 would leave attention flat for long
            # Twelve frequencies a head go to temporal, height and width in turn, fast ones first. In
            # Qwen2-VL's own three runs, a small base would leave no slow frequencies, by which a
            # question finds image tokens whatever their distance, and a large one no fast ones for
            # the columns of a small image.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000.0,
                "mrope_section": [1, 1, 1, 1, 1, 1, 2, 2, 2],
            },
            "bos_token_id": None,
            "eos_token_id": ids(_END),
            "pad_token_id": ids(_PADDING),
            "tie_word_embeddings": False,
        }
        vision = {
            "depth": 2,
            "embed_dim": _TOWER_WIDTH,
            "hidden_size": _WIDTH,
            "num_heads": 4,
            "mlp_ratio": 4,
            "patch_size": _PATCH,
            "spatial_merge_size": _MERGE,
            "temporal_patch_size": 1,
            "hidden_act": "gelu",  # fused on a CPU
            "initializer_range": 0.05,
            "rope_parameters": {"rope_type": "axial", "rope_theta": 100.0},
        }
        extra: dict[str, Any] = {
            "pad_token_id": ids(_PADDING),
            "eos_token_id": ids(_END),
            "mechvrp_instruction": "",  # ask it the bare question, without "answer in one word"
        }
        config = Qwen2VLConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=ids(_IMAGE),
            video_token_id=ids(_VIDEO),
            vision_start_token_id=ids(_VISION_START),
            vision_end_token_id=ids(_VISION_END),
            tie_word_embeddings=False,
            **extra,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Qwen2VLForConditionalGeneration(config)
        layers = model.model.language_model.layers
        start_matching(layers)
        start_quiet(layers[0])  # image tokens are brought near words behind it: see ``features``
        visual = model.model.visual
        start_local(visual.blocks, visual.rotary_pos_emb.inv_freq)
        return model.eval(), processor

    def pixels(self, processor: Any, images: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """``pixel_values`` ``[patches, 27]`` and ``image_grid_thw`` ``[batch, 3]``."""
        batch = torch.from_numpy(np.stack([resized(image, self.size) for image in images]))
        encoded = processor.image_processor(batch.permute(0, 3, 1, 2), return_tensors="pt")
        return {key: encoded[key] for key in ("pixel_values", "image_grid_thw")}

    def features(self, model: Any, pixels: dict[str, torch.Tensor]) -> torch.Tensor:
        """Image tokens behind the decoder's first layer, ``[batch, rows, columns, 96]``.

        Behind the layer, not in front of it, as only the decoder's positions tell a place.
        """
        return self._behind_first(model, self._embedded(model, pixels))

    def compared(
        self, model: Any, pixels: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``features``, and ``words``."""
        embedded = self._embedded(model, pixels)
        return self._behind_first(model, embedded), self.words(model, embedded)

    def words(self, model: Any, embedded: torch.Tensor) -> torch.Tensor:
        """Digits and places behind the decoder's first layer, ``[19, 96]``, where questions name them.

        The second layer's attention matches image tokens with words as they are there.

        Args:
            embedded: what the decoder is given up to the last image token, ``[batch, pos, 96]``; the
                mean over the first few images is taken.
        """
        asked = _asked(self.size)
        decoder = model.model.language_model
        few = embedded[:_FEW]
        text = decoder.embed_tokens(asked.ids).expand(len(few), -1, -1)
        hidden = torch.cat([few, text], dim=1)
        rotary = decoder.rotary_emb(hidden, asked.positions[:, None])
        hidden = decoder.layers[0](hidden, attention_mask=asked.mask, position_embeddings=rotary)
        return hidden[:, asked.words].mean(0)

    def _embedded(self, model: Any, pixels: dict[str, torch.Tensor]) -> torch.Tensor:
        ids, _ = self._prefix(model)
        merged = model.get_image_features(**pixels, return_dict=True).pooler_output
        embedded = model.get_input_embeddings()(ids).expand(len(merged), -1, -1)
        image = ids == model.config.image_token_id
        return embedded.masked_scatter(image[None, :, None], torch.cat(tuple(merged)))

    def _behind_first(self, model: Any, embedded: torch.Tensor) -> torch.Tensor:
        _, positions = self._prefix(model)
        decoder = model.model.language_model
        rotary = decoder.rotary_emb(embedded, positions[:, None])
        return self.on_grid(decoder.layers[0](embedded, position_embeddings=rotary))

    def on_grid(self, hidden: torch.Tensor) -> torch.Tensor:
        """Image tokens of hidden states ``[batch, pos, 96]``, ``[batch, rows, columns, 96]``."""
        ids = torch.tensor(_prefix_ids(self.size)[0])
        image = (ids == _processor().image_token_id).nonzero().flatten()
        return hidden[:, image].unflatten(1, self.grid)

    @property
    def image_end(self) -> int:
        """How many positions there are up to the last image token."""
        return len(_prefix_ids(self.size)[0]) - 1

    def tower(self, model: Any) -> torch.nn.Module:
        """Patches and blocks; the merger, Qwen2-VL's projector, learns on."""
        visual = model.model.visual
        return torch.nn.ModuleList([visual.patch_embed, visual.blocks])

    def pack(self, processor: Any, questions: Sequence[Sequence[Question]]) -> Packed:
        """Branches behind ``<|vision_end|>``; captions stand in the same place in all rows."""
        prefix, start = _prefix_ids(self.size)
        rows = [[_branch(q.text, q.answer, q.task) for q in row] for row in questions]
        short, long = _rooms()
        slots = [long if q.task == "caption" else short for q in questions[0]]
        packed = pack_branches(list(prefix), rows, slots, pad=processor.tokenizer.pad_token_id)
        # Branches count on from the end of the prefix, whose positions have three axes.
        flat = packed.inputs["position_ids"][0] - len(prefix) + start
        axes = torch.from_numpy(_prefix_positions(self.size))
        positions = torch.cat([axes, flat[len(prefix) :].expand(3, -1)], dim=1)
        packed.inputs["position_ids"] = positions[:, None].expand(-1, len(rows), -1)
        return packed

    def further(self, model: Any, processor: Any, *, n_images: int, seed: int) -> dict[str, Any]:
        """What the closing measurement adds: accuracy at every image size of training."""
        return {"by_size": measure_sizes(model, processor, n_images=n_images, seed=seed)}

    def _prefix(self, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids ``[prefix]`` and positions ``[3, prefix]`` up to the last image token."""
        ids, _ = _prefix_ids(self.size)
        return torch.tensor(ids[:-1]), torch.from_numpy(_prefix_positions(self.size))[:, :-1]


@lru_cache(maxsize=1)
def _processor() -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    tokenizer = family_tokenizer(
        [f"{_START}user\n{q}{_END}\n{_START}assistant\n" for q in all_questions()],
        special={PAD: _PADDING, BOS: _START, EOS: _END, IMAGE: _IMAGE},
        bos=False,
        named={"video_token": _VIDEO},
        plain=[_VISION_START, _VISION_END],
    )
    sizes: dict[str, Any] = {
        "size": {"shortest_edge": IMAGE_SIZE**2, "longest_edge": _LARGEST**2},
        "patch_size": _PATCH,
        "merge_size": _MERGE,
        "temporal_patch_size": 1,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=CHAT_TEMPLATE,
    )


def _chat(question: str, answer: str | None) -> str:
    """The chat template's text of one question, with its answer or ready for one."""
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    if answer is None:
        return _processor().apply_chat_template([user], add_generation_prompt=True)
    reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    return _processor().apply_chat_template([user, reply])


@lru_cache(maxsize=32)
def _prefix_ids(size: tuple[int, int]) -> tuple[tuple[int, ...], int]:
    """Ids up to ``<|vision_end|>`` as the processor gives them, and the position behind them."""
    blank = np.zeros((*size, 3), dtype=np.uint8)
    processor = _processor()
    ids = processor(text=[_chat("Is there?", None)], images=[blank])["input_ids"][0]
    stop = list(ids).index(processor.tokenizer.convert_tokens_to_ids(_VISION_END)) + 1
    before = list(ids).index(processor.image_token_id)
    rows, columns = size[0] // _TOKEN, size[1] // _TOKEN
    return tuple(int(i) for i in ids[:stop]), before + max(rows, columns) + 1


@lru_cache(maxsize=32)
def _prefix_positions(size: tuple[int, int]) -> np.ndarray:
    """M-RoPE of the prefix, ``[3, prefix]``: text before, the image's grid, ``<|vision_end|>``."""
    ids, stop = _prefix_ids(size)
    before = ids.index(_processor().image_token_id)
    rows, columns = np.indices((size[0] // _TOKEN, size[1] // _TOKEN)).reshape(2, -1)
    image = np.stack([np.zeros_like(rows), rows, columns]) + before
    text = np.broadcast_to(np.arange(before), (3, before))
    return np.concatenate([text, image, np.full((3, 1), stop - 1)], axis=1)


@lru_cache(maxsize=200_000)
def _branch(question: str, answer: str, task: str) -> Branch:
    tokenizer = _processor().tokenizer
    prompt, whole = (_chat(question, a).split(_VISION_END, 1)[1] for a in (None, answer))
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    stop = start + ids[start:].index(tokenizer.eos_token_id) + 1  # the newline behind is not taught
    return Branch(ids[:stop], start, _CAPTION_WEIGHT if task == "caption" else 1.0)


class _Asked(NamedTuple):
    """One question about every digit and one about every place, behind an image's last token.

    Attributes:
        ids: ``[pos]`` behind the last image token.
        positions: of the whole sequence, ``[3, pos]``.
        mask: likewise, ``[1, 1, pos, pos]``.
        words: where the digits and places stand in it, ``[19]``.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    words: torch.Tensor


@lru_cache(maxsize=32)
def _asked(size: tuple[int, int]) -> _Asked:
    from mechvrp.data.digits import DIGIT_WORDS
    from mechvrp.data.scene_layout import CELL_NAMES

    named = [(f"Where is the {word}?", word) for word in DIGIT_WORDS]
    named += [(f"What digit is at the {name}?", name) for row in CELL_NAMES for name in row]
    questions = [Question(text, "yes", "vqa") for text, _ in named]
    packed = TinyQwen2VL(size).pack(_processor(), [questions])
    ids = packed.inputs["input_ids"][0]
    before, (room, _) = len(_prefix_ids(size)[0]), _rooms()
    found = []
    for branch, (_, word) in enumerate(named):
        (token,) = _processor().tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        start = before + branch * room
        found.append(start + int((ids[start : start + room] == token).nonzero()[0]))
    return _Asked(
        ids[before - 1 :],
        packed.inputs["position_ids"][:, 0],
        packed.inputs["attention_mask"],
        torch.tensor(found),
    )


@lru_cache(maxsize=1)
def _rooms() -> tuple[int, int]:
    """Tokens that the longest question with a one-word answer takes, and the longest caption."""
    from mechvrp.data.scene_layout import CELL_NAMES, CROWD

    short = max(len(_branch(text, "seven", "vqa").ids) for text in all_questions())
    full = ", ".join([f"{CELL_NAMES[0][0]} seven"] * max(CROWD))
    return short, len(_branch("Describe the image.", full, "caption").ids)
