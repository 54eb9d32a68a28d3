"""How a mode lays out the tokens of its variants, and the edits that a run of it makes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvrp.patching.interventions import Intervention
from mechvrp.patching.planning import Start
from mechvrp.patching.selection import Selected, flat, select, unflat
from mechvrp.patching.variants import choose
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["Fitting", "Given", "Joined", "LastOnly", "Layout", "PackedEdit", "packed"]


class Fitting:
    """An ``Edit`` of ``Trace.apply`` that fits by construction, or was checked with its variant."""

    def check(self, model: VLM, batch: Batch) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Layout:
    """How a mode lays out the tokens of its variants.

    Attributes:
        mode: of the group.
        starts: where each variant of the pass begins, those that begin first in front.
        examples, length: of the batch.
        cut: the site from which on nothing but the last position is needed.
    """

    mode: str
    starts: tuple[Start, ...]
    examples: int
    length: int
    cut: Site

    @property
    def variants(self) -> int:
        return len(self.starts)

    @cached_property
    def rooms(self) -> list[int]:
        """How many positions each variant runs."""
        return [self.length - start.first for start in self.starts]

    def present(self, site: Site) -> int:
        """How many variants have begun when a site of the decoder is computed."""
        if self.mode in ("resume", "full"):
            return self.variants
        return bisect_right(self._orders, site.order)

    def index(self, slot: int, chosen: Selected, total: int, site: Site) -> Tensor:
        """Where the chosen tokens of the variant in ``slot`` are, among ``total`` flat tokens."""
        if site.kind.where in ("vision", "projector"):
            return chosen.index + slot * (total // self.variants)
        room = self._room_at(site, slot)
        position = chosen.position - (self.length - room)
        if self.mode == "branches":
            ends = self._ends(site)
            return chosen.sample * ends[-1] + ends[slot] + position
        return (slot * self.examples + chosen.sample) * room + position

    @cached_property
    def _orders(self) -> list[tuple[int, int, int]]:
        """Of the sites that variants begin with, ascending, as variants are."""
        return [start.site.order for start in self.starts]

    @cached_property
    def _known_ends(self) -> dict[Site, list[int]]:
        return {}

    def _ends(self, site: Site) -> list[int]:
        """Where in a row of branches each variant that has begun ends, behind a 0; worked out once."""
        if site not in self._known_ends:
            rooms = (self._room_at(site, slot) for slot in range(self.present(site)))
            self._known_ends[site] = [0, *accumulate(rooms)]
        return self._known_ends[site]

    @property
    def prefix(self) -> int:
        """Positions whose keys and values are those of the clean run for some variant."""
        return max(start.first for start in self.starts)

    def keys_of(self, slot: int, rows: Float[Tensor, "... key"]) -> Float[Tensor, "... key"]:
        """Attention weights of a variant's queries over the keys of its own whole sequence."""
        if self.mode != "branches":
            return rows
        first, own = self.starts[slot].first, self._own_keys(slot)
        return torch.cat([rows[..., :first], rows[..., own]], dim=-1)

    def with_keys(self, slot: int, rows: Tensor, keys: Tensor) -> Tensor:
        """The inverse of ``keys_of``: the rows of a pass with the variant's own weights in them."""
        if self.mode != "branches":
            return keys
        first, found = self.starts[slot].first, rows.clone()
        found[..., :first], found[..., self._own_keys(slot)] = keys[..., :first], keys[..., first:]
        return found

    def _own_keys(self, slot: int) -> slice:
        begin = self.prefix + sum(self.rooms[:slot])
        return slice(begin, begin + self.rooms[slot])

    def last_queries(self, site: Site) -> tuple[Tensor, Tensor]:
        """Row and column of the last query of each example and variant that has begun, in this order."""
        n = self.present(site)
        if self.mode == "branches":
            ends = torch.tensor(list(accumulate(self.rooms[:n]))) - 1
            return torch.arange(self.examples).repeat_interleave(n), ends.repeat(self.examples)
        room = self.length - min(start.first for start in self.starts)
        if self.mode in ("resume", "full"):
            room = self.length
        rows = torch.arange(n * self.examples)
        return rows, torch.full_like(rows, room - 1)

    def last_weights(
        self, rows: Float[Tensor, "row head key"], site: Site
    ) -> Float[Tensor, "variant example key"]:
        """Weights of ``last_queries``, mean over heads, over the keys of the whole sequence."""
        n, mean = self.present(site), rows.float().mean(1)
        if self.mode != "branches":
            return mean.unflatten(0, (n, self.examples))
        found = mean.unflatten(0, (self.examples, n))
        return torch.stack([self.keys_of(slot, found[:, slot]) for slot in range(n)])

    def _room_at(self, site: Site, slot: int) -> int:
        """How many of a variant's positions there are at a site."""
        start = self.starts[slot]
        if self.only_last(site):
            return 1
        if (
            start.mlp_first >= 0
            and site.layer == start.entry
            and site.component in ("resid_mid", "neurons", "mlp_out")
        ):
            return self.length - start.mlp_first
        return self.length - start.first

    def only_last(self, site: Site) -> bool:
        """Whether the site's values are made of the last position alone: behind the last attention."""
        return site.order >= self.cut.order

    def last(self, value: Tensor, site: Site) -> Tensor:
        """The last position of each variant that came through the attention before ``site``."""
        if self.mode != "branches":
            return value[:, -1:]
        here = sum(start.site.order < site.order for start in self.starts)
        ends = torch.tensor(list(accumulate(self.rooms[:here])), device=value.device) - 1
        return value[:, ends]


@dataclass(frozen=True, eq=False)
class PackedEdit(Fitting):
    """The edits of all variants of a pass at one site (an ``Edit`` of ``Trace.apply``)."""

    site: Site
    parts: tuple[tuple[int, Intervention], ...]
    layout: Layout
    batch: Batch

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        tokens, own = flat(self.site, value), False
        known: dict[str, Selected] = {}
        for slot, edit in self.parts:
            if self.site.kind.where == "vision":
                # The tower's layout is its own: one variant's share of it, as if alone.
                share = value[: len(value) // self.layout.variants]
                chosen = select(self.site, edit.positions, share, model, self.batch)
            elif isinstance(edit.positions, str):  # the same tokens for many variants
                if edit.positions not in known:
                    known[edit.positions] = choose(edit, model, self.batch)
                chosen = known[edit.positions]
            else:
                chosen = choose(edit, model, self.batch)
            if self.layout.only_last(self.site):
                edit.require(chosen, model, self.batch)  # what is left out must not hide an error
                chosen = chosen.where(chosen.position == self.layout.length - 1)
                if not len(chosen):
                    continue
            at = self.layout.index(slot, chosen, len(tokens), self.site).to(value.device)
            # One behind the other, as all of a row's are.
            run = len(at) > 0 and bool((at.diff() == 1).all())
            if run and len(at) == len(tokens):
                tokens, own = self._edited(tokens, slot, edit, chosen, model), True
                continue
            tokens, own = (tokens if own else tokens.clone()), True
            where = slice(int(at[0]), int(at[-1]) + 1) if run else at
            tokens[where] = self._edited(tokens[where], slot, edit, chosen, model)
        return unflat(self.site, tokens, value)

    def _edited(
        self, tokens: Tensor, slot: int, edit: Intervention, chosen: Selected, model: VLM
    ) -> Tensor:
        if self.site.component != "pattern":
            return edit.tokens(tokens, chosen, model, self.batch)
        keys = self.layout.keys_of(slot, tokens)
        new = edit.tokens(keys, chosen, model, self.batch)
        return self.layout.with_keys(slot, tokens, new)


def packed(
    edits: Sequence[Iterable[Intervention]], layout: Layout, model: VLM, batch: Batch
) -> list[PackedEdit]:
    """The edits of each variant of a pass, by site, in the order of computation."""
    by_site: dict[Site, list[tuple[int, Intervention]]] = {}
    for slot, own in enumerate(edits):
        for edit in own:
            by_site.setdefault(edit.site.check(model), []).append((slot, edit))
    ordered = sorted(by_site.items(), key=lambda item: item[0].order)
    return [PackedEdit(site, tuple(parts), layout, batch) for site, parts in ordered]


@dataclass(frozen=True, eq=False)
class LastOnly(Fitting):
    """Drops all but the last position of each sequence (an ``Edit`` of ``Trace.apply``).

    Behind the attention of the last block every position is on its own, and only the last one's logits
    are wanted: the others' MLP need not be run.
    """

    site: Site
    layout: Layout

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        return self.layout.last(value, self.site)


@dataclass(frozen=True, eq=False)
class Given(Fitting):
    """Puts a value that is known in a site's place (an ``Edit`` of ``Trace.apply``)."""

    site: Site
    value: Tensor

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        return self.value


@dataclass(frozen=True, eq=False)
class Joined(Fitting):
    """Puts what was not run beside what was, in front or behind (an ``Edit`` of ``Trace.apply``)."""

    site: Site
    other: Tensor
    dim: int
    in_front: bool = False

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        parts = [self.other, value] if self.in_front else [value, self.other]
        return torch.cat(parts, dim=self.dim)
