"""Rank the units of a site, by the weight a probe gives them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mechvrp.circuits.logistic import FittedProbe
from mechvrp.errors import InputError, NumericalError, SiteError

__all__ = ["Ranking", "rank_by_probe_weight"]

_SITE = re.compile(r"blocks\.(\d+)\.[a-z0-9_.]+")


@dataclass(frozen=True)
class Ranking:
    """Units of one site in order of importance.

    Attributes:
        site: hook name, e.g. ``"blocks.2.hook_resid_post"``.
        layer: the layer in it.
        weights: ``[d]``, signed importance of each unit; the order is by absolute value.
        order: ``[d]``, unit numbers, most important first (of equals, the lower number first).
    """

    site: str
    layer: int
    weights: np.ndarray
    order: np.ndarray

    @property
    def units(self) -> np.ndarray:
        """``[d]``, the unit numbers 0..d-1; `weights`, `signs` and `ranks` are in this order."""
        return np.arange(len(self.weights))

    @property
    def signs(self) -> np.ndarray:
        """``[d]``, +1 where the unit speaks for a right answer, -1 against, 0 neither."""
        return np.asarray(np.sign(self.weights), dtype=np.int64)

    @property
    def ranks(self) -> np.ndarray:
        """``[d]``, rank of each unit; 0 is the most important."""
        ranks = np.empty(len(self.order), dtype=np.int64)
        ranks[self.order] = np.arange(len(self.order))
        return ranks

    def top(self, k: int) -> np.ndarray:
        """The ``k`` most important units, most important first."""
        return self.order[: self._checked(k)].copy()

    def bottom(self, k: int) -> np.ndarray:
        """The ``k`` least important units, least important first."""
        return self.order[::-1][: self._checked(k)].copy()

    def random(self, k: int, draws: int, seed: int) -> np.ndarray:
        """Random units ``[draws, k]``, each draw without replacement, from all units of the site.

        Draw ``i`` is the beginning of one permutation that depends on ``seed`` and ``i`` only. So
        within a draw the sets are nested (the k = 5 units are among the k = 10 units, as `top`'s
        are), draws are independent of each other, and asking for more draws changes none.

        Raises:
            InputError: ``k`` is outside 0..d, or ``draws`` is not positive.
        """
        self._checked(k)
        if draws < 1:
            raise InputError(f"draws={draws}; expected at least 1")
        d = len(self.order)
        return np.stack([np.random.default_rng([seed, i]).permutation(d)[:k] for i in range(draws)])

    def to_frame(self) -> pd.DataFrame:
        """One row per unit, most important first: rank, unit, weight, sign, site, layer."""
        return pd.DataFrame(
            {
                "rank": np.arange(len(self.order)),
                "unit": self.order,
                "weight": self.weights[self.order],
                "sign": self.signs[self.order],
                "site": self.site,
                "layer": self.layer,
            }
        )

    def _checked(self, k: int) -> int:
        if not 0 <= k <= len(self.order):
            raise InputError(f"k={k}; this site has {len(self.order)} units, expected 0 to that")
        return k


def rank_by_probe_weight(probe: FittedProbe, site: str) -> Ranking:
    """Rank a site's units by the absolute weight on the standardised unit; signs are kept.

    The weight on the *standardised* unit is log-odds per standard deviation, so a unit does not
    rank high for being quiet and low for being loud. With correlated units L2 spreads weight among
    them: the ranking says what this probe reads, not what is necessary.

    Args:
        probe: the probe fitted at ``site``.
        site: hook name of the site its features came from, ``"blocks.<layer>.hook_resid_post"``.

    Raises:
        SiteError: ``site`` is not the hook name of a place in a block.
        NumericalError: the probe's weights are not finite.
    """
    found = _SITE.fullmatch(site)
    if not found:
        raise SiteError(
            f"site {site!r} is not a hook name in a block; expected one like "
            "'blocks.2.hook_resid_post'"
        )
    weights = np.asarray(probe.coef, dtype=np.float64).copy()
    if not np.isfinite(weights).all():
        raise NumericalError(f"the probe at {site} has weights that are NaN or infinite")
    order = np.argsort(-np.abs(weights), kind="stable")
    return Ranking(site, int(found[1]), weights, order)
