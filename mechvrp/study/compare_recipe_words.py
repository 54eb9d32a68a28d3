"""Statements about a recipe: they rest on checkpoints that differ by their training seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mechvrp.plots.directions import isolated
from mechvrp.study.compare_causal import CONTROL, late_noise, noise_amount, top_masked
from mechvrp.study.compare_phrases import Ends, against, enough, plain_name, rarer, shown_ends
from mechvrp.study.compare_pools import PooledRow
from mechvrp.study.compare_units import Unit
from mechvrp.study.report_words import Finding

__all__ = ["recipe_findings"]

_ALPHA = 0.05
#: Signals, and the measures that say something of them, the first that exists.
_SIGNALS = (
    ("cluster_count", ("AUROC within tasks", "R")),
    ("spatial_entropy_normalised", ("AUROC within tasks", "R")),
    ("self_consistency", ("AUROC within tasks", "AUROC")),
    ("probe", ("AUROC within tasks", "AUROC")),
)
_WORDS = {"R": "R", "AUROC": "AUROC", "AUROC within tasks": "AUROC within tasks", "pp": "change"}


def recipe_findings(
    units: Sequence[Unit], pooled: Sequence[PooledRow], recipes: Mapping[str, Sequence[str]]
) -> tuple[Finding, ...]:
    """One finding for each recipe, data set and quantity that all was measured for.

    Two things vary: which seed was trained, and which images were shown. Random effects cover the first and
    take seeds as independent, though all were shown the same images; the stratified interval covers the
    second (or, for changes of accuracy, the widest one that any dependence can give).
    Both must exclude no effect.
    """
    found = []
    own = {(r.recipe, r.data, r.quantity, r.measure): r for r in pooled if r.recipe}
    for recipe, data in dict.fromkeys((r.recipe, r.data) for r in pooled if r.recipe):
        here = [u for u in units if u.data == data and u.model in recipes[recipe]]
        for quantity, measures in (*_SIGNALS, *((change, ("pp",)) for change in _changes(here))):
            rows = [own.get((recipe, data, quantity, measure)) for measure in measures]
            row = next((r for r in rows if r is not None and r.random is not None), None)
            if row is not None:
                split = "heldout" if quantity == "probe" else None
                n_rarer = rarer(here, split) if row.measure != "pp" else None
                found.append(_finding(row, n_rarer))
    return tuple(found)


def _changes(units: Sequence[Unit]) -> list[str]:
    """Changes of accuracy by the names and amounts of these seeds' own rows."""
    masked = dict.fromkeys(row.name for unit in units for row in top_masked(unit))
    amounts = dict.fromkeys(noise_amount(unit) for unit in units)
    found = [name for top in masked for name in (top, f"{top}: minus {CONTROL['mean']}")]
    for amount in amounts:
        if amount is not None:
            found.append(f"{late_noise(amount)}: minus {CONTROL['noise']}")
    return found


def _finding(row: PooledRow, n_rarer: int | None) -> Finding:
    null = 0.5 if row.measure.startswith("AUROC") else 0.0
    kind = "AUROC" if row.measure.startswith("AUROC") else row.measure
    seeds = _ends(row.random, row.random_low, row.random_high)
    if row.measure == "pp":
        images = _ends(row.fixed, row.bound_low, row.bound_high)
        how = "at the widest that shared images can make it"
    else:
        images = _ends(row.stratified, row.stratified_low, row.stratified_high)
        how = "with each image resampled in all seeds at once"
    text = (
        f"The recipe {isolated(row.recipe)} ({row.members} training seeds) on {isolated(row.data)}: "
        f"{_WORDS[row.measure]} of {plain_name(row.quantity)}"
    )
    if seeds is None or images is None:
        return Finding("inconclusive", f"{text}: no interval could be made ({row.gap}).")
    verdicts = [against(ends, null)[0] for ends in (seeds, images)]
    same_side = (seeds[0] > null) == (images[0] > null)
    verdict = verdicts[0] if len(set(verdicts)) == 1 and same_side else "inconclusive"
    words = (
        f"not both exclude {null:g}, so inconclusive"
        if verdict == "inconclusive"
        else f"both exclude {null:g}"
    )
    text += (
        f" is {shown_ends(kind, seeds)} by random effects over the seeds, and {shown_ends(kind, images)} "
        f"{how}: {words}.{_differ(row)} The first interval is by Student's t with "
        f"{row.members - 1} {'degree' if row.members == 2 else 'degrees'} of freedom."
    )
    if n_rarer is not None:
        verdict, text = enough(verdict, text, n_rarer)
    return Finding(verdict, text)


def _ends(value: float | None, low: float | None, high: float | None) -> Ends | None:
    return None if value is None or low is None or high is None else (value, low, high)


def _differ(row: PooledRow) -> str:
    p = row.p_heterogeneity if row.p_joint is None else row.p_joint
    if p is None:
        return ""
    if p <= _ALPHA:
        return f" The seeds differ from each other (p = {p:.2g})."
    return f" That the seeds differ is not shown (p = {p:.2g})."
