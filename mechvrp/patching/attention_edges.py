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

    def edit(self, old: Tensor, chosen: Selected, model: VLM, batch: Batch) -> Tensor:
        """Rows of weights [token, head, key], over the keys of the whole padded sequence."""
        cut = batch.tokens.mask(self.keys)[chosen.sample].to(old.device)[:, None, :]
        kept = old.float().masked_fill(cut, 0)
        left = kept.sum(-1, keepdim=True)
        empty = (left[..., 0] == 0) & self._inside(old)[..., 0]
        if bool(empty.any()):
            token, head = empty.nonzero()[0].tolist()
            raise NumericalError(
                f"{self.describe()}: the query at position {int(chosen.position[token])} of sample "
                f"{int(chosen.sample[token])} sees nothing but blocked keys in head {head}, so that "
                "no weights are left"
            )
        # Rows of which nothing was cut stay as they are, to the last bit.
        return torch.where((cut & (old != 0)).any(-1, keepdim=True), kept / left, old.float())

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
