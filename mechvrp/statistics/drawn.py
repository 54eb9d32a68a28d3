"""The change that an intervention with random draws makes to accuracy, beside a control with draws.

For draws that belong to examples (noise, random masks): each example has its own, so that resampling
images resamples the draws with them. Draws that all examples share (random sets of units) are another
matter: there images and draws are crossed (``mechvrp.circuits.analyse_ablation``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from mechvrp.errors import ShapeError
from mechvrp.statistics.bootstrap import group_bootstrap, weighted_mean
from mechvrp.statistics.checks import binary, check_count, group_codes
from mechvrp.statistics.correctness import sign_flips
from mechvrp.statistics.estimate import Estimate, PairedChange, within
from mechvrp.statistics.multiplicity import two_sided_permutation_p

__all__ = ["DrawnChange", "drawn_accuracy_change", "not_narrower"]


@dataclass(frozen=True, slots=True)
class DrawnChange:
    """What an intervention does to accuracy, what its control does, and the difference, in pp.

    Attributes:
        change: of the intervention, mean over its draws, with the p of there being none.
        control: of the control, likewise.
        excess: ``change`` minus ``control``, paired by example.
    """

    change: PairedChange
    control: PairedChange
    excess: PairedChange


def drawn_accuracy_change(
    before: ArrayLike,
    after: ArrayLike,
    control: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n_permutations: int = 10_000,
    seed: int = 0,
    **settings: Any,
) -> DrawnChange:
    """Accuracy after minus before on the same questions, and the same for a control.

    With one draw ``change`` is what ``paired_accuracy_change`` gives. With several, an example's change is
    the mean over its draws. The interval is a bootstrap by group, and nowhere narrower than that of Bonett
    and Price (2012), which counts one more example gained and one more lost; it ends at -100 and 100.
    p is of flipping the sign of whole groups at random.

    Args:
        before: ``[n]``, 0 or 1: right without the intervention.
        after: ``[draw, n]``, 0 or 1: right with it. Draws are each example's own.
        control: ``[draw, n]``, likewise; it may have another number of draws.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        n_permutations: of the test; the smallest p it can give is 2 / (n_permutations + 1).
        seed: of resampling and permutation.
        settings: ``n_resamples`` and ``level`` of ``group_bootstrap``.

    Raises:
        ShapeError: not [draw, n] with at least one draw.
        InputError: values other than 0 and 1, fewer than two groups, or unusable settings.
    """
    first = binary(before, "before")
    runs = {
        name: _draws(value, len(first), name)
        for name, value in (("after", after), ("control", control))
    }
    check_count(n_permutations, "n_permutations")
    a, b = (len(runs[name]) for name in ("after", "control"))
    # Whole numbers, counted over draws: permuted sums that are equal compare as equal.
    total = {name: value.sum(0, dtype=np.int64) for name, value in runs.items()}
    start = first.astype(np.int64)
    made = {
        "change": (total["after"] - a * start, a),
        "control": (total["control"] - b * start, b),
        "excess": (b * total["after"] - a * total["control"], a * b),
    }
    found = {
        name: _paired(values, scale, groups, n_permutations, seed, settings)
        for name, (values, scale) in made.items()
    }
    return DrawnChange(**found)


def _draws(given: ArrayLike, n: int, name: str) -> NDArray[np.bool_]:
    values = np.asarray(given)
    if values.ndim != 2 or values.shape[1] != n or not len(values):
        raise ShapeError(
            f"{name} has shape {values.shape}; expected [draw, {n}], at least one draw"
        )
    return binary(values.ravel(), name).reshape(values.shape)


def _paired(
    values: NDArray[np.int64],
    scale: int,
    groups: ArrayLike | None,
    n_permutations: int,
    seed: int,
    settings: dict[str, Any],
) -> PairedChange:
    share = values / scale
    found = group_bootstrap(
        weighted_mean,
        100.0 * share,
        groups=groups,
        seed=seed,
        interval="t",
        weighted=True,
        **settings,
    )
    found = within(not_narrower(found, share), -100.0, 100.0)
    codes, n_groups = group_codes(groups, len(values))
    sums = np.zeros(n_groups, dtype=np.int64)
    np.add.at(sums, codes, values)
    null = sign_flips(sums[sums != 0], n_permutations, seed)
    return PairedChange(found, two_sided_permutation_p(float(sums.sum()), null))


def not_narrower(found: Estimate, share: NDArray[np.float64]) -> Estimate:
    """Bonett and Price's floor, with an example's change as a share: one more of +1 and of -1."""
    n = len(share) + 2
    centre, square = share.sum() / n, (np.square(share).sum() + 2) / n
    reach = float(norm.ppf((1 + found.level) / 2)) * np.sqrt((square - centre**2) / n)
    low, high = float(100 * max(-1.0, centre - reach)), float(100 * min(1.0, centre + reach))
    if low >= found.low and high <= found.high:
        return found
    return replace(
        found,
        low=min(low, found.low),
        high=max(high, found.high),
        method=f"{found.method}, at least Bonett-Price",
    )
