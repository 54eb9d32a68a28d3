"""Decoder layers over packed branches, without the work that no loss depends on.

Branches do not see each other, and behind the last layer only the positions that predict an answer
matter. While packed sequences go through, decoder layers therefore attend in groups, each to the
shared image and itself, and the last layer computes queries and MLP at supervised positions only. The
values there are those of the model's own forward pass, up to rounding (tests/models/test_zoo.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from mechvrp.models.zoo.packing import Packed

__all__ = ["packed_layers"]


@contextmanager
def packed_layers(layers: Sequence[Any], packed: Packed) -> Iterator[None]:
    """Let pre-norm decoder layers with rotary positions (Llama, Gemma, Qwen2) run over ``packed``.

    Inside, the last layer returns ``[1, n, d_model]``: the ``n`` supervised positions, row by row.
    """
    *before, last = layers
    try:
        for layer in before:
            layer.forward = partial(_layer, layer, packed)
        last.forward = partial(_last_layer, last, packed)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _layer(
    layer: Any,
    packed: Packed,
    hidden: torch.Tensor,
    *,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    **_: Any,
) -> torch.Tensor:
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    query, key = (
        _rotated(_heads(attention, project(normed)), *position_embeddings)
        for project in (attention.q_proj, attention.k_proj)
    )
    value = _heads(attention, attention.v_proj(normed))
    mask = packed.inputs["attention_mask"]
    shared = packed.groups[0]
    found = [
        _attended(
            query[:, :, :shared], key[:, :, :shared], value[:, :, :shared], mask, slice(0, shared)
        )
    ]
    for start, stop in zip(packed.groups, packed.groups[1:], strict=False):
        keys, values = (
            torch.cat([x[:, :, :shared], x[:, :, start:stop]], dim=2) for x in (key, value)
        )
        seen = torch.cat([mask[..., :shared], mask[..., start:stop]], dim=-1)
        found.append(_attended(query[:, :, start:stop], keys, values, seen, slice(start, stop)))
    return _rest(layer, hidden, torch.cat(found, dim=2))


def _last_layer(
    layer: Any,
    packed: Packed,
    hidden: torch.Tensor,
    *,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    **_: Any,
) -> torch.Tensor:
    attention = layer.self_attn
    wanted = packed.targets >= 0
    # As many positions in every row, the supervised ones first.
    most = int(wanted.sum(-1).max())
    order = (~wanted).int().argsort(dim=-1, stable=True)[:, :most]
    kept = wanted.gather(1, order)
    cos, sin = (x.expand(len(hidden), -1, -1) for x in position_embeddings)
    normed = layer.input_layernorm(hidden)
    query = _rotated(
        _heads(attention, attention.q_proj(_taken(normed, order))),
        _taken(cos, order),
        _taken(sin, order),
    )
    key = _rotated(_heads(attention, attention.k_proj(normed)), cos, sin)
    value = _heads(attention, attention.v_proj(normed))
    mask = packed.inputs["attention_mask"].expand(len(hidden), 1, -1, -1)
    seen = _taken(mask[:, 0], order)[:, None]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return _rest(layer, _taken(hidden, order), mixed)[kept][None]


def _attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, rows: slice
) -> torch.Tensor:
    seen = mask[:, :, rows, : key.shape[2]]
    if seen.shape[0] == 1 and torch.equal(seen[0, 0], torch.ones_like(seen[0, 0]).tril()):
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=seen)


def _heads(attention: Any, projected: torch.Tensor) -> torch.Tensor:
    """``[batch, pos, d]`` as ``[batch, head, pos, d_head]``."""
    return projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]


def _taken(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))


def _rest(layer: Any, hidden: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
    """Output projection, residual, MLP."""
    hidden = hidden + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
    result: torch.Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return result
