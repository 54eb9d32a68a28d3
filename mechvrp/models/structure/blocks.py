"""What a decoder block is made of, from what its parts read and wrote in a run."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor, nn

from mechvrp.models.linears import outermost_linears
from mechvrp.models.structure.recording import Block, Call, first_tensor
from mechvrp.models.structure.skeleton import Skeleton, attends, most_common

__all__ = ["BlockFacts", "Shared", "examine", "same", "share", "sums", "tolerance"]

#: What the Linears that make queries, keys and values are called.
_NAMES = {
    "q": ("q_proj", "query", "q", "wq", "to_q", "q_linear"),
    "k": ("k_proj", "key", "k", "wk", "to_k", "k_linear"),
    "v": ("v_proj", "value", "v", "wv", "to_v", "v_linear"),
}
FIELDS = ("attn", "q", "k", "v", "o", "neurons", "attn_write", "mlp_write")


#: Parts whose one shape is that of all blocks: what a Linear reads, or else writes.
_READ, _WRITTEN = ("o", "neurons"), ("k", "v")
#: What a part's site is called where it is not called like the part.
_SITES = {"o": "z", "attn_write": "attn_out", "mlp_write": "mlp_out"}


@dataclass
class BlockFacts:
    """Paths of one block's parts, and why others were not found.

    Attributes:
        paths, reasons: by part.
        widths: values of a position, by part.
        handed: whether its attention calls a function that transformers hands out.
        crossed: of cross attention, the Linears of its queries, of keys and values of something else than the
            prompt, and of what its heads give; empty where there is none.
    """

    paths: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    handed: bool = False
    crossed: tuple[str, str, str, str] | tuple[()] = ()


@dataclass(frozen=True)
class Shared:
    """Of all blocks: one path for each part, and by part and layer why it is not there."""

    paths: dict[str, str]
    reasons: dict[str, dict[int, str]]


def tolerance(like: Tensor) -> float:
    """By how much sums in a dtype may differ, as a share of the largest value."""
    return {torch.float32: 1e-5, torch.float64: 1e-9, torch.float16: 5e-3}.get(like.dtype, 3e-2)


def same(a: Tensor, b: Tensor, scale: Tensor | None = None) -> bool:
    """Whether two tensors agree up to rounding, measured against ``scale`` (by default the second)."""
    if a.shape != b.shape:
        return False
    a = a.to(b.device)
    largest = float((b if scale is None else scale).float().abs().max())
    return float((a.float() - b.float()).abs().max()) <= tolerance(a) * max(largest, 1e-30)


def sums(parts: Sequence[Tensor], total: Tensor) -> bool:
    """Whether tensors add up to another, each element up to rounding in its dtype, in whatever order."""
    wide = torch.stack([part.float().to(total.device) for part in parts])
    bound = 2 * len(parts) * torch.finfo(total.dtype).eps * wide.abs().sum(0)
    return bool(((wide.sum(0) - total.float()).abs() <= bound + 1e-30).all())


def examine(block: Block, bones: Skeleton) -> BlockFacts:
    """The parts of one block."""
    facts = BlockFacts()
    output = first_tensor(block.output)
    if output is None or output.shape != block.given.shape:
        facts.reasons["resid_post"] = (
            f"the block returns {type(block.output).__name__}, not a residual stream"
        )
        return facts
    if not isinstance(block.output, Tensor):
        facts.reasons["skip"] = f"the block returns a {type(block.output).__name__}"
    _attention(block, bones, facts)
    _neurons(block, bones, facts)
    _writes(block, output, facts)
    modules = {call.path: call.module for call in block.calls}
    for part in (*_READ, *_WRITTEN):
        if path := facts.paths.get(part):
            size = modules[path].in_features if part in _READ else modules[path].out_features
            facts.widths[part] = int(size)
    return facts


def _attention(block: Block, bones: Skeleton, facts: BlockFacts) -> None:
    found = [call.path for call in block.calls if attends(call.path, call.module)]
    if not found:
        for part in ("attn", "q", "k", "v", "z", "pattern"):
            facts.reasons[part] = "it has no attention"
        return
    attn = facts.paths["attn"] = min(found, key=lambda path: path.count("."))
    facts.handed = _is_handed(_at(block, attn))
    facts.crossed = _crossed(block, attn, bones.d_model)
    linears = [call for call in outermost_linears(block.calls) if call.path.startswith(f"{attn}.")]
    written = [call for call in linears if call.module.out_features == bones.d_model]
    mixed = 0
    if not bones.n_heads:
        facts.reasons["z"] = "the config does not say how many heads attention has"
    elif not written or linears[-1] is not written[-1]:
        facts.reasons["z"] = f"no Linear ends its attention ({attn})"
    elif written[-1].module.in_features % bones.n_heads:
        facts.reasons["z"] = (
            f"{attn} writes from {written[-1].module.in_features} values, no multiple of "
            f"{bones.n_heads} heads"
        )
    else:
        facts.paths["o"] = written[-1].path
        mixed = int(written[-1].module.in_features)
        linears = [call for call in linears if call is not written[-1]]
    if not mixed:
        for part in _NAMES:
            facts.reasons[part] = "what its heads give is not found, so it cannot be verified"
        return
    d_head = mixed // bones.n_heads
    for part, names in _NAMES.items():
        named = [call for call in linears if call.path.rpartition(".")[2] in names]
        heads = bones.n_heads
        if part != "q":  # where the config has no one number, its own
            heads = bones.n_kv_heads or (named[0].module.out_features // d_head if named else 0)
        if not named:
            inside = ", ".join(call.path for call in linears) or "none"
            facts.reasons[part] = f"no Linear of its attention makes it alone (they are {inside})"
        elif not heads or bones.n_heads % heads or named[0].module.out_features != heads * d_head:
            facts.reasons[part] = (
                f"{named[0].path} gives {named[0].module.out_features} values, not {heads} heads x {d_head}"
            )
        else:
            facts.paths[part] = named[0].path


def _crossed(block: Block, attn: str, width: int) -> tuple[str, str, str, str] | tuple[()]:
    """The Linears of queries, keys, values and heads, where keys and values are of other rows than queries."""
    found = {}
    for part, names in _NAMES.items():
        for call in outermost_linears(block.calls):
            owner, _, name = call.path.rpartition(".")
            if owner == attn and name in names and call.given is not None:
                inside = call.given.shape[:-1] == block.given.shape[:-1]
                if inside == (part == "q"):
                    found[part] = call.path
    written = [
        call.path
        for call in outermost_linears(block.calls)
        if call.path.startswith(f"{attn}.") and call.module.out_features == width
    ]
    last = written[-1] if written else ""
    if len(found) < 3 or not last or last in found.values():
        return ()
    return found["q"], found["k"], found["v"], last


def _neurons(block: Block, bones: Skeleton, facts: BlockFacts) -> None:
    outside = [
        call
        for call in outermost_linears(block.calls)
        if call.module.out_features == bones.d_model
        and not any(attends(part, _at(block, part)) for part in _ancestors(call.path))
    ]
    if not outside:
        facts.reasons["neurons"] = "no Linear outside its attention writes to the residual stream"
        return
    whole = [call for call in block.calls if "." not in call.path]
    for last in sorted(outside, key=lambda call: -call.module.in_features):
        owner = [
            call
            for call in whole
            if call.result is not None
            and last.result is not None
            and torch.equal(call.result, last.result)
        ]
        if last.given is None or last.given.shape[:-1] != block.given.shape[:-1]:
            facts.reasons["neurons"] = f"what {last.path} reads is not [batch, pos, neuron]"
        elif not owner:
            facts.reasons["neurons"] = (
                f"what {last.path} writes is not all that the MLP gives (experts?)"
            )
        elif not _by_position(owner[0]):  # Mamba, a convolution: what attention is elsewhere
            facts.reasons.setdefault("neurons", f"{owner[0].path} mixes positions, so it is no MLP")
            continue
        else:
            facts.reasons.pop("neurons", None)
            facts.paths["neurons"] = last.path
        return


def _by_position(call: Call) -> bool:
    """Whether a module gives the last positions of its input by themselves what it gave them in the run."""
    if call.given is None or call.result is None:
        return False
    try:
        alone = first_tensor(call.module(call.given[:, -2:]))
    except Exception:  # it takes more than the states of some positions, whatever it raises then
        return False
    return alone is not None and same(alone, call.result[:, -2:], call.result)


def _is_handed(module: nn.Module) -> bool:
    try:
        return "attention_interface(" in inspect.getsource(type(module).forward)
    except (OSError, TypeError):
        return False


def _ancestors(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts) - 1)]


def _at(block: Block, path: str) -> nn.Module:
    for call in block.calls:
        if call.path == path:
            return call.module
    return nn.Identity()


def _writes(block: Block, output: Tensor, facts: BlockFacts) -> None:
    """The children whose outputs sum to what the block adds."""
    added = output.float() - block.given.float()
    children = [
        call
        for call in block.calls
        if "." not in call.path and call.result is not None and call.result.shape == output.shape
    ]
    for size in (2, 3, 1):
        for chosen in combinations(children, size):
            if not sums([block.given, *map(_result, chosen)], output):
                continue
            if size == 2:
                _sorted(chosen, facts)
                return
            names = ", ".join(call.path for call in chosen)
            facts.reasons["attn_out"] = facts.reasons["mlp_out"] = (
                f"it adds the outputs of {names} to the residual stream, not one of the attention and one "
                "of the MLP"
            )
            return
    why = "no two of its modules' outputs sum to what it adds to the residual stream"
    for chosen in combinations(children, 2):
        if factors := _factors(added, chosen, output):
            names = " and ".join(
                f"{f:.4g} x {c.path}" for f, c in zip(factors, chosen, strict=True)
            )
            why = f"what it adds to the residual stream is scaled: {names}"
            break
    facts.reasons["attn_out"] = facts.reasons["mlp_out"] = why


def _result(call: Call) -> Tensor:
    result = call.result
    assert result is not None
    return result


def _sorted(chosen: Sequence[Call], facts: BlockFacts) -> None:
    """Which of two writers is the attention's: the one that is it or holds it, else the first."""
    first, second = chosen
    neurons = facts.paths.get("neurons", "").partition(".")[0]
    if second.path == facts.paths.get("attn") or (neurons and first.path == neurons):
        first, second = second, first
    facts.paths["mlp_write"] = second.path
    if "attn" in facts.paths:
        facts.paths["attn_write"] = first.path
    else:
        facts.reasons["attn_out"] = f"it has no attention, but {first.path}"


def _factors(added: Tensor, chosen: Sequence[Call], output: Tensor) -> tuple[float, ...]:
    parts = torch.stack([_result(call).flatten() for call in chosen], dim=1).double()
    found = torch.linalg.lstsq(parts, added.flatten().double()[:, None]).solution
    gap = float((parts @ found - added.flatten().double()[:, None]).abs().max())
    if gap > tolerance(output) * float(added.abs().max()):
        return ()
    return tuple(found.flatten().tolist())


def share(facts: Sequence[BlockFacts]) -> Shared:
    """One path and one width for each part in all blocks; where a block has another, it lacks the part.

    Attention is what calls transformers' attention functions, where some blocks have it: linear attention
    may be called alike, and be in more of them.
    """
    attending = [f for f in facts if f.handed] or facts
    paths = {}
    for name in FIELDS:
        among = facts if name in ("neurons", "mlp_write") else attending
        paths[name] = most_common([f.paths.get(name, "") for f in among])
    widths = {}
    for name in (*_READ, *_WRITTEN):
        among = [f for f in facts if f.paths.get(name) == paths[name] and name in f.widths]
        widths[name] = most_common([str(f.widths[name]) for f in among])
    reasons: dict[str, dict[int, str]] = {}
    for layer, own in enumerate(facts):
        for name, why in own.reasons.items():
            reasons.setdefault(name, {})[layer] = why
        for name, path in paths.items():
            site = _SITES.get(name, name)
            here, width = own.paths.get(name, ""), str(own.widths.get(name, ""))
            if layer in reasons.get(site, {}):
                continue
            if here != path:
                text = f"it has {here} in place of {path}" if here else f"it has no {path}"
                reasons.setdefault(site, {})[layer] = text
            elif width != widths.get(name, width):
                reasons.setdefault(site, {})[layer] = (
                    f"{path} has {width} values there, where most blocks have {widths[name]}"
                )
    return Shared({name: path for name, path in paths.items() if path}, reasons)
