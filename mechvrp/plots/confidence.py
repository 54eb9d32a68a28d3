"""Figures of confidence: reliability diagrams, risk over coverage, ROC curves."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechvrp.errors import InputError
from mechvrp.plots.checks import by_name
from mechvrp.plots.theme import (
    COLOURS,
    TEMPLATE,
    base_figure,
    count,
    faint,
    interval_bars,
    label,
    look,
    percent_level,
    reference,
    ribbon,
    wrapped,
)
from mechvrp.reliability import Calibration, SelectiveRisk
from mechvrp.statistics import Estimate, RocBand

__all__ = ["reliability_diagram", "risk_coverage", "roc_curves"]

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_CHANCE = {"color": COLOURS["grey"], "dash": "dot", "width": 1.5}


def reliability_diagram(found: Calibration | Mapping[str, Calibration]) -> go.Figure:
    """Accuracy against confidence by bin, with intervals, above how many answers each bin holds.

    Args:
        found: from ``measure_calibration``, or several by name (before and after recalibration, say).

    Returns:
        On the dotted line confidence says how often answers are right; below it it says too much. ECE stands in
        the caption with its interval and beside the 95th percentile of what a calibrated model would have.

    Raises:
        InputError: nothing to draw, or a table without intervals (from ``reliability_table`` alone).
    """
    named = by_name(found, Calibration, "measure_calibration")
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.74, 0.26], vertical_spacing=0.05
    )
    figure.update_layout(template=TEMPLATE, height=600, barmode="group")
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line=_CHANCE, name="calibrated", hoverinfo="skip", row=1, col=1
    )  # fmt: skip
    captions = []
    for index, (name, one) in enumerate(named.items()):
        if not {"accuracy_low", "accuracy_high", "images"} <= set(one.table):
            raise InputError("the table has no intervals; make it with measure_calibration")
        colour, symbol = look(index)
        table = one.table.assign(
            low_=one.table["accuracy_low"], high_=one.table["accuracy_high"]
        ).astype(float)
        words = label(name) or "accuracy of the bin"
        level = percent_level(one.ece_width.level)
        figure.add_scatter(
            x=table["confidence"],
            y=table["accuracy"],
            error_y=interval_bars(table, "accuracy", "low_", "high_"),
            mode="lines+markers",
            name=wrapped(f"{name or 'accuracy of the bin'}, {level} interval", 34),
            line={"color": COLOURS[colour], "width": 1.5, "dash": _DASHES[index % len(_DASHES)]},
            marker={"size": 9, "symbol": symbol},
            legendgroup=words,
            customdata=table[["low_", "high_", "n", "images", "low", "high"]].to_numpy().tolist(),
            hovertemplate="confidence %{x:.3f} (%{customdata[4]:.3f} to %{customdata[5]:.3f}): "
            "accuracy %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
            "<br>n = %{customdata[2]:.0f} of %{customdata[3]:.0f} images<extra></extra>",
            row=1,
            col=1,
        )
        figure.add_bar(
            x=table["confidence"],
            y=table["n"],
            width=0.035,
            marker={"color": faint(COLOURS[colour], 0.75)},
            showlegend=False,
            legendgroup=words,
            hovertemplate="confidence %{x:.3f}: n = %{y}<extra></extra>",
            row=2,
            col=1,
        )
        whose = f"{label(name)}: " if name else ""
        captions.append(
            f"{whose}ECE {_three(one.ece_width)}<br>(calibrated: below {one.ece_width_if_calibrated:.3f})"
        )
        captions.append(count(one.ece_width.n, one.ece_width.n_groups))
    if any(one.table["accuracy_low"].isna().any() for one in named.values()):
        captions.append("no bar: the bin holds one image")
    figure.update_yaxes(title_text="accuracy, share", range=[-0.03, 1.03], row=1, col=1)
    figure.update_yaxes(title_text="answers, n", row=2, col=1)
    figure.update_xaxes(range=[-0.03, 1.03])
    figure.update_xaxes(
        title_text="confidence, probability<br>" + "<br>".join(dict.fromkeys(captions)),
        row=2,
        col=1,
    )
    return figure


def risk_coverage(found: SelectiveRisk | Mapping[str, SelectiveRisk]) -> go.Figure:
    """Share of wrong answers among those given, over the share that is given, the surest first.

    Args:
        found: from ``measure_selective_risk``, or several by name (one a signal).

    Returns:
        The curve with a band for the interval at each coverage, one coverage at a time, markers at the
        coverages of the table, and the error rate of all answers as a dotted line (of the first, if there are
        several). Legends give AURC with its interval.

    Raises:
        InputError: nothing to draw.
    """
    named = by_name(found, SelectiveRisk, "measure_selective_risk")
    first = next(iter(named.values()))
    figure = base_figure("", "wrong among answers given, %", height=480)
    reference(figure, y=100 * first.risk.value)
    captions = []
    for index, (name, one) in enumerate(named.items()):
        colour, symbol = look(index)
        line = {"color": COLOURS[colour], "width": 2, "dash": _DASHES[index % len(_DASHES)]}
        words = f"{label(name)}<br>" if name else ""
        words += f"AURC {_three(one.aurc)}"
        band = 100 * one.band
        ribbon(
            figure, band["coverage"], band["low"], band["high"], colour=COLOURS[colour], name=words,
            opacity=0.2,
        )  # fmt: skip
        figure.data[-1].showlegend = False
        figure.add_scatter(
            x=100 * one.curve["coverage"],
            y=100 * one.curve["risk"],
            mode="lines",
            line=line,
            name=words,
            legendgroup=words,
            customdata=one.curve[["threshold", "answered", "errors"]].to_numpy().tolist(),
            hovertemplate="%{x:.1f} % given (score at least %{customdata[0]:.4g}): %{y:.1f} % wrong, "
            "%{customdata[2]} of %{customdata[1]}<extra></extra>",
        )
        table = 100 * one.table
        figure.add_scatter(
            x=table["coverage"],
            y=table["risk"],
            mode="markers",
            marker={"color": COLOURS[colour], "symbol": symbol, "size": 8},
            showlegend=False,
            legendgroup=words,
            customdata=table[["coverage", "low", "high"]].to_numpy().tolist(),
            hovertemplate="%{customdata[0]:.0f} % given: %{y:.1f} % wrong "
            "[%{customdata[1]:.1f}, %{customdata[2]:.1f}]<extra></extra>",
        )
        captions.append(count(one.risk.n, one.risk.n_groups))
    level = percent_level(first.risk.level)
    figure.update_xaxes(
        title_text="answers given, %, surest first<br>"
        + "<br>".join(dict.fromkeys(captions))
        + f"<br>bands: {level} interval at each coverage<br>dotted: all answers given",
        range=[0, 102],
    )
    figure.update_yaxes(rangemode="tozero")
    return _stacked_legend(figure, len(named) * (2 if "" not in named else 1))


def roc_curves(found: RocBand | Mapping[str, RocBand]) -> go.Figure:
    """ROC curves with bands that resample images.

    Args:
        found: from ``mechvrp.statistics.roc_band``, or several by name (one a signal).

    Returns:
        A curve and its band of each (none where classes are perfectly separated; its legend says so), chance as
        a dotted line. Legends give AUROC with its interval.

    Raises:
        InputError: nothing to draw.
    """
    named = by_name(found, RocBand, "mechvrp.statistics.roc_band")
    figure = base_figure("", "true positive rate, %<br>(right answers kept)", height=560)
    figure.add_scatter(
        x=[0, 100], y=[0, 100], mode="lines", line=_CHANCE, name="chance", hoverinfo="skip"
    )
    captions = []
    for index, (name, one) in enumerate(named.items()):
        colour, _ = look(index)
        words = f"{label(name)}<br>" if name else ""
        words += f"AUROC {_three(one.area)}"
        if one.low is None or one.high is None:
            words += " (separated: no band)"
        else:
            ribbon(
                figure, 100 * one.rates, 100 * one.low, 100 * one.high,
                colour=COLOURS[colour], name=words,
            )  # fmt: skip
            figure.data[-1].showlegend = False
        figure.add_scatter(
            x=100 * one.curve[:, 0],
            y=100 * one.curve[:, 1],
            mode="lines",
            line={"color": COLOURS[colour], "width": 2.5, "dash": _DASHES[index % len(_DASHES)]},
            name=words,
            legendgroup=words,
            hovertemplate="%{x:.1f} % of wrong, %{y:.1f} % of right answers<extra></extra>",
        )
        captions.append(count(one.area.n, one.area.n_groups))
        captions.append(f"{one.n_positive} right, {one.n_negative} wrong")
    level = percent_level(next(iter(named.values())).area.level)
    figure.update_xaxes(
        title_text="false positive rate, %<br>(wrong answers kept)<br>"
        + "<br>".join(dict.fromkeys(captions))
        + f"<br>bands: {level} interval at each rate",
        range=[-1, 101],
    )
    figure.update_yaxes(range=[-1, 101])
    return _stacked_legend(figure, 1 + len(named) * (2 if "" not in named else 1))


def _three(found: Estimate) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _stacked_legend(figure: go.Figure, lines: int) -> go.Figure:
    """One entry a line: they are long, and side by side they are cut on a narrow page."""
    figure.update_layout(legend={"orientation": "v", "y": 1.02}, margin={"t": 26 + 21 * lines})
    figure.update_layout(height=figure.layout.height + 21 * lines)
    return figure
