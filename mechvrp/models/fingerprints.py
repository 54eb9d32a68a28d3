"""``fingerprint``: which weights these are, in a few letters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mechvrp.errors import InputError, UnavailableError
from mechvrp.models.linears import is_linear

if TYPE_CHECKING:
    from mechvrp.models.vlm import VLM

__all__ = ["digest", "fingerprint"]

#: Words of each tensor that are taken as they are, evenly spread.
_SAMPLED = 512

# What was found of a model, and the state of its weights then.
_known: WeakKeyDictionary[VLM, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


def fingerprint(model: VLM) -> str:
    """A digest of a model's architecture, sizes, dtypes and weights: 32 hexadecimal digits.

    Of each weight tensor its name, shape and dtype, the sum of its bits taken as 64-bit whole numbers, and
    512 of these spread over it. So any one value that changes is seen, and so are most changes of
    order. Sums of whole numbers do not depend on threads or devices, as sums of floats do: the same
    checkpoint has the same fingerprint anywhere. It tells checkpoints apart, and is no defence
    against weights made to collide. The processor has no part in it, nor have buffers but those of linear
    maps, where quantisers keep weights; of adapters it is told which are in use, and how strongly.

    Weights are read once for each model, at the speed of memory, and again only after they were replaced
    or edited in place; an edit through ``.data`` is hidden from PyTorch's own count of edits, and from
    this.

    Of a model loaded without weights (``dispatch=False``) it is that of its name and revision on the hub.

    Raises:
        UnavailableError: weights are not in memory (offloaded, or never loaded, and not by a hub id), or of a
            dtype that has no plain bits.
    """
    if not hasattr(model, "model"):
        raise InputError(f"expected a model from mechvrp.load(...); got {model!r:.60}")
    state = (*(_state(tensor) for _, tensor in _weights(model)), *_adapters(model))
    if model.hub.get("dispatch") is False:
        if "repo_id" not in model.hub:
            raise UnavailableError(
                f"{model.name} was loaded without its weights (dispatch=False) and by no hub id: nothing says "
                "which weights are meant, and it has no fingerprint; load it with its weights, or by its hub id"
            )
        named = [
            type(model.model).__name__,
            *(str(model.hub.get(k)) for k in ("repo_id", "revision")),
        ]
        return hashlib.sha256("\0".join(["without weights", *named]).encode()).hexdigest()[:32]
    found = _known.get(model)
    if found is None or found[0] != state:
        found = (state, _digest(model))
        _known[model] = found
    return found[1]


def _state(parameter: Tensor) -> tuple[int, int]:
    # Tensors made in inference mode count no edits.
    return parameter.data_ptr(), -1 if parameter.is_inference() else parameter._version


def _digest(model: VLM) -> str:
    try:
        return digest(_weights(model), type(model.model).__name__, _adapters(model))
    except UnavailableError as error:
        raise UnavailableError(f"{model.name}: {error}") from error


def digest(tensors: Iterable[tuple[str, Tensor]], kind: str, more: Iterable[str] = ()) -> str:
    """A digest of named tensors, of what they belong to, and of more words: 32 hexadecimal digits.

    Raises:
        UnavailableError: a tensor is not in memory, or of a dtype that has no plain bits.
    """
    found = hashlib.sha256(kind.encode())
    for name, parameter in sorted(tensors, key=lambda pair: pair[0]):
        shape = "x".join(map(str, parameter.shape))
        found.update(f"\0{name}\0{shape}\0{parameter.dtype}\0".encode())
        if parameter.is_meta:
            raise UnavailableError(
                f"{name} is not in memory, so it has no fingerprint; load the model without offloading"
            )
        try:
            numbers = parameter.detach().reshape(-1).view(torch.uint8)
        except (RuntimeError, NotImplementedError) as error:
            raise UnavailableError(
                f"the bits of {name} ({parameter.dtype}) cannot be read: {error}"
            ) from error
        whole = len(numbers) // 8 * 8
        if numbers.storage_offset() % 8:
            numbers = numbers.clone()  # words of 64 bits begin at multiples of 8 bytes
        words = numbers[:whole].view(torch.int64)
        # It wraps at 2^64, so the order of the additions does not matter.
        found.update(f"{int(words.sum())}\0".encode())
        found.update(_bytes(words[:: max(1, len(words) // _SAMPLED)]))
        found.update(_bytes(numbers[whole:]))
    for word in more:
        found.update(f"\0{word}".encode())
    return found.hexdigest()[:32]


def _adapters(model: VLM) -> list[str]:
    """Of each layer with adapters of PEFT, which are in use and how strongly."""
    names = ("active_adapters", "disable_adapters", "merged", "scaling")
    return [
        " ".join([path, *(f"{name}={getattr(module, name, None)}" for name in names)])
        for path, module in model.model.named_modules()
        if hasattr(module, "base_layer") and hasattr(module, "active_adapters")
    ]


def _weights(model: VLM) -> list[tuple[str, Tensor]]:
    """Parameters, and buffers of linear maps."""
    buffers = [
        (f"{path}.{name}", buffer)
        for path, module in model.model.named_modules()
        if is_linear(module)
        for name, buffer in module.named_buffers(recurse=False)
    ]
    return [*model.model.named_parameters(), *buffers]


def _bytes(numbers: Tensor) -> bytes:
    return numbers.cpu().contiguous().numpy().tobytes()
