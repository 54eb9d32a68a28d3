"""``sweep``: many interventions on one batch, exactly, at the least cost."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from mechvrp.errors import InputError, MechVRPError, NumericalError
from mechvrp.models.checks import check_batches, whole
from mechvrp.patching.execution import Ran, Runner
from mechvrp.patching.interventions import Edits, Intervention, flatten
from mechvrp.patching.measures import Measuring, as_measures, split_measures
from mechvrp.patching.memory import PeakMemory
from mechvrp.patching.planning import Group, Plan, make_plan
from mechvrp.patching.readings import read_variants
from mechvrp.patching.variants import Variant, Variants, as_variants
from mechvrp.tracing import access
from mechvrp.tracing.bars import progress_bar
from mechvrp.tracing.sending import Remote, away
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    import xarray

    from mechvrp.models import VLM, Batch

__all__ = ["plan", "sweep"]

#: Bytes that the activations of one pass may take.
MEMORY = 512 * 2**20

#: What running a variant may raise: our own errors, and those of tensors of unfitting shapes.
_FAILURES = (MechVRPError, RuntimeError, IndexError, ValueError, MemoryError)


def plan(model: VLM, batch: Batch, variants: Variants, *, memory: int = MEMORY) -> Plan:
    """How ``sweep`` would run these variants, without running any of them; print it.

    A model that no family describes runs its trial for this, once (some thirty forwards of a small
    batch: which ways of sharing are exact on it); one of a hand-written family runs nothing.

    Args:
        model, batch, variants, memory: as ``sweep``.
    """
    return make_plan(model, batch, as_variants(model, batch, variants), memory=memory)


def sweep(
    model: VLM,
    batch: Batch,
    variants: Variants,
    measure: Any = "logit_diff",
    *,
    target: Any = "own",
    foil: Any = None,
    base: Edits = (),
    reading: Literal["official", "strict"] = "strict",
    memory: int = MEMORY,
    progress: bool = True,
    on_clean: Callable[[Runner], None] | None = None,
    remote: Remote = False,
) -> xarray.Dataset:
    """Run every variant on every example and measure its last-position logits.

    Exact: each variant gives what a forward of its own would give, within float32 rounding. What they
    share is computed once: the clean run in front of the first edited block and position (``plan``).

    Args:
        model: from ``mechvrp.load``.
        batch: from ``model.encode``.
        variants: interventions by name, or a list of them; each one intervention or several. An empty
            list of interventions is the clean run. Names other than text and numbers become text. (A
            function such as ``zero`` gives an intervention for each of several layers; in a list of
            its own that is one variant, by itself it is a list of variants.)
        measure: one or several of ``logit``, ``probability``, ``logit_diff``, ``correct``, ``kl``,
            ``logits``, ``attention`` (``mechvrp.patching.MEASURES`` says what they are); functions of logits
            [variant, example, d_vocab] and clean logits [example, d_vocab] that give [variant, example];
            or functions of the trace of a run, ``f(t)``, that give [example, ...] and may read any sites in
            the order of computation (a whole forward a variant: nothing can be left out).
        target: the token that ``logit``, ``probability`` and ``logit_diff`` are of: ``"own"`` (the clean
            run's answer), ``"right"`` (the first token of the sample's answer), or ids [example].
        foil: ids [example] for ``logit_diff``; by default the best other token.
        base: interventions in front of the decoder (``embed``, ``projected``, the vision tower) that
            every run has: a corruption that variants restore, for example. Made once.
        reading: of yes/no answers, for ``correct``.
        memory: bytes that the activations of a pass may take, roughly; packs are halved where memory
            runs out all the same.
        progress: show a bar.
        on_clean: called with the clean run before any variant's; what it raises ends the sweep.
        remote: where the model runs: here, or as ``mechvrp.trace``. A sweep is one job, and shares at a server
            what it shares here; functions given as measures travel as text.

    Returns:
        A variable per measure, [variant, example] (``logits``: and vocab; ``attention``: and layer and
        position in the padded sequence); ``base_*`` [example]: the same of the run without any variant's
        edits. Coordinates: ``description`` of each variant, ``error`` ("" or why it has no values),
        ``target`` token ids. ``attrs``: the plan, what was computed against what a forward a variant would
        compute, forward calls, ``tower_runs`` (how often the vision tower encoded the batch's images), and
        ``peak_memory`` in bytes beyond what was held before (``PeakMemory`` says how it is measured).

    Raises:
        InputError: a measure, target or variant is unusable, or all variants failed.
        NumericalError: the clean run is NaN or infinite, so that nothing can be compared with it.
    """
    check_batches(model, batch)
    whole("memory", memory, 1)
    if on_clean is not None and not callable(on_clean):
        raise InputError(f"on_clean is a function of the clean run; got {on_clean!r:.60}")
    measures = as_measures(measure)
    known = as_variants(model, batch, variants)
    common = flatten(base)
    for edit in common:
        edit.check(model, batch)
        if edit.site.kind.where not in ("embed", "vision", "projector"):
            raise InputError(
                f"{edit.describe()}: what every run has must lie in front of the decoder; put edits of "
                "the decoder into the variants"
            )
    maps = [name for name, one in measures.items() if one == "attention"]
    made = make_plan(model, batch, known, memory=memory, watch=bool(maps))
    if all(variant.error for variant in known):
        raise InputError(f"no variant can be run: {known[0].name!r}: {known[0].error}")
    if maps:
        access.check_available(model, Site("pattern", 0))
    if remote and on_clean is not None:
        raise InputError(
            "on_clean looks at the clean run here, and a remote run is elsewhere: leave it out"
        )
    given = (batch, tuple(known), measures, maps, common, target, foil, reading, memory)
    if remote:
        swept, peak = away(model, remote, _swept, *given), float("nan")
    else:
        with PeakMemory(model.device) as watched:
            swept = _swept(model, *given, progress=progress, on_clean=on_clean)
        peak = watched.bytes
    _tell(known, swept["errors"])
    return _dataset(model, batch, made, known, measures, swept, common, peak)


def _swept(
    model: VLM,
    batch: Batch,
    known: Sequence[Variant],
    measures: Mapping[str, Any],
    maps: list[str],
    common: tuple[Intervention, ...],
    target: Any,
    foil: Any,
    reading: Any,
    memory: int,
    *,
    progress: bool = False,
    on_clean: Callable[[Runner], None] | None = None,
) -> dict[str, Any]:
    """A sweep where the model is: plain values and arrays, that can come back from a server."""
    known = list(known)
    made = make_plan(model, batch, known, memory=memory, watch=bool(maps))
    of_logits, of_trace = split_measures({k: v for k, v in measures.items() if k not in maps})
    running = bool(of_logits or maps)
    spent = _Spent(made.n_layers * made.length * made.examples)
    clean: dict[str, np.ndarray] = {}
    runner = Runner(
        model,
        batch,
        made if running else replace(made, groups=()),
        common,
        watch=bool(maps),
        keep=on_clean is not None,
    )
    if on_clean is not None:
        on_clean(runner)
    measuring = Measuring(model, batch, of_logits, runner.logits, target, foil, reading)
    results = _Results(known, len(batch), measuring, maps)
    if running:
        _run(runner, made, known, results, progress, spent)
    if of_trace:
        read = sum(not error for error in results.errors)
        found, clean = read_variants(
            model, batch, known, of_trace, common, results.errors, results.fail, progress
        )
        results.values |= found
        for index, error in enumerate(results.errors):
            if error:  # a failed variant has no values at all
                results.fail(index, error)
        spent.whole(len(of_trace) * (1 + read))
    clean |= {name: _clean(runner, 1).attention[0].cpu().numpy() for name in maps}  # type: ignore[index]
    base = {name: v[0].numpy() for name, v in measuring(measuring.clean[None]).items()}
    return {
        "values": results.values,
        "errors": results.errors,
        "base": {**base, **clean},
        "whole": [name for name in base if name not in clean],
        "target": measuring.ids.cpu().numpy(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "token_layers": spent.token_layers,
        "forward_calls": spent.calls,
        "tower_runs": spent.tower_runs,
    }


@dataclass
class _Spent:
    """What a sweep has computed, its clean pass included.

    Attributes:
        forward: token-layers of one whole forward of the batch.
    """

    forward: int
    calls: int = 1
    token_layers: float = 0.0
    tower_runs: int = 1

    def __post_init__(self) -> None:
        self.token_layers = float(self.forward)

    def passed(self, made: Plan, group: Group, variants: Sequence[int], calls: int = 1) -> None:
        """Some variants of a group have been run."""
        self.calls += calls
        self.token_layers += made.cost(group, variants)
        self.tower_runs += group.encodings(len(variants))

    def whole(self, forwards: int) -> None:
        """So many whole forwards have been run."""
        self.calls += forwards
        self.token_layers += forwards * self.forward
        self.tower_runs += forwards


class _Results:
    """Measures of all variants, filled in as they come; NaN where a variant failed."""

    def __init__(
        self, variants: list[Variant], examples: int, measuring: Measuring, maps: list[str]
    ) -> None:
        self.errors = [variant.error for variant in variants]
        self.values: dict[str, np.ndarray] = {}
        self.measuring = measuring
        self._maps = maps
        self._shape = (len(variants), examples)

    def put(self, indices: list[int], ran: Ran) -> None:
        finite = torch.isfinite(ran.logits).flatten(1).all(-1).tolist()
        found = self.measuring(ran.logits)
        if ran.attention is not None:
            found |= {name: ran.attention.cpu() for name in self._maps}
        for name, value in found.items():
            array = value.numpy()
            if name not in self.values:
                self.values[name] = np.full((*self._shape, *array.shape[2:]), np.nan, np.float32)
            self.values[name][indices] = array
        for index, good in zip(indices, finite, strict=True):
            if not good:
                self.fail(index, "NumericalError: its logits hold NaN or infinite values")

    def fail(self, index: int, why: str) -> None:
        self.errors[index] = why
        for values in self.values.values():
            values[index] = np.nan


def _run(
    runner: Runner,
    made: Plan,
    variants: list[Variant],
    results: _Results,
    progress: bool,
    spent: _Spent,
) -> None:
    """Run all groups."""
    total = sum(len(group.variants) for group in made.groups)
    with progress_bar("sweeping", total, progress) as advance:
        for group in made.groups:
            waiting = list(group.variants)
            width = group.width
            while waiting:
                pack, rest = waiting[:width], waiting[width:]
                if group.mode == "clean":
                    results.put(pack, _clean(runner, len(pack)))
                    advance(len(pack))
                    waiting = rest
                    continue
                spent.passed(made, group, pack)
                try:
                    ran = runner.run(group, [variants[i] for i in pack])
                    if len(pack) > 1 and not bool(torch.isfinite(ran.logits).all()):
                        # Branches share a row: what is infinite in one can reach another.
                        raise NumericalError("a variant of the pack gave NaN or infinite values")
                    results.put(pack, ran)
                except _FAILURES as error:
                    if _out_of_memory(error):
                        if len(pack) == 1:
                            raise
                        width = max(1, len(pack) // 2)
                        continue
                    # One of them: found by running them one by one, so that the others are kept.
                    if len(pack) == 1:
                        results.fail(pack[0], f"{type(error).__name__}: {error}")
                    else:
                        _one_by_one(runner, group, pack, variants, results)
                        spent.passed(made, group, pack, calls=len(pack))
                advance(len(pack))
                waiting = rest


def _clean(runner: Runner, times: int) -> Ran:
    """The clean run's, for variants without edits."""
    maps = runner.attention
    return Ran(
        runner.logits.expand(times, *runner.logits.shape),
        None if maps is None else maps.expand(times, *maps.shape),
    )


def _tell(variants: list[Variant], errors: Sequence[str]) -> None:
    """Raise if all variants failed, warn if some did."""
    failed = [(v.name, e) for v, e in zip(variants, errors, strict=True) if e]
    if len(failed) == len(variants):
        raise InputError(f"all variants failed; the first, {failed[0][0]!r}: {failed[0][1]}")
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(variants)} variants have no values; {failed[0][0]!r}: "
            f"{failed[0][1]}. See the result's coordinate 'error'.",
            stacklevel=3,
        )


def _one_by_one(
    runner: Runner, group: Group, pack: list[int], variants: list[Variant], results: _Results
) -> None:
    for index in pack:
        try:
            results.put([index], runner.run(group, [variants[index]]))
        except _FAILURES as error:
            if _out_of_memory(error):
                raise
            results.fail(index, f"{type(error).__name__}: {error}")


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        torch.cuda.empty_cache()
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def _dataset(
    model: VLM,
    batch: Batch,
    made: Plan,
    variants: list[Variant],
    measures: Mapping[str, Any],
    swept: dict[str, Any],
    base: tuple[Intervention, ...],
    peak: float,
) -> xarray.Dataset:
    import xarray as xr

    data: dict[str, Any] = {}
    for name, values in swept["values"].items():
        further = (
            ("layer", "position")
            if measures[name] == "attention"
            else ("vocab",)
            if name in swept["whole"]
            else (f"{name}_{i}" for i in range(values.ndim - 2))
        )
        dims = ("variant", "example", *further)[: values.ndim]
        data[name] = (dims, values)
        data[f"base_{name}"] = (dims[1:], swept["base"][name])
    coords: dict[str, Any] = {
        "variant": [v.name for v in variants],
        "example": list(range(len(batch))),
        "description": ("variant", [v.description for v in variants]),
        "error": ("variant", swept["errors"]),
        "target": ("example", swept["target"]),
    }
    if batch.samples is not None:
        coords["image_id"] = ("example", [s.image_id for s in batch.samples])
    attrs = {
        "model": model.name,
        "dtype": swept["dtype"],
        "attention": model.attn_implementation,
        "base": "; ".join(edit.describe() for edit in base) or "clean",
        "plan": str(made),
        "token_layers": swept["token_layers"],
        "naive_token_layers": made.naive_token_layers,
        "forward_calls": swept["forward_calls"],
        "tower_runs": swept["tower_runs"],
        "peak_memory": peak,
    }
    return xr.Dataset(data, coords, attrs)
