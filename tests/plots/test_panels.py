"""Figures over the image: effects of patches, and attention."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import mechvrp
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.patching import causal_trace, patch_effects
from mechvrp.plots import attention_overlay, effect_map, effects_over_image
from mechvrp.plots.panels import panel_size
from mechvrp.reliability import cluster_count, mean_map, observe, spatial_entropy


@pytest.fixture(scope="module")
def tiny():
    model = mechvrp.load("tiny-llava")
    return model, mechvrp.data.load("scenes", n_images=3)


@pytest.fixture(scope="module")
def trace(tiny):
    """Two images, so that there are intervals."""
    model, samples = tiny
    chosen = [samples[0], samples[1], samples[-1]]
    return causal_trace(
        model, model.encode(chosen), layers=[1, 3], draws=1, n_resamples=200, progress=False
    )


@pytest.fixture(scope="module")
def observed(tiny):
    return observe(tiny[0], list(tiny[1])[:3], k=0)


def heats(figure):
    return [t for t in figure.data if t.type == "heatmap"]


def test_a_trace_lies_over_the_image_with_its_own_intervals(tiny, trace):
    figure = effects_over_image(trace, tiny[1][0].image)
    assert len(heats(figure)) == 2
    for heat, layer in zip(heats(figure), (1, 3), strict=True):
        np.testing.assert_array_equal(heat.z, patch_effects(trace).sel(layer=layer))
        for end, name in enumerate(("indirect_low", "indirect_high")):
            ends = patch_effects(trace, of=name).sel(layer=layer)
            np.testing.assert_array_equal(np.asarray(heat.customdata)[..., end], ends)
        assert "%{customdata[0]:.3g}, %{customdata[1]:.3g}" in heat.hovertemplate
    text = str(figure.layout.annotations)
    assert "n = 3 examples of 2 images" in text
    assert "95 % interval" in text
    assert heats(figure)[-1].colorbar.title.text == "change of probability"
    with pytest.raises(InputError, match="its own interval"):
        effects_over_image(trace, tiny[1][0].image, interval=(patch_effects(trace),) * 2)
    with pytest.raises(InputError, match="no layer 0 among"):
        effects_over_image(trace, tiny[1][0].image, layers=[0])
    with pytest.raises(InputError, match="of is one of"):
        patch_effects(trace, of="clean")
    with pytest.raises(InputError, match="causal_trace"):
        effects_over_image(trace[["clean"]], tiny[1][0].image)
    with pytest.raises(ShapeError, match="got ndarray"):
        effects_over_image(np.zeros((1, 2, 2)), tiny[1][0].image)


def values(layers=2):
    found = np.arange(layers * 6.0).reshape(layers, 2, 3)
    return xr.DataArray(
        found, dims=("layer", "row", "col"), coords={"layer": np.arange(layers), "row": [0, 1]}
    )


def test_ends_given_by_hand_are_shown_and_checked():
    picture = Image.new("RGB", (30, 20))
    figure = effects_over_image(values(), picture, interval=(values() - 1, values() + 2))
    assert np.asarray(heats(figure)[1].customdata)[1, 2].tolist() == [10.0, 13.0]
    assert "customdata" not in heats(effects_over_image(values(), picture))[0].hovertemplate
    with pytest.raises(ShapeError, match="of shape"):
        effects_over_image(values(), picture, interval=(values(1), values()))


def test_the_picture_keeps_its_aspect_ratio_and_is_no_larger_than_it_is_drawn():
    wide = Image.effect_noise((2000, 1000), 60).convert("RGB")
    assert panel_size(wide, 2, None) == (640, 320)
    assert panel_size(wide, 9, None) == (210, 105)
    assert panel_size(Image.new("RGB", (300, 400)), 2, None) == (300, 400)  # its own size
    figure = effects_over_image(values(1), wide)
    # Cells of 2 x 3 over 640 x 320: higher than wide, so that the picture fills its panel.
    assert figure.layout.yaxis2.scaleratio == pytest.approx((320 / 2) / (640 / 3))
    many = effects_over_image(values(8), wide)
    assert len({picture.source for picture in many.layout.images}) == 1
    assert len(many.to_json()) < 700_000
    with pytest.raises(InputError, match="panels"):
        effects_over_image(values(70), wide)
    with pytest.raises(InputError, match="at least 32"):
        effects_over_image(values(), wide, panel=5)


def test_effect_map_shows_the_trace(trace):
    figure = effect_map(trace)
    heat, dots = figure.data
    np.testing.assert_array_equal(heat.z, trace["indirect"])
    assert heat.zmax == -heat.zmin == np.abs(trace["indirect"]).max()
    cell = heat.customdata[1][5]
    assert cell[:2].tolist() == ["(0, 5)", 3]
    assert cell[2] == trace["indirect_low"].values[1, 5]
    assert cell[3] == trace["indirect_high"].values[1, 5]
    # Of two images: Student's 12.7 in place of 1.96, and n - 1 in place of n.
    value, low, high = (trace[f"indirect{end}"].values for end in ("", "_low", "_high"))
    wider = 12.7062 / 1.95996 * np.sqrt(2)
    out = (value - wider * (value - low) > 0) | (value + wider * (high - value) < 0)
    assert out.sum() < ((low > 0) | (high < 0)).sum()
    assert {(int(y), int(x)) for x, y in zip(dots.x, dots.y, strict=True)} == {
        (i, j) for i, j in np.argwhere(out).tolist()
    }
    assert "n = 3 examples of 2 images" in figure.layout.xaxis.title.text
    assert "95 % interval" in figure.layout.xaxis.title.text
    assert figure.layout.yaxis.ticktext == ("1", "3") or list(figure.layout.yaxis.ticktext) == [
        1,
        3,
    ]
    assert figure.layout.xaxis.ticktext[-1] == "last"


def test_effect_map_escapes_names_and_refuses_what_it_cannot_draw(trace):
    names = ["<b>x</b>"] + ["t"] * 144
    figure = effect_map(trace, names=names, title="<i>e</i>")
    assert "<b>x" not in figure.to_json().replace("\\u003c", "<")
    assert figure.data[0].colorbar.title.text == "&lt;i&gt;e&lt;/i&gt;"
    with pytest.raises(ShapeError, match="names for 145"):
        effect_map(trace, names=["a"])
    with pytest.raises(InputError, match="own intervals"):
        effect_map(trace, groups=["a", "b", "c"])
    with pytest.raises(InputError, match="expected a dataset"):
        effect_map(trace[["clean"]])


def grid(effect):
    return xr.Dataset(
        {"effect": (("layer", "head", "example"), effect)},
        {"layer": [0, 1], "head": [0, 1, 2]},
        {"measure": "logit_diff"},
    )


def test_effect_map_of_patching_resamples_images():
    effect = np.zeros((2, 3, 4))
    effect[1, 2] = [1.0, 2.0, 3.0, 4.0]
    figure = effect_map(grid(effect), groups=["a", "a", "b", "b"])
    assert figure.data[0].z[1][2] == 2.5
    assert list(figure.data[0].customdata[1][2][2:]) == [1.5, 3.5]  # either image alone
    assert "n = 4 examples of 2 images" in figure.layout.xaxis.title.text
    one = effect_map(grid(effect[..., :1]))
    assert "no interval of one image" in one.layout.xaxis.title.text
    effect[0, 0, 1] = np.nan
    with pytest.raises(InputError, match="undefined for 1 of 4"):
        effect_map(grid(effect))
    with pytest.raises(ShapeError, match="effects_over_image"):
        effect_map(grid(effect).rename(head="row"))


def test_attention_overlay_says_entropy_and_clusters_of_each_map(observed):
    figure = attention_overlay(observed, example=1)
    maps = np.asarray(observed.maps[1], dtype=float)
    titles = [a.text for a in figure.layout.annotations]
    assert len(heats(figure)) == 4 * 4 + 1
    for layer in range(4):
        for head in range(4):
            one = maps[layer, head]
            share = one / one.sum()
            title = titles[4 * layer + head]
            told = f"H {spatial_entropy(share):.2f}, C {cluster_count(share)}, "
            assert title.startswith(f"layer {layer}, head {head}<br>{told}")
            heat = heats(figure)[4 * layer + head]
            np.testing.assert_allclose(np.asarray(heat.customdata)[..., 0], one)
            np.testing.assert_allclose(heat.z, one / one.max())
    # The last panel is the study's M, whose numbers are those of the signals.
    assert f"H {observed.structure[1, 0]:.2f}, C {observed.structure[1, 2]:.0f}, " in titles[16]
    np.testing.assert_allclose(
        np.asarray(heats(figure)[16].customdata)[..., 1], mean_map(maps), rtol=1e-6
    )
    assert f"uniform: {math.log(144):.2f}" in titles[-1]
    assert "n = 1 example, 144 image tokens" in titles[-1]
    some = attention_overlay(maps, observed.samples[1].image, layers=[2], heads="mean")
    np.testing.assert_allclose(np.asarray(heats(some)[0].customdata)[..., 0], maps[2].mean(0))


def test_attention_overlay_marks_heads_that_give_the_image_nothing():
    maps = np.ones((1, 2, 2, 2))
    maps[0, 1] = 0
    figure = attention_overlay(maps, Image.new("RGB", (8, 8)))
    assert figure.layout.annotations[1].text == "layer 0, head 1<br>no attention on the image"
    assert len(heats(figure)) == 2
    picture = Image.new("RGB", (8, 8))
    with pytest.raises(NumericalError):
        attention_overlay(np.zeros((1, 1, 2, 2)), picture)
    with pytest.raises(NumericalError, match="at least 0"):
        attention_overlay(-maps, picture)
    with pytest.raises(ShapeError, match="layer, head, row, col"):
        attention_overlay(maps[0], picture)
    with pytest.raises(InputError, match="know no image"):
        attention_overlay(maps)
    with pytest.raises(InputError, match="no head 2"):
        attention_overlay(maps, picture, heads=[2])
    with pytest.raises(InputError, match="more than a figure holds"):
        attention_overlay(np.ones((32, 32, 2, 2)), picture)
    with pytest.raises(InputError, match="'mean'"):
        attention_overlay(maps, picture, heads="max")


def test_attention_overlay_needs_maps_and_an_example(observed, tiny):
    with pytest.raises(InputError, match="no example 3"):
        attention_overlay(observed, example=3)
    bare = observe(tiny[0], list(tiny[1])[:1], k=0, keep_maps=False)
    with pytest.raises(InputError, match="keep_maps"):
        attention_overlay(bare)


def test_panels_fit_on_a_narrow_page():
    maps, picture = np.full((2, 4, 3, 4), 0.05), Image.new("RGB", (400, 300))
    wide = attention_overlay(maps, picture)
    assert wide.layout.width > 800
    for page in (390, 120):
        narrow = attention_overlay(maps, picture, width=page)
        assert narrow.layout.width <= page
        assert len(heats(narrow)) == len(heats(wide)) == 9
        assert effects_over_image(values(), picture, width=page + 60).layout.width <= page + 60
    assert attention_overlay(maps, picture, width=2000).layout.width == wide.layout.width
    with pytest.raises(InputError, match="no panel fits"):
        attention_overlay(maps, picture, width=40)
