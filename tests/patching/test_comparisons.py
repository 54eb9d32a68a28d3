"""What comparisons of runs must keep fixed: targets, references, groups, names of arguments."""

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.data import Sample
from mechvrp.errors import InputError, ShapeError, SiteError
from mechvrp.patching import (
    Node,
    activation_patching,
    attention_knockout,
    attribution_patching,
    causal_trace,
    corrupted_batch,
    mask_image_patches,
    masked_pixels,
    patch_effects,
    path_patching,
)
from tests.support import tiny

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def pair():
    """tiny-llava, the same polls of two pictures each; the right answers differ."""
    model = mechvrp.load("tiny-llava")
    polls = [s for s in mechvrp.data.load("scenes", n_images=30) if s.task == "existence"]
    yes = [s for s in polls if s.answer == "yes"][:4]
    no = [s for s in polls if s.answer == "no"][10:14]
    other = [
        Sample(b.image, a.question, "no", b.image_id, a.task) for a, b in zip(yes, no, strict=True)
    ]
    return model, model.encode(yes), model.encode(other)


@pytest.fixture(scope="module")
def small():
    model = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    return model, model.encode(tiny.samples(), instruction="")


def yes_probability(model, batch):
    with mechvrp.trace(model, batch) as t:
        logits = t.logits.save()
    (token,) = {
        int(i) for row in logits[:, -1].topk(2).indices for i in row
        if model.tokenizer.decode([int(i)]).strip() == "yes"
    }  # fmt: skip
    return logits[:, -1].softmax(-1)[:, token].numpy()


@pytest.mark.parametrize("target", ["right", "own"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_the_target_is_the_clean_samples_in_both_runs(pair, target, direction):
    model, clean, corrupted = pair
    given = {"measure": "probability", "target": target, **QUIET}
    patched = activation_patching(
        model, clean, corrupted, layers=[-1], positions=["last"], direction=direction, **given
    )
    np.testing.assert_allclose(patched["effect"], 1, rtol=1e-3)
    if target == "right":
        np.testing.assert_allclose(patched["clean"], yes_probability(model, clean), rtol=1e-4)
        np.testing.assert_allclose(
            patched["corrupted"], yes_probability(model, corrupted), rtol=1e-4
        )
    given.pop("progress")
    estimate = attribution_patching(
        model, clean, corrupted, positions=["last"], direction=direction, **given
    ).estimates
    names = ("reached", "unpatched") if direction == "denoise" else ("unpatched", "reached")
    for ours, theirs in zip(names, ("clean", "corrupted"), strict=True):
        np.testing.assert_allclose(estimate[ours], patched[theirs], rtol=1e-4)
    path = path_patching(
        model, clean, corrupted, [Node("blocks.3.hook_mlp_out")], [Node("logits")],
        direction=direction, **given, **QUIET,
    )  # fmt: skip
    unpatched = patched["corrupted" if direction == "denoise" else "clean"]
    np.testing.assert_allclose(path["unpatched"], unpatched, rtol=1e-4)


def test_a_trace_restores_the_clean_samples_right_answer(pair):
    model, clean, corrupted = pair
    found = causal_trace(
        model, clean, corrupt=corrupted, target="right", layers=[-1], positions="last", **QUIET
    )
    assert float(found["normalised"][0, 0]) == pytest.approx(1, rel=1e-3)
    np.testing.assert_allclose(found["clean"], yes_probability(model, clean), rtol=1e-4)


def test_divergence_is_from_the_clean_run(pair):
    model, clean, corrupted = pair
    logits = []
    for batch in (clean, corrupted):
        with mechvrp.trace(model, batch) as t:
            logits.append(t.logits.save())
    first, second = (x[:, -1].log_softmax(-1) for x in logits)
    expected = (first.exp() * (first - second)).sum(-1)
    given = {"measure": "kl", "positions": ["last"]}
    found = activation_patching(model, clean, corrupted, **given, **QUIET)
    np.testing.assert_allclose(found["corrupted"], expected, rtol=1e-3)
    np.testing.assert_allclose(found["clean"], 0, atol=1e-5)
    np.testing.assert_allclose(found["effect"].values[-1], 1, atol=1e-3)
    estimate = attribution_patching(model, clean, corrupted, **given, steps=8)
    np.testing.assert_allclose(estimate.estimates["unpatched"], expected, rtol=1e-3)
    assert np.abs(estimate.estimates["resid_post"]).max() > 0.1
    with pytest.raises(InputError, match="no slope"):
        attribution_patching(model, clean, corrupted, **given, direction="noise")


def test_intervals_resample_the_clean_pictures(pair):
    model, clean, _ = pair
    swapped = corrupted_batch(model, clean, "swap")
    table = attribution_patching(
        model, clean, swapped, positions=["last"], layers=[2]
    ).verify(1, **QUIET)  # fmt: skip
    traced = causal_trace(
        model, clean, corrupt=swapped, positions=["last"], layers=[2], measure="logit_diff", **QUIET
    )
    for ours, theirs in (("exact", ""), ("exact_low", "_low"), ("exact_high", "_high")):
        assert table[ours][0] == pytest.approx(float(traced[f"indirect{theirs}"][0, 0]), rel=1e-4)


def test_directions_fills_and_masks_are_named_rightly(small):
    model, batch = small
    for call in (
        lambda **k: activation_patching(model, batch, batch, **k),
        lambda **k: attribution_patching(model, batch, batch, **k),
        lambda **k: path_patching(model, batch, batch, ["blocks.0.attn.hook_z"], "logits", **k),
    ):
        with pytest.raises(InputError, match="'denoise' or 'noise'"):
            call(direction="nosie")
    masks = [np.zeros((4, 4), bool) for _ in range(3)]
    with pytest.raises(InputError, match="'mean' or 'zero'"):
        masked_pixels(model, batch, masks, "maen")
    with pytest.raises(InputError, match="'mean' or 'zero'"):
        mask_image_patches(model, batch, masks, fill="maen")
    with pytest.raises(ShapeError, match="give booleans"):
        masked_pixels(model, batch, [m.astype(int) for m in masks])
    with pytest.raises(ShapeError, match="2 masks"):
        corrupted_batch(model, batch, "blur", masks=masks[:2])


def test_readings_see_every_position(small):
    model, batch = small
    with mechvrp.trace(model, batch) as t:
        logits = t.logits.save()
    edit = mechvrp.scale("logits", 100.0, positions=[-3])
    found = mechvrp.sweep(
        model, batch, [edit], {"there": lambda t: t.logits[:, -3, 5], "last": lambda t: t.logits[:, -1, 5]},
        **QUIET,
    )  # fmt: skip
    np.testing.assert_allclose(found["base_there"], logits[:, -3, 5], rtol=1e-4)
    np.testing.assert_allclose(found["there"][0], 100 * logits[:, -3, 5], rtol=1e-4)
    np.testing.assert_allclose(found["last"][0], logits[:, -1, 5], rtol=1e-4)


def test_measures_that_could_mean_two_things_are_refused(small):
    model, batch = small

    def ask(measure):
        mechvrp.sweep(model, batch, [[]], measure, **QUIET)

    for unclear in (
        lambda logits, clean=None: logits.sum(-1),
        lambda logits, *, clean: logits.sum(-1),
        lambda *given: given[0].sum(-1),
    ):
        with pytest.raises(InputError, match="one argument .* or two"):
            ask(unclear)
    with pytest.raises(InputError, match="stopped the trace"):
        ask({"early": lambda t: (t.resid_post[0][:, -1, 0], t.stop())[0]})
    for name in ("target", "base_logit"):
        with pytest.raises(InputError, match="results use themselves"):
            ask({name: "logit"})
    wide = {"wide": lambda t: t.resid_post[1][:, -1]}
    for measure in ("logits", wide):
        for call in (
            lambda m: attention_knockout(model, batch, measure=m, **QUIET),
            lambda m: activation_patching(model, batch, batch, measure=m, **QUIET),
            lambda m: causal_trace(model, batch, measure=m, **QUIET),
        ):
            with pytest.raises((InputError, ShapeError), match="one number an example"):
                call(measure)


@pytest.mark.parametrize("make", [np.array, torch.tensor, list])
def test_units_layers_and_positions_from_arrays(small, make):
    model, batch = small
    found = attribution_patching(
        model, batch, batch, "neurons", over="unit", units=make([1, 39]), layers=make([-1, 0])
    )
    assert found.estimates["unit"].values.tolist() == [1, 39]
    assert found.estimates["layer"].values.tolist() == [2, 0]
    places = activation_patching(
        model, batch, batch, positions=make([-2, -1]), layers=make([0]), **QUIET
    )
    assert places["position"].values.tolist() == [-2, -1]


def test_odd_arguments_are_refused_before_compute(small):
    model, batch = small

    def attribute(component="resid_post", **options):
        return attribution_patching(model, batch, batch, component, **options)

    for unit, message in ((-1, "unit -1"), (99, "unit 99"), (2.9, "whole numbers")):
        with pytest.raises(SiteError, match=message):
            attribute("neurons", over="unit", units=[unit])
    with pytest.raises(InputError, match="once each"):
        attribute([])
    with pytest.raises(InputError, match="once each"):
        attribute(["z", "z"])
    with pytest.raises(InputError, match="equally many heads"):
        attribute(["z", "attn_out"], over="head")
    with pytest.raises(SiteError, match="once each"):
        attribute(layers=[])
    with pytest.raises(InputError, match="at least one position"):
        attribute(positions=[])
    with pytest.raises(SiteError, match="whole numbers"):
        attribute(steps=1.5)
    with pytest.raises(InputError, match="patched by position"):
        attribute("pattern", over="unit")
    with pytest.raises(SiteError, match="once each"):
        attention_knockout(model, batch, layers=[0, -3])
    with pytest.raises(InputError, match="no position of 'image' sees"):
        attention_knockout(model, batch, {"backwards": ("image", "last")})
    with pytest.raises(SiteError, match="last position's"):
        path_patching(
            model, batch, batch, ["blocks.0.attn.hook_z"], [Node("logits", positions=[-5])]
        )
    with pytest.raises(InputError, match="ends of paths"):
        path_patching(model, batch, batch, [3], ["logits"])


def test_parts_of_a_grid_are_no_map(small):
    model, batch = small
    part = [[(0, 0)], [(0, 1)], [(1, 0)], [(1, 1)]]
    pairs = [[(r, c), (r, c + 1)] for r in range(4) for c in (0, 2)]
    for positions in (part, pairs):
        traced = causal_trace(model, batch, positions=positions, draws=1, **QUIET)
        with pytest.raises(InputError, match="no whole grid"):
            patch_effects(traced)
    whole = [((r, c),) for r in range(4) for c in range(4)]
    traced = causal_trace(model, batch, positions=whole, draws=1, layers=[0], **QUIET)
    assert patch_effects(traced).shape == (1, 4, 4)


def test_edits_that_do_not_reach_the_last_position_are_exact_and_checked(small):
    """In the last block's MLP only the last position is run; others must not break or hide a thing."""
    model, batch = small
    images = mechvrp.cache(model, batch, "mlp_out", positions="image")
    last = mechvrp.cache(model, batch, "mlp_out", positions="last")
    variants = {
        "mean": mechvrp.mean("mlp_out", images, layer=2, positions="image", pooled=False),
        "zero": mechvrp.zero("mlp_out", layer=2, positions="last"),
        "absent": mechvrp.resample("mlp_out", last, layer=2, positions=[-2]),
    }
    with pytest.warns(UserWarning, match="1 of 3 variants"):
        found = mechvrp.sweep(model, batch, variants, "logits", **QUIET)
    assert "has no position -2" in str(found["error"].sel(variant="absent").values)
    np.testing.assert_allclose(found["logits"].sel(variant="mean"), found["base_logits"], atol=1e-5)
    with mechvrp.trace(model, batch) as t:
        t.apply(variants["zero"])
        logits = t.logits.save()
    np.testing.assert_allclose(found["logits"].sel(variant="zero"), logits[:, -1], atol=1e-5)


def test_a_mask_leaves_something(small):
    model, batch = small
    scores = [np.arange(16.0).reshape(4, 4)] * 3
    found = mask_image_patches(model, batch, scores, fraction=0.99, draws=1, **QUIET)
    assert found["masked"].values.max() == 15
