"""What a proof and a discovery hold against a circuit: overshoot, other weights, images seen before."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mechvrp.circuits import (
    AgainstRandom,
    Circuit,
    CircuitNode,
    Pairs,
    circuit_nodes,
    counterfactual_pairs,
    discover_circuit,
    prove_circuit,
)
from mechvrp.circuits.circuit_runs import CircuitRuns
from mechvrp.circuits.proof import _seen
from mechvrp.circuits.proof_shares import ProofShares
from mechvrp.circuits.pruning import prune, shortest_prefix
from mechvrp.circuits.refining import refine_neurons
from mechvrp.data import Sample
from mechvrp.errors import InputError, MechVRPError
from mechvrp.models import fingerprint
from tests.support import circuits


@pytest.fixture(scope="module")
def small():
    model = circuits.load("llava-clip")
    return model, circuits.pairs_of(model)


class Additive:
    """Runs in which the measure is a sum of known effects; the same on every pair."""

    def __init__(self, effects, n=6):
        self.effects = effects
        self.full, self.empty = np.ones(n), np.zeros(n)
        self.pairs = Pairs.__new__(Pairs)
        object.__setattr__(self.pairs, "groups", tuple(f"image {i}" for i in range(n)))

    def shares(self, sets):
        return np.array([sum(self.effects.get(node, 0.0) for node in nodes) for nodes in sets])

    def run(self, sets, ablate="rest"):
        found = self.shares(sets)
        return np.repeat((1 - found if ablate == "circuit" else found)[:, None], 6, axis=1)


NODES = circuit_nodes(circuits.load("llava-clip"), positions=["last"])


def test_pruning_stays_near_the_model_and_does_not_overshoot():
    """Without the two that work against the answer the share is 2.2: further from the model, not better."""
    effects = dict(zip(NODES[:5], [0.6, 0.4, 1.2, -0.5, -0.7], strict=True))
    kept, steps = prune(Additive(effects), NODES[:5], 0.9)
    assert set(kept) == set(NODES[:5])  # no single one can go
    assert not steps
    effects[NODES[5]], effects[NODES[6]] = 0.04, -0.06
    kept, steps = prune(Additive(effects), NODES[:7], 0.9)
    assert set(kept) == set(NODES[:5])
    assert all(0.9 <= step.faithfulness <= 1.1 for step in steps)


def test_the_shortest_prefix_is_not_one_that_overshoots():
    effects = dict(zip(NODES[:4], [1.7, -0.7, 0.02, -0.02], strict=True))
    size, curve = shortest_prefix(Additive(effects), NODES[:4], 0.9)
    assert curve[1] == pytest.approx(1.7)
    assert size == 2
    assert shortest_prefix(Additive({NODES[0]: 1.7}), NODES[:4], 0.9)[0] is None


def test_neurons_are_not_chosen_to_overshoot():
    mlp = CircuitNode("mlp_out", 2, None, "last")
    units = [CircuitNode("neurons", 2, i, "last") for i in range(8)]
    effects = {mlp: 1.0, units[0]: 1.8, units[1]: -0.5, units[2]: -0.28}
    scores = np.zeros((4, 8))
    scores[:, :3] = [3, 2, 1]
    kept, refined = refine_neurons(Additive(effects), [mlp], [scores] * 3, 1.0, 0.9)
    assert set(kept) == set(units[:3])
    assert refined[0].faithfulness == pytest.approx(1.02)


def test_random_circuits_that_overshoot_are_not_better():
    mine, near, above, below = (NODES[i : i + 1] for i in range(4))
    runs = Additive({NODES[0]: 0.9, NODES[1]: 1.05, NODES[2]: 2.0, NODES[3]: 0.2})
    shares = ProofShares(runs, 50, 0)
    assert shares.against(mine, [above, below, above], 1).p == 1 / 4
    assert shares.against(mine, [above, near, above], 1).p == 2 / 4
    # Without it, the model should be as the ablated one: 0, not far below.
    runs.effects = {NODES[0]: 1.1, NODES[1]: 1.05, NODES[2]: 2.0, NODES[3]: 0.2}
    assert shares.against(mine, [above, below, above], 1, without=True).p == 1 / 4
    assert shares.against(mine, [above, near, above], 1, without=True).p == 2 / 4


def test_a_removal_is_ranked_among_its_own_kind():
    """MLPs matter more than heads in this model: each is judged among its own."""
    heads = [n for n in NODES if n.kind == "head"]
    mlps = [n for n in NODES if n.kind == "MLP"]
    effects = dict.fromkeys(heads, 0.01) | dict.fromkeys(mlps, 0.4) | {heads[0]: 0.1}
    shares = ProofShares(Additive(effects), 50, 0)
    others = [(heads[i], mlps[i % 3]) for i in range(1, 10)]
    removed, tried = shares.removals((heads[0], mlps[0]), others, "kind and positions")
    found = {one.node: one for one in removed}
    assert tried == 18
    assert [found[n].among for n in (heads[0], mlps[0])] == [9, 9]
    assert found[heads[0]].p == 1 / 10  # among all, it would be 10 / 19
    assert found[mlps[0]].p == 1.0
    assert found[heads[0]].random.value == pytest.approx(0.01)  # of heads, not of MLPs
    assert found[heads[0]].lead.value == pytest.approx(0.09)
    assert found[mlps[0]].random.value == pytest.approx(0.4)
    assert found[mlps[0]].lead.value == pytest.approx(0)


def test_a_removal_and_its_control_have_intervals_over_images():
    """Effects differ by image, the circuit's and the random ones' alike: what is paired is told apart."""
    scale = np.array([0.5, 0.7, 0.9, 1.1, 1.3, 1.5])
    effects = dict(zip(NODES[:4], [0.5, 0.1, 0.2, 0.3], strict=True))
    runs = Additive(effects)
    runs.run = lambda sets, ablate="rest": runs.shares(sets)[:, None] * scale
    heads = [n for n in NODES[:4] if n.kind == "head"]
    assert len(heads) == 4
    others = [(heads[i],) for i in (1, 2, 3)]
    (removed,), _ = ProofShares(runs, 400, 0).removals(heads[:1], others, "kind and positions")
    for found, share in ((removed.drop, 0.5), (removed.random, 0.2), (removed.lead, 0.3)):
        assert found.value == pytest.approx(share)
        assert 0.6 * share < found.low < share < found.high < 1.4 * share
    widths = [found.high - found.low for found in (removed.lead, removed.drop, removed.random)]
    assert widths[0] == pytest.approx(widths[1] - widths[2])  # paired by image
    assert removed.random_range == pytest.approx((0.1, 0.3))
    assert removed.p == 1 / 4


def test_a_set_is_run_once(small, monkeypatch):
    runs = CircuitRuns(*small)
    sets = [NODES[:2], NODES[1::-1], (), NODES[:2]]
    first = runs.run(sets)
    assert (first[0] == first[1]).all()
    assert (first[0] == first[3]).all()
    empty = runs.empty
    full = runs.full
    monkeypatch.setattr(
        "mechvrp.circuits.circuit_runs.sweep", lambda *_, **__: pytest.fail("the model was run")
    )
    assert (runs.run(sets) == first).all()
    assert (runs.empty == empty).all()
    assert (runs.full == full).all()


def test_a_total_that_is_negative_or_not_told_from_0_is_not_shared_out(small):
    model, pairs = small
    part = pairs.parts[0]
    swapped = type(part)(part.clean, part.counterfactual, part.foil, part.target)
    half = type(part)(
        part.clean, part.counterfactual,
        (*part.target[:2], *part.foil[2:]), (*part.foil[:2], *part.target[2:]),
    )  # fmt: skip
    for changed, message in ((swapped, "swapped"), (half, "not told from 0")):
        given = Pairs((changed,), pairs.groups, model.name)
        with pytest.raises(InputError, match=message):
            CircuitRuns(model, given).shares([NODES[:2]])
        with pytest.raises(InputError, match=message):
            discover_circuit(model, given)


def test_pairs_know_their_weights(small):
    model, pairs = small
    other = circuits.load("llava-clip", seed=5)
    assert other.name == model.name
    known = dataclasses.replace(pairs, fingerprint=fingerprint(model))
    CircuitRuns(model, known)
    with pytest.raises(InputError, match="other weights"):
        CircuitRuns(other, known)


def test_numbers_of_neurons_mean_nothing_in_other_weights(small):
    model, _ = small
    other = circuits.load("llava-clip", seed=5)
    theirs = circuits.pairs_of(other)
    quick = {"draws": 3, "minimality": False, "n_resamples": 50}
    for name in ("blocks.2.mlp.hook_post[unit 3]@last", "blocks.1.hook_resid_post[unit 0]@last"):
        circuit = Circuit.of(model, [name])
        circuit.check(model)
        with pytest.raises(InputError, match="same_weights=False"):
            circuit.retest(other, theirs, **quick)
        with pytest.raises(InputError, match="same_weights=False"):
            circuit.edits(other, theirs.parts[0].clean, "zero")
        circuit.edits(other, theirs.parts[0].clean, "zero", same_weights=False)
    forced = circuit.retest(other, theirs, same_weights=False, **quick)
    assert forced.model == other.name
    with pytest.raises(InputError, match="fingerprint"):
        Circuit.of(model, NODES[:1]).retest(other, theirs, same_weights=True, **quick)


def test_batches_without_samples_say_which_pairs_share_an_image(small, monkeypatch):
    model, pairs = small
    part = pairs.parts[0]
    sides = [dataclasses.replace(b, samples=None) for b in (part.clean, part.counterfactual)]
    ids = ["a", "a", "b", "c"]
    with pytest.raises(InputError, match="groups="):
        counterfactual_pairs(model, *sides)
    for bad in (ids[:3], "abcd", [1, 2, 3, 4]):
        with pytest.raises(InputError, match="groups"):
            counterfactual_pairs(model, *sides, groups=bad)
    answers = iter([[1, 2, 3, 4], [5, 6, 7, 8]])
    monkeypatch.setattr("mechvrp.circuits.pairs._answers", lambda *_: next(answers))
    made = counterfactual_pairs(model, *sides, groups=ids)
    assert made.groups == tuple(ids)
    assert made.n_groups == 3
    assert made.fingerprint == fingerprint(model)


def both_ways(model, monkeypatch, **options):
    """Pairs of 4 scenes, found and turned round; told apart by made-up answers."""
    monkeypatch.setattr(
        "mechvrp.circuits.pairs._answers",
        lambda _, batch, __: [sum(map(ord, s.image_id)) % 30 + 3 for s in batch.samples],
    )
    first, second = circuits.sides(4)
    for one, other in zip(first, second, strict=True):
        other.meta["counterfactual_of"] = one.image_id
    there = counterfactual_pairs(model, first, second, **options)
    back = counterfactual_pairs(model, second, first, **options)
    every = counterfactual_pairs(model, first + second, second + first, **options)
    return there, back, every


def test_pairs_the_other_way_round_are_of_the_same_images(small, monkeypatch):
    model = small[0]
    there, back, every = both_ways(model, monkeypatch)
    ids = tuple(f"0-{i}" for i in range(4))
    assert there.groups == back.groups == ids
    assert every.groups == ids * 2
    assert repr(every) == "Pairs(8 pairs of 4 images)"
    assert there.images == back.images == tuple({i, f"100-{i[2:]}"} for i in ids)
    circuit = Circuit.of(model, NODES[::2], images=sorted(frozenset().union(*there.images)))
    old = Circuit.of(model, NODES[::2], images=list(ids))  # as files of before have them
    twins = Circuit.of(model, NODES[::2], images=["100-0", "100-1"])
    quick = {"draws": 2, "minimality": False, "n_resamples": 50}
    for one, pairs, seen in (
        (circuit, back, 4),
        (circuit.complement(model), there, 4),
        (old, back, 4),
        (twins, there, 2),
        (twins, every, 2),
    ):
        with pytest.raises(InputError, match=f"{seen} of 4 images"):
            prove_circuit(one, model, pairs, **quick)
    assert _seen(circuit, (), every) == 4
    assert _seen(Circuit(NODES[:1], settings={"images": ["elsewhere"]}), (), every) == 0


def named(like, name, n):
    return Sample(like.image, like.question, "yes", name, meta={"n": n})


def test_linked_pairs_are_resampled_together_unless_told_otherwise(small, monkeypatch):
    """Without a source: pairs that show the same picture, on either side, or are linked by others."""
    model = small[0]
    monkeypatch.setattr(
        "mechvrp.circuits.pairs._answers",
        lambda _, batch, __: [int(s.meta["n"]) for s in batch.samples],
    )
    a, b, c, d, e = (named(circuits.sides(1)[0][0], name, n) for n, name in enumerate("abcde"))
    made = counterfactual_pairs(model, [a, b, c, d], [b, a, b, e], batch_size=2)
    assert made.groups == ("a", "a", "a", "d")
    assert (made.seen(["e"]), made.seen("c"), made.seen("abcde"), made.seen(["x"])) == (1, 1, 2, 0)
    given = counterfactual_pairs(model, [a, b, c, d], [b, a, b, e], groups=["1", "2", "3", "1"])
    assert given.groups == ("1", "2", "3", "1")
    assert given.seen(["b"]) == 3  # what a circuit was found on is known all the same
    alone = counterfactual_pairs(model, [a, b], [b, a])
    with pytest.raises(InputError, match="several that are linked"):
        CircuitRuns(model, alone)


def test_pairs_of_different_questions_are_refused_unless_asked_for(small, monkeypatch):
    model = small[0]
    answers = [[1, 2, 3, 4], [5, 6, 7, 8]] * 3
    monkeypatch.setattr("mechvrp.circuits.pairs._answers", lambda *_: answers.pop(0))
    first = circuits.sides(4, ("Is it?",))[0]
    other = circuits.sides(4, ("It is?",))[1]
    batches = [model.encode(side) for side in (first, other)]
    nameless = [dataclasses.replace(b, samples=None) for b in batches]
    with pytest.raises(InputError, match="another question, 'It is"):
        counterfactual_pairs(model, first, other)
    with pytest.raises(InputError, match="another question, 'It is"):
        counterfactual_pairs(model, *batches)
    with pytest.raises(InputError, match="the batches hold 4 samples"):
        counterfactual_pairs(model, batches[0], model.encode(other[:3]))
    with pytest.raises(InputError, match="pair 0 has other words .*same_question=False"):
        counterfactual_pairs(model, *nameless, groups=["a", "b", "c", "d"])
    for sides, groups in (
        (batches, None),
        (nameless, ["a", "b", "c", "d"]),
        ((first, other), None),
    ):
        assert len(counterfactual_pairs(model, *sides, groups=groups, same_question=False)) == 4


def test_a_circuit_is_saved_in_one_step(tmp_path, monkeypatch):
    circuit = Circuit(NODES[:2])
    with pytest.raises(MechVRPError, match="not a folder"):
        circuit.save(tmp_path / "nowhere" / "circuit.json")
    circuit.save(tmp_path / "circuit.json")

    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("mechvrp.store.atomic.os.fsync", full)
    with pytest.raises(MechVRPError, match="cannot be written: the disk is full"):
        Circuit(NODES[:3]).save(tmp_path / "circuit.json")
    assert Circuit.load(tmp_path / "circuit.json") == circuit
    assert [file.name for file in tmp_path.iterdir()] == ["circuit.json"]


def test_discovery_pools_means(small, monkeypatch):
    given = []

    def runs(*_, **options):
        given.append(options["pooled"])
        raise InputError("enough")

    monkeypatch.setattr("mechvrp.circuits.discovery.CircuitRuns", runs)
    for pooled in (True, False):
        with pytest.raises(InputError, match="enough"):
            discover_circuit(*small, mode="mean", reference=[], pooled=pooled)
    assert given == [True, False]


def test_the_table_says_how_many_and_whether_above_1(small):
    model, pairs = small
    circuit = Circuit.of(model, circuit_nodes(model)[::2])
    proof = prove_circuit(circuit, model, pairs, draws=2, removal_draws=1, n_resamples=50)
    frame = proof.to_frame().set_index("figure")
    assert (frame["seen"] == 0).all()
    assert frame.loc["faithfulness", "among"] == 2
    heads = sum(n.kind == "head" and n.positions == "last" for n in circuit.nodes)
    rows = frame.loc["minimality"]
    at = rows["node"].str.contains("hook_z") & rows["node"].str.endswith("@last")
    assert (rows.loc[at, "among"] == heads).all()
    for name in ("value", "random", "lead"):
        lower, upper = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
        assert (np.diff(rows[[lower, name, upper]].to_numpy(), axis=1) >= 0).all()  # NaN is not
    assert rows["lead"].to_numpy() == pytest.approx((rows["value"] - rows["random"]).to_numpy())
    assert (rows["random_min"] <= rows["random"]).all()
    assert (rows["random"] <= rows["random_max"]).all()
    share = proof.faithfulness.circuit
    high = dataclasses.replace(share, value=1.4, low=1.2, high=1.5)
    told = AgainstRandom(1, high, share, (0.0, 1.0), share, 0.5)
    assert "above 1" in repr(dataclasses.replace(proof, faithfulness=told))
    level = dataclasses.replace(share, value=1.0)
    told = AgainstRandom(1, level, share, (0.0, 1.0), share, 0.5)
    again = dataclasses.replace(proof, faithfulness=told, completeness=told)
    assert "above 1" not in repr(again)
