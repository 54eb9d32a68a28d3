"""Probes and other readouts of correctness, rankings of units, ablation curves, and circuits."""

from mechvrp.circuits.ablating import ablation_curve as ablation_curve
from mechvrp.circuits.ablation import AblationMode as AblationMode
from mechvrp.circuits.ablation import AblationOutcomes as AblationOutcomes
from mechvrp.circuits.ablation import ablate_ranking as ablate_ranking
from mechvrp.circuits.ablation import ablation_variants as ablation_variants
from mechvrp.circuits.agreement import Agreement as Agreement
from mechvrp.circuits.agreement import RankingAgreement as RankingAgreement
from mechvrp.circuits.agreement import compare_rankings as compare_rankings
from mechvrp.circuits.agreement import rank_biased_overlap as rank_biased_overlap
from mechvrp.circuits.agreement import ranking_agreement as ranking_agreement
from mechvrp.circuits.baseline_results import Baseline as Baseline
from mechvrp.circuits.baseline_results import Comparison as Comparison
from mechvrp.circuits.baseline_results import ShuffledControl as ShuffledControl
from mechvrp.circuits.baselines import compare_with_baselines as compare_with_baselines
from mechvrp.circuits.bottleneck import area_between as area_between
from mechvrp.circuits.bottleneck import bottleneck_index as bottleneck_index
from mechvrp.circuits.centroids import centroid_readout as centroid_readout
from mechvrp.circuits.centroids import centroid_scores as centroid_scores
from mechvrp.circuits.chance import chance_levels as chance_levels
from mechvrp.circuits.circuit import Circuit as Circuit
from mechvrp.circuits.circuit import CircuitComparison as CircuitComparison
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
from mechvrp.circuits.direct_logits import DirectLogits as DirectLogits
from mechvrp.circuits.discovery import Discovery as Discovery
from mechvrp.circuits.discovery import discover_circuit as discover_circuit
from mechvrp.circuits.edges import EdgeScores as EdgeScores
from mechvrp.circuits.edges import edge_attribution as edge_attribution
from mechvrp.circuits.feature_readouts import feature_readout as feature_readout
from mechvrp.circuits.feature_readouts import tree_readout as tree_readout
from mechvrp.circuits.first_token import AnswerReader as AnswerReader
from mechvrp.circuits.first_token import Scored as Scored
from mechvrp.circuits.first_token import sweep_answers as sweep_answers
from mechvrp.circuits.flow_comparison import FlowComparison as FlowComparison
from mechvrp.circuits.flow_comparison import compare_image_flows as compare_image_flows
from mechvrp.circuits.flow_knockouts import flow_edges as flow_edges
from mechvrp.circuits.hallucinated import Hallucinated as Hallucinated
from mechvrp.circuits.hallucinated import hallucinated_pairs as hallucinated_pairs
from mechvrp.circuits.head_knockout_results import HeadKnockout as HeadKnockout
from mechvrp.circuits.head_knockout_results import HeadKnockoutPoint as HeadKnockoutPoint
from mechvrp.circuits.head_knockouts import knock_out_heads as knock_out_heads
from mechvrp.circuits.head_reading import read_heads as read_heads
from mechvrp.circuits.head_results import HeadReading as HeadReading
from mechvrp.circuits.image_probe import asked_digit_is_there as asked_digit_is_there
from mechvrp.circuits.image_probe import holds_digit as holds_digit
from mechvrp.circuits.integration import image_flow as image_flow
from mechvrp.circuits.integration_results import FlowPoint as FlowPoint
from mechvrp.circuits.integration_results import ImageFlow as ImageFlow
from mechvrp.circuits.joined_layers import last_layers_probe as last_layers_probe
from mechvrp.circuits.linear_readouts import linear_readout as linear_readout
from mechvrp.circuits.linear_readouts import sparse_probe as sparse_probe
from mechvrp.circuits.logistic import FittedProbe as FittedProbe
from mechvrp.circuits.matching import MatchedSets as MatchedSets
from mechvrp.circuits.matching import matched_sets as matched_sets
from mechvrp.circuits.matching import unit_norms as unit_norms
from mechvrp.circuits.mlp import mlp_probe as mlp_probe
from mechvrp.circuits.nodes import CircuitEdge as CircuitEdge
from mechvrp.circuits.nodes import CircuitNode as CircuitNode
from mechvrp.circuits.nodes import circuit_nodes as circuit_nodes
from mechvrp.circuits.norm_gain import reader_gain as reader_gain
from mechvrp.circuits.pairs import PairBatch as PairBatch
from mechvrp.circuits.pairs import Pairs as Pairs
from mechvrp.circuits.pairs import counterfactual_pairs as counterfactual_pairs
from mechvrp.circuits.patched_shares import IntegrationLayer as IntegrationLayer
from mechvrp.circuits.patched_shares import PatchedShares as PatchedShares
from mechvrp.circuits.planted import Planted as Planted
from mechvrp.circuits.planting import plant_circuit as plant_circuit
from mechvrp.circuits.probe_ranking import rank_by_probe_weight as rank_by_probe_weight
from mechvrp.circuits.probe_results import LayerResult as LayerResult
from mechvrp.circuits.probe_results import ProbeSweep as ProbeSweep
from mechvrp.circuits.probe_results import TaskResult as TaskResult
from mechvrp.circuits.probes import probe_sweep as probe_sweep
from mechvrp.circuits.proof import prove_circuit as prove_circuit
from mechvrp.circuits.proof_results import AgainstRandom as AgainstRandom
from mechvrp.circuits.proof_results import CircuitProof as CircuitProof
from mechvrp.circuits.proof_results import NodeRemoval as NodeRemoval
from mechvrp.circuits.rank_methods import RankingMethod as RankingMethod
from mechvrp.circuits.rank_methods import RankingTask as RankingTask
from mechvrp.circuits.rank_methods import UnitScores as UnitScores
from mechvrp.circuits.ranking import Ranking as Ranking
from mechvrp.circuits.ranking_methods import RANKING_METHODS as RANKING_METHODS
from mechvrp.circuits.ranking_methods import rank_units as rank_units
from mechvrp.circuits.ranking_methods import right_answers as right_answers
from mechvrp.circuits.readouts import LayerScores as LayerScores
from mechvrp.circuits.readouts import Readout as Readout
from mechvrp.circuits.readouts import ReadoutTask as ReadoutTask
from mechvrp.circuits.readouts import readout_task as readout_task
from mechvrp.circuits.stand_ins import CircuitMode as CircuitMode
from mechvrp.circuits.token_groups import GROUPS as GROUPS

__all__ = [
    "GROUPS",
    "RANKING_METHODS",
    "AblationCurve",
    "AblationMode",
    "AblationOutcomes",
    "AblationPoint",
    "AgainstRandom",
    "Agreement",
    "AnswerReader",
    "Baseline",
    "Circuit",
    "CircuitComparison",
    "CircuitEdge",
    "CircuitMode",
    "CircuitNode",
    "CircuitProof",
    "Comparison",
    "Contrast",
    "CurveComparison",
    "CurveOutcomes",
    "DirectLogits",
    "Discovery",
    "EdgeScores",
    "FittedProbe",
    "FlowComparison",
    "FlowPoint",
    "Hallucinated",
    "HeadKnockout",
    "HeadKnockoutPoint",
    "HeadReading",
    "ImageFlow",
    "IndexDifference",
    "IntegrationLayer",
    "LayerResult",
    "LayerScores",
    "MatchedSets",
    "NodeRemoval",
    "PairBatch",
    "Pairs",
    "PatchedShares",
    "Planted",
    "ProbeSweep",
    "Ranking",
    "RankingAgreement",
    "RankingMethod",
    "RankingTask",
    "Readout",
    "ReadoutTask",
    "Scored",
    "SetPoint",
    "ShuffledControl",
    "TaskResult",
    "UnitScores",
    "ablate_ranking",
    "ablation_curve",
    "ablation_variants",
    "analyse_ablation",
    "area_between",
    "asked_digit_is_there",
    "bottleneck_index",
    "centroid_readout",
    "centroid_scores",
    "chance_levels",
    "circuit_nodes",
    "compare_curves",
    "compare_image_flows",
    "compare_rankings",
    "compare_with_baselines",
    "counterfactual_pairs",
    "curve_of",
    "default_ks",
    "discover_circuit",
    "edge_attribution",
    "feature_readout",
    "flow_edges",
    "hallucinated_pairs",
    "holds_digit",
    "image_flow",
    "knock_out_heads",
    "last_layers_probe",
    "linear_readout",
    "matched_sets",
    "mlp_probe",
    "plant_circuit",
    "probe_sweep",
    "prove_circuit",
    "rank_biased_overlap",
    "rank_by_probe_weight",
    "rank_units",
    "ranking_agreement",
    "read_heads",
    "reader_gain",
    "readout_task",
    "right_answers",
    "sparse_probe",
    "sweep_answers",
    "tree_readout",
    "unit_norms",
]
