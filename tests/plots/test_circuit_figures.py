"""Figures of circuits: everything that is there is drawn, and told by more than colour."""

from __future__ import annotations

import dataclasses

import pytest

from mechvrp.circuits import AgainstRandom, Circuit, CircuitEdge, CircuitNode, CircuitProof
from mechvrp.errors import InputError
from mechvrp.plots import circuit_graph, faithfulness_curve
from mechvrp.statistics import Estimate
from tests.support.figures import GIVEN

NAMES = (
    "blocks.0.hook_resid_pre@image",
    "blocks.0.attn.hook_z[head 2]@image",
    "blocks.1.attn.hook_z[head 3]@last",
    "blocks.1.hook_mlp_out@image",
    *(f"blocks.2.mlp.hook_post[unit {i}]@last" for i in range(20)),
    "blocks.2.hook_resid_post[unit 4]",
)
NODES = tuple(CircuitNode.parse(name) for name in NAMES)
EDGES = (
    CircuitEdge(NODES[0], NODES[1], 3.0),
    CircuitEdge(NODES[1], NODES[2], -1.5),
    CircuitEdge(NODES[2], "logits", 0.5),
    CircuitEdge(NODES[3], "logits"),
)
CIRCUIT = Circuit(NODES, EDGES, "m <b>", n_layers=4, n_heads=4)


def traces(figure, **wanted):
    return [t for t in figure.data if all(getattr(t, k) == v for k, v in wanted.items())]


def test_nodes_stand_at_their_layer_and_positions():
    figure = circuit_graph(CIRCUIT)
    assert list(figure.layout.xaxis.ticktext) == ["image", "last", "all"]
    assert list(figure.layout.yaxis.tickvals) == [0, 1, 2, 3]
    names = {t.name for t in figure.data if t.mode == "markers+text" and t.name}
    assert names == {
        "heads (number)", "MLPs", "neurons (how many)", "residual dimensions", "inputs",
    }  # fmt: skip
    (heads,) = traces(figure, name="heads (number)")
    assert list(heads.text) == ["2", "3"]
    assert list(heads.y) == [0, 1]
    assert -0.5 < heads.x[0] < 0.5 < heads.x[1] < 1.5
    (neurons,) = traces(figure, name="neurons (how many)")
    assert list(neurons.text) == ["20"]
    assert "and 8 more" in neurons.hovertext[0]
    symbols = [t.marker.symbol for t in figure.data if t.mode == "markers+text" and t.name]
    assert len(set(symbols)) == len(symbols)


def test_edges_have_widths_and_signs():
    lines = [t for t in circuit_graph(CIRCUIT).data if t.mode == "lines" and t.name is None]
    assert len(lines) == 4
    by_start = {round(t.y[0], 2): t for t in lines}
    strong, against, last = by_start[-0.7], by_start[0.0], by_start[1.0]
    assert strong.line.width > against.line.width > last.line.width
    assert (strong.line.dash, against.line.dash) == ("solid", "dash")
    (hover,) = [t for t in circuit_graph(CIRCUIT).data if (t.meta or {}).get("kind") == "edges"]
    assert "-&gt; logits" in str(hover.hovertext)
    assert "effect not known" in hover.hovertext[3]
    assert len([t for t in circuit_graph(CIRCUIT, edges=1).data if t.mode == "lines"]) == 2
    with pytest.raises(InputError):
        circuit_graph(CIRCUIT, edges=-1)


def test_a_circuit_without_edges_is_drawn():
    figure = Circuit(NAMES[:2]).plot()
    assert not [t for t in figure.data if t.mode == "lines"]
    figure.to_json()


def proof(curve: tuple[AgainstRandom, ...]) -> CircuitProof:
    one = Estimate(0.8, 0.7, 0.9, 9, 3, 0.95, "bootstrap")
    share = AgainstRandom(
        2, one, dataclasses.replace(one, value=0.2, low=0.1, high=0.3), (0, 0.4), one, 0.1
    )
    return CircuitProof(
        circuit=CIRCUIT, total=one, faithfulness=share, completeness=share, minimality=(),
        curve=tuple(dataclasses.replace(share, size=size) for size in curve), model="m",
        measure="logit_diff", mode="zero", match="kind", draws=9, curve_draws=9, removals=0, possible=99,
        seen=0, n=9, n_groups=3, seed=0, n_resamples=100,
    )  # fmt: skip


def test_the_curve_shows_random_circuits_and_the_circuit():
    figure = proof((1, 2, 4)).plot()
    (mine,) = [t for t in figure.data if t.name and t.name.startswith("by edge attribution")]
    assert list(mine.x) == [1, 2, 4]
    assert mine.error_y.array[0] == pytest.approx(0.1)
    (own,) = traces(figure, name="the circuit")
    assert list(own.x) == [len(CIRCUIT)]
    assert {"random circuits: mean", "random circuits: range"} <= {t.name for t in figure.data}
    assert "9 pairs of 3 images" in figure.layout.yaxis.title.text
    with pytest.raises(InputError, match="order"):
        faithfulness_curve(proof(()))


def test_completeness_and_removals_are_drawn_beside_random_ones():
    (given,), _ = GIVEN["faithfulness_curve"]()
    figure = faithfulness_curve(given)
    titles = [axis.title.text or "" for axis in [*figure.select_yaxes(), *figure.select_xaxes()]]
    assert [
        sum(word in t for t in titles) for word in ("faithfulness", "completeness", "minimality")
    ] == [1] * 3
    assert all("90 pairs of 30 images" in t for t in titles if "share" in t)
    removed = [t for t in traces(figure, xaxis="x3") if t.type == "scatter"]
    random, own = removed
    names = ["head 0.2, image", "MLP 1, last"]
    assert [list(t.y) for t in removed] == [names, names]
    assert (own.x[0], random.x[0]) == (0.5, 0.1)
    for trace in removed:
        assert trace.error_x.array[0] == pytest.approx(0.1)
        assert trace.error_x.arrayminus[0] == pytest.approx(0.1)
    (spread,) = traces(figure, type="bar")
    assert (spread.base[0], spread.x[0]) == (0.0, 0.3)
    zeros = [s for s in figure.layout.shapes if (s.x0, s.x1) == (0, 0) or (s.y0, s.y1) == (0, 0)]
    assert {(s.xref, s.yref) for s in zeros} == {
        ("x domain", "y"), ("x2 domain", "y2"), ("x3", "y3 domain"),
    }  # fmt: skip
    named = [t.name for t in figure.data if t.showlegend]
    assert len(named) == len(set(named))
    assert {"random circuits: mean", "the circuit"} <= set(named)
    # What is there alone: no order was given, or no removals were asked for; some of many nodes.
    alone = faithfulness_curve(dataclasses.replace(given, curve=(), completeness_curve=()), nodes=1)
    assert {t.xaxis for t in alone.data} <= {None, "x"}
    assert "1 of 2 nodes" in alone.layout.xaxis.title.text
    assert [t for t in alone.data if t.name == "the circuit" and t.showlegend]
    assert len(list(faithfulness_curve(proof((1, 2))).select_xaxes())) == 1
    with pytest.raises(InputError, match="at least 1"):
        faithfulness_curve(given, nodes=0)
