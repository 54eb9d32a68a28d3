"""Other maps of where an answer comes from, to put beside attention: gradients and rollout.

Maps of image tokens on the image's own grid, at the last prompt position, not normalised. They cost more
than ``attention_maps``, which needs one forward and a row of each pattern: gradients need a backward pass,
rollout whole patterns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import nnsight
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.patching.measures import fixed_target
from mechvrp.reliability.grids import on_grid
from mechvrp.tracing import access
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch

__all__ = [
    "attention_rollout",
    "grad_cam",
    "gradient_maps",
    "gradient_maps_of",
    "gradient_times_input",
    "rollout_maps",
    "rollout_maps_of",
]


def grad_cam(
    activations: Float[Tensor, "token d_model"], gradients: Float[Tensor, "token d_model"]
) -> Float[Tensor, " token"]:
    """Grad-CAM on tokens: ReLU(sum_d a_d x_d), a_d the mean over tokens of the gradient of unit d.

    Selvaraju et al. 2017 (arXiv 1610.02391), equations 1 and 2, with tokens for pixels of a feature map.
    """
    return (activations * gradients.mean(dim=0)).sum(-1).relu()


def gradient_times_input(
    activations: Float[Tensor, "token d_model"], gradients: Float[Tensor, "token d_model"]
) -> Float[Tensor, " token"]:
    """sum_d g_d x_d of each token: by how much the answer's logit falls, to first order, if it is zeroed.

    Signed. Shrikumar et al. 2016 (arXiv 1605.01713).
    """
    return (activations * gradients).sum(-1)


_METHODS = {"grad_cam": grad_cam, "gradient_times_input": gradient_times_input}


def gradient_maps(
    model: VLM,
    samples: Iterable[Sample],
    *,
    method: Literal["grad_cam", "gradient_times_input"] = "grad_cam",
    layer: int = 0,
    target: Any = "own",
    batch_size: int = 8,
    progress: bool = False,
) -> list[Float[np.ndarray, "row col"]]:
    """Maps from the gradient of the answer's logit at the image tokens.

    One forward and one backward a batch; the graph takes several times the memory of a forward.

    Args:
        model: from ``mechvrp.load``.
        samples: of one image each.
        method: ``grad_cam`` or ``gradient_times_input``.
        layer: in front of which block the image tokens are taken (0: as the projector gives them).
        target: whose logit, ``"own"`` (the model's first token) or ``"right"`` (the right answer's first).
        batch_size: samples a pass.
        progress: show a bar.

    Raises:
        InputError: no such method or target.
        UnavailableError: several images, or image tokens without a place on the grid.
        NumericalError: a gradient is NaN or infinite.
    """
    if method not in _METHODS:
        raise InputError(f"method is one of {', '.join(_METHODS)}; got {method!r}")
    if target not in ("own", "right"):
        raise InputError(f"target is 'own' or 'right'; got {target!r}")
    site = Site("resid_pre", layer).check(model)
    maps: list[np.ndarray] = []
    for chunk in in_batches(samples, batch_size, progress, method):
        maps += gradient_maps_of(model, model.encode(chunk), site, [method], target)[method]
    return maps


def gradient_maps_of(
    model: VLM, batch: Batch, site: Site, methods: Iterable[str], target: Any
) -> dict[str, list[np.ndarray]]:
    """Maps of a batch by each of the methods, which share the forward and the backward pass."""
    states, gradients = _gradients(model, batch, site, target)
    return {
        method: [
            on_grid(
                tokens,
                _METHODS[method](states[i, tokens.position], gradients[i, tokens.position]).numpy(),
            )
            for i, tokens in enumerate(batch.tokens.images)
        ]
        for method in methods
    }


def _gradients(model: VLM, batch: Batch, site: Site, target: Any) -> tuple[Tensor, Tensor]:
    """The residual stream at a site and the gradient there of the targets' logits, [example, pos, d]."""
    with Trace(model, batch, grad=True, options={"logits_to_keep": 1}) as t:
        # A leaf of its own: the graph begins here, without the vision tower and the blocks before.
        start = t[site].detach().clone().requires_grad_().save()
        t.put(site, start)
        logits = t.logits.save()
    with torch.enable_grad():
        last = logits[:, -1].float()
        ids = torch.as_tensor(fixed_target(model, batch, last.detach(), target))
        # Rows do not see one another, so the gradient of their sum is each row's own.
        total = last.gather(-1, ids.to(last.device)[:, None]).sum()
        (gradient,) = torch.autograd.grad(total, start)
    if not bool(torch.isfinite(gradient).all()):
        raise NumericalError(f"the gradient at {site} of {model.name} is NaN or infinite")
    return start.detach().float().cpu(), gradient.float().cpu()


def attention_rollout(
    patterns: Float[Tensor, "layer *batch query key"],
) -> Float[Tensor, "*batch key"]:
    """How much of the last position's state comes from each position, if attention were all.

    The last row of the product of (A_l + I) / 2 over layers, A_l the mean of the heads' patterns: Abnar
    and Zuidema 2020 (arXiv 2005.00928), section 3. Sums to 1 over all positions. Only vectors are
    multiplied, from the last layer down.

    Args:
        patterns: means over heads; rows sum to 1.

    Raises:
        ShapeError: the patterns are not square.
    """
    if patterns.ndim < 3 or patterns.shape[-1] != patterns.shape[-2]:
        raise ShapeError(
            f"patterns are [layer, ..., query, key] of equally many queries and keys; got "
            f"{tuple(patterns.shape)}"
        )
    flow = torch.zeros_like(patterns[0, ..., 0, :])
    flow[..., -1] = 1
    for pattern in patterns.flip(0):
        flow = (flow + (flow[..., None, :] @ pattern)[..., 0, :]) / 2
    return flow


def rollout_maps(
    model: VLM, samples: Iterable[Sample], *, batch_size: int = 4, progress: bool = False
) -> list[Float[np.ndarray, "row col"]]:
    """Attention rollout from the last prompt position to the image tokens.

    Needs whole patterns: of T positions, heads x T^2 numbers an example while a layer runs, and
    layers x T^2 kept (LLaVA-1.5 at T = 650: 54 MB and 54 MB in float32), where ``attention_maps`` keeps
    layers x heads x T.

    Args:
        model: loaded with ``attn="sdpa"`` or ``"eager"``.
        samples: of one image each.
        batch_size: samples a forward.
        progress: show a bar.

    Raises:
        UnavailableError: another attention implementation, several images, or image tokens without a
            place on the grid.
    """
    access.check_available(model, Site("pattern", 0))
    maps: list[np.ndarray] = []
    for chunk in in_batches(samples, batch_size, progress, "rollout"):
        maps += rollout_maps_of(model, model.encode(chunk))
    return maps


def rollout_maps_of(model: VLM, batch: Batch) -> list[np.ndarray]:
    """Rollout maps of a batch."""
    with Trace(model, batch, options={"logits_to_keep": 1}) as t:
        patterns = nnsight.save([pattern.float().mean(dim=1) for pattern in t.pattern])
        t.stop()
    flow = attention_rollout(torch.stack(patterns)).cpu().numpy()
    if not np.isfinite(flow).all():
        raise NumericalError(f"attention of {model.name} holds NaN")
    return [
        on_grid(tokens, flow[i, tokens.position.numpy()])
        for i, tokens in enumerate(batch.tokens.images)
    ]
