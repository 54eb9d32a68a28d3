"""Cross attention: blocks whose keys and values are the image's, tried in runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mechvrp.models.structure.blocks import BlockFacts, same
from mechvrp.models.structure.facts import Facts
from mechvrp.models.structure.layouts import Inputs, pixels_key
from mechvrp.models.structure.probing import Probe
from mechvrp.models.structure.recording import first_tensor

__all__ = ["find_image_keys"]

_SITES = ("image_k", "image_v")
_HOW = (
    "they change with their own sample's pixels and with no text; without k the block gives what it gives "
    "without q, without v something else, and without the first head of v the heads that use it give nothing"
)
Edit = Callable[[Tensor], Tensor]


def find_image_keys(probe: Probe, blocks: Sequence[BlockFacts], facts: Facts) -> None:
    """Note in which blocks keys and values are the image's, each verified.

    Args:
        probe: the model and its inputs.
        blocks: what was found of each block in the recorded run.
        facts: gets ``crossed``, and reasons where there are none.
    """
    found = {layer: block.crossed for layer, block in enumerate(blocks) if block.crossed}
    why = dict.fromkeys(range(probe.bones.n_layers), "its keys are those of the prompt")
    if found:
        others = [block for layer, block in enumerate(blocks) if layer not in found]
        widths = {block.widths["o"] for block in others if "o" in block.widths}
        why |= _refused(probe, found, widths)
    else:
        why = {None: "no block attends to keys beside those of the prompt"}  # type: ignore[dict-item]
    facts.crossed = {layer: paths[1:3] for layer, paths in found.items() if not why.get(layer)}  # type: ignore[misc]
    for site in _SITES:
        facts.reasons[site] = {layer: words for layer, words in why.items() if words}  # type: ignore[misc]
        if facts.crossed:
            facts.how[site] = _HOW


def _refused(
    probe: Probe, found: Mapping[int, tuple[str, str, str, str]], widths: Collection[int]
) -> dict[int, str]:
    """By block why what was found cannot be used, "" where it can."""
    key, rows = pixels_key(probe.inputs), len(probe.inputs["input_ids"])
    if not key or len(probe.inputs[key]) != rows:
        return dict.fromkeys(
            found, "its images are not one row a sample, so whose keys are whose is not known"
        )
    pixels = probe.inputs[key].clone()
    noise = torch.randn(pixels[0].shape, generator=torch.Generator().manual_seed(0)).to(pixels)
    pixels[0] = torch.where(
        pixels[0] == 0, pixels[0], pixels[0] + noise
    )  # tiles of zeros are padding
    layers = probe.bones.layers
    # Everything that is looked at, by its path in the model.
    full = {n: tuple(f"{layers}.{n}.{path}" for path in paths) for n, paths in found.items()}
    ends = [f"{layers}.{n}" for n in found]
    kv = [path for paths in full.values() for path in paths[1:3]]
    clean = _run(probe, [*kv, *ends])
    other = _run(probe, kv, inputs={**probe.inputs, key: pixels})
    text = _run(probe, kv, {probe.bones.embed: _disturbed})
    without = [
        _run(probe, ends, {paths[part]: torch.zeros_like for paths in full.values()})
        for part in range(3)
    ]
    heads = {n: _heads(probe, paths, widths) for n, paths in full.items()}
    reasons = {}
    for layer, paths in full.items():
        end = f"{layers}.{layer}"
        no_q, no_k, no_v = (run[end] for run in without)
        reasons[layer] = (
            heads[layer]
            or _layout(clean, other, text, paths[1:3], rows)
            or (
                "without keys it gives other than without queries, so scores are not their products alone"
                if not same(no_q, no_k)
                else "without its values it gives the same (is its gate shut?)"
                if same(no_v, clean[end])
                else ""
            )
        )
    return reasons


def _heads(probe: Probe, paths: Sequence[str], widths: Collection[int]) -> str:
    """Why its heads are not those of other blocks, whose attention writes from ``widths``; "" if they are."""
    q, k, v, o = (probe.model.get_submodule(path) for path in paths)
    n, shared = probe.bones.n_heads, probe.bones.n_kv_heads
    if not n or not shared or n % shared or q.out_features % n:
        return f"its {q.out_features} values of queries are no {n} heads"
    size = q.out_features // n
    if (k.out_features, v.out_features, o.in_features) != (shared * size, shared * size, n * size):
        return (
            f"its keys, values and heads have {k.out_features}, {v.out_features} and {o.in_features} values; "
            f"expected {shared} heads of keys and {n} of queries, of {size} each"
        )
    if other := sorted(set(widths) - {n * size}):
        return f"its heads are of {size} values, and those of other blocks of {other[0] // n}"

    def first(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., :size] = 0
        return value

    (given,) = _run(probe, [], {paths[2]: first}, read=[paths[3]]).values()
    silent = (given.unflatten(-1, (n, size)) == 0).flatten(0, -3).all(0).all(-1)
    if silent.tolist() != [head < n // shared for head in range(n)]:
        name = paths[2].rpartition(".")[2]
        return f"without the first {size} values of {name} other heads than the first ones give nothing"
    return ""


def _layout(
    clean: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    text: Mapping[str, Tensor],
    paths: Sequence[str],
    rows: int,
) -> str:
    """Why keys are not those of each sample's image in turn, "" if they are."""
    for path in paths:
        before, after = (run[path].reshape(rows, -1) for run in (clean, other))
        if not torch.equal(text[path], clean[path]):
            return f"what {path.rpartition('.')[2]} makes depends on the text"
        if same(after[0], before[0]) or not torch.equal(after[1:], before[1:]):
            return f"what {path.rpartition('.')[2]} makes does not change with its own sample's pixels alone"
    return ""


def _disturbed(value: Tensor) -> Tensor:
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    return value + noise.to(value) * value.float().std().to(value)


def _run(
    probe: Probe,
    kept: Sequence[str],
    edits: Mapping[str, Edit] | None = None,
    inputs: Inputs | None = None,
    read: Sequence[str] = (),
) -> dict[str, Tensor]:
    """What some modules give, and others are given, in a run in which others give something else."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            value = first_tensor(output)
            assert value is not None
            found[path] = value.clone()

        return hook

    def edit(change: Edit) -> Callable[..., Any]:
        return lambda _, args, output: change(output)

    with ExitStack() as stack, torch.no_grad():
        for path, change in (edits or {}).items():
            handle = probe.model.get_submodule(path).register_forward_hook(edit(change))
            stack.callback(handle.remove)
        for path in read:
            module = probe.model.get_submodule(path)
            handle = module.register_forward_pre_hook(
                lambda _, args, path=path: found.update({path: args[0].clone()})
            )
            stack.callback(handle.remove)
        for path in kept:
            handle = probe.model.get_submodule(path).register_forward_hook(keep(path))
            stack.callback(handle.remove)
        probe.model(**(inputs or probe.inputs), use_cache=False)
    return found
