"""The gain of the norm that reads a place in the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mechvrp.errors import UnavailableError
from mechvrp.tracing.caching import cache
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = ["mean_inverse_rms", "read_at", "reader_gain", "reader_norm"]

# What a sublayer writes is read as a part of the sum that it is added to.
_READ_AT = {
    "resid_pre": "resid_pre",
    "resid_mid": "resid_mid",
    "resid_post": "resid_post",
    "attn_out": "resid_mid",
    "mlp_out": "resid_post",
}

# The norms in front of an MLP, by what transformers calls them: Gemma 2's ``post_attention_layernorm``
# normalises what attention writes, so its ``pre_feedforward_layernorm`` is looked for first.
_BEFORE_MLP = ("pre_feedforward_layernorm", "post_attention_layernorm")


def read_at(site: Site) -> Site:
    """The residual stream that a norm reads, of which what ``site`` holds is (a part of) the sum.

    Raises:
        UnavailableError: no norm of a block reads the site (neurons and heads are read by a matrix).
    """
    if site.component not in _READ_AT:
        raise UnavailableError(
            f"{site} is not read through a norm with a gain of its own for each dimension; those of "
            f"{', '.join(_READ_AT)} are"
        )
    return Site(_READ_AT[site.component], site.layer)


def reader_norm(model: VLM, site: Site) -> str:
    """The path of the first norm that reads a site.

    Raises:
        UnavailableError: as `read_at`, or the norm is not where families known here have it.
    """
    stream = read_at(site.check(model))
    layers, layer = model.modules.layers, stream.layer or 0
    if stream.component == "resid_post" and layer == model.n_layers - 1:
        paths = [model.modules.final_norm]
    elif stream.component == "resid_mid":
        paths = [f"{layers}.{layer}.{name}" for name in _BEFORE_MLP]
    else:
        paths = [f"{layers}.{layer + (stream.component == 'resid_post')}.input_layernorm"]
    for path in paths:
        try:
            model.model.get_submodule(path)
        except AttributeError:
            continue
        return path
    raise UnavailableError(
        f"{model.name} has no module {' or '.join(map(repr, paths))}, so the gain of the norm that reads "
        f"{site} is not known"
    )


def reader_gain(model: VLM, site: Site) -> np.ndarray:
    """What the norm that reads a site multiplies each dimension by, ``[d_model]``.

    Measured on the norm itself, since Gemma adds one to its weight and Llama does not.

    Raises:
        UnavailableError: as `reader_norm`, or the norm centres what it reads (a LayerNorm).
    """
    path = reader_norm(model, site)
    norm: Any = model.model.get_submodule(path)
    if getattr(norm, "bias", None) is not None or isinstance(norm, torch.nn.LayerNorm):
        raise UnavailableError(
            f"{model.name}: {path} is not an RMSNorm, but a {type(norm).__name__}"
        )
    weight = norm.weight
    ones = torch.ones(model.d_model, dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        scaled = norm(ones).double() * (1 + _epsilon(model)) ** 0.5
    return np.asarray(scaled.cpu().numpy())


def mean_inverse_rms(
    model: VLM, samples: Sequence[Sample], site: Site, batch_size: int = 32
) -> float:
    """Mean over examples of 1 / (root mean square) of the last position of the stream that a norm reads."""
    stream = read_at(site.check(model))
    acts = cache(
        model, samples, [stream], positions="last", dtype=torch.float32, batch_size=batch_size
    )
    square = acts.flat(stream).double().pow(2).mean(-1)
    return float((square + _epsilon(model)).rsqrt().mean())


def _epsilon(model: VLM) -> float:
    return float(model.model.config.get_text_config(decoder=True).rms_norm_eps)
