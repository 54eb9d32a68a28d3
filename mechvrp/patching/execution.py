"""Running groups of variants: the clean pass, and each mode of a plan.

Every mode gives the logits of the last prompt position, ``[variant, example, d_vocab]``, and every edit is
made by the same code: its tokens are looked up once, and moved to where the mode keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvrp.models import Batch
from mechvrp.patching.continuing import logits_behind
from mechvrp.patching.entering import entering, repeated
from mechvrp.patching.finite import require_clean
from mechvrp.patching.interventions import Intervention
from mechvrp.patching.last_query import LastAttended, LastQuery
from mechvrp.patching.layout import Given, Joined, LastOnly, Layout, PackedEdit, packed
from mechvrp.patching.planning import Group, Plan, Start, start_of
from mechvrp.patching.shared_prefix import (
    Narrowed,
    PrefixCache,
    shared_inputs,
)
from mechvrp.patching.variants import Variant, in_front
from mechvrp.tracing import access
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["Ran", "Runner"]

#: Modes that run on from the clean run's keys and values.
_SHARING = ("branches", "suffix")


class Ran(NamedTuple):
    """What a pass gives: logits of the last position, and its attention where that is watched."""

    logits: Float[Tensor, "variant example d_vocab"]
    attention: Float[Tensor, "variant example layer pos"] | None


@dataclass
class Runner:
    """The clean pass of a batch, and everything that is run from it.

    Attributes:
        model, batch, plan: what is run.
        base: interventions in front of the decoder that every run has, the clean pass included.
        watch: whether the last position's attention (mean over heads) is read along.
        keep: whether the clean run's keys and values are kept for ``logits_behind`` in any case.
        logits: logits of the last position without any variant's edits, [example, d_vocab], float32.
        attention: the last position's attention in that run, mean over heads, where it is watched.
    """

    model: VLM
    batch: Batch
    plan: Plan
    base: tuple[Intervention, ...] = ()
    watch: bool = False
    keep: bool = False
    logits: Float[Tensor, "example d_vocab"] = field(init=False)
    attention: Float[Tensor, "example layer pos"] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._states: dict[Site, Tensor] = {}
        self._features: Tensor | None = None
        self._cache: Any = None
        self._clean()

    def _needed(self, group: Group) -> list[tuple[Site, int]]:
        """What of the clean run a group is run on from, and from which position."""
        found = [(s.site, max(s.mlp_first, s.first)) for s in group.starts if not s.anew]
        if group.mode == "resume":  # what stands before the first position whose MLP is run
            found += [(Site("resid_post", s.entry), 0) for s in group.starts if s.mlp_first >= 0]
        return found

    def _state(self, site: Site, first: int) -> Tensor:
        """A clean state from a position on."""
        return self._states[site][:, first - self._kept[site] :]

    def _clean(self) -> None:
        kept: dict[Site, int] = {}  # from which position on
        for group in self.plan.groups:
            if group.mode in ("resume", *_SHARING):
                for site, first in self._needed(group):
                    kept[site] = min(kept.get(site, first), first)
        cached = self.keep or any(
            start.entry < self.model.n_layers
            for group in self.plan.groups
            if group.mode in _SHARING
            for start in group.starts
        )
        options = {"logits_to_keep": 1, "use_cache": cached}
        wanted = {*kept, *self._watched(range(self.model.n_layers))}
        if any(start.anew for group in self.plan.groups for start in group.starts):
            wanted.add(Site("projected"))
        rows: dict[int, Tensor] = {}
        with Trace(self.model, self.batch, options=options) as t:
            t.apply(*self.base)
            for site in sorted(wanted, key=lambda s: s.order):
                if site.component == "pattern":
                    rows[site.layer or 0] = t.attention_rows(site.layer or 0).float().mean(1).save()
                elif site.component == "projected":
                    self._features = t[site].clone().save()
                else:
                    self._states[site] = t[site][:, kept[site] :].clone().save()
            logits = t.logits.save()
            if cached:
                cache = self.model.envoy.output.past_key_values.save()
        self._kept = kept
        self.logits = logits[:, -1].float()
        require_clean(self.logits, self.model, "the clean run's logits")
        if self.watch:
            self.attention = torch.stack(
                [rows[layer].to(self.logits.device) for layer in sorted(rows)], dim=1
            )
        if cached:
            self._cache = cache

    def logits_behind(self, tokens: Int[Tensor, " example"]) -> Float[Tensor, "example d_vocab"]:
        """Clean logits behind the prompt and one more token; with ``keep``."""
        return logits_behind(self.model, self.batch, self._cache, tokens)

    def _watched(self, layers: Iterable[int]) -> list[Site]:
        return [Site("pattern", layer) for layer in layers] if self.watch else []

    def run(self, group: Group, variants: Sequence[Variant]) -> Ran:
        """What some variants of a group give, float32."""
        length = self.batch.tokens.length
        starts = tuple(start_of(group.mode, v, self.model.n_layers, length) for v in variants)
        if group.mode == "suffix":
            starts = tuple(start.earlier(group.starts[0].first) for start in starts)
        cut = self._cut(group, starts[0])
        layout = Layout(group.mode, starts, len(self.batch), length, cut)
        if group.mode == "full":
            # From the beginning, so what every run has is made once more.
            whole = [(*self.base, *v.edits) for v in variants]
            return self._rows(layout, packed(whole, layout, self.model, self.batch), None, {})
        entered = self._entered(variants)
        rest = [[e for e in v.edits if not in_front(e)] for v in variants]
        edits = packed(rest, layout, self.model, self.batch)
        if starts[0].mlp_first >= 0:  # its attention is skipped, by which the block has started
            self.model.instrument(starts[0].entry)
        if group.mode == "resume":
            return self._rows(layout, edits, starts[0], entered)
        return self._behind(layout, edits, entered)

    def _entered(self, variants: Sequence[Variant]) -> dict[int, Float[Tensor, "example pos d"]]:
        """What the first block is given, of the variants in which that is edited, by slot."""
        slots = [slot for slot, variant in enumerate(variants) if variant.anew]
        if not slots:
            return {}
        assert self._features is not None
        # They hold what every run has at and in front of the projector, embeddings do not.
        common = [edit for edit in self.base if edit.site.kind.where == "embed"]
        edits = [[*common, *filter(in_front, variants[slot].edits)] for slot in slots]
        states = entering(self.model, self.batch, self._features, edits)
        return dict(zip(slots, states, strict=True))

    def _cut(self, group: Group, first: Start) -> Site:
        """From where on only the last position is run: behind the last attention, or in it.

        In it where rows are whole sequences (or their ends), and nothing looks at the other queries.
        """
        last = self.model.n_layers - 1
        if self.plan.uncut or (group.mode == "resume" and first.entry > last):
            return Site("logits")  # blocks give whole sequences, skipped ones do anyway
        if not access.has_resid_mid(self.model, last):
            return Site("resid_post", last)
        attends = first.entry < 0 or first.site.order < Site("q", last).order
        if group.queries or not attends:
            return Site("resid_mid", last)
        self.model.instrument(last)  # before the block has started
        return Site("z", last)

    def _last_only(self, layout: Layout) -> list[Any]:
        """What drops, at and behind the cut, all positions but the last."""
        found: list[Any] = [LastOnly(layout.cut, layout)]
        if layout.cut.component == "z":
            layer = layout.cut.layer
            found += [LastQuery(Site("q", layer)), LastAttended(Site("pattern", layer))]
            # The residual stream that the last position's attention is added to.
            found.append(LastOnly(Site("resid_mid", layer), layout))
        return found

    def _split(
        self, edits: list[PackedEdit], entry: int, state: Tensor
    ) -> tuple[Tensor, list[PackedEdit]]:
        """The state behind the last skipped block with the edits that belong to it, and the rest."""
        later = []
        for edit in edits:
            if entry > 0 and edit.site == Site("resid_post", entry - 1):
                state = edit(state, self.model, self.batch)
            else:
                later.append(edit)
        return state, later

    def _ran(self, layout: Layout, logits: Tensor, rows: dict[int, Tensor]) -> Ran:
        """Where a variant has not begun, its attention is the clean run's."""
        if self.attention is None:
            return Ran(logits, None)
        found = self.attention.expand(layout.variants, *self.attention.shape).clone()
        for layer, weights in rows.items():
            here = layout.last_weights(weights, Site("pattern", layer))
            found[: len(here), :, layer] = here
        return Ran(logits, found)

    def _rows(
        self,
        layout: Layout,
        edits: list[PackedEdit],
        start: Start | None,
        entered: dict[int, Tensor],
    ) -> Ran:
        """Whole sequences, a row for each variant and example; from a block on, or from the first."""
        n = layout.variants
        beginning, state = self._last_only(layout), None
        # Placeholders of images stay as they are where the blocks they enter are skipped.
        pixels = start is None or not self.model.family.forgets_image
        inputs = repeated(self.batch, n, pixels=pixels)
        options: dict[str, Any] = {"logits_to_keep": 1, "use_cache": False}
        entry = start.entry if start is not None else 0
        if start is not None:
            state, beginning = self._resumed(layout, start, entered)
            state, edits = self._split(edits, entry, state)
        rows = Batch(inputs, self.batch.tokens)
        begins = entry + (start is not None and start.mlp_first >= 0)
        watched = self._watched(range(begins, self.model.n_layers))
        logits, seen = self._traced(
            layout, rows, options, start, state, [*beginning, *edits], watched
        )
        return self._ran(layout, logits[:, -1].unflatten(0, (n, layout.examples)), seen)

    def _traced(
        self,
        layout: Layout,
        rows: Batch,
        options: dict[str, Any],
        start: Start | None,
        state: Tensor | None,
        edits: list[Any],
        watched: list[Site],
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Logits of one pass, float32, and the watched rows of attention, by layer.

        Args:
            start: where the pass begins; None: at the beginning.
            state: what stands there.
        """
        blocks: Any = self.model.envoy.get(self.model.modules.layers)
        attention, seen = self._attention, {}
        entry = start.entry if start is not None else 0
        with Trace(self.model, rows, options=options) as t:
            for layer in range(entry):
                blocks[layer].skip(state)
            if start is not None and entry == 0:
                blocks[0].input = state  # image tokens: their embeddings are not their ids'
            if start is not None and start.mlp_first >= 0:
                attention(entry).skip((state, None))
            t.apply(*edits)
            for site in watched:
                seen[site.layer or 0] = t.query_rows(
                    site.layer or 0, *layout.last_queries(site)
                ).save()
            logits = t.logits.save()
        return logits.float(), seen

    def _resumed(
        self, layout: Layout, start: Start, entered: dict[int, Tensor]
    ) -> tuple[Tensor, list[Any]]:
        """What skipped blocks give to whole sequences, and edits that begin the first block."""
        n, depth = layout.variants, self.model.n_layers
        if start.mlp_first < 0:
            last = [] if layout.cut.component == "logits" else self._last_only(layout)
            return self._begun(layout, start.site, entered), last
        end = Site("resid_post", start.entry)
        after = self._state(end, 0).repeat(n, 1, 1)
        middle = Given(start.site, self._state(start.site, start.mlp_first).repeat(n, 1, 1))
        edits: list[Any] = [middle, *self._last_only(layout)]
        if start.mlp_first > 0 and start.entry < depth - 1:
            edits.append(Joined(end, after[:, : start.mlp_first], dim=1, in_front=True))
        return after, edits

    def _behind(self, layout: Layout, edits: list[PackedEdit], entered: dict[int, Tensor]) -> Ran:
        """Only positions from the first edited one on, over the clean run's keys and values."""
        first, branches = layout.starts[0], layout.mode == "branches"
        entry, depth = first.entry, self.model.n_layers
        sites = dict.fromkeys(start.site for start in layout.starts)
        begun = {site: self._begun(layout, site, entered) for site in sites}
        state = begun.pop(first.site)
        beginning: list[Any] = [
            Narrowed(Site("resid_pre", layer), layout)
            for layer in range(entry, depth)
            if 0 < layout.present(Site("resid_pre", layer)) < layout.variants
        ]
        if first.mlp_first >= 0:
            beginning.append(Given(first.site, state))
        else:
            state, edits = self._split(edits, entry, state)
        if first.site.order < layout.cut.order:
            beginning += self._last_only(layout)
        beginning += [Joined(site, value, 1 if branches else 0) for site, value in begun.items()]
        inputs = shared_inputs(self.model, self.batch, layout)
        options: dict[str, Any] = {"use_cache": True}
        if entry < depth:
            options["past_key_values"] = PrefixCache(
                self._cache, layout.prefix, layout.length, entry
            )
        watched = [s for s in self._watched(range(entry, depth)) if layout.present(s)]
        rows = Batch(inputs, self.batch.tokens)
        logits, seen = self._traced(
            layout, rows, options, first, state, [*beginning, *edits], watched
        )
        if branches:
            return self._ran(layout, logits.transpose(0, 1), seen)
        logits = logits[:, -1].unflatten(0, (layout.variants, layout.examples))
        return self._ran(layout, logits, seen)

    def _begun(self, layout: Layout, site: Site, entered: dict[int, Tensor]) -> Tensor:
        """States of the variants that begin at a site, side by side as the mode has them.

        They are the clean run's but where a variant begins with what is entered anew.
        """
        parts = [
            entered[slot][:, s.first :] if slot in entered else self._state(site, s.first)
            for slot, s in enumerate(layout.starts)
            if s.site == site
        ]
        if layout.only_last(site):
            parts = [part[:, -1:] for part in parts]
        return torch.cat(parts, dim=1 if layout.mode == "branches" else 0)

    def _attention(self, layer: int) -> Any:
        modules = self.model.modules
        return self.model.envoy.get(f"{modules.layers}.{layer}.{modules.attn}")
