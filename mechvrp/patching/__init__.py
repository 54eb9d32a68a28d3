"""Interventions, and everything that runs them."""

from mechvrp.patching.interventions import Intervention as Intervention
from mechvrp.patching.interventions import Replace as Replace
from mechvrp.patching.interventions import Zero as Zero
from mechvrp.patching.interventions import replace as replace
from mechvrp.patching.interventions import zero as zero

__all__ = ["Intervention", "Replace", "Zero", "replace", "zero"]
