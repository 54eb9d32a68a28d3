"""The figure of a proof: faithfulness and completeness by size, and what each node's removal costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechvrp.circuits import AgainstRandom, CircuitNode, CircuitProof
from mechvrp.errors import InputError
from mechvrp.plots.theme import COLOURS, TEMPLATE, faint, label, reference, ribbon
from mechvrp.statistics import Estimate

__all__ = ["faithfulness_curve"]

#: Height of a panel of curves and of a node's row, and what axes between panels take, in pixels.
_PANEL, _ROW, _GAP = 290, 24, 90
_FIRST, _OWN = "by edge attribution, 95 % interval", "the circuit"
_MEAN, _RANGE = "random circuits: mean", "random circuits: range"
_OF_MEAN = "random circuits: 95 % interval<br>of the mean"


def faithfulness_curve(proof: CircuitProof, *, nodes: int = 30) -> go.Figure:
    """Faithfulness and completeness of an order's first nodes by their number, and single nodes' removals.

    Args:
        proof: made with ``order``, or with removals of single nodes.
        nodes: how many removals are drawn at most, of the largest drops.

    Returns:
        A panel for each that is there: the share that the first nodes keep alone; the share that is left
        without them; what each node's removal from the circuit costs. All with 95 % intervals over images,
        beside random circuits of the same size and kinds (removals: nodes of their kind taken out of random
        circuits), these with the interval of their mean and their range; and the proven circuit's own points.

    Raises:
        InputError: another result, a proof with none of these, or ``nodes`` below 1.
    """
    if not isinstance(proof, CircuitProof):
        raise InputError(
            f"expected a CircuitProof (from prove_circuit); got {type(proof).__name__}"
        )
    if nodes < 1:
        raise InputError(f"nodes is how many removals are drawn, at least 1; got {nodes}")
    curves = [
        panel
        for panel in (
            ("faithfulness, share of the<br>whole model's effect", proof.curve, proof.faithfulness),
            ("completeness, share left<br>without them", proof.completeness_curve, proof.completeness),
        )
        if panel[1]
    ]  # fmt: skip
    drawn = len(proof.minimality[:nodes])
    if not curves and not drawn:
        raise InputError(
            "the proof has no curve and no removals: give prove_circuit an order of nodes, such as "
            "Discovery.order, or minimality=True"
        )
    heights = [_PANEL] * len(curves) + [40 + _ROW * drawn] * bool(drawn)
    inner = sum(heights) + _GAP * (len(heights) - 1)
    figure = make_subplots(
        rows=len(heights),
        cols=1,
        row_heights=heights,
        vertical_spacing=_GAP / inner if len(heights) > 1 else 0,
    )
    counted = f"n = {proof.n} pairs of {proof.n_groups} images"
    for row, (title, points, own) in enumerate(curves, start=1):
        _add_curve(figure, points, own.circuit, len(proof.circuit), row)
        figure.update_xaxes(title_text="nodes in the circuit", row=row, col=1)
        figure.update_yaxes(title_text=f"{title}<br>{counted}", row=row, col=1)
    if drawn:
        _add_removals(figure, proof, nodes, len(heights))
        some = f", {drawn} of {len(proof.minimality)} nodes" * (drawn < len(proof.minimality))
        figure.update_xaxes(
            title_text="minimality: cost of taking a node out,<br>share of the whole model's effect"
            f"<br>{counted}{some}<br>bars: 95 % interval",
            row=len(heights),
            col=1,
        )
    figure.update_layout(
        template=TEMPLATE,
        height=inner + 220,
        margin={"t": 120, "b": 120},
        legend={"y": 1 + 12 / inner},
    )
    named: set[str] = set()
    for trace in figure.data:  # one legend for all panels
        trace.showlegend = trace.showlegend is not False and trace.name not in named
        named |= {trace.name} if trace.showlegend else set()
    return figure


def _add_curve(
    figure: go.Figure, points: Sequence[AgainstRandom], own: Estimate, size: int, row: int
) -> None:
    at: dict[str, Any] = {"row": row, "col": 1}
    sizes = [point.size for point in points]
    for name, opacity, ends in (
        (_RANGE, 0.15, [p.random_range for p in points]),
        (_OF_MEAN, 0.35, [(p.random.low, p.random.high) for p in points]),
    ):
        low, high = zip(*ends, strict=True)
        ribbon(figure, sizes, low, high, colour=COLOURS["orange"], name=name, opacity=opacity, **at)
    series: tuple[tuple[str, list[int], list[Estimate], dict[str, Any]], ...] = (
        (_MEAN, sizes, [p.random for p in points], _look("orange", "square", "dash")),
        (_FIRST, sizes, [p.circuit for p in points], _look("blue", "circle", "solid")),
        (_OWN, [size], [own], _look("green", "diamond") | {"marker_size": 13}),
    )
    for name, x, found, look in series:
        figure.add_scatter(
            x=x,
            y=[e.value for e in found],
            error_y=None if name == _MEAN else _bars(found),  # it has a band
            name=name,
            legendgroup=name,
            customdata=[[e.low, e.high] for e in found],
            hovertemplate="%{x} nodes: %{y:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]"
            "<extra></extra>",
            **look,
            **at,
        )
    for y in (0, 1):  # plotly draws no line into a panel that is still empty
        reference(figure, y=y, **at)


def _add_removals(figure: go.Figure, proof: CircuitProof, nodes: int, row: int) -> None:
    """The largest drops, the largest on top."""
    at: dict[str, Any] = {"row": row, "col": 1}
    removed = proof.minimality[:nodes]
    names = [_short(one.node) for one in removed]
    full = [label(str(one.node)) for one in removed]
    low, high = zip(*(one.random_range for one in removed), strict=True)
    figure.add_bar(
        x=[end - start for start, end in zip(low, high, strict=True)],
        base=low,
        y=names,
        orientation="h",
        width=0.5,
        marker={"color": faint(COLOURS["orange"], 0.2), "line": {"width": 0}},
        name=_RANGE,
        legendgroup=_RANGE,
        customdata=list(zip(full, low, high, strict=True)),
        hovertemplate="%{customdata[0]}, nodes of its kind in random circuits: "
        "%{customdata[1]:.2f} to %{customdata[2]:.2f}<extra></extra>",
        **at,
    )
    for name, found, look in (
        (_MEAN, [one.random for one in removed], _look("orange", "square")),
        (_OWN, [one.drop for one in removed], _look("green", "diamond")),
    ):
        figure.add_scatter(
            x=[e.value for e in found],
            y=names,
            error_x=_bars(found),
            name=name,
            legendgroup=name,
            customdata=[[whose, e.low, e.high] for whose, e in zip(full, found, strict=True)],
            hovertemplate="%{customdata[0]}: %{x:.2f} [%{customdata[1]:.2f}, %{customdata[2]:.2f}]"
            "<extra></extra>",
            **look,
            **at,
        )
    reference(figure, x=0, **at)
    figure.update_yaxes(autorange="reversed", tickfont={"size": 12}, **at)


def _short(node: CircuitNode) -> str:
    """A name that leaves room for the panel."""
    index = "" if node.index is None else f".{node.index}"
    return label(f"{node.kind} {node.layer}{index}, {node.positions}")


def _look(colour: str, symbol: str, dash: str | None = None) -> dict[str, Any]:
    look: dict[str, Any] = {
        "mode": "lines+markers" if dash else "markers",
        "marker": {"size": 8, "symbol": symbol, "color": COLOURS[colour]},
    }
    return look | ({"line": {"color": COLOURS[colour], "dash": dash, "width": 2.5}} if dash else {})


def _bars(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Plotly error bars (ends are absolute, plotly wants distances)."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [e.high - e.value for e in estimates],
        "arrayminus": [e.value - e.low for e in estimates],
        "thickness": 2,
        "width": 5,
    }
