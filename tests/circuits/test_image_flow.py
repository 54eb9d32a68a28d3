"""Image information at text positions: cuts, patches and probes against known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mechvrp
from mechvrp.circuits import (
    PatchedShares,
    asked_digit_is_there,
    compare_image_flows,
    flow_edges,
    flow_knockouts,
    holds_digit,
    image_flow,
)
from mechvrp.circuits.image_probe import content_labels, probe_points
from mechvrp.circuits.patched_shares import patched_shares
from mechvrp.data import Sample
from mechvrp.data.scene_counterfactual import counterfactual_pair
from mechvrp.errors import InputError, NumericalError, SiteError, UnavailableError
from mechvrp.patching import attention_knockout
from mechvrp.patching.image_draws import count_edges, drawn_patches, patches_of_edges

NAMES = ("tiny-llava", "tiny-paligemma", "tiny-qwen2-vl")


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return mechvrp.load(request.param)


@pytest.fixture(scope="module")
def polls():
    """Existence polls of three scenes."""
    return list(mechvrp.data.load("scenes", split="random", n_images=3))[:8]


def last_logits(model, samples, edits=()):
    batch = model.encode(samples)
    with mechvrp.trace(model, batch) as t:
        t.apply(edits)
        logits = t.logits.save()
    return logits[:, -1]


def test_text_that_never_sees_the_image_gives_answers_that_do_not_depend_on_it(model, polls):
    others = [counterfactual_pair(sample) for sample in polls]
    query, key = flow_edges(model)["image to text"]
    cut = mechvrp.knockout(range(model.n_layers), query=query, key=key)
    torch.testing.assert_close(
        last_logits(model, polls, cut), last_logits(model, others, cut), atol=1e-4, rtol=0
    )
    clean = (last_logits(model, polls) - last_logits(model, others)).abs().max()
    assert float(clean) > 1
    # The last position alone is not enough where the question tells it what it saw.
    alone = mechvrp.knockout(range(model.n_layers), query="last", key="image")
    left = (last_logits(model, polls, alone) - last_logits(model, others, alone)).abs().max()
    assert float(left) > 0.01


def test_knockouts_are_those_of_attention_knockout_and_beside_them_a_control(model, polls):
    edges = {"image to last": ("last", "image"), "question to last": ("last", "question")}
    flow = image_flow(
        model, polls, methods=["knockout"], edges=edges, windows=[1, 3], layers=[1, 3], draws=2
    )
    frame = flow.to_frame()
    assert set(frame["what"]) == set(edges)
    assert set(frame["measure"]) == {"logit_diff", "accuracy"}
    assert (frame["control_kind"].str.contains("between random image positions")).all()
    for window in (1, 3):
        by_hand = attention_knockout(
            model,
            model.encode(polls),
            edges,
            window=window,
            layers=[1, 3],
            measure="logit_diff",
            progress=False,
        )
        for edge in edges:
            rows = flow.curve("knockout", edge).query("window == @window")
            np.testing.assert_allclose(rows["value"], by_hand["change"].sel(edge=edge), atol=1e-4)
            np.testing.assert_allclose(
                rows["value_low"], by_hand["change_low"].sel(edge=edge), atol=1e-4
            )
    every = mechvrp.knockout(range(4), query="last", key="image")
    clean, cut = last_logits(model, polls), last_logits(model, polls, every)
    own = clean.argmax(-1, keepdim=True)

    def margin(x):
        return x.gather(1, own)[:, 0] - x.scatter(1, own, -torch.inf).amax(-1)

    whole = frame[(frame["what"] == "image to last") & frame["layer"].isna()]
    expected = float((margin(cut) - margin(clean)).mean())
    assert whole["value"].iloc[0] == pytest.approx(expected, abs=1e-4)
    # Paired: the lead is the difference of the two.
    np.testing.assert_allclose(frame["lead"], frame["value"] - frame["control"], atol=1e-6)
    accuracy = frame[frame["measure"] == "accuracy"]
    assert accuracy["p"].between(0, 1).all()
    assert (accuracy["q"].dropna() >= accuracy["p"][accuracy["q"].notna()] - 1e-12).all()
    # Behind the last layer's attention no image position reaches the answer.
    last = flow.curve("knockout", "question to last").query("layer == 3 and window == 1")
    assert last["control"].abs().max() < 1e-5


def test_the_control_cuts_at_least_as_many_edges(model, polls):
    batch = model.encode(polls[:3])
    rng = np.random.default_rng(0)
    for query, key in flow_edges(model).values():
        most = max(count_edges(model, batch, query, key))
        patches = patches_of_edges(model, batch, most, rng)
        assert min(count_edges(model, batch, patches, "image")) >= most
        assert min(count_edges(model, batch, patches[:-1], "image")) < most if patches[1:] else True
    causal = model.family.attention == "causal"
    question, image = batch.tokens.question[0], batch.tokens.images[0].position
    seen = sum(int(k <= q) if causal else 1 for q in question for k in image)
    assert count_edges(model, batch, "question", "image")[0] == seen
    assert len(set(drawn_patches(batch, 10, rng))) == 10
    with pytest.raises(InputError, match="at least one patch"):
        drawn_patches(batch, 0, rng)


def test_patched_shares_are_those_of_runs_by_hand(model, polls):
    others = [counterfactual_pair(sample) for sample in polls]
    flow = image_flow(model, polls, others=others, methods=["patching"], layers=[0, 1, 3])
    clean, reached = last_logits(model, polls), last_logits(model, others)
    own, foil = clean.argmax(-1), reached.argmax(-1)
    kept = (own != foil).nonzero().flatten().tolist()
    assert 2 < len(kept) == len(flow.shares.span)
    assert flow.settings["unchanged_pairs"] == len(polls) - len(kept)
    rows = torch.arange(len(polls))

    def margin(x):
        return (x[rows, own] - x[rows, foil])[kept]

    span = margin(reached) - margin(clean)
    np.testing.assert_allclose(flow.shares.span, span, atol=1e-3)
    source = model.encode(others)
    for layer in (0, 1):
        site = f"blocks.{layer}.hook_resid_post"
        with mechvrp.trace(model, source) as t:
            states = t[site].clone().save()
        for what in ("text", "question", "last", "image"):
            edit = mechvrp.replace(site, states, positions=what)
            moved = margin(last_logits(model, polls, edit)) - margin(clean)
            share = flow.curve("patching", what).query("layer == @layer")["value"].iloc[0]
            assert share == pytest.approx(float(moved.sum() / span.sum()), abs=1e-3)
    # Behind the last block the last position is all that is read.
    ends = {w: flow.curve("patching", w).iloc[-1] for w in ("text", "question", "last", "image")}
    for what, end in ends.items():
        expected = 1.0 if what in ("text", "last") else 0.0
        for name in ("value", "value_low", "value_high"):
            assert end[name] == pytest.approx(expected, abs=1e-4)
    assert abs(ends["text"]["control"]) < 1e-4
    found = flow.integration()
    curve = flow.curve("patching", "text")
    assert found.layer == curve.loc[curve["value"] > 0.5, "layer"].min()
    assert found.low <= found.layer <= found.high
    assert found.missing == 0
    assert found.depth == (found.layer + 1) / 4
    assert found.crossing <= found.depth
    assert found.crossing_low <= found.crossing <= found.crossing_high


def shares(moved, images=None):
    moved = np.asarray(moved, dtype=float)
    n = moved.shape[1]
    names = np.array([f"i{i}" for i in range(n)] if images is None else images)
    return PatchedShares(tuple(range(len(moved))), {"text": moved}, {}, np.full(n, -2.0), names, 0)


def test_pairs_both_ways_are_of_one_image(model, polls):
    others = [counterfactual_pair(sample) for sample in polls]
    found = patched_shares(model, polls + others, others + polls, layers=[0], draws=0)
    images = found.images.tolist()
    assert set(images) <= {sample.image_id for sample in polls}
    assert images[: len(images) // 2] == images[len(images) // 2 :]
    assert found.estimates("text", n_resamples=20)[0][0].n_groups == len(set(images))


def test_a_change_that_is_not_told_from_nothing_has_no_share(polls, monkeypatch):
    rng = np.random.default_rng(1)
    span = rng.normal(0, 1, 12)
    span += 0.01 - span.mean()
    names = np.array([f"i{i}" for i in range(12)])
    moved = np.outer([0.1, 0.5], np.ones(12))
    vague = PatchedShares((0, 1), {"text": moved}, {}, span, names, 3)
    with pytest.raises(NumericalError, match="not told from 0"):
        vague.estimates("text")
    with pytest.raises(NumericalError, match="not told from 0"):
        vague.integration(threshold=0.5, **OPTIONS)
    # Either sign is a change, if it is one.
    clear = PatchedShares((0, 1), {"text": moved}, {}, span + 5, names, 3)
    assert clear.total().low > 0
    assert clear.estimates("text")[1][0].value == pytest.approx(0.5 / 5.01)
    model = mechvrp.load("tiny-qwen2-vl")
    monkeypatch.setattr("mechvrp.circuits.integration.patched_shares", lambda *a, **k: vague)
    flow = image_flow(model, polls, methods=["patching"], layers=[0, 1], measure="logit")
    frame = flow.to_frame()
    assert frame["gap"].str.contains("not told from 0").all()
    assert frame["value"].isna().all()
    assert flow.settings["unchanged_pairs"] == 3
    with pytest.raises(UnavailableError, match="not told from 0"):
        flow.integration()
    found = compare_image_flows({"a": flow, "b": flow}, n_resamples=50)
    assert found.differences["gap"].str.contains("no shares").all()


def test_controls_of_several_draws_have_intervals_over_draws():
    rng = np.random.default_rng(2)
    n = 20
    names = np.array([f"i{i}" for i in range(n)])
    span = np.full(n, -2.0) + rng.normal(0, 0.1, n)
    moved = np.outer([-1.0, -2.0], np.ones(n))
    control = rng.normal(0, 0.5, (8, 2, 1)) + rng.normal(0, 0.01, (8, 2, n))

    def widths(drawn):
        found = PatchedShares((0, 1), {"text": moved}, {"text": drawn}, span, names, 0)
        return [(c.high - c.low, d.high - d.low, c, d) for _, c, d in found.estimates("text")]

    several, averaged = widths(control), widths(control.mean(0, keepdims=True))
    for i, (many, one) in enumerate(zip(several, averaged, strict=True)):
        assert many[2].value == pytest.approx(control[:, i].mean() / span.mean())
        assert many[3].value == pytest.approx((moved[i, 0] - control[:, i].mean()) / span.mean())
        assert "draws" in many[2].method
        assert "draws" not in one[2].method
        assert many[0] > 3 * one[0]
        assert many[1] > one[1]


def test_tables_say_what_intervals_of_controls_are_over(polls):
    model = mechvrp.load("tiny-qwen2-vl")
    edges = {"image to last": ("last", "image")}
    options = {"edges": edges, "layers": [1], "methods": ["knockout"], "n_resamples": 50}
    one, three = (image_flow(model, polls, draws=draws, **options) for draws in (1, 3))
    assert one.to_frame()["control_kind"].str.contains("one draw, so intervals").all()
    assert three.to_frame()["control_kind"].str.contains("images and its 3 draws").all()
    for point in three.points:
        assert "and draws" in point.control.method
        assert "and draws" in point.lead.method
        assert point.lead.value == pytest.approx(point.value.value - point.control.value)


def test_counterfactuals_are_of_the_seed(polls, monkeypatch):
    given = []

    def caught(model, samples, others, **options):
        given.append([other.image_id for other in others])
        return "stopped"

    monkeypatch.setattr("mechvrp.circuits.integration.patched_shares", caught)
    model = mechvrp.load("tiny-qwen2-vl")
    for seed in (0, 1):
        image_flow(model, polls, methods=["patching"], seed=seed)
        assert given[-1] == [counterfactual_pair(sample, seed).image_id for sample in polls]
    assert given[0] != given[1]


OPTIONS = {"what": "text", "n_layers": 4, "seed": 0, "n_resamples": 400}


def test_the_integration_layer_and_where_there_is_none():
    steady = shares(np.outer([0.0, -0.8, -1.6, -2.0], np.ones(6)))
    found = steady.integration(threshold=0.5, **OPTIONS)
    assert (found.layer, found.low, found.high, found.depth) == (2, 2, 2, 0.75)
    assert found.crossing == pytest.approx(0.5 + 0.25 * (0.5 - 0.4) / 0.4)
    assert "2 [2, 2]" in str(found)
    never = shares(np.zeros((4, 6)))
    found = never.integration(threshold=0.5, **OPTIONS)
    assert (found.layer, found.low, found.high, found.depth, found.crossing) == (None,) * 5
    assert found.missing == 1
    assert "no layer" in found.gap
    assert "none" in str(found)
    # Half of the images cross early, half late, one way or the other in a resample.
    early = np.outer([0, -2, -2, -2], np.r_[np.ones(10), np.zeros(10)])
    late = np.outer([0, 0, 0, -2], np.r_[np.zeros(10), np.ones(10)])
    found = shares(early + late).integration(threshold=0.5, **OPTIONS)
    assert (found.low, found.high) == (1, 3)
    with pytest.raises(InputError, match="within 0 to 1"):
        never.integration(threshold=1.5, **OPTIONS)
    with pytest.raises(InputError, match="were not patched"):
        never.integration(threshold=0.5, **{**OPTIONS, "what": "last"})
    with pytest.raises(InputError, match="at least two"):
        shares(np.ones((4, 2)), ["a", "a"]).integration(threshold=0.5, **OPTIONS)


@given(data=st.data())
def test_shares_are_linear_and_layers_ascend(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    part = shares(rng.normal(size=(4, 5)))
    scaled = shares(3 * part.moved["text"])
    threshold = data.draw(st.floats(0.05, 0.3))
    ones = np.ones((1, 5))
    first, depth = part.crossings("text", threshold, 4, ones)
    again, same = scaled.crossings("text", 3 * threshold, 4, ones)
    assert first.tolist() == again.tolist()
    np.testing.assert_allclose(depth, same)
    whole = part.moved["text"].sum(1) / -10
    above = np.flatnonzero(whole > threshold)
    assert first[0] == (above[0] if len(above) else np.inf)
    if len(above):
        assert above[0] / 4 <= depth[0] <= (above[0] + 1) / 4
    estimates = [e[0] for e in part.estimates("text", n_resamples=50)]
    np.testing.assert_allclose([e.value for e in estimates], whole)


def test_probes_read_what_reached_the_text_and_shuffled_labels_do_not():
    model = mechvrp.load("tiny-qwen2-vl")
    samples = list(mechvrp.data.load("scenes", split="random", n_images=36))
    flow = image_flow(model, samples, methods=["probe"], folds=3, shuffles=8, n_resamples=300)
    names = [w for w in flow.to_frame()["what"].unique() if w.startswith("last")]
    last = flow.curve("probe", names[0])
    # Qwen's last position knows nothing behind block 0 and nearly all behind the last.
    assert last["value"].iloc[0] < 0.75
    assert last["value"].iloc[-1] > 0.85
    assert last["control"].between(0.2, 0.8).all()
    assert (last["control_low"] <= last["control"]).all()
    lead = flow.curve("probe", names[0], "lead over the question")
    assert lead["value_low"].iloc[-1] > 0
    assert lead["value_low"].iloc[0] < 0.1
    frame = flow.to_frame()
    assert frame["n_groups"].max() <= 18  # held-out images: one half
    with pytest.raises(UnavailableError, match="leave out 'patching'"):
        flow.integration()
    with pytest.raises(InputError, match="there are probe"):
        flow.curve("knockout", "image to last")


def test_contents():
    scenes = list(mechvrp.data.load("scenes", limit=80))
    for sample in scenes:
        there = asked_digit_is_there(sample)
        assert there is None if sample.task != "existence" else there == (sample.answer == "yes")
        three = holds_digit("three")(sample)
        assert (three is None) == ("three" in sample.question)
        assert three in (None, "three" in sample.meta["cells"])
    named = {"a three": holds_digit("three"), "crowded": lambda s: s.meta["crowd"] > 3}
    labels = content_labels(scenes, named, folds=2)
    assert list(labels) == list(named)
    known, truth = labels["a three"]
    assert [scenes[i].meta["cells"].keys() >= {"three"} for i in known] == truth.tolist()
    with pytest.raises(InputError, match="True of 0 images"):
        content_labels(scenes, lambda s: False, folds=2)
    with pytest.raises(InputError, match="expected True, False"):
        content_labels(scenes, lambda s: "yes", folds=2)
    with pytest.raises(InputError, match="a digit is one of"):
        holds_digit("3")
    with pytest.raises(InputError, match="empty"):
        content_labels(scenes, {}, folds=2)
    with pytest.raises(InputError, match="odd' is True of 2 images"):
        content_labels(scenes[:24], {"odd": lambda s: s.meta["index"] % 2 == 1}, folds=2)


def test_bad_input_is_refused_before_anything_runs(polls, monkeypatch):
    model = mechvrp.load("tiny-qwen2-vl")
    monkeypatch.setattr("mechvrp.patching.sweeping.Runner", None)
    others = [counterfactual_pair(sample) for sample in polls]
    wrong = [
        ({"methods": []}, "methods are among"),
        ({"methods": ["guess"]}, "methods are among"),
        ({"measure": "kl"}, "measure is one of"),
        ({"windows": []}, "windows are widths"),
        ({"windows": [0]}, "windows are widths"),
        ({"windows": [1, 1]}, "windows are widths"),
        ({"methods": 5}, "methods are among"),
        ({"draws": -1}, "draws=-1"),
        ({"draws": 1.5}, "whole number"),
        ({"shuffles": -1}, "shuffles=-1"),
        ({"folds": 1}, "folds=1"),
        ({"n_resamples": 5}, "at least 20"),
        ({"seed": -1}, "seed=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"reading": "loose"}, "reading is"),
        ({"edges": ["image"], "methods": ["knockout"]}, "positions by name"),
        ({"edges": {"a": "text"}, "methods": ["knockout"]}, "a pair of query"),
        ({"edges": {"a": ("last", "imagee")}, "methods": ["knockout"]}, "no word 'imagee'"),
        (
            {"edges": {"a": ("image", "last")}, "methods": ["knockout"]},
            "under causal attention",
        ),
        ({"others": 5}, "others holds"),
        ({"others": ["a"] * len(polls)}, "others holds 'a'"),
        ({"methods": ["probe"], "content": "crowd"}, "function of a sample"),
        ({"edges": {}, "methods": ["knockout"]}, "edges is empty"),
        ({"others": others[:-1]}, "others holds"),
        ({"others": [None] * len(polls)}, "no sample"),
        ({"others": [others[-1], *others[1:]]}, "another question"),
        ({"others": polls}, "its own image"),
        ({"methods": ["probe"]}, "needs at least"),
        ({"methods": ["probe"], "content": lambda s: True}, "needs at least"),
    ]
    for options, message in wrong:
        with pytest.raises(InputError, match=message):
            image_flow(model, polls, **options)
    with pytest.raises(SiteError):
        image_flow(model, polls, layers=[9], methods=["patching"])
    with pytest.raises(InputError, match="at least two"):
        image_flow(model, polls[:1])
    for strings in (["a", "b"], "a", 5):
        with pytest.raises(InputError, match="expected samples"):
            image_flow(model, strings)
    nameless = [Sample(s.image, s.question, s.answer) for s in polls]
    with pytest.raises(InputError, match="no image_id"):
        image_flow(model, nameless)
    counts = list(mechvrp.data.load("scenes", task="counting", limit=4))
    with pytest.raises(InputError, match="give others="):
        image_flow(model, counts, methods=["patching"])
    foreign = [
        Sample(s.image, s.question, s.answer, image_id=s.image_id, task=s.task) for s in polls
    ]
    with pytest.raises(InputError, match="original digit scenes only"):
        image_flow(model, foreign, methods=["patching"])


def test_pairs_of_other_sizes_do_not_align_and_unchanged_answers_are_a_gap(polls):
    model = mechvrp.load("tiny-qwen2-vl")
    pairs = [counterfactual_pair(sample) for sample in polls]
    larger = [
        Sample(s.image.resize((96, 48)), s.question, s.answer, image_id=s.image_id, task=s.task)
        for s in pairs
    ]
    with pytest.raises(InputError, match="correspond|equally long"):
        image_flow(model, polls, others=larger, methods=["patching"])
    same = [
        Sample(s.image, s.question, s.answer, image_id=f"copy of {s.image_id}", task=s.task)
        for s in polls
    ]
    flow = image_flow(model, polls, others=same, methods=["patching"])
    frame = flow.to_frame()
    assert frame["gap"].str.contains("same answer to both").all()
    assert frame["value"].isna().all()
    with pytest.raises(UnavailableError, match="same answer to both"):
        flow.integration()
    with pytest.raises(InputError, match="nothing to draw"):
        flow.plot()


def test_samples_without_answers_have_no_accuracy(polls):
    model = mechvrp.load("tiny-qwen2-vl")
    unknown = [Sample(s.image, s.question, "", image_id=s.image_id) for s in polls]
    edges = {"image to last": ("last", "image")}
    flow = image_flow(model, unknown, methods=["knockout"], edges=edges, layers=[2], draws=0)
    frame = flow.to_frame().set_index("measure")
    assert frame.loc["accuracy", "gap"].str.contains("no right answer").all()
    assert frame.loc["logit_diff", "value"].notna().all()
    assert frame["control"].isna().all()


def test_a_probe_of_too_few_images_is_a_gap_and_the_other_methods_still_run(polls):
    model = mechvrp.load("tiny-qwen2-vl")
    edges = {"image to last": ("last", "image")}
    few = {"edges": edges, "layers": [1, 3], "n_resamples": 50}
    flow = image_flow(model, polls, **few)
    frame = flow.to_frame()
    by = frame.groupby("method")
    assert by.size().index.tolist() == ["knockout", "patching", "probe"]
    probe = by.get_group("probe")
    assert probe["gap"].str.contains("needs at least 10 images of either class").all()
    assert probe[["value", "control", "lead"]].isna().all(axis=None)
    measures = {"AUROC", "AUROC within questions", "lead over the question"}
    assert set(probe["measure"]) == measures
    name = "the digit asked for is there"
    assert set(probe["what"]) == {f"last position: {name}", f"question's mean: {name}"}
    assert len(probe) == 2 * 2 * 3
    assert flow.curve("probe", f"last position: {name}")["layer"].tolist() == [1, 3]
    for method in ("knockout", "patching"):
        alone = image_flow(model, polls, methods=[method], **few).to_frame()
        assert (by.get_group(method)["gap"] == "").all()
        assert by.get_group(method)["value"].tolist() == alone["value"].tolist()
    assert len(flow.plot().data)
    # Who names the probe is told; so is anyone whose property is none.
    with pytest.raises(InputError, match="needs at least"):
        image_flow(model, polls, methods=["knockout", "patching", "probe"], **few)
    with pytest.raises(InputError, match="expected True, False"):
        image_flow(model, polls, content=lambda s: "yes", **few)


def test_one_property_of_too_few_images_leaves_the_others():
    scenes = list(mechvrp.data.load("scenes", split="random", n_images=16))
    named = {"there": asked_digit_is_there, "never": lambda s: False}
    labels = content_labels(scenes, named, folds=2, gaps=True)
    assert "is True of 0 images" in labels["never"]
    points = probe_points(
        mechvrp.load("tiny-qwen2-vl"),
        scenes,
        labels,
        layers=[3],
        folds=2,
        shuffles=2,
        c_grid=(0.1, 1.0),
        n_resamples=50,
    )
    for point in points:
        assert bool(point.gap) == (point.value is None)
        if point.what.endswith("never"):
            assert point.gap == labels["never"]
        elif point.measure == "AUROC":
            assert 0 <= point.value.value <= 1


def test_a_draw_of_the_control_that_fails_is_told(polls, monkeypatch):
    """The value stays, and what became of its control is said."""
    real = flow_knockouts.sweep

    def failing(model, batch, variants, *args, **options):
        found = real(model, batch, variants, *args, **options)
        # One edge: for layer 1 and for all layers, the cut and three draws of its control.
        errors = found["error"].values.astype(object)
        errors[[2, 3]], errors[4] = "no logits", "nothing at all"
        return found.assign(error=("variant", errors))

    monkeypatch.setattr(flow_knockouts, "sweep", failing)
    edges = {"image to last": ("last", "image")}
    flow = image_flow(
        mechvrp.load("tiny-qwen2-vl"), polls, methods=["knockout"], edges=edges, layers=[1], draws=3,
        n_resamples=50,
    )  # fmt: skip
    frame = flow.to_frame()
    drawn, whole = frame[frame["layer"].notna()], frame[frame["layer"].isna()]
    assert drawn["value"].notna().all()
    assert drawn[["control", "lead"]].isna().all(axis=None)
    assert (drawn["control_gap"] == "2 of 3 draws of the control failed: no logits").all()
    assert (drawn["gap"] == "").all()
    assert (whole["gap"] == "nothing at all").all()
    assert (whole["control_gap"] == "").all()
    monkeypatch.undo()
    again = image_flow(
        mechvrp.load("tiny-qwen2-vl"), polls, methods=["knockout"], edges=edges, layers=[1], draws=3,
        n_resamples=50,
    )  # fmt: skip
    assert {point.control_gap for point in again.points} == {""}
    assert all(point.control for point in again.points)


def test_models_beside_each_other(polls):
    flows = [
        image_flow(mechvrp.load(name), polls, methods=["patching"], draws=1)
        for name in ("tiny-llava", "tiny-qwen2-vl")
    ]
    found = compare_image_flows(flows, what="last", n_resamples=300)
    assert found.integration["model"].tolist() == ["tiny-llava", "tiny-qwen2-vl"]
    (row,) = found.differences.to_dict("records")
    # First minus second: Qwen's last position learns through the question, a block later than LLaVA's.
    assert row["difference"] < 0
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["paired"]
    assert row["p"] == pytest.approx(2 / 301)  # no resample of 300 lies on the other side of 0
    crossings = found.integration["crossing"]
    assert row["difference"] == pytest.approx(crossings[0] - crossings[1])
    (turned,) = compare_image_flows(flows[::-1], what="last", n_resamples=300).differences.to_dict(
        "records"
    )
    for name, other in (("difference", "difference"), ("low", "high"), ("high", "low")):
        assert turned[name] == pytest.approx(-row[other])
    assert len(found.to_frame()) == sum(len(flow.points) for flow in flows)
    twin = compare_image_flows({"a": flows[0], "b": flows[0]}, n_resamples=100)
    (row,) = twin.differences.to_dict("records")
    assert (row["difference"], row["low"], row["high"], row["p"]) == (0, 0, 0, 1)
    question = compare_image_flows(flows, what="question", n_resamples=100)
    assert question.differences["gap"].str.contains("does not reach").all()
    assert question.differences["p"].isna().all()
    with pytest.raises(InputError, match="at least two flows"):
        compare_image_flows(flows[:1])
    with pytest.raises(InputError, match="one name"):
        compare_image_flows([flows[0], flows[0]])
    for figure in (found.plot(), flows[0].plot()):
        drawn = [trace for trace in figure.data if trace.error_y.array]
        assert drawn
    assert len(found.plot().data) == 2
