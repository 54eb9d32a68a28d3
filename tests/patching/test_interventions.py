"""Every intervention: what it leaves at a site, by hand, on every family; and that draws are keyed."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, NumericalError, ShapeError, SiteError
from tests.support import tiny


@pytest.fixture(scope="module", params=tiny.NAMES)
def family(request):
    name = request.param
    model = mechvrp.load(tiny.hf_model(name, attn="eager"), processor=tiny.processor(name))
    return model, model.encode(tiny.samples(), instruction="")


@pytest.fixture(scope="module")
def llava():
    name = "llava-clip"
    model = mechvrp.load(tiny.hf_model(name, attn="eager"), processor=tiny.processor(name))
    return model, model.encode(tiny.samples(), instruction="")


def site_before_and_after(model, batch, site, edits):
    with mechvrp.trace(model, batch) as t:
        before = t[site].save()
    with mechvrp.trace(model, batch) as t:
        t.apply(edits)
        after = t[site].save()
        logits = t.logits.save()
    assert torch.isfinite(logits).all()
    return before, after


RESID = "blocks.1.hook_resid_post"
HEADS = "blocks.1.attn.hook_z"
PATTERN = "blocks.1.attn.hook_pattern"


def test_scale_and_steer(family):
    model, batch = family
    last = batch.tokens.mask("last")
    before, after = site_before_and_after(
        model, batch, RESID, mechvrp.scale(RESID, 3.0, positions="last", units=[1, 5])
    )
    expected = before.clone()
    expected[:, -1, [1, 5]] *= 3
    assert torch.equal(after, expected)

    direction = torch.linspace(-1, 1, model.d_head)
    before, after = site_before_and_after(
        model, batch, HEADS, mechvrp.steer(HEADS, direction, 0.5, positions="image", heads=[2])
    )
    expected = before.clone()
    image = batch.tokens.mask("image")
    expected[:, :, 2] += 0.5 * direction * image[..., None]
    torch.testing.assert_close(after, expected)
    assert not torch.equal(after, before)
    assert last.sum() == len(batch)


def test_several_layers_are_several_interventions(family):
    model, batch = family
    edits = mechvrp.zero("mlp_out", layer=range(1, 3), positions="last")
    assert [str(e.site) for e in edits] == ["blocks.1.hook_mlp_out", "blocks.2.hook_mlp_out"]
    with mechvrp.trace(model, batch) as t:
        t.apply([edits, [mechvrp.scale("attn_out", 0.0, layer=2)]])
        attn, mid, post = t.attn_out[2].save(), t.resid_mid[2].save(), t.resid_post[2].save()
    assert float(attn[batch.tokens.mask("all")].abs().max()) == 0
    assert torch.equal(mid[:, -1], post[:, -1])
    assert not torch.equal(mid[:, 0], post[:, 0])


def test_mean_pooled_and_by_position(family):
    model, batch = family
    acts = mechvrp.cache(model, batch, RESID, positions="image")
    pooled = acts.flat(RESID).double().mean(0).float()
    _, after = site_before_and_after(
        model, batch, RESID, mechvrp.mean(RESID, acts, positions="last")
    )
    torch.testing.assert_close(after[:, -1], pooled.expand(len(batch), -1))

    rows = acts.rows(RESID)
    _, after = site_before_and_after(
        model, batch, RESID, mechvrp.mean(RESID, acts, pooled=False, positions=[(0, 1)])
    )
    here = (rows.row == 0) & (rows.col == 1)
    assert int(here.sum()) == len(batch)
    for i in range(len(batch)):
        same = here & (rows.patch[:, 3:] == torch.tensor(batch.tokens.images[i].shapes[0])).all(-1)
        expected = acts.flat(RESID)[same].double().mean(0).float()  # of equal grids alone
        torch.testing.assert_close(after[i, batch.tokens.patch(i, 0, 1)], expected)
    with (
        pytest.raises(SiteError, match=r"no sample of the reference has a position -1"),
        mechvrp.trace(model, batch) as t,
    ):
        t.apply(mechvrp.mean(RESID, acts, pooled=False, positions="last"))


def test_mean_of_the_tower_and_the_projector(family):
    model, batch = family
    for site in ("vision_encoder.encoder_layers.1.hook_resid_post", "vision_projector.hook_out"):
        acts = mechvrp.cache(model, batch, site, positions="all")
        before, after = site_before_and_after(model, batch, site, mechvrp.mean(site, acts))
        dims = tuple(range(before.ndim - 1))
        torch.testing.assert_close(
            after, before.double().mean(dims).float().expand(before.shape), atol=1e-5, rtol=1e-5
        )


def test_resample_gives_the_donors_own_values(family):
    model, batch = family
    acts = mechvrp.cache(model, batch, [RESID, HEADS], positions="last")
    edit = mechvrp.resample(RESID, acts, seed=3, positions="last")
    donors = [edit.donor(key) for key in batch.keys]
    before, after = site_before_and_after(model, batch, RESID, edit)
    torch.testing.assert_close(after[:, -1], before[donors, -1])
    assert torch.equal(after[:, :-1], before[:, :-1])
    again = mechvrp.resample(HEADS, acts, seed=3, positions="last")
    assert [again.donor(key) for key in batch.keys] == donors  # one donor at all sites
    drawn = set()
    for seed in range(20):
        edit = mechvrp.resample(RESID, acts, seed=seed)
        assert all(edit.donor(key) != i for i, key in enumerate(batch.keys))  # never its own
        drawn.add(tuple(edit.donor(key) for key in batch.keys))
    assert len(drawn) > 3


def test_resampling_between_different_grids_is_refused():
    model = mechvrp.load(tiny.hf_model("qwen2-vl"), processor=tiny.processor("qwen2-vl"))
    first, second = tiny.samples()[:2]  # 16x16 and 32x16 pixels
    acts = mechvrp.cache(model, [second], RESID, positions="image")
    with (
        pytest.raises(SiteError, match=r"no image token \(row 0, column 0\) of a"),
        mechvrp.trace(model, model.encode(first)) as t,
    ):
        t.apply(mechvrp.resample(RESID, acts, positions="image"))


def test_noise_belongs_to_samples_not_to_batches(family):
    """A sample gets the same noise alone, in another company and under other padding."""
    model, batch = family
    samples = tiny.samples()
    edit = mechvrp.noise(RESID, 0.7, seed=5, positions="image")
    before, after = site_before_and_after(model, batch, RESID, edit)
    image = batch.tokens.mask("image")
    assert torch.equal(after[~image], before[~image])
    shift = after - before
    first = samples[1:2]  # another row than its own in the batch
    alone_before, alone_after = site_before_and_after(
        model, model.encode(first, instruction=""), RESID, edit
    )
    alone = model.encode(first, instruction="")
    torch.testing.assert_close(
        shift[1][image[1]],
        (alone_after - alone_before)[0][alone.tokens.mask("image")[0]],
        atol=1e-5,
        rtol=1e-4,
    )
    other = site_before_and_after(
        model, batch, RESID, mechvrp.noise(RESID, 0.7, seed=5, draw=1, positions="image")
    )[1]
    assert not torch.allclose(other, after)
    one = mechvrp.noise(RESID, 0.7, seed=5, positions=[(0, 1)])
    _, only = site_before_and_after(model, batch, RESID, one)
    at = batch.tokens.patch(0, 0, 1)
    assert torch.equal(only[0, at], after[0, at])  # whatever else is edited


def test_noise_in_units_of_the_site(llava):
    model, batch = llava
    acts = mechvrp.cache(model, batch, "vision_projector.hook_out", positions="image")
    edit = mechvrp.noise("vision_projector.hook_out", 3.0, over=acts)
    before, after = site_before_and_after(model, batch, "vision_projector.hook_out", edit)
    assert edit.sigma(model) == pytest.approx(3 * float(before.std()), rel=1e-3)
    assert float((after - before).std()) == pytest.approx(3 * float(before.std()), rel=0.1)


def test_noise_on_weights_leaves_weights(family):
    model, batch = family
    edit = mechvrp.noise(PATTERN, 1.0, positions="last", heads=[0, 3])
    before, after = site_before_and_after(model, batch, PATTERN, edit)
    torch.testing.assert_close(after.sum(-1), before.sum(-1))
    assert torch.equal(after[:, [1, 2]], before[:, [1, 2]])
    assert torch.equal(after[:, :, :-1], before[:, :, :-1])
    assert not torch.allclose(after[:, 0, -1], before[:, 0, -1])
    assert bool((after[before == 0] == 0).all())


def test_knockout_is_a_masked_softmax(family):
    model, batch = family
    edit = mechvrp.knockout(1, query="last", key="image", heads=[1])
    before, after = site_before_and_after(model, batch, PATTERN, edit)
    image = batch.tokens.mask("image")
    expected = before.clone()
    scores = before[:, 1, -1].log().masked_fill(image, float("-inf"))
    expected[:, 1, -1] = scores.softmax(-1)
    torch.testing.assert_close(after, expected)
    assert float(after[:, 1, -1][image].sum()) == 0
    with (
        pytest.raises(NumericalError, match="nothing but blocked keys"),
        mechvrp.trace(model, batch) as t,
    ):
        t.apply(mechvrp.knockout([0, 1], query="last", key="all"))


def test_interventions_say_what_they_do(llava):
    model, batch = llava
    acts = mechvrp.cache(model, batch, RESID, positions="last")
    said = [
        repr(edit)
        for edit in (
            mechvrp.zero(RESID, positions="last", units=[1, 2]),
            mechvrp.scale(RESID, 2.0),
            mechvrp.mean(RESID, acts),
            mechvrp.resample(RESID, acts),
            mechvrp.noise(RESID, 0.5),
            mechvrp.knockout(1),
            mechvrp.replace(RESID, torch.zeros(1)),
            mechvrp.steer(RESID, torch.ones(model.d_model)),
        )
    ]
    assert said[0] == "<zero blocks.1.hook_resid_post, positions 'last', units [1, 2]>"
    assert len(set(said)) == len(said)
    assert all("blocks.1" in text for text in said)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda acts: mechvrp.scale(RESID, float("nan")), NumericalError, "finite"),
        (lambda acts: mechvrp.noise(RESID, -1.0), NumericalError, "at least 0"),
        (lambda acts: mechvrp.noise(RESID, 1.0, over=3), InputError, r"mechvrp\.cache"),
        (lambda acts: mechvrp.steer(RESID, [1.0]), ShapeError, "tensor"),
        (lambda acts: mechvrp.steer(RESID, torch.ones(7)), ShapeError, "direction"),
        (lambda acts: mechvrp.steer(PATTERN, torch.ones(1)), SiteError, "sum to 1"),
        (lambda acts: mechvrp.mean(HEADS, acts), SiteError, "not among the cached"),
        (lambda acts: mechvrp.mean(RESID, torch.ones(3)), InputError, r"mechvrp\.cache"),
        (lambda acts: mechvrp.mean(PATTERN, acts), SiteError, "other tokens"),
        (lambda acts: mechvrp.resample(HEADS, acts), SiteError, "not among the cached"),
        (lambda acts: mechvrp.zero(RESID, layer=[1, 2]), SiteError, "component's name"),
        (lambda acts: mechvrp.zero("mlp_out", layer=[]), SiteError, "at least one"),
        (lambda acts: mechvrp.zero("mlp_out", layer=[1, 1]), SiteError, "different"),
        (lambda acts: mechvrp.zero(mechvrp.Site("mlp_out", 1), layer=2), SiteError, "whole site"),
        (lambda acts: mechvrp.noise("embed", 9.0, positions="image"), SiteError, "overwritten"),
        (lambda acts: mechvrp.noise(PATTERN, 1.0, over=acts), SiteError, "logarithm"),
        (lambda acts: mechvrp.zero("vision_resid_post", layer=0, units=[-1]), SiteError, "from 0"),
        (lambda acts: mechvrp.knockout(9), SiteError, "out of range"),
        (lambda acts: mechvrp.knockout(0, key="nonesuch"), SiteError, "no word"),
    ],
)
def test_bad_interventions_are_refused_before_the_model_runs(llava, make, error, match):
    model, batch = llava
    acts = mechvrp.cache(model, batch, RESID, positions="last")
    ran = []
    handle = model.model.register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        with pytest.raises(error, match=match), mechvrp.trace(model, batch) as t:
            t.apply(make(acts))
            t.logits.save()
    finally:
        handle.remove()
    assert not ran


def test_weights_in_bfloat16_are_not_disturbed():
    """Noise of nothing, and a cut that cuts nothing, leave attention weights as they are."""
    hf = tiny.hf_model("llava-clip", attn="eager").to(torch.bfloat16)
    model = mechvrp.load(hf, processor=tiny.processor("llava-clip"))
    batch = model.encode(tiny.samples()[0], instruction="")
    before, after = site_before_and_after(
        model, batch, PATTERN, mechvrp.noise(PATTERN, 0.0, positions="all")
    )
    assert before.dtype == torch.bfloat16
    torch.testing.assert_close(after, before, atol=1e-6, rtol=2**-8)
    image = int(batch.tokens.images[0].position[0])
    edit = mechvrp.knockout(1, query=[image], key="last")  # later: not seen anyway
    before, after = site_before_and_after(model, batch, PATTERN, edit)
    assert torch.equal(after, before)


def test_replacing_the_towers_states():
    model = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    batch = model.encode(tiny.samples(), instruction="")
    site = "vision_encoder.encoder_layers.1.hook_resid_post"
    with mechvrp.trace(model, batch) as t:
        value = t[site].save()
    _, after = site_before_and_after(model, batch, site, mechvrp.replace(site, value.flip(0)))
    assert torch.equal(after, value.flip(0))
    one = torch.linspace(0, 1, value.shape[-1])
    _, after = site_before_and_after(model, batch, site, mechvrp.replace(site, one))
    assert torch.equal(after, one.expand(value.shape))
    with pytest.raises(ShapeError, match="tokens"), mechvrp.trace(model, batch) as t:
        t.apply(mechvrp.replace(site, value[:, :5]))
