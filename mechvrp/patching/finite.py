"""The clean run, without whose values there is nothing to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechvrp.errors import NumericalError

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["require_clean"]


def require_clean(values: Tensor, model: VLM, name: str) -> None:
    """Raise ``NumericalError`` where ``values``, [example, ...], of a run without edits are not finite."""
    good = torch.isfinite(values).flatten(1).all(1) if values.ndim > 1 else torch.isfinite(values)
    if bool(good.all()):
        return
    bad = [i for i, fine in enumerate(good.tolist()) if not fine]
    which = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    other = (
        "tokens masked with -inf cannot be compared: mask them with a large negative number, as "
        "torch.finfo(dtype).min"
        if not bool((values.isnan() | values.isposinf()).any())
        else "float16 overflows where bfloat16 and float32 do not: load the model with dtype='bfloat16'"
        if model.dtype == torch.float16
        else "is the checkpoint whole, and are its inputs finite?"
    )
    raise NumericalError(
        f"{name} of {model.name} in {str(model.dtype).removeprefix('torch.')} are NaN or infinite for examples "
        f"{which}, and nothing can be measured against them; {other}"
    )
