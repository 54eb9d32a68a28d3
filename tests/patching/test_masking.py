"""Masked image patches: the right pixels, the right tokens, and honest controls."""

import numpy as np
import pytest
import torch
from PIL import Image

import mechvrp
from mechvrp.data import Sample
from mechvrp.errors import InputError, ShapeError, UnavailableError
from mechvrp.patching import mask_image_patches, masked_pixels
from tests.support import tiny

NAMES = ["llava-siglip", "paligemma", "qwen2-vl", "qwen2.5-vl"]


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))


def encoded(model, images):
    asked = ("Is there a seven in the image?", "How many?")
    samples = [
        Sample(image, question, "yes", str(i), "existence")
        for i, (image, question) in enumerate(zip(images, asked, strict=True))
    ]
    return model.encode(samples, instruction="")


@pytest.fixture(scope="module")
def batch(model):
    return encoded(model, [tiny.image(1), tiny.image(2)])


def shapes(batch):
    return [tokens.shapes[0] for tokens in batch.tokens.images]


def test_a_masked_token_is_a_blank_piece_of_the_picture(model, batch):
    """Painting a cell of the picture changes the pixels of that cell's token, and no others."""
    for r, c in [(0, 0), (1, 0), (0, 1)]:
        images, masks = [], []
        for seed, (rows, cols) in zip((1, 2), shapes(batch), strict=True):
            size = tuple(model.family.patch_pixels(
                model.model, dict(batch.inputs), batch.inputs["pixel_values"], 0
            ).shape)  # fmt: skip
            assert size[:3] == (*shapes(batch)[0], 3)
            # At the size at which the processor leaves the picture as it is.
            side = patch_side(model)
            picture = np.asarray(tiny.image(seed).resize((cols * side, rows * side)))
            painted = picture.copy()
            painted[r * side : (r + 1) * side, c * side : (c + 1) * side] = 255
            images.append((Image.fromarray(picture), Image.fromarray(painted)))
            mask = np.zeros((rows, cols), bool)
            mask[r, c] = True
            masks.append(mask)
        before = encoded(model, [a for a, _ in images])
        after = encoded(model, [b for _, b in images])
        for i, mask in enumerate(masks):
            parts = [
                model.family.patch_pixels(model.model, dict(b.inputs), b.inputs["pixel_values"], i)
                for b in (before, after)
            ]
            changed = (parts[0] != parts[1]).flatten(2).any(-1).numpy()
            assert (changed == mask).all()
            blank = masked_pixels(model, before, masks, "zero")
            view = model.family.patch_pixels(
                model.model, dict(blank.inputs), blank.inputs["pixel_values"], i
            )
            assert (view[torch.from_numpy(mask)] == 0).all()
            assert torch.equal(view[torch.from_numpy(~mask)], parts[0][torch.from_numpy(~mask)])


def patch_side(model):
    config = model.model.config.vision_config
    return config.patch_size * getattr(config, "spatial_merge_size", 1)


def test_the_mean_is_each_picture_s_own_by_channel(model, batch):
    masks = [np.zeros(shape, bool) for shape in shapes(batch)]
    masks[1][0, 0] = True
    found = masked_pixels(model, batch, masks)
    parts = [
        model.family.patch_pixels(model.model, dict(b.inputs), b.inputs["pixel_values"], 1)
        for b in (batch, found)
    ]
    mean = parts[0].mean((0, 1, 3, 4))
    assert torch.allclose(parts[1][0, 0], mean[:, None, None].expand_as(parts[1][0, 0]))
    first = [b.inputs["pixel_values"] for b in (batch, found)]
    assert not torch.equal(*first)
    untouched = model.family.patch_pixels(
        model.model, dict(found.inputs), found.inputs["pixel_values"], 0
    )
    assert torch.equal(
        untouched,
        model.family.patch_pixels(model.model, dict(batch.inputs), batch.inputs["pixel_values"], 0),
    )


@pytest.mark.parametrize("at", ["projected", "pixels"])
@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_top_and_bottom_are_by_score_and_measured_exactly(model, batch, at, fill):
    rng = np.random.default_rng(3)
    scores = [rng.random(shape) for shape in shapes(batch)]
    found = mask_image_patches(
        model, batch, scores, fraction=0.3, at=at, fill=fill, draws=3, measure="logit",
        target=[7, 8], progress=False,
    )  # fmt: skip
    assert found["kind"].values.tolist() == ["top", "bottom", "random", "random", "random"]
    for v, sign in ((0, -1), (1, 1)):
        masks = []
        for score in scores:
            order = np.argsort(sign * score.ravel())
            mask = np.zeros(score.size, bool)
            mask[order[: max(1, round(0.3 * score.size))]] = True
            masks.append(mask.reshape(score.shape))
        assert found["masked"].values[v].tolist() == [int(m.sum()) for m in masks]
        if at == "pixels":
            run = masked_pixels(model, batch, masks, fill)
            with mechvrp.trace(model, run) as t:
                logits = t.logits.save()
        else:
            with mechvrp.trace(model, batch) as t:
                features = t.projected
                new = features.clone()
                for tokens, mask in zip(batch.tokens.images, masks, strict=True):
                    own = features[tokens.feature]
                    gone = torch.from_numpy(mask)[tokens.row, tokens.col]
                    new[tokens.feature[gone]] = own.mean(0) if fill == "mean" else 0.0
                t.projected = new
                logits = t.logits.save()
        expected = logits[[0, 1], -1, [7, 8]]
        np.testing.assert_allclose(
            found["value"].values[v], expected, atol=1e-5 * float(logits[:, -1].abs().max())
        )
    each = found["value"].values
    np.testing.assert_allclose(
        found["change"].values,
        [
            (each[0] - found["base"].values).mean(),
            (each[1] - found["base"].values).mean(),
            (each[2:].mean(0) - found["base"].values).mean(),
        ],
        atol=1e-6,
    )
    assert found["excess"].values[2] == 0


def test_equal_scores_are_decided_by_the_seed(model, batch):
    scores = [np.zeros(shape) for shape in shapes(batch)]
    given = {"draws": 1, "measure": "logit", "progress": False, "fraction": 0.5}
    runs = [mask_image_patches(model, batch, scores, seed=seed, **given) for seed in (0, 0, 1)]
    assert (runs[0]["value"] == runs[1]["value"]).all()
    assert (runs[0]["value"] != runs[2]["value"]).any()


def test_unusable_masks_are_refused(model, batch):
    good = [np.zeros(shape) for shape in shapes(batch)]
    bad = [np.zeros((shape[0] + 1, shape[1])) for shape in shapes(batch)]
    with pytest.raises(ShapeError, match="patches; its scores"):
        mask_image_patches(model, batch, bad)
    with pytest.raises(ShapeError, match="not finite"):
        mask_image_patches(model, batch, [np.full(s.shape, np.nan) for s in good])
    with pytest.raises(ShapeError, match="1 maps of scores"):
        mask_image_patches(model, batch, good[:1])
    with pytest.raises(InputError, match="fraction"):
        mask_image_patches(model, batch, good, fraction=1.0)
    with pytest.raises(InputError, match="one measure"):
        mask_image_patches(model, batch, good, measure=["kl", "logit"])
    with pytest.raises(ShapeError, match="its mask is bool of shape"):
        masked_pixels(model, batch, [m.astype(bool) for m in bad])


def test_tokens_without_a_place_cannot_be_masked_by_score():
    name = "llava-clip"
    hf = tiny.hf_model(name)
    hf.config.vision_feature_select_strategy = "full"
    hf.model.config.vision_feature_select_strategy = "full"
    processor = tiny.processor(name)
    processor.vision_feature_select_strategy = "full"
    model = mechvrp.load(hf, processor=processor)
    batch = encoded(model, [tiny.image(1), tiny.image(2)])
    with pytest.raises(UnavailableError, match="without a place"):
        mask_image_patches(model, batch, [np.zeros(s) for s in shapes(batch)])
