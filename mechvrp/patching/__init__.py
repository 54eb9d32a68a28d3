"""Interventions, and everything that runs them."""

from mechvrp.patching.attention_edges import Knockout as Knockout
from mechvrp.patching.attention_edges import knockout as knockout
from mechvrp.patching.attribution import Attribution as Attribution
from mechvrp.patching.attribution import attribution_patching as attribution_patching
from mechvrp.patching.blanking import Blank as Blank
from mechvrp.patching.blanking import blank_patches as blank_patches
from mechvrp.patching.causal import causal_trace as causal_trace
from mechvrp.patching.causal import patch_effects as patch_effects
from mechvrp.patching.corruptions import corrupted_batch as corrupted_batch
from mechvrp.patching.gaussian import Noise as Noise
from mechvrp.patching.gaussian import noise as noise
from mechvrp.patching.grids import activation_patching as activation_patching
from mechvrp.patching.interventions import Intervention as Intervention
from mechvrp.patching.interventions import Scale as Scale
from mechvrp.patching.interventions import Steer as Steer
from mechvrp.patching.interventions import Zero as Zero
from mechvrp.patching.interventions import scale as scale
from mechvrp.patching.interventions import steer as steer
from mechvrp.patching.interventions import zero as zero
from mechvrp.patching.knockouts import EDGES as EDGES
from mechvrp.patching.knockouts import attention_knockout as attention_knockout
from mechvrp.patching.masking import mask_image_patches as mask_image_patches
from mechvrp.patching.masking import masked_pixels as masked_pixels
from mechvrp.patching.masking import patch_masks as patch_masks
from mechvrp.patching.measures import MEASURES as MEASURES
from mechvrp.patching.paths import Node as Node
from mechvrp.patching.paths import path_patching as path_patching
from mechvrp.patching.planning import Plan as Plan
from mechvrp.patching.references import Mean as Mean
from mechvrp.patching.references import Resample as Resample
from mechvrp.patching.references import mean as mean
from mechvrp.patching.references import resample as resample
from mechvrp.patching.replacing import Replace as Replace
from mechvrp.patching.replacing import replace as replace
from mechvrp.patching.sweeping import plan as plan
from mechvrp.patching.sweeping import sweep as sweep

__all__ = [
    "EDGES",
    "MEASURES",
    "Attribution",
    "Blank",
    "Intervention",
    "Knockout",
    "Mean",
    "Node",
    "Noise",
    "Plan",
    "Replace",
    "Resample",
    "Scale",
    "Steer",
    "Zero",
    "activation_patching",
    "attention_knockout",
    "attribution_patching",
    "blank_patches",
    "causal_trace",
    "corrupted_batch",
    "knockout",
    "mask_image_patches",
    "masked_pixels",
    "mean",
    "noise",
    "patch_effects",
    "patch_masks",
    "path_patching",
    "plan",
    "replace",
    "resample",
    "scale",
    "steer",
    "sweep",
    "zero",
]
