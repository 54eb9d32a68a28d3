"""Heat maps of effects over layers and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from mechvrp.errors import InputError, ShapeError
from mechvrp.plots.panels import TWO_SIGNS, largest
from mechvrp.plots.theme import base_figure, count, label, measured, wrapped
from mechvrp.statistics import group_means

if TYPE_CHECKING:
    import xarray

__all__ = ["effect_map"]

_AXES = {"position": "token position", "head": "head", "unit": "unit"}


def effect_map(
    found: xarray.Dataset,
    *,
    names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Effects over (layer, token), as a heat map.

    Args:
        found: from ``causal_trace`` (indirect effects, with the trace's own intervals) or from
            ``activation_patching`` over positions, heads or units (its ``effect``, the mean over examples).
        names: of the columns, e.g. the tokens' text; by default the positions that were asked for.
        groups: ``[example]`` image of each example, for intervals of ``activation_patching``; without it each
            example counts as an image of its own. (A trace has its own.)
        title: what an effect is, with its unit; by default as the result says.

    Returns:
        A cell per layer (rows, from below) and token (columns), blue below 0 and orange above. Hovering tells
        value and interval. A dot marks cells whose 95 % interval, of one cell at a time, leaves out 0 once it
        is widened: of few images a percentile interval is too narrow, by the factor that Hesterberg 2015 (doi
        10.1080/00031305.2015.1089789, "expanded percentile interval") takes back, 1.4 of 5 images, 1.2 of 10.

    Raises:
        InputError: another dataset, ``groups`` beside a trace, or effects that are undefined for an example or
            everywhere.
        ShapeError: other axes than (layer, one more, example), or as many names as there are no columns.
    """
    values, low, high, axis, what = _read(found, groups)
    columns = [str(x) for x in found[axis].values] if names is None else [str(x) for x in names]
    if len(columns) != values.shape[1]:
        raise ShapeError(f"{len(columns)} names for {values.shape[1]} columns of this map")
    layers = [int(i) for i in found["layer"].values]
    n = found.sizes["example"]
    images = found.attrs.get("n_groups") if groups is None else len(set(groups))
    figure = base_figure("", "layer", height=170 + max(170, 34 * len(layers)))
    if not np.isfinite(values).any():
        raise InputError("no effect has a number to draw: all are missing")
    bounded = bool(np.isfinite(low).any())
    most = largest(values)
    figure.add_heatmap(
        x=list(range(len(columns))),
        y=list(range(len(layers))),
        z=values,
        zmin=-most,
        zmax=most,
        colorscale=TWO_SIGNS,
        xgap=1 if len(columns) <= 60 else 0,
        ygap=1,
        colorbar={
            "title": {"text": wrapped(title or what, 30), "side": "right", "font": {"size": 13}},
            "thickness": 14,
        },
        customdata=np.stack(
            [
                np.broadcast_to([label(c) for c in columns], values.shape).astype(object),
                np.broadcast_to(np.array(layers)[:, None], values.shape).astype(object),
                low.astype(object),
                high.astype(object),
            ],
            axis=-1,
        ),
        hovertemplate="layer %{customdata[1]}, %{customdata[0]}: %{z:.3g}"
        + (" [%{customdata[2]:.3g}, %{customdata[3]:.3g}]" if bounded else "")
        + "<extra></extra>",
    )
    caption = count(n, None if images is None else int(images))
    if bounded:
        wider = _widening(n if images is None else int(images))
        marked = np.argwhere(
            (values - wider * (values - low) > 0) | (values + wider * (high - values) < 0)
        )
        figure.add_scatter(
            x=marked[:, 1],
            y=marked[:, 0],
            mode="markers",
            marker={
                "size": 5 if len(columns) <= 60 else 3,
                "color": "#ffffff",
                "line": {"color": "#333333", "width": 1},
            },
            hoverinfo="skip",
            showlegend=False,
        )
        caption += "<br>dot: 95 % interval, widened for<br>few images, leaves out 0"
    else:
        caption += ": no interval of one image"
    figure.update_xaxes(title_text=f"{_AXES[axis]}<br>{caption}", showgrid=False)
    figure.update_yaxes(
        tickvals=_thinned(len(layers)), ticktext=[layers[i] for i in _thinned(len(layers))], showgrid=False
    )  # fmt: skip
    ticks = _thinned(len(columns))
    figure.update_xaxes(
        tickvals=ticks, ticktext=[label(_short(columns[i])) for i in ticks], tickfont={"size": 12}
    )
    figure.update_layout(margin={"t": 20, "r": 10})
    return figure


def _read(
    found: xarray.Dataset, groups: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str, str]:
    """Values, both ends (NaN where there are none), the second axis, and what the values are."""
    variables: Any = getattr(found, "data_vars", {})
    if "indirect" in variables:
        if groups is not None:
            raise InputError(
                "a trace has its own intervals, by image; 'groups' is for patching grids"
            )
        parts = [found[name].values for name in ("indirect", "indirect_low", "indirect_high")]
        return (
            parts[0],
            parts[1],
            parts[2],
            "position",
            f"change of {measured(found.attrs['measure'])}",
        )
    if "effect" not in variables:
        raise InputError(
            "expected a dataset from causal_trace or activation_patching; got "
            f"{', '.join(map(str, variables)) or type(found).__name__}"
        )
    dims = found["effect"].dims
    if len(dims) != 3 or dims[0] != "layer" or dims[2] != "example" or dims[1] not in _AXES:
        raise ShapeError(
            f"a map is of effects [layer, position | head | unit, example]; got {list(dims)} "
            "(effects_over_image draws patches)"
        )
    data = np.moveaxis(found["effect"].values.astype(float), -1, 0)
    defined = np.isfinite(data).all((1, 2))
    if not defined.all():
        raise InputError(
            f"the effect is undefined for {int((~defined).sum())} of {len(data)} examples, since both "
            "runs have the same value there; leave them out (found.isel(example=...))"
        )
    labels = list(range(len(data))) if groups is None else list(groups)
    if len(labels) != len(data):
        raise ShapeError(f"{len(labels)} groups for {len(data)} examples")
    what = f"effect on {found.attrs['measure']}, share of the difference".replace("_", " ")
    if len(set(labels)) < 2:
        none = np.full(data.shape[1:], np.nan)
        return data.mean(0), none, none, str(dims[1]), what
    means = group_means(data, np.array([str(x) for x in labels]))
    return means.mean, means.low, means.high, str(dims[1]), what


def _widening(images: int) -> float:
    """What makes a percentile interval of a mean as wide as Student's: both tails, and n - 1 in place of n."""
    from scipy.stats import norm, t

    return float(t.ppf(0.975, images - 1) / norm.ppf(0.975) * np.sqrt(images / (images - 1)))


def _thinned(n: int, most: int = 16) -> list[int]:
    """At most about so many of n places, evenly, the last one among them."""
    step = -(-n // most)
    places = list(range(0, n, step))
    if n - 1 - places[-1] >= max(1, step // 2):
        places.append(n - 1)
    elif places[-1] != n - 1:
        places[-1] = n - 1
    return places


def _short(text: str) -> str:
    return text if len(text) <= 14 else f"{text[:13]}…"
