"""What is compared: one checkpoint on one data set, taken from the run folders given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from mechvrp.data.sources import image_sources
from mechvrp.errors import InputError, RunFolderError
from mechvrp.store import RunFolder
from mechvrp.study.schema import DataInfo, ModelInfo, ModelSection, Summary, check_examples

__all__ = ["Unit", "check_recipes", "load_units", "shared_images"]

_KEY = ["image_id", "task", "question"]


@dataclass(frozen=True, eq=False)
class Unit:
    """One checkpoint on one data set.

    Attributes:
        run: name of the run folder (without the folders it lies in).
        created: when its summary was made.
        samples: sampled answers an example, where the configuration says.
        section: its part of the summary.
        examples: its rows of ``examples.parquet``.
        data: name of the data in tables: data set and split, and what else tells it apart.
    """

    run: str
    created: str
    samples: int | None
    section: ModelSection
    examples: pd.DataFrame
    data: str

    @property
    def model(self) -> str:
        return self.section.model.name

    @property
    def family(self) -> str:
        return self.section.model.family

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.data

    @cached_property
    def images(self) -> np.ndarray:
        """``[example]``, the same name for the same image in all units.

        By data set and image id, whatever the split or seed: where two images of one data set had the same
        id, taking them for one makes intervals wider, never narrower.
        """
        names = f"{self.section.data.name}\n"
        return np.char.add(names, image_sources(self.examples))

    @cached_property
    def different_images(self) -> np.ndarray:
        """``images`` without repetition."""
        return np.unique(self.images)


def load_units(paths: Sequence[str | Path]) -> tuple[tuple[Unit, ...], tuple[str, ...]]:
    """The units of some run folders, in order, and remarks on what was left out.

    A checkpoint that was asked the same questions twice counts once if it gave the same answers both times,
    and so do the same weights (by their fingerprint, where runs have it) under another name, whatever the
    answers.

    Raises:
        InputError: no folder; two different checkpoints of one name (by sizes, or by fingerprint); a checkpoint
            that was asked the same questions of one split in two runs, with different answers or only in part
            the same questions.
        RunFolderError: a folder is missing, unfinished or damaged.
        InputError: also, no model of any of them could be observed.
    """
    if not paths:
        raise InputError("name at least one run folder to compare")
    units: list[Unit] = []
    remarks: list[str] = []
    for path in paths:
        made, absent = _of_run(RunFolder.open(path))
        remarks += absent
        for unit in made:
            earlier = [u for u in units if u.model == unit.model]
            _check_same_model(unit, earlier)
            twin = next((u for u in earlier if _overlap(u, unit)), None)
            copy = next((u for u in units if _same_weights(u, unit) and _overlap(u, unit)), None)
            if twin is None and copy is not None:
                remarks.append(_counted_once(copy, unit))
            elif twin is None:
                units.append(unit)
            elif _same_answers(twin, unit):
                remarks.append(
                    f"{unit.model} on {unit.data} is in two runs ({twin.run} and {unit.run}) with the same "
                    f"answers: it counts once, from {twin.run}."
                )
            else:
                raise InputError(_twice(twin, unit))
    if not units:
        raise InputError(
            f"there is nothing to compare: {' '.join(remarks) or 'the runs have no models.'}"
        )
    remarks += _two_names(units)
    return tuple(_told_apart(units)), (*remarks, *_repeated_questions(units))


def check_recipes(
    units: Sequence[Unit], recipes: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Recipes with the names of the checkpoints that are their training seeds.

    That checkpoints differ by their training seed alone cannot be seen in a run, so it is to be said.

    Raises:
        InputError: fewer than two checkpoints, one that is in no run or in two recipes, or checkpoints of
            different families or sizes.
    """
    infos = {unit.model: unit.section.model for unit in units}
    found: dict[str, tuple[str, ...]] = {}
    for name, given in recipes.items():
        members = tuple(dict.fromkeys(given))
        absent = [m for m in members if m not in infos]
        if absent:
            raise InputError(
                f"training seeds of {name!r}: no run has {absent[0]!r} as a checkpoint of its own; there are "
                f"{sorted(infos)}"
            )
        if len(members) < 2:
            raise InputError(f"training seeds of {name!r}: name at least two checkpoints")
        if len({_shape(infos[m]) for m in members}) > 1:
            raise InputError(
                f"training seeds of {name!r} must be of one family and size: "
                + "; ".join(f"{m}: {_shape(infos[m])}" for m in members)
            )
        weights = [infos[m].fingerprint for m in members if infos[m].fingerprint]
        if len(set(weights)) < len(weights):
            raise InputError(
                f"training seeds of {name!r} must be different checkpoints; some have the same weights: "
                + "; ".join(f"{m}: {infos[m].fingerprint or 'not recorded'}" for m in members)
            )
        twice = [m for m in members if any(m in other for other in found.values())]
        if twice:
            raise InputError(f"{twice[0]!r} is named as a training seed of two recipes")
        found[name] = members
    return found


def shared_images(units: Sequence[Unit]) -> tuple[int, int]:
    """How many different images some units have, and how many of these are in several units."""
    images = np.concatenate([unit.different_images for unit in units])
    _, times = np.unique(images, return_counts=True)
    return len(times), int((times > 1).sum())


def _of_run(run: RunFolder) -> tuple[list[Unit], list[str]]:
    """Its units, and a remark for each model that could not be observed."""
    summary = Summary.from_json(run.read_summary())
    absent = [
        f"{section.model.name} in {run.path.name} could not be observed, so it is left out: "
        f"{(section.notes or ('its notes do not say why',))[0]}."
        for section in summary.sections
        if not section.accuracy
    ]
    if len(absent) == len(summary.sections):
        return [], absent
    # A model that could not be observed has no accuracy, and no examples.
    sections = [section for section in summary.sections if section.accuracy]
    names = [section.model.name for section in sections]
    check_examples(run, names)
    examples = run.read_examples()
    samples = run.config.get("samples")
    units = []
    for section in sections:
        rows = examples[examples["model"] == section.model.name].reset_index(drop=True)
        if len(rows) != section.data.n:
            raise RunFolderError(
                f"{run.path}: the summary tells of {section.data.n} examples of {section.model.name}, "
                f"examples.parquet holds {len(rows)}"
            )
        units.append(
            Unit(
                run=run.path.resolve().name,
                created=summary.created,
                samples=samples if isinstance(samples, int) else None,
                section=section,
                examples=rows,
                data=f"{section.data.name}, {section.data.split}",
            )
        )
    return units, absent


def _shape(info: ModelInfo) -> tuple[Any, ...]:
    return info.family, info.n_layers, info.d_model, info.n_parameters


def _check_same_model(unit: Unit, earlier: Sequence[Unit]) -> None:
    for other in earlier:
        if _shape(other.section.model) != _shape(unit.section.model):
            raise InputError(
                f"two different models are called {unit.model!r}: {_shape(other.section.model)} in "
                f"{other.run}, {_shape(unit.section.model)} in {unit.run} (family, layers, width, "
                "parameters). Run one of them under another name"
            )
        mine, its = unit.section.model, other.section.model
        # Older runs have no fingerprint.
        if mine.fingerprint and its.fingerprint and mine.fingerprint != its.fingerprint:
            dtypes = (
                f" ({its.dtype} and {mine.dtype}: the same checkpoint in two dtypes counts as two)"
                if its.dtype != mine.dtype
                else ""
            )
            raise InputError(
                f"two checkpoints with different weights are called {unit.model!r}: fingerprint "
                f"{its.fingerprint} in {other.run}, {mine.fingerprint} in {unit.run}{dtypes}. Run one of them "
                "under another name, or leave one of the two runs out"
            )


def _same_weights(first: Unit, second: Unit) -> bool:
    """Under two names, by the fingerprints that both runs have."""
    one, other = first.section.model, second.section.model
    return bool(one.fingerprint) and one.fingerprint == other.fingerprint and one.name != other.name


def _counted_once(kept: Unit, left: Unit) -> str:
    answers = "with the same answers" if _same_answers(kept, left) else "though with other answers"
    return (
        f"{left.model} (in {left.run}) has the same weights as {kept.model} (in {kept.run}) and was asked "
        f"questions of {left.data} that it was asked, {answers}: the checkpoint counts once, as {kept.model}."
    )


def _two_names(units: Sequence[Unit]) -> list[str]:
    """A remark for the same weights under two names on different questions, where neither is left out."""
    pairs = {
        (first.model, second.model)
        for i, first in enumerate(units)
        for second in units[i + 1 :]
        if _same_weights(first, second)
    }
    return [
        f"{one} and {other} have the same weights; asked different questions, they count as two checkpoints "
        "in what is pooled over data sets."
        for one, other in sorted(pairs)
    ]


def _questions(unit: Unit) -> set[tuple[str, ...]]:
    return set(unit.examples[_KEY].astype(str).itertuples(index=False, name=None))


def _same_place(first: DataInfo, second: DataInfo) -> bool:
    return (first.name, first.split) == (second.name, second.split)


def _overlap(first: Unit, second: Unit) -> bool:
    """Whether one split's same questions are in both (of different splits that is as it may be)."""
    if not _same_place(first.section.data, second.section.data):
        return False
    return bool(_questions(first) & _questions(second))


def _same_answers(first: Unit, second: Unit) -> bool:
    if first.section.label_rule != second.section.label_rule:
        return False
    columns = [*_KEY, "prediction", "correct", "answer_probability"]
    one, other = (
        u.examples[columns].astype(dict.fromkeys(_KEY, str)).sort_values(columns[:4])
        for u in (first, second)
    )
    if len(one) != len(other):
        return False
    same = (one[columns[:5]].to_numpy() == other[columns[:5]].to_numpy()).all()
    near = np.allclose(one["answer_probability"], other["answer_probability"], atol=1e-4)
    return bool(same and near)


def _twice(first: Unit, second: Unit) -> str:
    both = len(_questions(first) & _questions(second))
    return (
        f"{second.model} was asked {both} same questions of {second.data} in two runs, {first.run} "
        f"({first.section.data.n} examples) and {second.run} ({second.section.data.n}), and these are not "
        "the same answers to the same set: they would count twice. Give one of the two, or rename the "
        "checkpoint if it is another one"
    )


def _told_apart(units: Sequence[Unit]) -> list[Unit]:
    """Units of one data name that are of different data get the seed, then the tasks, then a run's name.

    They are where a model has two of them, and where they have no question in common, directly or through
    others of that name: then two folders of images, say, merely have the same name.
    """
    named, sets = list(units), _sets(units)
    first = {group: unit.run for unit, group in zip(reversed(units), reversed(sets), strict=True)}
    for more in (
        lambda u, _: f"seed {u.section.data.seed}",
        lambda u, _: " and ".join(u.section.data.tasks),
        lambda _, group: f"as in run {first[group]}",
        lambda u, _: f"run {u.run}",
    ):
        words = [more(u, group) for u, group in zip(named, sets, strict=True)]
        clashing = _clashing(named, sets)
        told: dict[str, set[str]] = {}
        for unit, word in zip(named, words, strict=True):
            told.setdefault(unit.data, set()).add(word)
        named = [
            replace(u, data=f"{u.data}, {word}")
            if u.data in clashing and len(told[u.data]) > 1
            else u
            for u, word in zip(named, words, strict=True)
        ]
    return named


def _clashing(units: Sequence[Unit], sets: Sequence[int]) -> set[str]:
    """Data names under which one model has several units, or under which there are several sets."""
    counts = pd.Series([u.key for u in units]).value_counts()
    # Of all models: the same data keep the same name.
    found = {key[1] for key, count in counts.items() if count > 1}  # type: ignore[index]
    groups: dict[str, set[int]] = {}
    for unit, group in zip(units, sets, strict=True):
        groups.setdefault(unit.data, set()).add(group)
    return found | {name for name, members in groups.items() if len(members) > 1}


def _sets(units: Sequence[Unit]) -> list[int]:
    """``[unit]``, the same number for units of one data name that share questions, also through others."""
    links = [[_overlap(one, other) for other in units] for one in units]
    return connected_components(np.array(links), directed=False)[1].tolist()  # type: ignore[no-any-return]


def _repeated_questions(units: Sequence[Unit]) -> list[str]:
    """A remark for each model that some questions were asked of in several splits."""
    remarks = []
    for model in dict.fromkeys(u.model for u in units):
        own = [(u.section.data.name, q) for u in units if u.model == model for q in _questions(u)]
        repeated = len(own) - len(set(own))
        if repeated:
            remarks.append(
                f"{repeated} questions of {model} are in more than one of the data sets compared; in what "
                "is pooled over data sets they count each time, their images once."
            )
    return remarks
