"""Figure of attention over the image, a panel for each layer and head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import plotly.graph_objects as go

from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.plots.panels import MOST_PANELS, ONE_SIGN, grid_of_panels, note_below, on_a_page
from mechvrp.reliability import Observations, cluster_count, mean_map, spatial_entropy

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["attention_overlay"]


def attention_overlay(
    attention: Observations | np.ndarray,
    image: Image | None = None,
    *,
    example: int | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | Literal["mean"] | None = None,
    columns: int | None = None,
    panel: int | None = None,
    width: int | None = None,
) -> go.Figure:
    """Attention from the last prompt token to the image, laid over it, with H_s and C_k of each map.

    Args:
        attention: an ``Observations`` with maps, or one example's maps [layer, head, row, col]
            (``attention_maps``).
        image: what the model saw; by default the sample's, of ``Observations``.
        example: which of the ``Observations``; by default the first.
        layers: by default all.
        heads: by default every head by itself; ``"mean"`` is the mean over heads.
        columns: panels side by side; by default a layer's heads, up to eight.
        panel: longer side of a panel in pixels.
        width: of the page in pixels, 390 of a telephone's: as many columns as fit on it. By default any.

    Returns:
        A panel a layer and head, and last the study's map M, the mean over all layers and heads. Titles say
        H_s in nats (of log S, a uniform map's), C_k, and how much attention is on the image at all. Opacity
        is a patch's weight as a share of the panel's largest, so panels compare in shape and not in size.

    Raises:
        InputError: no maps were kept, an example, layer or head that is not there, an image missing or beside
            ``Observations`` missing its own, or more panels than a figure holds.
        ShapeError: maps are not [layer, head, row, col].
        NumericalError: negative or NaN weights, or nothing at all on the image.
    """
    maps, picture, who = _one(attention, image, example)
    n_layers, n_heads = maps.shape[:2]
    chosen = _within(layers, n_layers, "layer")
    if isinstance(heads, str):
        if heads != "mean":
            raise InputError(f"heads is a list of numbers or 'mean'; got {heads!r}")
        per_layer = 1
        shown = [(f"layer {i}, mean of heads", maps[i].mean(0)) for i in chosen]
    else:
        numbers = _within(heads, n_heads, "head")
        per_layer = len(numbers)
        shown = [(f"layer {i}, head {h}", maps[i, h]) for i in chosen for h in numbers]
    if len(shown) + 1 > MOST_PANELS:
        raise InputError(
            f"{len(shown)} maps are more than a figure holds ({MOST_PANELS - 1}): choose layers=[...] and "
            "heads=[...], or heads='mean'"
        )
    size = maps.shape[2] * maps.shape[3]
    whole = mean_map(maps) * maps.mean((0, 1)).sum()
    drawn = [*shown, ("M: mean of all heads", whole)]
    if columns is None:
        columns = per_layer if 2 <= per_layer <= 8 else 4
    columns, panel = on_a_page(picture, len(drawn), columns, panel, width, bar=False)
    figure = grid_of_panels(
        picture,
        maps.shape[2:],
        [f"{name}<br>{_told(one)}" for name, one in drawn],
        columns=columns,
        panel=panel,
        title_lines=2,
        bar=False,
    )
    across = min(columns, len(drawn))
    for index, (name, one) in enumerate(drawn):
        total = float(one.sum())
        if total <= 0:  # the title says so
            continue
        figure.add_heatmap(
            z=one / one.max(),
            zmin=0,
            zmax=1,
            colorscale=ONE_SIGN,
            showscale=False,
            customdata=np.stack([one, one / total], axis=-1),
            hovertemplate="row %{y}, column %{x}: weight %{customdata[0]:.3g}, "
            f"%{{customdata[1]:.2%}} of the map<extra>{name}<br>{_told(one)}</extra>",
            row=index // across + 1,
            col=index % across + 1,
        )
    entropy = f"{math.log(size):.2f}" if size > 1 else "0"
    lines = [
        f"{who}attention of the last prompt token",
        f"n = 1 example, {size} image tokens",
        f"H: entropy H<sub>s</sub> in nats (uniform: {entropy})",
        "C: clusters C<sub>k</sub>; %: share of all attention",
        "opacity: weight over the panel's largest",
    ]
    note_below(figure, "<br>".join(lines), len(lines))
    return figure


def _told(one: np.ndarray) -> str:
    total = float(one.sum())
    if total <= 0:
        return "no attention on the image"
    share = one / total
    return f"H {spatial_entropy(share):.2f}, C {cluster_count(share)}, {_percent(total)} on image"


def _percent(share: float) -> str:
    if share < 1e-4:
        return "&lt;0.01 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _one(
    attention: Observations | np.ndarray, image: Image | None, example: int | None
) -> tuple[np.ndarray, Image, str]:
    """One example's maps in float64, its picture, and which it is."""
    who = ""
    if isinstance(attention, Observations):
        if attention.maps is None:
            raise InputError("these observations hold no maps: observe with keep_maps=True")
        at = 0 if example is None else example
        if not isinstance(at, int | np.integer) or not 0 <= at < len(attention):
            raise InputError(f"no example {at!r:.40}; there are {len(attention)}, from 0")
        given = attention.maps[at]
        image = attention.samples[at].image if image is None else image
        who = f"example {at}: "
    else:
        if example is not None:
            raise InputError("example is of Observations; maps are of one example already")
        if image is None:
            raise InputError("maps by themselves know no image: give it")
        given = attention
    try:
        maps = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(
            f"maps are numbers [layer, head, row, col]; got {type(given).__name__}"
        ) from error
    if maps.ndim != 4 or 0 in maps.shape:
        raise ShapeError(f"maps are [layer, head, row, col]; got an array of shape {maps.shape}")
    if not (np.isfinite(maps) & (maps >= 0)).all():
        raise NumericalError("attention weights are at least 0; these hold NaN or negative ones")
    return maps, image, who


def _within(given: Sequence[int] | None, n: int, what: str) -> list[int]:
    chosen = list(range(n)) if given is None else [int(i) for i in given]
    if not chosen:
        raise InputError(f"no {what}s to draw")
    for i in chosen:
        if not 0 <= i < n:
            raise InputError(f"no {what} {i}; there are {n}, from 0")
    return chosen
