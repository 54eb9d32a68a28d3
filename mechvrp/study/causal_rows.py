"""From outcomes of interventions to the rows of a summary: changes, intervals, tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mechvrp.circuits.curves import over_images_and_draws, rank_p
from mechvrp.errors import InputError
from mechvrp.statistics import (
    Estimate,
    benjamini_hochberg,
    drawn_accuracy_change,
    group_bootstrap,
    paired_accuracy_change,
)
from mechvrp.statistics.bootstrap import weighted_mean
from mechvrp.study.causal_spec import FAMILIES, CausalSpec, Condition
from mechvrp.study.rows import CausalRow, CausalSection

__all__ = ["causal_section"]


@dataclass(frozen=True)
class _Changes:
    """Change, control's change and excess, with the p of the first and the last."""

    change: Estimate
    p: float
    control: Estimate
    excess: Estimate
    excess_p: float


def causal_section(
    spec: CausalSpec,
    arrays: Mapping[str, np.ndarray],
    failed: Mapping[str, Sequence[str]],
    groups: Sequence[str] | np.ndarray,
    *,
    right: np.ndarray | None = None,
    left_out: int = 0,
    seed: int = 0,
    n_resamples: int = 2000,
) -> CausalSection:
    """Rows of everything that ran, and gaps for what did not.

    Random sets of units are shared by all examples: their intervals resample images and draws (crossed), and
    ``excess_p`` is the rank of the top among the draws, one-sided, as in an ablation curve, and ``curve_p``
    that of all k together: few draws leave single k little room under adjustment. Masks and noise
    are drawn for each example by itself: resampling images resamples them too, and ``excess_p`` is of
    flipping signs by image, two-sided. q is Benjamini and Hochberg's within the family.

    Args:
        spec: what was run.
        arrays, failed: from `join_interventions`.
        groups: image of each example.
        right: whether the generated answer was right; examples whose answer in these forwards differs from
            it are left out and counted in a gap.
        left_out: held-out examples that were not run, since their clean answer is not one token long.
        seed, n_resamples: of the intervals.

    Raises:
        InputError: arrays that do not fit the spec or the groups.
    """
    groups = np.asarray(groups)
    gaps = list(spec.gaps)
    if left_out:
        gaps.append(
            f"held-out examples left out, whose clean answer is not one token long: {left_out}"
        )
    rows: list[CausalRow] = []
    different = np.zeros(len(groups), dtype=bool)
    for part, conditions in spec.conditions.items():
        clean, edited, control = (arrays[f"{part}.{k}"] for k in ("clean", "edited", "control"))
        expected = (len(conditions), spec.edited_draws(part), len(groups))
        if edited.shape != expected or clean.shape != groups.shape:
            raise InputError(f"{part} has outcomes of shape {edited.shape}; expected {expected}")
        errors = failed.get(part) or ("",) * len(conditions)
        same = np.ones(len(groups), bool) if right is None else (clean == 1) == right
        ran = clean >= 0
        different |= ran & ~same
        reasons: dict[str, list[str]] = {}
        for i, condition in enumerate(conditions):
            bad = int(((edited[i] < 0).any(0) | (control[i] < 0).any(0)).sum())
            if bad:
                why = errors[i] or "it could not be run"
                reasons.setdefault(f"{why} ({bad} of {len(groups)} examples)", []).append(
                    condition.name
                )
                continue
            try:
                rows.append(
                    _row(
                        spec,
                        part,
                        condition,
                        clean[same] == 1,
                        edited[i][:, same] == 1,
                        control[i][:, same] == 1,
                        _entropies(arrays, part, i, same),
                        groups[same],
                        seed,
                        n_resamples,
                    )
                )
            except InputError as error:
                reasons.setdefault(str(error), []).append(condition.name)
        if spec.shared_draws(part) and not reasons:
            whole_curve = _curve_p(
                clean[same] == 1, edited[:, 0, same] == 1, control[..., same] == 1
            )
            first = len(rows) - len(conditions)
            rows[first:] = [replace(row, curve_p=whole_curve) for row in rows[first:]]
        for why, names in reasons.items():
            whole = "" if len(names) == len(conditions) else f" ({', '.join(names)})"
            gaps.append(f"{conditions[0].family}{whole}: {why}")
    if different.any():
        gaps.append(
            f"{int(different.sum())} examples are left out of some rows: their answer in one forward "
            "differs from the generated one"
        )
    ordered = sorted(rows, key=lambda row: FAMILIES.index(row.family))
    return CausalSection(_adjusted(ordered), n_resamples, tuple(gaps))


def _entropies(
    arrays: Mapping[str, np.ndarray], part: str, i: int, same: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Before [example] and the mean over draws after, NaN where there is none; None without any."""
    if f"{part}.entropy_before" not in arrays:
        return None
    before = arrays[f"{part}.entropy_before"][i][same].astype(float)
    after = arrays[f"{part}.entropy_after"][i][:, same].astype(float)
    known = (before >= 0) & (after >= 0).all(0)
    if not known.any():
        return None
    return np.where(known, before, np.nan), np.where(known, after.mean(0), np.nan)


def _row(
    spec: CausalSpec,
    part: str,
    condition: Condition,
    clean: np.ndarray,
    edited: np.ndarray,
    control: np.ndarray,
    entropies: tuple[np.ndarray, np.ndarray] | None,
    groups: np.ndarray,
    seed: int,
    n_resamples: int,
) -> CausalRow:
    if len(np.unique(groups)) < 2:
        raise InputError(f"{len(clean)} examples of {len(np.unique(groups))} images: no interval")
    settings = {"seed": seed, "n_resamples": n_resamples}
    changes = _crossed if spec.shared_draws(part) else _own
    found = changes(clean, edited, control, groups, settings)
    entropy: dict[str, float] = {}
    if entropies is not None:
        known = np.isfinite(entropies[0])
        before, after = (values[known] for values in entropies)
        if len(np.unique(groups[known])) > 1:
            change = group_bootstrap(
                weighted_mean,
                after - before,
                groups=groups[known],
                interval="t",
                weighted=True,
                **settings,
            )
            entropy = {
                "entropy_before": float(before.mean()),
                "entropy_change": change.value,
                "entropy_low": change.low,
                "entropy_high": change.high,
            }
    return CausalRow(
        family=condition.family,
        name=condition.name,
        control=condition.control,
        site=condition.site,
        edit=condition.edit,
        amount=condition.amount,
        first_layer=condition.first_layer,
        last_layer=condition.last_layer,
        units=condition.units,
        n=len(clean),
        n_groups=len(np.unique(groups)),
        draws=len(control),
        accuracy=float(clean.mean()),
        change=found.change.value,
        change_low=found.change.low,
        change_high=found.change.high,
        p=found.p,
        q=None,
        control_change=found.control.value,
        control_low=found.control.low,
        control_high=found.control.high,
        excess=found.excess.value,
        excess_low=found.excess.low,
        excess_high=found.excess.high,
        excess_p=found.excess_p,
        excess_q=None,
        **entropy,
    )


def _crossed(
    clean: np.ndarray,
    edited: np.ndarray,
    control: np.ndarray,
    groups: np.ndarray,
    settings: dict[str, int],
) -> _Changes:
    """Draws that all examples share, and one run of the intervention."""
    paired = paired_accuracy_change(clean, edited[0], groups, **settings)
    top = 100.0 * (edited[0].astype(float) - clean)
    random = 100.0 * (control.astype(float) - clean)
    beside, excess = over_images_and_draws(
        top, random, groups, settings["seed"], settings["n_resamples"]
    )
    return _Changes(
        paired.change,
        paired.p_value,
        beside,
        excess,
        rank_p(float(top.mean()), random.mean(axis=1)),
    )


def _curve_p(clean: np.ndarray, top: np.ndarray, random: np.ndarray) -> float:
    """The rank of the top's mean change over k [k, example] among the draws' [k, draw, example]."""
    changes = random.mean(axis=(0, 2)) - clean.mean()
    return rank_p(float(top.mean() - clean.mean()), changes)


def _own(
    clean: np.ndarray,
    edited: np.ndarray,
    control: np.ndarray,
    groups: np.ndarray,
    settings: dict[str, int],
) -> _Changes:
    """Draws that are each example's own."""
    found = drawn_accuracy_change(clean, edited, control, groups, **settings)
    return _Changes(
        found.change.change,
        found.change.p_value,
        found.control.change,
        found.excess.change,
        found.excess.p_value,
    )


def _adjusted(rows: list[CausalRow]) -> tuple[CausalRow, ...]:
    found: list[CausalRow] = []
    for family in dict.fromkeys(row.family for row in rows):
        mine = [row for row in rows if row.family == family]
        q = benjamini_hochberg(np.array([row.p for row in mine], dtype=float))
        excess_q = benjamini_hochberg(np.array([row.excess_p for row in mine], dtype=float))
        found += [
            replace(row, q=float(a), excess_q=float(b))
            for row, a, b in zip(mine, q, excess_q, strict=True)
        ]
    return tuple(found)
