"""Groups of token positions: every token of a prompt is in exactly one."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor

if TYPE_CHECKING:
    from mechvrp.models import Batch
    from mechvrp.models.tokens import TokenMap

__all__ = ["GROUPS", "token_groups"]

#: The last prompt token, the image's tokens, the question's, and all other text: the prompt's template
#: and instruction, before the image and behind the question.
GROUPS: tuple[str, ...] = ("image", "question", "template", "last")

_known: WeakKeyDictionary[TokenMap, Tensor] = WeakKeyDictionary()


def token_groups(batch: Batch) -> Int[Tensor, "batch pos"]:
    """Which of `GROUPS` each position of a batch is in; -1 on padding.

    Raises:
        SiteError: the question's positions are unknown, the batch being encoded elsewhere.
    """
    tokens = batch.tokens
    if tokens not in _known:
        found = torch.where(tokens.attention_mask, GROUPS.index("template"), -1)
        # In this order: a question that ends the prompt ends in the last token.
        for name in ("question", "image", "last"):
            found[tokens.mask(name)] = GROUPS.index(name)
        _known[tokens] = found
    return _known[tokens]
