"""One more token behind the prompt, from the keys and values that a run has left."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvrp.models.rotations import check_rotations

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["logits_behind"]


def logits_behind(
    model: VLM, batch: Batch, cache: Any, tokens: Int[Tensor, " example"]
) -> Float[Tensor, "example d_vocab"]:
    """Logits behind the prompt and one more token of each example, as ``generate`` computes them.

    Args:
        model, batch: of the run.
        cache: its keys and values; they stay as they are.
        tokens: the next token of each example.

    Raises:
        UnavailableError: with that token, rotary positions depend on other prompts.
    """
    check_rotations(model.model, batch.inputs, new_tokens=2)
    places = batch.inputs[
        "position_ids"
    ]  # [batch, pos], or an axis of time, height and width before
    # A token of text stands behind everything on every axis of rotary positions.
    behind = places.amax(-1, keepdim=True)
    if places.ndim == 3:
        behind = behind.amax(0, keepdim=True).expand(len(places), -1, -1)
    mask = batch.inputs["attention_mask"]
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    with model.turn, torch.no_grad():
        found = model.model(
            input_ids=tokens[:, None],
            attention_mask=torch.cat([mask, torch.ones_like(mask[:, :1])], dim=-1),
            position_ids=behind + 1,
            past_key_values=own,
            use_cache=True,
            logits_to_keep=1,
        )
    return found.logits[:, -1].float()
