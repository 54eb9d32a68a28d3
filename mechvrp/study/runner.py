"""``run_study``: a small reliability study, from images to a report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from mechvrp import data as benchmarks
from mechvrp.data import Dataset, train_test_split
from mechvrp.errors import InputError
from mechvrp.models import VLM, load
from mechvrp.store import RunFolder
from mechvrp.study.config import StudyConfig
from mechvrp.study.report import write_report
from mechvrp.study.schema import ModelSection, Summary
from mechvrp.study.stages import ModelStudy

__all__ = ["StudyResult", "run_study"]


@dataclass(frozen=True)
class StudyResult:
    """A finished study: its folder, its report and its figures."""

    run: RunFolder
    report: Path
    summary: Summary

    def __repr__(self) -> str:
        return (
            f"StudyResult({', '.join(s.model.name for s in self.summary.sections)}: {self.report})"
        )


def run_study(
    model: str | VLM | Sequence[str | VLM] = "tiny-llava",
    data: str | Dataset = "scenes",
    *,
    out: str | Path,
    progress: bool = True,
    **options: Any,
) -> StudyResult:
    """Where can this model's reliability be read? A probe per layer, baselines, ablations, a report.

    For each model: greedy answers and whether they are right, with every signal that one prefill shows
    (``mechvrp.reliability.observe``); a linear probe on the residual stream of the last prompt token for
    correctness per layer, fitted on training images and judged on held-out ones beside two baselines and
    a shuffled-label control; the dimensions of the chosen layer ranked by probe weight and zeroed, top-k
    against random k.

    Args:
        model: one or several, by name or from ``mechvrp.load``.
        data: the name of a dataset, or one already loaded (then ``n``, ``split``, ``task`` and
            ``root`` are its own).
        out: the run folder; a folder that holds the same finished run is returned to as it is, and
            one of a run that was killed is gone on with: at most one piece is computed again.
        progress: show what is going on.
        options: the other fields of ``StudyConfig`` (``n``, ``split``, ``seed``, ``draws``, ...).

    Raises:
        InputError: an option is unusable (before any compute).
        RunFolderError: ``out`` holds something else, or a run with another configuration.
    """
    given: list[Any] = [model] if isinstance(model, (str, VLM)) else list(model)
    names = tuple(m.name if isinstance(m, VLM) else str(m) for m in given)
    loaded = data if isinstance(data, Dataset) else None
    if loaded is not None:
        own = sorted({"n", "split", "task", "root"} & set(options))
        if own:
            raise InputError(f"{', '.join(own)} belong to loading a dataset; this one is loaded")
        options.update(n=len(loaded), split=loaded.info.get("split"), task=loaded.info.get("task"))
    try:
        config = StudyConfig(
            models=names,
            data=data.name if isinstance(data, Dataset) else data,
            given=_identity(given, loaded),
            **options,
        )
    except TypeError as error:
        known = ", ".join(StudyConfig.__dataclass_fields__)
        raise InputError(f"{error}; a study's options are {known}") from error
    say = Console(quiet=not progress, highlight=False)
    folder = Path(out)
    # A folder in use is looked at first; a new one is made once data and model are there, so that a
    # misspelt name leaves nothing behind.
    used = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    run = RunFolder.create(out, config.to_json()) if used else None
    if run is not None and run.has("summary.json") and run.has("report.html"):
        say.print(f"{run.path} already holds this study; its report is {run.path / 'report.html'}")
        summary = Summary.from_json(run.read_summary())
        return StudyResult(run, run.path / "report.html", summary)

    dataset = loaded or _load_data(config)
    say.print(f"{dataset}")
    train, heldout = _split(dataset, config)
    sections: list[ModelSection] = []
    tables: list[pd.DataFrame] = []
    states: dict[str, np.ndarray] = {}
    with ExitStack() as held:
        if run is not None:
            held.enter_context(run.lock())
        for entry in given:
            vlm = entry if isinstance(entry, VLM) else _load_model(entry, config)
            if config.ks is not None and config.ks[-1] > vlm.d_model:
                raise InputError(
                    f"k = {config.ks[-1]} is more than the {vlm.d_model} dimensions of {vlm.name}"
                )
            if run is None:
                run = RunFolder.create(out, config.to_json())
                held.enter_context(run.lock())
            say.print(
                f"[bold]{vlm.name}[/bold] ({vlm.family.name}, {vlm.n_layers} layers, {vlm.device})"
            )
            part = ModelStudy(vlm, dataset, train, heldout, config, say, progress)
            section, table, hidden = part.run(run, len(sections))
            sections.append(section)
            tables.append(table)
            states[vlm.name.replace("/", "--") + ".resid_post"] = hidden
        assert run is not None  # there is at least one model
        run.write_examples(pd.concat(tables, ignore_index=True))
        run.write_activations(states, dict.fromkeys(states, ("layer", "example", "d_model")))
        summary = Summary(
            title=f"Reliability of {', '.join(s.model.name for s in sections)} on {dataset.name}",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seeds={"study": config.seed},
            sections=tuple(sections),
        )
        run.write_summary(summary.to_json())
        report = write_report(run)
    say.print(f"[bold]report[/bold]: {report}")
    return StudyResult(run, report, summary)


def _identity(models: Sequence[Any], dataset: Dataset | None) -> dict[str, Any] | None:
    """A digest of what was passed as an object, since its name alone does not say which it is."""
    found: dict[str, Any] = {}
    if dataset is not None:
        text = "\0".join(f"{s.image_id}\1{s.task}\1{s.question}\1{s.answer}" for s in dataset)
        found["dataset"] = {
            "digest": hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16],
            "info": {
                k: v for k, v in dataset.info.items() if isinstance(v, (str, int, type(None)))
            },
        }
    for model in models:
        if isinstance(model, VLM):
            # Sums in double precision: cheap, and another for other weights.
            sums = [float(p.detach().double().sum()) for p in model.model.parameters()]
            found.setdefault("models", {})[model.name] = hashlib.sha256(
                repr(sums).encode()
            ).hexdigest()[:16]
    return found or None


def _load_data(config: StudyConfig) -> Dataset:
    options = {} if config.task is None else {"task": config.task}
    return benchmarks.load(
        config.data,
        root=config.root,
        split=config.split,
        limit=config.n,
        seed=config.seed,
        **options,
    )


def _load_model(name: str, config: StudyConfig) -> VLM:
    return load(name, device=config.device, dtype=config.dtype)


def _split(dataset: Dataset, config: StudyConfig) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and held-out examples; an image is on one side."""
    _, test = train_test_split(
        dataset,
        test_size=config.test_size,
        seed=config.seed,
        stratify=[s.task for s in dataset],
    )
    held = {s.image_id for s in test}
    inside = np.array([s.image_id in held for s in dataset])
    return np.flatnonzero(~inside), np.flatnonzero(inside)
