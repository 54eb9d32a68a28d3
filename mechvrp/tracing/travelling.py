"""What of this package travels with a remote run: its own source, for a server that has not installed it.

nnsight sends the text of a trace's body and the objects it names. Those of this package would be looked for in
the server's own environment, where there is none; so its folders up to ``patching`` go along as text, and are
made into modules there. They run on what a server of nnsight has: torch, transformers, numpy.
"""

from __future__ import annotations

import ast
import io
import json
import sys
import types
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, BinaryIO

import cloudpickle
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.serialization import DEFAULT_PROTOCOL, CustomCloudPickler

from mechvrp.data.sample import Sample
from mechvrp.errors import InputError

__all__ = ["AT_SERVERS", "ROOT", "Pickler", "check_named", "package", "unpacked"]

ROOT = __name__.partition(".")[0]

#: Folders that travel: those that a trace, a cache and a sweep are made of.
_SENT = ("models", "tracing", "patching", "data", "statistics", "store")

#: What nnsight counts on at a server, and what transformers brings.
AT_SERVERS = frozenset(
    (
        "torch",
        "numpy",
        "transformers",
        "accelerate",
        "diffusers",
        "einops",
        "peft",
        "nnsight",
        "PIL",
    )
) | {"cloudpickle", "greenlet", "huggingface_hub", "safetensors", "tokenizers"}


def unpacked(packed: bytes, root: str, alias: str) -> Any:
    """Modules out of their texts; runs at the server, so it may use nothing of this module.

    They are called ``alias`` instead of ``root``, so that nothing else finds them. An ``__init__`` that only
    collects names is not run: a name of it is looked up in the module that it takes it from.

    Returns:
        A function of a module's and an object's name that gives the object.
    """
    import ast
    import builtins
    import json
    import linecache
    import operator
    import sys
    import types
    import zlib

    texts = json.loads(zlib.decompress(packed))

    def bring(name, globals=None, locals=None, fromlist=(), level=0):  # noqa: A002
        if name != root and not name.startswith(root + "."):
            try:
                return builtins.__import__(name, globals, locals, fromlist, level)
            except ImportError:
                if name != "jaxtyping":
                    raise
                return shapes()  # of annotations only, which nothing reads
        found = module(name)
        return found if fromlist else module(root)

    def shapes():
        class Shape:
            def __class_getitem__(cls, _):
                return object

        stub = types.ModuleType("jaxtyping")
        stub.__dict__["__getattr__"] = lambda _: Shape
        return stub

    def module(name):
        own = alias + name[len(root) :]
        if own in sys.modules:
            return sys.modules[own]
        text = texts.get(name)
        if text is None:
            raise ImportError(f"{name} does not travel with a remote run")
        made = types.ModuleType(own)
        made.__dict__["__builtins__"] = {**vars(builtins), "__import__": bring}
        file = f"<{own}>"
        made.__file__ = file
        sys.modules[own] = made
        is_package = any(other.startswith(name + ".") for other in texts)
        if is_package:
            made.__path__ = []
            tree = ast.parse(text)
            sources = {
                part.asname or part.name: (node.module, part.name)
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module
                for part in node.names
            }

            def missing(attribute):
                if f"{name}.{attribute}" in texts:
                    return module(f"{name}.{attribute}")
                if attribute not in sources or sources[attribute][0] == name:
                    raise AttributeError(f"module {own!r} has no attribute {attribute!r}")
                source, original = sources[attribute]
                return getattr(module(source), original)

            made.__dict__["__getattr__"] = missing
            if name == root or not any(
                isinstance(n, (ast.FunctionDef, ast.ClassDef)) for n in tree.body
            ):
                return made
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        try:
            exec(compile(text, file, "exec", dont_inherit=True), made.__dict__)
        except BaseException:
            del sys.modules[own]
            raise
        return made

    def find(name, qualified):
        found = module(name)
        return operator.attrgetter(qualified)(found) if qualified else found

    return find


class _Package:
    """Stands for ``unpacked(...)`` when something is sent; calling it is for pickle's eyes only."""

    def __init__(self) -> None:
        texts = {ROOT: files(ROOT).joinpath("__init__.py").read_text("utf-8")}
        for name in ("errors", "files", "plugins", "_version"):
            texts[f"{ROOT}.{name}"] = files(ROOT).joinpath(f"{name}.py").read_text("utf-8")
        for folder in _SENT:
            self._gather(files(ROOT).joinpath(folder), f"{ROOT}.{folder}", texts)
        del texts[f"{ROOT}.data.registry"]  # imports loaders by name, and they read files of here
        self.names = frozenset(texts)
        self.packed = zlib.compress(json.dumps(texts).encode(), 9)
        self.alias = f"{ROOT}_sent_{sha256(self.packed).hexdigest()[:12]}"

    def _gather(self, folder: Any, name: str, texts: dict[str, str]) -> None:
        for entry in folder.iterdir():
            if entry.name == "__init__.py":
                texts[name] = entry.read_text("utf-8")
            elif entry.name.endswith(".py"):
                texts[f"{name}.{entry.name[:-3]}"] = entry.read_text("utf-8")
            elif entry.is_dir() and entry.joinpath("__init__.py").is_file():
                self._gather(entry, f"{name}.{entry.name}", texts)

    def __call__(self, name: str, qualified: str) -> Any:
        raise NotImplementedError


@cache
def package() -> _Package:
    """This package's source, read once."""
    return _Package()


class Pickler(CustomCloudPickler):
    """nnsight's, with this package sent along and what a server cannot have refused.

    Args:
        file: where the bytes go.
        envoy: the model's; its modules are named, not sent.

    Raises:
        InputError: (when something is dumped) it is of a package that a server does not have.
    """

    def __init__(self, file: BinaryIO, envoy: Envoy) -> None:
        super().__init__(file, protocol=DEFAULT_PROTOCOL)
        self._names = {id(one._module): f"Module:{one.path}" for one in envoy.modules()}

    def persistent_id(self, obj: Any) -> Any:
        return self._names.get(id(obj)) or super().persistent_id(obj)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _Package):
            return unpacked, (obj.packed, ROOT, obj.alias)
        if obj is unpacked:
            return self._dynamic_function_reduce(obj)
        if isinstance(obj, types.ModuleType) and _ours(obj.__name__):
            return package(), (obj.__name__, "")
        named = isinstance(obj, (type, types.FunctionType))
        if named and _ours(obj.__module__) and "<" not in obj.__qualname__:
            if obj.__module__ in package().names:
                return package(), (obj.__module__, obj.__qualname__)
            if isinstance(
                obj, types.FunctionType
            ):  # of a folder that does not travel: its own text
                return self._dynamic_function_reduce(obj)
            raise InputError(_STAYS.format(f"{obj.__module__}.{obj.__qualname__}"))
        if isinstance(obj, io.IOBase):
            raise InputError(
                f"an open file ({getattr(obj, 'name', type(obj).__name__)}) cannot be sent with a remote run: "
                "read it before the run, or write to it after"
            )
        if isinstance(obj, Sample):  # what is asked of images is in the inputs
            own = (None, obj.question, obj.answer, obj.image_id, obj.task, obj.split, obj.meta)
            return Sample, own
        found = super().reducer_override(obj)
        if found is NotImplemented and named:
            _check(obj.__module__ or "", obj.__qualname__)
        elif isinstance(obj, types.ModuleType) and sys.modules.get(obj.__name__) is obj:
            by_value = cloudpickle.list_registry_pickle_by_value()
            if not any(
                obj.__name__ == one or obj.__name__.startswith(f"{one}.") for one in by_value
            ):
                _check(obj.__name__, "")
        return found


_STAYS = "{} does not travel with a remote run: use it before the run, or after it on saved values"


def check_named(body: Sequence[ast.stmt], scope: Mapping[str, Any]) -> None:
    """Raise ``InputError`` if a body takes something from this package that does not travel."""
    for node in (found for part in body for found in ast.walk(part)):
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if not names or not isinstance(node, ast.Name):
            continue
        found = scope.get(node.id)
        while names and isinstance(found, types.ModuleType) and _ours(found.__name__):
            found = getattr(found, names.pop(0), None)
            module = getattr(
                found, "__name__" if isinstance(found, types.ModuleType) else "__module__", None
            )
            if _ours(module) and module not in package().names:
                name = (
                    ""
                    if isinstance(found, types.ModuleType)
                    else f".{getattr(found, '__qualname__', '')}"
                )
                raise InputError(_STAYS.format(f"{module}{name}"))


def _ours(name: str | None) -> bool:
    return name is not None and name.partition(".")[0] == ROOT


def _check(module: str, name: str) -> None:
    root = module.partition(".")[0]
    if root in AT_SERVERS or root in sys.stdlib_module_names:
        return
    raise InputError(
        f"a remote run would need {module}{f'.{name}' if name else ''}, and servers of nnsight do "
        f"not have the package {root!r}: compute what it gives before the run, or after it from saved values"
    )
