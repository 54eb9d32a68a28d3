"""Known answers: planted circuits are found, told from spread ones, discovered and proven, by all tools."""

from __future__ import annotations

import numpy as np
import pytest

from mechvrp.circuits import (
    RANKING_METHODS,
    CircuitNode,
    ablation_curve,
    compare_curves,
    counterfactual_pairs,
    discover_circuit,
    plant_circuit,
    prove_circuit,
    rank_units,
)
from mechvrp.data import counterfactual_pair
from tests.support import planted as support
from tests.support.planted import planted, questions, said_yes

#: Methods whose scores are of yes against no; the others' are of the model's own answer.
LABELLED = ("probe", "sparse probe", "MLP probe", "mean difference")


def ranked(name, method, n):
    """A planted model, and its neurons by a method from ``n`` questions, labels being its own answers."""
    found, samples = planted("concentrated", name), questions(n)
    options = {}
    if method == "attribution of a pair":
        options["corrupted"] = [counterfactual_pair(sample, 0) for sample in samples]
    if method in LABELLED:
        options["labels"] = said_yes(found, samples)
    return found, rank_units(found.model, samples, found.site, method, **options)


#: Method, questions, and by how much the least planted neuron leads all others (a factor).
CASES = (
    ("probe", 80, 1.2),
    ("sparse probe", 80, 10),
    ("mean difference", 80, 1.5),
    ("attribution", 40, 2),
)
#: Dearer ones, on one family.
DEARER = (
    ("MLP probe", 120, 1.0),
    ("attribution of a pair", 24, 10),
    ("ablation", 24, 5),
)


@pytest.mark.parametrize(
    ("name", "method", "n", "lead"),
    [(name, *case) for name in support.MODELS for case in CASES]
    + [("tiny-llava", *case) for case in DEARER],
)
def test_a_clean_plant_is_found_by_every_method(name, method, n, lead):
    """All planted neurons on top, and by how much; decoys, which are louder than all, are nowhere near."""
    found, ranking = ranked(name, method, n)
    assert found.precision_at(ranking) == 1.0
    sizes = np.abs(ranking.scores)
    neurons, decoys, others = (
        sizes[list(units)] for units in (found.neurons, found.decoys, found.others)
    )
    assert neurons.min() > lead * max(others.max(), decoys.max())
    signs = found.signs if method in LABELLED else np.ones(len(found.neurons))
    assert ranking.signs[list(found.neurons)].tolist() == signs.tolist()


def test_of_many_neurons_a_sparse_probe_finds_those_that_suffice():
    """Eight say nearly the same: fewer tell the answer, and only these come first. The L2 probe finds all."""
    fit, samples = questions(2 * support.PLANTING, planting=True), questions(120)
    found = plant_circuit(support.model(), fit, layer=2, neurons=8, decoys=6, seed=2)
    labels = said_yes(found, samples)
    ranking, whole = (
        rank_units(found.model, samples, found.site, method, labels=labels)
        for method in ("sparse probe", "probe")
    )
    assert found.precision_at(whole) == 1.0
    assert 4 <= ranking.settings["nonzero"] < 8
    assert ranking.settings["cv_auroc"] > 0.99
    assert found.precision_at(ranking, ranking.settings["nonzero"]) == 1.0
    assert 0.5 <= found.precision_at(ranking) < 1.0


def test_every_method_is_asked_and_chance_finds_nothing():
    assert {*RANKING_METHODS} == {"random", *(case[0] for case in CASES + DEARER)}
    found, ranking = ranked("tiny-llava", "random", 20)
    assert found.precision_at(ranking) <= 0.25


def test_a_bottleneck_is_told_from_spread_information():
    """200 examples: the answer on four neurons, or on half the layer; the ranking is from other images."""
    evaluated, others = questions(200), questions(320)[200:]
    assert not {s.image_id for s in evaluated} & {s.image_id for s in others}
    curves = {}
    for kind in ("concentrated", "spread"):
        found = planted(kind)
        ranking = rank_units(found.model, others, found.site, labels=said_yes(found, others))
        assert found.precision_at(ranking) == 1.0
        curves[kind] = ablation_curve(
            found.model,
            evaluated,
            ranking,
            (4, 16),
            draws=20,
            sets=(),
            answer_tokens=[1] * len(evaluated),  # yes or no, then the end
            n_resamples=100,
        )
        assert curves[kind].outcomes.clean["accuracy"].mean() > 0.9
    index = {kind: curve.bottleneck["random"] for kind, curve in curves.items()}
    # All neurons of the one are in its top 4: chance is left. Of the other at least 112 are left.
    assert index["concentrated"].value == pytest.approx(1, abs=0.05)
    assert index["concentrated"].low > 0.6
    assert index["spread"].low < 0 < index["spread"].high < 0.15
    (told,) = compare_curves(curves).differences
    assert told.shared_images == 100
    assert told.p < 0.01
    assert told.difference.low > 0.9


@pytest.fixture(scope="module")
def pairs():
    """Of digit scenes whose answer changes with a digit: some to find circuits on, others for proofs."""
    model = planted("concentrated").model
    one = list({s.image_id: s for s in questions(32)}.values())
    parts = (one[:6], one[6:])
    return [counterfactual_pairs(model, part, same="skip") for part in parts]


def test_discovery_finds_the_planted_mlp_and_proof_confirms_it(pairs):
    found, (some, others) = planted("concentrated"), pairs
    mlp = CircuitNode("mlp_out", found.layer, None, "last")
    discovered = discover_circuit(found.model, some, target=0.98)
    assert discovered.order[0] == mlp
    assert mlp in discovered.circuit.nodes
    proof = prove_circuit(
        discovered.circuit, found.model, others, draws=19, minimality=False, n_resamples=200
    )
    assert proof.seen == 0
    assert proof.faithfulness.circuit.value > 0.9
    assert proof.faithfulness.p == pytest.approx(1 / 20)
    assert proof.completeness.circuit.value == pytest.approx(0, abs=0.01)


def test_refinement_finds_the_planted_neurons_and_no_other(pairs):
    found = planted("concentrated")
    discovered = discover_circuit(found.model, pairs[0], target=0.3, refine=0.25)
    of = {part.node: {neuron.index for neuron in part.neurons} for part in discovered.refined}
    assert of[CircuitNode("mlp_out", found.layer, None, "last")] == set(found.neurons)
