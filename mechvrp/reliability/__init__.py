"""Reliability: what a model answers, whether it is right, how sure it is, and where it looks."""

from mechvrp.reliability.answers import Answer as Answer
from mechvrp.reliability.answers import greedy_answers as greedy_answers
from mechvrp.reliability.calibration import Calibration as Calibration
from mechvrp.reliability.calibration import (
    expected_calibration_error as expected_calibration_error,
)
from mechvrp.reliability.calibration import measure_calibration as measure_calibration
from mechvrp.reliability.calibration import reliability_table as reliability_table
from mechvrp.reliability.structure import attention_maps as attention_maps
from mechvrp.reliability.structure import cluster_count as cluster_count
from mechvrp.reliability.structure import mean_map as mean_map
from mechvrp.reliability.structure import spatial_entropy as spatial_entropy

__all__ = [
    "Answer",
    "Calibration",
    "attention_maps",
    "cluster_count",
    "expected_calibration_error",
    "greedy_answers",
    "mean_map",
    "measure_calibration",
    "reliability_table",
    "spatial_entropy",
]
