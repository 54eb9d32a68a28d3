"""Figure of how far rankings agree."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from mechvrp.circuits import RankingAgreement
from mechvrp.errors import InputError
from mechvrp.plots.theme import COLOURS, base_figure, label

__all__ = ["agreement_matrix"]

_TITLES = {
    "rbo": "rank-biased overlap",
    "spearman": "rank correlation of scores",
    "spearman_size": "rank correlation of importance",
}
#: Opaque: plotly chooses a cell's text by its colour, and does not see the page through it.
_PALE = "#EEF3F7"
#: Measures from -1 to 1.
_SIGNED = ("spearman", "spearman_size")


def agreement_matrix(
    found: RankingAgreement, *, measure: str = "rbo", k: int | None = None
) -> go.Figure:
    """How far every two rankings of the same units agree, as a matrix with its numbers.

    Args:
        found: from ``compare_rankings``.
        measure: ``"rbo"``, ``"spearman"``, ``"spearman_size"`` or ``"overlap"``.
        k: of ``"overlap"``.

    Returns:
        Hovering tells the pair, what chance gives and, of overlap, the p-value. A cell without a number is
        undefined (all scores equal).

    Raises:
        InputError: another result, no such measure, or a ``k`` that was not compared.
    """
    if not isinstance(found, RankingAgreement):
        raise InputError(
            f"expected a RankingAgreement (from compare_rankings); got {type(found).__name__}"
        )
    table = found.matrix(measure, k)
    names = [label(name) for name in found.names]
    n = len(names)
    one = next(iter(found.pairs.values()))
    what = _TITLES.get(measure) or f"share of the top {k} in common"
    chance = {"rbo": one.rbo_chance}.get(measure, 0.0)
    if k is not None:
        chance = one.overlap_chance[one.ks.index(k)]
    values = table.to_numpy(dtype=float)
    notes = np.full((n, n), "", dtype=object)
    for (a, b), pair in found.pairs.items():
        i, j = found.names.index(a), found.names.index(b)
        if k is not None:
            notes[i, j] = notes[j, i] = f"<br>p = {pair.overlap_p[pair.ks.index(k)]:.3g}"
    figure = base_figure("", "", height=190 + max(150, 46 * n))
    low = -1.0 if measure in _SIGNED else 0.0
    scale = (
        [[0, COLOURS["orange"]], [0.5, _PALE], [1, COLOURS["blue"]]]
        if measure in _SIGNED
        else [[0, _PALE], [1, COLOURS["blue"]]]
    )
    figure.add_heatmap(
        x=list(range(n)),
        y=list(range(n)),
        z=values,
        zmin=low,
        zmax=1,
        colorscale=scale,
        xgap=2,
        ygap=2,
        text=[["" if np.isnan(v) else f"{v:.2f}" for v in row] for row in values],
        texttemplate="%{text}",
        textfont={"size": 13},
        customdata=[[[names[i], names[j], notes[i, j]] for j in range(n)] for i in range(n)],
        hovertemplate="%{customdata[0]} and %{customdata[1]}: %{z:.3f}%{customdata[2]}<extra></extra>",
        showscale=False,  # every cell says its number
    )
    figure.update_xaxes(
        tickvals=list(range(n)),
        # Numbers: names side by side would be turned or left out where there is little room.
        ticktext=[str(i + 1) for i in range(n)],
        showgrid=False,
        title_text=f"{what}<br>chance: {chance:.2f}<br>n = {one.units} units ranked",
    )
    figure.update_yaxes(
        tickvals=list(range(n)),
        ticktext=[f"{name} ({i + 1})" for i, name in enumerate(names)],
        showgrid=False,
        range=[n - 0.5, -0.5],
    )
    figure.update_layout(margin={"t": 20, "r": 10})
    return figure
