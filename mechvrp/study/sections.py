"""From results to the sections of a summary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechvrp.circuits import AblationCurve, Comparison
from mechvrp.errors import InputError
from mechvrp.statistics import accuracy_interval
from mechvrp.study.coding import rows_of
from mechvrp.study.schema import (
    AblationSection,
    AccuracyRow,
    ComparisonRow,
    CurveRow,
    LayerRow,
    ProbeSection,
    TaskRow,
)

__all__ = ["ablation_section", "accuracy_rows", "probe_section"]

_LEVEL = 0.95


def accuracy_rows(
    correct: np.ndarray,
    tasks: Sequence[str] | np.ndarray,
    groups: Sequence[str] | np.ndarray,
    splits: Sequence[str] | np.ndarray,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
) -> tuple[AccuracyRow, ...]:
    """Accuracy of every task, and of all, in every split, and in all.

    Args:
        correct: boolean ``[example]``.
        tasks: ``[example]``.
        groups: ``[example]``, image ids.
        splits: ``[example]``, ``"train"`` or ``"heldout"``.
        seed: seeds the resampling of images.
        n_resamples: bootstrap resamples.

    Raises:
        InputError: lengths differ.
    """
    correct, tasks, groups = np.asarray(correct), np.asarray(tasks), np.asarray(groups)
    splits = np.asarray(splits)
    if len({len(correct), len(tasks), len(groups), len(splits)}) != 1:
        raise InputError(
            f"correct, tasks, groups and splits have {len(correct)}, {len(tasks)}, {len(groups)} "
            f"and {len(splits)} entries; expected one of each per example"
        )
    rows = []
    for task in ("all", *map(str, np.unique(tasks))):
        for split in ("all", "train", "heldout"):
            inside = np.ones(len(correct), bool) if task == "all" else tasks == task
            if split != "all":
                inside = inside & (splits == split)
            rows.append(
                _accuracy_row(task, split, correct[inside], groups[inside], seed, n_resamples)
            )
    return tuple(rows)


def probe_section(comparison: Comparison, *, site: str, site_words: str) -> ProbeSection:
    """The probe's part of a summary, from `compare_with_baselines`.

    Args:
        comparison: the probe beside its baselines.
        site: hook name of the chosen layer's site, ``"blocks.2.hook_resid_post"``.
        site_words: the same in words, e.g. ``"residual stream after block 2, last prompt token"``.
    """
    sweep = comparison.probe
    return ProbeSection(
        site=site,
        site_words=site_words,
        chosen_layer=sweep.chosen_layer,
        folds=len(sweep.layers[sweep.chosen].fold_auroc),
        control_draws=len(comparison.control.auroc),
        n_resamples=sweep.n_resamples,
        layers=rows_of(LayerRow, sweep.to_frame()),
        tasks=rows_of(TaskRow, sweep.tasks_frame()),
        comparison=rows_of(ComparisonRow, comparison.to_frame()),
    )


def ablation_section(curve: AblationCurve, *, edit: str) -> AblationSection:
    """The ablation's part of a summary, from `analyse_ablation`.

    Args:
        curve: analysed with ``site`` and ``units`` given.
        edit: what was done, e.g. ``"zeroed at the last prompt position"``.

    Raises:
        InputError: the curve was made without ``site`` or ``units``.
    """
    if not curve.site or curve.units is None:
        raise InputError("a report names the ablated site; give analyse_ablation site and units")
    return AblationSection(
        site=curve.site,
        edit=edit,
        units=curve.units,
        draws=curve.draws,
        n_resamples=curve.n_resamples,
        points=rows_of(CurveRow, curve.to_frame()),
    )


def _accuracy_row(
    task: str, split: str, correct: np.ndarray, groups: np.ndarray, seed: int, n_resamples: int
) -> AccuracyRow:
    n, images = len(correct), len(np.unique(groups))
    right = int(correct.sum())
    if images < 2:
        share = right / n if n else None
        gap = "one image only: no interval" if n else "no examples"
        return AccuracyRow(task, split, n, right, images, share, None, None, _LEVEL, gap)
    found = accuracy_interval(correct, groups, seed=seed, n_resamples=n_resamples, level=_LEVEL)
    return AccuracyRow(task, split, n, right, images, found.value, found.low, found.high, _LEVEL)
