"""Whether two batches are the same but for their contents, so that positions can be exchanged."""

from __future__ import annotations

import torch

from mechvrp.errors import InputError
from mechvrp.models import Batch

__all__ = ["check_aligned", "check_direction"]


def check_direction(direction: str) -> None:
    """Raise ``InputError`` unless it is one."""
    if direction not in ("denoise", "noise"):
        raise InputError(f"direction is 'denoise' or 'noise'; got {direction!r}")


def check_aligned(first: Batch, second: Batch) -> None:
    """Raise ``InputError`` unless every position means the same in both batches.

    Image tokens must be at the same positions of the same grids, and prompts equally long; which words
    and pixels they hold may differ.
    """
    for batch in (first, second):
        if not isinstance(batch, Batch):
            raise InputError(f"expected a batch from model.encode(...); got {batch!r:.60}")
    if len(first) != len(second) or first.tokens.length != second.tokens.length:
        raise InputError(
            f"the batches hold {len(first)} samples of {first.tokens.length} positions and "
            f"{len(second)} of {second.tokens.length}; encode pairs whose prompts are equally long"
        )
    for i in range(len(first)):
        if not torch.equal(first.tokens.attention_mask[i], second.tokens.attention_mask[i]):
            lengths = [int(b.tokens.attention_mask[i].sum()) for b in (first, second)]
            raise InputError(
                f"sample {i} is {lengths[0]} tokens long in one batch and {lengths[1]} in the other: its "
                "positions do not correspond"
            )
        ours, theirs = first.tokens.patches(i), second.tokens.patches(i)
        if not torch.equal(ours, theirs):
            position = int((ours != theirs).any(-1).nonzero()[0])
            words = [_word(patch) for patch in (ours[position], theirs[position])]
            raise InputError(
                f"sample {i} has {words[0]} at position {position} in one batch and {words[1]} in the "
                "other: its positions do not correspond"
            )


def _word(patch: torch.Tensor) -> str:
    image, row, col, rows, cols = patch.tolist()
    return "text" if row < 0 else f"token ({row}, {col}) of image {image}'s {rows} x {cols} grid"
