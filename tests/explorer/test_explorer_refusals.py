"""What an explorer cannot be made of, or be asked, is refused in words and before anything is run."""

from __future__ import annotations

import json

import pytest

from mechvrp.circuits import Circuit
from mechvrp.errors import InputError, SiteError
from mechvrp.explorer import Explorer

HEADS = ["blocks.2.attn.hook_z[head 1]@last", "blocks.1.attn.hook_z[head 0]@last"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        *(({"reference": n}, "reference=.*whole number") for n in ("8", None, 2.5, True, 0)),
        *(({"max_new_tokens": n}, "max_new_tokens=.*whole number") for n in (0, -5, "3")),
        ({"monitor": "x"}, "monitor is a mechvrp.reliability.Monitor; got 'x'"),
        ({"probe": "x", "probe_site": "blocks.2.hook_resid_post"}, "FittedProbe; got 'x'"),
        ({"rankings": 3}, "rankings are a list"),
        ({"rankings": "abc"}, "rankings are a list"),
        ({"reading": "lenient"}, "'official' or 'strict'"),
    ],
)
def test_an_explorer_is_made_of_what_it_can_use(explorer, scenes, given, words):
    with pytest.raises(InputError, match=words):
        Explorer(explorer.model, scenes, **given)


def test_every_entry_of_the_dataset_is_a_sample(explorer, scenes):
    with pytest.raises(InputError, match="its number 2 is 'x'"):
        Explorer(explorer.model, [scenes[0], scenes[1], "x"])


def test_no_rankings_are_none(explorer, scenes):
    assert Explorer(explorer.model, scenes, rankings=None).rankings == {}


def test_filters(explorer):
    examples = explorer.examples
    with pytest.raises(InputError, match="right is True, False"):
        examples.filter(right="yes")
    with pytest.raises(InputError, match="text is what is searched for"):
        examples.filter(text=None)


def test_a_layer_counted_from_the_end_is_the_same_place(explorer):
    last = explorer.model.n_layers - 1
    assert explorer.look("mlp_out", -1) == explorer.look("mlp_out", last)
    explorer.look("mlp_out", -1)
    assert [str(node) for node in explorer.place.nodes()] == [f"blocks.{last}.hook_mlp_out@last"]
    with pytest.raises(SiteError):
        explorer.look("mlp_out", -last - 2)


def test_nodes_are_names(explorer):
    with pytest.raises(InputError, match="nodes are names.*got None"):
        explorer.circuit.add(None)
    assert explorer.circuit.nodes == ()


@pytest.mark.parametrize("name", ["order", "name"])
def test_a_file_with_damaged_settings_is_refused(explorer, tmp_path, name):
    explorer.circuit.add(HEADS)
    path = tmp_path / "circuit.json"
    explorer.circuit.save(path)
    held = json.loads(path.read_text())
    held["settings"][name] = [1, "a"]
    path.write_text(json.dumps(held))
    before = explorer.circuit.nodes
    with pytest.raises(InputError, match=f"settings.{name}"):
        explorer.circuit.load(path)
    assert explorer.circuit.nodes == before


@pytest.mark.parametrize("text", ["my notes", '{"format": "another"}', ""])
def test_only_circuits_are_overwritten(explorer, tmp_path, text):
    explorer.circuit.add(HEADS[0])
    notes, path = tmp_path / "notes.txt", tmp_path / "circuit.json"
    notes.write_text(text)
    with pytest.raises(InputError, match="is no saved circuit.*another name"):
        explorer.circuit.save(notes)
    assert notes.read_text() == text
    explorer.circuit.save(path)
    explorer.circuit.add(HEADS[1])
    explorer.circuit.save(path)
    assert len(Circuit.load(path)) == 2
