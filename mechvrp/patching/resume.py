"""Run a batch on from a block, many times: what comes before the first edit is computed once.

Exact for every family and every attention pattern, since the whole residual stream behind the block
is given back; the vision tower and the skipped blocks cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechvrp.errors import SiteError
from mechvrp.patching.interventions import Edits, flatten
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["Resumed"]


class Resumed:
    """A batch whose forward has been run up to and with one block.

    Args:
        model: from ``mechvrp.load``.
        batch: from ``model.encode``.
        layer: the last block that is not run again (negative counts from the end).

    Attributes:
        state: the residual stream behind the block, [batch, pos, d_model].
    """

    def __init__(self, model: VLM, batch: Batch, layer: int) -> None:
        self.model = model
        self.batch = batch
        self.site = Site("resid_post", layer).check(model)
        with Trace(model, batch, options={"logits_to_keep": 1}) as t:
            state = t[self.site].save()
            t.stop()
        self.state: Float[Tensor, "batch pos d_model"] = state
        # The placeholders must be filled with something of the right size; block 0 is skipped, so
        # what it is does not matter, but the tower's own features are the honest choice.
        inputs = {k: v for k, v in batch.inputs.items() if k in ("pixel_values", "image_grid_thw")}
        with torch.no_grad():
            features = model.model.get_image_features(**inputs, return_dict=True)
        self._options = {
            "pixel_values": None,
            "mm_encoder_outputs": {"image": features},
            "logits_to_keep": 1,
        }

    def last_logits(self, *edits: Edits) -> Float[Tensor, "batch d_vocab"]:
        """Logits at the last prompt position, with edits at or behind ``site``.

        Raises:
            SiteError: an edit is at an earlier site.
        """
        first = self.site
        state, later = self.state, []
        for edit in flatten(edits):
            site = edit.site.check(self.model)
            edit.check(self.model, self.batch)
            if site.order < first.order:
                raise SiteError(f"{site} comes before {first}, from which this batch is run on")
            if site == first:
                state = edit(state, self.model, self.batch)
            else:
                later.append(edit)
        blocks: Any = self.model.envoy.get(self.model.modules.layers)
        depth = self.site.layer or 0
        options = dict(self._options)
        if any(edit.site.component == "logits" for edit in later):
            options.pop("logits_to_keep")  # its positions are those of the whole prompt
        with Trace(self.model, self.batch, options=options) as t:
            for layer in range(depth + 1):
                blocks[layer].skip(state)
            t.apply(*later)
            logits = t.logits.save()
        return logits[:, -1]
