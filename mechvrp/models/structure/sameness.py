"""Whether two models compute the same: their code, their settings and their weights, as keys that are equal.

What a model computes depends on more than its class and config: a method replaced on an instance or on a
class, a hook, an attention function that was registered anew, gates that are zero.
"""

from __future__ import annotations

import enum
import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from nnsight.intervention.source import STATE, Controller
from torch import Tensor, nn
from torch.nn.modules import module as modules_of_torch

from mechvrp.errors import UnavailableError
from mechvrp.models.fingerprints import digest

__all__ = ["code_of", "sameness"]

#: Whose hooks change nothing that is computed.
_LIBRARIES = ("accelerate.", "nnsight.", "transformers.")
#: What every module has, but for ``training``: its parts and its hooks, which are looked at by themselves.
_PARTS = {*vars(nn.Module()), STATE} - {"training"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, enum.Enum)


class _Is:
    """An object as a key, equal to itself alone; it is kept, so that no other gets its address."""

    __slots__ = ("it",)

    def __init__(self, it: Any) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Is) and self.it is other.it

    def __hash__(self) -> int:
        return id(self.it)


class _UnknownError(Exception):
    """A part of a model of which it cannot be said whether it equals another."""


def code_of(model: nn.Module) -> tuple[Any, ...]:
    """By which code a model computes: equal as long as nobody has replaced any of it.

    Classes and their methods, functions of the modules they are written in, what was put on single
    instances (``forward`` and other callables), hooks, and the attention functions in use.
    """
    named = list(model.named_modules())
    return (
        tuple((name, type(module)) for name, module in named),
        tuple((name, key, _key(body)) for name, key, body in _overrides(named)),
        tuple(_hooks(named)),
        frozenset(_functions({type(module) for _, module in named})),
        tuple(_attention(named)),
    )


def sameness(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Any, ...] | None:
    """A key that two models share if they compute the same of the same inputs.

    Weights are part of it: what is measured can depend on them (a gate at zero hides what stands behind
    it). To read them once costs no more than one of the runs that are saved.

    Returns:
        ``None`` where that cannot be said: something was put on an instance, is not in memory, or a setting
        holds itself.
    """
    named = list(model.named_modules())
    if any(True for _ in _overrides(named)) or any(True for _ in _hooks(named)):
        return None
    tensors: list[tuple[str, Tensor]] = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
        *((f"inputs {name}", value) for name, value in inputs.items()),
    ]
    settings = _Settings(named)
    try:
        values = [settings.of(module) for _, module in named]
        weights = digest(tensors, type(model).__name__)
    except (_UnknownError, UnavailableError, RecursionError):
        return None
    devices = sorted({str(tensor.device) for _, tensor in tensors})
    shown = hashlib.sha256(repr((values, devices)).encode()).hexdigest()
    return (code_of(model), tuple(settings.functions), shown, weights)


def _overrides(named: list[tuple[str, nn.Module]]) -> Iterator[tuple[str, str, Any]]:
    """Callables on instances: what stands in the place of a method, and functions made for one model."""
    for name, module in named:
        for key, value in vars(module).items():
            if key in _PARTS or not callable(value):
                continue
            if isinstance(value, Controller):  # nnsight's, around what the module did before
                value = value.state.original
                if value is type(module).forward:
                    continue
            elif not hasattr(type(module), key) and (_is_known(value) or _is_own(value, module)):
                continue  # an activation, say; it is among the settings
            yield name, key, value


def _is_known(function: Any) -> bool:
    """Whether a function is one of a module's own, with nothing bound that cannot be seen."""
    if isinstance(function, partial):
        bound = (*function.args, *function.keywords.values())
        return _is_known(function.func) and all(isinstance(value, _PLAIN) for value in bound)
    if not isinstance(function, FunctionType | BuiltinFunctionType | type):
        return False
    owner = sys.modules.get(getattr(function, "__module__", None) or "")
    if owner is None or isinstance(function, BuiltinFunctionType):  # of torch's C code
        return isinstance(function, BuiltinFunctionType)
    return getattr(owner, function.__qualname__, None) is function


def _is_own(method: Any, module: nn.Module) -> bool:
    """Whether it is a method of a module that is kept on it under another name."""
    if not isinstance(method, MethodType) or method.__self__ is not module:
        return False
    return getattr(type(module), method.__name__, None) is method.__func__


def _hooks(named: list[tuple[str, nn.Module]]) -> Iterator[tuple[str, Any]]:
    """The hooks that a user has put on a model, or on all modules there are."""
    places = [(name, (m._forward_pre_hooks, m._forward_hooks)) for name, m in named]
    everywhere = (
        modules_of_torch._global_forward_pre_hooks,
        modules_of_torch._global_forward_hooks,
    )
    for name, kinds in [*places, ("all modules", everywhere)]:
        for hook in (hook for kind in kinds for hook in kind.values()):
            if not str(getattr(hook, "__module__", "")).startswith(_LIBRARIES):
                yield name, _key(hook)


def _key(function: Any) -> Any:
    """Methods are made anew whenever they are looked up, and equal if they are the same one."""
    return function if isinstance(function, MethodType) else _Is(function)


def _functions(classes: set[type]) -> Iterator[tuple[Any, ...]]:
    """Methods of classes and of what they inherit from, and functions beside them; with their code."""
    every = {base for cls in classes for base in cls.__mro__ if base is not object}
    spaces = {cls.__module__ for cls in every if not cls.__module__.startswith("torch.")}
    holders: list[tuple[Any, Mapping[str, Any]]] = [(cls, vars(cls)) for cls in every]
    holders += [(name, vars(sys.modules[name])) for name in spaces if name in sys.modules]
    holders.append(("torch.nn.functional", vars(nn.functional)))
    for holder, members in holders:
        for name, value in members.items():
            if isinstance(value, classmethod | staticmethod):
                value = value.__func__
            if isinstance(value, property):
                value = value.fget
            if isinstance(value, FunctionType | BuiltinFunctionType):
                yield holder, name, _Is(value), _Is(getattr(value, "__code__", None))


def _attention(named: list[tuple[str, nn.Module]]) -> Iterator[tuple[str, Any, Any]]:
    """What stands in transformers' tables under the names of attention that a model's configs give."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as MASKS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as FUNCTIONS

    configs = (getattr(module, "config", None) for _, module in named)
    names = {getattr(config, "_attn_implementation", None) for config in configs}
    for name in sorted(name for name in names if isinstance(name, str)):
        yield name, _Is(FUNCTIONS.get(name)), _Is(MASKS.get(name))


class _Settings:
    """What stands on modules beside their weights, written out: numbers, names, configs."""

    def __init__(self, named: list[tuple[str, nn.Module]]) -> None:
        self.names = {id(module): name for name, module in named}
        self.written: dict[int, str] = {}
        self.functions: list[_Is] = []

    def of(self, module: nn.Module) -> Any:
        return [
            (key, self.write(value))
            for key, value in vars(module).items()
            if key not in _PARTS and not isinstance(value, Controller)
        ]

    def write(self, value: Any) -> Any:
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, list | tuple):
            return [type(value).__name__, *map(self.write, value)]
        if isinstance(value, set | frozenset):
            return ["set", *sorted(map(repr, map(self.write, value)))]
        if isinstance(value, Mapping):
            return ["map", *sorted(repr((self.write(k), self.write(v))) for k, v in value.items())]
        if isinstance(value, Tensor):
            return digest([("", value)], "")
        if isinstance(value, nn.Module):
            if id(value) not in self.names:
                raise _UnknownError
            return ["module", self.names[id(value)]]
        if isinstance(value, partial):
            return [self.write(value.func), self.write(value.args), self.write(value.keywords)]
        if isinstance(value, MethodType):  # of the module itself, else it would be an override
            return ["method", value.__name__]
        if _is_known(value):
            self.functions.append(_Is(value))
            return ["function", value.__qualname__]
        if hasattr(value, "to_dict") and type(value).__module__.startswith("transformers."):
            if id(value) not in self.written:  # one config for dozens of layers
                self.written[id(value)] = repr((type(value).__qualname__, self.write(vars(value))))
            return self.written[id(value)]
        raise _UnknownError
