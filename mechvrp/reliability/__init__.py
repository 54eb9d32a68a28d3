"""Reliability: what a model answers, whether it is right, how sure it is, and where it looks."""

from mechvrp.reliability.answers import Answer as Answer
from mechvrp.reliability.answers import greedy_answers as greedy_answers
from mechvrp.reliability.attention_shape import centre_distance as centre_distance
from mechvrp.reliability.attention_shape import gini as gini
from mechvrp.reliability.attention_shape import head_agreement as head_agreement
from mechvrp.reliability.attention_shape import image_mass as image_mass
from mechvrp.reliability.attention_shape import peak_sharpness as peak_sharpness
from mechvrp.reliability.attention_shape import region_mass as region_mass
from mechvrp.reliability.attention_shape import top_k_mass as top_k_mass
from mechvrp.reliability.calibration import Calibration as Calibration
from mechvrp.reliability.calibration import expected_calibration_error as expected_calibration_error
from mechvrp.reliability.calibration import measure_calibration as measure_calibration
from mechvrp.reliability.calibration import reliability_table as reliability_table
from mechvrp.reliability.comparators import attention_rollout as attention_rollout
from mechvrp.reliability.comparators import grad_cam as grad_cam
from mechvrp.reliability.comparators import gradient_maps as gradient_maps
from mechvrp.reliability.comparators import gradient_times_input as gradient_times_input
from mechvrp.reliability.comparators import rollout_maps as rollout_maps
from mechvrp.reliability.features import STRUCTURE_FEATURES as STRUCTURE_FEATURES
from mechvrp.reliability.features import structure_features as structure_features
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
from mechvrp.reliability.observations import STRUCTURE_SIGNALS as STRUCTURE_SIGNALS
from mechvrp.reliability.observations import Observations as Observations
from mechvrp.reliability.observing import observe as observe
from mechvrp.reliability.observing import observe_batches as observe_batches
from mechvrp.reliability.regions import box_region as box_region
from mechvrp.reliability.regions import cell_region as cell_region
from mechvrp.reliability.regions import queried_region as queried_region
from mechvrp.reliability.structure import attention_maps as attention_maps
from mechvrp.reliability.structure import cluster_count as cluster_count
from mechvrp.reliability.structure import entropy_by_head as entropy_by_head
from mechvrp.reliability.structure import entropy_by_layer as entropy_by_layer
from mechvrp.reliability.structure import entropy_evolution as entropy_evolution
from mechvrp.reliability.structure import mean_map as mean_map
from mechvrp.reliability.structure import spatial_entropy as spatial_entropy

__all__ = [
    "STRUCTURE_FEATURES",
    "STRUCTURE_SIGNALS",
    "Answer",
    "AnswerSignals",
    "Calibration",
    "Margins",
    "Observations",
    "attention_maps",
    "attention_rollout",
    "box_region",
    "cell_region",
    "centre_distance",
    "cluster_count",
    "entropy_by_head",
    "entropy_by_layer",
    "entropy_evolution",
    "expected_calibration_error",
    "expected_majority_share",
    "gini",
    "grad_cam",
    "gradient_maps",
    "gradient_times_input",
    "greedy_answers",
    "head_agreement",
    "image_mass",
    "lens_logits",
    "logit_entropy",
    "logit_margins",
    "majority_share",
    "mean_map",
    "measure_calibration",
    "mlp_share",
    "observe",
    "observe_answers",
    "observe_batches",
    "peak_sharpness",
    "queried_region",
    "region_mass",
    "reliability_table",
    "rollout_maps",
    "spatial_entropy",
    "structure_features",
    "token_confidence",
    "top_k_mass",
]
