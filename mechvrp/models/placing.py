"""Models that one device does not hold: weights on several devices or on disk, or divided between processes.

``device_map`` puts whole layers on devices or on disk (accelerate's hooks move what flows through them);
tensor parallelism (``distributed_config``) gives each process a part of every layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from nnsight import NNsight
from nnsight.intervention.interleaver import Interleaver
from nnsight.modeling.tp import TPFragments, device_mesh, gather, shard

from mechvrp.errors import UnsupportedModelError

if TYPE_CHECKING:
    from torch import Tensor

    from mechvrp.models.vlm import VLM

__all__ = [
    "check_divided",
    "entrance_of",
    "heads_put_together",
    "heads_taken_apart",
    "is_sharded",
    "root_of",
]


class RootEnvoy(NNsight):
    """A bare envoy which leaves inputs where they are if the first weights are on disk."""

    @property
    def device(self) -> torch.device | None:
        found = super().device
        return None if found is None or found.type == "meta" else found


class _Fragments(TPFragments):
    """nnsight's rules of which values are parts of which.

    nnsight 0.8.1 asks a function of transformers for a module's style where transformers 5.23 no longer has it.
    """

    def _style_of(self, envoy: Any) -> tuple[str, Any, Any] | None:
        if self._plan is None:
            return None
        from transformers.distributed.parallel_utils import ALL_PARALLEL_STYLES, _get_parameter_plan

        root, plan, mesh = self._plan
        if envoy.path == root:
            return None
        style = _get_parameter_plan(envoy.path[len(root) + 1 :], plan, is_weight=False)
        if style is None:
            return None
        return style, mesh, ALL_PARALLEL_STYLES._global_mapping.get(style)


def root_of(model: Any) -> NNsight:
    """The envoy of a Hugging Face model.

    Where transformers' tensor parallelism gave each process a part of a layer, nnsight puts parts together
    before a trace sees them, and takes edited ones apart again.
    """
    return RootEnvoy(model, interleaver=Interleaver(fragments=_Fragments()))


def entrance_of(model: Any) -> torch.device:
    """Where a Hugging Face model's inputs go: the device on which its token embedding runs."""
    embedding: Any = model.get_input_embeddings()
    if embedding.weight.is_meta:  # its weights are on disk, or nowhere
        hook = getattr(embedding, "_hf_hook", None)
        return torch.device(getattr(hook, "execution_device", None) or "cpu")
    found: torch.device = embedding.weight.device
    return found


def is_sharded(model: Any) -> bool:
    """Whether layers of the model are divided between processes (tensor parallelism)."""
    return device_mesh(model) is not None


def check_divided(model: VLM) -> None:
    """Raise unless heads and neurons of a model under tensor parallelism come out even.

    Raises:
        UnsupportedModelError: they do not; transformers would fail later, in the first forward.
    """
    mesh = device_mesh(model.model)
    if mesh is None:
        return
    sizes = {"heads": model.n_heads, "key/value heads": model.n_kv_heads, "neurons": model.d_mlp}
    uneven = [f"{size} {name}" for name, size in sizes.items() if size % mesh.size()]
    if uneven:
        raise UnsupportedModelError(
            f"{model.name} has {' and '.join(uneven)} a layer, which do not divide between {mesh.size()} "
            "processes: take a number of processes that divides them, or device_map="
        )


def heads_put_together(model: VLM, value: Tensor, axis: int) -> Tensor:
    """All heads of a value of which each process has some; the value itself where each has all."""
    found: Tensor = gather(model.envoy, value, dim=axis)
    return found


def heads_taken_apart(model: VLM, value: Tensor, axis: int) -> Tensor:
    """The heads that belong to this process."""
    found: Tensor = shard(model.envoy, value, dim=axis)
    return found
