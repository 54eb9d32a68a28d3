"""How a mode lays out the tokens of its variants, and the edits that a run of it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechvrp.patching.interventions import Intervention
from mechvrp.patching.selection import Selected, flat, select, unflat
from mechvrp.patching.variants import choose
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["Given", "Joined", "LastOnly", "Layout", "PackedEdit"]


class _Fitting:
    """An ``Edit`` of ``Trace.apply`` that fits by construction, or was checked with its variant."""

    def check(self, model: VLM, batch: Batch) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Layout:
    """How a mode lays out the tokens of its variants.

    Attributes:
        mode: of the group.
        variants: how many there are in the pass.
        examples, length: of the batch.
        first: the first position that is there.
        cut: the site from which on nothing but the last position is needed.
        mlp: the block whose attention is not run, -1 if there is none.
        mlp_first: the first position at which its MLP is run.
    """

    mode: str
    variants: int
    examples: int
    length: int
    first: int
    cut: Site
    mlp: int = -1
    mlp_first: int = 0

    @property
    def room(self) -> int:
        return self.length - self.first

    def index(self, slot: int, chosen: Selected, total: int, site: Site) -> Tensor:
        """Where the chosen tokens of the variant in ``slot`` are, among ``total`` flat tokens."""
        if site.kind.where in ("vision", "projector"):
            return chosen.index + slot * (total // self.variants)
        room = self._room_at(site)
        position = chosen.position - (self.length - room)
        if self.mode == "branches":
            row = chosen.sample * self.variants * room
            return row + slot * room + position
        return (slot * self.examples + chosen.sample) * room + position

    def _room_at(self, site: Site) -> int:
        """How many positions there are at a site."""
        if self.only_last(site):
            return 1
        if site.layer == self.mlp and site.component in ("resid_mid", "neurons", "mlp_out"):
            return self.length - self.mlp_first
        return self.room

    def only_last(self, site: Site) -> bool:
        """Whether the site's values are made of the last position alone: behind the last attention."""
        return site.order >= self.cut.order


@dataclass(frozen=True, eq=False)
class PackedEdit(_Fitting):
    """The edits of all variants of a pass at one site (an ``Edit`` of ``Trace.apply``)."""

    site: Site
    parts: tuple[tuple[int, Intervention], ...]
    layout: Layout
    batch: Batch

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        tokens = flat(self.site, value).clone()
        for slot, edit in self.parts:
            if self.site.kind.where == "vision":
                # The tower's layout is its own: one variant's share of it, as if alone.
                share = value[: len(value) // self.layout.variants]
                chosen = select(self.site, edit.positions, share, model, self.batch)
            else:
                chosen = choose(edit, model, self.batch)
            if self.layout.only_last(self.site):
                edit.require(chosen, model, self.batch)  # what is left out must not hide an error
                chosen = chosen.where(chosen.position == self.layout.length - 1)
                if not len(chosen):
                    continue
            at = self.layout.index(slot, chosen, len(tokens), self.site).to(value.device)
            tokens[at] = edit.tokens(tokens[at], chosen, model, self.batch)
        return unflat(self.site, tokens, value)


@dataclass(frozen=True, eq=False)
class LastOnly(_Fitting):
    """Drops all but the last position of each sequence (an ``Edit`` of ``Trace.apply``).

    Behind the attention of the last block every position is on its own, and only the last one's logits
    are wanted: the others' MLP need not be run.
    """

    site: Site
    layout: Layout

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        if self.layout.mode == "branches":
            return value.unflatten(1, (self.layout.variants, -1))[:, :, -1]
        return value[:, -1:]


@dataclass(frozen=True, eq=False)
class Given(_Fitting):
    """Puts a value that is known in a site's place (an ``Edit`` of ``Trace.apply``)."""

    site: Site
    value: Tensor

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        return self.value


@dataclass(frozen=True, eq=False)
class Joined(_Fitting):
    """Puts positions in front that were not run (an ``Edit`` of ``Trace.apply``)."""

    site: Site
    before: Tensor

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        return torch.cat([self.before, value], dim=1)
