"""A circuit's ablation curve: what it counts, how it grows, that it can be cancelled and reproduced."""

from __future__ import annotations

import numpy as np
import pytest

import mechvrp
from mechvrp.circuits import CircuitNode
from mechvrp.errors import InputError, UnavailableError
from mechvrp.explorer import Cancelled, Job, circuit_curves
from mechvrp.explorer.growing import default_sizes, random_orders

NODES = [
    "blocks.2.mlp.hook_post[unit 7]@last",
    "blocks.1.attn.hook_z[head 1]",
    "blocks.3.hook_mlp_out@last",
]


def test_sizes():
    assert default_sizes(1) == (0, 1)
    assert default_sizes(5)[-1] == 5
    sizes = default_sizes(200)
    assert sizes[0] == 0
    assert sizes[-1] == 200
    assert len(sizes) <= 11
    with pytest.raises(InputError):
        default_sizes(0)


def test_random_nodes_are_of_the_kind_they_stand_for(explorer):
    nodes = [CircuitNode.parse(name) for name in NODES]
    orders = random_orders(explorer.model, nodes, 6, seed=3)
    assert len(orders) == 6
    for order in orders:
        for node, random in zip(nodes, order, strict=True):
            assert (random.component, random.positions) == (node.component, node.positions)
        assert order[0].layer == nodes[0].layer
        assert len(set(order)) == len(order)
    assert orders == random_orders(explorer.model, nodes, 6, seed=3)
    assert orders[:2] == random_orders(explorer.model, nodes, 2, seed=3)


def test_accuracy_is_counted_by_hand(explorer, scenes):
    model = explorer.model
    samples = scenes[:10]
    *_, curve = circuit_curves(model, samples, NODES, draws=2, batch_size=6)
    edits = [
        mechvrp.zero("neurons", layer=2, positions="last", units=7),
        mechvrp.zero("z", layer=1, heads=1),
        mechvrp.zero("mlp_out", layer=3, positions="last"),
    ]
    answers = model.generate(model.encode(samples), max_new_tokens=4)
    assert all(len(answer.split()) == 1 for answer in answers)
    for point in curve.points:
        right = []
        for sample in samples:
            with mechvrp.trace(model, model.encode(sample)) as t:
                t.apply(edits[: point.k])
                logits = t.logits[0, -1].save()
            text = model.tokenizer.decode([int(logits.argmax())]).strip()
            right.append(mechvrp.data.is_correct(sample, text, reading="strict"))
        assert point.accuracy.value == pytest.approx(np.mean(right))
    assert curve.points[0].random_change.value == 0


def test_it_grows_and_is_reproduced(any_explorer, run_code):
    any_explorer.circuit.add(NODES)
    grown = []
    view = any_explorer.curve(20, draws=3, batch_size=8, on_curve=grown.append)
    sizes = [one.curve.clean_accuracy.n for one in grown]
    assert sizes == sorted(sizes)
    assert len(sizes) >= 2
    assert grown[-1].curve is view.curve
    ran = run_code(any_explorer.model, view.code)
    mine, theirs = view.curve.to_frame(), ran["curve"].to_frame()
    assert mine.equals(theirs)


def test_means_are_of_other_images(explorer, scenes, run_code):
    model = explorer.model
    explorer.circuit.add(NODES)
    view = explorer.curve(12, "mean", draws=2, batch_size=6)
    reference = {sample.image_id for sample in scenes[:12]}
    assert not reference & {scenes[i].image_id for i in view.indices}
    ran = run_code(model, view.code)
    assert view.curve.to_frame().equals(ran["curve"].to_frame())
    samples = [scenes[i] for i in view.indices]
    edits = explorer.circuit.circuit().edits(
        model, model.encode(samples), "mean", reference=scenes[:12], ablate="circuit", pooled=True
    )
    with mechvrp.trace(model, model.encode(samples)) as t:
        t.apply(edits)
        logits = t.logits[:, -1].save()
    texts = [model.tokenizer.decode([token]).strip() for token in logits.argmax(-1).tolist()]
    right = [
        mechvrp.data.is_correct(sample, text, reading="strict")
        for sample, text in zip(samples, texts, strict=True)
    ]
    assert view.curve.points[-1].accuracy.value == pytest.approx(np.mean(right))
    with pytest.raises(InputError, match="shares 1 images"):
        next(circuit_curves(model, scenes[:8], NODES, mode="mean", reference=scenes[:1]))
    with pytest.raises(InputError, match="takes no reference"):
        next(circuit_curves(model, scenes[:8], NODES, reference=scenes[40:]))


def test_images_that_were_looked_at_are_left_out(explorer, scenes):
    explorer.clean()
    seen = scenes[0].image_id
    indices = explorer.curve_examples(30)
    assert len(indices) == 30
    assert all(scenes[i].image_id != seen for i in indices)
    explorer.looked |= {sample.image_id for sample in scenes}
    with pytest.raises(InputError, match="fewer than two images"):
        explorer.curve_examples(30)


def test_a_map_and_a_donor_count_as_looked_at(explorer, scenes):
    images = list(dict.fromkeys(sample.image_id for sample in scenes))
    of = [next(i for i, s in enumerate(scenes) if s.image_id == image) for image in images]
    explorer.look("z", 1, "last")
    explorer.map("heads")
    assert explorer.looked == set(images[:1])
    explorer.map("heads", donor=of[1])
    assert explorer.looked == set(images[:2])
    explorer.patched(of[2])
    assert explorer.looked == set(images[:3])
    assert explorer.curve_examples(30)[0] == of[3]


def test_cancelling_leaves_the_circuit_and_what_was_shown(explorer):
    explorer.circuit.add(NODES)
    grown = []
    job = Job()

    def after_the_first(view):
        grown.append(view)
        job.cancel()

    with pytest.raises(Cancelled):
        explorer.curve(40, draws=2, batch_size=8, job=job, on_curve=after_the_first)
    assert len(grown) == 1
    assert [str(node) for node in explorer.circuit.nodes] == NODES
    view = explorer.curve(16, draws=2, batch_size=8)
    assert view.curve.clean_accuracy.n == 16


def test_what_cannot_be_drawn_is_refused(explorer, scenes):
    with pytest.raises(InputError, match="no nodes yet"):
        explorer.curve()
    for wrong in ([1, 0], [0, 9], []):
        with pytest.raises(InputError, match="ks must ascend"):
            next(circuit_curves(explorer.model, scenes[:8], NODES, ks=wrong))
    with pytest.raises(InputError, match="given twice"):
        next(circuit_curves(explorer.model, scenes[:8], [NODES[0], NODES[0]]))
    with pytest.raises(UnavailableError, match="fewer than two images"):
        list(circuit_curves(explorer.model, scenes[:1], NODES, draws=1))


def test_it_says_how_many_examples_are_of_two_images(explorer, scenes):
    explorer.circuit.add(NODES)
    first = [sample.image_id for sample in scenes].count(scenes[0].image_id)
    assert scenes[first - 1].image_id == scenes[0].image_id != scenes[first].image_id
    assert first > 2
    with pytest.raises(InputError, match=f"of one image.*n={first + 1} or more"):
        explorer.curve(first)
    assert explorer.curve_examples(first + 1) == tuple(range(first + 1))


@pytest.mark.parametrize(
    "given",
    [
        *({"n": n} for n in (-1, 1, "8", 2.5, None, True)),
        *({"batch_size": 0}, {"seed": -1}, {"seed": "a"}, {"draws": "3"}, {"draws": 0}),
        {"method": "patch"},
    ],
)
def test_what_no_curve_can_be_made_with_is_refused(explorer, monkeypatch, given):
    explorer.circuit.add(NODES)
    monkeypatch.setattr(explorer, "_runs", None)  # nothing is run
    (value,) = given.values()
    with pytest.raises(InputError, match=str(value)):
        explorer.curve(**{"n": 20, "method": "mean", **given})
