"""The registry of families, by ``config.model_type``."""

from __future__ import annotations

from typing import Any

from mechvrp.errors import InputError
from mechvrp.models.families.base import Family as Family
from mechvrp.models.families.base import Grid as Grid
from mechvrp.models.families.base import Modules as Modules
from mechvrp.models.families.llava import Llava
from mechvrp.models.families.paligemma import PaliGemma
from mechvrp.models.families.qwen2_vl import Qwen2VL
from mechvrp.plugins import load_plugins

__all__ = ["Family", "Grid", "Modules", "families", "family_of", "register_family"]

_FAMILIES: dict[str, Family] = {}


def register_family(family: Family, *, replace: bool = False) -> Family:
    """Make a family known for its ``model_types`` (``replace=True`` to override one that exists)."""
    if not isinstance(family, Family):
        raise InputError(f"expected a mechvrp.models.Family; got {family!r:.60}")
    types = getattr(family, "model_types", None)
    if not isinstance(types, tuple) or not types or not all(isinstance(one, str) for one in types):
        raise InputError(
            f"model_types of {type(family).__name__} are a tuple of config.model_type, such as "
            f"('my_vlm',); got {types!r:.60}"
        )
    if not isinstance(getattr(family, "name", None), str):
        raise InputError(f"{type(family).__name__} has no name")
    taken = sorted(set(family.model_types) & set(_FAMILIES))
    if taken and not replace:
        raise InputError(
            f"model types {taken} already have a family; pass replace=True to replace it"
        )
    _FAMILIES.update(dict.fromkeys(family.model_types, family))
    return family


def families() -> dict[str, Family]:
    """Every known ``config.model_type`` and its family, those of other packages included."""
    load_plugins("mechvrp.families")
    return dict(_FAMILIES)


def family_of(config: Any) -> Family | None:
    """The registered family that describes this config; ``None``: its structure has to be looked at."""
    load_plugins("mechvrp.families")
    family = _FAMILIES.get(getattr(config, "model_type", None) or "")
    return family if family is not None and family.describes(config) else None


for _family in (Llava(), PaliGemma(), Qwen2VL()):
    register_family(_family)
