"""Probes and other readouts of correctness, rankings of units, and ablation curves."""

from mechvrp.circuits.ablating import ablation_curve as ablation_curve
from mechvrp.circuits.ablation import AblationMode as AblationMode
from mechvrp.circuits.ablation import AblationOutcomes as AblationOutcomes
from mechvrp.circuits.ablation import ablate_ranking as ablate_ranking
from mechvrp.circuits.ablation import ablation_variants as ablation_variants
from mechvrp.circuits.baseline_results import Baseline as Baseline
from mechvrp.circuits.baseline_results import Comparison as Comparison
from mechvrp.circuits.baseline_results import ShuffledControl as ShuffledControl
from mechvrp.circuits.baselines import compare_with_baselines as compare_with_baselines
from mechvrp.circuits.bottleneck import area_between as area_between
from mechvrp.circuits.bottleneck import bottleneck_index as bottleneck_index
from mechvrp.circuits.centroids import centroid_readout as centroid_readout
from mechvrp.circuits.centroids import centroid_scores as centroid_scores
from mechvrp.circuits.chance import chance_levels as chance_levels
from mechvrp.circuits.curve_comparison import CurveComparison as CurveComparison
from mechvrp.circuits.curve_comparison import IndexDifference as IndexDifference
from mechvrp.circuits.curve_comparison import compare_curves as compare_curves
from mechvrp.circuits.curve_details import Contrast as Contrast
from mechvrp.circuits.curve_details import SetPoint as SetPoint
from mechvrp.circuits.curve_making import curve_of as curve_of
from mechvrp.circuits.curve_outcomes import CurveOutcomes as CurveOutcomes
from mechvrp.circuits.curve_results import AblationCurve as AblationCurve
from mechvrp.circuits.curve_results import AblationPoint as AblationPoint
from mechvrp.circuits.curves import analyse_ablation as analyse_ablation
from mechvrp.circuits.curves import default_ks as default_ks
from mechvrp.circuits.feature_readouts import feature_readout as feature_readout
from mechvrp.circuits.feature_readouts import tree_readout as tree_readout
from mechvrp.circuits.first_token import AnswerReader as AnswerReader
from mechvrp.circuits.first_token import Scored as Scored
from mechvrp.circuits.first_token import sweep_answers as sweep_answers
from mechvrp.circuits.joined_layers import last_layers_probe as last_layers_probe
from mechvrp.circuits.linear_readouts import linear_readout as linear_readout
from mechvrp.circuits.linear_readouts import sparse_probe as sparse_probe
from mechvrp.circuits.logistic import FittedProbe as FittedProbe
from mechvrp.circuits.matching import MatchedSets as MatchedSets
from mechvrp.circuits.matching import matched_sets as matched_sets
from mechvrp.circuits.matching import unit_norms as unit_norms
from mechvrp.circuits.mlp import mlp_probe as mlp_probe
from mechvrp.circuits.probe_ranking import rank_by_probe_weight as rank_by_probe_weight
from mechvrp.circuits.probe_results import LayerResult as LayerResult
from mechvrp.circuits.probe_results import ProbeSweep as ProbeSweep
from mechvrp.circuits.probe_results import TaskResult as TaskResult
from mechvrp.circuits.probes import probe_sweep as probe_sweep
from mechvrp.circuits.ranking import Ranking as Ranking
from mechvrp.circuits.readouts import LayerScores as LayerScores
from mechvrp.circuits.readouts import Readout as Readout
from mechvrp.circuits.readouts import ReadoutTask as ReadoutTask
from mechvrp.circuits.readouts import readout_task as readout_task

__all__ = [
    "AblationCurve",
    "AblationMode",
    "AblationOutcomes",
    "AblationPoint",
    "AnswerReader",
    "Baseline",
    "Comparison",
    "Contrast",
    "CurveComparison",
    "CurveOutcomes",
    "FittedProbe",
    "IndexDifference",
    "LayerResult",
    "LayerScores",
    "MatchedSets",
    "ProbeSweep",
    "Ranking",
    "Readout",
    "ReadoutTask",
    "Scored",
    "SetPoint",
    "ShuffledControl",
    "TaskResult",
    "ablate_ranking",
    "ablation_curve",
    "ablation_variants",
    "analyse_ablation",
    "area_between",
    "bottleneck_index",
    "centroid_readout",
    "centroid_scores",
    "chance_levels",
    "compare_curves",
    "compare_with_baselines",
    "curve_of",
    "default_ks",
    "feature_readout",
    "last_layers_probe",
    "linear_readout",
    "matched_sets",
    "mlp_probe",
    "probe_sweep",
    "rank_by_probe_weight",
    "readout_task",
    "sparse_probe",
    "sweep_answers",
    "tree_readout",
    "unit_norms",
]
