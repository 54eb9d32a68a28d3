"""What is known of a model by its structure: found, then verified by runs, or not there for a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mechvrp.errors import UnavailableError
from mechvrp.models.families.base import Modules
from mechvrp.models.structure.layouts import Layout, NoGrid

__all__ = ["FIELDS", "Facts", "FoundModules", "component_of"]

#: The field of ``Modules`` that each component is read through.
FIELDS = {
    "projected": "projector",
    "vision_resid_post": "vision_layers",
    "z": "o",
    "attn_out": "attn_write",
    "mlp_out": "mlp_write",
}


@dataclass(frozen=True, repr=False)
class FoundModules(Modules):
    """Paths that were found. Asking for one that was not raises ``UnavailableError`` with the reason."""

    absent: Mapping[str, str] = field(default_factory=dict)

    def __getattribute__(self, name: str) -> Any:
        absent = object.__getattribute__(self, "__dict__").get("absent", {})
        if name in absent:
            raise UnavailableError(absent[name])
        return object.__getattribute__(self, name)


@dataclass(eq=False)
class Facts:
    """What holds of a model.

    Attributes:
        kind: the class of the model.
        modules: where its parts are.
        reasons: by component, the layers that do not have it and why; under ``None`` why none has.
        how: by component, how it was verified.
        n_layers: how many blocks there are.
        attention: which way its prompt attends.
        image_token: the id image features are written over, ``None`` if they are not in the sequence.
        layout: how its image tokens lie.
        projected_field: of the projector's output.
        required: keys that a batch must hold.
        positions: ``"rope"`` (the model's own rule for images), ``"counted"`` or ``"own"`` (not given).
        between: whether something is added to the residual stream between blocks.
        resumes: whether a run from a block on is exact.
        forgets_image: whether such a run needs no pixels.
        crossed: by block that attends to the image's own keys, the modules of its keys and values.
        soft_cap: of its logits, ``None`` if they have none.
        notes: what else was seen, by subject.
    """

    kind: str
    modules: FoundModules
    reasons: dict[str, dict[int | None, str]]
    how: dict[str, str]
    n_layers: int
    attention: str = "causal"
    image_token: int | None = None
    layout: Layout = field(default_factory=NoGrid)
    projected_field: str = ""
    required: tuple[str, ...] = ()
    positions: str = "own"
    between: bool = False
    resumes: bool = False
    forgets_image: bool = False
    crossed: dict[int, tuple[str, str]] = field(default_factory=dict)
    soft_cap: float | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def unavailable(self, component: str, layer: int | None = None) -> str:
        """Why a component is not there, "" if it is."""
        own = self.reasons.get(component, {})
        return own.get(None, "") or own.get(layer, "")


def component_of(field_name: str) -> str:
    """The component that a field of ``Modules`` is read for."""
    return {v: k for k, v in FIELDS.items()}.get(field_name, field_name)
