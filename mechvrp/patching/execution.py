"""Running groups of variants: the clean pass, and each mode of a plan.

Every mode gives the logits of the last prompt position, ``[variant, example, d_vocab]``, and every edit is
made by the same code: its tokens are looked up once, and moved to where the mode keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechvrp.models import Batch
from mechvrp.patching.interventions import Intervention
from mechvrp.patching.layout import Given, Joined, LastOnly, Layout, PackedEdit
from mechvrp.patching.planning import Group, Plan
from mechvrp.patching.variants import Variant
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["Runner"]


@dataclass
class Runner:
    """The clean pass of a batch, and everything that is run from it.

    Attributes:
        model, batch, plan: what is run.
        base: interventions in front of the decoder that every run has, the clean pass included.
        logits: logits of the last position without any variant's edits, [example, d_vocab], float32.
    """

    model: VLM
    batch: Batch
    plan: Plan
    base: tuple[Intervention, ...] = ()
    logits: Float[Tensor, "example d_vocab"] = field(init=False)

    def __post_init__(self) -> None:
        self._states: dict[Site, Tensor] = {}
        self._cache: Any = None
        self._features: Any = None
        self._clean()

    def _from_cache(self) -> list[Group]:
        return [g for g in self.plan.groups if g.mode in ("branches", "suffix")]

    def _needed(self, group: Group) -> list[Site]:
        """What of the clean run a group is run on from."""
        if group.mlp_first < 0:
            return [_entering(group.entry)]
        return [Site("resid_mid", group.entry), Site("resid_post", group.entry)]

    def _state(self, site: Site, layout: Layout, first: int) -> Tensor:
        """A clean state from a position on, once for each variant."""
        state = self._states[site][:, first - self._starts[site] :]
        n = layout.variants
        return state.repeat(1, n, 1) if layout.mode == "branches" else state.repeat(n, 1, 1)

    def _first_block(self, layout: Layout, entry: int) -> tuple[Tensor, list[Any]]:
        """What skipped blocks give, and edits by which the first block is as far as the plan says."""
        if layout.mlp < 0:
            last_only = [] if layout.cut.component == "logits" else [LastOnly(layout.cut, layout)]
            return self._state(_entering(entry), layout, layout.first), last_only
        middle, end = Site("resid_mid", entry), Site("resid_post", entry)
        after = self._state(end, layout, layout.first)
        value = self._state(middle, layout, layout.mlp_first)
        if entry == self.model.n_layers - 1:
            return after, [Given(middle, value), LastOnly(middle, layout)]
        edits: list[Any] = [Given(middle, value), LastOnly(layout.cut, layout)]
        if layout.mlp_first > layout.first:
            edits.append(Joined(end, after[:, : layout.mlp_first - layout.first]))
        return after, edits

    def _clean(self) -> None:
        kept: dict[Site, int] = {}  # from which position on
        for group in self.plan.groups:
            if group.mode in ("resume", "branches", "suffix"):
                for site in self._needed(group):
                    kept[site] = min(kept.get(site, group.first), group.first)
        cached = any(g.entry < self.model.n_layers for g in self._from_cache())
        options = {"logits_to_keep": 1, "use_cache": cached}
        with Trace(self.model, self.batch, options=options) as t:
            t.apply(*self.base)
            for site in sorted(kept, key=lambda s: s.order):
                self._states[site] = t[site][:, kept[site] :].clone().save()
            logits = t.logits.save()
            if cached:
                cache = self.model.envoy.output.past_key_values.save()
        self._starts = kept
        self.logits = logits[:, -1].float()
        if cached:
            self._cache = cache
        if any(g.mode == "resume" for g in self.plan.groups):
            inputs = {
                k: v
                for k, v in self.batch.inputs.items()
                if k in ("pixel_values", "image_grid_thw")
            }
            with torch.no_grad():
                self._features = self.model.model.get_image_features(**inputs, return_dict=True)

    def run(
        self, group: Group, variants: Sequence[Variant]
    ) -> Float[Tensor, "variant example d_vocab"]:
        """Last-position logits of some variants of a group, float32."""
        depth = self.model.n_layers
        # Skipped blocks give whatever was kept of them.
        cut = Site("logits") if group.entry >= depth else Site("resid_mid", depth - 1)
        sizes = (len(variants), len(self.batch), self.batch.tokens.length, group.first)
        mlp = group.entry if group.mlp_first >= 0 else -1
        layout = Layout(group.mode, *sizes, cut, mlp, max(group.mlp_first, 0))
        if group.mode == "full":
            # From the beginning, so what every run has is made once more.
            variants = [replace(v, edits=(*self.base, *v.edits)) for v in variants]
            return self._rows(layout, self._packed(variants, layout), None)
        edits = self._packed(variants, layout)
        if layout.mlp >= 0:  # its attention is skipped, by which the block has started
            self.model.instrument(layout.mlp)
        if group.mode == "resume":
            return self._rows(layout, edits, group.entry)
        return self._behind(layout, edits, group.entry)

    def _packed(self, variants: Sequence[Variant], layout: Layout) -> list[PackedEdit]:
        by_site: dict[Site, list[tuple[int, Intervention]]] = {}
        for slot, variant in enumerate(variants):
            for edit in variant.edits:
                by_site.setdefault(edit.site.check(self.model), []).append((slot, edit))
        ordered = sorted(by_site.items(), key=lambda item: item[0].order)
        return [PackedEdit(site, tuple(parts), layout, self.batch) for site, parts in ordered]

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

    def _rows(self, layout: Layout, edits: list[PackedEdit], entry: int | None) -> Tensor:
        """Whole sequences, a row for each variant and example; from a block on, or from the start."""
        n = layout.variants
        first: list[Any] = [LastOnly(layout.cut, layout)]
        inputs = {k: _repeat(k, v, n) for k, v in self.batch.inputs.items()}
        options: dict[str, Any] = {"logits_to_keep": 1, "use_cache": False}
        if entry is not None:
            inputs.pop("pixel_values")
            options["mm_encoder_outputs"] = {"image": _repeated_features(self._features, n)}
            state, first = self._first_block(layout, entry)
            state, edits = self._split(edits, entry, state)
        rows = Batch(inputs, self.batch.tokens)
        blocks: Any = self.model.envoy.get(self.model.modules.layers)
        attention = self._attention
        with Trace(self.model, rows, options=options) as t:
            for layer in range(entry or 0):
                blocks[layer].skip(state)
            if entry == 0:
                blocks[0].input = state  # with what every run has in front of the decoder
            if layout.mlp >= 0:
                attention(layout.mlp).skip((state, None))
            t.apply(*first, *edits)
            logits = t.logits.save()
        return logits[:, -1].float().unflatten(0, (n, layout.examples))

    def _behind(self, layout: Layout, edits: list[PackedEdit], entry: int) -> Tensor:
        """Only positions from the first edited one on, over the clean run's keys and values."""
        n, room, first = layout.variants, layout.room, layout.first
        branches = layout.mode == "branches"
        state, beginning = self._first_block(layout, entry)
        state, edits = self._split(edits, entry, state)
        ids, places = self.batch.inputs["input_ids"], self.batch.inputs["position_ids"]
        if branches:
            ids, places = ids[:, first:].repeat(1, n), torch.cat([places[..., first:]] * n, dim=-1)
        else:
            ids, places = ids[:, first:].repeat(n, 1), torch.cat([places[..., first:]] * n, dim=-2)
        inputs = {"input_ids": ids, "position_ids": places, "attention_mask": self._mask(layout)}
        kept = room if layout.cut.component == "logits" else 1
        options = {
            "past_key_values": self._prefix(layout, entry),
            "use_cache": True,
            "logits_to_keep": (torch.arange(n if branches else 1, device=ids.device) + 1) * kept
            - 1,
        }
        blocks: Any = self.model.envoy.get(self.model.modules.layers)
        attention = self._attention
        with Trace(self.model, Batch(inputs, self.batch.tokens), options=options) as t:
            for layer in range(entry):
                blocks[layer].skip(state)
            if entry == 0:
                blocks[0].input = state  # image tokens: their embeddings are not their ids'
            if layout.mlp >= 0:
                attention(layout.mlp).skip((state, None))
            t.apply(*beginning, *edits)
            logits = t.logits.save()
        logits = logits.float()
        return (
            logits.transpose(0, 1) if branches else logits[:, -1].unflatten(0, (n, layout.examples))
        )

    def _attention(self, layer: int) -> Any:
        modules = self.model.modules
        return self.model.envoy.get(f"{modules.layers}.{layer}.{modules.attn}")

    def _mask(self, layout: Layout) -> Tensor:
        """Who sees whom, [row, 1, query, key]: the prefix, and of itself what lies before."""
        real = self.batch.tokens.attention_mask.to(self.model.device)
        room, n = layout.room, layout.variants
        own = torch.ones(room, room, dtype=torch.bool, device=real.device).tril()
        behind = own[None] & real[:, None, layout.first :]
        prefix = real[:, None, : layout.first].expand(-1, room, -1)
        if layout.mode == "branches":
            same = torch.eye(n, dtype=torch.bool, device=real.device)
            apart = torch.kron(same, torch.ones(room, room, dtype=torch.bool, device=real.device))
            visible = torch.cat([prefix.repeat(1, n, 1), behind.repeat(1, n, n) & apart], dim=-1)
        else:
            visible = torch.cat([prefix, behind], dim=-1).repeat(n, 1, 1)
        # A query that is padding itself must see something, or its softmax is NaN.
        visible = visible | ~visible.any(-1, keepdim=True)
        if self.model.attn_implementation == "eager":
            low = torch.finfo(self.model.dtype).min
            return torch.zeros_like(visible, dtype=self.model.dtype).masked_fill(~visible, low)[
                :, None
            ]
        return visible[:, None]

    def _prefix(self, layout: Layout, entry: int) -> Any:
        """The clean keys and values before the first position, for the layers that run; no copy."""
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        cache = DynamicCache()
        for index in range(self.model.n_layers):
            layer = DynamicLayer()
            if index >= entry:
                source = self._cache.layers[index]
                keys, values = (x[:, :, : layout.first] for x in (source.keys, source.values))
                if layout.mode == "suffix":
                    keys, values = (x.repeat(layout.variants, 1, 1, 1) for x in (keys, values))
                layer.lazy_initialization(keys, values)
                layer.keys, layer.values = keys, values
            cache.layers.append(layer)
        return cache


def _entering(entry: int) -> Site:
    """What a block is given."""
    return Site("resid_pre", 0) if entry == 0 else Site("resid_post", entry - 1)


def _repeat(name: str, value: Tensor, times: int) -> Tensor:
    """An input of the batch for so many copies of it."""
    return torch.cat([value] * times, dim=1 if name == "position_ids" and value.ndim == 3 else 0)


def _repeated_features(features: Any, times: int) -> Any:
    """Image features of so many copies of the batch; the blocks that would use them are skipped."""
    fields = dict(features)
    pooled = fields["pooler_output"]
    many = (
        list(pooled) * times if isinstance(pooled, (list, tuple)) else torch.cat([pooled] * times)
    )
    return type(features)(**{**fields, "pooler_output": many})
