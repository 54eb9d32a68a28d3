"""Variants: what a sweep runs, and from where each one differs from the clean run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mechvrp.errors import InputError, MechVRPError, SiteError
from mechvrp.models.checks import check_batches, listing
from mechvrp.patching.interventions import Edits, Intervention, flatten
from mechvrp.patching.selection import Selected, select
from mechvrp.tracing import access
from mechvrp.tracing.sites import IMAGE_KEYS, Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["Variant", "Variants", "as_variants", "choose", "in_front"]

#: What a sweep takes: interventions (one or several in order) for each variant, by name or not.
Variants = Mapping[Any, Edits] | Sequence[Edits]


@dataclass(frozen=True, eq=False)
class Variant:
    """Some interventions that are made together.

    Attributes:
        name: its label in the result.
        edits: in the order of computation; those at one site in the order given.
        entry: the first block that has to be run again, ``n_layers`` if none has; -1: from the
            beginning, since the vision tower is edited.
        first: the first position of the padded sequence at which it can differ from the clean run.
        rows: whether it edits whole rows of attention weights.
        mlp_only: whether the block ``entry`` computes what it computed up to the end of its attention.
        queries: whether it edits queries of the last block, or what they attend to.
        anew: whether it edits what the first block is given: embeddings, or image features behind the
            vision tower.
        error: why it cannot be run, "" if it can.
    """

    name: Any
    edits: tuple[Intervention, ...]
    entry: int = 0
    first: int = 0
    rows: bool = False
    mlp_only: bool = False
    queries: bool = False
    anew: bool = False
    error: str = ""

    @property
    def description(self) -> str:
        return "; ".join(edit.describe() for edit in self.edits) or "clean"


def as_variants(model: VLM, batch: Batch, given: Variants) -> list[Variant]:
    """Names, order of edits and entry points; an unusable variant carries its error.

    Raises:
        InputError: there are none, or something is not an intervention.
    """
    if isinstance(given, Intervention):
        raise InputError(
            f"a sweep takes a list of variants (or variants by name); got {given!r} alone: put it in a list"
        )
    check_batches(model, batch)
    named = given.items() if isinstance(given, Mapping) else enumerate(listing("variants", given))
    firsts: dict[tuple[bool, str], int] = {}  # of positions by name, which many variants share
    found = [_variant(model, batch, _label(name), flatten(edits), firsts) for name, edits in named]
    if not found:
        raise InputError("a sweep needs at least one variant")
    return found


def _label(name: Any) -> Any:
    """A name as the result's coordinate has it: text and numbers as they are, all else as text."""
    return name if isinstance(name, (str, int, float)) else str(name)


def choose(edit: Intervention, model: VLM, batch: Batch) -> Selected:
    """The tokens an edit touches at a site of the decoder or the projector."""
    # Only its device matters there, and indices are moved where they are used.
    return select(edit.site.check(model), edit.positions, torch.empty(0), model, batch)


def _first(edit: Intervention, model: VLM, batch: Batch, known: dict[tuple[bool, str], int]) -> int:
    """The first position that an edit behind the vision tower touches."""
    name = edit.positions
    if not isinstance(name, str):
        return min(choose(edit, model, batch).position.tolist(), default=batch.tokens.length)
    key = (edit.site.component == "projected", name)  # there "all" are all image tokens
    if key not in known:
        known[key] = min(choose(edit, model, batch).position.tolist(), default=batch.tokens.length)
    return known[key]


def _variant(
    model: VLM,
    batch: Batch,
    name: Any,
    edits: tuple[Intervention, ...],
    firsts: dict[tuple[bool, str], int],
) -> Variant:
    try:
        for edit in edits:
            access.check_available(model, edit.site.check(model))
            if edit.site.component in IMAGE_KEYS:
                raise SiteError(
                    f"{edit.site}: what a sweep shares is told by prompt positions, and these are keys of the "
                    "image: edit them in a trace each, t.apply(...)"
                )
            edit.check(model, batch)
        ordered = tuple(sorted(edits, key=lambda e: e.site.check(model).order))
        entries = [_entry(edit.site.check(model), model) for edit in ordered]
        entry = min(entries, default=model.n_layers)
        first = batch.tokens.length
        if entry >= 0:
            first = min([first, *(_first(edit, model, batch, firsts) for edit in ordered)])
        rows = any(edit.site.component == "pattern" for edit in ordered)
        middle = Site("resid_mid", min(max(entry, 0), model.n_layers - 1)).order
        mlp_only = (
            all(edit.site.check(model).order >= middle for edit in ordered)
            and 0 <= entry < model.n_layers
            and access.has_resid_mid(model, entry)
        )
        queries = any(
            edit.site.component in ("q", "pattern")
            and edit.site.check(model).layer == model.n_layers - 1
            for edit in ordered
        )
        anew = entry == 0 and any(in_front(edit) for edit in ordered)
        first = 0 if entry < 0 else first
        return Variant(name, ordered, entry, first, rows, mlp_only, queries, anew)
    except MechVRPError as error:
        return Variant(name, edits, error=f"{type(error).__name__}: {error}")


def in_front(edit: Intervention) -> bool:
    """Whether an edit is of what the first block's input is made of, behind the vision tower."""
    return edit.site.kind.where in ("embed", "projector")


def _entry(site: Site, model: VLM) -> int:
    if site.kind.where == "vision":
        return -1
    if site.kind.where in ("embed", "projector"):
        return 0 if model.family.takes_features(model.model) else -1
    if site.component == "logits":
        return model.n_layers
    layer = site.layer or 0
    return layer + 1 if site.component == "resid_post" else layer
