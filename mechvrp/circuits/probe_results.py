"""What a probe sweep returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from mechvrp.circuits.logistic import FittedProbe
from mechvrp.statistics import Estimate

__all__ = ["LayerResult", "ProbeSweep", "TaskResult"]


@dataclass(frozen=True)
class LayerResult:
    """One layer of a sweep.

    Attributes:
        layer: the layer's number.
        c: inverse L2 strength chosen by cross-validation.
        cv_auroc: mean AUROC over the folds of the training images; what layers are chosen by.
        fold_auroc: the folds' AUROCs.
        heldout: AUROC on the held-out images, with an interval from resampling images.
    """

    layer: int
    c: float
    cv_auroc: float
    fold_auroc: tuple[float, ...]
    heldout: Estimate


@dataclass(frozen=True)
class TaskResult:
    """AUROC of one set of scores within one task, or within tasks pooled.

    Attributes:
        task: the task's name; ``"all"`` over all examples, ``"within tasks"`` for the share of
            (right, wrong) pairs *of the same task* that the score orders rightly.
        n: held-out examples.
        n_right: of these, answered rightly.
        auroc: the estimate, or None where it does not exist.
        gap: why there is no estimate; empty where there is one.
    """

    task: str
    n: int
    n_right: int
    auroc: Estimate | None
    gap: str = ""


@dataclass(frozen=True)
class ProbeSweep:
    """What `probe_sweep` found.

    Attributes:
        layers: one result per layer, in the order given.
        chosen: index into ``layers`` (and the features' first axis) of the chosen layer.
        probe: the chosen layer's probe, fitted on all training examples.
        scores: ``[heldout]``, its log-odds that the answer is right, in the order of ``heldout``.
        tasks: over all, within tasks pooled, then per task, at the chosen layer.
        heldout: ``[heldout]``, indices of the held-out examples.
        train: ``[train]``, indices of the training examples.
        n_train_images: images behind the training examples.
        seed: seed of the folds and the resampling.
        n_resamples: bootstrap resamples behind each interval.
    """

    layers: tuple[LayerResult, ...]
    chosen: int
    probe: FittedProbe
    scores: np.ndarray
    tasks: tuple[TaskResult, ...]
    heldout: np.ndarray
    train: np.ndarray
    n_train_images: int
    seed: int
    n_resamples: int

    @property
    def chosen_layer(self) -> int:
        """The number of the layer with the best cross-validated AUROC on the training images."""
        return self.layers[self.chosen].layer

    @property
    def auroc(self) -> Estimate:
        """AUROC of the chosen layer's probe over all held-out examples."""
        return self.layers[self.chosen].heldout

    def to_frame(self) -> pd.DataFrame:
        """One row per layer: layer, chosen, c, cv_auroc, auroc, low, high, n, n_groups, level."""
        return pd.DataFrame(
            [
                {
                    "layer": row.layer,
                    "chosen": index == self.chosen,
                    "c": row.c,
                    "cv_auroc": row.cv_auroc,
                    "auroc": row.heldout.value,
                    **_interval(row.heldout),
                }
                for index, row in enumerate(self.layers)
            ]
        )

    def tasks_frame(self) -> pd.DataFrame:
        """One row per entry of `tasks`: task, n, n_right, auroc, low, high, gap."""
        return pd.DataFrame(
            [
                {
                    "task": row.task,
                    "n": row.n,
                    "n_right": row.n_right,
                    "auroc": row.auroc.value if row.auroc else None,
                    "low": row.auroc.low if row.auroc else None,
                    "high": row.auroc.high if row.auroc else None,
                    "gap": row.gap,
                }
                for row in self.tasks
            ]
        )

    def plot(self) -> Any:
        """The layer sweep as a plotly figure (`mechvrp.plots.layer_sweep`)."""
        from mechvrp.plots import layer_sweep

        return layer_sweep(self)


def _interval(estimate: Estimate) -> dict[str, Any]:
    kept = asdict(estimate)
    return {name: kept[name] for name in ("low", "high", "n", "n_groups", "level")}
