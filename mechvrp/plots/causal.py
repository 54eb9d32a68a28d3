"""Figures of interventions: changes of accuracy beside their random controls, and noise by layer."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechvrp.errors import InputError
from mechvrp.plots.checks import checked_rows
from mechvrp.plots.dots import dots
from mechvrp.plots.theme import (
    COLOURS,
    TEMPLATE,
    bars,
    interval_bars,
    label,
    plain_count,
    reference,
    wrapped,
)

__all__ = ["causal_changes", "corruption_by_layer"]

_WHAT = {
    "change": ("the intervention", "blue", "circle", ""),
    "control": ("its random control", "orange", "diamond", "control_"),
}
_FAMILIES = {
    "hidden states": ("blue", "circle", 0.0),
    "attention": ("orange", "square", -0.28),
    "hidden states and attention": ("green", "diamond", 0.28),
}
_COLUMNS = (
    "family", "name", "n", "n_groups", "change", "change_low", "change_high", "control_change", "control_low",
    "control_high",
)  # fmt: skip
_BY_LAYER = ("edit", "first_layer", "last_layer", "entropy_change", "entropy_low", "entropy_high")


def causal_changes(rows: pd.DataFrame, *, family: str | None = None) -> go.Figure:
    """Change of accuracy under each intervention, beside its random control's, with intervals.

    Args:
        rows: a row per intervention: family, name, n, n_groups, and change, control_change with their ends
            (the fields of a study's ``CausalRow``).
        family: only this one; by default all.

    Returns:
        Two dots with their intervals per intervention, in percentage points.

    Raises:
        InputError: no such table, or no such row.
    """
    checked_rows(rows, _COLUMNS, "interventions")
    shown = rows if family is None else rows[rows["family"] == family]
    if shown.empty:
        raise InputError(f"no interventions to draw{f' of {family!r}' if family else ''}")
    names = [
        name if family else f"{group}: {name}"
        for group, name in zip(shown["family"], shown["name"], strict=True)
    ]
    ticks = [wrapped(name) for name in names]
    lines = 1 + max(tick.count("<br>") for tick in ticks)
    parts = []
    for what, (*_, prefix) in _WHAT.items():
        part = pd.DataFrame({"name": names, "what": what, "n": shown["n"].to_numpy()})
        part["value"] = shown[f"{prefix}change"].to_numpy(dtype=float)
        for end in ("low", "high"):
            column = f"{prefix or 'change_'}{end}"
            part[end] = shown[column].to_numpy(dtype=float)
        parts.append(part)
    figure = dots(
        pd.concat(parts, ignore_index=True),
        names,
        ticks,
        series=[(what, *look[:3]) for what, look in _WHAT.items()],
        columns=("name", "what", "value"),
        scale=1,
    )
    figure.update_layout(
        xaxis_title=f"change of accuracy,<br>percentage points<br>{plain_count(shown)}"
        f"{bars(shown[['change_low', 'change_high']])}",
        height=210 + max(38, 17 * lines) * len(names),
    )
    figure.update_yaxes(tickfont={"size": 12})
    reference(figure, x=0)
    return figure


def corruption_by_layer(rows: pd.DataFrame) -> go.Figure:
    """What noise in each window of layers does to accuracy, and to the entropy of attention behind it.

    Args:
        rows: as `causal_changes`, with first_layer, last_layer, edit and entropy_change with its ends (missing
            where no layer is behind the window); rows of other edits than noise are left out.

    Returns:
        Above, the change of accuracy (control: open, beside it); below, that of spatial entropy over log S.

    Raises:
        InputError: no such table, or no row of noise.
    """
    checked_rows(rows, (*_COLUMNS, *_BY_LAYER), "interventions")
    noise = rows[(rows["edit"] == "noise") & rows["first_layer"].notna()]
    if noise.empty:
        raise InputError("no noise by layer to draw")
    ends = noise[["first_layer", "last_layer"]].astype(int).drop_duplicates()
    windows = sorted(map(tuple, ends.to_numpy().tolist()), key=lambda w: (w[1] - w[0], w[0]))
    names = {window: _window(*window) for window in windows}
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    figure.update_layout(template=TEMPLATE, height=620)
    for family, (colour, symbol, shift) in _FAMILIES.items():
        mine = noise[noise["family"] == family]
        if mine.empty:
            continue
        x = [
            windows.index((int(a), int(b))) + shift
            for a, b in zip(mine["first_layer"], mine["last_layer"], strict=True)
        ]
        look = {"color": COLOURS[colour], "symbol": symbol, "size": 10}
        for column, prefix, words, aside, marker in (
            ("change", "change_", label(family), 0.0, look),
            (
                "control_change",
                "control_",
                f"{label(family)}, control",
                0.11,
                {**look, "symbol": f"{symbol}-open"},
            ),
        ):
            figure.add_scatter(
                x=[at + aside for at in x],
                y=mine[column],
                error_y=interval_bars(mine, column, f"{prefix}low", f"{prefix}high"),
                mode="markers",
                name=words,
                legendgroup=words,
                marker=marker,
                customdata=mine[[f"{prefix}low", f"{prefix}high"]].to_numpy().tolist(),
                hovertemplate=f"{words}: %{{y:.1f}} pp [%{{customdata[0]:.1f}}, "
                "%{customdata[1]:.1f}]<extra></extra>",
                row=1,
                col=1,
            )
        known = mine["entropy_change"].notna().to_numpy()
        if known.any():
            seen = mine[known]
            figure.add_scatter(
                x=[at for at, there in zip(x, known, strict=True) if there],
                y=seen["entropy_change"],
                error_y=interval_bars(seen, "entropy_change", "entropy_low", "entropy_high"),
                mode="markers",
                name=label(family),
                legendgroup=label(family),
                showlegend=False,
                marker=look,
                customdata=seen[["entropy_low", "entropy_high"]].to_numpy().tolist(),
                hovertemplate=f"{label(family)}: %{{y:+.3f}} "
                "[%{customdata[0]:+.3f}, %{customdata[1]:+.3f}]<extra></extra>",
                row=2,
                col=1,
            )
    for row in (1, 2):
        reference(figure, y=0, row=row, col=1)
    figure.update_yaxes(title_text="change of accuracy,<br>percentage points", row=1, col=1)
    figure.update_yaxes(title_text="change of the maps'<br>entropy, share of log S", row=2, col=1)
    figure.update_xaxes(tickvals=list(range(len(windows))), ticktext=list(names.values()))
    figure.update_xaxes(
        title_text=f"layers with noise<br>{plain_count(noise)}{bars(noise[['change_low', 'change_high']])}",
        row=2,
        col=1,
    )
    return figure


def _window(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first} to {last}"
