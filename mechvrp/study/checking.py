"""What a run is of, checked before it begins and whenever it goes on: its records and its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.markup import escape

from mechvrp.data import Dataset
from mechvrp.data.sample import Skipped
from mechvrp.errors import DataError, InputError, RunFolderError
from mechvrp.models import VLM, fingerprint
from mechvrp.models.processor_settings import processor_settings
from mechvrp.models.refusals import Asked, refusals
from mechvrp.store import RunFolder
from mechvrp.study.coding import decode
from mechvrp.study.config import StudyConfig
from mechvrp.study.engines.base import Engine

__all__ = [
    "Checked",
    "check_records",
    "check_weights",
    "check_width",
    "dataset_digest",
    "usable_dataset",
]


#: What makes a prompt, and is noted of every model.
_ALWAYS = ("chat_template", "instruction", "tokenizer")


@dataclass(frozen=True)
class _LeftOut:
    """A record; ``index`` is null where the dataset's reader left it out."""

    index: int | None
    record: str
    reason: str


@dataclass(frozen=True)
class Checked:
    """What was found of a dataset's records: ``stages/check/data.json``."""

    records: int
    digest: str
    left_out: tuple[_LeftOut, ...]


def dataset_digest(dataset: Dataset) -> str:
    """Of what is asked about which image, and the right answers; not of the pictures themselves."""
    found = hashlib.sha256()
    for s in dataset:
        text = f"{s.image_id}\1{s.task}\1{s.question}\1{s.answer}\0"
        found.update(text.encode("utf-8", "replace"))
    return found.hexdigest()[:16]


def check_records(
    dataset: Dataset, engines: Sequence[Engine], config: StudyConfig, say: Console
) -> Checked:
    """Look at all records and their images, and ask each model which questions it refuses (`refusals`).

    Of several models only the first is kept, which is used next: they may not fit into memory beside each
    other.

    Raises:
        InputError: a model has fewer dimensions than are to be ablated.
        UnavailableError: a model cannot encode samples.
        DataError: no record can be used.
    """
    say.print(f"  looking at {len(dataset):,} records and their images")
    found = Checked(len(dataset), dataset_digest(dataset), _left_out(dataset, engines, config))
    _check_some(dataset, found)
    return found


def usable_dataset(
    run: RunFolder, dataset: Dataset, checked: Checked | None, say: Console
) -> Dataset:
    """The dataset without the records that cannot be used: by ``Dataset.check``, or by one of the models.

    What is left out is listed in the run folder (``stages/check/data.json``), with what the dataset's reader
    left out before. A run goes on with the same records only, and looks at their images no second time.

    Args:
        run, dataset: of the study.
        checked: by `check_records`, where the run folder has nothing of it yet.
        say: where to report to.

    Raises:
        DataError: no record can be used.
        RunFolderError: the records are others than when the run began.
    """
    digest = dataset_digest(dataset)
    if checked is None:
        value = run.read_stage("check", "data")
        kept = decode(Checked, value or {}, "stages/check/data.json")
    else:
        kept = checked
        run.write_stage("check", "data", asdict(kept))
    if (kept.records, kept.digest) != (len(dataset), digest):
        raise RunFolderError(
            f"{run.path} was begun with other records of {dataset.name} ({kept.records}, digest "
            f"{kept.digest}) than there are now ({len(dataset)}, {digest}): images, questions, answers or "
            "their order have changed. Restore the files, or choose another folder"
        )
    if not kept.left_out:
        return dataset
    gone, first = _gone(kept), _first(kept)
    _check_some(dataset, kept)
    say.print(
        f"[yellow]{len(kept.left_out)} records are left out[/yellow] ({escape(first)}"
        f"{'; ...' if len(kept.left_out) > 3 else ''}); all of them: "
        f"{escape(str(run.path / 'stages/check/data.json'))}",
        soft_wrap=True,
    )
    skipped = [Skipped(e.record, e.reason) for e in kept.left_out if e.index is not None]
    samples = [sample for i, sample in enumerate(dataset) if i not in gone]
    return Dataset(
        dataset.name, samples, skipped=(*dataset.skipped, *skipped), info=dict(dataset.info)
    )


def _gone(kept: Checked) -> set[int]:
    return {entry.index for entry in kept.left_out if entry.index is not None}


def _first(kept: Checked) -> str:
    return "; ".join(f"{entry.record}: {entry.reason}" for entry in kept.left_out[:3])


def _check_some(dataset: Dataset, kept: Checked) -> None:
    if len(_gone(kept)) == len(dataset):
        raise DataError(f"no record of {dataset.name} can be used: {_first(kept)}")


def check_weights(run: RunFolder, part: str, engine: Engine) -> None:
    """Note which weights and which processor a part of a run is made with, and refuse to go on with others.

    Raises:
        RunFolderError: the model or its processor has changed since the run began.
    """
    name, now, processor = engine.ask(_weights)
    value = run.read_stage("check", part)
    if value is None:
        run.write_stage("check", part, {"fingerprint": now, "processor": processor})
        return
    if value.get("fingerprint") != now:
        raise RunFolderError(
            f"{run.path} was begun with another {name}: its weights have the fingerprint "
            f"{value.get('fingerprint')}, these {now}. Restore them, or choose another folder"
        )
    before = value.get("processor")
    if before is None:  # a run of before processors were noted
        return
    if not isinstance(before, dict):
        raise RunFolderError(
            f"{run.path}: stages/check/{part}.json is damaged: its processor is {before!r:.60}, not an object. "
            "Restore the file, or choose another folder"
        )
    # What an image processor has in one version of transformers only is not compared.
    keys = sorted({*(processor.keys() & before.keys()), *_ALWAYS})
    other = [
        f"{key} ({before.get(key) or 'none'}, now {processor.get(key) or 'none'})"
        for key in keys
        if before.get(key) != processor.get(key)
    ]
    if other:
        raise RunFolderError(
            f"{run.path} was begun with another processor of {name}, of which these differ: "
            f"{', '.join(other)}. Restore it, or choose another folder"
        )


def _weights(model: VLM) -> tuple[str, str, dict[str, str]]:
    settings = processor_settings(model.processor)
    settings["instruction"] = str(getattr(model.model.config, "mechvrp_instruction", ""))
    return model.name, fingerprint(model), settings


def _left_out(
    dataset: Dataset, engines: Sequence[Engine], config: StudyConfig
) -> tuple[_LeftOut, ...]:
    looked = dataset.look()
    bad: dict[int, list[str]] = {}
    for i, reason in looked.problems:
        bad.setdefault(i, []).append(reason)
    asked = {
        i: (sample.question, sample.task, size)
        for i, (sample, size) in enumerate(zip(dataset, looked.sizes, strict=True))
        if size is not None and i not in bad
    }
    places, questions = list(asked), list(asked.values())
    answers = []
    for engine in reversed(engines):  # the first model is the one that is used next
        answers.append(engine.ask(_refusals, config, questions))
        if engine is not engines[0]:
            engine.close()
    for name, refused in reversed(answers):
        for place, reason in refused.items():
            words = reason if name in reason else f"{name} refuses it: {reason}"
            bad.setdefault(places[place], []).append(words)
    by_reader = [_LeftOut(None, s.record, s.reason) for s in dataset.skipped]
    return (
        *by_reader,
        *(_LeftOut(i, dataset.place(i), "; ".join(bad[i])) for i in sorted(bad)),
    )


def check_width(model: VLM, config: StudyConfig) -> None:
    """Raise ``InputError`` where more units are to be ablated than there are."""
    if config.ks is not None and config.ks[-1] > model.d_model:
        raise InputError(
            f"k = {config.ks[-1]} is more than the {model.d_model} dimensions of {model.name}"
        )


def _refusals(
    model: VLM, config: StudyConfig, asked: Sequence[Asked]
) -> tuple[str, dict[int, str]]:
    check_width(model, config)
    found = refusals(model, asked, new_tokens=config.max_new_tokens, together=config.batch_size > 1)
    return model.name, found
