"""What a grid of patches is laid over beside layers: positions, heads, image patches, units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mechvrp.errors import InputError, SiteError
from mechvrp.tracing.sites import COMPONENTS, Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["Over", "grid_layers", "label", "labelled_axes", "places_of", "shared_grid"]

Over = Literal["position", "head", "patch", "unit"]


def grid_layers(model: VLM, component: str, layers: Sequence[int] | None) -> list[Site]:
    """The sites of a component in some layers, by default all.

    Raises:
        SiteError: not a component of the decoder's blocks, or no such layer.
    """
    if component not in COMPONENTS or COMPONENTS[component].where != "block":
        raise SiteError(f"a grid of patches takes a component of the blocks; got {component!r}")
    chosen = range(model.n_layers) if layers is None else [int(i) for i in layers]
    return [Site(component, layer).check(model) for layer in chosen]


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
    if over == "position":
        shortest = int(batch.tokens.attention_mask.sum(-1).min())
        chosen = list(range(-shortest, 0)) if positions is None else positions
        chosen = [chosen] if isinstance(chosen, (str, int)) else list(chosen)
        return {label(p): {"positions": p} for p in chosen}
    positions = "last" if positions is None else positions
    if over == "head":
        if not COMPONENTS[component].by_head or component == "pattern":
            raise InputError(f"{component} has no heads to patch; use 'z', 'q', 'k' or 'v'")
        n = model.n_kv_heads if component in ("k", "v") else model.n_heads
        return {head: {"positions": positions, "heads": head} for head in range(n)}
    if over == "patch":
        rows, cols = shared_grid(batch)
        return {(r, c): {"positions": [(r, c)]} for r in range(rows) for c in range(cols)}
    if over == "unit":
        if not units:
            raise InputError("over='unit' needs units")
        return {int(unit): {"positions": positions, "units": int(unit)} for unit in units}
    raise InputError(f"over is 'position', 'head', 'patch' or 'unit'; got {over!r}")


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
