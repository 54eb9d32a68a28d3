"""Intervals, paired tests, permutation and multiple testing, with images as the unit of chance.

Questions about one image are not independent, so every interval resamples *groups* (images) with
all their rows, and every paired test flips whole groups.
"""

from mechvrp.statistics.bootstrap import group_bootstrap as group_bootstrap
from mechvrp.statistics.correctness import accuracy_interval as accuracy_interval
from mechvrp.statistics.correctness import paired_accuracy_change as paired_accuracy_change
from mechvrp.statistics.correctness import point_biserial_interval as point_biserial_interval
from mechvrp.statistics.estimate import Estimate as Estimate
from mechvrp.statistics.estimate import PairedChange as PairedChange
from mechvrp.statistics.means import Means as Means
from mechvrp.statistics.means import group_means as group_means
from mechvrp.statistics.multiplicity import benjamini_hochberg as benjamini_hochberg
from mechvrp.statistics.multiplicity import two_sided_permutation_p as two_sided_permutation_p
from mechvrp.statistics.roc import auroc as auroc
from mechvrp.statistics.roc import auroc_interval as auroc_interval
from mechvrp.statistics.roc import within_task_auroc as within_task_auroc
from mechvrp.statistics.roc import within_task_auroc_interval as within_task_auroc_interval

__all__ = [
    "Estimate",
    "Means",
    "PairedChange",
    "accuracy_interval",
    "auroc",
    "auroc_interval",
    "benjamini_hochberg",
    "group_bootstrap",
    "group_means",
    "paired_accuracy_change",
    "point_biserial_interval",
    "two_sided_permutation_p",
    "within_task_auroc",
    "within_task_auroc_interval",
]
