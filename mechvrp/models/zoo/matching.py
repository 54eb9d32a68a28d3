"""An initialisation under which attention starts by looking for what is alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["start_matching", "start_quiet"]


@torch.no_grad()
def start_matching(layers: Iterable[Any]) -> None:
    """Give every attention layer keys that equal its queries.

    Then a token attends to those with a similar residual stream: "seven" in a question to image
    tokens that the first phase has brought near the word "seven". Looking a digit up by its name
    is a step towards polls, places and relations. The product of query and key weights being near a
    multiple of the identity is what Trockman and Kolter (2023, arXiv 2305.09828) found in trained
    transformers and start from.

    Args:
        layers: decoder layers of a model with as many key as query heads.
    """
    for layer in layers:
        attention = layer.self_attn
        attention.k_proj.weight.copy_(attention.q_proj.weight)


@torch.no_grad()
def start_quiet(layer: Any) -> None:
    """Let a decoder layer write nothing at first, so that behind it words are still words.

    Where image tokens are compared with words behind a layer, that layer must not have turned the
    question's words into something else: fresh weights write several times the length of a fresh
    word embedding. Zero output weights learn as soon as there is a gradient (as in Zhang et al.
    2019, "Fixup", arXiv 1901.09321).
    """
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()
