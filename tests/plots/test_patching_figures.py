"""Figures of patching: what they show, and where on the image."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

import mechvrp
from mechvrp.errors import InputError, ShapeError
from mechvrp.patching import causal_trace, patch_effects
from mechvrp.plots import TEMPLATE, effects_over_image, knockouts_by_layer, verified_patches


def effects():
    values = np.zeros((2, 2, 3))
    values[1, 0, 2] = -4.0
    values[0, 1, 0] = 2.0
    return xr.DataArray(
        values,
        dims=("layer", "row", "col"),
        coords={"layer": [3, 5], "row": [0, 1], "col": [0, 1, 2]},
    )


def test_effects_lie_over_the_cells_of_the_image():
    figure = effects_over_image(effects(), Image.new("RGB", (30, 20), "white"), title="logits")
    heat = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [np.asarray(h.z).tolist() for h in heat] == effects().values.tolist()
    # One scale, symmetric about 0, so that white is no effect in every panel.
    assert {(h.zmin, h.zmax) for h in heat} == {(-4.0, 4.0)}
    assert [h.showscale for h in heat] == [False, True]
    assert heat[1].colorbar.title.text == "logits"
    titles = [a.text for a in figure.layout.annotations][:3]
    assert titles == ["image", "layer 3", "layer 5"]
    # The picture fills the cells' own range, row 0 at the top.
    assert len(figure.layout.images) == 3
    for picture in figure.layout.images:
        assert (picture.x, picture.y, picture.sizex, picture.sizey) == (-0.5, -0.5, 3, 2)
    assert tuple(figure.layout.yaxis2.range) == (1.5, -0.5)
    assert tuple(figure.layout.xaxis2.range) == (-0.5, 2.5)
    assert figure.layout.template == TEMPLATE
    one = effects_over_image(effects(), Image.new("RGB", (30, 20)), layers=[5])
    assert sum(trace.type == "heatmap" for trace in one.data) == 1
    with pytest.raises(ShapeError, match=r"\[layer, row, col\]"):
        effects_over_image(effects().mean("layer"), Image.new("RGB", (30, 20)))


def test_patch_effects_are_the_trace_s_own_by_place():
    model = mechvrp.load("tiny-llava")
    batch = model.encode(mechvrp.data.load("scenes", limit=2))
    places = [[(r, c)] for r in range(12) for c in range(12)]
    traced = causal_trace(
        model, batch, layers=[1], positions=[*places[::-1], "last"], draws=1, progress=False
    )
    found = patch_effects(traced)
    assert found.dims == ("layer", "row", "col")
    assert found.shape == (1, 12, 12)
    for r, c in [(0, 0), (3, 7), (11, 2)]:
        cell = traced["indirect"].sel(position=str((r, c)))[0]
        assert found.sel(layer=1, row=r, col=c) == cell
    with pytest.raises(InputError, match="no whole grid"):
        patch_effects(traced.isel(position=slice(1, None)))


def knocked(low):
    return xr.Dataset(
        {
            "value": (("edge", "layer", "example"), np.zeros((2, 3, 4))),
            "change": (("edge", "layer"), np.array([[0.0, -1.0, 0.5], [0.1, 0.2, 0.3]])),
            "change_low": (("edge", "layer"), np.full((2, 3), low)),
            "change_high": (("edge", "layer"), np.full((2, 3), 1.0)),
        },
        {"edge": ["image to last", "<b>own</b>"], "layer": [0, 1, 2], "example": range(4)},
        {"measure": "probability", "window": 3},
    )


def test_knockouts_show_every_edge_with_its_interval():
    figure = knockouts_by_layer(knocked(-2.0))
    lines = figure.data
    assert [line.name for line in lines] == ["image to last", "&lt;b&gt;own&lt;/b&gt;"]
    assert list(lines[0].y) == [0.0, -1.0, 0.5]
    assert list(lines[0].error_y.arrayminus) == [2.0, 1.0, 2.5]
    assert list(lines[0].error_y.array) == [1.0, 2.0, 0.5]
    text = figure.layout.xaxis.title.text
    assert "n = 4 examples<br>bars: 95 % interval" in text
    assert text.endswith("points are moved apart sideways")
    assert [row[0] for row in lines[1].customdata] == [0, 1, 2]
    assert "middle of 3 layers" in text
    bare = knockouts_by_layer(knocked(np.nan))
    assert bare.data[0].error_y.array is None
    assert "interval" not in str(bare.layout)


def test_verified_patches_show_estimates_against_exact_ones():
    table = pd.DataFrame(
        {
            "component": ["z", "neurons"],
            "layer": [0, 1],
            "place": [2, "last"],
            "estimate": [1.0, -2.0],
            "exact": [0.5, -3.0],
            "exact_low": [0.0, -4.0],
            "exact_high": [1.0, -2.5],
        }
    )
    table.attrs["spearman"] = 1.0
    figure = verified_patches(table)
    points = figure.data[1]
    assert list(points.x) == [1.0, -2.0]
    assert list(points.y) == [0.5, -3.0]
    assert list(points.error_y.array) == [0.5, 0.5]
    assert "rank correlation 1.00" in str(figure.layout)
    assert list(figure.data[0].x) == list(figure.data[0].y) == [-3.0, 1.0]
    with pytest.raises(InputError, match="no patches"):
        verified_patches(table.iloc[:0])
