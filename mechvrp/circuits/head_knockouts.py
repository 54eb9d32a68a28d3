"""``knock_out_heads``: whether the heads that a ranking names do move the image to the last position."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from mechvrp.circuits.curves import rank_p
from mechvrp.circuits.ranking import Ranking
from mechvrp.errors import InputError, NumericalError
from mechvrp.models.tokens import integers
from mechvrp.patching.answer_pairs import own_pair
from mechvrp.patching.attention_edges import knockout
from mechvrp.patching.grids import values_of
from mechvrp.patching.interventions import Edits, flatten
from mechvrp.patching.sweeping import sweep
from mechvrp.statistics import (
    DrawnChange,
    Estimate,
    benjamini_hochberg,
    drawn_accuracy_change,
    group_means,
)
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM
    from mechvrp.models.tokens import Positions

__all__ = ["HeadKnockout", "HeadKnockoutPoint", "knock_out_heads"]

_Heads = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class HeadKnockoutPoint:
    """What cutting the last position's attention to the image in the top k heads does.

    Attributes:
        k: heads.
        heads: (layer, head) of each, most important first.
        change: of the logit difference between the clean answer and its runner-up, mean over examples.
        control: the same of the random sets, averaged over them.
        excess: ``change`` minus ``control``, paired.
        sets: random sets run, distinct from the top's.
        exact: whether these are all sets there are.
        p: share of the sets, the top's own among them, that lower the logit difference at least as much.
        q: the same, Benjamini-Hochberg over k.
        accuracy: changes of accuracy; None where samples have no right answers.
    """

    k: int
    heads: tuple[tuple[int, int], ...]
    change: Estimate
    control: Estimate
    excess: Estimate
    sets: int
    exact: bool
    p: float
    q: float
    accuracy: DrawnChange | None


@dataclass(frozen=True)
class HeadKnockout:
    """What `knock_out_heads` found.

    Attributes:
        model: its name.
        method: how the heads were ranked.
        points: one per k.
        seed: of draws and resampling.
    """

    model: str
    method: str
    points: tuple[HeadKnockoutPoint, ...]
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """One row per k.

        Columns: k, heads; change, control and excess of the logit difference, accuracy, accuracy_control and
        accuracy_excess in percentage points (NaN: no right answers), each with ``_low`` and ``_high``; p, q,
        accuracy_p; sets, exact, n, n_groups.
        """
        return pd.DataFrame([_row(point) for point in self.points])

    def plot(self) -> Any:
        """The curve as a plotly figure (`mechvrp.plots.head_knockout_curve`)."""
        from mechvrp.plots import head_knockout_curve

        return head_knockout_curve(self)


def knock_out_heads(
    model: VLM,
    samples: Sequence[Sample],
    ranking: Ranking,
    ks: Sequence[int] = (1, 2, 4),
    *,
    key: Positions = "image",
    sign: Literal["any", "for", "against"] = "for",
    draws: int = 200,
    reading: Literal["official", "strict"] = "strict",
    seed: int = 0,
    n_resamples: int = 2000,
    batch_size: int = 32,
    progress: bool = False,
    force: bool = False,
) -> HeadKnockout:
    """Cut the last position's attention to the image in the top heads, and in as many random ones.

    Random sets have as many heads of each layer as the top has there. Where there are no more such sets than
    ``draws``, all of them are run, and p is exact; it is never below one over the number of sets. What a head
    no longer sees is made up for by what it does see, as in every knockout.

    Args:
        model: from ``mechvrp.load``.
        samples: what is asked, about other images than the ranking was made from.
        ranking: of heads, e.g. ``HeadReading.ranking()``.
        ks: numbers of heads, ascending from 1.
        key: what is no longer looked at.
        sign: which heads are the top: those that speak ``"for"`` the answer (whose cut should lower it), those
            ``"against"``, or ``"any"``, by absolute score.
        draws: random sets of each size, at most.
        reading: how yes/no answers are read, for accuracy.
        seed, n_resamples: of draws, and of resampling images; the draws are averaged.
        batch_size, progress: of the runs.
        force: run on images the ranking was made from; what comes out is optimistic.

    Raises:
        InputError: a ranking of other units or of these images, ``ks`` that do not fit it, or samples of one
            image.
        NumericalError: a knockout gave no logits.
    """
    if ranking.kind != "head":
        raise InputError(f"knock_out_heads takes a ranking of heads; got {ranking!r}")
    ranking.check(model, samples, force=force)
    sizes = list(integers("ks", ks))
    if (
        not sizes
        or sizes != sorted(set(sizes))
        or not 1 <= sizes[0] <= sizes[-1] <= len(ranking.scores)
    ):
        raise InputError(f"ks must ascend within 1 to {len(ranking.scores)}; got {list(ks)}")
    if draws < 1:
        raise InputError(f"draws={draws}; expected at least 1")
    orders = {"any": ranking.top, "for": ranking.positive, "against": ranking.bottom}
    if sign not in orders:
        raise InputError(f"sign is one of {', '.join(orders)}; got {sign!r}")
    groups = np.array([sample.image_id for sample in samples])
    if len(set(groups.tolist())) < 2:
        raise InputError("intervals resample images: give samples of at least two")
    tops = {k: _named(ranking, orders[sign](k)) for k in sizes}
    beside = {k: _beside(model, tops[k], draws, seed) for k in sizes}
    wanted = list(dict.fromkeys(frozenset(tops[k]) for k in sizes))
    wanted = list(dict.fromkeys([*wanted, *(one for k in sizes for one in beside[k][0])]))
    clean, values = _run(model, samples, wanted, key, reading, batch_size, progress)
    place = {heads: i for i, heads in enumerate(wanted)}
    settings = {"seed": seed, "n_resamples": n_resamples}
    found = []
    for k in sizes:
        top = place[frozenset(tops[k])]
        sets, exact = beside[k]
        others = [place[one] for one in sets]
        found.append(_point(k, tops[k], clean, values, top, others, exact, groups, settings))
    adjusted = benjamini_hochberg(np.array([point[1] for point in found]))
    points = tuple(
        HeadKnockoutPoint(**fields, p=p, q=float(q))
        for (fields, p), q in zip(found, adjusted, strict=True)
    )
    return HeadKnockout(model.name, ranking.method, points, seed)


def _named(ranking: Ranking, rows: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """(layer, head) of rows of a ranking."""
    layers = [Site.parse(site).layer or 0 for site in ranking.sites]
    return tuple((layers[ranking.places[row]], int(ranking.units[row])) for row in rows)


def _beside(
    model: VLM, top: Sequence[tuple[int, int]], draws: int, seed: int
) -> tuple[list[_Heads], bool]:
    """Distinct sets with as many heads of each layer, other than the top's; and whether they are all."""
    counts: dict[int, int] = {}
    for layer, _ in top:
        counts[layer] = counts.get(layer, 0) + 1
    number = math.prod(math.comb(model.n_heads, count) for count in counts.values())
    own = frozenset(top)
    if number - 1 <= draws:
        chosen = (itertools.combinations(range(model.n_heads), count) for count in counts.values())
        every = (
            frozenset(
                (layer, head) for layer, heads in zip(counts, one, strict=True) for head in heads
            )
            for one in itertools.product(*chosen)
        )
        return [heads for heads in every if heads != own], True
    rng = np.random.default_rng([seed, 6, len(top)])
    drawn: dict[_Heads, None] = {}
    while len(drawn) < draws:
        one = frozenset(
            (layer, int(head))
            for layer, count in counts.items()
            for head in rng.choice(model.n_heads, count, replace=False)
        )
        if one != own:
            drawn[one] = None
    return list(drawn), False


def _run(
    model: VLM,
    samples: Sequence[Sample],
    sets: Sequence[_Heads],
    key: Positions,
    reading: Literal["official", "strict"],
    batch_size: int,
    progress: bool,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Measures without any cut ``[example]``, and with each set's ``[set, example]``."""
    scored = all(sample.answer.strip() for sample in samples)
    measures = ["logit_diff", *(["correct"] if scored else [])]
    clean: dict[str, list[np.ndarray]] = {name: [] for name in measures}
    values: dict[str, list[np.ndarray]] = {name: [] for name in measures}
    for chunk in in_batches(samples, batch_size, progress, "knocking out heads"):
        batch = model.encode(chunk)
        token, foil = own_pair(model, values_of(model, batch, [])[1])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*variants have no values")
            found = sweep(
                model,
                batch,
                [_edits(heads, key) for heads in sets],
                measures,
                target=token.tolist(),
                foil=foil.tolist(),
                reading=reading,
                progress=False,
            )
        if failed := [str(error) for error in found["error"].values if error]:
            raise NumericalError(f"{len(failed)} of {len(sets)} knockouts failed: {failed[0]}")
        for name in measures:
            clean[name].append(found[f"base_{name}"].values.astype(np.float64))
            values[name].append(found[name].values.astype(np.float64))
    return (
        {name: np.concatenate(parts) for name, parts in clean.items()},
        {name: np.concatenate(parts, axis=-1) for name, parts in values.items()},
    )


def _edits(heads: _Heads, key: Positions) -> Edits:
    layers = sorted({layer for layer, _ in heads})
    return tuple(
        flatten(
            [
                knockout(
                    layer, query="last", key=key, heads=sorted(h for i, h in heads if i == layer)
                )
                for layer in layers
            ]
        )
    )


def _point(
    k: int,
    top: tuple[tuple[int, int], ...],
    clean: dict[str, np.ndarray],
    values: dict[str, np.ndarray],
    own: int,
    others: list[int],
    exact: bool,
    groups: np.ndarray,
    settings: dict[str, Any],
) -> tuple[dict[str, Any], float]:
    change = values["logit_diff"][own] - clean["logit_diff"]
    drawn = values["logit_diff"][others] - clean["logit_diff"]
    # All heads of every layer the top has some of: there is no other set, and nothing to compare with.
    mean = drawn.mean(axis=0) if len(others) else change
    found = group_means(np.stack([change, mean, change - mean], axis=-1), groups, **settings)
    n, n_groups = len(change), len(np.unique(groups))
    estimates = [
        Estimate(float(m), float(low), float(high), n, n_groups, 0.95, "bootstrap by group")
        for m, low, high in zip(*found, strict=True)
    ]
    accuracy = None
    if "correct" in clean:
        right = values["correct"]
        accuracy = drawn_accuracy_change(
            clean["correct"], right[[own]], right[others or [own]], groups, **settings
        )
    p = rank_p(float(change.mean()), drawn.mean(axis=1)) if len(others) else 1.0
    named = dict(zip(("change", "control", "excess"), estimates, strict=True))
    fields = {"k": k, "heads": top, "sets": len(others), "exact": exact, "accuracy": accuracy}
    return fields | named, p


def _row(point: HeadKnockoutPoint) -> dict[str, Any]:
    row: dict[str, Any] = {"k": point.k}
    row["heads"] = ", ".join(f"{layer}.{head}" for layer, head in point.heads)
    estimates: dict[str, Estimate | None] = {
        "change": point.change,
        "control": point.control,
        "excess": point.excess,
    }
    found = point.accuracy
    estimates["accuracy"] = None if found is None else found.change.change
    estimates["accuracy_control"] = None if found is None else found.control.change
    estimates["accuracy_excess"] = None if found is None else found.excess.change
    for name, estimate in estimates.items():
        row[name] = np.nan if estimate is None else estimate.value
        row[f"{name}_low"] = np.nan if estimate is None else estimate.low
        row[f"{name}_high"] = np.nan if estimate is None else estimate.high
    row |= {"p": point.p, "q": point.q}
    row["accuracy_p"] = np.nan if found is None else found.change.p_value
    row |= {"sets": point.sets, "exact": point.exact}
    return row | {"n": point.change.n, "n_groups": point.change.n_groups}
