"""Causal tracing: where restoring a clean state brings a corrupted run's answer back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvrp.errors import InputError
from mechvrp.models.checks import check_batches, whole
from mechvrp.patching.alignment import check_aligned
from mechvrp.patching.gaussian import noise
from mechvrp.patching.grids import values_of
from mechvrp.patching.interventions import Edits, real, seeds
from mechvrp.patching.measures import fixed_target, one_measure, towards
from mechvrp.patching.places import chosen_layers, listed, shared_grid
from mechvrp.patching.replacing import replace
from mechvrp.patching.sweeping import MEMORY, sweep
from mechvrp.statistics import group_means
from mechvrp.tracing.caching import cache
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    import xarray

    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["causal_trace", "patch_effects", "window_around"]

_PER_CELL = ("indirect", "indirect_low", "indirect_high", "normalised")
_RESTORED = ("resid_post", "attn_out", "mlp_out")


def causal_trace(
    model: VLM,
    batch: Batch,
    *,
    corrupt: str | Batch = "image",
    sigma: float = 3.0,
    draws: int = 5,
    seed: int = 0,
    component: str = "resid_post",
    window: int = 1,
    layers: Sequence[int] | None = None,
    positions: Sequence[Positions] | None = None,
    measure: Any = "probability",
    target: Any = "own",
    memory: int = MEMORY,
    n_resamples: int = 2000,
    progress: bool = True,
) -> xarray.Dataset:
    """Clean, corrupted and restored runs (Meng et al. 2022, arXiv 2202.05262, section 2).

    The corrupted run is made once a draw; every restoration is run on from it, from the first block and
    position that it changes.

    Args:
        model: from ``mechvrp.load``.
        batch: the clean samples.
        corrupt: ``"image"`` (noise on the projected image features), a word or other positions of the
            question (noise on their embeddings), or a batch of the same samples corrupted in any other
            way (``corrupted_batch`` swaps, blurs or masks pictures), aligned with this one; then there is
            one draw.
        sigma: standard deviation of the noise, in units of the standard deviation of the values it is
            added to.
        draws: independent draws of the noise; effects are averaged over them.
        seed: of the noise and the bootstrap.
        component: what is restored: ``"resid_post"``, ``"attn_out"`` or ``"mlp_out"``.
        window: how many layers are restored together, around the one that a cell names.
        layers: cells' layers, by default all.
        positions: cells' positions, as ``batch.tokens.resolve`` (``"last"``, a word, ``[(row, col)]``, a
            number from the end); by default every image patch where all samples share a grid, and the
            last position.
        measure, target: as ``sweep``; the target ``"own"`` is the clean run's answer.
        memory, progress: as ``sweep``.
        n_resamples: of the bootstrap over images behind each interval.

    Returns:
        ``restored`` [layer, position, example], averaged over draws; ``clean`` and ``corrupted``
        [example]; and over examples ``total`` (clean minus corrupted), ``indirect`` [layer, position]
        (restored minus corrupted) with ``indirect_low`` and ``indirect_high``, and ``normalised``,
        indirect as a share of total.

    Raises:
        InputError: an unusable argument, or a corrupted batch that is not aligned with the clean one.
    """
    if component not in _RESTORED:
        raise InputError(f"component is one of {', '.join(_RESTORED)}; got {component!r}")
    check_batches(model, batch)
    window, draws = whole("window", window, 1), whole("draws", draws, 1)
    whole("n_resamples", n_resamples, 1)
    seeds(seed=seed)
    if not real("sigma", sigma) > 0:
        raise InputError(f"sigma must be above 0; got {sigma}")
    one_measure(measure, "causal_trace")
    chosen = chosen_layers(model, layers)
    windows = {layer: window_around(layer, window, model.n_layers) for layer in chosen}
    places = _cells(batch) if positions is None else listed(positions)
    sites = [Site(component, layer) for layer in sorted({i for w in windows.values() for i in w})]
    values, logits = values_of(model, batch, sites)
    measured = towards(measure, "causal_trace", logits)
    (name,) = measured
    ids = fixed_target(model, batch, logits, target)
    variants: list[Edits] = [
        [
            replace(Site(component, i), values[Site(component, i)], positions=place)
            for i in windows[layer]
        ]
        for layer in chosen
        for place in places
    ]
    options: dict[str, Any] = {"target": ids, "memory": memory, "progress": progress}
    runs = []
    if isinstance(corrupt, str):
        for base in _noises(model, batch, corrupt, sigma, draws, seed):
            runs.append(sweep(model, batch, variants, measured, base=base, **options))
    else:
        check_aligned(batch, corrupt)
        runs.append(sweep(model, corrupt, variants, measured, **options))
    clean = sweep(model, batch, [[]], measured, **options)[f"base_{name}"].values
    shape = (len(chosen), len(places), len(batch))
    restored = np.mean([run[name].values for run in runs], axis=0).reshape(shape)
    corrupted = np.mean([run[f"base_{name}"].values for run in runs], axis=0)
    groups = None if batch.samples is None else [s.source_id for s in batch.samples]
    attrs = {
        **runs[0].attrs,
        "measure": name,
        "component": component,
        "window": window,
        "draws": len(runs),
        "grid": _grid(batch),
        "seed": seed,
        "sigma": sigma if isinstance(corrupt, str) else float("nan"),
    }
    return _effects(restored, clean, corrupted, groups, chosen, places, attrs, n_resamples, seed)


def patch_effects(traced: xarray.Dataset, *, of: str = "indirect") -> xarray.DataArray:
    """A trace's indirect effects of single image patches, [layer, row, col].

    Args:
        traced: from `causal_trace`.
        of: ``"indirect"``, an end of its interval (``"indirect_low"``, ``"indirect_high"``), or
            ``"normalised"``.

    Raises:
        InputError: the trace's cells do not cover the image's grid, one patch each; or no such effect.
    """
    if of not in _PER_CELL:
        raise InputError(f"of is one of {', '.join(_PER_CELL)}; got {of!r}")
    if not {"row", "col", of} <= set(getattr(traced, "variables", ())):
        raise InputError(f"expected what causal_trace gives; got {traced!r:.60}")
    image = traced.sel(position=(traced["row"] >= 0).values)
    rows, cols = traced.attrs["grid"]
    cells = set(zip(image["row"].values.tolist(), image["col"].values.tolist(), strict=True))
    if not rows * cols == len(cells) == image.sizes["position"] or not rows:
        raise InputError(
            f"{image.sizes['position']} of the trace's cells are on the image, which is no whole grid; "
            "leave 'positions' out of causal_trace to trace every patch"
        )
    return (
        image[of]
        .assign_coords(row=("position", image["row"].values), col=("position", image["col"].values))
        .set_index(position=["row", "col"])
        .unstack("position")
        .transpose("layer", "row", "col")
    )


def window_around(layer: int, window: int, n_layers: int) -> range:
    """``window`` layers around one, cut off at the ends (raises ``InputError`` for no such layer)."""
    window = whole("window", window, 1)
    if not 0 <= layer < n_layers:
        raise InputError(f"layers run from 0 to {n_layers - 1}; got {layer}")
    first = max(0, layer - (window - 1) // 2)
    return range(first, min(n_layers, layer + window // 2 + 1))


def _grid(batch: Batch) -> tuple[int, int]:
    """The grid that all samples share, (0, 0) if they share none."""
    grids = {shape for tokens in batch.tokens.images for shape in tokens.shapes}
    return grids.pop() if len(grids) == 1 else (0, 0)


def _patch(place: Any) -> tuple[int, int]:
    """Row and column of a cell that is one image patch, (-1, -1) of any other."""
    if isinstance(place, (list, tuple)) and len(place) == 1 and isinstance(place[0], tuple):
        return place[0]
    return -1, -1


def _cells(batch: Batch) -> list[Any]:
    rows, cols = shared_grid(batch)
    return [*([(r, c)] for r in range(rows) for c in range(cols)), "last"]


def _noises(
    model: VLM, batch: Batch, corrupt: str, sigma: float, draws: int, seed: int
) -> list[Edits]:
    image = corrupt == "image"
    site = Site("projected" if image else "embed")
    # Of words: placeholders of image tokens, all alike and written over, would rule the deviation.
    over = cache(model, batch, site, positions="image" if image else "text")
    return [
        noise(site, sigma, over=over, seed=seed, draw=draw, positions=corrupt)
        for draw in range(draws)
    ]


def _effects(
    restored: np.ndarray,
    clean: np.ndarray,
    corrupted: np.ndarray,
    groups: Any,
    layers: list[int],
    places: list[Any],
    attrs: dict[str, Any],
    n_resamples: int,
    seed: int,
) -> xarray.Dataset:
    import xarray as xr

    labels = [str(p[0]) if isinstance(p, list) and len(p) == 1 else str(p) for p in places]
    single = [_patch(p) for p in places]
    rows, cols = [p[0] for p in single], [p[1] for p in single]
    dims = ("layer", "position")
    data: dict[str, Any] = {
        "restored": ((*dims, "example"), restored),
        "clean": ("example", clean),
        "corrupted": ("example", corrupted),
    }
    total = float((clean - corrupted).mean())
    indirect = restored - corrupted
    data["total"] = ((), total)
    data["indirect"] = (dims, indirect.mean(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        data["normalised"] = (
            dims,
            indirect.mean(-1) / total if total else indirect.mean(-1) * np.nan,
        )
    n_groups = len(set(groups)) if groups is not None else len(clean)
    low = high = np.full(indirect.shape[:-1], np.nan)
    if n_groups > 1:
        found = group_means(
            np.moveaxis(indirect, -1, 0), groups, n_resamples=n_resamples, seed=seed
        )
        low, high = found.low, found.high
    data["indirect_low"], data["indirect_high"] = (dims, low), (dims, high)
    coords = {
        "layer": layers,
        "position": labels,
        "example": range(len(clean)),
        "row": ("position", rows),
        "col": ("position", cols),
    }
    return xr.Dataset(data, coords, {**attrs, "n_groups": n_groups})
