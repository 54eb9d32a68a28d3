"""Random circuits: none covers itself, and all that there are come equally often."""

from __future__ import annotations

from collections import Counter

import pytest

from mechvrp.circuits.nodes import parse_nodes
from mechvrp.circuits.random_circuits import how_many, random_circuits
from mechvrp.errors import InputError
from tests.support import circuits


@pytest.fixture(scope="module")
def model():
    return circuits.load("llava-clip")  # 3 layers of 4 heads, 40 neurons


def units(layer, among, positions=""):
    return [f"blocks.{layer}.mlp.hook_post[unit {i}]{positions}" for i in among]


@pytest.mark.parametrize("match", ["kind", "kind and positions"])
@pytest.mark.parametrize(
    "names",
    [
        [*units(1, range(5), "@last"), "blocks.2.hook_mlp_out@last"],
        [*units(1, range(5)), "blocks.1.mlp.hook_post[unit 7]@last", "blocks.2.hook_mlp_out@last"],
        [*units(1, range(5), "@image"), "blocks.0.hook_mlp_out"],
        ["blocks.1.attn.hook_z[head 0]", "blocks.2.attn.hook_z[head 1]@last"],
        [*units(0, range(20)), *units(0, range(20, 40), "@last")],
        ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out@last", "blocks.2.hook_mlp_out@last"],
    ],
)
def test_none_covers_itself(model, names, match):
    nodes = parse_nodes(names)
    for drawn in random_circuits(model, nodes, 100, match=match):
        assert parse_nodes(drawn) == drawn
        assert Counter(n.kind for n in drawn) == Counter(n.kind for n in nodes)


def test_an_mlp_is_not_drawn_whole_beside_its_neurons(model):
    nodes = parse_nodes([*units(1, range(2), "@last"), "blocks.2.hook_mlp_out@last"])
    found = {n.layer for drawn in random_circuits(model, nodes, 60) for n in drawn if not n.index}
    assert found >= {0, 2}
    assert how_many(model, nodes, "kind and positions") == 2 * (40 * 39 // 2)
    whole = {n.layer for d in random_circuits(model, nodes, 60) for n in d if n.kind == "MLP"}
    assert whole == {0, 2}


def test_all_that_there_are_come_equally_often(model):
    """The last layer has no heads at image tokens: what a head there leaves is more than others do."""
    nodes = parse_nodes(["blocks.1.attn.hook_z[head 0]", "blocks.0.attn.hook_z[head 1]@image"])
    draws = Counter(random_circuits(model, nodes, 4000))
    # 12 heads at all positions; 8 at the image, of which one in the first two layers takes one away.
    assert len(draws) == 4 * 8 + 8 * 7
    assert how_many(model, nodes, "kind and positions") == 12 * 8  # at most
    last = sum(n for drawn, n in draws.items() if any(node.layer == 2 for node in drawn))
    assert last / 4000 == pytest.approx(32 / 88, abs=0.03)  # a standard error is 0.008


def test_without_room_it_is_told(model, monkeypatch):
    """Heads at all positions take most of those that the image could have: few draws leave it four."""
    names = [f"blocks.{i}.attn.hook_z[head {j}]" for i in (1, 2) for j in range(4)]
    nodes = parse_nodes([*names, *(f"blocks.0.attn.hook_z[head {j}]@image" for j in range(4))])
    for drawn in random_circuits(model, nodes, 20):
        assert parse_nodes(drawn) == drawn
    monkeypatch.setattr("mechvrp.circuits.random_circuits._TRIES", 1)
    with pytest.raises(InputError, match="without overlap"):
        random_circuits(model, nodes, 20)
