"""Intervals, paired tests, permutation and multiple testing, with images as the unit of chance.

Questions about one image are not independent, so every interval resamples *groups* (images) with
all their rows, and every paired test flips whole groups.
"""

from mechvrp.statistics.balanced import balanced_accuracy_interval as balanced_accuracy_interval
from mechvrp.statistics.bootstrap import group_bootstrap as group_bootstrap
from mechvrp.statistics.bootstrap import group_bootstrap_all as group_bootstrap_all
from mechvrp.statistics.correctness import accuracy_interval as accuracy_interval
from mechvrp.statistics.correctness import paired_accuracy_change as paired_accuracy_change
from mechvrp.statistics.correlation import correlation_interval as correlation_interval
from mechvrp.statistics.correlation import point_biserial_interval as point_biserial_interval
from mechvrp.statistics.delong import DeLongTest as DeLongTest
from mechvrp.statistics.delong import delong_interval as delong_interval
from mechvrp.statistics.delong import delong_test as delong_test
from mechvrp.statistics.differences import RankDifference as RankDifference
from mechvrp.statistics.differences import rank_difference_test as rank_difference_test
from mechvrp.statistics.discordance import McNemar as McNemar
from mechvrp.statistics.discordance import mcnemar as mcnemar
from mechvrp.statistics.drawn import DrawnChange as DrawnChange
from mechvrp.statistics.drawn import drawn_accuracy_change as drawn_accuracy_change
from mechvrp.statistics.estimate import Estimate as Estimate
from mechvrp.statistics.estimate import PairedChange as PairedChange
from mechvrp.statistics.fisher import fisher_z_interval as fisher_z_interval
from mechvrp.statistics.joint import JointEquality as JointEquality
from mechvrp.statistics.joint import joint_equality as joint_equality
from mechvrp.statistics.leads import auroc_lead as auroc_lead
from mechvrp.statistics.means import Means as Means
from mechvrp.statistics.means import group_means as group_means
from mechvrp.statistics.multiplicity import benjamini_hochberg as benjamini_hochberg
from mechvrp.statistics.multiplicity import two_sided_permutation_p as two_sided_permutation_p
from mechvrp.statistics.pooling import PooledEstimate as PooledEstimate
from mechvrp.statistics.pooling import pooled_estimate as pooled_estimate
from mechvrp.statistics.roc import auroc as auroc
from mechvrp.statistics.roc import auroc_interval as auroc_interval
from mechvrp.statistics.roc import within_task_auroc as within_task_auroc
from mechvrp.statistics.roc import within_task_auroc_interval as within_task_auroc_interval
from mechvrp.statistics.roc_bands import RocBand as RocBand
from mechvrp.statistics.roc_bands import roc_band as roc_band
from mechvrp.statistics.stratified import stratified_auroc as stratified_auroc
from mechvrp.statistics.stratified import stratified_point_biserial as stratified_point_biserial

__all__ = [
    "DeLongTest",
    "DrawnChange",
    "Estimate",
    "JointEquality",
    "McNemar",
    "Means",
    "PairedChange",
    "PooledEstimate",
    "RankDifference",
    "RocBand",
    "accuracy_interval",
    "auroc",
    "auroc_interval",
    "auroc_lead",
    "balanced_accuracy_interval",
    "benjamini_hochberg",
    "correlation_interval",
    "delong_interval",
    "delong_test",
    "drawn_accuracy_change",
    "fisher_z_interval",
    "group_bootstrap",
    "group_bootstrap_all",
    "group_means",
    "joint_equality",
    "mcnemar",
    "paired_accuracy_change",
    "point_biserial_interval",
    "pooled_estimate",
    "rank_difference_test",
    "roc_band",
    "stratified_auroc",
    "stratified_point_biserial",
    "two_sided_permutation_p",
    "within_task_auroc",
    "within_task_auroc_interval",
]
