"""The protocol of the view: messages in, what is shown out; without a browser."""

from __future__ import annotations

import json
import threading
import time

import pytest

import mechvrp
from mechvrp.errors import UnavailableError
from mechvrp.explorer import Explorer
from mechvrp.explorer.panel import NAMES, Panel


class Shown(dict):
    """What a view would show now, and all that it was ever given."""

    def __init__(self):
        super().__init__()
        self.all = []

    def __call__(self, name, value):
        assert name in NAMES
        json.dumps(value, allow_nan=False)  # what a browser can read
        self[name] = value
        self.all.append((name, value))


@pytest.fixture
def panel(explorer):
    shown = Shown()
    made = Panel(explorer, shown)
    made.start()
    assert made.wait(60)
    yield made, shown
    made.close()


def do(panel, **message):
    made, shown = panel
    made.handle(message)
    assert made.wait(120)
    return shown["status"]


def test_it_starts_with_a_page_and_an_example(panel):
    _, shown = panel
    assert shown["setup"]["model"] == "tiny-llava"
    assert shown["setup"]["total"] == 48
    assert len(shown["gallery"]["items"]) == 24
    assert shown["gallery"]["pages"] == 2
    assert shown["gallery"]["items"][0]["thumb"].startswith("data:image/png;base64,")
    example = shown["example"]
    assert example["grid"] == [12, 12]
    assert example["answer"]
    assert example["right"] in (True, False)
    assert example["tokens"][-1]["at"] == -1
    assert shown["outcome"]["kind"] == "clean"


def test_a_click_moves_the_probabilities(panel, explorer):
    _, shown = panel
    status = do(panel, do="look", component="mlp_out", layer=2, positions=[[1, 1], [0, 3]])
    assert not status["error"]
    assert shown["place"]["positions"] == [[0, 3], [1, 1]]
    assert not shown["place"]["nodes"]
    assert "patch" not in shown["outcome"]["what"]
    assert "stand at" in shown["place"]["why_no_nodes"]
    do(panel, do="ablate")
    outcome = shown["outcome"]
    assert outcome["kind"] == "ablated"
    expected = explorer.ablated()
    assert [word["after"] for word in outcome["words"]] == [w.after for w in expected.words]
    do(panel, do="patch", donor=4)
    assert shown["outcome"]["kind"] == "patched"
    assert "dataset[4]" in shown["outcome"]["code"]
    do(panel, do="clean")
    assert shown["outcome"]["kind"] == "clean"


def test_a_circuit_is_built_saved_and_grown(panel, tmp_path):
    _, shown = panel
    do(panel, do="look", component="neurons", layer=2, positions="last", units=[1, 2])
    do(panel, do="add")
    do(panel, do="add", nodes=["blocks.1.attn.hook_z[head 3]"])
    do(panel, do="name", name=" twos ")
    assert shown["circuit"]["name"] == "twos"
    assert len(shown["circuit"]["nodes"]) == 3
    path = str(tmp_path / "twos.json")
    assert "Saved" in do(panel, do="save", path=path)["note"]
    do(panel, do="grow", n=20, draws=2)
    curves = [value for name, value in shown.all if name == "curve" and value]
    assert len(curves) >= 2
    assert [one["done"] for one in curves][-2:] == [False, True]
    assert curves[-1]["points"][0]["k"] == 0
    assert curves[-1]["points"][-1]["k"] == 3
    do(panel, do="remove", node="blocks.1.attn.hook_z[head 3]")
    assert len(shown["circuit"]["nodes"]) == 2
    assert shown["curve"] == {}  # the curve was of another circuit
    do(panel, do="clear")
    do(panel, do="load", path=path)
    assert len(shown["circuit"]["nodes"]) == 3
    assert shown["circuit"]["name"] == "twos"
    assert "Circuit.of" in shown["circuit"]["code"]


def test_errors_are_shown_and_change_nothing(panel):
    _, shown = panel
    place, circuit = shown["place"], shown["circuit"]
    for message, words in (
        ({"do": "fly"}, "no such message"),
        ({}, "no such message"),
        ({"do": "choose"}, "lacks or mistypes"),
        ({"do": "choose", "index": 99}, "no example 99"),
        ({"do": "look", "component": "z", "layer": 1, "heads": [44]}, "4 heads"),
        ({"do": "save", "path": ""}, "file name"),
        ({"do": "load", "path": "nowhere.json"}, "nowhere.json"),
        ({"do": "grow"}, "no nodes yet"),
        ({"do": "patch", "donor": 0}, "choose another as donor"),
        ({"do": "patch", "donor": ""}, "give the number of the example"),
        ({"do": "map", "cells": "heads", "donor": ""}, "give the number of the example"),
        ({"do": "map", "cells": "heads", "donor": None}, "lacks or mistypes 'donor'"),
        ({"do": "top", "ranking": "mine", "k": ""}, "lacks or mistypes 'k'"),
        ({"do": "filter", "right": "yes"}, "right is True, False"),
    ):
        status = do(panel, **message)
        assert words in status["error"]
        assert not status["busy"]
    assert shown["place"] == place
    assert shown["circuit"] == circuit


def test_an_example_without_the_positions_says_so(panel, monkeypatch):
    _, shown = panel
    length = len(shown["example"]["tokens"])
    made, _ = panel
    tokens = [made.session._runs.clean(i).batch.tokens for i in range(20)]
    short = min(range(20), key=lambda i: tokens[i].length)
    long = max(range(20), key=lambda i: tokens[i].length)
    assert tokens[short].length < tokens[long].length
    assert length
    do(panel, do="choose", index=long)
    do(panel, do="look", component="mlp_out", layer=1, positions=-tokens[long].length)
    status = do(panel, do="choose", index=short)
    assert "Positions set to last" in status["note"]
    assert shown["place"]["positions"] == "last"
    assert shown["example"]["index"] == short


def test_cancel_ends_long_work_and_what_waits(panel):
    made, shown = panel
    do(panel, do="add", nodes=["blocks.2.hook_mlp_out@last"])
    started = threading.Event()
    show = made._show

    def watching(name, value):
        show(name, value)
        if name == "curve" and value:
            started.set()

    made._show = watching
    made.handle({"do": "grow", "n": 40, "draws": 3})
    made.handle({"do": "map", "cells": "tokens"})
    assert started.wait(60)
    began = time.perf_counter()
    made.handle({"do": "cancel"})
    assert made.wait(60)
    assert time.perf_counter() - began < 30
    assert shown["status"]["note"] == "Cancelled."
    assert not shown["status"]["busy"]
    assert not shown["curve"]["done"]
    assert shown["heat"] == {}
    assert shown["circuit"]["nodes"] == ["blocks.2.hook_mlp_out@last"]
    assert not do(panel, do="ablate")["error"]


def test_a_curve_outlives_one_that_is_cancelled(panel, monkeypatch):
    made, shown = panel
    do(panel, do="add", nodes=["blocks.2.hook_mlp_out@last"])
    do(panel, do="grow", n=8, draws=1)
    curve = shown["curve"]
    assert curve["done"]

    def cancelled(*_, **__):
        made.handle({"do": "cancel"})
        made._jobs[0].check()

    with monkeypatch.context() as patched:
        patched.setattr(made.session, "curve", cancelled)
        assert do(panel, do="grow")["note"] == "Cancelled."
    assert [one for one in shown.all if one[0] == "curve"][-2] == ("curve", {})
    assert shown["curve"] == curve
    do(panel, do="clear")
    assert shown["curve"] == {}


def test_the_session_s_own_errors_keep_their_names(panel, monkeypatch):
    made, _ = panel

    def broken(*_, **__):
        raise KeyError("inside")

    monkeypatch.setattr(made.session, "clean", broken)
    status = do(panel, do="clean", id=["a view", 3])
    assert status["error"] == "KeyError: 'inside'"
    assert status["id"] == ["a view", 3]


def test_filters_answer_what_they_need(panel):
    _, shown = panel
    do(panel, do="filter", right=False)
    gallery = shown["gallery"]
    assert 0 < gallery["found"] < 48
    assert all(item["right"] is False for item in gallery["items"])
    assert "greedy_answers" in gallery["code"]


def test_maps_are_shown_by_cell(panel):
    _, shown = panel
    do(panel, do="look", component="neurons", layer=1, positions="last")
    do(panel, do="map", cells="units")
    heat = shown["heat"]
    assert heat["of"] == 256
    assert len(heat["columns"]) == 60
    sizes = [abs(v) for v in heat["margin"][0]]
    assert sizes == sorted(sizes, reverse=True)
    assert {"label", "positions", "units"} == set(heat["columns"][0])
    do(panel, do="map", cells="patches")
    assert shown["heat"]["grid"] == [12, 12]
    assert shown["heat"]["columns"][0]["positions"] == [[0, 0]]


def test_means_and_rankings_go_through(scenes, explorer):
    scores = [0.0] * explorer.model.d_mlp
    scores[9], scores[4] = -2.0, 1.0
    ranking = mechvrp.Ranking(("blocks.2.mlp.hook_post",), scores)
    session = Explorer(explorer.model, scenes, reference=8, rankings={"mine": ranking})
    shown = Shown()
    made = Panel(session, shown)
    panel = made, shown
    made.start()
    assert made.wait(60)
    assert shown["setup"]["rankings"] == [{"name": "mine", "units": 256}]
    assert do(panel, do="top", ranking="mine", k=2)["note"] == "Added 2 nodes."
    assert [name[-14:] for name in shown["circuit"]["nodes"]] == [
        "t[unit 9]@last",
        "t[unit 4]@last",
    ]
    assert "no ranking" in do(panel, do="top", ranking="yours", k=2)["error"]
    do(panel, do="ablate", circuit=True, method="mean")
    assert shown["outcome"]["what"] == "the circuit of 2 nodes: mean"
    assert shown["outcome"]["answer_after"]
    do(panel, do="map", cells="heads", method="mean")
    assert shown["heat"]["method"] == "mean"
    do(panel, do="grow", n=8, draws=1, method="mean")
    assert shown["curve"]["method"] == "mean"
    assert "reference=dataset[:8]" in shown["curve"]["code"]
    made.close()


def test_without_anywidget_it_says_what_to_install(explorer, scenes, monkeypatch):
    import sys

    from mechvrp.explorer import widget

    widget._widget_class.cache_clear()
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(UnavailableError, match=r"pip install 'mechvrp\[explorer\]'"):
        mechvrp.explore(explorer.model, scenes)
    widget._widget_class.cache_clear()


def test_the_widget_passes_messages_on(explorer, scenes):
    pytest.importorskip(
        "anywidget", reason="anywidget is not installed: pip install 'mechvrp[dev]'"
    )
    made = mechvrp.explore(explorer.model, scenes)
    assert made.panel.wait(0)  # it returns when the model is free again
    assert isinstance(made.session, Explorer)
    assert repr(made) == "ExplorerWidget('tiny-llava', 48 examples)"
    state = made.get_state()
    assert state["example"]["index"] == 0
    assert state["gallery"]["found"] == 48
    assert "export default" in state["_esm"]
    assert ".mvx" in state["_css"]
    # As a front end sends it.
    made._handle_custom_msg({"do": "choose", "index": 3}, [])
    assert made.panel.wait(60)
    assert made.get_state("example")["example"]["index"] == 3
    made.close()
