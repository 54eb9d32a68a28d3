"""Cached activations as an xarray ``Dataset`` or a TransformerLens ``ActivationCache``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mechvrp.errors import InputError, ShapeError, SiteError
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    import xarray
    from transformer_lens import ActivationCache

    from mechvrp.models import VLM, Batch
    from mechvrp.tracing.activations import Activations, Rows

__all__ = ["from_transformer_lens", "to_transformer_lens", "to_xarray"]


def _dense(value: Tensor, rows: Rows, fill: float) -> Tensor:
    """[row, ...] to [example, position, ...], shorter examples padded on the left."""
    longest = int(rows.counts.max())
    dense = value.new_full((len(rows.counts), longest, *value.shape[1:]), fill)
    column = torch.cat([torch.arange(longest - n, longest) for n in rows.counts.tolist()])
    dense[rows.example, column] = value
    return dense


def to_xarray(acts: Activations) -> xarray.Dataset:
    import xarray as xr

    data: dict[str, Any] = {}
    coords: dict[str, Any] = {"example": range(acts.n_examples)}
    for site in acts.sites:
        rows = acts.rows(site)
        value = acts.flat(site).float()  # xarray has no bfloat16
        prompt = site.component not in ("projected", "vision_resid_post")
        axis = "position" if prompt else site.component
        dims: tuple[str, ...]
        if site.component == "pattern":
            dims = ("head", "key")
        elif site.component == "projected":
            dims = ("d_model",)
        elif site.component == "vision_resid_post":
            dims = ("patch", "d_vision") if value.ndim == 3 else ("d_vision",)
        else:
            dims = site.kind.dims[2:]
        # Sizes of one axis name must agree within a dataset; key and value heads can be fewer.
        dims = tuple("kv_head" if site.component in "kv" and d == "head" else d for d in dims)
        data[str(site)] = (("example", axis, *dims), _dense(value, rows, float("nan")).numpy())
        for name in ("position", "row", "col"):
            label = _dense(getattr(rows, name), rows, -1 if name != "position" else 0)
            suffix = "" if prompt else f"_{site.component}"
            if name == "position" and not prompt:
                continue
            coords[f"token_{name}{suffix}"] = (("example", axis), label.numpy())
    from mechvrp._version import __version__

    attrs = {**acts.info, "positions": str(acts.positions), "mechvrp": __version__}
    return xr.Dataset(data, coords=coords, attrs=attrs)


def to_transformer_lens(acts: Activations, model: VLM) -> ActivationCache:
    from transformer_lens import ActivationCache

    from mechvrp.tracing.stand_ins import StandIn

    stand_in = StandIn(model)
    cached: dict[str, Tensor] = {}
    for site in acts.sites:
        if site.component in ("projected", "vision_resid_post"):
            cached[str(site)] = acts.flat(site)
            continue
        value = _dense(acts.flat(site), acts.rows(site), 0.0)
        if site.component == "pattern":
            value = value.transpose(1, 2)  # [example, head, query, key]
        cached[str(site)] = value
    entry, embed = Site("resid_pre", 0), Site("embed")
    if {entry, embed} <= set(acts.sites):
        cached["hook_pos_embed"] = cached[str(entry)] - cached[str(embed)]
    final = Site("resid_post", model.n_layers - 1)
    if final in acts.sites:
        cached["ln_final.hook_scale"] = stand_in.norm_scale(cached[str(final)].float())
    return ActivationCache(cached, stand_in)


def from_transformer_lens(cache: Mapping[str, Tensor], model: VLM, batch: Batch) -> Activations:
    """What TransformerLens's ``run_with_cache`` has cached, as activations of all positions.

    Args:
        cache: an ``ActivationCache``, or a dictionary by hook name, of a run of this batch. Hooks that are
            no site here (norms' scales, scores before the softmax) are left out.
        model, batch: what was run; rows that are padding are left out.

    Raises:
        ShapeError: a value is not of this model and batch.
        InputError: no hook is a site.
    """
    from mechvrp.tracing.access import expected_shape
    from mechvrp.tracing.activations import Activations, _kind
    from mechvrp.tracing.caching import _rows

    names = {"hook_unembed": "unembed.hook_out"}  # a bridge's name of the logits
    mask = batch.tokens.attention_mask
    values: dict[Site, Tensor] = {}
    for name, value in cache.items():
        try:
            site = Site.parse(names.get(name, name)).check(model)
        except SiteError:
            continue
        if site.component in ("projected", "vision_resid_post"):
            continue  # a bridge has them as its own modules do
        expected = expected_shape(model, batch, site)
        if tuple(value.shape) != expected:
            raise ShapeError(
                f"{name} has shape {tuple(value.shape)}; this model and batch have {expected} "
                f"({', '.join(site.kind.dims)})"
            )
        whole = value.transpose(1, 2) if site.component == "pattern" else value
        values[site] = whole.detach().cpu()[mask]
    if not values:
        raise InputError(f"none of {len(cache)} hooks is a site of {model.name}")
    values = dict(sorted(values.items(), key=lambda pair: pair[0].order))
    info = {
        "model": model.name,
        "dtype": str(next(iter(values.values())).dtype).removeprefix("torch."),
    }
    keys = tuple(batch.keys) if batch.samples is not None else None
    return Activations(
        values,
        {_kind(s): _rows(model, batch, _kind(s), "all", 0) for s in values},
        "all",
        info,
        keys,
    )
