"""Linear maps of a model, whatever class they are of: adapted (LoRA) and quantised ones too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from mechvrp.errors import UnavailableError

if TYPE_CHECKING:
    from mechvrp.models.vlm import VLM

__all__ = ["is_linear", "outermost_linears", "weight_of"]

# Unit vectors that a linear map is asked about at once.
_ROWS = 1024
# Their length, a power of two.
_UNIT = 256.0


class _Called(Protocol):
    path: str
    module: Any


_C = TypeVar("_C", bound=_Called)


def is_linear(module: nn.Module) -> bool:
    """Whether it maps ``in_features`` values to ``out_features``: ``nn.Linear``, and what takes its place.

    Adapters (PEFT) and quantisers (bitsandbytes, GPTQ, AWQ, HQQ, ...) replace an ``nn.Linear`` by a module of
    their own, with these two attributes and often without a weight.
    """
    if isinstance(module, nn.Linear):
        return True
    if not all(
        isinstance(getattr(module, name, None), int) for name in ("in_features", "out_features")
    ):
        return False
    inner = getattr(module, "base_layer", None)  # what PEFT's adapters wrap: perhaps an embedding
    if isinstance(inner, nn.Module):
        return is_linear(inner)
    # Linear maps inside: it is something greater, whose sizes are called alike.
    return not any(isinstance(part, nn.Linear) for part in module.modules())


def outermost_linears(calls: Sequence[_C]) -> list[_C]:
    """Calls of linear maps, but not of those inside another one: an adapter's own, and what it wraps."""
    found = [call for call in calls if is_linear(call.module)]
    paths = {call.path for call in found}

    def inside(path: str) -> bool:
        while path := path.rpartition(".")[0]:
            if path in paths:
                return True
        return False

    return [call for call in found if not inside(call.path)]


def weight_of(model: VLM, module: Any) -> Tensor:
    """A module's whole weight, without its graph: of a linear map ``[out_features, in_features]``.

    Where a linear map is no plain ``nn.Linear`` its ``weight`` may be packed, or only that of the layer that an
    adapter wraps. Then it is what the map makes of the unit vectors.

    Raises:
        UnavailableError: it is not in memory (on disk, or the model was loaded without weights), or there is
            none.
    """
    weight: Any = getattr(module, "weight", None)
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise UnavailableError(
            f"{model.name}: a weight of {type(module).__name__} is not in memory (it is on disk, or was never "
            "loaded), and this is worked out from it; load the model without offloading"
        )
    if is_linear(module) and not _is_plain(module):
        return _measured(model, module)
    if not isinstance(weight, Tensor):
        raise UnavailableError(
            f"{model.name}: {type(module).__name__} has no weight, and this is worked out from it"
        )
    weight = weight.detach()
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def _is_plain(module: Any) -> bool:
    """Whether ``weight`` is all that an ``nn.Linear`` multiplies by, as numbers."""
    if not isinstance(module, nn.Linear) or type(module).forward is not nn.Linear.forward:
        return False
    weight: Any = module.weight.detach()
    known = type(weight) is Tensor or hasattr(weight, "full_tensor")
    return known and weight.is_floating_point() and weight.element_size() > 1


def _measured(model: VLM, module: Any) -> Tensor:
    parameters = [*module.parameters(), *module.buffers()]
    device = parameters[0].device if parameters else model.device
    columns = []
    with torch.no_grad():
        zeros = torch.zeros(1, module.in_features, dtype=model.dtype, device=device)
        offset = module(zeros).float()
        # A bias is added before it is taken away, and rounds small weights: so they are made large beside it.
        for start in range(0, module.in_features, _ROWS):
            rows = min(_ROWS, module.in_features - start)
            units = zeros.repeat(rows, 1)
            units[torch.arange(rows), start + torch.arange(rows)] = _UNIT
            columns.append(((module(units).float() - offset) / _UNIT).T.to(model.dtype))
    return torch.cat(columns, dim=1)
