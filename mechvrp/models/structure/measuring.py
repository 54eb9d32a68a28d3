"""``measure``: a model's facts, from its module tree and some small runs."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mechvrp.errors import InputError
from mechvrp.models.families.base import Modules
from mechvrp.models.structure.blocks import Shared, examine, same, share, tolerance
from mechvrp.models.structure.facts import Facts, FoundModules, component_of
from mechvrp.models.structure.imaging import look_at_image
from mechvrp.models.structure.layouts import Inputs
from mechvrp.models.structure.operations import ATTENTION
from mechvrp.models.structure.probing import Probe, padded, rope_positions, takes_positions
from mechvrp.models.structure.recording import Recording, record
from mechvrp.models.structure.skeleton import Skeleton, most_common, skeleton_of

if TYPE_CHECKING:
    from nnsight import NNsight

__all__ = ["measure"]


def measure(model: Any, envoy: NNsight, given: Inputs) -> Facts:
    """Find a model's parts and verify them on inputs of two samples or more.

    Raises:
        InputError: the model does not take the inputs, or they are of one sample.
        UnsupportedModelError: not even blocks, embedding and head were found.
    """
    bones = skeleton_of(model)
    if len(given["input_ids"]) < 2:
        raise InputError(
            "a probe needs two samples with questions of different lengths; got inputs of one"
        )
    inputs = dict(given)
    positions = _positions(model, inputs)
    seen = _recorded(model, given, bones)
    if positions is not None:
        inputs["position_ids"] = positions
    probe = Probe(model, envoy, inputs, bones)
    shared = share(seen.facts)
    reasons: dict[str, dict[int | None, str]] = {}
    for part, layers in shared.reasons.items():
        reasons[part] = {layer: why for layer, why in layers.items()}  # noqa: C416
    absent = {}
    paths = {"layers": bones.layers, "embed": bones.embed, **shared.paths}
    for name in ("attn", "q", "k", "v", "o", "neurons", "attn_write", "mlp_write"):
        if name not in paths:
            site = component_of(name)
            why = most_common(list(reasons.get(site, {}).values())) or "no block has it"
            reasons[site] = {None: why}
    facts = Facts(
        type(model).__name__, FoundModules(), reasons, {}, bones.n_layers, between=not seen.joined
    )
    facts.required = tuple(
        k for k in given if k not in ("input_ids", "attention_mask", "position_ids")
    )
    facts.positions = _kind_of_positions(model, positions)
    _ends(model, seen, facts, paths, bones)
    image = look_at_image(probe, seen, facts, paths)
    facts.attention = probe.looks(image)
    facts.how["attention"] = "a token's state was changed: the positions that moved"
    _heads(probe, shared, facts)
    _residual(probe, shared, facts)
    _resuming(probe, seen, facts)
    _padding(probe, seen, facts)
    for name in (f.name for f in fields(Modules)):
        if name not in paths:
            site = component_of(name)
            why = facts.unavailable(site) or "it was not found"
            absent[name] = f"{facts.kind} has no {name} that mechvrp can use: {why}"
    facts.modules = FoundModules(**paths, absent=absent)
    return facts


def _recorded(model: Any, inputs: Inputs, bones: Skeleton) -> Recording:
    try:
        return record(
            model, inputs, bones.layers, bones.d_model, lambda block: examine(block, bones)
        )
    except (ValueError, TypeError, RuntimeError, IndexError, AttributeError, KeyError) as error:
        raise InputError(
            f"{type(model).__name__} does not run on the probe's inputs {sorted(inputs)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _positions(model: Any, inputs: Inputs) -> Tensor | None:
    """Explicit positions by which padding cannot shift a prompt."""
    if not takes_positions(model):
        return None
    found = rope_positions(model, inputs)
    if found is not None:
        return found
    return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)


def _kind_of_positions(model: Any, positions: Tensor | None) -> str:
    if positions is None:
        return "own"
    return "rope" if any(hasattr(m, "get_rope_index") for m in model.modules()) else "counted"


def _ends(
    model: Any, seen: Recording, facts: Facts, paths: dict[str, str], bones: Skeleton
) -> None:
    """Embedding, blocks' ends, final norm, logits."""
    reasons, how = facts.reasons, facts.how
    embedded = [c for c in seen.outside if c.path == bones.embed]
    if len(embedded) != 1 or embedded[0].output.get("", torch.zeros(0)).ndim != 3:
        reasons["embed"] = {None: f"the token embedding is called {len(embedded)} times in a run"}
    else:
        how["embed"] = "its output is [batch, pos, d_model], once a run"
    for site in ("resid_pre", "resid_post"):
        if site not in reasons:
            how[site] = "what the block was given and returned"
    norm = next(
        (
            c.path
            for c in seen.outside
            if c.given is not None
            and seen.last is not None
            and c.given.shape == seen.last.shape
            and torch.equal(c.given, seen.last)
            and "norm" in f"{c.path.rpartition('.')[2]} {type(c.module).__name__}".lower()
        ),
        "",
    )
    if norm:
        paths["final_norm"] = norm
        how["final_norm"] = "a norm that is given what the last block returned"
    else:
        reasons["final_norm"] = {None: "no norm is given what the last block returned"}
    logits = getattr(seen.output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        reasons["logits"] = {
            None: f"{type(seen.output).__name__} has no logits [batch, pos, vocab]"
        }
    else:
        how["logits"] = "the model's own output"


def _heads(probe: Probe, shared: Shared, facts: Facts) -> None:
    """Queries, keys, values and heads: zeroed in all blocks at once, in one run each."""
    bones, paths = probe.bones, shared.paths
    for site in ("q", "k", "v", "z"):
        facts.reasons.setdefault(site, {})
    if None in facts.reasons["z"]:
        for site in ("q", "k", "v"):
            facts.reasons[site].setdefault(
                None, "what its heads give is not found, so it cannot be verified"
            )
        facts.reasons["pattern"] = {None: facts.reasons["z"][None]}
        _tidy(facts)
        return
    everywhere = [i for i in range(bones.n_layers) if i not in facts.reasons["z"]]

    def there(*sites: str) -> list[int]:
        if any(None in facts.reasons[site] for site in sites):
            return []
        return [i for i in everywhere if all(i not in facts.reasons[site] for site in sites)]

    if layers := there("v"):
        width = bones.n_heads // bones.n_kv_heads
        zs = probe.without(layers, paths["v"], paths["o"], bones.n_kv_heads)
        for layer, z in zip(layers, zs, strict=True):
            heads = z.unflatten(-1, (bones.n_heads, -1))
            if bool(heads[..., :width, :].any()):
                facts.reasons["v"][layer] = (
                    f"without the first head of {paths['v']} its queries' heads still give something"
                )
    if layers := there("q", "k"):
        clean = probe.without(layers, "", paths["o"])
        no_q = probe.without(layers, paths["q"], paths["o"])
        no_k = probe.without(layers, paths["k"], paths["o"])
        for layer, z, a, b in zip(layers, clean, no_q, no_k, strict=True):
            if not same(a, b) or same(a, z):
                for site in ("q", "k"):
                    facts.reasons[site][layer] = (
                        f"without {paths['q']} heads give other than without {paths['k']}, so scores are "
                        "not their products alone"
                    )
    else:
        for site, other in (("q", "k"), ("k", "q")):
            for where, why in facts.reasons[other].items():
                facts.reasons[site].setdefault(
                    where, f"without {other} it cannot be verified: {why}"
                )
    _pattern(probe, everywhere, paths["attn"], facts)
    _tidy(facts)


def _pattern(probe: Probe, layers: list[int], attn: str, facts: Facts) -> None:
    own = facts.reasons.setdefault("pattern", {})
    for layer in layers:
        if ATTENTION not in list(probe.block(layer, attn).source.names):
            own[layer] = "its attention does not call a function that transformers hands out"
    for where, why in facts.reasons["z"].items():
        own.setdefault(where, why)


def _tidy(facts: Facts) -> None:
    for site in ("q", "k", "v", "z", "pattern"):
        if not facts.reasons.get(site):
            facts.reasons.pop(site, None)
            facts.how[site] = {
                "v": "without its first head, the heads that use it give nothing",
                "z": "what the last Linear of the attention reads, by heads",
                "pattern": "the call of transformers' attention function",
            }.get(
                site, "without it heads give what they give without the other: they attend evenly"
            )


def _residual(probe: Probe, shared: Shared, facts: Facts) -> None:
    for site in ("attn_out", "mlp_out"):
        if site not in facts.reasons:
            facts.how[site] = "what the blocks add is the sum of the two"
    if "neurons" not in facts.reasons:
        facts.how["neurons"] = "what the last Linear of the MLP reads; its output is the MLP's"
    own: dict[int | None, str] = {}
    for layer in range(probe.bones.n_layers):
        if why := facts.unavailable("attn_out", layer):
            own[layer] = f"what attention adds is not known: {why}"
        elif why := probe.residual(layer, shared.paths["attn_write"]):
            own[layer] = why
    if own:
        facts.reasons["resid_mid"] = own
    else:
        facts.how["resid_mid"] = "it is the block's input and what attention wrote"


def _resuming(probe: Probe, seen: Recording, facts: Facts) -> None:
    logits = getattr(seen.output, "logits", None)
    if not isinstance(logits, Tensor) or "resid_post" in facts.reasons:
        return
    mask = probe.mask
    layer = max(1, probe.bones.n_layers // 2)
    for pixels in (False, True):
        try:
            found = probe.resumed(layer, pixels=pixels)
        except Exception as error:  # of the model's own code, whatever it raises without its image
            facts.notes["resume"] = f"{type(error).__name__}: {error}"
            continue
        if same(found[mask.to(found.device)], logits[mask.to(logits.device)]):
            facts.resumes, facts.forgets_image = True, not pixels
            facts.notes.pop("resume", None)
            return


def _padding(probe: Probe, seen: Recording, facts: Facts) -> None:
    """Whether more padding in front leaves the last position's logits as they are."""
    pad = getattr(probe.model.config.get_text_config(decoder=True), "pad_token_id", None)
    inputs = padded(probe.inputs, pad if isinstance(pad, int) and pad >= 0 else 0)
    positions = _positions(probe.model, inputs)
    if positions is not None:
        inputs["position_ids"] = positions
    with torch.no_grad():
        found = probe.model(**inputs, use_cache=False).logits[:, -1]
        own = probe.model(**probe.inputs, use_cache=False).logits[:, -1]
    scale = own.float().abs().max()
    if float((found.float() - own.float()).abs().max()) > 10 * float(scale) * tolerance(own):
        facts.notes["padding"] = "more padding in front of the prompts changes the answers"
    else:
        facts.how["padding"] = "more padding in front changes no answer"
    # Positions given explicitly are to mean what the model would do by itself, where nothing is padded.
    whole = probe.mask.all(-1)
    if positions is not None and bool(whole.any()):
        theirs = seen.output.logits[:, -1][whole]
        if not same(theirs, own[whole], scale * 10):
            facts.notes["positions"] = "counted positions give other answers than the model's own"
