"""A figure without a single interval names none."""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd

from mechvrp.plots import layer_sweep, signal_aurocs, task_accuracy
from tests.support.studies import examples, section


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
