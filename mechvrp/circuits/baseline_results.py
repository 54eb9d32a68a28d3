"""What the comparison of a probe with its baselines returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mechvrp.circuits.probe_results import ProbeSweep, TaskResult
from mechvrp.statistics import Estimate

__all__ = ["Baseline", "Comparison", "ShuffledControl"]


@dataclass(frozen=True)
class Baseline:
    """One baseline, and the probe's lead over it on the same held-out examples and resamples.

    Attributes:
        name: ``"task and answer"`` or ``"answer probability"``.
        scores: ``[heldout]``, log-odds that the answer is right.
        overall: AUROC over all held-out examples.
        within_tasks: AUROC within tasks, pooled.
        lead: probe's AUROC minus this one's, over all; paired, same resamples of images.
        lead_within_tasks: the same within tasks; None where no task has both classes.
    """

    name: str
    scores: np.ndarray
    overall: TaskResult
    within_tasks: TaskResult
    lead: Estimate
    lead_within_tasks: Estimate | None


@dataclass(frozen=True)
class ShuffledControl:
    """The whole sweep again, with labels permuted among training examples of the same task.

    The permutation keeps each task's accuracy, so over all examples such a probe may still score
    above 0.5 by telling tasks apart; within tasks it should be near 0.5.

    Attributes:
        auroc: ``[draw]``, over all held-out examples, at the layer each draw chose.
        within_tasks: ``[draw]``, within tasks pooled; None where no task has both classes.
        layers: ``[draw]``, the layer each draw chose.
        seed: draw ``i`` is seeded by (seed, i).
    """

    auroc: np.ndarray
    within_tasks: np.ndarray | None
    layers: np.ndarray
    seed: int


@dataclass(frozen=True)
class Comparison:
    """The probe beside its baselines and its shuffled-label control."""

    probe: ProbeSweep
    baselines: tuple[Baseline, ...]
    control: ShuffledControl

    def to_frame(self) -> pd.DataFrame:
        """One row per score and scope (``all``, ``within tasks``).

        Columns: name, scope, auroc, low, high, kind (``interval``: 95 % from resampling images,
        or ``range``: smallest and largest draw), n, lead, lead_low, lead_high (probe minus this).
        """
        rows = []
        for result in self.probe.tasks[:2]:
            rows.append(_row("probe", result, None))
        for baseline in self.baselines:
            rows.append(_row(baseline.name, baseline.overall, baseline.lead))
            rows.append(_row(baseline.name, baseline.within_tasks, baseline.lead_within_tasks))
        for scope, draws in (
            ("all", self.control.auroc),
            ("within tasks", self.control.within_tasks),
        ):
            if draws is not None:
                row = {"name": "shuffled labels", "scope": scope, "auroc": float(draws.mean())}
                row |= {"low": float(draws.min()), "high": float(draws.max()), "kind": "range"}
                rows.append(row | {"n": len(draws)})
        return pd.DataFrame(rows, columns=_COLUMNS)

    def plot(self) -> Any:
        """AUROC dots with intervals as a plotly figure (`mechvrp.plots.baseline_comparison`)."""
        from mechvrp.plots import baseline_comparison

        return baseline_comparison(self)


_COLUMNS = [
    *("name", "scope", "auroc", "low", "high", "kind", "n"),
    *("lead", "lead_low", "lead_high"),
]


def _row(name: str, result: TaskResult, lead: Estimate | None) -> dict[str, Any]:
    estimate = result.auroc
    return {
        "name": name,
        "scope": result.task,
        "auroc": estimate.value if estimate else None,
        "low": estimate.low if estimate else None,
        "high": estimate.high if estimate else None,
        "kind": "interval",
        "n": result.n,
        "lead": lead.value if lead else None,
        "lead_low": lead.low if lead else None,
        "lead_high": lead.high if lead else None,
    }
