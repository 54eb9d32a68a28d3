"""Corrupted pictures under the same questions."""

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.data import Sample
from mechvrp.errors import InputError, ShapeError, UnavailableError
from mechvrp.patching import causal_trace, corrupted_batch
from mechvrp.patching.alignment import check_aligned
from tests.support import tiny


@pytest.fixture(scope="module", params=["llava-siglip", "qwen2-vl"])
def run(request):
    model = mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))
    samples = [
        Sample(tiny.image(i, 24, 16), f"Is there a {w} here?", "yes", str(i), "existence")
        for i, w in enumerate(("one", "two", "three", "four"))
    ]
    return model, model.encode(samples, instruction="Short.")


def changed_cells(model, before, after, i):
    views = [
        model.family.patch_pixels(model.model, dict(b.inputs), b.inputs["pixel_values"], i)
        for b in (before, after)
    ]
    return (views[0] != views[1]).flatten(2).any(-1).numpy()


def test_swapped_pictures_are_others_of_the_batch(run):
    model, batch = run
    found = corrupted_batch(model, batch, "swap", seed=1)
    check_aligned(batch, found)
    for key in batch.inputs:
        assert torch.equal(batch.inputs[key], found.inputs[key]) is (key != "pixel_values")
    own = {s.image_id: i for i, s in enumerate(batch.samples)}
    for i, (before, after) in enumerate(zip(batch.samples, found.samples, strict=True)):
        assert before.image_id != after.image_id
        assert before.question == after.question
        pixels = [
            model.family.patch_pixels(model.model, dict(b.inputs), b.inputs["pixel_values"], j)
            for b, j in ((found, i), (batch, own[after.image_id]))
        ]
        assert torch.equal(*pixels)
    again = corrupted_batch(model, batch, "swap", seed=1)
    assert torch.equal(again.inputs["pixel_values"], found.inputs["pixel_values"])
    other = corrupted_batch(model, batch, "swap", seed=3)
    assert not torch.equal(other.inputs["pixel_values"], found.inputs["pixel_values"])


def test_a_swapped_picture_brings_its_own_source():
    model = mechvrp.load("tiny-llava")
    polls = list(mechvrp.data.load("scenes", split="random", n_images=2, counterfactual=True))
    batch = model.encode([polls[0], polls[-1]])
    assert polls[-1].meta["counterfactual_of"] == polls[-2].image_id != polls[0].image_id
    found = corrupted_batch(model, batch, "swap").samples
    assert [s.image_id for s in found] == [polls[-1].image_id, polls[0].image_id]
    assert [s.source_id for s in found] == [polls[-2].image_id, polls[0].image_id]


def test_blur_reaches_the_masked_patches_only(run):
    model, batch = run
    shapes = [tokens.shapes[0] for tokens in batch.tokens.images]
    whole = corrupted_batch(model, batch, "blur", radius=3)
    assert all(changed_cells(model, batch, whole, i).all() for i in range(len(shapes)))
    masks = [np.zeros(shape, bool) for shape in shapes]
    masks[2][0, 1] = True
    part = corrupted_batch(model, batch, "blur", masks=masks, radius=3)
    assert not changed_cells(model, batch, part, 0).any()
    touched = changed_cells(model, batch, part, 2)
    assert touched[0, 1]
    assert touched.sum() <= 9  # the processor's resampling smears over neighbours


def test_a_trace_takes_corrupted_pictures(run):
    model, batch = run
    found = causal_trace(
        model, batch, corrupt=corrupted_batch(model, batch, "blur"), positions=["last"],
        measure="logit", progress=False,
    )  # fmt: skip
    assert found.attrs["draws"] == 1
    np.testing.assert_allclose(
        found["restored"].sel(layer=2, position="last"), found["clean"], rtol=1e-4
    )


def test_unusable_corruptions_are_refused(run):
    model, batch = run
    with pytest.raises(InputError, match="needs masks"):
        corrupted_batch(model, batch, "mask")
    with pytest.raises(InputError, match="'swap', 'blur' or 'mask'"):
        corrupted_batch(model, batch, "shake")
    with pytest.raises(InputError, match="no other picture"):
        corrupted_batch(model, model.encode(batch.samples[:1]), "swap")
    with pytest.raises(ShapeError, match="its mask is bool of shape"):
        corrupted_batch(model, batch, "blur", masks=[np.ones((1, 1), bool)] * 4)
    with pytest.raises(InputError, match="radius"):
        corrupted_batch(model, batch, "blur", radius=0)
    with pytest.raises(UnavailableError, match="pictures are unknown"):
        corrupted_batch(model, model.batch(**batch.inputs), "swap")
