"""``remote=``: traces, and whole functions of this package, run where the weights are.

``remote=True`` sends to nnsight's server (NDIF), a URL to another one, ``"local"`` simulates one here: what
would be sent is packed, read back where this package cannot be imported, and run on the model in memory.
"""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from typing import TYPE_CHECKING, Any

import nnsight
import torch
from nnsight.intervention.backends.remote import RemoteBackend
from nnsight.intervention.serialization import reduce_block
from nnsight.ndif import pull_env
from nnsight.schema.request import RequestModel
from nnsight.tracing.backend import Backend
from nnsight.tracing.tracer import Tracer, save
from nnsight.tracing.util import push

from mechvrp import errors
from mechvrp.errors import InputError, MechVRPError
from mechvrp.tracing.remote_bodies import check_body
from mechvrp.tracing.travelling import AT_SERVERS, ROOT, Pickler, check_named, package

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["Remote", "away", "backend_of"]

#: Where a run is made: here (False), on nnsight's server (True), on another (its URL), or ``"local"``.
Remote = bool | str

_END = "__end_of_body__"


def backend_of(model: VLM, remote: Remote) -> Backend | None:
    """What runs a trace; ``None``: run it here.

    Raises:
        InputError: something else, or a model that no server can have under its name; nothing is sent.
    """
    if remote is False:
        model.check_weights()
        return None
    if remote == "local":
        model.check_weights()
        return _Simulated(model)
    if remote is not True and not str(remote).startswith(("http://", "https://")):
        raise InputError(
            f"remote is True (nnsight's server), its URL, 'local' (a simulation here) or False; got {remote!r}"
        )
    return _Server(
        model,
        model.remote_key(),
        host=None if remote is True else str(remote),
        env={"attn_implementation": model.attn_implementation},
    )


def away(model: VLM, remote: Remote, function: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """``function(model, *given, **more)`` of this package, run as one job where ``remote`` says.

    Args:
        function: of a module that travels; its result is of plain values, arrays and tensors.
    """
    backend = backend_of(model, remote)
    if backend is None:
        return function(model, *given, **more)
    with nnsight.tracing.tracer.Tracer(backend=backend):
        found = nnsight.save(_there(model, function, given, more))
    return found  # type: ignore[possibly-undefined]


def _there(model: VLM, function: Callable[..., Any], given: Any, more: dict[str, Any]) -> Any:
    """A call whose batches are first put where the model is."""
    from mechvrp.models.batch import Batch

    moved = [one.to(model.device) if isinstance(one, Batch) else one for one in given]
    return function(model, *moved, **more)


def _packed(model: VLM, tracer: Tracer) -> bytes:
    """A trace as it is sent: its body as text, and what that names."""
    pull_env()  # modules of the user's own travel as text
    info: Any = tracer.info
    node: Any = tracer.node
    local, finish = dict(info.frame.f_locals), getattr(tracer, "_finish", None)
    scope = {**info.frame.f_globals, **local}
    check_named(node.body, scope)
    check_body(node.body, scope)
    if finish is not None:  # edits that are still to be made at the end of the body
        call = ast.copy_location(
            ast.Expr(ast.Call(ast.Name(_END, ast.Load()), [], [])), node.body[-1]
        )
        node = ast.fix_missing_locations(type(node)(**{**vars(node), "body": [*node.body, call]}))
        local[_END] = finish
    body = reduce_block(node, info.frame.f_globals, local)
    written = io.BytesIO()
    try:
        Pickler(written, model.envoy).dump((tracer, body))
    except MechVRPError:
        raise
    except Exception as error:  # whatever an object raises that cannot be packed
        raise InputError(
            f"this run cannot be sent ({type(error).__name__}: {error}): its body may name tensors, numbers, "
            "text, and functions and interventions made of them"
        ) from error
    return written.getvalue()


class _Server(RemoteBackend):
    """nnsight's, with what this package adds to a payload."""

    def __init__(self, model: VLM, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._vlm = model

    def _serialize(self, tracer: Tracer) -> bytes:
        blob = _packed(self._vlm, tracer)
        if self.compress:
            import zstandard

            blob = zstandard.ZstdCompressor(level=6).compress(blob)
        return blob


class _Simulated(Backend):
    """A server in this process, which cannot import this package nor what servers do not have."""

    def __init__(self, model: VLM) -> None:
        self._vlm = model

    def __call__(self, tracer: Tracer) -> None:
        info: Any = tracer.info
        blob = _packed(self._vlm, tracer)
        envoy: Any = self._vlm.envoy
        objects = {f"Module:{one.path}": one._module for one in envoy.modules()}
        objects["Interleaver"] = envoy.interleaver
        with self._vlm.turn, _elsewhere(info.frame.f_code.co_filename):
            restored = RequestModel.deserialize(blob, objects)
            frame = restored.info.frame
            before = dict(frame.f_locals)
            try:
                restored.execute(restored.info.code)
            except Exception as error:
                raise _own(error) from None
            found = {
                name: value
                for name, value in frame.f_locals.items()
                if name not in before or value is not before[name]
            }
            sent = io.BytesIO()
            torch.save(found, sent)
        sent.seek(0)
        back = torch.load(sent, map_location="cpu", weights_only=False)
        for value in back.values():
            save(value)
        push(info.frame, back)


def _own(error: Exception) -> Exception:
    """An error of the sent package as the same of this one."""
    name = type(error).__name__
    if type(error).__module__.startswith(package().alias) and hasattr(errors, name):
        own: Exception = getattr(errors, name)(str(error))
        return own
    return error


class _Absent(MetaPathFinder):
    """Finds nothing for some packages."""

    def __init__(self, roots: frozenset[str]) -> None:
        self.roots = roots

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname.partition(".")[0] in self.roots:
            raise ModuleNotFoundError(
                f"No module named {fullname!r} (as at a server)", name=fullname
            )


def _only_here() -> frozenset[str]:
    """This package, and what it needs that servers do not have."""
    import re

    try:
        wanted = {re.split(r"[\s;<>=!~\[]", one)[0].lower() for one in requires(ROOT) or ()}
    except PackageNotFoundError:  # run from its sources
        wanted = {"jaxtyping", "xarray", "rich", "psutil", "pandas", "plotly"}
    roots = {
        name
        for name, made_by in packages_distributions().items()
        if wanted & {one.lower() for one in made_by}
    }
    # What torch and transformers look for at any time is left to them.
    theirs = {"scipy", "sklearn", "torchvision", "zstandard", "rich", "psutil", "pandas"}
    return frozenset({ROOT, *roots} - AT_SERVERS - theirs)


@contextmanager
def _elsewhere(file: str) -> Iterator[None]:
    """Without this package and what is only here; the sent one is forgotten behind it."""
    import linecache

    absent = _Absent(_only_here())
    kept = {name: m for name, m in sys.modules.items() if name.partition(".")[0] in absent.roots}
    text = linecache.cache.get(file)
    for name in kept:
        del sys.modules[name]
    sys.meta_path.insert(0, absent)
    try:
        yield
    finally:
        sys.meta_path.remove(absent)
        for name in [n for n in sys.modules if n.startswith(package().alias)]:
            del sys.modules[name]
        sys.modules.update(kept)
        if text is not None:  # the body's text stood in the place of its file's
            linecache.cache[file] = text
        else:
            linecache.cache.pop(file, None)
