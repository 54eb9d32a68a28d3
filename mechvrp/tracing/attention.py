"""Attention weights under SDPA, which never forms them: made from the queries and keys it is given.

transformers hands every attention function the rotated queries, the keys, the values and the mask of a
layer. From these come the rows that are asked for, at the price of those rows; or the whole pattern,
which is then also what the layer is made to use, so that edits of it take effect. Nothing of the model
changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvrp.errors import UnavailableError
from mechvrp.models.structure.operations import strange_options

if TYPE_CHECKING:
    from mechvrp.tracing.sites import Site

__all__ = ["Inputs", "inputs_of", "replaced_output"]


@dataclass(frozen=True)
class Inputs:
    """What a layer's attention function is called with.

    Attributes:
        query: after rotary embedding.
        key, value: of the key/value heads; query head h uses head h * kv_heads // heads.
        mask: True (or 0) where a key is seen, False (or very negative) where not; ``None``: all keys
            up to the query's own position, or all of them if not ``causal``.
        scaling: of the scores.
        causal: what ``mask=None`` means.
    """

    query: Float[Tensor, "batch head query d_head"]
    key: Float[Tensor, "batch kv_head key d_head"]
    value: Float[Tensor, "batch kv_head key d_head"]
    mask: Tensor | None
    scaling: float
    causal: bool

    def weights(self) -> Float[Tensor, "batch head query key"]:
        """The whole pattern: memory grows with the square of the length."""
        return self._softmax(self.query, self.key, self._visible_all())

    def rows(
        self, sample: Int[Tensor, " row"], position: Int[Tensor, " row"]
    ) -> Float[Tensor, "row head key"]:
        """The pattern of some queries: memory grows with the length."""
        sample, position = sample.to(self.query.device), position.to(self.query.device)
        n, counts = len(self.query), torch.bincount(sample, minlength=len(self.query))
        each = int(counts[0])
        if bool((counts == each).all()) and bool((sample.diff() >= 0).all()):
            # As many rows of every sample, in order: one product for all.
            at = position.view(n, each)
            query = self.query.gather(
                2, at[:, None, :, None].expand(-1, self.query.shape[1], -1, self.query.shape[-1])
            )
            seen = self._visible(torch.arange(n, device=at.device)[:, None], at)
            return self._softmax(query, self.key, seen).transpose(1, 2).flatten(0, 1)
        found = self.query.new_empty(len(sample), self.query.shape[1], self.key.shape[2])
        for i in sample.unique().tolist():
            mine = sample == i
            at = position[mine][None]
            seen = self._visible(torch.full_like(at, i), at)
            found[mine] = self._softmax(self.query[i : i + 1, :, at[0]], self.key[i : i + 1], seen)[
                0
            ].transpose(0, 1)
        return found

    def _visible_all(self) -> Tensor | None:
        if self.mask is not None:
            return self.mask
        n, length = self.query.shape[0], self.query.shape[2]
        at = torch.arange(length, device=self.query.device).expand(n, -1)
        return self._visible(torch.arange(n, device=at.device)[:, None], at)

    def _visible(self, sample: Tensor, at: Tensor) -> Tensor | None:
        """The mask of queries ``at`` [sample, row] of samples [sample, 1], [sample, 1, row, key]."""
        if self.mask is not None:
            mask = self.mask.expand(len(self.query), *self.mask.shape[1:])
            if mask.shape[1] != 1:
                raise UnavailableError("attention weights of a mask that differs between heads")
            return mask[sample.expand_as(at), 0, at][:, None]
        if not self.causal:
            return None
        keys = torch.arange(self.key.shape[2], device=at.device)
        # Queries are the last of the keys where earlier ones come from a cache.
        return (keys <= at[..., None] + self.key.shape[2] - self.query.shape[2])[:, None]

    def _softmax(self, query: Tensor, key: Tensor, seen: Tensor | None) -> Tensor:
        """Weights [batch, head, row, key], in the model's dtype."""
        group = query.shape[1] // key.shape[1]
        # In float32 as SDPA does, whatever the model computes in.
        scores = query.float().unflatten(1, (-1, group)) @ key.float()[:, :, None].transpose(-1, -2)
        scores = scores.flatten(1, 2) * self.scaling
        if seen is not None and seen.dtype == torch.bool:
            scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
        elif seen is not None:
            scores = scores + seen
        return scores.softmax(-1).to(query.dtype)

    def mixed(self, weights: Float[Tensor, "batch head query key"]) -> Tensor:
        """What a layer's heads make of such weights, [batch, query, head, d_head]."""
        group = weights.shape[1] // self.value.shape[1]
        z = weights.unflatten(1, (-1, group)) @ self.value[:, :, None]
        return z.flatten(1, 2).transpose(1, 2).contiguous()


def inputs_of(operation: Any, site: Site) -> Inputs:
    """The inputs of a layer's call of its attention function (an nnsight operation envoy).

    Raises:
        UnavailableError: something this module does not know takes part: a soft cap, attention sinks.
    """
    (module, query, key, value, mask, *_), options = operation.inputs
    if strange := strange_options(options):
        raise UnavailableError(
            f"{site}: this layer's attention also takes {', '.join(strange)}; load the model "
            "with mechvrp.load(..., attn='eager') to read its weights"
        )
    if options.get("dropout"):
        raise UnavailableError(
            f"{site}: attention with dropout has no fixed weights; use eval mode"
        )
    if mask is not None and not (isinstance(mask, Tensor) and mask.ndim == 4):
        raise UnavailableError(
            f"{site}: a mask of type {type(mask).__name__} is not read; load with attn='eager'"
        )
    causal = options.get("is_causal")
    causal = bool(getattr(module, "is_causal", True)) if causal is None else bool(causal)
    scaling = options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    if mask is not None:
        mask = mask[..., : key.shape[2]]
    return Inputs(query, key, value, mask, scaling, causal)


def replaced_output(inputs: Inputs, weights: Tensor) -> tuple[Tensor, None]:
    """What the attention function is to return for these weights."""
    return inputs.mixed(weights), None
