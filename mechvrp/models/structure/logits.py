"""``logit_gap``: by how much the logits of two runs differ."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["logit_gap"]

#: Below it a logit is masked: models write the lowest number there is, or -1e9, or minus infinity.
_MASKED = -9e3


def logit_gap(found: Tensor, own: Tensor) -> float:
    """The largest difference of logits, as a share of the largest of ``own``.

    Masked logits have a scale of their own, beside which no difference of others is seen.

    Returns:
        Infinity where others are masked, or where logits are not numbers.
    """
    found, own = found.float().to(own.device), own.float()
    masked = own <= _MASKED
    if found.shape != own.shape or not torch.equal(masked, found <= _MASKED):
        return float("inf")
    apart = torch.where(found == own, 0.0, (found - own).abs())
    if not bool(apart.isfinite().all()):
        return float("inf")
    return max(
        float(apart[part].max()) / max(float(own[part].abs().max()), 1e-30)
        for part in (masked, ~masked)
        if bool(part.any())
    )
