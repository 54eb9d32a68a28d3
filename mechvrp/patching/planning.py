"""Plans: which variants run together, from where, over which positions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mechvrp.patching.variants import Variant

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["Group", "Mode", "Plan", "can_split", "make_plan"]

Mode = Literal["clean", "branches", "suffix", "resume", "full"]

#: A branch is worth its mask up to so many tokens; longer ones are rows of their own.
_BRANCH = 16


@dataclass(frozen=True)
class Group:
    """Variants that run in the same way.

    Attributes:
        mode: ``clean`` (nothing but the logits differs), ``branches`` (variants are parallel tokens
            behind a shared prefix), ``suffix`` (rows over the clean run's key/value cache),
            ``resume`` (rows of whole sequences from a block on) or ``full``.
        entry: the first block that is run; -1 for the whole model.
        first: the first position that is run.
        mlp_first: the first position at which the entry block's MLP is run, where its attention is not
            run at all, being as it was in the clean run; -1 where the whole block is.
        variants: indices into the sweep's variants.
        width: variants a pass.
    """

    mode: Mode
    entry: int
    first: int
    mlp_first: int
    variants: tuple[int, ...]
    width: int

    @property
    def passes(self) -> int:
        return 0 if self.mode == "clean" else -(-len(self.variants) // self.width)


@dataclass(frozen=True)
class Plan:
    """What a sweep will do.

    Attributes:
        groups: in the order in which they run.
        n_layers, length, examples: of the model and the batch.
        n_variants: how many there are, failed ones included.
        attention_share: share of a block's weights that its attention has.
        why_not: why the clean run's cache cannot be shared, "" if it can.
    """

    groups: tuple[Group, ...]
    n_layers: int
    length: int
    examples: int
    n_variants: int
    attention_share: float = 1.0
    why_not: str = ""

    @property
    def forwards(self) -> int:
        """Calls of the model, the clean pass included."""
        return 1 + sum(group.passes for group in self.groups)

    @property
    def token_layers(self) -> float:
        """Tokens times decoder layers that will be computed, the clean pass included.

        In the last block of every run but the clean one, positions other than the last go through the
        attention only, and count as its share of the block's weights.
        """
        total = float(self.n_layers * self.length * self.examples)
        for group in self.groups:
            if group.mode != "clean":
                each = sum(
                    self._block(group, layer) for layer in range(max(group.entry, 0), self.n_layers)
                )
                total += each * self.examples * len(group.variants)
        return total

    def _block(self, group: Group, layer: int) -> float:
        """Positions that go through a block, in units of its weights."""
        attention = mlp = self.length - group.first
        if group.mlp_first >= 0 and layer == group.entry:
            attention, mlp = 0, self.length - group.mlp_first
        if layer == self.n_layers - 1:
            mlp = 1
        return attention * self.attention_share + mlp * (1 - self.attention_share)

    @property
    def naive_token_layers(self) -> int:
        """What one whole forward a variant would compute."""
        return self.n_layers * self.length * self.examples * max(self.n_variants, 1)

    def __str__(self) -> str:
        share = self.naive_token_layers / self.token_layers
        lines = [
            f"{self.n_variants} variants on {self.examples} examples of {self.length} positions: "
            f"{self.forwards} forward calls, {self.token_layers:,.0f} token-layers "
            f"({share:.1f}x fewer than one forward a variant)"
        ]
        for group in self.groups:
            n = len(group.variants)
            what = f"{n} variant{'s' * (n != 1)}: {group.mode}"
            if group.mode == "full":
                what += f", {group.width} rows an example a pass"
            elif group.mode != "clean":
                start = (
                    f"the MLP of block {group.entry}"
                    if group.mlp_first >= 0
                    else (f"block {group.entry}")
                )
                what += (
                    f" from {start} over {self.length - group.first} of {self.length} positions, "
                    f"{group.width} a pass"
                )
            if group.passes:
                what += f", {group.passes} pass{'es' * (group.passes != 1)}"
            lines.append(f"  {what}")
        if self.why_not:
            lines.append(f"  no branches or suffixes: {self.why_not}")
        return "\n".join(lines)


def can_split(model: VLM, batch: Batch) -> str:
    """ "" if what stands before a position is as it is whatever follows, else the reason it isn't."""
    if model.family.attention != "causal":
        return f"in {model.family.name} all positions of a prompt see one another"
    config = model.model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    if kinds != {"full_attention"} or (
        window and getattr(config, "use_sliding_window", True) and window < batch.tokens.length
    ):
        return f"its attention is not plain causal ({', '.join(sorted(kinds))}, window {window})"
    if model.attn_implementation not in ("sdpa", "eager"):
        return f"attn={model.attn_implementation!r} takes no mask of four dimensions"
    return ""


def make_plan(model: VLM, batch: Batch, variants: Sequence[Variant], *, memory: int) -> Plan:
    """Group variants by the cheapest exact way to run them.

    Args:
        memory: bytes that the activations of one pass may take, roughly.
    """
    why_not = can_split(model, batch)
    length, examples = batch.tokens.length, len(batch)
    grouped: dict[tuple[Mode, int, int, int], list[int]] = defaultdict(list)
    for index, variant in enumerate(variants):
        if variant.error:
            continue
        entry, first = variant.entry, variant.first
        mode: Mode
        if entry < 0:
            mode, first = "full", 0
        elif entry >= model.n_layers and first >= length - 1:
            # Only the last position's logits can differ: a norm and an unembedding remain.
            mode, first = "branches" if not why_not else "resume", length - 1 if not why_not else 0
        elif why_not or variant.rows or first == 0:
            mode, first = "resume", 0
        else:
            mode = "branches" if length - first <= _BRANCH else "suffix"
        mlp_first = -1
        if mode in ("resume", "branches", "suffix") and entry < model.n_layers and variant.mlp_only:
            mlp_first = variant.first if mode == "resume" else first
        if not variant.edits:
            mode, first, mlp_first = "clean", length, -1
        grouped[mode, entry, first, mlp_first].append(index)
    groups = []
    for (mode, entry, first, mlp_first), members in sorted(grouped.items(), key=lambda g: g[0][1:]):
        # The MLP's neurons are a token's largest activations, a few of them alive at once; a row's
        # keys and values are copied for the layers that run.
        per_token = 4 * (6 * model.d_model + 4 * model.d_mlp)
        tokens = (length - first) * examples
        if any(variants[i].rows for i in members):
            per_token += 4 * 3 * model.n_heads * length  # whole patterns: scores, weights, edited
        cached = 0
        if mode == "suffix":
            cached = first * examples * 2 * model.n_kv_heads * model.d_head * 4
        width = max(1, min(len(members), memory // max(1, tokens * per_token + cached)))
        groups.append(Group(mode, entry, first, mlp_first, tuple(members), int(width)))
    share = _attention_share(model)
    return Plan(tuple(groups), model.n_layers, length, examples, len(variants), share, why_not)


def _attention_share(model: VLM) -> float:
    def weights(path: str) -> int:
        return sum(p.numel() for p in model.model.get_submodule(path).parameters())

    first = f"{model.modules.layers}.0"
    return weights(f"{first}.{model.modules.attn}") / weights(first)
