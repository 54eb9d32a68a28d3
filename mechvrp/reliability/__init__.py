"""Reliability: what a model answers, whether it is right, how sure it is, and where it looks."""

from mechvrp.models.regions import box_region as box_region
from mechvrp.models.regions import cell_region as cell_region
from mechvrp.models.regions import queried_region as queried_region
from mechvrp.reliability.answers import Answer as Answer
from mechvrp.reliability.answers import greedy_answers as greedy_answers
from mechvrp.reliability.attended import mask_attended_patches as mask_attended_patches
from mechvrp.reliability.attended import masking_variants as masking_variants
from mechvrp.reliability.attention_shape import centre_distance as centre_distance
from mechvrp.reliability.attention_shape import gini as gini
from mechvrp.reliability.attention_shape import head_agreement as head_agreement
from mechvrp.reliability.attention_shape import image_mass as image_mass
from mechvrp.reliability.attention_shape import peak_sharpness as peak_sharpness
from mechvrp.reliability.attention_shape import region_mass as region_mass
from mechvrp.reliability.attention_shape import top_k_mass as top_k_mass
from mechvrp.reliability.brier import BrierDecomposition as BrierDecomposition
from mechvrp.reliability.brier import decompose_brier as decompose_brier
from mechvrp.reliability.calibration import Calibration as Calibration
from mechvrp.reliability.calibration import expected_calibration_error as expected_calibration_error
from mechvrp.reliability.calibration import measure_calibration as measure_calibration
from mechvrp.reliability.calibration import reliability_table as reliability_table
from mechvrp.reliability.comparator_signals import COMPARATOR_SIGNALS as COMPARATOR_SIGNALS
from mechvrp.reliability.comparator_signals import comparator_columns as comparator_columns
from mechvrp.reliability.comparator_signals import map_entropy as map_entropy
from mechvrp.reliability.comparators import attention_rollout as attention_rollout
from mechvrp.reliability.comparators import grad_cam as grad_cam
from mechvrp.reliability.comparators import gradient_maps as gradient_maps
from mechvrp.reliability.comparators import gradient_times_input as gradient_times_input
from mechvrp.reliability.comparators import rollout_maps as rollout_maps
from mechvrp.reliability.corrupting import CORRUPTIONS as CORRUPTIONS
from mechvrp.reliability.corrupting import corrupt_windows as corrupt_windows
from mechvrp.reliability.corrupting import corruption_variants as corruption_variants
from mechvrp.reliability.corrupting import layer_windows as layer_windows
from mechvrp.reliability.features import STRUCTURE_FEATURES as STRUCTURE_FEATURES
from mechvrp.reliability.features import structure_features as structure_features
from mechvrp.reliability.fusion import Fusion as Fusion
from mechvrp.reliability.fusion import SingleSignal as SingleSignal
from mechvrp.reliability.fusion import fuse as fuse
from mechvrp.reliability.generation import AnswerSignals as AnswerSignals
from mechvrp.reliability.generation import logit_entropy as logit_entropy
from mechvrp.reliability.generation import observe_answers as observe_answers
from mechvrp.reliability.generation import token_confidence as token_confidence
from mechvrp.reliability.majority import expected_majority_share as expected_majority_share
from mechvrp.reliability.majority import majority_share as majority_share
from mechvrp.reliability.margins import Margins as Margins
from mechvrp.reliability.margins import lens_logits as lens_logits
from mechvrp.reliability.margins import logit_margins as logit_margins
from mechvrp.reliability.margins import mlp_share as mlp_share
from mechvrp.reliability.monitor import Monitor as Monitor
from mechvrp.reliability.monitor import MonitorAnswer as MonitorAnswer
from mechvrp.reliability.observations import STRUCTURE_SIGNALS as STRUCTURE_SIGNALS
from mechvrp.reliability.observations import Observations as Observations
from mechvrp.reliability.observing import observe as observe
from mechvrp.reliability.observing import observe_batches as observe_batches
from mechvrp.reliability.outcomes import Outcomes as Outcomes
from mechvrp.reliability.recalibration import IsotonicCalibration as IsotonicCalibration
from mechvrp.reliability.recalibration import PlattScaling as PlattScaling
from mechvrp.reliability.recalibration import Recalibration as Recalibration
from mechvrp.reliability.recalibration import TemperatureScaling as TemperatureScaling
from mechvrp.reliability.recalibration import load_recalibration as load_recalibration
from mechvrp.reliability.registered import SignalFunction as SignalFunction
from mechvrp.reliability.registered import known_signals as known_signals
from mechvrp.reliability.registered import measure_signal as measure_signal
from mechvrp.reliability.registered import register_signal as register_signal
from mechvrp.reliability.registered import registered_signals as registered_signals
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
from mechvrp.reliability.structure import entropy_by_head as entropy_by_head
from mechvrp.reliability.structure import entropy_by_layer as entropy_by_layer
from mechvrp.reliability.structure import entropy_evolution as entropy_evolution
from mechvrp.reliability.structure import entropy_shares as entropy_shares
from mechvrp.reliability.structure import mean_map as mean_map
from mechvrp.reliability.structure import spatial_entropy as spatial_entropy

__all__ = [
    "COMPARATOR_SIGNALS",
    "CORRUPTIONS",
    "SIGNALS",
    "STRUCTURE_FEATURES",
    "STRUCTURE_SIGNALS",
    "Answer",
    "AnswerSignals",
    "BrierDecomposition",
    "Calibration",
    "Fusion",
    "IsotonicCalibration",
    "Margins",
    "Monitor",
    "MonitorAnswer",
    "Observations",
    "Outcomes",
    "PlattScaling",
    "Recalibration",
    "RiskThreshold",
    "SelectiveRisk",
    "SharpnessCorrelations",
    "Signal",
    "SignalFunction",
    "SingleSignal",
    "TemperatureScaling",
    "attention_maps",
    "attention_rollout",
    "attention_sharpness",
    "box_region",
    "cell_region",
    "centre_distance",
    "choose_threshold",
    "cluster_count",
    "comparator_columns",
    "corrupt_windows",
    "corruption_variants",
    "decompose_brier",
    "entropy_by_head",
    "entropy_by_layer",
    "entropy_evolution",
    "entropy_shares",
    "expected_calibration_error",
    "expected_majority_share",
    "fewest_answers",
    "find_signals",
    "fuse",
    "gini",
    "grad_cam",
    "gradient_maps",
    "gradient_times_input",
    "greedy_answers",
    "head_agreement",
    "image_mass",
    "known_signals",
    "layer_windows",
    "lens_logits",
    "load_recalibration",
    "logit_entropy",
    "logit_margins",
    "majority_share",
    "map_entropy",
    "mask_attended_patches",
    "masking_variants",
    "mean_map",
    "measure_calibration",
    "measure_selective_risk",
    "measure_signal",
    "mlp_share",
    "observe",
    "observe_answers",
    "observe_batches",
    "peak_sharpness",
    "predictors",
    "queried_region",
    "region_mass",
    "register_signal",
    "registered_signals",
    "reliability_table",
    "risk_coverage_curve",
    "rollout_maps",
    "sharpness_against_confidence",
    "spatial_entropy",
    "structure_features",
    "threshold_grid",
    "token_confidence",
    "top_k_mass",
]
