"""Reliability: what a model answers, whether it is right, how sure it is, and where it looks."""

from mechvrp.reliability.answers import Answer as Answer
from mechvrp.reliability.answers import greedy_answers as greedy_answers
from mechvrp.reliability.brier import BrierDecomposition as BrierDecomposition
from mechvrp.reliability.brier import decompose_brier as decompose_brier
from mechvrp.reliability.calibration import Calibration as Calibration
from mechvrp.reliability.calibration import expected_calibration_error as expected_calibration_error
from mechvrp.reliability.calibration import measure_calibration as measure_calibration
from mechvrp.reliability.calibration import reliability_table as reliability_table
from mechvrp.reliability.fusion import Fusion as Fusion
from mechvrp.reliability.fusion import SingleSignal as SingleSignal
from mechvrp.reliability.fusion import fuse as fuse
from mechvrp.reliability.recalibration import IsotonicCalibration as IsotonicCalibration
from mechvrp.reliability.recalibration import PlattScaling as PlattScaling
from mechvrp.reliability.recalibration import Recalibration as Recalibration
from mechvrp.reliability.recalibration import TemperatureScaling as TemperatureScaling
from mechvrp.reliability.recalibration import load_recalibration as load_recalibration
from mechvrp.reliability.risk import RiskThreshold as RiskThreshold
from mechvrp.reliability.risk import choose_threshold as choose_threshold
from mechvrp.reliability.risk import fewest_answers as fewest_answers
from mechvrp.reliability.risk import threshold_grid as threshold_grid
from mechvrp.reliability.selective import SelectiveRisk as SelectiveRisk
from mechvrp.reliability.selective import measure_selective_risk as measure_selective_risk
from mechvrp.reliability.selective import risk_coverage_curve as risk_coverage_curve
from mechvrp.reliability.sharpness import SharpnessCorrelations as SharpnessCorrelations
from mechvrp.reliability.sharpness import attention_sharpness as attention_sharpness
from mechvrp.reliability.sharpness import (
    sharpness_against_confidence as sharpness_against_confidence,
)
from mechvrp.reliability.signals import SIGNALS as SIGNALS
from mechvrp.reliability.signals import Signal as Signal
from mechvrp.reliability.signals import find_signals as find_signals
from mechvrp.reliability.signals import predictors as predictors
from mechvrp.reliability.structure import attention_maps as attention_maps
from mechvrp.reliability.structure import cluster_count as cluster_count
from mechvrp.reliability.structure import mean_map as mean_map
from mechvrp.reliability.structure import spatial_entropy as spatial_entropy

__all__ = [
    "SIGNALS",
    "Answer",
    "BrierDecomposition",
    "Calibration",
    "Fusion",
    "IsotonicCalibration",
    "PlattScaling",
    "Recalibration",
    "RiskThreshold",
    "SelectiveRisk",
    "SharpnessCorrelations",
    "Signal",
    "SingleSignal",
    "TemperatureScaling",
    "attention_maps",
    "attention_sharpness",
    "choose_threshold",
    "cluster_count",
    "decompose_brier",
    "expected_calibration_error",
    "fewest_answers",
    "find_signals",
    "fuse",
    "greedy_answers",
    "load_recalibration",
    "mean_map",
    "measure_calibration",
    "measure_selective_risk",
    "predictors",
    "reliability_table",
    "risk_coverage_curve",
    "sharpness_against_confidence",
    "spatial_entropy",
    "threshold_grid",
]
