"""Ranking by the gradient of a probe with one hidden layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mechvrp.circuits.logistic import one_thread_if_small
from mechvrp.circuits.mlp import Network, choose_epochs
from mechvrp.circuits.rank_methods.base import RankingMethod, RankingTask, UnitScores
from mechvrp.circuits.rank_methods.scales import (
    Per,
    check_per,
    counted_in,
    scores_of_weights,
    units_of_scale,
)
from mechvrp.errors import InputError

__all__ = ["MLPProbeGradient"]


@dataclass(frozen=True)
class MLPProbeGradient(RankingMethod):
    """The mean over examples of the gradient of an MLP probe's log-odds by each standardised unit.

    The network is that of ``mlp_probe`` (one hidden layer, ReLU), on all units of all sites, trained for as
    many epochs as cross-validation grouped by image chooses. A network has gradients before it has learnt
    anything, from its random weights, and after a few epochs these still outweigh what it learnt; so
    what is ranked is the gradient after training minus that before, and the mean of several networks (of 8
    units that decide among 1,024, with 200 examples, the gradient itself found 19 %, this 72 %).

    Signs are kept, so a unit that raises the log-odds of some examples and lowers those of others can
    have a mean near 0; ``mean_size`` among the columns is the mean of the absolute value, which shows it.

    Attributes:
        networks: how many are trained, with seeds of their own.
        hidden: units of the hidden layer.
        max_epochs: at which training stops in any case.
        per: what gradients are counted in (module `scales`).
    """

    name: ClassVar[str] = "MLP probe"
    labelled: ClassVar[bool] = True
    fitted: ClassVar[bool] = True

    networks: int = 5
    hidden: int = 256
    max_epochs: int = 100
    per: Per = "standard deviation"

    def __post_init__(self) -> None:
        if min(self.networks, self.hidden, self.max_epochs) < 1:
            raise InputError(
                f"networks={self.networks}, hidden={self.hidden} and max_epochs={self.max_epochs}; "
                "expected at least 1 of each"
            )

    def check(self, task: RankingTask) -> None:
        check_per(task, self.per)

    def score(self, task: RankingTask) -> UnitScores:
        x, truth, seed = task.features, task.labels, task.seed
        units = units_of_scale(task, self.per)

        def gradients(rows: np.ndarray, epochs: int) -> tuple[np.ndarray, np.ndarray]:
            """Of each example by each standardised column, and the standard deviations."""
            learnt = []
            for member in range(self.networks):
                network = Network(x[rows], truth[rows], self.hidden, seed + member)
                before = network.gradients(x[rows])
                for _ in range(epochs):
                    network.train_epoch()
                learnt.append(network.gradients(x[rows]) - before)
            return np.mean(learnt, axis=0), np.asarray(network.scaler.scale_)

        def scores(found: np.ndarray, scale: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return scores_of_weights(task, found.mean(0), scale, rows, self.per, units)

        with one_thread_if_small(x):
            best = choose_epochs(x, truth, task.folds, self.hidden, self.max_epochs, seed)
            rows = np.arange(len(x))
            whole, scale = gradients(rows, best.choice)
            by_fold = [scores(*gradients(rest, best.choice), rest) for rest, _ in task.folds]
        sizes = {} if task.heads else {"mean_size": np.abs(whole).mean(0)}
        return UnitScores(
            scores(whole, scale, rows),
            f"MLP probe's mean gradient per {counted_in(task, self.per)} ({self.networks} networks of "
            f"{self.hidden} hidden units, {best.choice} epochs)",
            np.stack(by_fold),
            {
                "networks": self.networks,
                "hidden": self.hidden,
                "epochs": best.choice,
                "max_epochs": self.max_epochs,
                "cv_auroc": best.auroc,
                "per": counted_in(task, self.per),
            },
            sizes,
        )
