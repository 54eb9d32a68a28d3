"""Figures of ablation curves."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvrp.circuits import AblationCurve
from mechvrp.errors import InputError
from mechvrp.plots.checks import checked_rows
from mechvrp.plots.theme import (
    COLOURS,
    base_figure,
    interval_bars,
    label,
    percent_level,
    plain_count,
    reference,
    ribbon,
    wrapped,
)

__all__ = ["ablation_curve"]

_COLUMNS = (
    "task", "k", "n", "n_groups", "level", "draws", "change", "change_low", "change_high", "random_change",
    "random_change_low", "random_change_high", "random_min", "random_max",
)  # fmt: skip

#: Title of the axis, and unit, by measure.
_AXES = {
    "accuracy": ("change of accuracy,<br>percentage points", "pp"),
    "logit": ("change of the answer's logit,<br>logits", "logits"),
    "margin": ("change of the answer's margin over the<br>best other token, logits", "logits"),
    "probe": ("change of the probe's score,<br>log-odds", "log-odds"),
}
#: What was done to units, by mode.
_DONE = {"zero": "zeroed", "mean": "set to their means", "resample": "resampled"}


def ablation_curve(
    curve: AblationCurve | pd.DataFrame,
    *,
    task: str = "all",
    units: int | None = None,
    measure: str = "accuracy",
) -> go.Figure:
    """Change of accuracy, or of another measure, against the number of units zeroed, beside random units.

    Args:
        curve: an `AblationCurve` or its ``to_frame()`` (then of units ranked by probe weight and zeroed).
        task: ``"all"`` or the name of a task.
        units: units of the site, for the axis (taken from an `AblationCurve`).
        measure: ``"accuracy"``; of an `AblationCurve` that holds it, ``"logit"``, ``"margin"`` or ``"probe"``.

    Returns:
        The top k with paired intervals; the random draws' mean with its interval over images and
        draws (darker band) and the range of the draws (lighter band). The k axis is a list, so that
        k = 0 has a place beside a scale that doubles. Of an `AblationCurve` that has them, random sets of the
        top's activation norm too, with their interval.

    Raises:
        InputError: no such task or measure in the curve, or a table that is none of a curve.
    """
    ranked, done = "top k by probe weight", "zeroed"
    if measure not in _AXES:
        raise InputError(f"no measure {measure!r}; there are {', '.join(_AXES)}")
    title, unit = _AXES[measure]
    if isinstance(curve, AblationCurve):
        frame = curve.to_frame() if measure == "accuracy" else _of_measure(curve, measure)
        units = units or curve.units
        method = curve.settings.get("ranking")  # a circuit's nodes have an order, and no ranking
        ranked = f"top k by {method}" if method else "first k in the order given"
        done = _DONE[curve.settings.get("mode", "zero")]
    elif measure != "accuracy":
        raise InputError(
            f"a table of a curve has accuracy only; give the curve itself to draw {measure!r}"
        )
    else:
        frame = checked_rows(curve, _COLUMNS, "numbers of units", value="change")
    rows = frame[frame["task"] == task].sort_values("k")
    if rows.empty:
        raise InputError(f"no task {task!r} in this curve; it has {sorted(set(frame['task']))}")
    draws = int(rows["draws"].iloc[0])
    level = percent_level(rows["level"].iloc[0])
    where = "" if task == "all" else f", task {label(task)}"
    figure = base_figure(
        f"units {done}, k{f' (of {units})' if units else ''}",
        f"{title}<br>{plain_count(rows)}{where}",
        height=520,
    )
    ks = [str(k) for k in rows["k"]]
    reference(figure, y=0)
    for low, high, opacity, name in (
        ("random_min", "random_max", 0.15, f"random units: range of {draws} draws"),
        ("random_change_low", "random_change_high", 0.35, f"random units: {level} interval"),
    ):
        if rows[[low, high]].isna().all(axis=None):  # of one image there is no interval
            continue
        ribbon(
            figure, ks, rows[low], rows[high], colour=COLOURS["orange"], name=name, opacity=opacity
        )  # fmt: skip
    figure.add_scatter(
        x=ks,
        y=rows["random_change"],
        mode="lines+markers",
        name="random units: mean",
        line={"color": COLOURS["orange"], "dash": "dash", "width": 2},
        marker={"size": 7, "symbol": "square"},
        customdata=rows[["random_change_low", "random_change_high"]].to_numpy().tolist(),
        hovertemplate=_hover("random", unit),
    )
    figure.add_scatter(
        x=ks,
        y=rows["change"],
        error_y=interval_bars(rows, "change", "change_low", "change_high"),
        mode="lines+markers",
        name=wrapped(f"{ranked}{_interval(rows, 'change_low', 'change_high', level)}", 32),
        line={"color": COLOURS["blue"], "width": 2.5},
        marker={"size": 9},
        customdata=rows[["change_low", "change_high"]].to_numpy().tolist(),
        hovertemplate=_hover("top", unit),
    )
    if isinstance(curve, AblationCurve):
        _add_matched(figure, curve, task, level, measure)
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=ks)
    return figure


def _of_measure(curve: AblationCurve, measure: str) -> pd.DataFrame:
    """Columns as of ``AblationCurve.to_frame``, of another measure: k above 0."""
    found = {(p.part, p.k, p.set): p for p in curve.sets if p.measure == measure}
    if not found:
        known = ", ".join(dict.fromkeys(p.measure for p in curve.sets)) or "accuracy"
        raise InputError(f"this curve has no {measure!r}; it has {known}")
    rows = []
    for (part, k, name), top in found.items():
        if name == "top":
            own, random = top.change, found[part, k, "random"]
            beside = random.change
            rows.append(
                (
                    part, k, own.n, own.n_groups, own.level, random.draws, own.value, own.low, own.high,
                    beside.value, beside.low, beside.high, random.lowest, random.highest,
                )
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _hover(who: str, unit: str) -> str:
    digits = ".1f" if unit == "pp" else ".2f"
    ends = f"[%{{customdata[0]:{digits}}}, %{{customdata[1]:{digits}}}]"
    return f"k = %{{x}}, {who}: %{{y:{digits}}} {unit} {ends}<extra></extra>"


def _interval(rows: pd.DataFrame, low: str, high: str, level: str) -> str:
    return f", {level} interval" if rows[[low, high]].notna().any(axis=None) else ""


def _add_matched(
    figure: go.Figure, curve: AblationCurve, part: str, level: str, measure: str
) -> None:
    points = [p for p in curve.sets if (p.part, p.measure, p.set) == (part, measure, "matched")]
    unit = _AXES[measure][1]
    if not points:
        return
    frame = pd.DataFrame(
        {end: [getattr(p.change, end) for p in points] for end in ("value", "low", "high")}
    )
    figure.add_scatter(
        x=[str(p.k) for p in points],
        y=frame["value"],
        error_y=interval_bars(frame, "value", "low", "high"),
        mode="lines+markers",
        name=f"random units of the top's norm:<br>mean{_interval(frame, 'low', 'high', level)}",
        line={"color": COLOURS["green"], "dash": "dot", "width": 2},
        marker={"size": 7, "symbol": "diamond"},
        customdata=frame[["low", "high"]].to_numpy().tolist(),
        hovertemplate=_hover("random of the top's norm", unit),
    )
