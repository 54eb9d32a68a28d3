"""Path patching: what one component does to another directly, all between them held still.

Wang et al. 2023 (arXiv 2211.00593, section 3.1) and Goldowsky-Dill et al. 2023 (arXiv 2304.05969). Three
runs: the one patched into; the same with the sender's value from the other run and every attention and
MLP between held at their own values, in which each receiver is read as it computes from that; and the
first again with the receivers' values put in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from mechvrp.errors import InputError, SiteError
from mechvrp.models.checks import listing
from mechvrp.patching.alignment import check_aligned, check_direction
from mechvrp.patching.changes import mean_changes
from mechvrp.patching.grids import values_of
from mechvrp.patching.interventions import Edits, Intervention, flatten, zero
from mechvrp.patching.measures import Measuring, fixed_target, one_measure, towards
from mechvrp.patching.replacing import replace
from mechvrp.patching.sweeping import MEMORY, sweep
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    import xarray

    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["Node", "path_patching"]

_LOGITS = "logits of the unpatched run"  # no name that a user would give a measure
_ATTENTION = ("q", "k", "v", "z", "attn_out")
_MLP = ("neurons", "mlp_out")


@dataclass(frozen=True)
class Node:
    """A component at an end of a path.

    Attributes:
        site: hook name or ``Site``. Senders: ``resid_pre``, ``z``, ``attn_out``, ``neurons``,
            ``mlp_out``; receivers: ``q``, ``k``, ``v``, ``z``, ``attn_out``, ``neurons``, ``mlp_out``, or
            ``logits`` for the direct way to the output.
        positions, heads, units: of the site, by default all.
    """

    site: str | Site
    positions: Positions = "all"
    heads: int | Sequence[int] | None = None
    units: int | Sequence[int] | None = None

    def edit(self, value: Tensor) -> Edits:
        """Put that value in this node's place."""
        return replace(
            self.site, value, positions=self.positions, heads=self.heads, units=self.units
        )

    def __str__(self) -> str:
        parts = [str(Site.parse(self.site))]
        parts += [
            f"{name} {given}"
            for name, given in (("head", self.heads), ("unit", self.units))
            if given is not None
        ]
        if self.positions != "all":
            parts.append(f"at {self.positions}")
        return " ".join(parts)


def path_patching(
    model: VLM,
    clean: Batch,
    corrupted: Batch,
    senders: Sequence[Node],
    receivers: Sequence[Node | Sequence[Node]],
    *,
    direction: Literal["denoise", "noise"] = "noise",
    measure: Any = "logit_diff",
    target: Any = "own",
    foil: Any = None,
    memory: int = MEMORY,
    n_resamples: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> xarray.Dataset:
    """What each sender does to each receiver (or to several together) without detours.

    Args:
        model: from ``mechvrp.load``.
        clean, corrupted: aligned batches, as in ``activation_patching``.
        senders: whose value comes from the other run.
        receivers: what gets to see it; a list among them is patched together.
        direction: ``"noise"`` (as in the papers): corrupted values put into the clean run;
            ``"denoise"``: the other way.
        measure, target, foil, memory, progress: as ``sweep``; the target ``"own"`` is the clean run's
            answer.
        n_resamples, seed: of the bootstrap over images.

    Returns:
        ``value`` [sender, receiver, example] and ``unpatched`` [example]; ``change`` [sender, receiver],
        the mean difference, with ``change_low`` and ``change_high``. NaN where a receiver does not come
        behind the sender.

    Raises:
        InputError, SiteError: batches that are not aligned, a node that cannot send or receive, or no
            receiver behind any sender.
    """
    import xarray as xr

    check_aligned(clean, corrupted)
    check_direction(direction)
    one_measure(measure, "path patching", of_logits=True)
    senders = _nodes(senders)
    into, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    given = [receivers] if isinstance(receivers, (Node, str)) else receivers
    groups = [_nodes(r) for r in given]
    pairs = _checked(model, into, senders, groups)

    frozen = [Site(c, i) for i in range(model.n_layers) for c in ("attn_out", "mlp_out")]
    starts = [Site("resid_pre", i) for i in range(model.n_layers)]
    held, own_logits = values_of(model, into, [*frozen, *starts])
    wanted = [Site.parse(node.site).check(model) for node in senders]
    values, other_logits = values_of(model, source, wanted)
    logits_of_clean = own_logits if direction == "noise" else other_logits
    ids = fixed_target(model, clean, logits_of_clean, target)
    chosen = towards(measure, "path patching", logits_of_clean, of_logits=True)

    variants: dict[tuple[int, int], Edits] = {}
    direct: dict[tuple[int, int], Tensor] = {}
    for s, sender in enumerate(senders):
        behind = [r for i, r in pairs if i == s]
        sites = {Site.parse(n.site).check(model) for r in behind for n in groups[r]}
        received = _received(model, into, sender, values[wanted[s]], held, sites)
        for r in behind:
            if _site(model, groups[r][0]).component == "logits":
                direct[s, r] = received[_site(model, groups[r][0])][:, -1].float()
            else:
                variants[s, r] = [node.edit(received[_site(model, node)]) for node in groups[r]]
    options: dict[str, Any] = {"target": ids, "foil": foil, "progress": progress}
    (name,) = chosen
    both = {**chosen, _LOGITS: "logits"}
    found = sweep(model, into, list(variants.values()) or [[]], both, memory=memory, **options)
    unpatched = found[f"base_{name}"].values
    value = np.full((len(senders), len(groups), len(into)), np.nan)
    for (s, r), row in zip(variants, found[name].values, strict=False):
        value[s, r] = row
    if direct:
        base = torch.from_numpy(found[f"base_{_LOGITS}"].values)
        measuring = Measuring(model, into, chosen, base, ids, foil)
        for (s, r), logits in direct.items():
            value[s, r] = measuring(logits.cpu()[None])[name][0].numpy()
    change, low, high = (np.full(value.shape[:2], np.nan) for _ in range(3))
    where = tuple(np.array(sorted(pairs)).T)
    change[where], low[where], high[where] = mean_changes(
        value[where] - unpatched, clean, n_resamples=n_resamples, seed=seed
    )
    dims = ("sender", "receiver")
    return xr.Dataset(
        {
            "value": ((*dims, "example"), value),
            "unpatched": ("example", unpatched),
            "change": (dims, change),
            "change_low": (dims, low),
            "change_high": (dims, high),
        },
        {
            "sender": [str(node) for node in senders],
            "receiver": [" + ".join(str(node) for node in group) for group in groups],
            "example": range(len(into)),
        },
        {"model": model.name, "measure": name, "direction": direction, "seed": seed},
    )


def _nodes(given: Any) -> list[Node]:
    """Nodes from one or several of them, or of names of sites."""
    many = [given] if isinstance(given, (Node, str, Site)) else listing("ends of paths", given)
    found = [Node(node) if isinstance(node, (str, Site)) else node for node in many]
    for node in found:
        if not isinstance(node, Node):
            raise InputError(
                f"ends of paths are mechvrp.patching.Node(...) or hook names; got {node!r}"
            )
    return found


def _site(model: VLM, node: Node) -> Site:
    return Site.parse(node.site).check(model)


def _checked(
    model: VLM, batch: Batch, senders: Sequence[Node], groups: list[list[Node]]
) -> list[tuple[int, int]]:
    """Which receivers come behind which senders."""
    if not senders or not groups or not all(groups):
        raise InputError("path patching needs at least one sender and one receiver")
    for node in senders:
        if _site(model, node).component not in ("resid_pre", "z", "attn_out", *_MLP):
            raise SiteError(
                f"{node} cannot send: senders are resid_pre, z, attn_out, neurons and mlp_out"
            )
    for group in groups:
        for node in group:
            component = _site(model, node).component
            if component not in (*_ATTENTION, *_MLP, "logits"):
                raise SiteError(
                    f"{node} cannot receive: receivers are q, k, v, z, attn_out, neurons, mlp_out and "
                    "logits"
                )
            if component == "logits" and node != Node(node.site):
                raise SiteError(
                    f"{node}: the logits that are measured are the last position's, all of them"
                )
            if component == "logits" and len(group) > 1:
                raise SiteError("the direct way to the logits is a receiver of its own")
    for node in [*senders, *(n for group in groups for n in group)]:
        if _site(model, node).component != "logits":
            _like(model, node).check(model, batch)
    pairs = [
        (s, r)
        for s, sender in enumerate(senders)
        for r, group in enumerate(groups)
        if all(_behind(_site(model, sender), _site(model, node)) for node in group)
    ]
    if not pairs:
        raise InputError("no receiver comes behind any sender")
    return pairs


def _like(model: VLM, node: Node) -> Intervention:
    """An edit with this node's layer, positions, heads and units, to be checked."""
    (edit,) = flatten(zero(node.site, positions=node.positions, heads=node.heads, units=node.units))
    return edit


def _behind(sender: Site, receiver: Site) -> bool:
    """Whether what the sender writes is what the receiver reads."""
    if receiver.component == "logits":
        return True
    first, second = sender.layer or 0, receiver.layer or 0
    if sender.component == "resid_pre":
        return second >= first
    if first == second:
        return sender.component in _ATTENTION and receiver.component in _MLP
    return second > first


def _received(
    model: VLM,
    batch: Batch,
    sender: Node,
    value: Tensor,
    held: dict[Site, Tensor],
    receivers: set[Site],
) -> dict[Site, Tensor]:
    """Each receiver's value when only the sender's has changed, attention and MLPs held."""
    import nnsight

    site = _site(model, sender)
    first = site.layer or 0
    last = max(model.n_layers if r.layer is None else r.layer + 1 for r in receivers)
    stages = [(site, "send")]
    for layer in range(first, min(last, model.n_layers)):
        stages += [(receiver, "read") for receiver in receivers if receiver.layer == layer]
        for written in (Site("attn_out", layer), Site("mlp_out", layer)):
            if written.order > site.order and not _writes(site, written):
                stages.append((written, "hold"))
    # At one site: what the sender puts in, then what is read, then what is held.
    ranks = {"send": 0, "read": 1, "hold": 2}
    stages.sort(key=lambda stage: (stage[0].order, ranks[stage[1]]))
    edit = sender.edit(value)
    blocks: Any = model.envoy.get(model.modules.layers)
    state = held[Site("resid_pre", first)]
    with Trace(model, batch, options={"logits_to_keep": 1}) as t:
        for layer in range(first):
            blocks[layer].skip(state)
        found: dict[Site, Tensor] = {}
        for stage, what in stages:
            if what == "send":
                t.apply(edit)
            elif what == "read":
                found[stage] = t[stage].clone()
            else:
                t[stage] = held[stage]
        for receiver in receivers:
            if receiver.layer is None:
                found[receiver] = t[receiver].clone()
        nnsight.save(found)
    return found


def _writes(sender: Site, written: Site) -> bool:
    """Whether a sender's value reaches the residual stream through that write, which is not held."""
    if sender.layer != written.layer:
        return False
    return (sender.component in _ATTENTION and written.component == "attn_out") or (
        sender.component in _MLP and written.component == "mlp_out"
    )
