"""A click on a node of a circuit: its own edges stay, the others fade."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from plotly.callbacks import InputDeviceState, Points

from mechvrp.circuits import Circuit, CircuitEdge, CircuitNode
from mechvrp.errors import InputError, UnavailableError
from mechvrp.plots import CLICK_SCRIPT, circuit_graph, clickable_circuit

NAMES = (
    "blocks.0.attn.hook_z[head 2]@image",
    "blocks.0.mlp.hook_post[unit 1]@last",
    "blocks.0.mlp.hook_post[unit 7]@last",
    "blocks.1.hook_mlp_out@last",
)
HEAD, ONE, TWO, MLP = map(CircuitNode.parse, NAMES)
EDGES = (
    CircuitEdge(HEAD, MLP, 2.0),
    CircuitEdge(ONE, MLP, -1.0),
    CircuitEdge(MLP, "logits", 0.5),
)
CIRCUIT = Circuit((HEAD, ONE, TWO, MLP), EDGES, "m", n_layers=2, n_heads=4)
BROWSER = os.environ.get("BROWSER_PATH") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def of_kind(figure, kind):
    return [trace for trace in figure.data if (trace.meta or {}).get("kind") == kind]


def test_traces_say_which_nodes_and_edges_they_are():
    figure = circuit_graph(CIRCUIT)
    assert {name for t in of_kind(figure, "nodes") for one in t.customdata for name in one.split("\n")} == {
        str(node) for node in CIRCUIT.nodes
    }  # fmt: skip
    assert sorted(t.meta["ends"] for t in of_kind(figure, "edge")) == sorted(
        [str(end) for end in edge.ends] for edge in EDGES
    )
    (middles,) = of_kind(figure, "edges")
    assert [list(row) for row in middles.customdata] == [
        [*map(str, edge.ends), edge.score] for edge in EDGES
    ]


def click(widget, node):
    """As plotly tells it: every trace hears of it, one of them with a point."""
    for at, trace in enumerate(widget.data):
        if (trace.meta or {}).get("kind") != "nodes":
            continue
        hit = [i for i, names in enumerate(trace.customdata) if str(node) in names.split("\n")]
        points = Points(hit, [trace.x[i] for i in hit], [trace.y[i] for i in hit], trace.name, at)
        for act in trace._click_callbacks:
            act(trace, points, InputDeviceState())


def faded(widget):
    return {tuple(t.meta["ends"]) for t in of_kind(widget, "edge") if (t.opacity or 1) < 1}


def test_a_click_fades_the_edges_of_other_nodes():
    pytest.importorskip("anywidget")
    widget = clickable_circuit(CIRCUIT)
    every = {tuple(map(str, edge.ends)) for edge in EDGES}
    assert (widget.selected, faded(widget)) == ((), set())
    click(widget, HEAD)
    assert widget.selected == (str(HEAD),)
    assert faded(widget) == every - {(str(HEAD), str(MLP))}
    click(widget, TWO)  # neurons of one MLP share a marker
    assert set(widget.selected) == {str(ONE), str(TWO)}
    assert faded(widget) == every - {(str(ONE), str(MLP))}
    click(widget, TWO)
    assert (widget.selected, faded(widget)) == ((), set())
    with pytest.raises(InputError, match="Circuit"):
        clickable_circuit("x")


def test_without_anywidget_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(UnavailableError, match=r"mechvrp\[explorer\]"):
        clickable_circuit(CIRCUIT)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_a_page_answers_clicks_too(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    page_file = tmp_path / "circuit.html"
    CIRCUIT.plot().write_html(page_file, post_script=CLICK_SCRIPT)
    told = """() => { const d = document.querySelector('.plotly-graph-div');
      return d.data.filter(t => t.meta?.kind === 'edge').map(t => t.opacity ?? 1); }"""
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu", "--no-first-run"]
        )
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.goto(page_file.as_uri())
        page.wait_for_selector(".plotly-graph-div .legend")
        assert page.evaluate(told) == [1, 1, 1]
        name = next(t.name for t in CIRCUIT.plot().data if t.name and t.name.startswith("heads"))
        at = page.evaluate(
            """(name) => { const d = document.querySelector('.plotly-graph-div');
            const t = d._fullData.find(t => t.name === name), l = d._fullLayout;
            const box = d.getBoundingClientRect();
            return [box.x + l.xaxis._offset + l.xaxis.c2p(t.x[0]),
                    box.y + l.yaxis._offset + l.yaxis.c2p(t.y[0])]; }""",
            name,
        )
        page.mouse.move(*at)
        page.wait_for_timeout(200)
        page.mouse.click(*at)
        page.wait_for_timeout(400)
        shown = page.evaluate(told)
        assert sorted(shown) == [0.1, 0.1, 1]
        page.mouse.click(*at)
        page.wait_for_timeout(600)
        browser.close()
