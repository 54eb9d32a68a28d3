"""The same reads and edits with plain PyTorch hooks, written apart from the library's own tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Fn = Callable[[Tensor], Tensor]


def place(name: str, component: str, layer: int | None) -> tuple[str, str]:
    """(module path, "in" | "out") of a component in the transformers class of a tiny model."""
    gemma2, qwen = name == "paligemma2", name.startswith("qwen")
    block = f"model.language_model.layers.{layer}"
    tower = f"model.visual.blocks.{layer}" if qwen else f"model.vision_tower.encoder.layers.{layer}"
    return {
        "embed": ("model.language_model.embed_tokens", "out"),
        "vision_resid_post": (tower, "out"),
        "projected": ("model.visual" if qwen else "model.multi_modal_projector", "out"),
        "resid_pre": (block, "in"),
        "q": (f"{block}.self_attn.q_proj", "out"),
        "k": (f"{block}.self_attn.k_proj", "out"),
        "v": (f"{block}.self_attn.v_proj", "out"),
        "z": (f"{block}.self_attn.o_proj", "in"),
        "attn_out": (
            f"{block}.post_attention_layernorm" if gemma2 else f"{block}.self_attn",
            "out",
        ),
        "resid_mid": (
            f"{block}.pre_feedforward_layernorm" if gemma2 else f"{block}.post_attention_layernorm",
            "in",
        ),
        "neurons": (f"{block}.mlp.down_proj", "in"),
        "mlp_out": (f"{block}.post_feedforward_layernorm" if gemma2 else f"{block}.mlp", "out"),
        "resid_post": (block, "out"),
        "logits": ("", "out"),
    }[component]


def hook(model: Any, name: str, component: str, layer: int | None, fn: Fn) -> None:
    """Pass a site's value through ``fn``; to be called on a fresh model, before its first forward."""
    attach(model, component, *place(name, component, layer), fn)


def attach(model: Any, component: str, path: str, side: str, fn: Fn) -> None:
    """``hook`` at a module of any model."""
    module = model.get_submodule(path)
    if component == "resid_mid":
        # The block keeps the same tensor as its residual, so only an edit in place reaches both.
        def in_place(_: Any, args: tuple) -> None:
            args[0].copy_(fn(args[0].clone()))

        module.register_forward_pre_hook(in_place)
    elif side == "in":

        def before(_: Any, args: tuple, kwargs: dict) -> Any:
            if args:
                return (fn(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": fn(kwargs["hidden_states"])}

        module.register_forward_pre_hook(before, with_kwargs=True)
    else:

        def after(_: Any, __: Any, out: Any) -> Any:
            if isinstance(out, tuple):
                return (fn(out[0]), *out[1:])
            if component == "logits":
                out.logits = fn(out.logits)
                return out
            if component == "projected" and hasattr(out, "pooler_output"):
                out.pooler_output = fn(out.pooler_output)
                return out
            return fn(out)

        module.register_forward_hook(after)


def hook_pattern(model: Any, layer: int, fn: Fn) -> None:
    """Pass a layer's attention weights through ``fn``, by recomputing what they make of the values."""
    attention = model.model.language_model.layers[layer].self_attn
    kept: dict[str, Tensor] = {}
    attention.v_proj.register_forward_hook(lambda _, __, out: kept.update(v=out))
    # A forward of its own for the output projection: by then the weights are not known to a hook.
    from transformers.models.llama.modeling_llama import repeat_kv

    project = attention.o_proj.forward
    attention.o_proj.forward = lambda z: z  # give the heads' outputs to the hook below

    def after(_: Any, __: Any, out: tuple) -> tuple:
        _, weights = out
        batch, heads, length, _ = weights.shape
        v = kept["v"].view(batch, length, -1, attention.head_dim).transpose(1, 2)
        v = repeat_kv(v, heads // v.shape[1])
        z = torch.matmul(fn(weights), v).transpose(1, 2).contiguous()
        return project(z.reshape(batch, length, -1)), weights

    attention.register_forward_hook(after)


def heads(flat: Tensor, d_head: int) -> Tensor:
    return flat.unflatten(-1, (-1, d_head))
