"""Figures of tables draw numbers where numbers belong, and nothing else."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.plots import attention_overlay, readout_layers, signals_by_model
from mechvrp.plots.checks import checked_rows

ROWS = pd.DataFrame(
    {
        "name": ["probe", "probe", "lens"],
        "layer": [0, 1, 1],
        "chosen": [False, True, True],
        "auroc": [0.6, 0.8, 0.7],
        "low": [0.5, 0.7, 0.6],
        "high": [0.7, 0.9, 0.8],
        "n": [40, 40, 40],
        "n_groups": [20, 20, 20],
        "remark": ["", "inf", "x"],
    }
)


def with_value(column, value, row=1):
    rows = ROWS.astype({column: object})
    rows.loc[row, column] = value
    return rows


@pytest.mark.parametrize("column", ["layer", "auroc", "low", "n", "n_groups"])
def test_text_and_infinities_are_named(column):
    with pytest.raises(InputError, match=f"'0.8' in column {column}, row 1; expected a number"):
        readout_layers(with_value(column, "0.8"))
    with pytest.raises(NumericalError, match=f"infinite number in column {column}"):
        readout_layers(with_value(column, -np.inf))


def test_what_stands_for_nothing_is_missing_and_no_mark():
    for nothing in (None, np.nan, pd.NA):
        rows = checked_rows(with_value("low", nothing), (), "readouts")
        assert rows["low"].dtype == float
        assert rows["low"].isna().tolist() == [False, True, False]
        marks = checked_rows(with_value("chosen", nothing), (), "readouts")["chosen"]
        assert marks.tolist() == [False, False, True]
    with pytest.raises(InputError, match=r"'False' in column chosen.*True or False"):
        checked_rows(with_value("chosen", "False"), (), "readouts")
    assert (
        readout_layers(ROWS).data[0].marker.symbol
        == readout_layers(ROWS.copy()).data[0].marker.symbol
    )


def test_the_given_table_stays_and_other_columns_are_not_looked_at():
    rows = with_value("auroc", None)
    kept = rows.copy()
    found = checked_rows(rows, ("remark",), "readouts")
    assert found["remark"].tolist() == ["", "inf", "x"]
    pd.testing.assert_frame_equal(rows, kept)


def test_pooled_figures_are_checked_too():
    rows = pd.DataFrame(
        {
            "name": ["entropy"], "model": ["a"], "value": [0.2], "low": [0.1], "high": [0.3],
            "n": [50], "uses_label": [False],
        }
    )  # fmt: skip
    pooled = rows[["name", "value", "low", "high", "n"]]
    assert len(signals_by_model(rows, pooled).data) == 1 + len(signals_by_model(rows).data)
    assert len(signals_by_model(rows, pooled[:0]).data) == len(signals_by_model(rows).data)
    with pytest.raises(InputError, match="pooled signals has no column value"):
        signals_by_model(rows, pooled.drop(columns="value"))


def test_a_picture_is_a_picture():
    maps = np.full((2, 2, 3, 3), 0.1)
    with pytest.raises(InputError, match="expected a PIL image to draw over; got str"):
        attention_overlay(maps, "photo.png")
    assert attention_overlay(maps, Image.new("RGB", (30, 30))).data


def test_an_interval_is_two_arrays_of_the_effects_shape():
    import xarray as xr

    from mechvrp.plots import effects_over_image

    values = xr.DataArray(
        np.zeros((1, 2, 2)) + 0.5, dims=("layer", "row", "col"), coords={"layer": [0]}
    )
    image = Image.new("RGB", (30, 30))
    assert effects_over_image(values, image, interval=(values, values)).data
    for bad in ((values,), (None, values), "ab"):
        with pytest.raises(ShapeError, match="low and high"):
            effects_over_image(values, image, interval=bad)
