"""McNemar's test of answers that changed, for one question an image."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from mechvrp.errors import InputError
from mechvrp.statistics.checks import binary, require_one_row_each

__all__ = ["McNemar", "mcnemar"]


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's test.

    Attributes:
        gained: rows wrong before and right after.
        lost: rows right before and wrong after.
        n: rows.
        statistic: chi-squared with one degree of freedom; None of the exact test.
        p_value: two-sided, of gains and losses being equally likely.
    """

    gained: int
    lost: int
    n: int
    statistic: float | None
    p_value: float

    def __str__(self) -> str:
        return f"{self.gained} gained, {self.lost} lost of {self.n}, p = {self.p_value:.3g}"


def mcnemar(
    before: ArrayLike, after: ArrayLike, groups: ArrayLike | None, *, exact: bool = True
) -> McNemar:
    """Did more answers turn wrong than right (or the reverse)? McNemar's test.

    ``statsmodels.stats.contingency_tables.mcnemar``. Rows are taken as independent, so data in which
    an image has several questions are refused; :func:`paired_accuracy_change` is for those.

    Args:
        before: ``[n]``, 0 or 1: right without the intervention.
        after: ``[n]``, 0 or 1: right with it, in the same order.
        groups: ``[n]`` image of each row, to be sure that none occurs twice; ``None`` says so.
        exact: the binomial test; otherwise chi-squared with continuity correction (McNemar 1947),
            for 25 changed answers or more.

    Raises:
        InputError: lengths differ, an image has several rows, or no answer changed and the test is
            not exact.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    first, second = binary(before, "before"), binary(after, "after")
    if len(first) != len(second):
        raise InputError(f"before has {len(first)} rows and after {len(second)}: not the same data")
    n = len(first)
    require_one_row_each(
        groups, n, "McNemar's test", "use paired_accuracy_change, which flips whole images"
    )
    gained, lost = int((~first & second).sum()), int((first & ~second).sum())
    if not exact and gained + lost == 0:
        raise InputError("no answer changed, so chi-squared is undefined: use exact=True")
    table = [[int((first & second).sum()), lost], [gained, int((~first & ~second).sum())]]
    found = test(table, exact=exact, correction=True)
    statistic = None if exact else float(found.statistic)
    return McNemar(gained, lost, n, statistic, float(found.pvalue))
