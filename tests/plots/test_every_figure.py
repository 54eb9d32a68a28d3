"""Every public figure is drawn by some test; those that no other file draws directly are drawn here."""

from __future__ import annotations

import ast
from pathlib import Path

import pandas as pd
import pytest

from mechvrp import plots
from mechvrp.errors import InputError
from mechvrp.plots import readout_layers, signal_aurocs

#: Drawn by the ``plot`` of a result in these tests.
THROUGH_PLOT = {
    "head_knockout_curve": "circuits",
    "head_scores": "circuits",
    "image_flow_layers": "circuits",
    "image_flows_by_model": "circuits",
    "risk_coverage": "plots",
}


def calls(folder: Path) -> set[str]:
    """Names of all functions and methods that the tests of a folder call."""
    found: set[str] = set()
    for path in folder.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found.add(getattr(node.func, "id", "") or getattr(node.func, "attr", ""))
    return found


def test_every_public_figure_is_drawn_by_a_test():
    tests = Path(__file__).parents[1]
    assert all("plot" in calls(tests / folder) for folder in set(THROUGH_PLOT.values()))
    public = {name for name in plots.__all__ if name[0].islower()}
    assert sorted(public - calls(tests) - set(THROUGH_PLOT)) == []


def test_signal_aurocs_brackets_signals_that_use_the_label():
    rows = pd.DataFrame(
        {
            "name": ["<b>", "truth_margin", "none"],
            "scope": "all",
            "auroc": [0.6, 0.9, None],
            "low": [0.5, 0.8, None],
            "high": [0.7, 0.95, None],
            "n": 40,
            "uses_label": [False, True, False],
        }
    )
    figure = signal_aurocs(rows)
    assert list(figure.layout.yaxis.ticktext) == ["&lt;b&gt;", "(truth_margin)"]
    assert list(figure.data[0].x) == [0.6, 0.9]
    assert list(figure.data[0].error_x.array) == pytest.approx([0.1, 0.05])
    assert figure.data[0].customdata[0][3] == 40


def test_readout_layers_have_a_line_a_readout_with_the_chosen_layer_filled():
    rows = pd.DataFrame(
        {
            "name": ["linear", "linear", "<i>mlp</i>"],
            "layer": [0, 1, 1],
            "chosen": [False, True, True],
            "auroc": [0.6, 0.7, 0.8],
            "low": [0.5, 0.6, 0.7],
            "high": [0.7, 0.9, 0.85],
            "n": 50,
            "n_groups": 20,
        }
    )
    figure = readout_layers(rows)
    assert [trace.name for trace in figure.data] == ["linear", "&lt;i&gt;mlp&lt;/i&gt;"]
    assert list(figure.data[0].y) == [0.6, 0.7]
    assert list(figure.data[0].error_y.array) == pytest.approx([0.1, 0.2])
    assert list(figure.data[0].marker.symbol) == ["circle-open", "circle"]
    assert "n = 50 examples of 20 images" in figure.layout.yaxis.title.text
    with pytest.raises(InputError, match="no readout"):
        readout_layers(rows.assign(auroc=None))
