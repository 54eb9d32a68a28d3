"""``trace``: a real nnsight trace in which every site has a name."""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float, Int
from nnsight.intervention.interleaver import OutOfOrderError
from nnsight.intervention.tracer import InterleavingTracer
from torch import Tensor

from mechvrp.errors import InputError, ShapeError, SiteError, UnavailableError
from mechvrp.models.placing import is_sharded
from mechvrp.tracing import access
from mechvrp.tracing.freshness import forget_stale_source
from mechvrp.tracing.sending import Remote, backend_of
from mechvrp.tracing.sites import ALL_COMPONENTS, IMAGE_KEYS, Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["Edit", "Step", "Trace", "is_running", "trace"]

_running = threading.local()


class Edit(Protocol):
    """What ``Trace.apply`` takes: an intervention at one site (see ``mechvrp.patching``)."""

    @property
    def site(self) -> Site: ...

    def check(self, model: VLM, batch: Batch) -> None:
        """Raise before any compute if it does not fit this model and batch."""

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        """The edited value (out of place)."""


class Step:
    """What ``Trace.apply`` takes too: reads and writes around its site by itself, unlike an ``Edit``."""

    site: Site

    def check(self, model: VLM, batch: Batch) -> None:
        """Nothing: it fits by construction."""

    def step(self, model: VLM) -> None:
        """Read and write through the envoy, in the order of computation."""
        raise NotImplementedError


class _Layers:
    """``t.resid_post``: a component of every layer, by index (negative from the last)."""

    def __init__(self, trace: Trace, component: str) -> None:
        self._trace = trace
        self._component = component

    def __getitem__(self, layer: int) -> Tensor:
        return self._trace[Site(self._component, layer)]

    def __setitem__(self, layer: int, value: Tensor) -> None:
        self._trace[Site(self._component, layer)] = value

    def __iter__(self) -> Iterator[Tensor]:
        return (self[layer] for layer in range(len(self)))

    def __len__(self) -> int:
        model = self._trace.vlm
        return model.n_vision_layers if self._component == "vision_resid_post" else model.n_layers


class Trace(InterleavingTracer):
    """An nnsight trace over one batch. Made by ``mechvrp.trace``.

    Inside the ``with`` block, ``t.resid_post[3]`` or ``t["blocks.3.hook_resid_post"]`` waits until
    the model reaches the site and gives its tensor, which can be saved (``.save()``), changed in
    place, or replaced by assigning to it. Sites must be read in the order in which the model computes
    them (``mechvrp.tracing.sites`` lists them in it); ``t.apply`` orders edits by itself. What is not
    saved does not survive the block.

    Two things to know. A tensor changed in place after the trace went on to a later site no longer
    changes the run: assign, or edit before reading on. And pending edits are made when a later site is
    read through the trace, or at the end: reading through the bare envoy does not make them.

    ``t.stop()``, ``t.cache()``, ``t.vlm.envoy`` and all else that nnsight offers work as ever. One trace
    of a model runs at a time: another thread's waits for its turn (``model.turn``).
    """

    def __init__(
        self,
        model: VLM,
        batch: Batch,
        *,
        grad: bool = False,
        options: Mapping[str, Any] | None = None,
        remote: Remote = False,
    ) -> None:
        backend = backend_of(model, remote)
        if grad and is_sharded(model.model):
            raise UnavailableError(
                f"{model.name} is divided between processes (tensor parallelism), where gradients are not "
                "supported: load it with device_map= instead"
            )
        inputs = {"use_cache": False, **batch.inputs, **(options or {})}
        super().__init__(model.envoy, "__call__", backend=backend, **inputs)
        self.vlm = model
        self.batch = batch
        self.grad = grad
        self._pending: list[Edit | Step] = []
        self._reached: Site | None = None
        # A value that was made for the block, and its version as the model has it (-1: not its own).
        self._lent: tuple[Site, Tensor] | None = None
        self._version = -1

    # ---- sites ------------------------------------------------------------------------------

    def __getitem__(self, name: str | Site) -> Tensor:
        return self._read(self._arrive(name))

    def attention_rows(
        self, layer: int, positions: Positions = "last"
    ) -> Float[Tensor, "row head key"]:
        """Attention weights of some queries (by default the last of each prompt), read only.

        Costs no more than those rows, where ``t.pattern[layer]`` makes the whole pattern. Rows are in
        the order of the samples, and of ``batch.tokens.resolve(positions)`` within one; keys are those of
        the padded sequence.

        Raises:
            SiteError: no such layer or position, or the model has passed it.
            UnavailableError: the attention implementation hands over no mask.
        """
        chosen = self.batch.tokens.resolve(positions)
        sample = torch.cat([torch.full_like(c, i) for i, c in enumerate(chosen)])
        return self.query_rows(layer, sample, torch.cat(chosen))

    def query_rows(
        self, layer: int, sample: Int[Tensor, " row"], place: Int[Tensor, " row"]
    ) -> Float[Tensor, "row head key"]:
        """``attention_rows`` of queries by their row and column in the model's own layout."""
        site = self._arrive(Site("pattern", layer))
        if self._lent is not None:  # it has been read or edited in this trace
            value = self._lent[1]
            return value[sample.to(value.device), :, place.to(value.device)]
        return access.attention_rows(self.vlm, site, sample, place)

    def __setitem__(self, name: str | Site, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise ShapeError(f"{name} was assigned a {type(value).__name__}; expected a tensor")
        site = Site.parse(name).check(self.vlm)
        access.check_value(self.vlm, self.batch, site, value)
        self._arrive(site)
        # On a model of several devices the site's own is known when it is reached; a value that is made there
        # is moved when it is used.
        here = value.device if access.is_made(self.vlm, site) else self._read(site).device
        # A copy: later in-place edits of the site must not reach the caller's own tensor.
        self.put(site, value.to(here, copy=True))

    def __getattr__(self, name: str) -> Any:
        component = ALL_COMPONENTS.get(name)
        if component is None:
            raise AttributeError(
                f"a trace has no {name!r}; its sites are {', '.join(ALL_COMPONENTS)}"
            )
        return _Layers(self, name) if component.layered else self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        component = ALL_COMPONENTS.get(name)
        if component is None:
            super().__setattr__(name, value)
        elif component.layered:
            raise SiteError(f"{name} has a value for each layer; assign to t.{name}[layer]")
        else:
            self[name] = value

    def apply(self, *given: Edit | Sequence[Any]) -> None:
        """Apply interventions (or lists of them), in whatever order; reads after it see their effect.

        Raises:
            SiteError, ShapeError, UnavailableError: one does not fit the model or the batch, or the
                model has already passed its site.
        """
        edits = list(_unnested(given))
        for edit in edits:
            if not hasattr(edit, "site") or not (callable(edit) or isinstance(edit, Step)):
                raise InputError(
                    f"apply takes interventions such as mechvrp.zero(...); got {edit!r}"
                )
            site = edit.site.check(self.vlm)
            access.check_available(self.vlm, site)
            edit.check(self.vlm, self.batch)
            if self._reached is not None and site.order < self._reached.order:
                raise SiteError(
                    f"{site} was already computed when its edit was applied: the trace has read "
                    f"{self._reached}. Apply edits before reading later sites."
                )
        # A stable sort: edits at one site keep the order in which they were given.
        self._pending = sorted([*self._pending, *edits], key=lambda e: e.site.check(self.vlm).order)

    def _arrive(self, name: str | Site) -> Site:
        """Make the edits due up to a site, and note that it was reached."""
        site = Site.parse(name).check(self.vlm)
        access.check_available(self.vlm, site)
        if self._reached is not None and site.order < self._reached.order:
            raise SiteError(
                f"{site} was asked for after {self._reached}, which is computed later. Read sites in "
                "the order of computation, or use mechvrp.cache, which orders them itself."
            )
        self._flush(site)
        self._settle(site)
        self._reached = site
        return site

    def _flush(self, until: Site | None = None) -> None:
        while self._pending:
            site = self._pending[0].site.check(self.vlm)
            if until is not None and site.order > until.order:
                return
            edit = self._pending.pop(0)
            self._settle(site)
            self._reached = site
            if isinstance(edit, Step):
                edit.step(self.vlm)
            else:
                self.put(site, edit(self._read(site), self.vlm, self.batch))

    def _read(self, site: Site) -> Tensor:
        if self._lent is not None and self._lent[0] == site:
            return self._lent[1]
        value = access.read(self.vlm, site)
        if site.component in IMAGE_KEYS:  # a sample's tiles are rows of the model's own
            value = value.reshape(len(self.batch), -1, *value.shape[-2:])
        if access.is_made(self.vlm, site):
            if torch.is_grad_enabled():
                value = value.clone()  # the softmax's own output must stay for its gradient
            self._lent, self._version = (site, value), value._version
        return value

    def put(self, site: Site, value: Tensor) -> None:
        """Assign to the site that was read last, neither checked nor copied."""
        if access.is_made(self.vlm, site):
            self._lent, self._version = (site, value), -1
        else:
            access.write(self.vlm, site, value)

    def _settle(self, going_to: Site | None = None) -> None:
        """Give the model the value that was lent to the block, when the trace leaves its site."""
        if self._lent is not None and self._lent[0] != going_to:
            (site, value), self._lent = self._lent, None
            # One that was only looked at is left to the model's own attention; in a graph it must not.
            if value._version != self._version or value.requires_grad:
                access.write(self.vlm, site, value)

    def _finish(self) -> None:
        self._flush()
        self._settle()

    def stop(self) -> None:
        """End the model's run here. Edits that were applied but not reached are an error."""
        if self._pending:
            sites = ", ".join(str(edit.site) for edit in self._pending)
            raise SiteError(
                f"the trace was stopped with edits not made yet, at {sites}: read a site at or behind "
                "them through the trace first, or leave them out"
            )
        super().stop()

    @property
    def result(self) -> Any:
        """What the model returns, after all edits."""
        self._finish()
        return super().result

    # ---- running ----------------------------------------------------------------------------

    def build(self, node: ast.With | ast.AsyncWith) -> ast.Module:
        """The block's body, ended by a call that makes the edits still pending."""
        end = f"__import__({__name__!r}, fromlist=['_end'])._end()"
        call = ast.parse(end).body[0]
        last = node.body[-1]
        for part in ast.walk(call):
            if hasattr(part, "lineno"):
                ast.copy_location(part, last)
        module = ast.Module(body=[*node.body, call], type_ignores=[])
        return ast.fix_missing_locations(module)

    def execute(self, code: CodeType) -> None:
        if self.envoy is None:
            raise InputError("a trace runs once; make another with mechvrp.trace")
        with self.vlm.turn:
            self._execute(code)

    def _execute(self, code: CodeType) -> None:
        if is_running(self.vlm):
            raise InputError(
                f"a trace of {self.vlm.name} is already running: end it before another trace, cache or "
                "sweep of the same model"
            )
        stack = _running.__dict__.setdefault("stack", [])
        stack.append(self)
        try:
            with torch.set_grad_enabled(self.grad):
                super().execute(code)
        except OutOfOrderError as error:
            raise SiteError(
                f"{error}. Read sites in the order in which the model computes them, and edits "
                "before reading past them through the envoy; mechvrp.cache orders sites by itself."
            ) from error
        finally:
            stack.pop()


def _unnested(given: Sequence[Any]) -> Iterator[Any]:
    for one in given:
        if isinstance(one, (tuple, list)):
            yield from _unnested(one)
        else:
            yield one


def _end() -> None:
    _running.stack[-1]._finish()


def is_running(model: VLM) -> bool:
    """Whether a trace of the model is running: then it cannot be run again."""
    return bool(model.envoy.interleaver.interleaving)


def trace(model: VLM, batch: Batch, *, grad: bool = False, remote: Remote = False) -> Trace:
    """Run a batch while reading and editing activations: a real nnsight trace.

    Args:
        model: from ``mechvrp.load``.
        batch: from ``model.encode`` or ``model.batch``.
        grad: keep the autograd graph, so that ``with loss.backward(): x.grad`` works inside.
        remote: run the body where the weights are: ``True`` for nnsight's server (NDIF), a URL for another,
            ``"local"`` for a simulation of one here. Its text travels, with what it names; saved values come
            back to the CPU.

    Raises:
        InputError: (with ``remote``) no server has this model, or (at the end of the block, before anything is
            sent) the body names something of a package that servers do not have.

    Example::

        with mechvrp.trace(model, batch) as t:
            h = t.resid_post[1].save()                        # [batch, pos, d_model]
            t.apply(mechvrp.zero("blocks.2.mlp.hook_post", positions="last", units=[3, 17]))
            logits = t.logits.save()                          # [batch, pos, d_vocab]
    """
    from mechvrp.models import VLM, Batch

    if not isinstance(model, VLM):
        raise InputError(f"trace takes a model from mechvrp.load; got {type(model).__name__}")
    if not isinstance(batch, Batch):
        raise InputError(
            f"trace takes a batch from model.encode(samples); got {type(batch).__name__}"
        )
    forget_stale_source(sys._getframe(1))
    return Trace(model, batch, grad=grad, remote=remote)
