"""Trials: the ways in which a sweep saves work, tried once on a model before they are believed.

For hand-written families they are known to be exact. A family that was found by structure has a probe,
on which every way is compared with whole forwards; what differs, or fails, is not used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mechvrp.errors import MechVRPError, UnavailableError
from mechvrp.models.structure.logits import logit_gap
from mechvrp.models.structure.sameness import code_of
from mechvrp.patching.interventions import scale, zero
from mechvrp.tracing import access
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.patching.planning import Mode
    from mechvrp.patching.variants import Variant

__all__ = ["EXACT", "Trial", "trial"]

#: By how much logits may differ from a whole forward's, as a share of the largest.
_TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-9, torch.float16: 5e-3}
#: Results that are kept of a model. Each holds the hooks it was worked out under, with all they hold.
_KEPT = 8
_FAILURES = (
    MechVRPError,
    RuntimeError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
)


@dataclass(frozen=True)
class Trial:
    """Why a way is not used, "" if it is exact.

    Attributes:
        resume: runs from a block on, over whole sequences.
        split: runs of some positions over the clean run's keys and values.
        cut: the last position alone behind the last block's attention.
    """

    resume: str = ""
    split: str = ""
    cut: str = ""


EXACT = Trial()


def trial(model: VLM) -> Trial:
    """What may be used on a model; worked out at its first sweep, by some thirty forwards of its probe.

    It is worked out again where the model's code is another by then: hooks, methods, attention functions.

    Raises:
        UnavailableError: not even whole forwards give what a trace gives.
    """
    if not model.family.measured:
        return EXACT
    family: Any = model.family
    # A hook or another forward, put on it since, may make inexact what was exact.
    key = (model.attn_implementation, code_of(model.model))
    known: Trial | None = family.tried.pop(key, None)
    if known is None:
        try:
            batch = model.batch(**family.probe)
        except (
            UnavailableError
        ) as error:  # a model that takes no padding has no probe to try them on
            known = Trial(str(error), str(error), str(error))
        else:
            known = _tried(model, batch)
    family.tried[key] = known  # the last one now
    for old in list(family.tried)[:-_KEPT]:
        family.tried.pop(old, None)
    return known


def _tried(model: VLM, batch: Batch) -> Trial:
    whole, parts = _variants(model, batch)
    wrong = _wrong(model, batch, whole, Trial(split="is not tried yet"))
    resume, cut = wrong.get("resume", ""), wrong.get("full", "")
    if resume and not cut:  # then everything is run whole, which few of these were
        cut = _wrong(model, batch, whole, Trial(resume, resume)).get("full", "")
    if cut:
        cut = f"its last block cannot be run for the last position alone ({cut})"
        if still := _wrong(model, batch, whole, Trial(cut, cut, cut)).get("full", ""):
            raise UnavailableError(
                f"{model.name} cannot be swept: whole forwards differ from a trace ({still}). Run the variants "
                "one by one: with mechvrp.trace(model, batch) as t: t.apply(edit)"
            )
        return Trial(cut, cut, cut)
    split = model.family.inseparable()
    if not split:
        found = _wrong(model, batch, parts, Trial())
        split = next((why for mode in ("branches", "suffix") if (why := found.get(mode))), "")
    return Trial(resume, split)


def _variants(model: VLM, batch: Batch) -> tuple[list[Any], list[Any]]:
    """Edits that are run from a block on, and edits of some positions, at every kind of site."""
    last = model.n_layers - 1
    real = int(batch.tokens.attention_mask.sum(-1).min())
    whole: list[Any] = [zero("embed", positions="last")] if _has(model, Site("embed")) else []
    parts: list[Any] = []
    places = ("last", [-2, -1], -real + real // 3, -real)
    kinds = ("resid_pre", "q", "v", "z", "attn_out", "resid_mid", "neurons", "resid_post")
    for i, component in enumerate(kinds):
        for layer in dict.fromkeys((0, min(1, last), last)):
            site = Site(component, layer)
            if not _has(model, site):
                continue
            whole.append(scale(site, 0.5, positions="all"))
            # Each kind at other places in other layers, so that all meet without all being run.
            parts += [scale(site, 0.5, positions=places[(i + layer + j) % 4]) for j in (0, 2)]
    return whole, parts


def _has(model: VLM, site: Site) -> bool:
    try:
        access.check_available(model, site)
    except UnavailableError:
        return False
    return True


def _wrong(model: VLM, batch: Batch, edits: Sequence[Any], allowed: Trial) -> dict[Mode, str]:
    """Modes that do not give what whole forwards give, and by how much; "" is not among the values."""
    from mechvrp.patching.execution import Runner
    from mechvrp.patching.planning import make_plan
    from mechvrp.patching.variants import as_variants

    variants = as_variants(model, batch, list(edits))
    plan = make_plan(model, batch, variants, memory=2**28, allowed=allowed)
    modes = {group.mode for group in plan.groups}
    try:
        runner = Runner(model, batch, plan)
    except _FAILURES as error:
        return dict.fromkeys(modes, f"its clean run fails: {type(error).__name__}: {error}")
    found: dict[Mode, str] = {}
    for group in plan.groups:
        # Those that begin first and last stand for the group.
        chosen = [variants[i] for i in dict.fromkeys((group.variants[0], group.variants[-1]))]
        try:
            logits = runner.run(group, chosen).logits
            for variant, own in zip(chosen, logits, strict=True):
                if why := _differs(model, batch, variant, own):
                    found.setdefault(group.mode, why)
        except _FAILURES as error:
            found.setdefault(group.mode, f"it fails: {type(error).__name__}: {error}")
    return found


def _differs(model: VLM, batch: Batch, variant: Variant, found: torch.Tensor) -> str:
    with Trace(model, batch) as t:
        t.apply(*variant.edits)
        logits = t.logits[:, -1].float().save()
    gap = logit_gap(found, logits)
    if math.isinf(gap):
        return f"{variant.description} masks other logits than a whole forward, or gives no numbers"
    if gap <= _TOLERANCE.get(model.dtype, 5e-2):
        return ""
    return f"{variant.description} differs by {gap:.2g} of the largest logit from a whole forward"
