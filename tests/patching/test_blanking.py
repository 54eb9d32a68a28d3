"""Blanked patches are those behind the projector; masks belong to samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mechvrp
from mechvrp.errors import InputError, ShapeError
from mechvrp.patching import blank_patches, mask_image_patches, patch_masks
from tests.support import tiny


def loaded(name):
    return mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name))


def scores_of(batch, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random(tokens.shapes[0]) for tokens in batch.tokens.images]


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_blanking_is_masking_behind_the_projector(name, fill):
    model = loaded(name)
    batch = model.encode(tiny.samples(), instruction="")
    scores = scores_of(batch)
    masks = patch_masks(batch, scores, fraction=0.4, draws=2, seed=3)
    ids = [0, 1, 2]
    expected = mask_image_patches(
        model, batch, scores, fraction=0.4, draws=2, seed=3, fill=fill, measure="logit",
        target=ids, n_resamples=100, progress=False,
    )  # fmt: skip
    edits = [blank_patches(mask, fill=fill) for mask in masks]
    found = mechvrp.sweep(model, batch, edits, "logit", target=ids, progress=False)
    assert not any(found["error"].values)
    assert np.abs(found["logit"].values - expected["value"].values).max() < 1e-4
    assert np.abs(found["logit"].values - found["base_logit"].values).max() > 1e-4


def test_masks_belong_to_samples_and_not_to_batches():
    model = loaded("qwen2-vl")
    batch = model.encode(tiny.samples(), instruction="")
    scores = scores_of(batch)
    whole = patch_masks(batch, scores, fraction=0.3, draws=3)
    alone = patch_masks(
        model.encode(tiny.samples()[2:], instruction=""), scores[2:], fraction=0.3, draws=3
    )
    for together, one in zip(whole, alone, strict=True):
        assert np.array_equal(together[2], one[0])
    top, bottom, *random = whole
    for i, score in enumerate(scores):
        n = max(1, round(0.3 * score.size))
        assert {int(m[i].sum()) for m in whole} == {n}
        assert score[top[i]].min() >= score[~top[i]].max()
        assert score[bottom[i]].max() <= score[~bottom[i]].min()
    assert any(not np.array_equal(a[0], b[0]) for a, b in itertools.pairwise(random))


def test_unfitting_masks_are_refused():
    model = loaded("llava-clip")
    batch = model.encode(tiny.samples(), instruction="")
    with pytest.raises(InputError, match="fill"):
        blank_patches([np.zeros((2, 2), bool)], fill="median")
    with pytest.raises(InputError, match="fraction"):
        patch_masks(batch, scores_of(batch), fraction=1.0, draws=1)
    with pytest.raises(ShapeError, match="maps of scores"):
        patch_masks(batch, scores_of(batch)[:1], fraction=0.5, draws=1)
    with pytest.raises(InputError, match="masks were given"):
        mechvrp.sweep(model, batch, [blank_patches([np.zeros((4, 4), bool)])], progress=False)
