"""Attribution patching: every patch of a grid estimated at once, from gradients.

The first-order estimate of what a patch does to a measure is the gradient of the measure times the
difference that the patch makes (Nanda 2023, "Attribution patching"; Syed, Rager and Conmy 2023, arXiv
2310.10348): two forwards and one backward for any number of patches. Averaging the gradient over inputs on
the way from one run to the other (integrated gradients; Hanna, Pezzelle and Belinkov 2024, arXiv
2403.17806) helps where the measure is far from linear. Estimates are to choose what to patch with:
``verify`` runs the exact patches of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from mechvrp.errors import InputError, NumericalError
from mechvrp.models.tokens import integers
from mechvrp.patching.alignment import check_aligned, check_direction
from mechvrp.patching.changes import batch_images, mean_changes
from mechvrp.patching.grids import values_of
from mechvrp.patching.interventions import Edits
from mechvrp.patching.measures import Measuring, fixed_target, one_measure, towards
from mechvrp.patching.places import Over, grid_layers, labelled_axes, places_of
from mechvrp.patching.replacing import replace
from mechvrp.patching.selection import flat, select
from mechvrp.patching.sweeping import MEMORY, sweep
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    import pandas as pd
    import xarray

    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["Attribution", "attribution_patching"]

_SMOOTH = ("logit", "probability", "logit_diff", "kl")


@dataclass(frozen=True, repr=False)
class Attribution:
    """Estimated effects of a grid of patches. Made by ``attribution_patching``.

    Attributes:
        estimates: a variable per component, [layer, ..., example]: by how much the patch would change
            the measure; and ``unpatched`` and ``reached`` [example], the measure of the run patched into
            and of the run patched from.
    """

    estimates: xarray.Dataset
    _model: VLM = field(repr=False)
    _batch: Batch = field(repr=False)
    _clean: Batch = field(repr=False)
    _values: dict[Site, Tensor] = field(repr=False)
    _places: dict[Any, dict[str, Any]] = field(repr=False)
    _measuring: dict[str, Any] = field(repr=False)

    @property
    def components(self) -> tuple[str, ...]:
        return tuple(self.estimates.attrs["components"])

    def verify(
        self, top: int = 20, *, seed: int = 0, memory: int = MEMORY, progress: bool = True
    ) -> pd.DataFrame:
        """Run the exact patches whose mean estimates are largest, in either direction.

        Returns:
            A row per patch, largest estimate first: ``component``, ``layer``, ``place``, ``estimate`` and
            ``exact`` (mean change of the measure over examples), with 95 % intervals from resampling
            images (``*_low``, ``*_high``; NaN where there is one image only). ``attrs["spearman"]`` is the
            rank correlation of the two; a selection by one of them, so not that of the whole grid.
            ``attrs`` also name the measure, ``n`` and ``n_groups`` (examples, and images that they are of).
        """
        import pandas as pd
        from scipy.stats import spearmanr

        cells, estimates = self._cells()
        if not 1 <= top <= len(cells):
            raise InputError(f"top must be between 1 and {len(cells)}, the patches; got {top}")
        largest = np.argsort(-np.abs(estimates.mean(-1)), kind="stable")[:top]
        variants: list[Edits] = [
            replace(site, self._values[site], **self._places[place])
            for site, place in (cells[i] for i in largest)
        ]
        measure = self._measuring["measure"]
        options = {key: self._measuring[key] for key in ("target", "foil")}
        found = sweep(
            self._model, self._batch, variants, measure, memory=memory, progress=progress, **options
        )
        (name,) = measure
        exact = found[name].values - found[f"base_{name}"].values
        rows = {
            "component": [cells[i][0].component for i in largest],
            "layer": [cells[i][0].layer for i in largest],
            "place": [cells[i][1] for i in largest],
        }
        for title, values in (("estimate", estimates[largest]), ("exact", exact)):
            mean, low, high = mean_changes(values, self._clean, n_resamples=2000, seed=seed)
            rows[title], rows[f"{title}_low"], rows[f"{title}_high"] = (
                list(mean),
                list(low),
                list(high),
            )
        table = pd.DataFrame(rows)
        table.attrs["spearman"] = (
            float(spearmanr(table["estimate"], table["exact"]).statistic) if top > 1 else np.nan
        )
        table.attrs |= {
            "measure": name,
            "n": len(self._clean),
            "n_groups": batch_images(self._clean),
        }
        return table

    def _cells(self) -> tuple[list[tuple[Site, Any]], np.ndarray]:
        """Every patch, and its estimates [patch, example]."""
        cells = [
            (Site(component, int(layer)), place)
            for component in self.components
            for layer in self.estimates["layer"].values
            for place in self._places
        ]
        parts = [
            self.estimates[c].values.reshape(-1, self.estimates.sizes["example"])
            for c in self.components
        ]
        return cells, np.concatenate(parts)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {n}" for name, n in self.estimates.sizes.items())
        return f"Attribution({', '.join(self.components)}: {sizes})"


def attribution_patching(
    model: VLM,
    clean: Batch,
    corrupted: Batch,
    component: str | Sequence[str] = "resid_post",
    *,
    over: Over = "position",
    positions: Sequence[Positions] | Positions | None = None,
    layers: Sequence[int] | None = None,
    units: Sequence[int] | None = None,
    direction: Literal["denoise", "noise"] = "denoise",
    measure: Any = "logit_diff",
    target: Any = "own",
    foil: Any = None,
    steps: int = 1,
) -> Attribution:
    """Estimate what ``activation_patching`` would find, for all patches at once.

    Args:
        model, clean, corrupted, over, positions, layers, direction, target, foil: as
            ``activation_patching``.
        component: one or several components of the blocks; with ``over="head"`` or ``"unit"`` such as
            have equally many.
        units: with ``over="unit"``, by default all.
        measure: ``logit``, ``probability``, ``logit_diff`` or ``kl``, or a function of logits [1, example,
            d_vocab] and the unpatched run's [example, d_vocab] that has a gradient.
        steps: 1: the gradient at the unpatched run; more: its mean at so many inputs between the two
            runs' (midpoints), a forward and a backward each.

    Raises:
        InputError: batches that are not aligned, or a measure without a gradient.
        NumericalError: a gradient is NaN or infinite.
    """
    check_aligned(clean, corrupted)
    check_direction(direction)
    (steps,) = integers("steps", steps)
    if steps < 1:
        raise InputError(f"steps must be at least 1; got {steps}")
    name, given = one_measure(measure, "attribution patching", of_logits=True)
    if given == "kl" and direction == "noise" and steps == 1:
        raise InputError(
            "the divergence from the clean run has no slope at the clean run: give steps of more than 1, "
            "or denoise"
        )
    if not callable(given) and given not in _SMOOTH:
        raise InputError(
            f"attribution takes one measure that has a gradient ({', '.join(_SMOOTH)}, or a function); "
            f"got {measure!r}"
        )
    components = [component] if isinstance(component, str) else list(component)
    if not components or len(set(components)) != len(components):
        raise InputError(f"components must be given once each, and at least one; got {component!r}")
    sites = [site for c in components for site in grid_layers(model, c, layers)]
    into, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    n_units = _widths(model, components, over)
    if over == "unit" and units is None:
        units = range(n_units)
    for one in components:
        places = places_of(model, into, one, over, positions, units)

    first = Site("resid_pre", 0)
    values, source_logits = values_of(model, source, [*sites, first])
    current, into_logits = values_of(model, into, [*sites, first])
    clean_logits = source_logits if direction == "denoise" else into_logits
    ids = fixed_target(model, clean, clean_logits, target)
    chosen = towards(measure, "attribution patching", clean_logits, of_logits=True)
    measuring = Measuring(model, into, chosen, into_logits, ids, foil)

    gradients = [torch.zeros_like(values[site]) for site in sites]
    for step in range(steps):
        share = 0.0 if steps == 1 else (step + 0.5) / steps
        start = current[first] + share * (values[first] - current[first])
        for total, found in zip(
            gradients, _gradients(model, into, sites, start, measuring, name), strict=True
        ):
            total += found / steps

    estimates: dict[Site, np.ndarray] = {}
    for site, gradient in zip(sites, gradients, strict=True):
        change = (gradient * (values[site] - current[site])).float()
        if not bool(torch.isfinite(change).all()):
            raise NumericalError(f"the gradient of {name} at {site} is NaN or infinite")
        estimates[site] = _by_place(model, into, site, change, places, over)
    reached = measuring(source_logits[None])[name][0].numpy()
    unpatched = measuring(into_logits[None])[name][0].numpy()
    attrs = {
        "model": model.name,
        "components": components,
        "direction": direction,
        "steps": steps,
        "measure": name,
    }
    data = _labelled(estimates, components, list(places), over, unpatched, reached, attrs)
    options = {"measure": chosen, "target": ids, "foil": foil}
    return Attribution(data, model, into, clean, values, places, options)


def _widths(model: VLM, components: Sequence[str], over: Over) -> int:
    """How many units a component has; all components must have as many of what they are split by."""
    if over not in ("head", "unit"):
        return 0
    sizes = {
        "d_model": model.d_model,
        "d_mlp": model.d_mlp,
        "d_head": model.d_head,
    }
    widths = {}
    for component in components:
        kind = Site(component, 0).kind
        heads = model.n_kv_heads if component in ("k", "v") else model.n_heads
        if over == "head" and not kind.by_head:
            heads = 0
        widths[component] = heads if over == "head" else sizes.get(kind.dims[-1], 0)
    if len(set(widths.values())) != 1:
        raise InputError(
            f"components of one attribution have equally many {over}s; these have {widths}: make one "
            "attribution each"
        )
    return next(iter(widths.values()))


def _gradients(
    model: VLM, batch: Batch, sites: list[Site], start: Tensor, measuring: Measuring, name: str
) -> list[Tensor]:
    """Gradients of a measure's sum over examples at some sites, the decoder's input being ``start``."""
    import nnsight

    ordered = sorted(sites, key=lambda site: site.order)
    leaf = start.detach().clone().requires_grad_()
    with Trace(model, batch, grad=True, options={"logits_to_keep": 1}) as t:
        t.resid_pre[0] = leaf
        kept = []
        for site in ordered:
            value = t[site]
            t.put(site, value)  # what is read may be a view beside the path to the logits
            kept.append(value)
        nnsight.save(kept)
        logits = t.logits.save()
    with torch.enable_grad():
        measure = measuring.measures[name]
        value = measuring.of(measure, logits[:, -1].float()[None])
        if not value.requires_grad:
            raise InputError(f"the measure {name!r} has no gradient")
        found = torch.autograd.grad(value.sum(), kept)
    by_site = dict(zip(ordered, found, strict=True))
    return [by_site[site].detach() for site in sites]


def _by_place(
    model: VLM,
    batch: Batch,
    site: Site,
    change: Tensor,
    places: dict[Any, dict[str, Any]],
    over: Over,
) -> np.ndarray:
    """The change summed over what each place patches, [place, example]."""
    tokens = flat(site, change)
    examples = len(batch)
    if over in ("head", "unit"):
        options = next(iter(places.values()))
        chosen = select(site, options["positions"], change, model, batch)
        picked = tokens[chosen.index]
        if over == "head":
            kept = picked.flatten(2).sum(-1)
        else:  # a unit of every head, where there are heads
            kept = picked.flatten(1, -2).sum(1) if picked.ndim > 2 else picked
        totals = kept.new_zeros(examples, kept.shape[1])
        totals.index_add_(0, chosen.sample.to(kept.device), kept)
        return totals[:, list(places)].T.cpu().numpy()
    summed = tokens.flatten(1).sum(-1)
    found = summed.new_zeros(len(places), examples)
    for row, options in enumerate(places.values()):
        chosen = select(site, options["positions"], change, model, batch)
        found[row].index_add_(0, chosen.sample.to(found.device), summed[chosen.index])
    return found.cpu().numpy()


def _labelled(
    estimates: dict[Site, np.ndarray],
    components: list[str],
    places: list[Any],
    over: Over,
    unpatched: np.ndarray,
    reached: np.ndarray,
    attrs: dict[str, Any],
) -> xarray.Dataset:
    import xarray as xr

    axes, lengths, named = labelled_axes(over, places)
    layers = [site.layer for site in estimates if site.component == components[0]]
    data: dict[str, Any] = {
        component: (
            ("layer", *axes, "example"),
            np.stack(
                [v.reshape(*lengths, -1) for s, v in estimates.items() if s.component == component]
            ),
        )
        for component in components
    }
    data |= {"unpatched": ("example", unpatched), "reached": ("example", reached)}
    coords = {"layer": layers, "example": range(len(unpatched)), **named}
    return xr.Dataset(data, coords, attrs)
