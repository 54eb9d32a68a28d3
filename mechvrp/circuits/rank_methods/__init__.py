"""Methods of ranking units, one a module, behind one interface."""

from mechvrp.circuits.rank_methods.ablation import AblationEffect as AblationEffect
from mechvrp.circuits.rank_methods.attribution import Attribution as Attribution
from mechvrp.circuits.rank_methods.base import RankingMethod as RankingMethod
from mechvrp.circuits.rank_methods.base import RankingTask as RankingTask
from mechvrp.circuits.rank_methods.base import UnitScores as UnitScores
from mechvrp.circuits.rank_methods.drawn import RandomScores as RandomScores
from mechvrp.circuits.rank_methods.mean_difference import MeanDifference as MeanDifference
from mechvrp.circuits.rank_methods.mlp_gradient import MLPProbeGradient as MLPProbeGradient
from mechvrp.circuits.rank_methods.pairs import PairAttribution as PairAttribution
from mechvrp.circuits.rank_methods.probe import ProbeWeight as ProbeWeight
from mechvrp.circuits.rank_methods.sparse import SparseProbeWeight as SparseProbeWeight

__all__ = [
    "AblationEffect",
    "Attribution",
    "MLPProbeGradient",
    "MeanDifference",
    "PairAttribution",
    "ProbeWeight",
    "RandomScores",
    "RankingMethod",
    "RankingTask",
    "SparseProbeWeight",
    "UnitScores",
]
