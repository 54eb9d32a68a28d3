"""The same interventions written for others: an nnsight trace a variant, plain hooks, TransformerLens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

import mechvrp
from mechvrp.tracing import Site

__all__ = ["Ablation", "Peer", "hooks", "nnsight_loop", "transformer_lens"]

#: A layer, its neurons, and at which positions they are zeroed.
Ablation = tuple[int, list[int], slice]


#: Runs some variants on a batch, one after the other: last-position logits [variant, example, d_vocab].
Peer = Callable[[mechvrp.Batch, list[Ablation]], torch.Tensor]


def nnsight_loop(model: mechvrp.VLM) -> Peer:
    """One bare nnsight trace a variant, as its tutorials write it."""
    envoy = model.envoy

    def run(batch: mechvrp.Batch, variants: list[Ablation]) -> torch.Tensor:
        found = []
        for layer, units, where in variants:
            with torch.no_grad(), envoy.trace(**batch.inputs, use_cache=False, logits_to_keep=1):
                down = envoy.model.language_model.layers[layer].mlp.down_proj
                neurons = down.input.clone()
                neurons[:, where, units] = 0
                down.input = neurons
                logits = envoy.output.logits[:, -1].save()
            found.append(logits)
        return torch.stack(found)

    return run


def hooks(hf: Any) -> Peer:
    """Plain PyTorch hooks on an unwrapped model."""

    def run(batch: mechvrp.Batch, variants: list[Ablation]) -> torch.Tensor:
        found = []
        for layer, units, where in variants:

            def edit(
                _module: Any, args: tuple[torch.Tensor], units: Any = units, where: Any = where
            ) -> tuple[torch.Tensor]:
                neurons = args[0].clone()
                neurons[:, where, units] = 0
                return (neurons,)

            down = hf.model.language_model.layers[layer].mlp.down_proj
            handle = down.register_forward_pre_hook(edit)
            try:
                with torch.no_grad():
                    out = hf(**batch.inputs, use_cache=False, logits_to_keep=1)
            finally:
                handle.remove()
            found.append(out.logits[:, -1])
        return torch.stack(found)

    return run


def transformer_lens(hf: Any) -> Peer:
    """``run_with_hooks`` on TransformerLens's bridge, built from a copy (it replaces modules)."""
    from transformer_lens.model_bridge import sources

    bridge = sources.build_bridge_from_module(
        copy.deepcopy(hf), type(hf).__name__, hf_config=hf.config
    )

    def run(batch: mechvrp.Batch, variants: list[Ablation]) -> torch.Tensor:
        found = []
        names = ("pixel_values", "image_grid_thw", "mm_token_type_ids", "position_ids")
        inputs = {name: batch.inputs[name] for name in names if name in batch.inputs}
        for layer, units, where in variants:

            def edit(value: torch.Tensor, hook: Any, units: Any = units, where: Any = where) -> Any:
                value = value.clone()
                value[:, where, units] = 0
                return value

            with torch.no_grad():
                logits = bridge.run_with_hooks(
                    batch.inputs["input_ids"],
                    fwd_hooks=[(str(Site("neurons", layer)), edit)],
                    **inputs,
                )
            found.append(logits[:, -1])
        return torch.stack(found)

    return run
