"""``measure``: a model's facts, from its module tree and some small runs."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mechvrp.errors import InputError, UnsupportedModelError
from mechvrp.models.families.base import Modules
from mechvrp.models.structure.blocks import Shared, examine, share, tolerance
from mechvrp.models.structure.crossing import find_image_keys
from mechvrp.models.structure.facts import Facts, FoundModules, component_of
from mechvrp.models.structure.heads import find_heads
from mechvrp.models.structure.imaging import look_at_image
from mechvrp.models.structure.layouts import Inputs
from mechvrp.models.structure.logits import logit_gap
from mechvrp.models.structure.probing import (
    Probe,
    moved,
    padded,
    rope_positions,
    takes_positions,
)
from mechvrp.models.structure.recording import Recording, record
from mechvrp.models.structure.skeleton import Skeleton, most_common, skeleton_of

if TYPE_CHECKING:
    from nnsight import NNsight

__all__ = ["measure"]


def measure(model: Any, envoy: NNsight, given: Inputs) -> Facts:
    """Find a model's parts and verify them on inputs of two samples or more.

    Raises:
        InputError: the model does not take the inputs, they are of one sample, or all are padded.
        UnsupportedModelError: not even blocks, embedding and head were found, or its blocks run otherwise
            than once each, in order, over the prompt's positions.
    """
    bones = skeleton_of(model)
    if len(given["input_ids"]) < 2:
        raise InputError(
            "a probe needs two samples with questions of different lengths; got inputs of one"
        )
    if not bool(given["attention_mask"].all(-1).any()):
        raise InputError(
            "all samples of the probe are padded: cut it to the longest of its prompts"
        )
    inputs = dict(given)
    seen = _recorded(model, given, bones)
    kind, why_own = _kind_of_positions(model, inputs, seen)
    if (positions := _positions(kind, model, inputs)) is not None:
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
    facts.positions = kind
    if why_own:
        facts.notes["positions"] = why_own
    _ends(probe, seen, facts, paths)
    image = look_at_image(probe, seen, facts, paths)
    facts.attention = probe.looks(image)
    facts.how["attention"] = "a token's state was changed: the positions that moved"
    find_heads(probe, shared, facts)
    find_image_keys(probe, seen.facts, facts)
    _residual(probe, shared, facts)
    _resuming(probe, facts)
    _padding(probe, facts)
    for name in (f.name for f in fields(Modules)):
        if name not in paths:
            site = component_of(name)
            why = facts.unavailable(site) or "it was not found"
            absent[name] = f"{facts.kind} has no {name} that mechvrp can use: {why}"
    facts.modules = FoundModules(**paths, absent=absent)
    return facts


def _recorded(model: Any, inputs: Inputs, bones: Skeleton) -> Recording:
    try:
        seen = record(
            model, inputs, bones.layers, bones.d_model, lambda block: examine(block, bones)
        )
    except (ValueError, TypeError, RuntimeError, IndexError, AttributeError, KeyError) as error:
        raise InputError(
            f"{type(model).__name__} does not run on the probe's inputs {sorted(inputs)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    kind = type(model).__name__
    if seen.order != list(range(bones.n_layers)) or len(seen.facts) != bones.n_layers:
        raise UnsupportedModelError(
            f"the blocks of {kind} ({bones.layers}) ran in the order {seen.order[:40]}, not each once one "
            "after the other, so layers do not mean what they mean elsewhere in mechvrp"
        )
    expected = (*inputs["input_ids"].shape, bones.d_model)
    if seen.first is None or tuple(seen.first.shape) != expected:
        shape = None if seen.first is None else list(seen.first.shape)
        raise UnsupportedModelError(
            f"the blocks of {kind} are given {shape}, not the prompt's [batch, pos, d_model] "
            f"{list(expected)}: its positions are not those of its input_ids (an image put in front?)"
        )
    return seen


def _positions(kind: str, model: Any, inputs: Inputs) -> Tensor | None:
    """Explicit positions by which padding cannot shift a prompt; ``None``: they are the model's own."""
    if kind == "own":
        return None
    found = rope_positions(model, inputs) if kind == "rope" else None
    return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0) if found is None else found


def _kind_of_positions(model: Any, inputs: Inputs, seen: Recording) -> tuple[str, str]:
    """By which rule positions are given, and why by none.

    They are to mean what the model would do by itself, where nothing is padded.
    """
    if not takes_positions(model):
        return "own", ""
    kind = "rope" if rope_positions(model, inputs) is not None else "counted"
    theirs = getattr(seen.output, "logits", None)
    if not isinstance(theirs, Tensor):
        return kind, ""
    whole = inputs["attention_mask"].bool().all(-1)
    given = {**inputs, "position_ids": _positions(kind, model, inputs)}
    with torch.no_grad():
        found = model(**given, use_cache=False).logits
    if not bool(moved(found, theirs)[whole.cpu()].any()):
        return kind, ""
    return "own", (
        f"{'its rule for images' if kind == 'rope' else 'counting'} gives other answers than the model's own "
        "positions, which are left to it"
    )


def _ends(probe: Probe, seen: Recording, facts: Facts, paths: dict[str, str]) -> None:
    """Embedding, blocks' ends, final norm, logits."""
    reasons, how, bones = facts.reasons, facts.how, probe.bones
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
            and torch.equal(c.given.to(seen.last.device), seen.last)
            and "norm" in f"{c.path.rpartition('.')[2]} {type(c.module).__name__}".lower()
        ),
        "",
    )
    logits = getattr(seen.output, "logits", None)
    if not norm:
        reasons["final_norm"] = {None: "no norm is given what the last block returned"}
    elif not _unembedded(probe, seen, norm, logits, facts):
        reasons["final_norm"] = {
            None: f"logits are not what the unembedding makes of {norm}: they are scaled, or made otherwise"
        }
    else:
        paths["final_norm"] = norm
        how["final_norm"] = "the unembedding makes the logits of what it makes of the last block's"
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        reasons["logits"] = {
            None: f"{type(seen.output).__name__} has no logits [batch, pos, vocab]"
        }
    else:
        how["logits"] = "the model's own output"


def _unembedded(probe: Probe, seen: Recording, norm: str, logits: Any, facts: Facts) -> bool:
    """Whether logits are those of the final norm, capped or not."""
    model = probe.model
    if not isinstance(logits, Tensor) or seen.last is None:
        return False
    with torch.no_grad():
        found = model.get_output_embeddings()(model.get_submodule(norm)(seen.last))
    if found.shape != logits.shape:
        return False
    text = model.config.get_text_config(decoder=True)
    for cap in (None, getattr(text, "final_logit_softcapping", None)):
        own = found if cap is None else cap * torch.tanh(found / cap)
        if not bool((moved(own, logits) & probe.mask).any()):
            facts.soft_cap = cap
            return True
    return False


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


def _resuming(probe: Probe, facts: Facts) -> None:
    if "logits" in facts.reasons or "resid_post" in facts.reasons:
        return
    if why := facts.reasons.pop("skip", {}).get(0, ""):
        facts.notes["resume"] = why
        return
    with torch.no_grad():
        logits = probe.model(**probe.inputs, use_cache=False).logits
    # From early blocks on, too: what an image adds between blocks is often added to the first ones only.
    layers = dict.fromkeys((1, max(1, probe.bones.n_layers // 2)))
    for pixels in (False, True):
        try:
            runs = [probe.resumed(layer, pixels=pixels) for layer in layers]
        except Exception as error:  # of the model's own code, whatever it raises without its image
            facts.notes["resume"] = f"{type(error).__name__}: {error}"
            continue
        if not any(bool((moved(found, logits) & probe.mask).any()) for found in runs):
            facts.resumes, facts.forgets_image = True, not pixels
            facts.notes.pop("resume", None)
            return


def _padding(probe: Probe, facts: Facts) -> None:
    """Whether more padding in front leaves the last position's logits as they are."""
    pad = getattr(probe.model.config.get_text_config(decoder=True), "pad_token_id", None)
    inputs = padded(probe.inputs, pad if isinstance(pad, int) and pad >= 0 else 0)
    if (positions := _positions(facts.positions, probe.model, inputs)) is not None:
        inputs["position_ids"] = positions
    with torch.no_grad():
        found = probe.model(**inputs, use_cache=False).logits[:, -1]
        own = probe.model(**probe.inputs, use_cache=False).logits[:, -1]
    if logit_gap(found, own) > 10 * tolerance(own):
        facts.notes["padding"] = "more padding in front of the prompts changes the answers"
    else:
        facts.how["padding"] = "more padding in front changes no answer"
