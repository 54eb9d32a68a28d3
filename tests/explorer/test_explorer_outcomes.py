"""One example: what is shown is what a trace by hand gives, and what the printed code gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.circuits import Circuit, FittedProbe
from mechvrp.errors import InputError, SiteError, UnavailableError
from mechvrp.explorer import Explorer

CLOSE = {"rtol": 0, "atol": 2e-5}


def by_hand(model, sample, edits):
    batch = model.encode(sample)
    with mechvrp.trace(model, batch) as t:
        t.apply(edits)
        logits = t.logits[0, -1].save()
    return logits.float().softmax(-1)


def shown(outcome, which):
    return [getattr(word, which) for word in outcome.words]


def at(probabilities, outcome):
    return [float(probabilities[word.token]) for word in outcome.words]


def test_the_clean_run(any_explorer, run_code):
    outcome = any_explorer.clean()
    model, sample = any_explorer.model, any_explorer.sample
    expected = by_hand(model, sample, [])
    np.testing.assert_allclose(shown(outcome, "before"), at(expected, outcome), **CLOSE)
    assert outcome.first.token == int(expected.argmax())
    assert outcome.margin_before > 0
    assert outcome.margin_after is None
    assert not outcome.changed
    ran = run_code(model, outcome.code)
    np.testing.assert_allclose(shown(outcome, "before"), at(ran["before"], outcome), **CLOSE)


@pytest.mark.parametrize(
    ("component", "layer", "positions", "chosen"),
    [
        ("neurons", 2, "last", {"units": range(200)}),
        ("z", 1, "all", {"heads": [0, 2]}),
        ("resid_post", 1, [(1, 2), (3, 3)], {}),
        ("mlp_out", 0, -2, {}),
        ("projected", None, "image", {}),
    ],
)
def test_zeroing_is_what_a_trace_gives(any_explorer, run_code, component, layer, positions, chosen):
    model, sample = any_explorer.model, any_explorer.sample
    any_explorer.look(component, layer, positions, **chosen)
    outcome = any_explorer.ablated()
    edit = mechvrp.zero(component, layer=layer, positions=positions, **chosen)
    expected = by_hand(model, sample, edit)
    np.testing.assert_allclose(shown(outcome, "after"), at(expected, outcome), **CLOSE)
    assert shown(outcome, "after") != shown(outcome, "before")
    assert outcome.first_after.token == int(expected.argmax())
    logits = expected.log()
    own = outcome.first.token
    others = torch.cat([logits[:own], logits[own + 1 :]])
    assert outcome.margin_after == pytest.approx(float(logits[own] - others.max()), abs=1e-3)
    ran = run_code(model, outcome.code)
    np.testing.assert_allclose(shown(outcome, "after"), at(ran["after"], outcome), **CLOSE)
    np.testing.assert_allclose(shown(outcome, "before"), at(ran["before"], outcome), **CLOSE)


def test_a_mean_is_of_the_reference(explorer, scenes, run_code):
    explorer.look("mlp_out", 2, "last")
    outcome = explorer.ablated("mean")
    over = mechvrp.cache(explorer.model, scenes[:12], "blocks.2.hook_mlp_out", positions="last")
    edit = mechvrp.mean("blocks.2.hook_mlp_out", over, positions="last")
    expected = by_hand(explorer.model, scenes[0], edit)
    np.testing.assert_allclose(shown(outcome, "after"), at(expected, outcome), **CLOSE)
    ran = run_code(explorer.model, outcome.code)
    np.testing.assert_allclose(shown(outcome, "after"), at(ran["after"], outcome), **CLOSE)


def test_means_at_a_token_and_at_patches_are_of_the_same_ones(explorer, scenes, run_code):
    model = explorer.model
    states = [
        mechvrp.cache(model, [s], "blocks.1.hook_mlp_out", positions="all") for s in scenes[:12]
    ]
    for positions in (-2, [(1, 2), (3, 3)]):
        explorer.look("mlp_out", 1, positions)
        outcome = explorer.ablated("mean")
        named = [positions] if isinstance(positions, int) else positions
        edits = []
        for one in named:
            values = []
            for acts in states:
                rows = acts.rows("blocks.1.hook_mlp_out")
                there = (
                    rows.position == one
                    if isinstance(one, int)
                    else (rows.row == one[0]) & (rows.col == one[1])
                )
                values.append(acts.flat("blocks.1.hook_mlp_out")[there].double())
            value = torch.cat(values).mean(0, keepdim=True).float()
            there = one if isinstance(one, int) else [one]
            edits.append(mechvrp.steer("mlp_out", value[0], layer=1, positions=there))
        # Zeroed, then the mean added: the mean in its place.
        edits = [mechvrp.zero("mlp_out", layer=1, positions=positions), *edits]
        expected = by_hand(model, scenes[0], edits)
        np.testing.assert_allclose(shown(outcome, "after"), at(expected, outcome), **CLOSE)
        ran = run_code(model, outcome.code)
        np.testing.assert_allclose(shown(outcome, "after"), at(ran["after"], outcome), **CLOSE)


def test_means_that_do_not_fit_are_refused_before_they_are_made(explorer, monkeypatch):
    monkeypatch.setattr("mechvrp.explorer.running._MEMORY", 10_000)
    explorer.look("mlp_out", 1, "image")
    with pytest.raises(InputError, match="0.0 GB; 4 GB is the most"):
        explorer.ablated("mean")


def test_patching_gives_another_examples_value(any_explorer, scenes, run_code):
    model = any_explorer.model
    last = model.n_layers - 1
    any_explorer.look("resid_post", last, "last")
    donor = 7
    outcome = any_explorer.patched(donor)
    # Behind the last block the last position is all there is: the answer is the donor's.
    expected = by_hand(model, scenes[donor], [])
    np.testing.assert_allclose(shown(outcome, "after"), at(expected, outcome), **CLOSE)
    ran = run_code(model, outcome.code)
    np.testing.assert_allclose(shown(outcome, "after"), at(ran["after"], outcome), **CLOSE)
    with pytest.raises(InputError, match="choose another as donor"):
        any_explorer.patched(0)


def test_a_circuit_is_taken_away_or_patched(explorer, scenes, run_code):
    model = explorer.model
    explorer.circuit.add(["blocks.1.attn.hook_z[head 1]", "blocks.2.hook_mlp_out@last"])
    outcome = explorer.ablated(circuit=True)
    edits = [
        mechvrp.zero("z", layer=1, heads=1),
        mechvrp.zero("mlp_out", layer=2, positions="last"),
    ]
    expected = by_hand(model, scenes[0], edits)
    np.testing.assert_allclose(shown(outcome, "after"), at(expected, outcome), **CLOSE)
    ran = run_code(model, outcome.code)
    np.testing.assert_allclose(shown(outcome, "after"), at(ran["after"], outcome), **CLOSE)
    length = explorer.batch.tokens.length
    donor = next(i for i in range(1, 48) if model.encode(scenes[i]).tokens.length == length)
    patched = explorer.patched(donor, circuit=True)
    ran = run_code(model, patched.code)
    np.testing.assert_allclose(shown(patched, "after"), at(ran["after"], patched), **CLOSE)
    with pytest.raises(InputError, match="'zero' or 'mean'"):
        explorer.ablated("median", circuit=True)


def test_a_circuit_takes_means_by_kind_of_token(any_explorer, scenes, run_code):
    model = any_explorer.model
    any_explorer.circuit.add(["blocks.1.attn.hook_z[head 1]@last", "blocks.2.hook_mlp_out@image"])
    outcome = any_explorer.ablated("mean", circuit=True)
    last = mechvrp.cache(model, scenes[:12], "blocks.1.attn.hook_z", positions="last")
    image = mechvrp.cache(model, scenes[:12], "blocks.2.hook_mlp_out", positions="image")
    edits = [
        mechvrp.mean("z", last, layer=1, positions="last", heads=1),
        mechvrp.mean("mlp_out", image, layer=2, positions="image"),
    ]
    expected = by_hand(model, scenes[0], edits)
    np.testing.assert_allclose(shown(outcome, "after"), at(expected, outcome), **CLOSE)
    ran = run_code(model, outcome.code)
    np.testing.assert_allclose(shown(outcome, "after"), at(ran["after"], outcome), **CLOSE)
    assert ran["answer_after"] == outcome.answer_after


def test_a_probe_reads_both_runs(scenes, run_code, explorer):
    model = explorer.model
    rng = np.random.default_rng(0)
    d = model.d_model
    probe = FittedProbe(np.zeros(d), np.ones(d), rng.normal(size=d), 0.1, 1.0)
    probing = Explorer(model, scenes, probe=probe, probe_site="blocks.2.hook_resid_post")
    probing.look("mlp_out", 1, "last")
    outcome = probing.ablated()
    states = mechvrp.cache(model, [scenes[0]], "blocks.2.hook_resid_post")
    clean = probe.probabilities(states["blocks.2.hook_resid_post"].numpy())[0]
    assert outcome.reliability_before == pytest.approx(clean, abs=1e-4)
    ran = run_code(model, outcome.code)
    after = probe.probabilities(ran["after_state"].float().numpy()[None])[0]
    assert outcome.reliability_after == pytest.approx(after, abs=1e-4)
    assert outcome.reliability_after != outcome.reliability_before
    assert explorer.clean().reliability_before is None
    for wrong in ({"probe": probe}, {"probe_site": "blocks.2.hook_resid_post"}):
        with pytest.raises(InputError, match="a probe comes with probe_site"):
            Explorer(model, scenes, **wrong)
    with pytest.raises(InputError, match="reads the residual stream"):
        Explorer(model, scenes, probe=probe, probe_site="blocks.2.attn.hook_z")


def test_what_cannot_be_chosen_leaves_all_as_it_was(explorer):
    explorer.look("neurons", 1, "last", units=[4, 2, 4])
    place = explorer.place
    assert place.units == (2, 4)
    for wrong in (
        ("neurons", 9),
        ("nothing", 1),
        ("resid_post", 1, [(99, 0)]),
        ("resid_post", 1, 3),
        ("projected", None, "last"),
        ("pattern", 1),
    ):
        with pytest.raises(InputError):
            explorer.look(*wrong)
    with pytest.raises(SiteError, match="has no heads"):
        explorer.look("neurons", 1, heads=[0])
    with pytest.raises(SiteError):
        explorer.look("neurons", 1, units=[10_000])
    with pytest.raises(InputError, match="no example 48"):
        explorer.choose(48)
    assert explorer.place == place
    assert explorer.index == 0


def test_nothing_to_explore_is_refused(explorer, scenes):
    with pytest.raises(InputError, match="mechvrp.load"):
        Explorer("tiny-llava", scenes)
    with pytest.raises(InputError, match="no samples"):
        Explorer(explorer.model, [])
    with pytest.raises(InputError, match="Sample objects"):
        Explorer(explorer.model, ["a question"])
    bare = mechvrp.VLM(explorer.model.model, None)
    with pytest.raises(UnavailableError, match="without a processor"):
        Explorer(bare, scenes)


def test_clean_runs_are_kept(explorer, monkeypatch):
    explorer.clean()
    counted = []
    encode = explorer.model.encode
    monkeypatch.setattr(
        explorer.model, "encode", lambda *a, **k: counted.append(1) or encode(*a, **k)
    )
    explorer.look("mlp_out", 1, "last")
    explorer.ablated()
    explorer.clean()
    assert not counted
    explorer.choose(1)
    assert len(counted) == 1


def test_a_saved_circuit_is_a_circuit(explorer, tmp_path):
    explorer.look("neurons", 2, "last", units=[9, 3])
    explorer.circuit.add(explorer.place.nodes())
    explorer.circuit.add("blocks.0.attn.hook_z[head 1]")
    explorer.circuit.name = "sevens"
    path = tmp_path / "sevens.json"
    explorer.circuit.save(path)
    assert Circuit.load(path).nodes == explorer.circuit.circuit().nodes
    before = explorer.circuit.nodes
    explorer.circuit.clear()
    with pytest.raises(InputError, match="no nodes yet"):
        explorer.circuit.save(path)
    explorer.circuit.load(path)
    assert explorer.circuit.nodes == before  # in the order in which they were added
    assert explorer.circuit.name == "sevens"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError):
        explorer.circuit.load(path)
    assert explorer.circuit.nodes == before
    for wrong in ("blocks.2.mlp.hook_post[unit 3]@last", "blocks.9.hook_mlp_out"):
        with pytest.raises(InputError):
            explorer.circuit.add(["blocks.3.hook_mlp_out", wrong])
    assert explorer.circuit.nodes == before  # all or none
    explorer.circuit.remove("blocks.0.attn.hook_z[head 1]")
    assert len(explorer.circuit) == 2
    with pytest.raises(InputError, match="not in the circuit"):
        explorer.circuit.remove("blocks.0.attn.hook_z[head 1]")


def test_the_top_of_a_ranking_becomes_nodes(explorer, scenes):
    model = explorer.model
    scores = np.zeros(model.d_mlp)
    scores[[5, 200, 17]] = 3.0, -2.0, 1.0
    site = "blocks.1.mlp.hook_post"
    ranking = mechvrp.Ranking((site,), scores, images=frozenset({scenes[40].image_id}))
    explorer = Explorer(model, scenes, rankings=[ranking, ranking])
    assert list(explorer.rankings) == [f"given scores, {site}", f"given scores, {site} (1)"]
    first = f"given scores, {site}"
    explorer.circuit.add(f"{site}[unit 200]@last")
    explorer.add_top(first, 2)
    assert [str(node) for node in explorer.circuit.nodes] == [
        f"{site}[unit 200]@last",
        f"{site}[unit 5]@last",
    ]
    assert explorer.looked == {scenes[40].image_id}  # a curve is measured on others
    with pytest.raises(InputError, match="in the circuit already"):
        explorer.add_top(first, 2)
    with pytest.raises(InputError, match="no ranking 'mine'"):
        explorer.add_top("mine", 2)
    with pytest.raises(InputError, match=r"rankings are mechvrp.Ranking"):
        Explorer(model, scenes, rankings={"mine": scores})
    other = mechvrp.Ranking((site,), scores, model=model.name, fingerprint="other weights")
    with pytest.raises(InputError):
        Explorer(model, scenes, rankings={"other": other})


def test_places_that_are_no_nodes_say_why(explorer):
    for place, words in (
        (("resid_post", 1, [(1, 1)], [3]), "chosen positions"),
        (("neurons", 1, "last", None), "choose the units"),
        (("z", 1, "last", None), "choose the heads"),
        (("attn_out", 1, "last", [1]), "no nodes of attn_out"),
    ):
        component, layer, positions, units = place
        explorer.look(component, layer, positions, units=units)
        with pytest.raises(SiteError, match=words):
            explorer.place.nodes()
