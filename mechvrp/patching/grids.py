"""Activation patching: one run's states put into another, over layers and positions, heads or patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from mechvrp.patching.alignment import check_aligned, check_direction
from mechvrp.patching.interventions import Edits
from mechvrp.patching.measures import fixed_target, one_measure, towards
from mechvrp.patching.places import Over, grid_layers, labelled_axes, places_of
from mechvrp.patching.replacing import replace
from mechvrp.patching.sweeping import MEMORY, sweep
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    import xarray

    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["activation_patching", "values_of"]


def activation_patching(
    model: VLM,
    clean: Batch,
    corrupted: Batch,
    component: str = "resid_post",
    *,
    over: Over = "position",
    positions: Sequence[Positions] | Positions | None = None,
    layers: Sequence[int] | None = None,
    units: Sequence[int] | None = None,
    direction: Literal["denoise", "noise"] = "denoise",
    measure: Any = "logit_diff",
    target: Any = "own",
    foil: Any = None,
    memory: int = MEMORY,
    progress: bool = True,
) -> xarray.Dataset:
    """Patch one component of one run with that of the other, place by place.

    *Denoising* puts clean states into the corrupted run and asks what brings the clean answer back;
    *noising* puts corrupted states into the clean run and asks what breaks it (Heimersheim and Nanda
    2024, arXiv 2404.15255, on the difference).

    Args:
        model: from ``mechvrp.load``.
        clean, corrupted: aligned batches: image tokens at the same positions, prompts equally long.
        component: of the decoder's blocks, e.g. ``"resid_post"``, ``"z"``, ``"neurons"``.
        over: what is patched by itself beside the layer: a ``"position"`` (each of ``positions``), a
            ``"head"`` (of ``z``, ``q``, ``k``, ``v``, at ``positions``), an image ``"patch"`` (each cell
            of the grid, which all samples must share), or a ``"unit"`` (each of ``units``, at
            ``positions``).
        positions: as ``batch.tokens.resolve``, by default ``"last"``; with ``over="position"`` a list of
            them, by default every position of the prompt that all samples have.
        layers: by default all.
        units: with ``over="unit"``.
        direction: see above.
        measure, target, foil, memory, progress: as ``sweep``; the targets ``"own"`` and ``"right"`` are the
            clean samples', and ``kl`` is taken to the clean run.

    Returns:
        ``value`` [layer, ..., example], the measure of the patched run; ``effect``, the same as a share of
        the way from the unpatched run (0) to the other (1), NaN where the two do not differ;
        ``clean`` and ``corrupted`` [example].

    Raises:
        InputError: batches that are not aligned, or a combination that means nothing.
    """
    check_aligned(clean, corrupted)
    check_direction(direction)
    one_measure(measure, "activation patching")
    into, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    sites = grid_layers(model, component, layers)
    places = places_of(model, into, component, over, positions, units)
    values, reached = values_of(model, source, sites)
    logits = reached if direction == "denoise" else values_of(model, clean, [])[1]
    chosen = towards(measure, "activation patching", logits)
    variants: dict[Any, Edits] = {
        (site.layer, place): replace(site, values[site], **options)
        for site in sites
        for place, options in places.items()
    }
    target = fixed_target(model, clean, logits, target)
    options_: dict[str, Any] = {"target": target, "foil": foil, "progress": progress}
    found = sweep(model, into, list(variants.values()), chosen, memory=memory, **options_)
    other = sweep(model, source, [[]], chosen, memory=memory, **options_)
    (name,) = chosen
    layers = [site.layer or 0 for site in sites]
    return _labelled(found, other, name, layers, list(places), over, direction)


def values_of(model: VLM, batch: Batch, sites: Sequence[Site]) -> tuple[dict[Site, Tensor], Tensor]:
    """The whole values of some sites, and last-position logits [example, d_vocab], from one forward."""
    import nnsight

    ordered = sorted(set(sites), key=lambda site: site.order)
    with Trace(model, batch, options={"logits_to_keep": 1}) as t:
        kept = nnsight.save([t[site].clone() for site in ordered])
        logits = t.logits.save()
    return dict(zip(ordered, kept, strict=True)), logits[:, -1].float()


def _labelled(
    found: xarray.Dataset,
    other: xarray.Dataset,
    measure: str,
    layers: Sequence[int],
    places: list[Any],
    over: Over,
    direction: str,
) -> xarray.Dataset:
    import xarray as xr

    shape = (len(layers), len(places), found.sizes["example"])
    value = found[measure].values.reshape(shape)
    unpatched, reached = found[f"base_{measure}"].values, other[f"base_{measure}"].values
    span = reached - unpatched
    with np.errstate(invalid="ignore", divide="ignore"):
        effect = np.where(span == 0, np.nan, (value - unpatched) / span)
    pair = (reached, unpatched) if direction == "denoise" else (unpatched, reached)
    axes, lengths, named = labelled_axes(over, places)
    dims, full = ("layer", *axes, "example"), (shape[0], *lengths, shape[2])
    coords = {"layer": layers, "example": found["example"].values, **named}
    attrs = {**found.attrs, "measure": measure, "direction": direction}
    return xr.Dataset(
        {
            "value": (dims, value.reshape(full)),
            "effect": (dims, effect.reshape(full)),
            "clean": ("example", pair[0]),
            "corrupted": ("example", pair[1]),
        },
        coords,
        attrs,
    )
