"""Probes for correctness, rankings of units, and ablation curves."""

from mechvrp.circuits.ablation import AblationMode as AblationMode
from mechvrp.circuits.ablation import AblationOutcomes as AblationOutcomes
from mechvrp.circuits.ablation import ablate_ranking as ablate_ranking
from mechvrp.circuits.ablation import ablation_variants as ablation_variants
from mechvrp.circuits.baseline_results import Baseline as Baseline
from mechvrp.circuits.baseline_results import Comparison as Comparison
from mechvrp.circuits.baseline_results import ShuffledControl as ShuffledControl
from mechvrp.circuits.baselines import compare_with_baselines as compare_with_baselines
from mechvrp.circuits.curve_results import AblationCurve as AblationCurve
from mechvrp.circuits.curve_results import AblationPoint as AblationPoint
from mechvrp.circuits.curves import analyse_ablation as analyse_ablation
from mechvrp.circuits.curves import default_ks as default_ks
from mechvrp.circuits.first_token import AnswerReader as AnswerReader
from mechvrp.circuits.first_token import Scored as Scored
from mechvrp.circuits.first_token import sweep_answers as sweep_answers
from mechvrp.circuits.logistic import FittedProbe as FittedProbe
from mechvrp.circuits.probe_results import LayerResult as LayerResult
from mechvrp.circuits.probe_results import ProbeSweep as ProbeSweep
from mechvrp.circuits.probe_results import TaskResult as TaskResult
from mechvrp.circuits.probes import probe_sweep as probe_sweep
from mechvrp.circuits.ranking import Ranking as Ranking
from mechvrp.circuits.ranking import rank_by_probe_weight as rank_by_probe_weight

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
    "ProbeSweep",
    "Ranking",
    "Scored",
    "ShuffledControl",
    "TaskResult",
    "ablate_ranking",
    "ablation_variants",
    "analyse_ablation",
    "compare_with_baselines",
    "default_ks",
    "probe_sweep",
    "rank_by_probe_weight",
    "sweep_answers",
]
