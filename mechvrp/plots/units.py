"""Figures of units: how much each matters, and what one does where answers are right and wrong."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mechvrp.circuits import Ranking
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.plots.theme import (
    COLOURS,
    TEMPLATE,
    base_figure,
    count,
    faint,
    label,
    reference,
    wrapped,
)
from mechvrp.reliability import Observations
from mechvrp.statistics import auroc_interval, group_bootstrap
from mechvrp.statistics.bootstrap import weighted_mean
from mechvrp.statistics.checks import binary
from mechvrp.tracing import Activations, Site

__all__ = ["unit_activations", "unit_scores"]

_SIGNS = (
    (1, "for a right answer", "blue", "circle"),
    (-1, "against it", "orange", "diamond"),
    (0, "neither", "grey", "square"),
)


def unit_scores(ranking: Ranking, *, top: int = 20) -> go.Figure:
    """The most important units with their scores (probe weights, say), above the density of all scores.

    Args:
        ranking: from ``rank_units``, ``rank_by_probe_weight`` or `Ranking` itself.
        top: how many units are drawn by name.

    Returns:
        Above, scores by rank, with the interval over folds where the method has one, by sign in colour
        and symbol. Below, how scores of all units are distributed, with a mark for each that is drawn above.

    Raises:
        InputError: another result, or ``top`` is not from 1 to the number of units.
    """
    if not isinstance(ranking, Ranking):
        raise InputError(f"expected a Ranking (from rank_units); got {type(ranking).__name__}")
    n = len(ranking.scores)
    if not 1 <= top <= n:
        raise InputError(f"top={top}; this ranking has {n} units, expected 1 to that")
    rows = ranking.to_frame().head(top)
    several = len(ranking.sites) > 1
    names = [
        f"{layer}.{unit}" if several else str(unit)
        for layer, unit in zip(rows["layer"], rows["unit"], strict=True)
    ]
    figure = make_subplots(rows=2, cols=1, row_heights=[0.64, 0.36], vertical_spacing=0.27)
    figure.update_layout(template=TEMPLATE, height=700, bargap=0.05)
    bounded = bool(rows[["low", "high"]].notna().all(axis=None))
    for sign, words, colour, symbol in _SIGNS:
        chosen = (rows["sign"] == sign).to_numpy()
        if not chosen.any():
            continue
        mine = rows[chosen]
        look = {"color": COLOURS[colour], "symbol": symbol, "size": 9}
        figure.add_scatter(
            x=mine["rank"],
            y=mine["score"],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (mine["high"] - mine["score"]).tolist(),
                "arrayminus": (mine["score"] - mine["low"]).tolist(),
                "thickness": 2,
                "width": 4,
            }
            if bounded
            else None,
            mode="markers",
            name=words,
            marker=look,
            customdata=[
                [label(site), unit, low, high]
                for site, unit, low, high in zip(
                    mine["site"], mine["unit"], mine["low"], mine["high"], strict=True
                )
            ],
            hovertemplate="unit %{customdata[1]} of %{customdata[0]}: %{y:.4g}"
            + (" [%{customdata[2]:.4g}, %{customdata[3]:.4g}]" if bounded else "")
            + "<extra></extra>",
            row=1,
            col=1,
        )
        figure.add_scatter(
            x=mine["score"], y=np.zeros(len(mine)), mode="markers", marker=look, showlegend=False,
            hoverinfo="skip", cliponaxis=False, row=2, col=1,
        )  # fmt: skip
    figure.add_histogram(
        x=ranking.scores,
        histnorm="probability density",
        nbinsx=60,
        marker={"color": faint(COLOURS["grey"], 0.6)},
        name=f"all {n} units",
        showlegend=False,
        hovertemplate="score %{x}: density %{y:.3g}<extra></extra>",
        row=2,
        col=1,
    )
    reference(figure, y=0, row=1, col=1)
    where = wrapped(ranking.sites[0], 40)
    if several:
        where += f"<br>and {len(ranking.sites) - 1} more sites"
    interval = "<br>bars: interval over folds" if bounded else ""
    unit = "layer.unit" if several else "unit"
    figure.update_xaxes(
        title_text=f"{unit}, most important first{interval}<br>{where}",
        tickvals=list(range(top)),
        ticktext=names,
        tickfont={"size": 10 if top > 12 else 12},
        tickangle=-90 if top > 12 else 0,
        row=1,
        col=1,
    )
    score = f"score<br>{wrapped(ranking.method, 28)}"
    figure.update_yaxes(title_text=score, row=1, col=1)
    images = f" from {len(ranking.images)} images" if ranking.images else ""
    figure.update_xaxes(title_text=f"score of all units<br>n = {n} units{images}", row=2, col=1)
    figure.update_yaxes(title_text="density,<br>1 / score", row=2, col=1)
    return figure


def unit_activations(
    values: Observations | Activations | ArrayLike,
    correct: ArrayLike,
    *,
    unit: int | None = None,
    layer: int | None = None,
    site: str | Site | None = None,
    groups: ArrayLike | None = None,
    bins: int = 40,
) -> go.Figure:
    """How a unit's activation is distributed where answers are right, and where they are wrong.

    Args:
        values: an ``Observations`` (with ``layer`` and ``unit`` of the residual stream), an ``Activations`` of
            the last position (with ``site`` and ``unit``), or ``[example]`` activations.
        correct: ``[example]``, 0 or 1.
        unit: its number.
        layer: of ``Observations``.
        site: of ``Activations``.
        groups: ``[example]`` image of each example; by default the samples' own of ``Observations``, and each
            example an image of its own otherwise.
        bins: of the histograms, over the range of all values.

    Returns:
        Densities (histogram, and a kernel estimate by Scott's rule as a line) of right and of wrong answers,
        their means with 95 % intervals below, and the AUROC of the unit with its interval.

    Raises:
        InputError: no such unit, layer or site, one class only, or fewer than two images of a class.
        ShapeError: not one value for each answer.
        NumericalError: NaN or infinity in the activations.
    """
    found, name, groups = _values(values, unit, layer, site, groups)
    right = binary(correct, "correct")
    if found.shape != right.shape:
        raise ShapeError(
            f"{found.shape} activations for {len(right)} answers; expected one for each"
        )
    if not np.isfinite(found).all():
        raise NumericalError(f"{int((~np.isfinite(found)).sum())} activations are NaN or infinite")
    if bins < 2:
        raise InputError(f"bins must be at least 2; got {bins}")
    labels = np.arange(len(found)).astype(str) if groups is None else np.asarray(groups).astype(str)
    area = auroc_interval(found, right, labels)
    low, high = float(found.min()), float(found.max())
    width = (high - low) / bins or 1.0
    figure = base_figure("", "density, 1 / activation", height=480)
    captions = []
    for index, (words, rows, colour, symbol, dash) in enumerate(
        (
            ("right", right, "blue", "circle", "solid"),
            ("wrong", ~right, "orange", "diamond", "dash"),
        )
    ):
        one, images = found[rows], len(set(labels[rows]))
        captions.append(f"{words}: {count(int(rows.sum()), images)}")
        figure.add_histogram(
            x=one,
            histnorm="probability density",
            xbins={"start": low, "end": high + width, "size": width},
            marker={"color": faint(COLOURS[colour], 0.35)},
            name=f"{words} answers",
            legendgroup=words,
            showlegend=False,
            hovertemplate=f"{words}, %{{x}}: density %{{y:.3g}}<extra></extra>",
        )
        if (line := _density(one, low, high)) is not None:
            figure.add_scatter(
                x=line[0],
                y=line[1],
                mode="lines",
                line={"color": COLOURS[colour], "width": 2.5, "dash": dash},
                name=f"{words} answers",
                legendgroup=words,
                hoverinfo="skip",
            )
        mean = (
            group_bootstrap(weighted_mean, one, groups=labels[rows], weighted=True)
            if images > 1
            else None
        )
        middle = float(one.mean())
        figure.add_scatter(
            x=[middle],
            y=[-0.035 - 0.05 * index],
            yaxis="y2",
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [mean.high - middle],
                "arrayminus": [middle - mean.low],
                "thickness": 2.5,
                "width": 5,
            }
            if mean
            else None,
            mode="markers",
            marker={"color": COLOURS[colour], "symbol": symbol, "size": 10},
            name=f"mean of {words}" + (", 95 % interval" if mean else ""),
            hovertemplate=f"mean of {words}: %{{x:.4g}}"
            + (f" [{mean.low:.4g}, {mean.high:.4g}]" if mean else "")
            + "<extra></extra>",
        )
    # Means stand in a strip of their own under the densities, whatever those are.
    figure.update_layout(
        barmode="overlay",
        yaxis={"domain": [0.16, 1]},
        yaxis2={
            "domain": [0, 0.12], "range": [-0.12, 0], "visible": False, "fixedrange": True, "anchor": "x",
        },
    )  # fmt: skip
    figure.update_xaxes(
        anchor="y2",
        title_text=f"activation of {label(name)}<br>{'<br>'.join(captions)}<br>AUROC {area.value:.3f} "
        f"[{area.low:.3f}, {area.high:.3f}]<br>bars: 95 % interval of the mean",
    )
    return figure


def _values(
    values: Observations | Activations | ArrayLike,
    unit: int | None,
    layer: int | None,
    site: str | Site | None,
    groups: ArrayLike | None,
) -> tuple[np.ndarray, str, ArrayLike | None]:
    """``[example]`` activations of the unit, its name, and images where they are known."""
    if isinstance(values, Observations):
        if layer is None or unit is None or site is not None:
            raise InputError(
                "of Observations give 'layer' and 'unit' (residual stream behind a block)"
            )
        _check("layer", layer, values.hidden.shape[0])
        _check("unit", unit, values.hidden.shape[2])
        if groups is None:
            groups = [sample.source_id for sample in values.samples]
        one = values.hidden[layer, :, unit]
        return one.astype(np.float64), f"unit {unit} behind block {layer}", groups
    if isinstance(values, Activations):
        if site is None or unit is None or layer is not None:
            raise InputError("of Activations give 'site' (a hook name) and 'unit'")
        found = values[site].float().cpu().numpy()
        if found.ndim != 2:
            raise ShapeError(
                f"{site} is cached as {list(found.shape)}; expected [example, unit]: cache it with "
                "positions='last'"
            )
        _check("unit", unit, found.shape[1])
        return found[:, unit].astype(np.float64), f"unit {unit} of {Site.parse(site)}", groups
    if unit is not None or layer is not None or site is not None:
        raise InputError("'unit', 'layer' and 'site' choose among Observations or Activations")
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(
            f"activations are numbers [example]; got {type(values).__name__}"
        ) from error
    return numbers, "the unit", groups


def _check(what: str, given: int, n: int) -> None:
    if not 0 <= given < n:
        raise InputError(f"no {what} {given}; there are {n}, from 0")


def _density(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Kernel estimate over the range of all values; None where the values have no spread."""
    from scipy.stats import gaussian_kde

    if len(values) < 3 or np.ptp(values) < 1e-12 * max(1.0, abs(high), abs(low)):
        return None
    margin = 0.08 * (high - low)
    x = np.linspace(low - margin, high + margin, 200)
    return x, gaussian_kde(values)(x)
