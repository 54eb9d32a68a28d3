"""``blank_patches``: image patches taken away where the decoder begins, as an intervention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mechvrp.errors import ShapeError
from mechvrp.models.checks import listing
from mechvrp.patching.interventions import Edits, Intervention
from mechvrp.patching.masking import Fill, check_fill, checked_masks
from mechvrp.patching.selection import Selected
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["Blank", "blank_patches"]


@dataclass(frozen=True, eq=False, repr=False)
class Blank(Intervention):
    """Put an image's own mean, or zero, in the place of some of its patches.

    Attributes:
        masks: of each sample's image, True where a patch goes.
        fill: ``"mean"`` or ``"zero"``.
    """

    masks: tuple[Bool[np.ndarray, "row col"], ...] = ()
    fill: Fill = "mean"

    def check(self, model: VLM, batch: Batch) -> None:
        super().check(model, batch)
        checked_masks(batch, self.masks)

    def edit(self, old: Tensor, chosen: Selected, model: VLM, batch: Batch) -> Tensor:
        found = old.clone()
        for sample, mask in enumerate(self.masks):
            mine = (chosen.sample == sample).nonzero().flatten()
            _, row, col, _, _ = chosen.patch[mine].unbind(-1)
            gone = mine[torch.from_numpy(mask)[row, col]].to(old.device)
            own = old[mine.to(old.device)]
            found[gone] = own.mean(0) if self.fill == "mean" else torch.zeros_like(own[0])
        return found

    def _what(self) -> str:
        share = sum(int(m.sum()) for m in self.masks) / max(1, sum(m.size for m in self.masks))
        return f"{self.fill} in the place of {share:.0%} of the patches at"


def blank_patches(masks: Sequence[Bool[np.ndarray, "row col"]], *, fill: Fill = "mean") -> Edits:
    """Take patches away in front of the first block (``resid_pre`` of block 0).

    The same as ``mask_image_patches`` does behind the projector, since what a family does between the two
    is linear; but the vision tower need not run again.

    Args:
        masks: for each sample of the batch, on its image's grid, True where a patch goes
            (``patch_masks`` makes them by score).
        fill: what stands there: ``"mean"``, the mean of the image's own tokens, or ``"zero"``.
    """
    check_fill(fill)
    given = tuple(np.asarray(mask) for mask in listing("masks", masks))
    if not given or any(mask.dtype != bool or mask.ndim != 2 for mask in given):
        raise ShapeError(
            f"masks are booleans on each image's grid, True where a patch goes; got {masks!r:.60}"
        )
    return Blank(Site("resid_pre", 0), "image", masks=given, fill=fill)
