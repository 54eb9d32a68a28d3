"""A copy of a model with dimensions of the residual stream that nothing writes and nothing reads."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mechvrp.errors import UnavailableError
from mechvrp.models import VLM

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["copied", "mlp_parts", "quietest", "reserve"]


def copied(model: VLM, name: str) -> VLM:
    """A new model with the same weights, none of them shared, and its unembedding not tied.

    It is made anew from config and weights: a deep copy would take nnsight's hooks on the module along, which
    hold on to the first one.

    Raises:
        UnavailableError: weights are not in memory (offloaded), or not those of a plain module (quantised).
    """
    source = model.model
    weights = source.state_dict()
    for key, value in weights.items():
        if value.is_meta:
            raise UnavailableError(
                f"{model.name}: {key} is not in memory; load the model without offloading"
            )
    config = copy.deepcopy(source.config)
    for part in (config, config.get_text_config(decoder=True)):
        part.tie_word_embeddings = False
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and then replaced
        fresh = type(source)._from_config(
            config, dtype=source.dtype, attn_implementation=_attention(source.config)
        )
    try:
        fresh.load_state_dict({k: v.detach().clone() for k, v in weights.items()}, assign=True)
    except RuntimeError as error:
        raise UnavailableError(f"{model.name} cannot be copied: {error}") from error
    fresh = fresh.to(source.device)
    buffers = dict(fresh.named_buffers())
    for key, value in source.named_buffers():
        buffers[key].data = value.detach().clone()
    fresh.generation_config = copy.deepcopy(source.generation_config)
    return VLM(fresh, model.processor, family=model.family, name=name)


def _attention(config: Any) -> Any:
    """What ``attn_implementation`` was, for each part of the model."""
    parts = {key: getattr(config, key)._attn_implementation for key in config.sub_configs}
    return {"": config._attn_implementation, **parts}


def mlp_parts(model: VLM, layer: int) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Module]:
    """Gate, up and down projection of a gated MLP, and the activation function of its gate.

    Raises:
        UnavailableError: the MLP is not of that form.
    """
    path = f"{model.modules.layers}.{layer}.{model.modules.neurons}"
    parent = model.model.get_submodule(path.rpartition(".")[0])
    parts = [getattr(parent, name, None) for name in ("gate_proj", "up_proj")]
    parts.append(model.model.get_submodule(path))
    act: Any = getattr(parent, "act_fn", None)
    if not all(isinstance(part, nn.Linear) for part in parts) or act is None:
        raise UnavailableError(
            f"{type(parent).__name__} of {model.name} is not a gated MLP of the linear modules gate_proj, "
            f"up_proj and {path.rpartition('.')[2]} with an act_fn; circuits can be planted in those only"
        )
    gate, up, down = parts
    assert isinstance(gate, nn.Linear)
    assert isinstance(up, nn.Linear)
    assert isinstance(down, nn.Linear)
    return gate, up, down, act


def quietest(model: VLM, n: int) -> list[int]:
    """The ``n`` dimensions of the residual stream that the decoder's weights use least."""
    used = torch.zeros(model.d_model, dtype=torch.float64)
    for layer in range(model.n_layers):
        for weight in _readers(model, layer):
            used += _shares(weight, 0)
        for module in _writers(model, layer):
            used += _shares(module.weight, 1)
    return [int(i) for i in used.argsort(stable=True)[:n]]


def _shares(weight: Tensor, dim: int) -> Tensor:
    squares = weight.detach().double().cpu().square().sum(dim)
    return squares / squares.sum()


@torch.no_grad()
def reserve(model: VLM, dims: Sequence[int]) -> None:
    """Take dimensions of the residual stream out of use, in place: none writes them, none reads them.

    Raises:
        UnavailableError: what writes the stream, or reads it, is not a linear module.
    """
    at = list(dims)
    model.model.get_input_embeddings().weight[:, at] = 0
    for module in (
        _projection(model),
        *(w for i in range(model.n_layers) for w in _writers(model, i)),
    ):
        module.weight[at] = 0
        if module.bias is not None:
            module.bias[at] = 0
    for layer in range(model.n_layers):
        for weight in _readers(model, layer):
            weight[:, at] = 0
    model.model.get_output_embeddings().weight[:, at] = 0


def _projection(model: VLM) -> nn.Linear:
    """The linear module that image features leave the projector by."""
    projector = model.model.get_submodule(model.modules.projector)
    found = [
        m
        for m in projector.modules()
        if isinstance(m, nn.Linear) and m.out_features == model.d_model
    ]
    if not found:
        raise UnavailableError(
            f"the projector of {model.name} ({type(projector).__name__}) ends in no linear module"
        )
    return found[-1]


def _writers(model: VLM, layer: int) -> list[nn.Linear]:
    return _linears(model, layer, ("o", "neurons"))


def _readers(model: VLM, layer: int) -> list[Tensor]:
    gate, up, _, _ = mlp_parts(model, layer)
    return [*(m.weight for m in _linears(model, layer, ("q", "k", "v"))), gate.weight, up.weight]


def _linears(model: VLM, layer: int, names: Sequence[str]) -> list[nn.Linear]:
    found = []
    for name in names:
        path = f"{model.modules.layers}.{layer}.{getattr(model.modules, name)}"
        module = model.model.get_submodule(path)
        if not isinstance(module, nn.Linear):
            raise UnavailableError(
                f"{path} of {model.name} is a {type(module).__name__}, no linear module; circuits can be "
                "planted in models of linear projections only"
            )
        found.append(module)
    return found
