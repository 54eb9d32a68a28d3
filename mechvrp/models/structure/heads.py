"""Whose heads are whose: queries, keys, values, patterns and what heads give, each tried in a run."""

from __future__ import annotations

from nnsight.intervention.interleaver import OutOfOrderError
from nnsight.modeling.tp import device_mesh

from mechvrp.models.structure.blocks import Shared, same
from mechvrp.models.structure.facts import Facts
from mechvrp.models.structure.probing import Probe

__all__ = ["find_heads"]

_HOW = {
    "v": "without its first head, the heads that use it give nothing",
    "z": "what the last Linear of the attention reads, in the heads of its attention function",
    "pattern": "the call of transformers' attention function",
    "q": "without it heads give what they give without k: they attend evenly",
    "k": "without it heads give what they give without q: they attend evenly",
}


def find_heads(probe: Probe, shared: Shared, facts: Facts) -> None:
    """Verify the sites of heads, and what attention writes: each in all blocks at once, in a run or two."""
    for site in _HOW:
        facts.reasons.setdefault(site, {})
    if None in facts.reasons["z"]:
        why = facts.reasons["z"][None]
        for site in ("q", "k", "v"):
            facts.reasons[site].setdefault(
                None, "what its heads give is not found, so it cannot be verified"
            )
        facts.reasons["pattern"] = {None: why}
    else:
        _functions(probe, shared, facts)
        _values(probe, shared, facts)
        _writes(probe, shared, facts)
    for site, how in _HOW.items():
        if not facts.reasons.get(site):
            facts.reasons.pop(site, None)
            facts.how[site] = how


def _there(probe: Probe, facts: Facts, *sites: str) -> list[int]:
    """The blocks that have all of some sites."""
    if any(None in facts.reasons.get(site, {}) for site in sites):
        return []
    return [
        i
        for i in range(probe.bones.n_layers)
        if all(i not in facts.reasons.get(site, {}) for site in sites)
    ]


def _functions(probe: Probe, shared: Shared, facts: Facts) -> None:
    """Heads as transformers' attention function is given them: their number and size, and a pattern's parts."""
    bones, paths, reasons = probe.bones, shared.paths, facts.reasons
    layers = _there(probe, facts, "z")
    text = probe.model.config.get_text_config(decoder=True)
    mesh = device_mesh(probe.model)
    parts = 1 if mesh is None else mesh.size()  # of a layer's heads each process has its part
    for layer, (shape, strange) in zip(layers, probe.handed(layers, paths["attn"]), strict=True):
        why = ""
        width = int(probe.model.get_submodule(f"{bones.layers}.{layer}.{paths['o']}").in_features)
        if not shape:
            why = "its attention does not call one function that transformers hands out"
            reasons["pattern"][layer] = why
            why += ", so how its heads lie cannot be verified"
        elif shape[-2] * parts != bones.n_heads or bones.n_heads * shape[-1] != width:
            why = (
                f"its attention function gives {shape[-2]} heads of {shape[-1]}, and {paths['o']} reads "
                f"{width} values, not {bones.n_heads} heads"
            )
        elif strange and text._attn_implementation != "eager":
            reasons["pattern"][layer] = f"its attention also takes {', '.join(strange)}"
        if why:
            reasons["z"][layer] = why
    for where, lacking in list(reasons["z"].items()):
        reasons["pattern"].setdefault(where, lacking)
        for site in ("q", "k", "v"):
            reasons[site].setdefault(where, f"its heads cannot be verified: {lacking}")


def _values(probe: Probe, shared: Shared, facts: Facts) -> None:
    """Queries, keys and values: zeroed in all blocks at once, in one run each."""
    bones, paths, reasons = probe.bones, shared.paths, facts.reasons
    if layers := _there(probe, facts, "v", "z"):
        owner = probe.model.get_submodule(f"{bones.layers}.{layers[0]}")
        size = owner.get_submodule(paths["o"]).in_features // bones.n_heads
        shared_by = bones.n_heads * size // owner.get_submodule(paths["v"]).out_features
        zs = probe.without(layers, paths["v"], paths["o"], bones.n_heads // shared_by)
        for layer, z in zip(layers, zs, strict=True):
            heads = z.unflatten(-1, (bones.n_heads, -1))
            if bool(heads[..., :shared_by, :].any()):
                reasons["v"][layer] = (
                    f"without the first head of {paths['v']} its queries' heads still give something"
                )
    if layers := _there(probe, facts, "q", "k", "z"):
        clean = probe.without(layers, "", paths["o"])
        no_q = probe.without(layers, paths["q"], paths["o"])
        no_k = probe.without(layers, paths["k"], paths["o"])
        for layer, z, a, b in zip(layers, clean, no_q, no_k, strict=True):
            if not same(a, b) or same(a, z):
                for site in ("q", "k"):
                    reasons[site][layer] = (
                        f"without {paths['q']} heads give other than without {paths['k']}, so scores are "
                        "not their products alone"
                    )
    for site, other in (("q", "k"), ("k", "q")):
        for where, why in list(reasons[other].items()):
            reasons[site].setdefault(where, f"without {other} it cannot be verified: {why}")


def _writes(probe: Probe, shared: Shared, facts: Facts) -> None:
    """That what is taken for what attention writes comes of its heads, and is not the MLP's."""
    layers = _there(probe, facts, "z", "attn_out")
    if not layers:
        return
    write = shared.paths["attn_write"]
    try:
        even = probe.written(layers, shared.paths["o"], write)
    except OutOfOrderError:
        even = [False] * len(layers)
    for layer, its in zip(layers, even, strict=True):
        if not its:
            for site in ("attn_out", "mlp_out"):
                facts.reasons.setdefault(site, {})[layer] = (
                    f"{write} still tells positions apart where heads give nothing, so it is not what "
                    "attention writes"
                )
