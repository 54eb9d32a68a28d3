"""What enters the first block where embeddings or image features are edited: the vision tower is not run.

The model itself puts text and image features together, from the clean run's features; so whatever an
architecture does there (scaling, its own order of images) is as in a whole run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechvrp.models import Batch
from mechvrp.patching.interventions import Intervention
from mechvrp.patching.layout import Layout, packed
from mechvrp.patching.planning import Start
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["entering", "repeated"]


def entering(
    model: VLM,
    batch: Batch,
    features: Float[Tensor, "feature d_model"],
    edits: Sequence[Sequence[Intervention]],
) -> Float[Tensor, "variant example pos d_model"]:
    """The first block's input in each of some variants.

    Args:
        features: the image features to edit, of the whole batch.
        edits: of each variant, at ``embed`` and ``projected``; those at one site in the order given.
    """
    n, length = len(edits), batch.tokens.length
    # From the beginning: rows of whole sequences, of which all positions are wanted.
    layout = Layout("full", (Start(-1, 0),) * n, len(batch), length, Site("logits"))
    own, embedded = features.repeat(n, 1), []
    for edit in packed(edits, layout, model, batch):
        if edit.site.component == "projected":
            own = edit(own, model, batch)
        else:
            embedded.append(edit)
    rows = Batch(repeated(batch, n, pixels=False), batch.tokens)
    options = {"logits_to_keep": 1, **model.family.encoded(own)}
    with Trace(model, rows, options=options) as t:
        t.apply(*embedded)
        state = t[Site("resid_pre", 0)].save()
        t.stop()
    return state.unflatten(0, (n, len(batch)))


def repeated(batch: Batch, times: int, *, pixels: bool = True) -> dict[str, Any]:
    """A batch's inputs for so many copies of it, one behind the other."""
    return {
        name: torch.cat([value] * times, dim=_rows(name, value))
        for name, value in batch.inputs.items()
        if pixels or name != "pixel_values"
    }


def _rows(name: str, value: Tensor) -> int:
    """The axis of samples: Qwen's positions have one of time, height and width before it."""
    return 1 if name == "position_ids" and value.ndim == 3 else 0
