"""Rotary positions whose frequencies depend on the lengths of prompts, not on positions alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from mechvrp.errors import UnavailableError

__all__ = ["RotaryLimit", "RotaryLimitError", "check_rotations", "lengths_of", "rotary_limits"]


class RotaryLimitError(UnavailableError):
    """Prompts, or their answers, are longer than a model's rotary positions allow."""


class RotaryLimit(NamedTuple):
    """A number of positions beyond which frequencies are others, for all prompts of a batch.

    Attributes:
        kind: ``"dynamic"`` or ``"longrope"``.
        most: the most positions, prompt and answer but for its last token, with which nothing depends on it.
    """

    kind: str
    most: int


def rotary_limits(model: Any) -> list[RotaryLimit]:
    """Those of a Hugging Face model; none where frequencies are fixed.

    transformers (``modeling_rope_utils.dynamic_rope_update``) makes frequencies anew from the longest
    prompt of a batch: ``"dynamic"`` ones beyond the length that the model was trained on, kept from then
    on until a shorter prompt than that comes; ``"longrope"`` has two sets, below and above that length.
    """
    config = model.config.get_text_config(decoder=True)
    given = getattr(config, "rope_parameters", None) or {}
    kinds = [given] if "rope_type" in given else [v for v in given.values() if isinstance(v, dict)]
    found = []
    for kind in kinds:
        if kind.get("rope_type") == "dynamic":
            # At the length itself, frequencies of a longer one before still hold.
            found.append(RotaryLimit("dynamic", int(config.max_position_embeddings) - 1))
        elif kind.get("rope_type") == "longrope":
            most = kind.get("original_max_position_embeddings") or config.max_position_embeddings
            found.append(RotaryLimit("longrope", int(most)))
    return found


def check_rotations(model: Any, inputs: Mapping[str, Tensor], new_tokens: int = 1) -> None:
    """Refuse prompts of which a model computes something else beside others, or behind others.

    Args:
        model: a Hugging Face model.
        inputs: complete, position ids included where they are given.
        new_tokens: the most that an answer may have; its last one is not run, so 1 is the prompt alone.

    Raises:
        RotaryLimitError: a prompt, or what is run of its answer, passes a limit of `rotary_limits`; with
            ``"longrope"`` only where others do not, or not at the same step.
    """
    limits = rotary_limits(model)
    if not limits:
        return
    shortest, longest = lengths_of(inputs)
    last = longest + new_tokens - 1
    reach = f" and up to {last} with {new_tokens} new tokens" if new_tokens > 1 else ""
    for kind, most in limits:
        room = most - longest + 1
        fewer = f", ask for at most {room} new tokens" if new_tokens > 1 and room > 0 else ""
        if kind == "dynamic" and last > most:
            raise RotaryLimitError(
                f"a prompt is {longest} positions long{reach}, and from {most + 1} on the frequencies of the "
                "model's rotary positions (rope_type='dynamic') depend on the longest prompt of the batch and "
                "of those before, so one prompt has many answers. Give it prompts of less than "
                f"{most + 1} positions, answers included{fewer}, or load it with another rope_type in its "
                "config (rope_parameters)"
            )
        if kind == "longrope" and last > most >= shortest and shortest < longest:
            raise RotaryLimitError(
                f"prompts of {shortest} to {longest} positions are in one batch{reach}, and the rotary "
                "positions of this model (rope_type='longrope') have other frequencies in batches with a "
                f"prompt of more than {most}. Give it those of up to {most}, answers included, by "
                f"themselves{fewer}, or give one prompt at a time (batch_size=1)"
            )


def lengths_of(inputs: Mapping[str, Tensor]) -> tuple[int, int]:
    """Positions of the shortest and of the longest prompt."""
    mask, positions = inputs["attention_mask"], inputs.get("position_ids")
    if positions is None:
        return int(mask.sum(-1).min()), mask.shape[1]
    if positions.ndim < 2:
        positions = positions[None]
    # [..., batch, pos]: Qwen2-VL's have several dimensions, of which the largest counts.
    rows = positions.reshape(-1, *positions.shape[-2:]).amax((0, 2)) + 1
    return int(rows.min()), int(rows.max())
