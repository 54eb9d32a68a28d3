"""A set of nodes as interventions: everything else ablated, or the nodes themselves."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mechvrp.circuits.nodes import CircuitNode
from mechvrp.circuits.stand_ins import Sparing, StandIns
from mechvrp.circuits.token_groups import GROUPS
from mechvrp.errors import InputError
from mechvrp.patching.interventions import Intervention
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM
    from mechvrp.models.tokens import Positions

__all__ = ["Ablated", "node_edits", "node_sites"]

#: What is ablated: all that is not in the circuit, or the circuit.
Ablated = Literal["rest", "circuit"]


def node_sites(model: VLM, nodes: Collection[CircuitNode]) -> list[Site]:
    """The sites that `node_edits` edits: heads and MLPs of all layers, and those of inputs and units."""
    found = {Site(part, layer) for part in ("z", "mlp_out") for layer in range(model.n_layers)}
    found |= {node.site for node in nodes}
    return sorted(found, key=lambda site: site.order)


def node_edits(
    stand_ins: StandIns, nodes: Collection[CircuitNode], ablate: Ablated = "rest"
) -> tuple[Sparing, ...]:
    """Interventions that ablate all but some nodes, or these nodes.

    With ``ablate="rest"``: every head and every MLP that is not among the nodes, at every position; of an
    MLP of which some neurons are nodes, the others. The decoder's input and the residual stream are
    ablated only where nodes name parts of them: then their other parts are (at the other groups of
    positions, and in the other dimensions of that layer). Nodes are computed from what the ablation has
    left before them.

    Args:
        stand_ins: what is put in, for the batch.
        nodes: checked against the model; none of them: everything is ablated, or nothing.
        ablate: see above.
    """
    if ablate not in ("rest", "circuit"):
        raise InputError(f"ablate is 'rest' or 'circuit'; got {ablate!r}")
    model = stand_ins.model
    sites = node_sites(model, nodes)
    stand_ins.need(sites if ablate == "rest" else {node.site for node in nodes})
    found = []
    for site in sites:
        spared = _spared(model, site, nodes)
        if ablate == "circuit":
            spared = _named(model, site, nodes).logical_not()
        where = _touching(spared)
        if where is not None:
            inner: Intervention = stand_ins.at(site)
            found.append(Sparing(site, where, inner=inner, spared=spared))
    return tuple(found)


def _named(model: VLM, site: Site, nodes: Collection[CircuitNode]) -> Tensor:
    """Which parts of a site are nodes: boolean ``[group]``, or ``[group, head or unit]``."""
    sizes = {"z": model.n_heads, "neurons": model.d_mlp, "resid_post": model.d_model}
    size = sizes.get(site.component)
    shape = (len(GROUPS),) if size is None else (len(GROUPS), size)
    found = torch.zeros(shape, dtype=torch.bool)
    for node in nodes:
        if node.site == site:
            for group in node.groups:
                at = GROUPS.index(group)
                found[at if node.index is None else (at, node.index)] = True
    return found


def _spared(model: VLM, site: Site, nodes: Collection[CircuitNode]) -> Tensor:
    """Which parts of a site stay when all that is not in the circuit is ablated."""
    named = _named(model, site, nodes)
    if site.component == "mlp_out":
        # Where neurons are nodes, the others of the MLP are ablated instead of all of it.
        return named | _named(model, Site("neurons", site.layer), nodes).any(-1)
    if site.component in ("neurons", "resid_post"):
        return named | ~named.any(-1, keepdim=True)  # groups that name none are left alone here
    return named


def _touching(spared: Tensor) -> Positions | None:
    """The fewest positions by name that hold all that is ablated; None where nothing is."""
    whole = spared if spared.ndim == 1 else spared.all(-1)
    touched = {group for group, kept in zip(GROUPS, whole.tolist(), strict=True) if not kept}
    if not touched:
        return None
    if len(touched) == 1 and "template" not in touched and "question" not in touched:
        return touched.pop()
    return "all" if "image" in touched else "text"
