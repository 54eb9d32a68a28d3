"""``knockout``: attention edges cut, as in Geva et al. 2023 (arXiv 2304.14767)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechvrp.errors import NumericalError
from mechvrp.patching.interventions import Edits, Intervention, build
from mechvrp.patching.selection import Selected

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["Knockout", "knockout"]


@dataclass(frozen=True, eq=False, repr=False)
class Knockout(Intervention):
    """Queries at ``positions`` no longer see ``keys``; what they see else is normalised again.

    Equal to masking those scores before the softmax.
    """

    keys: Positions = "image"

    def check(self, model: VLM, batch: Batch) -> None:
        super().check(model, batch)
        batch.tokens.resolve(self.keys)

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        """The edited weights [batch, head, query, key]."""
        blocked = batch.tokens.mask(self.keys).to(value.device)[:, None, None, :]
        queries = batch.tokens.mask(self.positions).to(value.device)[:, None, :, None]
        heads = torch.ones(value.shape[1], dtype=torch.bool, device=value.device)
        if self.heads is not None:
            heads[:] = False
            heads[list(self.heads)] = True
        cut = blocked & queries & heads[None, :, None, None]
        kept = value.masked_fill(cut, 0)
        left = kept.sum(-1, keepdim=True)
        touched = cut.any(-1, keepdim=True)
        if bool((touched & (left == 0)).any()):
            row, head, query, _ = (touched & (left == 0)).nonzero()[0].tolist()
            raise NumericalError(
                f"{self.describe()}: the query at position {query} of sample {batch.origin[row]} sees "
                f"nothing but blocked keys in head {head}, so that no weights are left"
            )
        return torch.where(touched, kept / left, value)

    def edit(self, old: Tensor, chosen: Selected, model: VLM) -> Tensor:
        raise NotImplementedError("a knockout is made on whole rows of weights")

    def _what(self) -> str:
        return f"knock out attention to {self.keys!r} at"


def knockout(
    layer: int | Sequence[int],
    *,
    query: Positions = "last",
    key: Positions = "image",
    heads: int | Sequence[int] | None = None,
) -> Edits:
    """Block attention from query positions to key positions, in one layer or several.

    Args:
        layer: a layer, or several (a list, a range: a window).
        query: positions that no longer look, as ``batch.tokens.resolve``.
        key: positions that are no longer looked at.
        heads: in which heads; by default all.

    Raises:
        NumericalError: (when made) a query would have nothing left to look at.
    """
    return build(Knockout, "pattern", layer, query, None, heads, keys=key)
