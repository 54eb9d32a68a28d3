"""What is pooled, and what a pooled figure holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mechvrp.study.compare_units import Unit, shared_images

__all__ = ["Pool", "PooledRow", "assumptions", "make_pools"]


@dataclass(frozen=True)
class Pool:
    """Units whose figures are pooled.

    Attributes:
        name: what is pooled, in words.
        data: the data set, or ``"all data"``.
        units: two or more.
        recipe: name of the recipe whose training seeds these are, else "".
        gap: why they must not be pooled, else "".
    """

    name: str
    data: str
    units: tuple[Unit, ...]
    recipe: str = ""
    gap: str = ""


@dataclass(frozen=True)
class PooledRow:
    """One figure over a pool.

    Attributes:
        pool, data, recipe: of the `Pool`; ``members``: units in it that have this figure.
        quantity: signal or measure; ``kind``: what it is of; ``uses_label``: it describes, and cannot predict.
        measure: ``"R"``, ``"AUROC"``, ``"AUROC within tasks"``, ``"pp"`` or ``"AUROC difference"``.
        n, n_images, n_shared: rows, images, and images that are in several units.
        fixed, random: with 95 % intervals, as if estimates were independent; the second is Hartung and
            Knapp's.
        cochran_q, df, p_heterogeneity, q_heterogeneity, i_squared, tau_squared: likewise; q is Benjamini
            and Hochberg's over the pool's quantities of this measure.
        bound_low, bound_high: of the fixed effect of changes and differences, the widest interval that any
            dependence between the estimates can give (as if all erred together).
        stratified: over rows, compared within each checkpoint only, images resampled in all at once.
        hotelling, p_joint, q_joint: test that all have the same figure, likewise.
        assumes: what the first needs and whether that holds.
        gap: what could not be made, and why.
    """

    pool: str
    data: str
    recipe: str
    members: int
    quantity: str
    kind: str
    uses_label: bool
    measure: str
    n: int | None = None
    n_images: int | None = None
    n_shared: int | None = None
    fixed: float | None = None
    fixed_low: float | None = None
    fixed_high: float | None = None
    bound_low: float | None = None
    bound_high: float | None = None
    random: float | None = None
    random_low: float | None = None
    random_high: float | None = None
    cochran_q: float | None = None
    df: int | None = None
    p_heterogeneity: float | None = None
    q_heterogeneity: float | None = None
    i_squared: float | None = None
    tau_squared: float | None = None
    stratified: float | None = None
    stratified_low: float | None = None
    stratified_high: float | None = None
    hotelling: float | None = None
    p_joint: float | None = None
    q_joint: float | None = None
    assumes: str = ""
    gap: str = ""


def make_pools(units: Sequence[Unit], recipes: Mapping[str, Sequence[str]]) -> tuple[Pool, ...]:
    """Models on each data set, everything on all of them, and the training seeds of each recipe."""
    pools: list[Pool] = []
    data = list(dict.fromkeys(unit.data for unit in units))
    for name in data:
        pools += _pool("all checkpoints", name, [u for u in units if u.data == name])
    if len(data) > 1:
        pools += _pool("all checkpoints", "all data", units)
    for recipe, members in recipes.items():
        own = [unit for unit in units if unit.model in members]
        for name in data:
            here = [u for u in own if u.data == name]
            pools += _pool(f"training seeds of {recipe}", name, here, recipe)
    return tuple(pools)


def _pool(name: str, data: str, units: Sequence[Unit], recipe: str = "") -> list[Pool]:
    if len(units) < 2:
        return []
    rules = list(dict.fromkeys(unit.section.label_rule for unit in units))
    gap = ""
    if len(rules) > 1:
        gap = (
            "not pooled: what counts as a right answer differs between these runs ("
            + " / ".join(rules)
            + "), so their figures stand side by side only"
        )
    return [Pool(name, data, tuple(units), recipe, gap)]


def assumptions(units: Sequence[Unit]) -> str:
    """What fixed and random effects need, and whether these units give it."""
    total, shared = shared_images(units)
    if not shared:
        return "fixed and random effects and Q take estimates as independent; no image is shared"
    return (
        f"fixed and random effects and Q take estimates as independent, but {shared} of {total} images are "
        "in several of them; the stratified estimate and the joint test resample an image in all at once"
    )
