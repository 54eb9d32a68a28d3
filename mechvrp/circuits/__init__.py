"""Probes and other readouts of correctness, rankings of units, and ablation curves."""

from mechvrp.circuits.ablation import AblationMode as AblationMode
from mechvrp.circuits.ablation import AblationOutcomes as AblationOutcomes
from mechvrp.circuits.ablation import ablate_ranking as ablate_ranking
from mechvrp.circuits.ablation import ablation_variants as ablation_variants
from mechvrp.circuits.baseline_results import Baseline as Baseline
from mechvrp.circuits.baseline_results import Comparison as Comparison
from mechvrp.circuits.baseline_results import ShuffledControl as ShuffledControl
from mechvrp.circuits.baselines import compare_with_baselines as compare_with_baselines
from mechvrp.circuits.centroids import centroid_readout as centroid_readout
from mechvrp.circuits.centroids import centroid_scores as centroid_scores
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
from mechvrp.circuits.mlp import mlp_probe as mlp_probe
from mechvrp.circuits.planted import Planted as Planted
from mechvrp.circuits.planting import plant_circuit as plant_circuit
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
    "FittedProbe",
    "LayerResult",
    "LayerScores",
    "Planted",
    "ProbeSweep",
    "Ranking",
    "Readout",
    "ReadoutTask",
    "Scored",
    "ShuffledControl",
    "TaskResult",
    "ablate_ranking",
    "ablation_variants",
    "analyse_ablation",
    "centroid_readout",
    "centroid_scores",
    "compare_with_baselines",
    "default_ks",
    "feature_readout",
    "last_layers_probe",
    "linear_readout",
    "mlp_probe",
    "plant_circuit",
    "probe_sweep",
    "rank_by_probe_weight",
    "readout_task",
    "sparse_probe",
    "sweep_answers",
    "tree_readout",
]
