"""``plan_study``: what a study will cost, estimated from two short runs of it."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console

from mechvrp.data import Dataset
from mechvrp.errors import InputError
from mechvrp.models import VLM
from mechvrp.patching.memory import PeakMemory
from mechvrp.study.config import StudyConfig
from mechvrp.study.engines import check_engine, loader
from mechvrp.study.reading_pieces import observed_table
from mechvrp.study.runner import load_data, prepare_study, run_study, split_images
from mechvrp.study.stage_results import STAGES, Correlated, Intervened, Observed, kept

__all__ = ["ModelPlan", "StudyPlan", "plan_study"]

#: Batches of the two short runs.
_BATCHES = (2, 4)


@dataclass(frozen=True)
class ModelPlan:
    """What one model's part will cost.

    Attributes:
        name: of the model.
        seconds: by stage (observe, correlate, intervene).
        memory: bytes that the process will hold at its peak, the model among them.
        device_memory: bytes on the accelerator, 0 without one.
        disk: bytes in the run folder.
        notes: what the larger short run left out, and so is not counted.
    """

    name: str
    seconds: dict[str, float]
    memory: int
    device_memory: int
    disk: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyPlan:
    """Estimates of a study; print it.

    Attributes:
        n: examples.
        measured: examples of the two short runs.
        models: one for each model; they run one after another.
        available: bytes of memory now free on this machine.
        free_disk: bytes free where run folders are made by default.
        workers: of the engine ray, if it was asked for.
    """

    n: int
    measured: tuple[int, int]
    models: tuple[ModelPlan, ...]
    available: int
    free_disk: int
    workers: int | None = None

    @property
    def seconds(self) -> float:
        return sum(sum(model.seconds.values()) for model in self.models)

    def __str__(self) -> str:
        lines = [
            f"{self.n:,} examples; estimated from runs of {self.measured[0]} and {self.measured[1]}:"
        ]
        for model in self.models:
            stages = ", ".join(f"{name} {_time(s)}" for name, s in model.seconds.items())
            device = f", {_size(model.device_memory)} on the device" if model.device_memory else ""
            lines.append(
                f"  {model.name}: {_time(sum(model.seconds.values()))} ({stages}); "
                f"{_size(model.memory)} of memory{device}, {_size(model.disk)} on disk"
            )
            lines += [f"    not counted: {note}" for note in model.notes]
        memory, disk = max(m.memory for m in self.models), sum(m.disk for m in self.models)
        lines.append(
            f"  in all: {_time(self.seconds)}, {_size(memory)} of memory ({_size(self.available)} are "
            f"free), {_size(disk)} on disk ({_size(self.free_disk)} are free)"
        )
        if memory > self.available or disk > self.free_disk:
            lines.append("  WARNING: this is more than there is.")
        if self.workers is not None:
            lines.append(self._with_workers(self.workers))
        return "\n".join(lines)

    def _with_workers(self, workers: int) -> str:
        replicas = workers * max(model.device_memory or model.memory for model in self.models)
        if not all(model.device_memory for model in self.models):
            return (
                f"  with {workers} workers on one machine's processors: each has its share of the threads, so "
                "that the time is about the same (less where the model is too small for many threads); at most "
                f"{_size(replicas)} of memory"
            )
        spread = sum(m.seconds["observe"] + m.seconds["intervene"] for m in self.models)
        least = self.seconds - spread + spread / workers
        return (
            f"  with {workers} workers, each with such a device of its own: {_time(least)} at best. The "
            "stages observe and intervene are shared out, but for the training examples' MLP neurons "
            "(--causal); correlate is not, and each worker loads the model"
        )


def plan_study(
    model: str | VLM | Sequence[str | VLM] | None = None,
    data: str | Dataset | None = None,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    progress: bool = True,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    **options: Any,
) -> StudyPlan:
    """Estimate a study's time, memory and disk, from two short runs of it in a temporary folder.

    A straight line through both runs gives each stage's cost at ``n`` examples; probes and interventions
    stop growing at ``probe_examples`` and ``intervene_examples``. It is an estimate: a short run's first
    batches are slower, and answers may be longer elsewhere in the data.

    Args:
        model, data, preset, config, progress, options: as ``run_study``.
        engine, workers, address: likewise; the short runs are made in this process, and what so many workers
            change is said beside.

    Raises:
        InputError: an option is unusable, or the data have too few examples to measure.
    """
    settings, entries, loaded = prepare_study(model, data, preset, config, options)
    check_engine(engine, workers, address, entries, settings)
    dataset = loaded or load_data(settings)
    sizes = tuple(max(20, batches * settings.batch_size) for batches in _BATCHES)
    if sizes[1] > len(dataset):
        raise InputError(
            f"a plan is measured on {sizes[1]} examples ({_BATCHES[1]} batches of "
            f"{settings.batch_size}); {dataset.name} has {len(dataset)} here: just run the study"
        )
    say = Console(quiet=not progress, highlight=False, stderr=True)
    found = []
    for entry in entries:
        vlm = loader(entry, settings)()
        say.print(f"[bold]{vlm.name}[/bold]: short runs of {sizes[0]} and {sizes[1]} examples")
        small, large = (_short_run(vlm, dataset, size, settings) for size in sizes)
        found.append(_model_plan(vlm, dataset, settings, small, large))
    return StudyPlan(
        n=len(dataset),
        measured=(sizes[0], sizes[1]),
        models=tuple(found),
        available=psutil.virtual_memory().available,
        free_disk=psutil.disk_usage(str(Path.cwd())).free,
        workers=workers,
    )


@dataclass(frozen=True)
class _Short:
    """A short run: examples, held-out ones, seconds by stage, bytes."""

    n: int
    held: int
    seconds: dict[str, float]
    disk: int
    peak: int
    device_peak: int
    table: int
    notes: tuple[str, ...]


def _short_run(vlm: VLM, dataset: Dataset, size: int, settings: StudyConfig) -> _Short:
    part = dataset.subset(range(size))
    options = dataclasses.asdict(settings)
    for name in ("models", "data", "root", "split", "task", "n", "given"):
        options.pop(name)
    seconds: dict[str, float] = {}
    cuda = vlm.device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        before = psutil.Process().memory_info().rss
        with PeakMemory(torch.device("cpu")) as peak, PeakMemory(vlm.device) as device:
            for stage in STAGES[:-1]:
                start = time.perf_counter()
                found = run_study(
                    vlm, part, out=out, stages=[stage], progress=False, config=None, **options
                )
                seconds[stage] = time.perf_counter() - start
        run, name = found.run, f"0-{vlm.name}"
        ended = (
            kept(run, name, Observed),
            kept(run, name, Correlated),
            kept(run, name, Intervened),
        )
        notes = [note for stage in ended if stage is not None for note in stage.notes]
        (pieces,) = run.written_chunks("observe").values()
        table = int(observed_table(pieces).memory_usage(deep=True).sum())
        disk = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    return _Short(
        n=size,
        held=len(split_images(part, settings)[1]),
        seconds=seconds,
        disk=disk,
        peak=before + peak.bytes,
        device_peak=device.bytes if cuda else 0,
        table=table,
        notes=tuple(notes),
    )


def _model_plan(
    vlm: VLM, dataset: Dataset, settings: StudyConfig, small: _Short, large: _Short
) -> ModelPlan:
    n = len(dataset)
    held = min(len(split_images(dataset, settings)[1]), settings.intervene_examples)
    seconds = {
        stage: _line((small.held, small.seconds[stage]), (large.held, large.seconds[stage]), held)
        if stage == "intervene"
        else _line((small.n, small.seconds[stage]), (large.n, large.seconds[stage]), n)
        for stage in small.seconds
    }
    # Probes hold the states of all layers once as they are, and about twice more while they are fitted.
    states = 3 * 4 * min(n, settings.probe_examples) * vlm.n_layers * vlm.d_model
    weights = sum(p.numel() * p.element_size() for p in vlm.model.parameters())
    on_device = weights + large.device_peak if large.device_peak else 0
    return ModelPlan(
        name=vlm.name,
        seconds=seconds,
        memory=large.peak + states + round(2 * large.table * n / large.n),
        device_memory=on_device,
        disk=round(_line((small.n, small.disk), (large.n, large.disk), n)),
        notes=large.notes,
    )


def _line(first: tuple[float, float], second: tuple[float, float], at: float) -> float:
    """The line through two points; one that falls, as noise can make it, is taken as through zero."""
    if second[0] == first[0]:
        return second[1] * at / second[0]
    slope = (second[1] - first[1]) / (second[0] - first[0])
    if slope <= 0:
        return second[1] * at / second[0]
    return max(second[1] + slope * (at - second[0]), slope * at)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit in ("B", "KiB") else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
