"""A model as TransformerLens has it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from mechvrp.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from mechvrp.models.vlm import VLM

__all__ = ["to_transformer_lens"]


def to_transformer_lens(model: VLM) -> TransformerBridge:
    """TransformerLens's bridge over a copy of a model, where TransformerLens has an adapter for it.

    A copy, since a bridge replaces modules and switches to eager attention: it takes the memory of the weights
    again. Its hooks have the names of our sites. Give it a batch's ``input_ids``, ``pixel_values``,
    ``position_ids``, and what else ``batch.inputs`` holds for the architecture; it gets no
    tokenizer, since TransformerLens loads one anew by its name on the hub.

    Caches need no adapter: ``Activations.to_transformer_lens`` and ``mechvrp.tracing.from_transformer_lens``
    take those of every family.

    Raises:
        UnavailableError: TransformerLens has no adapter for the architecture, not all weights are in memory,
            or modules were replaced.
    """
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    from mechvrp.models.families import families
    from mechvrp.models.vlm import VLM

    if not isinstance(model, VLM):
        raise InputError(
            f"to_transformer_lens takes a model from mechvrp.load; got {type(model).__name__}"
        )
    kind = type(model.model).__name__
    if kind not in SUPPORTED_ARCHITECTURES:
        from importlib.metadata import version

        raise UnavailableError(
            f"TransformerLens {version('transformer-lens')} has no adapter for {kind} ({model.name}). Its "
            "caches can be had all the same: mechvrp.cache(...).to_transformer_lens(model)"
        )
    if model.family.measured and model.model.config.model_type in families():
        raise UnavailableError(
            f"TransformerLens's adapter for {kind} is for the towers and decoders that our family written by "
            f"hand is for, and {model.name} ({model.family.name}) has another. Its caches can be had all the "
            "same: mechvrp.cache(...).to_transformer_lens(model)"
        )
    divided = any(p.is_meta or hasattr(p, "full_tensor") for p in model.model.parameters())
    if divided or getattr(model.model, "hf_device_map", None):
        raise UnavailableError(
            f"{model.name} is not whole in memory here (device_map, distributed_config or dispatch=False), and "
            "a bridge is built over a copy of its weights: load it on one device"
        )
    # A copy of tensors alone: nnsight's own wrapping of a model's forwards must not go along.
    config: Any = copy.deepcopy(model.model.config)
    made = type(model.model)(config)
    if [type(m) for m in made.modules()] != [type(m) for m in model.model.modules()]:
        raise UnavailableError(
            f"modules of {model.name} were replaced, and a bridge is built over a copy as its config has it"
        )
    for own, theirs in zip(made.modules(), model.model.modules(), strict=True):
        for name, value in theirs._parameters.items():
            if value is not None:
                own._parameters[name] = nn.Parameter(value.detach().clone())
        for name, buffer in theirs._buffers.items():
            if buffer is not None:
                own._buffers[name] = buffer.detach().clone()
    made.tie_weights()
    return build_bridge_from_module(made.eval(), kind, hf_config=config, model_name=model.name)
