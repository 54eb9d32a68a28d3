"""Benchmarks: samples, loaders by name, splits that keep images whole, answer scoring."""

from mechvrp.data.registry import DatasetInfo as DatasetInfo
from mechvrp.data.registry import available as available
from mechvrp.data.registry import load as load
from mechvrp.data.sample import Dataset as Dataset
from mechvrp.data.sample import Sample as Sample
from mechvrp.data.sample import Skipped as Skipped
from mechvrp.data.scoring import PopeScores as PopeScores
from mechvrp.data.scoring import is_correct as is_correct
from mechvrp.data.scoring import normalise_answer as normalise_answer
from mechvrp.data.scoring import official_yes_no as official_yes_no
from mechvrp.data.scoring import pope_scores as pope_scores
from mechvrp.data.scoring import read_count as read_count
from mechvrp.data.scoring import score as score
from mechvrp.data.scoring import strict_yes_no as strict_yes_no
from mechvrp.data.splits import group_folds as group_folds
from mechvrp.data.splits import train_test_split as train_test_split

__all__ = [
    "Dataset",
    "DatasetInfo",
    "PopeScores",
    "Sample",
    "Skipped",
    "available",
    "group_folds",
    "is_correct",
    "load",
    "normalise_answer",
    "official_yes_no",
    "pope_scores",
    "read_count",
    "score",
    "strict_yes_no",
    "train_test_split",
]
