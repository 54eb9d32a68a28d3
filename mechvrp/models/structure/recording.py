"""What a model computes in one run: read only, with hooks that are gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Block", "Call", "Recording", "first_tensor", "record"]


@dataclass
class Call:
    """One call of a module.

    Attributes:
        path: of the module, from the block or the model.
        module: itself.
        given: its first tensor.
        output: what it returned.
    """

    path: str
    module: Any
    given: Tensor | None
    output: Any

    @property
    def result(self) -> Tensor | None:
        """Its output, or the first part of it."""
        return first_tensor(self.output)


@dataclass
class Block:
    """One decoder block in the run: what came in, what went out, and its parts in order of return."""

    given: Tensor
    output: Any = None
    calls: list[Call] = field(default_factory=list)


@dataclass
class Recording:
    """A run.

    Attributes:
        outside: calls outside of the decoder's blocks, in order of return; those of width d_model with
            their outputs.
        called: every path that was called outside of the blocks, in the order of the first call.
        before: how many of those returned before the first block began.
        order: the blocks that ran, by their place in the list.
        facts: what ``examine`` made of each block.
        first, last: the residual stream that enters the first block and leaves the last.
        joined: whether each block was given what the one before returned.
        output: what the model returned.
    """

    outside: list[Call] = field(default_factory=list)
    called: dict[str, None] = field(default_factory=dict)
    before: int = 0
    order: list[int] = field(default_factory=list)
    facts: list[Any] = field(default_factory=list)
    first: Tensor | None = None
    last: Tensor | None = None
    joined: bool = True
    output: Any = None


def first_tensor(value: Any) -> Tensor | None:
    """A tensor, or the first part of a tuple that is one."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        return value[0]
    return None


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    for value in (*args[:1], *kwargs.values()):
        if isinstance(value, Tensor):
            return value
    return None


@contextmanager
def _hooks() -> Iterator[list[Any]]:
    handles: list[Any] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def record(
    model: Any,
    inputs: dict[str, Tensor],
    layers: str,
    d_model: int,
    examine: Callable[[Block], Any],
) -> Recording:
    """Run a model once; each block is examined as it returns, so that no more than one is held.

    Args:
        model, inputs: what is run.
        layers: path of the decoder's blocks.
        d_model: width of its residual stream.
        examine: makes facts of a block.
    """
    found, blocks = Recording(), model.get_submodule(layers)
    now: list[Block] = []

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = _given(args, kwargs)
        if given is None:
            return
        now.append(Block(given.clone()))
        if found.first is None:
            found.first, found.before = now[-1].given, len(found.outside)
        elif found.last is not None:
            same = torch.equal(found.last, now[-1].given.to(found.last.device))
            found.joined = found.joined and same

    def left(index: int) -> Callable[..., None]:
        def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            found.order.append(index)
            if not now:
                return
            block = now.pop()
            block.output = output
            result = first_tensor(output)
            found.last = None if result is None else result.clone()
            if result is not None:  # a block may be on another device than the one before
                block.given = block.given.to(result.device)
            found.facts.append(examine(block))

        return leave

    def inside(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if now:
                kept = output.clone() if isinstance(output, Tensor) else output
                now[-1].calls.append(Call(path, module, _given(args, kwargs), kept))

        return hook

    def outside(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            found.called.setdefault(path)
            fields = _of_width(output, d_model)
            if fields:
                found.outside.append(Call(path, module, _given(args, kwargs), fields))

        return hook

    with _hooks() as handles, torch.no_grad():
        for name, module in model.named_modules():
            if name in ("", layers):
                continue
            if not name.startswith(f"{layers}."):
                handles.append(module.register_forward_hook(outside(name), with_kwargs=True))
        for index, block in enumerate(blocks):
            for name, module in block.named_modules():
                if name:
                    handles.append(module.register_forward_hook(inside(name), with_kwargs=True))
            handles.append(block.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(block.register_forward_hook(left(index)))
        found.output = model(**inputs, use_cache=False)
    return found


def _of_width(output: Any, width: int) -> dict[str, Tensor]:
    """Copies of the tensors of a width in an output: the output itself under "", fields by name."""
    if isinstance(output, Tensor):
        parts = {"": output}
    elif hasattr(output, "items"):
        parts = {k: v for k, v in output.items() if isinstance(v, Tensor)}
    else:
        return {}
    return {k: v.clone() for k, v in parts.items() if v.ndim >= 2 and v.shape[-1] == width}
