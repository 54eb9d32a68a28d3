"""The image's part of a model's facts: where its tokens stand, how they lie, its projector and tower."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mechvrp.models.structure.blocks import sums
from mechvrp.models.structure.cells import misplaced
from mechvrp.models.structure.facts import Facts
from mechvrp.models.structure.layouts import candidates
from mechvrp.models.structure.probing import Probe
from mechvrp.models.structure.recording import Recording
from mechvrp.models.structure.skeleton import lists_of_blocks

__all__ = ["look_at_image"]


def look_at_image(probe: Probe, seen: Recording, facts: Facts, paths: dict[str, str]) -> Tensor:
    """Image positions, their layout, the projector and the tower; returns the positions."""
    image = probe.answering()
    ids, reasons = probe.inputs["input_ids"].cpu(), facts.reasons
    config = probe.model.config
    named = [getattr(config, n, None) for n in ("image_token_id", "image_token_index")]
    tokens = set(ids[image].tolist())
    if not bool(image.any()):
        why = "no position's embedding depends on the image: its features are not in the sequence"
        facts.notes["image"] = why
        reasons["projected"] = {None: why}
    elif len(tokens) == 1 and (
        (token := tokens.pop()) in named or torch.equal(ids == token, image)
    ):
        facts.image_token = token
        silent = int(((ids == token) & ~image).sum())
        facts.how["image"] = "the positions whose embeddings answer to the pixels" + (
            f" ({silent} of their kind in the probe do not: learned tokens)" if silent else ""
        )
        image = ids == token
    else:
        facts.notes["image"] = (
            f"the positions that answer to the pixels hold the ids {sorted(tokens)[:9]}, which do not "
            "stand for the image alone"
        )
        reasons["projected"] = {None: facts.notes["image"]}
    tower = _tower(probe, seen, facts, paths)
    if facts.image_token is not None:
        _layout(probe, image, tower, facts)
        _projector(probe, seen, image, facts, paths)
    _tower_rows(probe, image, facts, paths)
    return image


def _layout(probe: Probe, image: Tensor, tower: nn.Module | None, facts: Facts) -> None:
    counts = image.sum(-1).tolist()
    rules = candidates(probe.model, probe.inputs, counts)
    why = "no rule for grids fits its number of image tokens"
    for rule in rules:
        wrong = misplaced(probe, rule, image, counts, tower)
        if not wrong:
            facts.layout = rule
            facts.how["grid"] = (
                f"{rule.how}: every token answered most to the pixels of its own place"
            )
            return
        why = f"not {rule.how}: {wrong}"
    facts.notes["grid"] = why


def _tower(probe: Probe, seen: Recording, facts: Facts, paths: dict[str, str]) -> nn.Module | None:
    """The list of blocks that runs first outside the decoder."""
    order = {path: i for i, path in enumerate(seen.called)}
    lists = {
        name: blocks
        for name, blocks in lists_of_blocks(probe.model).items()
        if name != probe.bones.layers and all(f"{name}.{i}" in order for i in range(len(blocks)))
    }
    if not lists:
        facts.reasons["vision_resid_post"] = {
            None: "no list of blocks with attention ran outside the decoder"
        }
        return None
    first = min(lists, key=lambda name: order[f"{name}.0"])
    paths["vision_layers"] = first
    if order.get(probe.bones.embed, 0) > order[f"{first}.0"]:
        facts.how.pop("embed", None)
        facts.reasons["embed"] = {
            None: "tokens are embedded after the image is seen, and mechvrp's order of sites has them "
            "first; use resid_pre of block 0"
        }
    return _holder(probe.model, first)


def _holder(model: Any, path: str) -> nn.Module:
    """The whole tower that a list of blocks belongs to: the part of the model below its body."""
    parts = path.split(".")
    start = 1 if parts[0] in ("model", "base_model") and len(parts) > 2 else 0
    found: nn.Module = model.get_submodule(".".join(parts[: start + 1]))
    return found


def _tower_rows(probe: Probe, image: Tensor, facts: Facts, paths: dict[str, str]) -> None:
    if "vision_layers" not in paths:
        return
    counts = image.sum(-1).tolist()
    shape = probe.tower_rows(f"{paths['vision_layers']}.0")
    rows = facts.layout.rows(probe.model, probe.inputs, counts) if any(counts) else []
    if facts.image_token is None:
        rows = []
    if not shape:
        why = "its blocks do not return a tensor"
    elif sum(rows) != shape[0]:
        why = (
            f"its first block gives {list(shape)}, of which mechvrp cannot say what belongs to which "
            "image"
        )
    else:
        facts.how["vision_resid_post"] = (
            f"the first of {list(shape)} counts images, tiles or patches"
        )
        return
    facts.reasons["vision_resid_post"] = {None: f"{paths['vision_layers']}: {why}"}


def _projector(
    probe: Probe, seen: Recording, image: Tensor, facts: Facts, paths: dict[str, str]
) -> None:
    """The last module that gives what stands at the image tokens, and whose output is what is used."""
    assert seen.first is not None
    rows = seen.first[image.to(seen.first.device)]
    calls = seen.outside[: seen.before]
    # Of a module that is called again, what is read and edited is the first call.
    first = {call.path: call for call in reversed(calls)}
    for call in (call for call in reversed(calls) if first[call.path] is call):
        for name, value in call.output.items():
            flat = value.reshape(-1, value.shape[-1]).to(rows.device)
            if flat.shape != rows.shape:
                continue
            scale = float((flat.double() * rows.double()).sum() / flat.double().pow(2).sum())
            if sums([flat.float() * scale], rows):
                moved = probe.projected(call.path, name)
                if not bool(moved[image].all()):
                    continue
                paths["projector"], facts.projected_field = call.path, name
                times = "" if abs(scale - 1) < 1e-4 else f", times {scale:.4g}"
                facts.how["projected"] = f"what stands at the image tokens equals it{times}"
                return
    facts.reasons["projected"] = {
        None: "no module's output is what stands at the image tokens (rows are packed, split or scaled "
        "behind the projector); edit resid_pre of block 0 at positions='image' instead"
    }
