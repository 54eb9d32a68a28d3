"""What the body of a remote run does in vain, found in its text before anything is sent."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mechvrp.errors import InputError
from mechvrp.models.vlm import VLM

__all__ = ["check_body"]

#: Methods that change a list, a dictionary or a set.
_FILL = frozenset(
    (
        "append",
        "extend",
        "insert",
        "add",
        "update",
        "setdefault",
        "pop",
        "remove",
        "clear",
        "discard",
    )
)
#: Of a model: those that run it.
_RUN = frozenset(("generate", "generate_ids", "generate_output"))


def check_body(body: Sequence[ast.stmt], scope: Mapping[str, Any]) -> None:
    """Raise ``InputError`` where a body runs the model again, or fills what lies here.

    A server fills a copy, and only values that are saved come back: the list here would stay empty, without a
    word.

    Args:
        body: of the trace.
        scope: what its names stand for in front of it.
    """
    in_place = {id(node.target) for node in _nodes(body) if isinstance(node, ast.AugAssign)}
    own = {
        node.id
        for node in _nodes(body)
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Store)
        and id(node) not in in_place
    }
    for node in _nodes(body):  # other ways to give a name its meaning in the body
        if isinstance(node, ast.arg):
            own.add(node.arg)
        elif isinstance(node, ast.alias):
            own.add((node.asname or node.name).partition(".")[0])
        elif isinstance(
            node,
            ast.FunctionDef | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar,
        ):
            own.add(node.name or "")
    for node in _nodes(body):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            if not isinstance(of, ast.Name) or of.id in own:
                continue
            there, method = scope.get(of.id), node.func.attr
            if isinstance(there, VLM) and method in _RUN:
                raise InputError(
                    f"line {node.lineno}: {of.id}.{method} runs the model, and this is the body of a run of "
                    "it: call it before the run, or after it"
                )
            if method in _FILL and isinstance(there, (list, dict, set)):
                raise InputError(_IN_VAIN.format(node.lineno, of.id, f"{of.id}.{method}(...)"))
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
            of = node.value
            if isinstance(of, ast.Name) and of.id not in own:
                there = scope.get(of.id)
                if isinstance(there, (list, dict, torch.Tensor, np.ndarray)):
                    raise InputError(_IN_VAIN.format(node.lineno, of.id, f"{of.id}[...] = ..."))
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            if name not in own and isinstance(
                scope.get(name), (list, dict, set, torch.Tensor, np.ndarray)
            ):
                raise InputError(_IN_VAIN.format(node.lineno, name, f"changing {name} in place"))


_IN_VAIN = (
    "line {0}: {1} lies here, and a remote run would change a copy of it, so that {2} would be lost: make it "
    "in the body and save it there (nnsight.save({1})), or save the values and fill it after the run"
)


def _nodes(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    for part in body:
        yield from ast.walk(part)
