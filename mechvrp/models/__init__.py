"""Models: loading, families, batches and their token maps."""

from mechvrp.models.batch import Batch as Batch
from mechvrp.models.bridging import to_transformer_lens as to_transformer_lens
from mechvrp.models.families import Family as Family
from mechvrp.models.families import Grid as Grid
from mechvrp.models.families import Modules as Modules
from mechvrp.models.families import families as known_families
from mechvrp.models.families import register_family as register_family
from mechvrp.models.fingerprints import fingerprint as fingerprint
from mechvrp.models.loading import EmbeddedModel as EmbeddedModel
from mechvrp.models.loading import embedded_models as embedded_models
from mechvrp.models.loading import load as load
from mechvrp.models.regions import box_region as box_region
from mechvrp.models.regions import cell_region as cell_region
from mechvrp.models.regions import queried_region as queried_region
from mechvrp.models.structure import FamilyReport as FamilyReport
from mechvrp.models.structure import check_family as check_family
from mechvrp.models.tokens import Each as Each
from mechvrp.models.tokens import ImageTokens as ImageTokens
from mechvrp.models.tokens import TokenMap as TokenMap
from mechvrp.models.vlm import VLM as VLM

__all__ = [
    "VLM",
    "Batch",
    "Each",
    "EmbeddedModel",
    "Family",
    "FamilyReport",
    "Grid",
    "ImageTokens",
    "Modules",
    "TokenMap",
    "box_region",
    "cell_region",
    "check_family",
    "embedded_models",
    "fingerprint",
    "known_families",
    "load",
    "queried_region",
    "register_family",
    "to_transformer_lens",
]
