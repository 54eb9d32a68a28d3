"""Figures show every number with its interval, and change nothing in plotly."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import plotly.graph_objects as go
import pytest

from mechvrp.errors import InputError
from mechvrp.plots import (
    TEMPLATE,
    ablation_curve,
    ablations_by_model,
    accuracy_by_model,
    baseline_comparison,
    layer_sweep,
    layers_by_model,
    task_accuracy,
)
from mechvrp.plots.theme import COLOURS, faint, label


def text_of(figure: go.Figure) -> str:
    return str(figure.to_json())


@pytest.fixture
def sweep() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "layer": [0, 1, 2],
            "chosen": [False, True, False],
            "cv_auroc": [0.5, 0.8, 0.75],
            "auroc": [0.52, 0.78, 0.8],
            "low": [0.4, 0.7, 0.72],
            "high": [0.6, 0.85, 0.86],
            "n": 157,
            "n_groups": 53,
            "level": 0.95,
        }
    )


@pytest.fixture
def curve() -> pd.DataFrame:
    rows = []
    for task in ("all", "a<b>"):
        for k, change in ((0, 0.0), (1, -1.0), (10, -20.0)):
            row: dict[str, object] = {"task": task, "k": k, "n": 90, "n_groups": 30, "draws": 20}
            row |= {"change": change, "change_low": change - 2, "change_high": change + 3}
            row |= {"random_change": change / 4, "random_change_low": change / 4 - 1}
            row |= {"random_change_high": change / 4 + 1, "level": 0.95}
            row |= {"random_min": change / 4 - 5, "random_max": change / 4 + 5}
            rows.append(row)
    return pd.DataFrame(rows)


def test_layer_sweep(sweep: pd.DataFrame) -> None:
    figure = layer_sweep(sweep)
    held = next(t for t in figure.data if t.name == "held-out images")
    assert list(held.y) == sweep["auroc"].tolist()
    low, high = figure.data[:2]
    assert (list(low.y), list(high.y)) == (sweep["low"].tolist(), sweep["high"].tolist())
    assert (high.fill, high.name) == ("tonexty", "95 % interval")
    chosen = next(t for t in figure.data if t.name == "chosen layer")
    assert list(chosen.x) == [1]
    assert "n = 157 examples of 53 images" in figure.layout.yaxis.title.text
    assert figure.layout.yaxis.range[0] <= 0.4


def test_ablation_curve(curve: pd.DataFrame) -> None:
    figure = ablation_curve(curve, units=96)
    top = next(t for t in figure.data if t.name and t.name.startswith("top k"))
    assert list(top.x) == ["0", "1", "10"]
    assert list(top.error_y.arrayminus) == pytest.approx([2, 2, 2])
    names = [t.name for t in figure.data if t.name]
    assert "random units: 95 % interval" in names
    assert "random units: range of 20 draws" in names
    assert "(of 96)" in figure.layout.xaxis.title.text
    assert "percentage points" in figure.layout.yaxis.title.text
    assert "a&lt;b&gt;" in ablation_curve(curve, task="a<b>").layout.yaxis.title.text
    with pytest.raises(InputError, match="no task 'z'"):
        ablation_curve(curve, task="z")


def test_task_accuracy() -> None:
    frame = pd.DataFrame(
        {
            "task": ["all", "<a href='x'>t</a>", "empty"],
            "split": "all",
            "n": [10, 6, 0],
            "accuracy": [0.5, 0.25, None],
            "low": [0.3, 0.1, None],
            "high": [0.7, 0.5, None],
            "level": 0.95,
        }
    )
    figure = task_accuracy(frame)
    (dots,) = figure.data
    assert list(dots.x) == [50, 25]
    assert list(dots.error_x.array) == pytest.approx([20, 25])
    assert figure.layout.yaxis.ticktext[2] == "empty<br>n = 0"  # a gap, not a dot at zero
    assert "<a href" not in text_of(figure)


def test_baseline_comparison() -> None:
    frame = pd.DataFrame(
        {
            "name": ["probe", "probe", "shuffled labels"],
            "scope": ["all", "within tasks", "all"],
            "auroc": [0.8, None, 0.5],
            "low": [0.7, None, 0.4],
            "high": [0.9, None, 0.6],
            "kind": ["interval", "interval", "range"],
            "n": [157, 157, 20],
        }
    )
    figure = baseline_comparison(frame)
    assert [len(trace.x) for trace in figure.data] == [2, 0]
    assert "range of 20 draws" in figure.layout.yaxis.ticktext[1]
    assert "n = 157" in figure.layout.xaxis.title.text


def test_every_figure_has_the_template(sweep: pd.DataFrame, curve: pd.DataFrame) -> None:
    for figure in (layer_sweep(sweep), ablation_curve(curve)):
        assert figure.layout.template.layout.font.size == TEMPLATE.layout.font.size >= 14


def test_helpers() -> None:
    assert faint(COLOURS["blue"], 0.5) == "rgba(0,114,178,0.5)"
    assert label("<b> & 'c'") == "&lt;b&gt; &amp; 'c'"


def test_import_registers_nothing_with_plotly() -> None:
    code = (
        "import plotly.io as pio; before = (pio.templates.default, list(pio.templates));"
        "import mechvrp.plots;"
        "assert (pio.templates.default, list(pio.templates)) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_share_axes(sweep):
    accuracy = pd.DataFrame(
        {
            "task": ["all", "counting", "all"],
            "split": ["all", "all", "heldout"],
            "n": [300, 100, 150],
            "accuracy": [0.8, 0.7, 0.5],
            "low": [0.75, 0.6, 0.4],
            "high": [0.85, 0.8, 0.6],
            "level": 0.95,
        }
    )
    figure = accuracy_by_model({"a": accuracy, "<b>": accuracy})
    assert [trace.name for trace in figure.data] == ["a", "&lt;b&gt;"]
    assert list(figure.data[0].x) == [80.0, 70.0]
    assert figure.data[0].error_x.array == pytest.approx((5.0, 10.0))
    assert figure.data[0].y[0] != figure.data[1].y[0]

    deep = pd.concat([sweep, sweep.assign(layer=[3, 4, 5], chosen=False)])
    figure = layers_by_model({"shallow": sweep, "deep": deep})
    # Moved apart so that bars do not coincide: the axis says so, and hovering tells the layer.
    assert figure.data[0].x == pytest.approx((100 / 3 - 0.6, 200 / 3 - 0.6, 99.4))
    assert figure.data[1].x[-1] == pytest.approx(100.6)
    assert "moved apart" in figure.layout.xaxis.title.text
    assert [row[0] for row in figure.data[0].customdata] == [0, 1, 2]
    alone = layers_by_model({"shallow": sweep})
    assert alone.data[0].x == pytest.approx((100 / 3, 200 / 3, 100))
    assert "moved" not in alone.layout.xaxis.title.text
    assert list(figure.data[0].marker.symbol) == ["circle-open", "circle", "circle-open"]
    assert figure.data[0].error_y.array == pytest.approx((0.08, 0.07, 0.06))
    with pytest.raises(InputError, match="no models"):
        layers_by_model({})


def test_ablations_of_models_share_the_width(curve):
    figure = ablations_by_model({"narrow": (curve, 10), "wide": (curve, 40)})
    top = {trace.name: trace for trace in figure.data if "top" in (trace.name or "")}
    ks = curve[curve["task"] == "all"]["k"]
    assert top["narrow, top k, n = 90"].x == pytest.approx(tuple(10.0 * ks - 0.3))
    assert top["wide, top k, n = 90"].x == pytest.approx(tuple(2.5 * ks + 0.3))
    assert "moved apart" in figure.layout.xaxis.title.text
    assert all(trace.error_y.array is not None for trace in top.values())
    bands = [trace for trace in figure.data if trace.fill == "tonexty"]
    assert [list(band.y) for band in bands] == [[1.0, 0.75, -4.0]] * 2
