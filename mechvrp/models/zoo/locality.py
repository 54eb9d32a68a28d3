"""An initialisation under which a vision tower with rotary positions starts by looking nearby."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

__all__ = ["OFFSETS", "start_local"]

OFFSETS = ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))
"""Rows and columns away, in patches, of what each of four heads looks at first."""

# With frequencies of 1, 0.4, 0.16, ... the place looked at has a lead of about 1.1 logits on the patches
# beside it and 2.2 on those at its corners.
_SHARPNESS = 2.0


@torch.no_grad()
def start_local(
    blocks: Iterable[Any],
    frequencies: torch.Tensor,
    *,
    offsets: Sequence[tuple[float, float]] = OFFSETS,
    sharpness: float = _SHARPNESS,
) -> None:
    """Give every head of a Qwen2-VL vision tower a place beside each patch to look at most at first.

    Rotary positions make a score of query and key biases alone: a sum of cosines of the distance
    between patch and place. Four heads that look at four neighbours are a convolution, and strokes
    are learned by one; from attention that is spread over the whole image they are learned late.
    The idea is ConViT's (d'Ascoli et al. 2021, arXiv 2103.10697), there with learned relative
    positions.

    Args:
        blocks: the tower's blocks, with the biased ``attn.qkv`` of ``VisionAttention``.
        frequencies: ``[head_dim / 4]``, angle per patch of each rotary pair (the same for rows and
            columns).
        offsets: rows and columns from patch to place, one for each head.
        sharpness: of the attention; a larger one looks at fewer patches.
    """
    for block in blocks:
        attention = block.attn
        head_dim = 4 * len(frequencies)
        phase = torch.stack(
            [torch.cat([row * frequencies, column * frequencies]) for row, column in offsets]
        )
        # Each coordinate pair adds sharpness * cos(angle) to the score.
        length = (sharpness / attention.scaling) ** 0.5
        query = torch.cat([phase.cos(), phase.sin()], dim=1) * length
        key = torch.zeros(len(offsets), head_dim)
        key[:, : head_dim // 2] = length
        bias = attention.qkv.bias.view(3, len(offsets), head_dim)
        bias[0].copy_(query)
        bias[1].copy_(key)
