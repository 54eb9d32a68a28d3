"""Runs over the clean run's keys and values: masks, inputs and caches of variants that join one by one.

All variants of a pass go through the model together; one that begins at block 9 is put beside the others
there, with the clean run's state. So every block's weights are read once a pass, whatever the number of
variants, and nothing is computed that the clean run has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mechvrp.errors import UnavailableError
from mechvrp.patching.layout import Fitting, Layout
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["Narrowed", "PrefixCache", "shared_inputs"]


def shared_inputs(model: VLM, batch: Batch, layout: Layout) -> dict[str, Tensor]:
    """Token ids, positions and mask of all variants, as if all began at once."""
    ids, places = batch.inputs["input_ids"], batch.inputs["position_ids"]
    firsts = [start.first for start in layout.starts]
    if layout.mode == "branches":
        ids = torch.cat([ids[:, first:] for first in firsts], dim=-1)
        places = torch.cat([places[..., first:] for first in firsts], dim=-1)
    else:
        n, first = layout.variants, firsts[0]
        ids = ids[:, first:].repeat(n, 1)
        places = torch.cat([places[..., first:]] * n, dim=-2)
    return {"input_ids": ids, "position_ids": places, "attention_mask": _mask(model, batch, layout)}


def _mask(model: VLM, batch: Batch, layout: Layout) -> Tensor:
    """Who sees whom, [row, 1, query, key]: the prefix before it, and of itself what lies before."""
    real = batch.tokens.attention_mask.to(model.device).bool()
    firsts = torch.tensor([start.first for start in layout.starts], device=real.device)
    rooms = layout.rooms
    if layout.mode != "branches":
        firsts, rooms = firsts[:1], rooms[:1]
    owner = torch.repeat_interleave(
        torch.arange(len(rooms), device=real.device), torch.tensor(rooms, device=real.device)
    )
    position = torch.cat(
        [torch.arange(layout.length - room, layout.length, device=real.device) for room in rooms]
    )
    before = torch.arange(layout.prefix, device=real.device) < firsts[owner][:, None]
    own = (owner == owner[:, None]) & (position <= position[:, None])
    visible = torch.cat(
        [before & real[:, None, : before.shape[1]], own & real[:, None, position]], dim=-1
    )
    if layout.mode != "branches":
        visible = visible.repeat(layout.variants, 1, 1)
    # A query that is padding itself must see something, or its softmax is NaN.
    visible = visible | ~visible.any(-1, keepdim=True)
    if model.attn_implementation == "eager":
        low = torch.finfo(model.dtype).min
        masked = torch.zeros_like(visible, dtype=model.dtype).masked_fill(~visible, low)
        return masked[:, None]
    return visible[:, None]


@dataclass(frozen=True, eq=False)
class Narrowed(Fitting):
    """Gives a block the mask and positions of the variants that have begun (an ``Edit``)."""

    site: Site
    layout: Layout

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        block = model.envoy.get(f"{model.modules.layers}.{self.site.layer}")
        _, given = block.inputs
        block.inputs = ((value,), {k: self._narrow(k, v) for k, v in given.items()})
        return value

    def _narrow(self, name: str, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(self._narrow(name, part) for part in value)
        if not isinstance(value, Tensor):
            return value
        n = self.layout.present(self.site)
        tokens = sum(self.layout.rooms[:n])
        rows = n * self.layout.examples
        branches = self.layout.mode == "branches"
        if name == "attention_mask":  # [row, 1, query, key]
            if not branches:
                return value[:rows]
            return value[..., :tokens, : self.layout.prefix + tokens]
        if name.startswith("position_embeddings"):  # [..., row, query, d_head]
            return value[..., :tokens, :] if branches else value[..., :rows, :, :]
        if name == "position_ids":  # [..., row, query]
            return value[..., :tokens] if branches else value[..., :rows, :]
        raise UnavailableError(
            f"block {self.site.layer} takes a tensor {name!r}, of which mechvrp does not know which part "
            "belongs to which variant"
        )


class _PrefixLayer(DynamicLayer):
    """Keys and values of a prefix that many rows share; they are not kept longer."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.prefix = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self.prefix
        return _behind(keys, key_states), _behind(values, value_states)


def _behind(prefix: Tensor, own: Tensor) -> Tensor:
    """A row's own behind its example's prefix, [row, head, key, d_head]; rows in whole batches."""
    examples, heads, before, width = prefix.shape
    if len(own) == examples:
        return torch.cat([prefix, own], dim=-2)
    found = own.new_empty(len(own), heads, before + own.shape[-2], width)
    found.unflatten(0, (-1, examples))[..., :before, :] = prefix
    found[..., before:, :] = own
    return found


class PrefixCache(DynamicCache):
    """The clean run's cache up to a position, for the layers that run; no copy of it.

    Args:
        clean: the cache of the clean run.
        length: positions of it that are shared.
        whole: positions of it in all.
        entry: the first block that runs.
    """

    def __init__(self, clean: Any, length: int, whole: int, entry: int) -> None:
        super().__init__()
        for index, source in enumerate(clean.layers):
            if index < entry:
                self.layers.append(DynamicLayer())
            else:
                if source.keys.shape[-2] != whole:
                    raise UnavailableError(
                        f"layer {index} kept {source.keys.shape[-2]} of {whole} positions' keys: its cache "
                        "cannot be shared by position"
                    )
                keys, values = (x[:, :, :length] for x in (source.keys, source.values))
                self.layers.append(_PrefixLayer(keys, values))
