"""What a grid of patches is laid over beside layers: positions, heads, image patches, units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mechvrp.errors import InputError, SiteError
from mechvrp.models.checks import check_model, listing
from mechvrp.models.tokens import integers
from mechvrp.patching.interventions import flatten, zero
from mechvrp.tracing.sites import COMPONENTS, Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = [
    "Over",
    "chosen_layers",
    "grid_layers",
    "label",
    "labelled_axes",
    "listed",
    "places_of",
    "shared_grid",
]

Over = Literal["position", "head", "patch", "unit"]


def grid_layers(model: VLM, component: str, layers: Sequence[int] | None) -> list[Site]:
    """The sites of a component in some layers, by default all.

    Raises:
        SiteError: not a component of the decoder's blocks, or no such layer.
    """
    if component not in COMPONENTS or COMPONENTS[component].where != "block":
        raise SiteError(f"a grid of patches takes a component of the blocks; got {component!r}")
    return [Site(component, layer).check(model) for layer in chosen_layers(model, layers)]


def chosen_layers(model: VLM, layers: Any) -> list[int]:
    """Layers counted from 0, by default all (raises ``SiteError``: none, one twice, or out of range)."""
    check_model(model)
    if layers is None:
        return list(range(model.n_layers))
    found = [Site("resid_post", i).check(model).layer or 0 for i in integers("layers", layers)]
    if not found or len(set(found)) != len(found):
        raise SiteError(f"layers must be given once each, and at least one; got {layers!r}")
    return found


def shared_grid(batch: Batch) -> tuple[int, int]:
    """Rows and columns of the image grid that all samples have (raises ``InputError`` otherwise)."""
    grids = {shape for tokens in batch.tokens.images for shape in tokens.shapes}
    if len(grids) != 1:
        raise InputError(
            f"the samples' image grids differ ({sorted(grids)}): give positions that all of them have"
        )
    return grids.pop()


def places_of(
    model: VLM,
    batch: Batch,
    component: str,
    over: Over,
    positions: Any,
    units: Sequence[int] | None,
) -> dict[Any, dict[str, Any]]:
    """What is patched by itself within a layer: its label, and the edit's arguments."""
    if units is not None and over != "unit":
        raise InputError(f"units go with over='unit'; got over={over!r} and units {units!r:.60}")
    if over == "position":
        shortest = int(batch.tokens.attention_mask.sum(-1).min())
        chosen = list(range(-shortest, 0)) if positions is None else listed(positions)
        return {label(p): {"positions": p} for p in chosen}
    if component == "pattern":
        raise InputError(f"attention weights are patched by position, not over={over!r}")
    positions = "last" if positions is None else positions
    if over == "head":
        if not COMPONENTS[component].by_head:
            raise InputError(f"{component} has no heads to patch; use 'z', 'q', 'k' or 'v'")
        n = model.n_kv_heads if component in ("k", "v") else model.n_heads
        return {head: {"positions": positions, "heads": head} for head in range(n)}
    if over == "patch":
        rows, cols = shared_grid(batch)
        return {(r, c): {"positions": [(r, c)]} for r in range(rows) for c in range(cols)}
    if over == "unit":
        chosen_units = () if units is None else integers("units", units)
        if not chosen_units:
            raise InputError("over='unit' needs units")
        for edit in flatten(zero(Site(component, 0), units=list(chosen_units))):
            edit.check(model, batch)
        return {unit: {"positions": positions, "units": unit} for unit in chosen_units}
    raise InputError(f"over is 'position', 'head', 'patch' or 'unit'; got {over!r}")


def listed(positions: Any) -> list[Any]:
    """Positions that are cells of their own, one (a word, a number) or several; numbers as ``int``.

    Raises:
        InputError: there is none.
    """
    if hasattr(positions, "tolist"):
        positions = positions.tolist()
    if isinstance(positions, (str, int)):
        return [positions]
    found = [
        p.item() if hasattr(p, "item") and not getattr(p, "ndim", 0) else p
        for p in listing("positions", positions)
    ]
    if not found:
        raise InputError("a grid needs at least one position; none was given")
    return found


def label(position: Any) -> Any:
    """A position as a coordinate."""
    return position if isinstance(position, (int, str)) else str(position)


def labelled_axes(
    over: Over, places: Sequence[Any]
) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
    """Names, lengths and coordinates of the axes that places take."""
    if over == "patch":
        rows, cols = places[-1][0] + 1, places[-1][1] + 1
        return ("row", "col"), (rows, cols), {"row": range(rows), "col": range(cols)}
    # As objects where words and numbers are mixed, which numpy would make all words.
    mixed = len({type(place) for place in places}) > 1
    values = np.array(places, dtype=object) if mixed else list(places)
    return (over,), (len(places),), {over: values}
