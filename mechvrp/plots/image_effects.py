"""Figure of effects of image patches, over the image itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from mechvrp.errors import InputError, ShapeError
from mechvrp.patching import patch_effects
from mechvrp.plots.panels import TWO_SIGNS, grid_of_panels, largest, note_below, on_a_page
from mechvrp.plots.theme import count, measured, percent_level, wrapped

if TYPE_CHECKING:
    import xarray
    from PIL.Image import Image

__all__ = ["effects_over_image"]


def effects_over_image(
    effects: xarray.Dataset | xarray.DataArray,
    image: Image,
    *,
    title: str | None = None,
    layers: Sequence[int] | None = None,
    interval: tuple[xarray.DataArray, xarray.DataArray] | None = None,
    columns: int = 5,
    panel: int | None = None,
    width: int | None = None,
) -> go.Figure:
    """Effects of image patches laid over the image, a panel per layer.

    Args:
        effects: a ``causal_trace`` of every patch, drawn with its intervals; or values [layer, row, col], e.g.
            the mean over examples of an activation-patching grid over patches.
        image: what the model saw; its aspect ratio need not be the grid's.
        title: what an effect is, with its unit; by default as the trace says.
        layers: by default all.
        interval: lower and upper ends [layer, row, col] of values that are given by themselves.
        columns: panels side by side.
        panel: longer side of a panel in pixels. By default the image's own, within 210 to 640, of one layer;
            210 of more.
        width: of the page in pixels, 390 of a telephone's: as many columns as fit on it. By default any.

    Returns:
        The image alone, then a panel a layer. One colour scale for all, transparent at 0: opacity is the
        size of the effect. Hovering tells value and interval.

    Raises:
        ShapeError: not [layer, row, col].
        InputError: a layer that is not there, a trace without the whole grid, ends beside a trace, or more
            panels than a figure holds.
    """
    note = "hover: value of each patch"
    import xarray as xr

    if isinstance(effects, xr.Dataset):
        if interval is not None:
            raise InputError("a trace has its own interval; give 'interval' beside values only")
        values, ends, title, note = _of_trace(effects, title)
    elif isinstance(effects, xr.DataArray):
        values, ends = effects, interval
        if ends is not None:
            if len(ends) != 2 or not all(isinstance(end, xr.DataArray) for end in ends):
                raise ShapeError(
                    "an interval is a pair of DataArrays, low and high, of the effects' shape"
                )
            note = "hover: value and interval of each patch"
    else:
        raise ShapeError(
            f"effects over an image are [layer, row, col]; got {type(effects).__name__}"
        )
    for one in (values, *(ends or ())):
        if one.dims != ("layer", "row", "col") or one.shape != values.shape:
            raise ShapeError(
                f"effects over an image are [layer, row, col]; got {list(one.dims)} of shape {one.shape}"
            )
    known = [int(i) for i in values["layer"].values]
    shown = known if layers is None else [int(i) for i in layers]
    if missing := [i for i in shown if i not in known]:
        raise InputError(f"no layer {missing[0]} among these effects; they are of layers {known}")
    at = [known.index(i) for i in shown]
    data = values.values[at]
    low, high = (end.values[at] for end in ends) if ends else (np.full_like(data, np.nan),) * 2
    if not np.isfinite(data).any():
        raise InputError("no effect has a number to draw: all are missing")
    columns, panel = on_a_page(image, 1 + len(shown), columns, panel, width, bar=True)
    figure = grid_of_panels(
        image,
        data.shape[1:],
        ["image", *(f"layer {i}" for i in shown)],
        columns=columns,
        panel=panel,
    )
    most = largest(data)
    across = min(columns, 1 + len(shown))
    for i in range(len(shown)):
        bounded = bool(np.isfinite(low[i]).all())
        figure.add_heatmap(
            z=data[i],
            zmin=-most,
            zmax=most,
            colorscale=TWO_SIGNS,
            showscale=i == len(shown) - 1,
            colorbar={
                "title": {
                    "text": wrapped(title or "effect", 26),
                    "side": "right",
                    "font": {"size": 13},
                },
                "thickness": 14,
                "outlinecolor": "rgba(128,128,128,0.5)",
            },
            customdata=np.stack([low[i], high[i]], axis=-1),
            hovertemplate="row %{y}, column %{x}: %{z:.3g}"
            + (" [%{customdata[0]:.3g}, %{customdata[1]:.3g}]" if bounded else "")
            + f"<extra>layer {shown[i]}</extra>",
            row=(i + 1) // across + 1,
            col=(i + 1) % across + 1,
        )
    note_below(figure, note, note.count("<br>") + 1)
    return figure


def _of_trace(
    traced: xarray.Dataset, title: str | None
) -> tuple[xarray.DataArray, tuple[xarray.DataArray, xarray.DataArray] | None, str, str]:
    """Indirect effects of a trace, their ends, and what they are in words."""
    if "indirect" not in traced or "grid" not in traced.attrs:
        raise InputError(
            f"expected a dataset from causal_trace; got one of {', '.join(map(str, traced.data_vars))}"
        )
    values = patch_effects(traced)
    ends = tuple(patch_effects(traced, of=f"indirect_{end}") for end in ("low", "high"))
    bounded = all(bool(np.isfinite(end.values).all()) for end in ends)
    n, images = traced.sizes["example"], int(traced.attrs["n_groups"])
    note = count(n, images)
    note += (
        f"<br>hover: value and {percent_level(0.95)} interval"
        if bounded
        else ": no interval of one image"
    )
    what = title or f"change of {measured(traced.attrs['measure'])}"
    return values, (ends[0], ends[1]) if bounded else None, what, note
