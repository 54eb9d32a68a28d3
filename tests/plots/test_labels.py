"""Words beside points, and curves beside each other."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from mechvrp.circuits import FlowComparison, FlowPoint, ImageFlow
from mechvrp.plots import image_flow_layers, image_flows_by_model
from mechvrp.plots.labels import label_points
from mechvrp.plots.theme import apart, moved
from mechvrp.statistics import Estimate


def points(x, y, texts, half=0.01):
    x, y = np.array(x, dtype=float), np.array(y, dtype=float)
    return pd.DataFrame(
        {
            "x": x, "y": y, "x_low": x - half, "x_high": x + half, "y_low": y - half, "y_high": y + half,
            "text": texts,
        }
    )  # fmt: skip


def boxes(figure, x, y):
    """Where words lie, in pixels of a panel of 590 by 290 whose axes span the points."""
    scale = np.array([590, 290]) / 1.1 / np.array([np.ptp(x), np.ptp(y)])
    found = []
    for one in figure.layout.annotations:
        middle = np.array([one.x * scale[0] + one.ax, one.y * scale[1] - one.ay])
        half = np.array([4 * len(one.text), 8])
        found.append((middle - half, middle + half))
    return found


def test_words_of_points_that_lie_together_do_not_lie_over_each_other():
    x, y = [0.0, 0.92, 0.93, 0.93, 1.0], [-0.05, 0.118, 0.093, 0.079, 0.2]
    figure = go.Figure()
    label_points(figure, points(x, y, ["", "3.0", "2.0", "3.1", ""], half=0))
    told = {one.text: (one.x, one.y) for one in figure.layout.annotations}
    assert told == {"3.0": (0.92, 0.118), "2.0": (0.93, 0.093), "3.1": (0.93, 0.079)}
    for (low, high), (other_low, other_high) in itertools.combinations(boxes(figure, x, y), 2):
        assert (low >= other_high).any() or (other_low >= high).any()


def test_a_point_by_itself_has_its_words_to_the_upper_right():
    figure = go.Figure()
    label_points(figure, points([0, 0.5, 1], [0, 0.5, 1], ["", "1.2", ""]))
    (one,) = figure.layout.annotations
    assert one.ax > 0 > one.ay
    # One point alone, without bars, has a place too; and so do several at one place.
    bare = points([1, 1, 1], [2, 2, 2], ["a", "b", "c"]).assign(x_low=None, y_high=np.nan)
    label_points(figure, bare)
    assert len({(a.ax, a.ay) for a in figure.layout.annotations[1:]}) == 3


def test_words_keep_off_other_markers():
    figure = go.Figure()
    # A marker stands where the words would be: 22 pixels to the upper right of the first.
    label_points(
        figure, points([0, 1, 0.5, 0.5 + 0.029], [0, 1, 0.5, 0.5 + 0.059], ["", "", "1.0", ""])
    )
    (one,) = figure.layout.annotations
    assert not (one.ax > 0 > one.ay)


def flow(name):
    def value(of):
        return Estimate(of, of - 0.1, of + 0.1, 60, 30, 0.95, "percentile bootstrap")

    rows = [
        FlowPoint("patching", what, "share", layer, value=value(layer / 4), control=value(0))
        for what in ("text", "question", "last")
        for layer in range(4)
    ]
    return ImageFlow(name, "f", 4, "causal", tuple(rows), {"patching": "other positions"})


@pytest.mark.parametrize("names", ["a", "abc"])
def test_curves_are_moved_about_their_own_depth_and_say_so(names):
    flows = {name: flow(name) for name in names}
    compared = FlowComparison(flows, pd.DataFrame(), pd.DataFrame(), 0.5)
    figure = image_flows_by_model(compared)
    ends = [trace.x[-1] for trace in figure.data]
    assert np.mean(ends) == pytest.approx(100)
    assert len(set(ends)) == len(names)
    assert [row[0] for row in figure.data[-1].customdata] == [0, 1, 2, 3]
    assert ("moved apart" in figure.layout.xaxis.title.text) == (len(names) > 1)


def test_layers_of_an_image_flow_are_told_by_hovering():
    figure = image_flow_layers(flow("a"))
    assert "moved apart" in figure.layout.xaxis.title.text
    drawn = [trace for trace in figure.data if trace.hovertemplate]
    assert len(drawn) == 6
    for trace in drawn:
        assert [row[0] for row in trace.customdata] == [0, 1, 2, 3]
        assert "layer %{customdata[0]:.0f}" in trace.hovertemplate
        assert np.abs(np.array(trace.x) - np.arange(4)).max() < 0.2


def test_one_curve_stays_where_it_is():
    assert apart(0, 1, 1.2) == 0
    assert [apart(i, 3, 1.2) for i in range(3)] == pytest.approx([-1.2, 0, 1.2])
    assert moved(1) == ""
