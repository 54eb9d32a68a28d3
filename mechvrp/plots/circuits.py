"""Figures of circuits: their nodes and edges by layer."""

from __future__ import annotations

import math
from collections import defaultdict

import plotly.graph_objects as go

from mechvrp.circuits import GROUPS, Circuit, CircuitNode
from mechvrp.errors import InputError
from mechvrp.plots.theme import COLOURS, base_figure, faint, label, measured

__all__ = ["circuit_graph"]

#: Symbol and colour of each kind of node, told apart without colour.
_LOOKS: dict[str, tuple[str, str]] = {
    "head": ("circle", "blue"),
    "MLP": ("square", "green"),
    "neuron": ("diamond", "green"),
    "residual dimension": ("triangle-up", "purple"),
    "input": ("hexagon", "grey"),
}
#: How high above its layer's line a node stands: in the order of computation.
_HEIGHTS = {"input": -0.7, "head": 0.0, "MLP": 0.45, "neuron": 0.45, "residual dimension": 0.7}


def circuit_graph(circuit: Circuit, *, edges: int = 80) -> go.Figure:
    """A circuit's nodes, by layer and by the group of token positions, with its edges.

    Args:
        circuit: to be drawn.
        edges: how many are drawn at most, of the largest effects.

    Returns:
        Layers from below; columns are groups of positions. Neurons of one MLP at one group are a single
        marker. The width of an edge is its effect as a share of the largest; an edge that works
        against the measure is orange and dashed. Edges are estimates without an interval. Hovering tells
        names and effects.

        Traces say what they are: ``meta["kind"]`` is ``"nodes"``, ``"edge"`` (a line, with the names of its
        ends in ``meta["ends"]``) or ``"edges"`` (the points in the middle of all lines, which one hovers
        over). ``customdata`` of nodes are their names, one a line; of edges sender, receiver and effect. So
        a click can be answered: ``clickable_circuit`` does it in a notebook, ``CLICK_SCRIPT`` on a page.

    Raises:
        InputError: another result, or ``edges`` is negative.
    """
    if not isinstance(circuit, Circuit):
        raise InputError(
            f"expected a Circuit (discover_circuit(...).circuit); got {type(circuit).__name__}"
        )
    if edges < 0:
        raise InputError(f"edges is how many are drawn; got {edges}")
    n_layers = max([circuit.n_layers, *(node.layer + 1 for node in circuit.nodes)])
    columns = [*GROUPS, *(["all"] if any(n.positions == "all" for n in circuit.nodes) else [])]
    columns = [c for c in columns if any(node.positions == c for node in circuit.nodes)]
    slots = _slots(circuit, columns)
    figure = base_figure(_caption(circuit), "layer", height=190 + 110 * n_layers)
    drawn = circuit.edges[:edges]
    top = (len(columns) - 1.0, n_layers - 0.05)
    most = max((abs(e.score) for e in drawn if e.score == e.score), default=0.0)
    for edge in reversed(drawn):  # the largest on top
        start = slots[edge.sender]
        end = slots[edge.receiver] if isinstance(edge.receiver, CircuitNode) else top
        share = abs(edge.score) / most if most and edge.score == edge.score else 0.0
        against = edge.score < 0
        colour = COLOURS["orange" if against else "blue"]
        figure.add_scatter(
            x=[start[0], end[0]],
            y=[start[1], end[1]],
            mode="lines",
            line={
                "color": faint(colour, 0.45 + 0.5 * share),
                "width": 1 + 5 * share,
                "dash": "dash" if against else "solid",
            },
            meta={"kind": "edge", "ends": [str(end) for end in edge.ends]},
            hoverinfo="skip",
            showlegend=False,
        )
    if drawn:
        ends = [slots[e.receiver] if isinstance(e.receiver, CircuitNode) else top for e in drawn]
        figure.add_scatter(
            x=[(slots[e.sender][0] + end[0]) / 2 for e, end in zip(drawn, ends, strict=True)],
            y=[(slots[e.sender][1] + end[1]) / 2 for e, end in zip(drawn, ends, strict=True)],
            mode="markers",
            marker={"size": 9, "opacity": 0, "color": COLOURS["grey"]},
            meta={"kind": "edges"},
            customdata=[[*map(str, e.ends), e.score] for e in drawn],
            hovertext=[
                f"{label(str(e))}<br>effect {'not known' if math.isnan(e.score) else f'{e.score:.3g}'}"
                for e in drawn
            ],
            hoverinfo="text",
            showlegend=False,
        )
        for name, colour, dash in (
            ("edge for the measure", "blue", "solid"),
            ("edge against it", "orange", "dash"),
        ):
            if any((e.score < 0) == (dash == "dash") for e in drawn):
                figure.add_scatter(
                    x=[None], y=[None], mode="lines", name=name,
                    line={"color": COLOURS[colour], "dash": dash, "width": 2.5},
                )  # fmt: skip
    _add_nodes(figure, circuit, slots)
    if circuit.edges:
        figure.add_scatter(
            x=[top[0]], y=[top[1]], mode="markers+text", text=["logits"],
            textposition="middle right", marker={"size": 12, "symbol": "star", "color": COLOURS["grey"]},
            hovertext="logits of the last position", hoverinfo="text", showlegend=False,
        )  # fmt: skip
    figure.update_xaxes(
        tickvals=list(range(len(columns))),
        ticktext=columns,
        range=[-0.5, len(columns) - 0.5],
        showgrid=False,
    )
    low = -1.0 if any(node.kind == "input" for node in circuit.nodes) else -0.4
    figure.update_yaxes(tickvals=list(range(n_layers)), range=[low, n_layers + 0.15])
    return figure


def _caption(circuit: Circuit) -> str:
    """What the columns are, how many pairs it was found on, and what an edge's width is."""
    lines, made = ["token positions"], circuit.settings
    if "pairs" in made:
        # Both sides of a pair are of one image; circuits of before hold one side only.
        groups = made.get("groups", len(made.get("images", ())))
        images = f" of {groups} images" if groups else ""
        lines.append(f"n = {made['pairs']} pairs{images}")
    if circuit.edges:
        lines.append(f"width: effect on {measured(made.get('measure', 'the measure'))}")
    return "<br>".join(lines)


def _slots(circuit: Circuit, columns: list[str]) -> dict[CircuitNode, tuple[float, float]]:
    """Where each node stands. Heads of a layer side by side, by number."""
    heads = max(
        [circuit.n_heads, 1, *((n.index or 0) + 1 for n in circuit.nodes if n.kind == "head")]
    )
    found = {}
    for node in circuit.nodes:
        x = float(columns.index(node.positions))
        if node.kind == "head":
            x += 0.8 * ((node.index or 0) + 0.5) / heads - 0.4
        elif node.kind == "neuron":
            x += 0.12
        found[node] = (x, node.layer + _HEIGHTS[node.kind])
    return found


def _add_nodes(
    figure: go.Figure, circuit: Circuit, slots: dict[CircuitNode, tuple[float, float]]
) -> None:
    for kind, (symbol, colour) in _LOOKS.items():
        places: dict[tuple[float, float], list[CircuitNode]] = defaultdict(list)
        for node in circuit.nodes:
            if node.kind == kind:
                places[slots[node]].append(node)
        if not places:
            continue
        texts: list[str] = []
        marks: list[str] = []
        for nodes in places.values():
            names = [str(node) for node in nodes]
            more = f"<br>and {len(names) - 12} more" if len(names) > 12 else ""
            texts.append("<br>".join(map(label, names[:12])) + more)
            marks.append(
                str(nodes[0].index) if kind == "head" else str(len(nodes)) if len(nodes) > 1 else ""
            )
        plural = {"MLP": "MLPs", "neuron": "neurons (how many)", "head": "heads (number)"}
        figure.add_scatter(
            x=[x for x, _ in places],
            y=[y for _, y in places],
            mode="markers+text",
            name=plural.get(kind, f"{kind}s"),
            text=marks,
            textposition="middle center",
            textfont={"size": 10, "color": "white"},
            marker={
                "size": 19,
                "symbol": symbol,
                "color": COLOURS[colour],
                "line": {"width": 1, "color": "white"},
            },
            meta={"kind": "nodes"},
            customdata=["\n".join(map(str, nodes)) for nodes in places.values()],
            hovertext=texts,
            hoverinfo="text",
        )
