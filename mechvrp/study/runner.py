"""``run_study``: a reliability study, from images to a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape

from mechvrp import data as benchmarks
from mechvrp.data import Dataset, train_test_split
from mechvrp.data.registry import takes_option
from mechvrp.errors import InputError, RunFolderError
from mechvrp.models import VLM, fingerprint
from mechvrp.plots.directions import isolated
from mechvrp.store import RunFolder
from mechvrp.store.places import place, unreachable
from mechvrp.study.checking import check_records, check_width, dataset_digest, usable_dataset
from mechvrp.study.config import StudyConfig
from mechvrp.study.engines import check_engine, open_engines
from mechvrp.study.pictures import write_pictures
from mechvrp.study.report import write_report
from mechvrp.study.schema import Summary
from mechvrp.study.settings import resolve_settings
from mechvrp.study.stage_results import STAGES, Intervened, Observed, kept
from mechvrp.study.stages import ModelStudy

__all__ = ["StudyResult", "load_data", "prepare_study", "run_study", "split_images"]


@dataclass(frozen=True)
class StudyResult:
    """A study's folder, and, once the stage report has run, its report and its figures."""

    run: RunFolder
    report: Path | None
    summary: Summary | None

    @property
    def unobserved(self) -> dict[str, str]:
        """The models that could not be observed, and why; of several with one name, all reasons."""
        found: dict[str, list[str]] = {}
        for stage in self._observed():
            if stage.failure and stage.failure not in found.setdefault(stage.model.name, []):
                found[stage.model.name].append(stage.failure)
        return {name: "; ".join(why) for name, why in found.items() if why}

    @property
    def in_vain(self) -> bool:
        """Whether no model at all could be observed, so that there is nothing to report but why."""
        stages = self._observed()
        return bool(stages) and all(stage.failure for stage in stages)

    def _observed(self) -> list[Observed]:
        """Of every model whose observation has ended, in order of names of their files."""
        names = sorted(path.stem for path in self.run.path.glob("stages/observe/*.json"))
        return [stage for name in names if (stage := kept(self.run, name, Observed)) is not None]

    def __repr__(self) -> str:
        if self.summary is None:
            return f"StudyResult({self.run.path}: no report yet)"
        names = ", ".join(s.model.name for s in self.summary.sections)
        return f"StudyResult({names}: {self.report})"


def run_study(
    model: str | VLM | Sequence[str | VLM] | None = None,
    data: str | Dataset | None = None,
    *,
    out: str | Path,
    preset: str | None = None,
    config: str | Path | None = None,
    stages: Sequence[str] | None = None,
    progress: bool = True,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    **options: Any,
) -> StudyResult:
    """Where can this model's reliability be read? Signals, probes, interventions, and a report.

    For each model, in stages that end with files of their own:

    - observe: greedy answers and whether they are right, with every signal that one prefill shows
      (``mechvrp.reliability.observe``), and the residual stream of the last prompt token;
    - correlate: every signal against correctness; a linear probe per layer, fitted on training images and
      judged on held-out ones beside two baselines and shuffled labels; with ``readouts`` other probes;
    - intervene: the probe's top dimensions zeroed, against random ones; with ``causal`` also image
      patches masked, MLP neurons ablated, hidden states and attention corrupted;
    - report: one page, made from what the others left.

    Args:
        model: one or several, by name or from ``mechvrp.load``; by default ``"tiny-llava"``.
        data: the name of a dataset (by default ``"scenes"``), or one already loaded (then ``n``,
            ``split``, ``task`` and ``root`` are its own).
        out: the run folder; a folder that holds the same finished run is returned to as it is, and
            one of a run that was killed is gone on with: at most one piece is computed again.
        preset: ``"quick"`` (the default), ``"vrp"`` (everything the VRP papers report) or ``"full"``.
        config: a YAML file of settings (``mechvrp study --print-config`` shows one); what is given here
            wins over it.
        stages: some of ``observe``, ``correlate``, ``intervene``, ``report``; by default all.
        progress: show what is going on.
        engine: where models compute: ``"local"``, in this process, or ``"ray"``, in workers that each hold a
            replica on a device of their own. Records are the same, and either goes on with the other's run.
        workers: of Ray; by default one for each of its GPUs.
        address: of a Ray cluster (``"auto"``: the one on this machine); by default that of RAY_ADDRESS, and
            else Ray is started here for this run.
        options: the other settings (``mechvrp.study.StudyConfig``: ``n``, ``split``, ``seed``, ``draws``, ...).

    Raises:
        InputError: an option is unusable (before any compute).
        RunFolderError: ``out`` holds something else, a run with another configuration, or lacks what
            a stage needs.
        WorkerError: workers cannot be started, or end again and again over the same pieces.
    """
    settings, given, loaded = prepare_study(model, data, preset, config, options)
    check_engine(engine, workers, address, given, settings)
    wanted = _stages(stages)
    say = Console(quiet=not progress, highlight=False)
    folder = place(out)
    # A folder in use is looked at first; a new one is made once data and model are there, so that a
    # misspelt name leaves nothing behind.
    with unreachable(folder):
        used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    run = RunFolder.create(out, settings.to_json()) if used else None
    whole = run is not None and _finished(run, len(given))
    if run is not None and whole and (damage := _damage(run)):
        say.print(f"{escape(damage)}; what is missing is made anew")
        whole = False
    if run is not None and whole:
        say.print(f"{run.path} already holds this study; its report is {run.path / 'report.html'}")
        summary = Summary.from_json(run.read_summary())
        return StudyResult(run, run.path / "report.html", summary)

    dataset = loaded or load_data(settings)
    say.print(f"{dataset}")
    with ExitStack() as stack:
        engines = stack.enter_context(
            open_engines(engine, workers, address, given, settings, folder, say)
        )
        checked = None
        if run is None:  # made last: what is refused leaves no folder behind
            engines[-1].ask(check_width, settings)  # the first that is asked for records, too
            checked = check_records(dataset, engines, settings, say)
            run = RunFolder.create(out, settings.to_json())
        stack.enter_context(run.lock())
        for at in engines:
            stack.callback(at.close)  # workers end before the folder is let go of
        if checked is None and run.read_stage("check", "data") is None:
            checked = check_records(dataset, engines, settings, say)
        dataset = usable_dataset(run, dataset, checked, say)
        train, heldout = split_images(dataset, settings)
        parts = []
        for index, at in enumerate(engines):
            name = _known_name(run, index) or at.ask(_name)
            part = ModelStudy(
                name, index, at, run, dataset, train, heldout, settings, say, progress
            )
            say.print(f"[bold]{name}[/bold]")
            for stage in ("observe", "correlate", "intervene"):
                if stage in wanted:
                    getattr(part, stage)()
            at.close()
            parts.append(part)
        if "report" not in wanted:
            return StudyResult(run, None, None)
        summary = _summarise(run, parts, dataset, settings)
        report = write_report(run)
    say.print(f"[bold]report[/bold]: {report}")
    return StudyResult(run, report, summary)


def prepare_study(
    model: str | VLM | Sequence[str | VLM] | None,
    data: str | Dataset | None,
    preset: str | None,
    file: str | Path | None,
    options: dict[str, Any],
) -> tuple[StudyConfig, list[str | VLM], Dataset | None]:
    """A study's settings, its models by name or loaded, and its dataset if it was passed as one.

    Raises:
        InputError: an option is unusable.
    """
    entries: list[str | VLM] | None = None
    if model is not None:
        if not isinstance(model, (str, VLM, Sequence)):
            raise InputError(f"a study takes a model or a list of them; got {model!r:.60}")
        entries = [model] if isinstance(model, (str, VLM)) else list(model)
        options = {**options, "models": tuple(str(getattr(m, "name", m)) for m in entries)}
    loaded = data if isinstance(data, Dataset) else None
    if loaded is not None:
        own = sorted({"n", "split", "task", "root"} & set(options))
        if own:
            raise InputError(f"{', '.join(own)} belong to loading a dataset; this one is loaded")
    elif data is not None:
        options = {**options, "data": data}
    settings = resolve_settings(preset, file, options)
    if loaded is not None:
        info = loaded.info
        settings |= {"data": loaded.name, "split": info.get("split"), "task": info.get("task")}
        # A dataset that is there has its own number of examples, however few.
        settings |= {"n": max(len(loaded), 20)}
    plain = StudyConfig(**settings)
    entries = list(plain.models) if entries is None else entries
    return StudyConfig(**settings, given=_identity(entries, loaded)), entries, loaded


def split_images(dataset: Dataset, config: StudyConfig) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and held-out examples; an image is on one side.

    With one image (or several made from one) there is no split: all of it is training, and what needs
    held-out images is a gap.
    """
    if len({s.source_id for s in dataset}) < 2:
        return np.arange(len(dataset)), np.empty(0, dtype=int)
    _, test = train_test_split(
        dataset,
        test_size=config.test_size,
        seed=config.seed,
        stratify=[s.task for s in dataset],
    )
    held = {s.image_id for s in test}
    inside = np.array([s.image_id in held for s in dataset])
    return np.flatnonzero(~inside), np.flatnonzero(inside)


def _stages(stages: Sequence[str] | None) -> tuple[str, ...]:
    if stages is not None and (isinstance(stages, str) or not isinstance(stages, Sequence)):
        raise InputError(f"stages is a list of {', '.join(STAGES)}; got {stages!r:.60}")
    chosen = STAGES if stages is None else tuple(stages)
    unknown = [stage for stage in chosen if stage not in STAGES]
    if unknown or not chosen:
        raise InputError(f"stages are {', '.join(STAGES)}; got {', '.join(unknown) or 'none'}")
    return chosen


def _summarise(
    run: RunFolder, parts: Sequence[ModelStudy], dataset: Dataset, config: StudyConfig
) -> Summary:
    """Write the table of examples, their pictures and the summary."""
    sections = tuple(part.section() for part in parts)
    if any(section.accuracy for section in sections):
        pictures = write_pictures(run, dataset, config.seed)

        def tables() -> Iterator[pd.DataFrame]:
            for part in parts:
                yield from part.examples(pictures)

        run.write_examples_in_parts(tables)
    summary = Summary(
        title=f"Reliability of {', '.join(isolated(s.model.name) for s in sections)} on "
        f"{isolated(dataset.name)}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seeds={"study": config.seed},
        sections=sections,
    )
    run.write_summary(summary.to_json())
    return summary


def _finished(run: RunFolder, models: int) -> bool:
    """Whether every stage has ended: a report can also be made before the interventions."""
    if not (run.has("summary.json") and run.has("report.html")):
        return False
    for index in range(models):
        paths = list(run.path.glob(f"stages/observe/{index}-*.json"))
        observed = kept(run, paths[0].stem, Observed) if paths else None
        if observed is None:
            return False
        if not observed.failure and kept(run, paths[0].stem, Intervened) is None:
            return False
    return True


def _damage(run: RunFolder) -> str:
    """What a finished run lacks of what its report is made from; nothing: an empty text."""
    try:
        found = run.read_summary()
        for pieces in run.written_chunks("observe").values():
            if not pieces.complete:
                return f"{pieces.folder} lacks pieces"
        if any(section.get("accuracy") for section in found.get("sections", [])):
            for name in run.read_examples(["gallery"])["gallery"].dropna().unique():
                run.read_gallery_image(str(name))
    except RunFolderError as error:
        return str(error)
    return ""


def _known_name(run: RunFolder, index: int) -> str | None:
    """The name of a model that was observed before: later stages need not load it."""
    for path in run.path.glob(f"stages/observe/{index}-*.json"):
        found = kept(run, path.stem, Observed)
        return found.model.name if found is not None else None
    return None


def _name(model: VLM) -> str:
    return model.name


def _identity(models: Sequence[Any], dataset: Dataset | None) -> dict[str, Any] | None:
    """A digest of what was passed as an object, since its name alone does not say which it is."""
    found: dict[str, Any] = {}
    if dataset is not None:
        found["dataset"] = {
            "digest": dataset_digest(dataset),
            "info": {
                k: v for k, v in dataset.info.items() if isinstance(v, (str, int, type(None)))
            },
        }
    for model in models:
        if isinstance(model, VLM):
            found.setdefault("models", {})[model.name] = fingerprint(model)
    return found or None


def load_data(config: StudyConfig) -> Dataset:
    """The dataset that a study's settings name."""
    options: dict[str, Any] = {} if config.task is None else {"task": config.task}
    if not config.data.startswith("scenes"):  # generated: no record of them can be bad
        options["on_error"] = "skip"
    if takes_option(config.data, "verify_images"):
        options["verify_images"] = False  # a run decodes each image once, when it begins
    return benchmarks.load(
        config.data,
        root=config.root,
        split=config.split,
        limit=config.n,
        seed=config.seed,
        **options,
    )
