"""Gradients of a measure of the answer by what is at a site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mechvrp.circuits.units import UNIT_KINDS, kind_of
from mechvrp.errors import InputError, NumericalError, UnavailableError
from mechvrp.patching.measures import Measuring
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch

__all__ = ["ANSWERS", "Answer", "answer_of", "check_answer", "gradients_at", "unit_sums"]

#: Whose answer is measured: the one the model gives, or the right one.
Answer = Literal["own", "right"]
ANSWERS: tuple[Answer, ...] = ("own", "right")
_MEASURES = ("logit_diff", "logit", "probability")


@dataclass(frozen=True)
class _Found:
    """Values and gradients by site, and last-position logits ``[example, d_vocab]``."""

    values: dict[Site, Tensor]
    gradients: dict[Site, Tensor]
    logits: Tensor


def check_answer(measure: str, target: str) -> None:
    """Raise ``InputError`` unless these are a measure with a gradient, and an answer."""
    if measure not in _MEASURES or target not in ANSWERS:
        raise InputError(
            f"measure={measure!r} of target={target!r}; expected one of {', '.join(_MEASURES)}, of "
            f"{' or '.join(ANSWERS)}"
        )


def answer_of(samples: Sequence[Sample], target: str) -> None:
    """Raise ``UnavailableError`` if the right answer is asked for and a sample has none."""
    if target == "right" and (without := [s for s in samples if not s.answer.strip()]):
        raise UnavailableError(
            f"target='right', and {without[0]!r} has no answer; use target='own'"
        )


def gradients_at(
    model: VLM,
    batch: Batch,
    sites: Sequence[Site],
    measure: str,
    target: Any,
    *,
    clean: Tensor | None = None,
    start: Tensor | None = None,
) -> _Found:
    """Gradients of a measure's sum over examples by the values of some sites of one component.

    Args:
        model: from ``mechvrp.load``.
        batch: from ``model.encode``.
        sites: of the blocks, or ``projected``.
        measure: a name of ``mechvrp.patching.MEASURES`` with a gradient.
        target: as ``mechvrp.sweep``.
        clean: logits ``[example, d_vocab]`` that the target is chosen by; by default this run's.
        start: the value that ``projected`` is given, by default its own.
    """
    import nnsight

    # From here on there is a graph, whether or not weights have gradients: none through the vision tower.
    entry = sites[0] if sites[0].kind.where == "projector" else Site("resid_pre", 0)
    ordered = sorted((site for site in sites if site != entry), key=lambda site: site.order)
    with Trace(model, batch, grad=True, options={"logits_to_keep": 1}) as t:
        value = t[entry] if start is None else start
        leaf = value.detach().clone().requires_grad_()
        t[entry] = leaf
        kept = [leaf]
        for site in ordered:
            value = t[site]
            t.put(site, value)  # what is read may be a view beside the path to the logits
            kept.append(value)
        nnsight.save(kept)
        logits = t.logits.save()
    with torch.enable_grad():
        last = logits[:, -1].float()
        measuring = Measuring(
            model, batch, {measure: measure}, last.detach() if clean is None else clean, target
        )
        total = measuring.of(measure, last[None]).sum()
        gradients = torch.autograd.grad(total, kept)
    values, found = {}, {}
    for site, value, gradient in zip([entry, *ordered], kept, gradients, strict=True):
        if site in sites:
            if not bool(torch.isfinite(gradient).all() and torch.isfinite(value).all()):
                raise NumericalError(
                    f"{site} or the gradient of {measure} there holds NaN or infinite values"
                )
            values[site], found[site] = value.detach(), gradient.detach()
    return _Found(values, found, last.detach())


def unit_sums(site: Site, products: Tensor, batch: Batch) -> Tensor:
    """Products at a whole site summed over what each unit is edited at, ``[example, unit]``.

    That is the last position (of a head all its dimensions), or all image tokens.
    """
    if site.component != "projected":
        last = products[:, -1].float()
        return last.sum(-1) if UNIT_KINDS[kind_of(site)].heads else last
    counts = torch.tensor([len(tokens) for tokens in batch.tokens.images])
    rows = torch.cat([tokens.feature for tokens in batch.tokens.images]).to(products.device)
    example = torch.repeat_interleave(torch.arange(len(batch)), counts).to(products.device)
    sums = torch.zeros(len(batch), products.shape[-1], device=products.device)
    return sums.index_add_(0, example, products[rows].float())
