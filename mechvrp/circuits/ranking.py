"""``Ranking``: units in order of importance, whatever the method that ordered them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mechvrp.circuits.image_groups import images_of
from mechvrp.circuits.setting_checks import check_weights
from mechvrp.circuits.units import UnitKind, edit_units, kind_of, units_at
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.patching.interventions import Edits, flatten
from mechvrp.statistics.checks import numbers
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from mechvrp.circuits.agreement import Agreement
    from mechvrp.data import Sample
    from mechvrp.models import VLM
    from mechvrp.models.tokens import Positions

__all__ = ["Ranking"]

#: Columns of every ranking's table.
_FRAME = {"rank", "unit", "score", "sign", "low", "high", "site", "layer", "kind"}


@dataclass(frozen=True, eq=False)
class Ranking:
    """Units of one site, or of one component at several layers, in order of importance.

    Every unit is a row: all units of the first site, then of the next. Of a single site the row is the
    unit's number.

    Attributes:
        sites: hook names, e.g. ``("blocks.2.hook_resid_post",)``; all of one kind of units.
        scores: ``[row]``, signed: above 0 the unit speaks for a right answer (or for what the method
            measures), below 0 against it. Importance is the absolute value.
        method: how the scores were made, in a few words.
        low, high: ``[row]``, an interval of each score over folds of the cross-validation; None where
            the method has none.
        model: name of the model; "" if unknown.
        fingerprint: of its weights; "" if unknown. A ranking of other weights is refused.
        images: ids of the images it was made from, and of those that these were made from; evaluating on
            them, or on what was made from them, is refused.
        settings: what the method was asked for and chose.
        columns: ``[row]`` by name, what else the method knows of each unit (p-values, for example).
        ties: ``[row]``: of rows of equal importance the one of the higher value comes first. None: the
            lower row does.
    """

    sites: tuple[str, ...]
    scores: np.ndarray
    method: str = "given scores"
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    model: str = ""
    fingerprint: str = ""
    images: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    ties: np.ndarray | None = None

    def __post_init__(self) -> None:
        if isinstance(self.sites, str) or not isinstance(self.sites, Sequence) or not self.sites:
            raise InputError(f"sites is a tuple of hook names, at least one; got {self.sites!r}")
        kinds = {kind_of(Site.parse(site)) for site in self.sites}
        parts = {Site.parse(site).component for site in self.sites}
        if len(parts) > 1 or len(set(self.sites)) != len(self.sites):
            raise InputError(
                f"a ranking is of one component at different layers; got {', '.join(self.sites)} "
                f"({', '.join(sorted(kinds))})"
            )
        scores = numbers(self.scores, "scores")
        if scores.ndim != 1 or not len(scores) or len(scores) % len(self.sites):
            raise ShapeError(
                f"scores of shape {scores.shape}; expected one for each unit of {len(self.sites)} sites"
            )
        if not np.isfinite(scores).all():
            raise NumericalError(
                f"{self.method} at {', '.join(self.sites)}: {int((~np.isfinite(scores)).sum())} of "
                f"{len(scores)} scores are NaN or infinite"
            )
        object.__setattr__(self, "scores", scores)
        if (self.low is None) != (self.high is None):
            raise InputError("an interval has two ends: give both low and high, or neither")
        for name in ("low", "high"):
            end = getattr(self, name)
            if end is not None:
                end = numbers(end, name)
                if end.shape != scores.shape:
                    raise ShapeError(f"{name} of shape {end.shape}; expected {scores.shape}")
                object.__setattr__(self, name, end)
        for name in ("columns", "settings"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(f"{name} holds values by name; got {getattr(self, name)!r:.60}")
        if isinstance(self.images, str):
            raise InputError(f"images is a set of image ids; got {self.images!r:.60}")
        if taken := sorted(_FRAME & self.columns.keys()):
            raise InputError(f"a column cannot be called {taken[0]!r}: to_frame has one of its own")
        others = dict(self.columns) | ({} if self.ties is None else {"ties": self.ties})
        for name, values in others.items():
            if np.shape(values) != scores.shape:
                raise ShapeError(f"{name} of shape {np.shape(values)}; expected {scores.shape}")
        object.__setattr__(self, "columns", {k: np.asarray(v) for k, v in self.columns.items()})
        if self.ties is not None:
            object.__setattr__(self, "ties", np.asarray(self.ties, dtype=np.float64))

    @property
    def kind(self) -> UnitKind:
        """What the units are."""
        return kind_of(Site.parse(self.sites[0]))

    @property
    def width(self) -> int:
        """Units of each site."""
        return len(self.scores) // len(self.sites)

    @property
    def site(self) -> str:
        """The hook name, of a ranking of one site.

        Raises:
            InputError: it is of several.
        """
        if len(self.sites) != 1:
            raise InputError(f"this ranking is of {len(self.sites)} sites: {', '.join(self.sites)}")
        return self.sites[0]

    @property
    def layer(self) -> int | None:
        """The layer of a ranking of one site; None where it lies in no layer."""
        return Site.parse(self.site).layer

    @property
    def units(self) -> np.ndarray:
        """``[row]``, the number of each unit within its site."""
        return np.tile(np.arange(self.width), len(self.sites))

    @property
    def places(self) -> np.ndarray:
        """``[row]``, which of ``sites`` each unit is of."""
        return np.repeat(np.arange(len(self.sites)), self.width)

    @property
    def order(self) -> np.ndarray:
        """``[row]``, rows by importance, most important first; of equals as ``ties`` says."""
        return self._descending(np.abs(self.scores))

    @property
    def signs(self) -> np.ndarray:
        """``[row]``, +1 where the unit speaks for a right answer, -1 against, 0 neither."""
        return np.asarray(np.sign(self.scores), dtype=np.int64)

    @property
    def ranks(self) -> np.ndarray:
        """``[row]``, rank of each unit; 0 is the most important."""
        ranks = np.empty(len(self.scores), dtype=np.int64)
        ranks[self.order] = np.arange(len(self.scores))
        return ranks

    def top(self, k: int) -> np.ndarray:
        """Rows of the ``k`` most important units, most important first."""
        return self.order[: self._checked(k)].copy()

    def least(self, k: int) -> np.ndarray:
        """Rows of the ``k`` least important units, least important first."""
        return self.order[::-1][: self._checked(k)].copy()

    def positive(self, k: int) -> np.ndarray:
        """Rows of the ``k`` units of highest score: those that speak most for a right answer."""
        return self._descending(self.scores)[: self._checked(k)]

    def bottom(self, k: int) -> np.ndarray:
        """Rows of the ``k`` units of lowest score: those that speak most against a right answer."""
        return self._descending(-self.scores)[: self._checked(k)]

    def random(self, k: int, draws: int, seed: int) -> np.ndarray:
        """Rows of random units ``[draws, k]``: of each site as many as the top ``k`` has there.

        Each draw is without replacement, and depends on ``seed`` and its number only: it begins a
        permutation of each site's units. So within a draw the sets are nested (the k = 5 units are
        among the k = 10 units, as `top`'s are), draws are independent of each other, and asking for
        more draws changes none.

        Raises:
            InputError: ``k`` is outside 0..rows, or ``draws`` is not positive.
        """
        places = self.places[self.top(k)]
        if draws < 1:
            raise InputError(f"draws={draws}; expected at least 1")
        counts = np.bincount(places, minlength=len(self.sites))
        starts = self.width * np.arange(len(self.sites))
        found = np.empty((draws, k), dtype=np.int64)
        for i in range(draws):
            rng = np.random.default_rng([seed, i])
            shuffled = [start + rng.permutation(self.width) for start in starts]
            # In the order in which the top's units come from the sites, so that sets are nested.
            taken = [iter(rows[:count]) for rows, count in zip(shuffled, counts, strict=True)]
            found[i] = [next(taken[place]) for place in places]
        return found

    def edits(
        self,
        rows: Iterable[int],
        values: Mapping[str, torch.Tensor] | torch.Tensor | None = None,
        *,
        positions: Positions | None = None,
    ) -> Edits:
        """Interventions that set these units to zero, or to values.

        Args:
            rows: of the units.
            values: what broadcasts to each site's value, by site (or for the one site); None: zero.
            positions: as ``mechvrp.zero``; by default the last prompt token, or all image tokens for image
                features.
        """
        chosen = np.asarray(list(rows), dtype=np.int64)
        found: list[Edits] = []
        for place in np.unique(self.places[chosen]):
            site = self.sites[place]
            units = self.units[chosen[self.places[chosen] == place]]
            value = values[site] if isinstance(values, Mapping) else values
            found.append(edit_units(Site.parse(site), units, value, positions=positions))
        return tuple(flatten(found))

    def check(self, model: VLM, samples: Sequence[Sample] = (), *, force: bool = False) -> None:
        """Raise unless the ranking is of this model, and made from other images than these.

        Args:
            model: whose units are to be edited.
            samples: what is to be evaluated on.
            force: evaluate even on images the ranking was made from; what comes out is optimistic.

        Raises:
            SiteError: a layer that the model does not have.
            ShapeError: another number of units.
            InputError: a ranking of other weights, or of the images to be evaluated on.
        """
        for name in self.sites:
            site = Site.parse(name).check(model)
            if units_at(model, site) != self.width:
                raise ShapeError(
                    f"{site} of {model.name} has {units_at(model, site)} units, the ranking {self.width}"
                )
        check_weights(
            model,
            self.fingerprint,
            f"the ranking is of {self.model or 'another model'}",
            "make it from this model's activations",
        )
        shared = self.images & images_of(samples)
        if shared and not force:
            raise InputError(
                f"the ranking was made from {len(shared)} of these images ({', '.join(sorted(shared)[:3])}"
                f"{', ...' if len(shared) > 3 else ''}): what it selects would look better on them than it "
                "is. Evaluate on other images (mechvrp.data splits keep an image on one side), or give "
                "force=True"
            )

    def agreement(self, other: Ranking, **options: Any) -> Agreement:
        """How far another ranking of the same units agrees: ``mechvrp.circuits.ranking_agreement``."""
        from mechvrp.circuits.agreement import ranking_agreement

        return ranking_agreement(self, other, **options)

    def save(self, path: str | Path) -> Path:
        """Write the ranking as one JSON file; `load` gives it back.

        Raises:
            InputError: settings that JSON has no words for, or no such folder.
        """
        from mechvrp.circuits.ranking_files import write_ranking

        return write_ranking(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Ranking:
        """Read a ranking that `save` wrote.

        Raises:
            DataError: no such file, or it is no ranking, or is damaged; the message says what is wrong.
        """
        from mechvrp.circuits.ranking_files import read_ranking

        return read_ranking(path)

    def plot(self, *, top: int | None = None) -> Any:
        """Scores of the top units as a plotly figure (`mechvrp.plots.unit_scores`); by default of 20."""
        from mechvrp.plots import unit_scores

        return unit_scores(self, top=min(20, len(self.scores)) if top is None else top)

    def to_frame(self) -> pd.DataFrame:
        """One row per unit, most important first: rank, unit, score, sign, low, high, site, layer, kind.

        What else the method knows (``columns``) stands behind these.
        """
        order = self.order
        places = self.places[order]
        ends = {
            name: np.full(len(order), np.nan) if end is None else end[order]
            for name, end in (("low", self.low), ("high", self.high))
        }
        return pd.DataFrame(
            {
                "rank": np.arange(len(order)),
                "unit": self.units[order],
                "score": self.scores[order],
                "sign": self.signs[order],
                **ends,
                "site": np.array(self.sites, dtype=object)[places],
                "layer": np.array([Site.parse(s).layer for s in self.sites], dtype=object)[places],
                "kind": self.kind,
                **{name: values[order] for name, values in self.columns.items()},
            }
        )

    def __repr__(self) -> str:
        where = (
            self.sites[0]
            if len(self.sites) == 1
            else f"{self.sites[0]} and {len(self.sites) - 1} more"
        )
        return f"Ranking({len(self.scores)} units ({self.kind}) of {where}, by {self.method})"

    def _descending(self, values: np.ndarray) -> np.ndarray:
        """Rows by value, highest first; of equals as ``ties`` says, then the lower row."""
        if self.ties is None:
            return np.argsort(-values, kind="stable")
        return np.lexsort((-self.ties, -values))

    def _checked(self, k: int) -> int:
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise InputError(f"k={k!r:.60}; expected a whole number of units")
        if not 0 <= k <= len(self.scores):
            raise InputError(
                f"k={k}; this ranking has {len(self.scores)} units, expected 0 to that"
            )
        return k
