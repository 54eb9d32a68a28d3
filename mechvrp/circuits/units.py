"""What a ranking ranks: dimensions, neurons, heads or image features of one or several sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mechvrp.errors import SiteError
from mechvrp.patching.interventions import Edits, zero
from mechvrp.patching.replacing import replace
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    import torch

    from mechvrp.models import VLM
    from mechvrp.models.tokens import Positions

__all__ = ["UNIT_KINDS", "UnitKind", "edit_units", "kind_of", "units_at"]

UnitKind = Literal["residual dimension", "MLP neuron", "head", "image feature"]


@dataclass(frozen=True)
class _Kind:
    """Where units of a kind are, and how they are addressed there."""

    components: tuple[str, ...]
    heads: bool = False
    positions: Positions = "last"


#: Kinds of units. A head is its output z; an image feature is a dimension of the projected image tokens.
UNIT_KINDS: dict[UnitKind, _Kind] = {
    "residual dimension": _Kind(("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")),
    "MLP neuron": _Kind(("neurons",)),
    "head": _Kind(("z",), heads=True),
    "image feature": _Kind(("projected",), positions="image"),
}


def kind_of(site: Site) -> UnitKind:
    """The kind of a site's units.

    Raises:
        SiteError: a site whose units cannot be ranked.
    """
    for kind, entry in UNIT_KINDS.items():
        if site.component in entry.components:
            return kind
    known = ", ".join(name for entry in UNIT_KINDS.values() for name in entry.components)
    raise SiteError(f"units of {site} cannot be ranked; those of {known} can")


def units_at(model: VLM, site: Site) -> int:
    """How many units a site has."""
    kind = kind_of(site)
    return {"MLP neuron": model.d_mlp, "head": model.n_heads}.get(kind, model.d_model)


def edit_units(
    site: Site,
    units: Sequence[int] | np.ndarray,
    value: torch.Tensor | None = None,
    *,
    positions: Positions | None = None,
) -> Edits:
    """Set some units of a site to zero, or to a value.

    Args:
        site: of a kind that `kind_of` knows.
        units: unit numbers; none of them is no edit.
        value: what broadcasts to the site's value, ``[..., unit]`` (``[..., head, d_head]`` for heads);
            None: zero.
        positions: as ``mechvrp.zero``; by default the last prompt token, and all image tokens for image
            features.
    """
    kind = UNIT_KINDS[kind_of(site)]
    chosen = [int(unit) for unit in units]
    if not chosen:
        return ()
    which = {"heads": chosen} if kind.heads else {"units": chosen}
    at = kind.positions if positions is None else positions
    if value is None:
        return zero(site, positions=at, **which)
    return replace(site, value, positions=at, **which)
