"""Rotary positions whose frequencies depend on the lengths of prompts, not on positions alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mechvrp.errors import UnavailableError

__all__ = ["check_rotations"]


def check_rotations(model: Any, inputs: dict[str, Tensor]) -> None:
    """Refuse prompts of which a model computes something else beside others, or behind others.

    transformers (``modeling_rope_utils.dynamic_rope_update``) makes frequencies anew from the longest
    prompt of a batch: ``"dynamic"`` ones beyond the length that the model was trained on, kept from then
    on until a shorter prompt than that comes; ``"longrope"`` has two sets, below and above that length.

    Args:
        model: a Hugging Face model.
        inputs: complete, position ids included where they are given.

    Raises:
        UnavailableError: a prompt is longer than that; with ``"longrope"`` only where others are not.
    """
    config = model.config.get_text_config(decoder=True)
    given = getattr(config, "rope_parameters", None) or {}
    kinds = [given] if "rope_type" in given else [v for v in given.values() if isinstance(v, dict)]
    mask = inputs["attention_mask"]
    lengths, longest = mask.sum(-1), mask.shape[1]
    if (positions := inputs.get("position_ids")) is not None:
        longest = int(positions.max()) + 1
    for kind in kinds:
        if kind.get("rope_type") == "dynamic":
            limit = int(config.max_position_embeddings)
            if longest >= limit:  # at the limit itself, those of a longer one before still hold
                raise UnavailableError(
                    f"a prompt is {longest} positions long, and from {limit} on the frequencies of the model's "
                    "rotary positions (rope_type='dynamic') depend on the longest prompt of the batch and of "
                    "those before, so one prompt has many answers. Give it prompts of less than "
                    f"{limit} positions, or load it with another rope_type in its config (rope_parameters)"
                )
        elif kind.get("rope_type") == "longrope":
            limit = int(
                kind.get("original_max_position_embeddings") or config.max_position_embeddings
            )
            if longest > limit >= int(lengths.min()):
                raise UnavailableError(
                    f"prompts of {int(lengths.min())} to {longest} positions are in one batch, and the rotary "
                    "positions of this model (rope_type='longrope') have other frequencies in batches with a "
                    f"prompt of more than {limit}. Give it those of up to {limit} by themselves, or one prompt "
                    "at a time (batch_size=1)"
                )
