"""Figures of a comparison: every number with its interval, names from data as text."""

from __future__ import annotations

import pandas as pd
import pytest

from mechvrp.errors import InputError
from mechvrp.plots import TEMPLATE, auroc_against_cost, changes_by_model, signals_by_model

HOSTILE = "<a href='x'>m</a>"


def signals() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": ["gini", "truth_margin", "gini", "truth_margin"],
            "model": ["a", "a", HOSTILE, HOSTILE],
            "value": [0.1, 0.5, -0.2, None],
            "low": [0.0, 0.4, -0.3, None],
            "high": [0.2, 0.6, -0.1, None],
            "n": 90,
            "uses_label": [False, True, False, True],
        }
    )


def test_signals_with_their_pooled_diamond():
    pooled = pd.DataFrame(
        {
            "name": ["gini", "other"],
            "value": [-0.05, 1],
            "low": [-0.1, 1],
            "high": [0.0, 1],
            "n": 180,
        }
    )
    figure = signals_by_model(signals(), pooled)
    names = [trace.name for trace in figure.data]
    assert names == ["a", "&lt;a href='x'&gt;m&lt;/a&gt;", "pooled, stratified"]
    assert [list(trace.x) for trace in figure.data] == [[0.1, 0.5], [-0.2], [-0.05]]
    assert figure.data[2].error_x.array == pytest.approx((0.05,))
    assert figure.layout.yaxis.ticktext == ("gini", "(truth_margin)")
    assert figure.layout.template == TEMPLATE
    assert len(signals_by_model(signals(), measure="AUROC").data) == 2


def test_signals_need_numbers_and_a_known_measure():
    with pytest.raises(InputError, match="measure is one of"):
        signals_by_model(signals(), measure="p")
    with pytest.raises(InputError, match="no signal"):
        signals_by_model(signals().assign(value=None))


def test_interventions_beside_their_controls():
    rows = pd.DataFrame(
        {
            "name": ["top masked", "noise", "top masked"], "model": ["a", "a", HOSTILE],
            "change": [-8.0, -1.0, -3.0], "change_low": [-10.0, -2.0, -4.0],
            "change_high": [-6.0, 0.0, -2.0], "control_change": [-1.0, 0.0, -0.5],
            "control_low": [-2.0, -1.0, -1.0], "control_high": [0.0, 1.0, 0.0], "n": 60,
        }
    )  # fmt: skip
    figure = changes_by_model(rows)
    assert [list(t.x) for t in figure.data] == [[-8, -1], [-1, 0], [-3], [-0.5]]
    assert [t.marker.symbol for t in figure.data] == [
        "circle", "circle-open", "square", "square-open",
    ]  # fmt: skip
    assert "<a" not in "".join(t.name for t in figure.data)
    # Each has a line of its own.
    assert len({round(y, 6) for t in figure.data for y in t.y}) == 6
    with pytest.raises(InputError, match="no interventions"):
        changes_by_model(rows.iloc[:0])


def test_cost_orders_signals_by_cost_and_then_auroc():
    rows = pd.DataFrame(
        {
            "signal": ["dear", "good", "poor", "none", "good"], "model": ["a", "a", "a", "a", "b"],
            "cost_forwards": [10.0, 0.0, 0.0, 3.0, 0.0], "auroc": [0.7, 0.8, 0.6, None, 0.9],
            "low": [0.6, 0.7, 0.5, None, 0.8], "high": [0.8, 0.9, 0.7, None, 1.0], "n": 60,
        }
    )  # fmt: skip
    figure = auroc_against_cost(rows)
    assert figure.layout.yaxis.ticktext == ("poor", "good", "dear")
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # the first on top
    assert [a.text for a in figure.layout.annotations] == [
        "0 further forwards",
        "10 further forwards",
    ]
    assert list(figure.data[1].x) == [0.9]
    assert figure.data[1].error_x.array == pytest.approx((0.1,))
    with pytest.raises(InputError, match="no signal"):
        auroc_against_cost(rows.assign(auroc=None))
    with pytest.raises(InputError, match="cost_forwards is missing for dear, good"):
        auroc_against_cost(rows.assign(cost_forwards=[None, None, *rows["cost_forwards"][2:]]))
