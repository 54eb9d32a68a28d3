"""Plans: which variants run together, from where, over which positions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mechvrp.patching.trials import Trial, trial
from mechvrp.patching.variants import Variant
from mechvrp.tracing import access
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["Group", "Mode", "Plan", "Start", "can_split", "make_plan", "start_of"]

Mode = Literal["clean", "branches", "suffix", "resume", "full"]

#: Tokens up to this share of the sequence are branches of a row; longer ones are rows of their own, since
#: branches pay for attention to one another, though it is masked.
_BRANCH = 1 / 8
#: Branches of a row: up to the sequence's length, or so many tokens.
_ROW = 512
#: Multiplications that a pass costs beside those of the model, roughly: some milliseconds of a core.
_PASS = 10**8


@dataclass(frozen=True)
class Start:
    """Where a variant's own run begins.

    Attributes:
        entry: the first block that is run; -1 for the whole model, ``n_layers`` for none.
        first: the first position that is run.
        mlp_first: the first position at which the entry block's MLP is run, where its attention is not
            run at all, being as it was in the clean run; -1 where the whole block is.
        anew: whether the first block is given something else than in the clean run: embeddings or image
            features are edited.
    """

    entry: int
    first: int
    mlp_first: int = -1
    anew: bool = False

    @cached_property
    def site(self) -> Site:
        """Whose value the run is begun with: the clean one, but where it is made anew."""
        if self.mlp_first >= 0:
            return Site("resid_mid", self.entry)
        return Site("resid_pre", 0) if self.entry == 0 else Site("resid_post", self.entry - 1)

    def earlier(self, first: int) -> Start:
        """The same from an earlier position on, where nothing differs from the clean run yet."""
        return replace(self, first=first, mlp_first=first if self.mlp_first >= 0 else -1)


@dataclass(frozen=True)
class Group:
    """Variants that run in the same way.

    Attributes:
        mode: ``clean`` (nothing but the logits differs), ``branches`` (variants are parallel tokens
            behind a shared prefix), ``suffix`` (rows over the clean run's key/value cache),
            ``resume`` (rows of whole sequences from a block on) or ``full``. Of the second and the
            third, variants of one pass join it at the block where each one begins; of the third, at one
            position, though some of them differ from a later one on only.
        variants: indices into the sweep's variants, those that begin first in front.
        starts: where each begins.
        width: variants a pass.
        queries: whether all positions' queries are run in the last block, not the last one's alone.
    """

    mode: Mode
    variants: tuple[int, ...]
    starts: tuple[Start, ...]
    width: int
    queries: bool = True

    @property
    def passes(self) -> int:
        return 0 if self.mode == "clean" else -(-len(self.variants) // self.width)

    def encodings(self, variants: int) -> int:
        """How often the vision tower encodes the batch's images when some of the variants are run."""
        return variants if self.mode == "full" else 0


@dataclass(frozen=True)
class Plan:
    """What a sweep will do.

    Attributes:
        groups: in the order in which they run.
        n_layers, length, examples: of the model and the batch.
        n_variants: how many there are, failed ones included.
        attention_share: share of a block's weights that its attention has.
        query_share: share of them that make queries and write what these attended to.
        why_not: why the clean run's cache cannot be shared, "" if it can.
        whole: why every variant is a whole forward, "" if not all are.
        why_tower: why edits behind the vision tower run it again all the same, "" if they do not.
        uncut: why the last block is run at all positions, "" if it is at the last one where that is enough.
    """

    groups: tuple[Group, ...]
    n_layers: int
    length: int
    examples: int
    n_variants: int
    attention_share: float = 1.0
    query_share: float = 0.0
    why_not: str = ""
    whole: str = ""
    why_tower: str = ""
    uncut: str = ""

    @property
    def forwards(self) -> int:
        """Calls of the decoder, the clean pass included."""
        return 1 + sum(group.passes for group in self.groups)

    @property
    def tower_runs(self) -> int:
        """How often the vision tower encodes the batch's images: once, and for variants that are run whole."""
        return 1 + sum(group.encodings(len(group.variants)) for group in self.groups)

    @property
    def token_layers(self) -> float:
        """Tokens times decoder layers that will be computed, the clean pass included.

        In the last block of every run but the clean one, positions other than the last go through the
        attention only (in rows, and where nothing looks at their queries, through its keys and values
        only), and count as its share of the block's weights.
        """
        total = float(self.n_layers * self.length * self.examples)
        return total + sum(self.cost(group, group.variants) for group in self.groups)

    def cost(self, group: Group, variants: Sequence[int]) -> float:
        """Token-layers of running some of a group's variants once."""
        if group.mode == "clean":
            return 0.0
        starts = dict(zip(group.variants, group.starts, strict=True))
        total = 0.0
        for variant in variants:
            layers = range(max(starts[variant].entry, 0), self.n_layers)
            total += self.examples * sum(
                self._block(starts[variant], layer, group.queries) for layer in layers
            )
        return total

    def _block(self, start: Start, layer: int, queries: bool) -> float:
        """Positions that go through a block, in units of its weights."""
        attention = mlp = self.length - start.first
        if start.mlp_first >= 0 and layer == start.entry:
            attention, mlp = 0, self.length - start.mlp_first
        asked = attention
        if layer == self.n_layers - 1 and not self.uncut:
            mlp = 1
            asked = attention if queries else min(attention, 1)
        return (
            attention * (self.attention_share - self.query_share)
            + asked * self.query_share
            + mlp * (1 - self.attention_share)
        )

    @property
    def naive_token_layers(self) -> int:
        """What one whole forward a variant would compute."""
        return self.n_layers * self.length * self.examples * max(self.n_variants, 1)

    def __str__(self) -> str:
        share = self.naive_token_layers / self.token_layers
        lines = [
            f"{self.n_variants} variants on {self.examples} examples of {self.length} positions: "
            f"{self.forwards} forward calls, {self.token_layers:,.0f} token-layers "
            f"({share:.1f}x fewer than one forward a variant), the images encoded "
            f"{'once' if self.tower_runs == 1 else f'{self.tower_runs} times'}"
            f"{f', not {self.n_variants} times' * (self.tower_runs < self.n_variants)}"
        ]
        for group in self.groups:
            n = len(group.variants)
            what = f"{n} variant{'s' * (n != 1)}: {group.mode}"
            if group.mode == "full":
                what += f", {group.width} rows an example a pass"
            elif group.mode != "clean":
                blocks = sorted({start.entry for start in group.starts})
                begin = f"block {blocks[0]}"
                if len(blocks) > 1:
                    begin = f"blocks {blocks[0]} to {blocks[-1]}"
                if all(start.mlp_first >= 0 for start in group.starts):
                    begin = f"the MLP of {begin}"
                if anew := sum(start.anew for start in group.starts):
                    begin = f"what enters {begin} ({anew} edit it behind the vision tower)"
                rooms = sorted({self.length - start.first for start in group.starts})
                tokens = f"{rooms[0]}" if len(rooms) == 1 else f"{rooms[0]} to {rooms[-1]}"
                what += (
                    f" from {begin} over {tokens} of {self.length} positions, {group.width} a pass"
                )
            if group.passes:
                what += f", {group.passes} pass{'es' * (group.passes != 1)}"
            lines.append(f"  {what}")
        if self.why_not:
            lines.append(f"  no branches or suffixes: {self.why_not}")
        if self.whole:
            lines.append(f"  whole forwards only: {self.whole}")
        if self.why_tower and self.tower_runs > 1:
            lines.append(f"  images encoded again: {self.why_tower}")
        return "\n".join(lines)


def can_split(model: VLM, batch: Batch) -> str:
    """ "" if what stands before a position is as it is whatever follows, else the reason it isn't."""
    if why := model.family.inseparable():
        return why
    config = model.model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    if kinds != {"full_attention"} or (
        # A cache that slides keeps less than its window, so a window of just the length slides too.
        window and getattr(config, "use_sliding_window", True) and window <= batch.tokens.length
    ):
        return f"its attention is not plain causal ({', '.join(sorted(kinds))}, window {window})"
    if model.attn_implementation not in ("sdpa", "eager"):
        return f"attn={model.attn_implementation!r} takes no mask of four dimensions"
    return ""


def make_plan(
    model: VLM,
    batch: Batch,
    variants: Sequence[Variant],
    *,
    memory: int,
    watch: bool = False,
    allowed: Trial | None = None,
) -> Plan:
    """Group variants by the cheapest exact way to run them.

    Args:
        memory: bytes that the activations of one pass may take, roughly.
        watch: whether the last position's attention is read along, in every block.
        allowed: what saves work and is exact; by default as it was tried on the model.
    """
    allowed = trial(model) if allowed is None else allowed
    why_not = can_split(model, batch) or allowed.split
    length, examples = batch.tokens.length, len(batch)
    last = model.n_layers - 1
    single = access.has_resid_mid(model, last) and access.has_single_queries(model, last)
    whole = watch or not single
    grouped: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    starts: dict[int, Start] = {}
    for index, variant in enumerate(variants):
        if variant.error:
            continue
        mode = _mode(variant, model.n_layers, length, why_not)
        if allowed.resume and mode != "clean":
            mode = "full"
        start = starts[index] = start_of(mode, variant, model.n_layers, length)
        room = length - start.first
        key: tuple[Any, ...] = (start,)  # rows of whole sequences begin together
        if mode == "branches":
            key = (2 ** (room - 1).bit_length(),)  # of about the same length
        elif mode == "suffix":
            key = ()  # see ``_together``
        # Edited weights are formed for all variants of a pass, so they keep to themselves.
        queries = mode == "branches" or whole or variant.queries
        grouped[(mode, queries, variant.rows, *key)].append(index)
    per_position = examples * _weights(model, f"{model.modules.layers}.0")
    parts = [
        (mode, queries, part)
        for (mode, queries, *_), found in grouped.items()
        for part in (
            _together(found, starts, per_position, model.n_layers) if mode == "suffix" else [found]
        )
    ]
    groups = []
    for mode, queries, members in parts:
        members.sort(key=lambda i: starts[i].site.order if mode in ("branches", "suffix") else i)
        begun = tuple(starts[i] for i in members)
        # The MLP's neurons are a token's largest activations, a few of them alive at once; a row's
        # keys and values are copied, one layer after the other.
        per_token = 4 * (6 * model.d_model + 4 * model.d_mlp)
        first = min(start.first for start in begun)
        room = length - first
        if any(variants[i].rows for i in members):
            # Patterns: scores, weights, edited; branches see one another's keys, though masked.
            wide = length + max(length, _ROW) * (mode == "branches")
            per_token += 4 * 3 * model.n_heads * wide
        cached = 0
        if mode == "suffix":
            cached = first * examples * 2 * model.n_kv_heads * model.d_head * 4 * model.n_layers
        # Logits of every variant, as the model has them, in float32, and as measures copy them.
        unembedded = 4 * 4 * examples * model.d_vocab
        width = memory // max(1, room * examples * per_token + cached + unembedded)
        if mode == "branches":
            width = min(width, max(length, _ROW) // room)
        width = max(1, min(len(members), width))
        groups.append(Group(mode, tuple(members), begun, int(width), queries))
    groups.sort(key=lambda g: min(start.entry for start in g.starts))
    shares = _shares(model, single)
    why_tower = ""
    if not model.family.takes_features(model.model):
        why_tower = f"{type(model.model).__name__} takes no image features in the place of pixels"
    return Plan(
        tuple(groups),
        model.n_layers,
        length,
        examples,
        len(variants),
        *shares,
        why_not,
        allowed.resume,
        why_tower,
        allowed.cut,
    )


def _together(
    members: list[int], starts: dict[int, Start], per_position: int, depth: int
) -> list[list[int]]:
    """Variants that run from one position on; ``starts`` is brought to it.

    Those that begin a little later join the ones before where a pass of their own would cost more than the
    positions in between: with small models, or few examples.
    """
    by_first: dict[int, list[int]] = defaultdict(list)
    for index in members:
        by_first[starts[index].first].append(index)
    found: list[list[int]] = []
    begun = 0
    for first in sorted(by_first):
        layers = sum(depth - starts[index].entry for index in by_first[first])
        if not found or (first - begun) * layers * per_position > _PASS:
            found.append([])
            begun = first
        found[-1] += by_first[first]
        for index in by_first[first]:
            starts[index] = starts[index].earlier(begun)
    return found


def _mode(variant: Variant, depth: int, length: int, why_not: str) -> Mode:
    """The cheapest mode that is exact for a variant."""
    if not variant.edits:
        return "clean"
    if variant.entry < 0:
        return "full"
    if why_not or (variant.first == 0 and variant.entry < depth):
        return "resume"
    # Behind the last block only the last position's logits can differ.
    room = 1 if variant.entry >= depth else length - variant.first
    return "branches" if room <= max(1, _BRANCH * length) else "suffix"


def start_of(mode: Mode, variant: Variant, depth: int, length: int) -> Start:
    """Where a variant begins in a mode."""
    if mode == "clean":
        return Start(depth, length)
    if mode == "full":
        return Start(-1, 0)
    if variant.entry >= depth:
        return Start(depth, 0 if mode == "resume" else length - 1)
    first = 0 if mode == "resume" else variant.first
    return Start(variant.entry, first, variant.first if variant.mlp_only else -1, variant.anew)


def _shares(model: VLM, single: bool) -> tuple[float, float]:
    """Of a block's weights those of its attention, and of these those of queries and of the output."""
    if not access.has_resid_mid(model, model.n_layers - 1):
        return 1.0, 0.0  # the two cannot be run apart

    first = f"{model.modules.layers}.{model.n_layers - 1}"
    whole, asked = _weights(model, first), 0
    if single:
        asked = sum(
            _weights(model, f"{first}.{part}") for part in (model.modules.q, model.modules.o)
        )
    return _weights(model, f"{first}.{model.modules.attn}") / whole, asked / whole


def _weights(model: VLM, path: str) -> int:
    return sum(p.numel() for p in model.model.get_submodule(path).parameters())
