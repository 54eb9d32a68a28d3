"""Heads that move image information: attribution that sums, attention that is the model's, knockouts."""

from __future__ import annotations

import nnsight
import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.circuits import Ranking, knock_out_heads, read_heads
from mechvrp.circuits.direct_logits import frozen_norm
from mechvrp.circuits.drawn_controls import against_draws
from mechvrp.data import Sample
from mechvrp.errors import InputError, ShapeError, SiteError, UnavailableError
from mechvrp.models import queried_region
from tests.support import tiny

NAMES = ("tiny-llava", "tiny-paligemma", "tiny-qwen2-vl")


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return mechvrp.load(request.param)


@pytest.fixture(scope="module")
def samples():
    return list(mechvrp.data.load("scenes", limit=12))


def check_by_hand(model, samples, reading):
    """Every head's part of the logit difference, with the norms' own formulas and a loop."""
    batch = model.encode(samples)
    config = model.model.config.get_text_config(decoder=True)
    gemma = config.model_type.startswith("gemma")
    decoder = model.model.model.language_model
    n = model.n_layers
    zs, vs, patterns = [], [], []
    with mechvrp.trace(model, batch) as t:
        nnsight.save([zs, vs, patterns])
        start = t.resid_pre[0][:, -1].clone().save()
        for layer in range(n):
            vs.append(t.v[layer].clone())
            patterns.append(t.attention_rows(layer).clone())
            zs.append(t.z[layer][:, -1].clone())
        end = t.resid_post[n - 1][:, -1].clone().save()
        logits = t.logits.save()
    eps = config.rms_norm_eps

    def gain(norm):
        return 1 + norm.weight if gemma else norm.weight

    def scale(x, norm):
        return gain(norm) / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()

    head = model.model.get_output_embeddings().weight
    token, foil = torch.tensor(reading.token), torch.tensor(reading.foil)
    direction = scale(end, decoder.norm) * (head[token] - head[foil])
    for layer in range(n):
        block = decoder.layers[layer]
        weight = block.self_attn.o_proj.weight
        factor = torch.ones_like(end)
        if config.model_type == "gemma2":
            whole = zs[layer].flatten(1) @ weight.T
            factor = scale(whole, block.post_attention_layernorm)
        for h in range(model.n_heads):
            columns = weight[:, h * model.d_head : (h + 1) * model.d_head]

            def along(z, columns=columns, factor=factor):
                return ((z @ columns.T) * factor * direction).sum(-1).detach()

            expected = along(zs[layer][:, h])
            np.testing.assert_allclose(
                reading.attribution[:, layer, h], expected, atol=1e-3, rtol=1e-3
            )
            for i in range(len(samples)):
                image = batch.tokens.images[i].position
                weights = patterns[layer][i, h]
                value = vs[layer][i, :, h * model.n_kv_heads // model.n_heads]
                mass = float(weights[image].sum())
                assert reading.image_attention[i, layer, h] == pytest.approx(mass, abs=1e-5)
                z = (weights[image, None] * value[image]).sum(0).expand(len(samples), -1)
                part = float(along(z)[i])
                assert reading.carried_image[i, layer, h] == pytest.approx(part, abs=1e-3)
    return start, direction, logits[:, -1]


def test_parts_are_those_by_hand_and_sum_to_the_logit_difference(model, samples):
    samples = samples[3:9]  # of two scenes
    reading = read_heads(model, samples, batch_size=6, n_resamples=50)
    start, direction, logits = check_by_hand(model, samples, reading)
    direct = reading.direct
    rows = torch.arange(6)
    token, foil = torch.tensor(reading.token), torch.tensor(reading.foil)
    own = (logits[rows, token] - logits[rows, foil]).double()
    torch.testing.assert_close(direct.difference, own, atol=1e-3, rtol=0)
    torch.testing.assert_close(direct.total, own, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        direct.embedding, (start * direction).sum(-1).double().detach(), atol=1e-4, rtol=0
    )
    assert (logits.argmax(-1) == token).all()
    assert (direct.difference > 0).all()
    parts = reading.parts().set_index("part")
    whole = float(parts.loc["logit difference", "value"])
    assert float(parts["value"].sum()) - whole == pytest.approx(whole, abs=1e-3)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_every_family(name):
    """Grouped heads, a norm behind attention, soft caps, biases."""
    model = mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name))
    samples = [
        Sample(s.image, s.question, s.answer, image_id=str(i)) for i, s in enumerate(tiny.samples())
    ]
    batch = model.encode(samples)
    reading = read_heads(model, samples, batch_size=3, n_resamples=50)
    torch.testing.assert_close(reading.direct.total, reading.direct.difference, atol=1e-3, rtol=0)
    _, _, logits = check_by_hand(model, samples, reading)
    config = model.model.config.get_text_config(decoder=True)
    if getattr(config, "final_logit_softcapping", None):
        logits = config.final_logit_softcapping * torch.atanh(
            logits / config.final_logit_softcapping
        )
    rows = torch.arange(len(batch))
    difference = logits[rows, reading.token] - logits[rows, reading.foil]
    torch.testing.assert_close(reading.direct.difference, difference.double(), atol=1e-3, rtol=1e-3)


def test_batches_do_not_matter_and_regions_are_what_is_asked_for(model, samples):
    one = read_heads(model, samples, over="region", batch_size=12, n_resamples=50)
    many = read_heads(model, samples, over="region", batch_size=5, n_resamples=50)
    for name in ("image_attention", "attribution", "carried_image", "product"):
        np.testing.assert_allclose(getattr(one, name), getattr(many, name), atol=1e-4)
    grid = model.encode(samples[:1]).tokens.images[0].shapes[0]
    regions = [queried_region(model, sample, grid) for sample in samples]
    assert one.has_region.tolist() == [region is not None for region in regions]
    assert 1 < one.has_region.sum() < len(samples)
    has = one.has_region
    assert (one.region_attention[has] <= one.image_attention[has] + 1e-6).all()
    frame = one.to_frame()
    assert frame["n"].iloc[0] == has.sum()
    np.testing.assert_allclose(one.product[has], one.region_attention[has] * one.attribution[has])
    # The whole image as a region is the image.
    whole = read_heads(
        model, samples, over="region", region=lambda s, g: np.ones(g, dtype=bool), n_resamples=50
    )
    np.testing.assert_allclose(whole.region_attention, whole.image_attention, atol=1e-6)
    np.testing.assert_allclose(whole.carried_region, whole.carried_image, atol=1e-5)


def test_rankings_and_frames(model, samples):
    reading = read_heads(model, samples, n_resamples=100)
    frame = reading.to_frame()
    assert len(frame) == model.n_layers * model.n_heads
    assert frame["product"].abs().is_monotonic_decreasing
    assert (frame["product_low"] <= frame["product_high"]).all()
    ranking = reading.ranking()
    assert ranking.kind == "head"
    top = frame.iloc[0]
    assert ranking.top(1)[0] == top["layer"] * model.n_heads + top["head"]
    assert ranking.scores[ranking.top(1)[0]] == pytest.approx(top["product"])
    carried = reading.ranking("carried")
    np.testing.assert_allclose(carried.scores, reading.carried_image.mean(0).ravel())
    with pytest.raises(InputError, match="1[0-9]? of these images|of these images"):
        knock_out_heads(model, samples, ranking)
    with pytest.raises(InputError, match="no score"):
        reading.means("guess")


def test_knockouts_of_heads_are_those_by_hand(samples):
    model = mechvrp.load("tiny-qwen2-vl")
    scores = np.zeros(16)
    scores[[4 + 1, 4 + 3, 8 + 0]] = [3, 2, 1]
    ranking = Ranking(tuple(f"blocks.{i}.attn.hook_z" for i in range(4)), scores)
    found = knock_out_heads(model, samples, ranking, ks=(1, 2, 3), n_resamples=100)
    assert [p.heads for p in found.points] == [
        ((1, 1),),
        ((1, 1), (1, 3)),
        ((1, 1), (1, 3), (2, 0)),
    ]
    assert [p.sets for p in found.points] == [3, 5, 23]
    assert all(p.exact for p in found.points)
    batch = model.encode(samples)
    reading = read_heads(model, samples, n_resamples=50)

    def margin(edits=()):
        with mechvrp.trace(model, batch) as t:
            t.apply(edits)
            logits = t.logits.save()
        rows = torch.arange(len(samples))
        return logits[rows, -1, reading.token] - logits[rows, -1, reading.foil]

    changes = {
        heads: float((margin(mechvrp.knockout(1, heads=list(heads))) - margin()).mean())
        for heads in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    }
    point = found.points[1]
    assert point.change.value == pytest.approx(changes[1, 3], abs=1e-3)
    others = [value for heads, value in changes.items() if heads != (1, 3)]
    assert point.control.value == pytest.approx(np.mean(others), abs=1e-3)
    assert point.excess.value == pytest.approx(point.change.value - point.control.value)
    lower = sum(value <= changes[1, 3] + 1e-9 for value in others)
    assert point.p == pytest.approx((1 + lower) / 6)
    frame = found.to_frame()
    assert (frame["q"] >= frame["p"]).all()
    assert frame["heads"].iloc[1] == "1.1, 1.3"
    figure = found.plot()
    assert list(figure.data[-1].y) == pytest.approx(frame["change"].tolist())
    low, high, control = figure.data[:3]
    assert list(control.y) == pytest.approx(frame["control"].tolist())
    assert (list(low.y), list(high.y)) == (
        frame["control_low"].tolist(), frame["control_high"].tolist()
    )  # fmt: skip
    # Every head of a layer: there is no other set to compare with.
    whole = Ranking(("blocks.1.attn.hook_z",), np.arange(4, 0, -1.0))
    knocked = knock_out_heads(model, samples, whole, ks=(2, 4), n_resamples=50)
    some, alone = knocked.points
    assert (alone.sets, alone.p, alone.q, alone.control, alone.excess) == (
        0,
        None,
        None,
        None,
        None,
    )
    assert (alone.accuracy_control, alone.accuracy_excess) == (None, None)
    assert alone.accuracy is not None
    assert "no other set" in alone.gap
    assert some.q == some.p  # the k without a rank is not among those adjusted for
    row = knocked.to_frame().iloc[1]
    assert row[["p", "q", "control", "excess", "accuracy_excess_low"]].isna().all()
    assert np.isfinite(row["change"])
    assert "no other set" in row["gap"]
    assert [trace.name for trace in knocked.plot().data][2].startswith("as many random")
    only = knock_out_heads(model, samples, whole, ks=(4,), n_resamples=50)
    assert len(only.plot().data) == 1
    few = knock_out_heads(model, samples, ranking, ks=(3,), draws=5, n_resamples=50).points[0]
    assert (few.sets, few.exact) == (5, False)
    assert few.control_interval == "images and random sets"
    assert found.points[2].control_interval == "images; all sets were run"
    assert "draws" in few.control.method
    assert "draws" not in found.points[2].control.method
    one = knock_out_heads(model, samples, ranking, ks=(3,), draws=1, n_resamples=50)
    assert one.to_frame()["control_interval"].tolist() == ["images alone; one random set"]


def test_the_tail_is_that_of_the_claim(samples):
    model = mechvrp.load("tiny-qwen2-vl")
    sites = tuple(f"blocks.{i}.attn.hook_z" for i in range(4))
    scores = np.zeros(16)
    scores[[5, 7, 8]] = [3, 2, 1]
    options = {"ks": (1, 2, 3), "n_resamples": 50}
    lower = knock_out_heads(model, samples, Ranking(sites, scores), **options)
    upper = knock_out_heads(model, samples, Ranking(sites, -scores), sign="against", **options)
    both = knock_out_heads(model, samples, Ranking(sites, -scores), sign="any", **options)
    assert (lower.tail, upper.tail, both.tail) == ("lower", "upper", "two-sided")
    assert set(upper.to_frame()["tail"]) == {"upper"}
    for a, b, c in zip(lower.points, upper.points, both.points, strict=True):
        assert a.heads == b.heads == c.heads
        assert a.change == b.change == c.change
        # Distinct sums: only the top's own set is on both sides.
        assert a.p + b.p == pytest.approx(1 + 1 / (a.sets + 1))
        assert c.p == pytest.approx(min(1, 2 * min(a.p, b.p)))


def test_heads_of_the_other_sign_are_refused(samples, monkeypatch):
    monkeypatch.setattr("mechvrp.circuits.head_knockouts.sweep", None)
    model = mechvrp.load("tiny-qwen2-vl")
    sites = tuple(f"blocks.{i}.attn.hook_z" for i in range(4))
    scores = np.r_[2.0, 1.0, -np.ones(10), np.zeros(4)]
    with pytest.raises(InputError, match=r"2 of 16 heads speak for .* ks asks for 4"):
        knock_out_heads(model, samples, Ranking(sites, scores))
    with pytest.raises(InputError, match="10 of 16 heads speak against"):
        knock_out_heads(model, samples, Ranking(sites, scores), ks=[11], sign="against")


@pytest.mark.parametrize("draws", [2, 40])
def test_intervals_of_random_sets_know_of_the_draws(draws):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 2).astype(str)
    change = rng.normal(-1, 0.1, 60)
    drawn = rng.normal(0, 1, draws)[:, None] + rng.normal(0, 0.01, (draws, 60))
    control, excess = against_draws(change, drawn, groups, over_draws=True)
    alone, _ = against_draws(change, drawn, groups, over_draws=False)
    assert control.value == pytest.approx(drawn.mean())
    assert excess.value == pytest.approx(change.mean() - drawn.mean())
    spread = drawn.mean(axis=1).std()
    # The draws differ by far more than images do; resampling images alone does not see it.
    assert control.high - control.low > 2 * spread / np.sqrt(draws)
    assert alone.high - alone.low < 0.1 * spread / np.sqrt(draws)
    right = (drawn > 0).astype(float)
    share, _ = against_draws(change < 0, right, groups, over_draws=True, accuracy=True)
    assert share.value == pytest.approx(100 * right.mean())
    assert (
        "Bonett-Price"
        in against_draws(np.ones(60), np.ones((2, 60)), groups, over_draws=True, accuracy=True)[
            0
        ].method
    )


def test_bad_input_is_refused_before_anything_runs(samples, monkeypatch):
    monkeypatch.setattr("mechvrp.circuits.head_knockouts.sweep", None)
    monkeypatch.setattr("mechvrp.circuits.head_reading.Trace", None)
    model = mechvrp.load("tiny-qwen2-vl")
    ranking = Ranking(tuple(f"blocks.{i}.attn.hook_z" for i in range(4)), np.arange(1, 17.0))
    settings = [
        ({"n_resamples": 0}, "n_resamples=0"),
        ({"n_resamples": 5}, "at least 20"),
        ({"n_resamples": 50.5}, "whole number"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": "x"}, "whole number"),
        ({"batch_size": 0}, "batch_size=0"),
    ]
    for options, message in settings:
        with pytest.raises(InputError, match=message):
            read_heads(model, samples, **options)
        with pytest.raises(InputError, match=message):
            knock_out_heads(model, samples, ranking, **options)
    wrong = [
        ({"draws": 2.5}, "whole number"),
        ({"draws": [1, 2]}, "one whole number"),
        ({"ks": [1, 1.9]}, "whole number"),
        ({"ks": 0}, "ks must ascend"),
        ({"reading": "loose"}, "reading is"),
        ({"key": "lasst"}, "no word 'lasst'"),
        ({"key": "all"}, "nothing to look at"),
        ({"key": 5.5}, "whole number"),
        ({"key": None}, "whole number"),
        ({"sign": []}, "sign is one of"),
    ]
    for options, message in wrong:
        with pytest.raises(InputError, match=message):
            knock_out_heads(model, samples, ranking, **options)
    with pytest.raises(InputError, match="ranking of heads"):
        knock_out_heads(model, samples, [1, 2])
    nameless = [Sample(s.image, s.question, s.answer) for s in samples]
    for given, message in (
        (["a", "b"], "number 0"),
        (7, "expected samples"),
        (nameless, "image_id"),
    ):
        with pytest.raises(InputError, match=message):
            read_heads(model, given)
        with pytest.raises(InputError, match=message):
            knock_out_heads(model, given, ranking)
    with pytest.raises(InputError, match="region is a function"):
        read_heads(model, samples, region="image")
    counting = list(mechvrp.data.load("scenes", task="counting", limit=4))
    with pytest.raises(InputError, match="0 of 4 samples, of 0 images, have a region"):
        read_heads(model, counting, over="region")
    unknown = [Sample(s.image, s.question, "", image_id=str(i)) for i, s in enumerate(samples)]
    with pytest.raises(UnavailableError, match="has no answer"):
        read_heads(model, [*samples, *unknown], of="right")


@pytest.mark.parametrize("name", ["llava-siglip", "paligemma2"])
def test_a_head_that_writes_nothing_has_no_part(name):
    model = mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name))
    samples = [
        Sample(s.image, s.question, s.answer, image_id=str(i)) for i, s in enumerate(tiny.samples())
    ]
    whole = read_heads(model, samples, n_resamples=50)
    block = model.model.model.language_model.layers[2]
    with torch.no_grad():
        block.self_attn.o_proj.weight[:, model.d_head : 2 * model.d_head] = 0
    cut = read_heads(model, samples, n_resamples=50)
    assert (cut.attribution[:, 2, 1] == 0).all()
    assert (cut.carried_image[:, 2, 1] == 0).all()
    assert (np.abs(whole.attribution[:, 2, 1]) > 0).all()
    # It looks as it did: the product is what tells.
    np.testing.assert_allclose(cut.image_attention, whole.image_attention, atol=1e-6)
    assert cut.ranking().least(1)[0] == 2 * model.n_heads + 1
    assert cut.fingerprint != whole.fingerprint
    with pytest.raises(InputError, match="ranking is of"):
        knock_out_heads(model, samples, whole.ranking(), force=True)
    figure = cut.plot()
    assert sum(len(trace.x) for trace in figure.data if trace.mode == "markers") == 12
    most = cut.to_frame().nsmallest(4, "rank")
    named = [f"{layer}.{head}" for layer, head in zip(most["layer"], most["head"], strict=True)]
    assert [one.text for one in figure.layout.annotations] == named


def test_refusals(samples):
    model = mechvrp.load("tiny-qwen2-vl")
    counting = list(mechvrp.data.load("scenes", task="counting", limit=4))
    with pytest.raises(InputError, match="have a region"):
        read_heads(model, counting, over="region")
    no_region = read_heads(model, counting, n_resamples=50)
    assert not no_region.has_region.any()
    assert no_region.to_frame()["region_attention"].isna().all()
    with pytest.raises(UnavailableError, match="0 of 4"):
        no_region.means("region_attention")
    with pytest.raises(ShapeError, match="one for each image token"):
        read_heads(model, samples, region=lambda s, g: np.ones((2, 2), dtype=bool))
    with pytest.raises(InputError, match="over is"):
        read_heads(model, samples, over="patch")
    with pytest.raises(InputError, match="at least two"):
        read_heads(model, samples[:1])
    unknown = [Sample(s.image, s.question, "", image_id=str(i)) for i, s in enumerate(samples)]
    with pytest.raises(UnavailableError, match="has no answer"):
        read_heads(model, unknown, of="right")
    sites = tuple(f"blocks.{i}.attn.hook_z" for i in range(4))
    ranking = Ranking(sites, np.arange(1, 17.0))
    with pytest.raises(InputError, match="ranking of heads"):
        knock_out_heads(model, samples, Ranking(("blocks.0.mlp.hook_post",), np.ones(256)))
    for ks in ([], [2, 1], [0], [17]):
        with pytest.raises(InputError, match="ks must ascend"):
            knock_out_heads(model, samples, ranking, ks=ks)
    with pytest.raises(InputError, match="sign is one of"):
        knock_out_heads(model, samples, ranking, sign="up")
    with pytest.raises(InputError, match="draws=0"):
        knock_out_heads(model, samples, ranking, draws=0)
    with pytest.raises(InputError, match="at least two"):
        knock_out_heads(model, samples[:1], ranking)
    with pytest.raises(SiteError):
        knock_out_heads(model, samples, Ranking(("blocks.7.attn.hook_z",), np.ones(4)))


def test_norms_that_do_not_merely_scale_are_refused():
    states = torch.randn(3, 8)
    with pytest.raises(UnavailableError, match="does not scale"):
        frozen_norm(torch.nn.LayerNorm(8), states)
    norm = torch.nn.RMSNorm(8)
    torch.nn.init.normal_(norm.weight)
    torch.testing.assert_close(frozen_norm(norm, states) * states, norm(states).detach())
    assert not frozen_norm(norm, torch.zeros(1, 8)).isnan().any()
