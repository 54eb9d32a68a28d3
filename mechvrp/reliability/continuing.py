"""Decoding on from one prefill: distinct continuations only, a row each, over its keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechvrp.errors import ShapeError, UnavailableError

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["Continuations", "check_plain_decoding", "prefill"]

#: Settings of a checkpoint's generation config that change tokens' scores, and what leaves them be.
_CHANGING: dict[str, tuple[Any, ...]] = {
    "sequence_bias": (None,),
    "bad_words_ids": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
}


def check_plain_decoding(model: VLM) -> None:
    """Refuse a checkpoint whose generation config asks for more than the model's own scores.

    Raises:
        UnavailableError: it sets one of transformers' score processors that ``VLM.generate`` leaves on, or
            ends answers at strings.
    """
    config = model.model.generation_config
    for name, inert in _CHANGING.items():
        value = getattr(config, name, None)
        if value not in inert:
            raise UnavailableError(
                f"the generation config of {model.name} sets {name}={value!r}, which changes tokens' "
                "scores; here answers are read from the model's own. Set "
                f"model.model.generation_config.{name} = None to do without it"
            )
    if config.stop_strings:
        raise UnavailableError(
            f"the generation config of {model.name} ends answers at {config.stop_strings!r} (stop_strings); "
            "here they end at its end-of-answer tokens. Set model.model.generation_config.stop_strings = "
            "None to do without them"
        )


def prefill(model: VLM, batch: Batch) -> tuple[Float[Tensor, "example d_vocab"], Any]:
    """One forward over the prompts: logits of their last positions (float32), and keys and values."""
    with model.turn, torch.no_grad():
        out = model.model(**batch.inputs, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1].float(), out.past_key_values


class Continuations:
    """Rows that continue a batch's prompts, token by token, over the cache of one prefill.

    Exact for every family: positions go on from each prompt's own last one (in all dimensions of
    Qwen2-VL's alike, since text follows the image), padding stays unseen, and what was fed is causal,
    behind PaliGemma's prefix too.

    Args:
        model, batch: what was prefilled.
        cache: the prefill's keys and values; used up.

    Attributes:
        example: the prompt that each row continues; at first row i is prompt i itself.
    """

    def __init__(self, model: VLM, batch: Batch, cache: Any) -> None:
        self._model = model
        self._cache = cache
        self._mask = batch.inputs["attention_mask"]
        places = batch.inputs["position_ids"]
        self._shape = places.shape[:-2]  # (3,) of Qwen2-VL, else ()
        # Padding has positions no larger than the prompt's own.
        self._place = places.movedim(-2, 0).flatten(1).amax(-1)
        self.example = list(range(len(batch)))

    def feed(self, parents: Sequence[int], tokens: Sequence[int]) -> Float[Tensor, "row d_vocab"]:
        """New rows, each an earlier row with one token more: the logits behind it, float32.

        Rows that nobody continues are dropped; one may be continued several times. Each row holds its own
        copy of its keys and values, so memory grows with the number of rows.

        Args:
            parents: of each new row, the number of a row of the call before.
            tokens: of each new row.
        """
        if len(parents) != len(tokens) or not tokens:
            raise ShapeError(
                f"feed takes a token for each parent, and one at least; got {len(parents)} parents and "
                f"{len(tokens)} tokens"
            )
        device = self._mask.device
        index = torch.tensor(list(parents), device=device)
        if list(parents) != list(range(len(self.example))):
            self._cache.batch_select_indices(index)
        self.example = [self.example[parent] for parent in parents]
        seen = self._mask[index]
        self._mask = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=-1)
        self._place = self._place[index] + 1
        with self._model.turn, torch.no_grad():
            out = self._model.model(
                input_ids=torch.tensor(list(tokens), device=device)[:, None],
                attention_mask=self._mask,
                position_ids=self._place.expand(*self._shape, -1)[..., None],
                past_key_values=self._cache,
                use_cache=True,
            )
        return out.logits[:, -1].float()
