"""A figure without a single interval names none."""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd
import pytest

from mechvrp import plots
from mechvrp.plots import layer_sweep, signal_aurocs, task_accuracy
from tests.support.figures import GIVEN
from tests.support.studies import examples, section

#: Figures of plain tables, which of one image have ends of NaN.
TABLES = [
    "ablation_curve", "ablations_by_model", "accuracy_by_model", "auroc_against_cost", "baseline_comparison",
    "causal_changes", "changes_by_model", "corruption_by_layer", "layers_by_model",
    "readout_aurocs", "readout_layers", "signals_by_model",
]  # fmt: skip


def _without_ends(given):
    if isinstance(given, dict):
        return {name: _without_ends(value) for name, value in given.items()}
    if isinstance(given, tuple):
        return tuple(map(_without_ends, given))
    if not isinstance(given, pd.DataFrame):
        return given
    return given.assign(**{name: float("nan") for name in given if name.endswith(("low", "high"))})


@pytest.mark.parametrize("name", TABLES)
def test_ends_that_are_missing_everywhere_are_not_named(name):
    given, options = GIVEN[name]()
    draw = getattr(plots, name)
    assert "interval" in draw(*given, **options).to_json()
    assert "interval" not in draw(*_without_ends(given), **options).to_json()


def test_no_interval_is_named_where_there_is_none() -> None:
    made = section(examples("a", n=30, tasks=2))
    for draw, rows in (
        (task_accuracy, made.accuracy),
        (signal_aurocs, made.signals.rows),
        (layer_sweep, made.probe.layers),
    ):
        table = pd.DataFrame([asdict(row) for row in rows])
        assert "95 % interval" in draw(table).to_json()
        assert "interval" not in draw(table.assign(low=float("nan"), high=float("nan"))).to_json()
