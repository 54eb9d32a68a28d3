"""``knock_out_heads``: whether the heads that a ranking names do move the image to the last position."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mechvrp.circuits.curves import rank_p
from mechvrp.circuits.drawn_controls import against_draws, mean_change
from mechvrp.circuits.flow_checks import check_positions
from mechvrp.circuits.head_knockout_results import (
    HeadKnockout,
    HeadKnockoutPoint,
    HeadSign,
    Tail,
)
from mechvrp.circuits.ranking import Ranking
from mechvrp.circuits.sample_checks import of_two_images
from mechvrp.circuits.setting_checks import check_model, check_reading, check_settings, whole
from mechvrp.errors import InputError, NumericalError
from mechvrp.models.tokens import integers
from mechvrp.patching.answer_pairs import own_pair
from mechvrp.patching.attention_edges import knockout
from mechvrp.patching.grids import values_of
from mechvrp.patching.interventions import Edits, flatten
from mechvrp.patching.sweeping import sweep
from mechvrp.statistics import benjamini_hochberg, paired_accuracy_change
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM
    from mechvrp.models.tokens import Positions

__all__ = ["knock_out_heads"]

_Heads = frozenset[tuple[int, int]]


_TAILS: dict[HeadSign, Tail] = {"for": "lower", "against": "upper", "any": "two-sided"}


def knock_out_heads(
    model: VLM,
    samples: Sequence[Sample],
    ranking: Ranking,
    ks: Sequence[int] = (1, 2, 4),
    *,
    key: Positions = "image",
    sign: HeadSign = "for",
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
    ``draws``, all of them are run, and p is exact; it is never below one over the number of sets (two over it
    for ``sign="any"``). What a head no longer sees is made up for by what it does see, as in every knockout.

    Args:
        model: from ``mechvrp.load``.
        samples: what is asked, about other images than the ranking was made from.
        ranking: of heads, e.g. ``HeadReading.ranking()``.
        ks: numbers of heads, ascending from 1.
        key: what is no longer looked at.
        sign: which heads are the top: those that speak ``"for"`` the answer (whose cut should lower it), those
            ``"against"`` (whose cut should raise it), or ``"any"``, by absolute score. p is of that side: of
            changes as low, as high, or twice the smaller of the two.
        draws: random sets of each size, at most.
        reading: how yes/no answers are read, for accuracy.
        seed, n_resamples: of draws, and of resampling images; the control's intervals resample the random
            sets as well, unless all there are were run.
        batch_size, progress: of the runs.
        force: run on images the ranking was made from; what comes out is optimistic.

    Raises:
        InputError: a ranking of other units or of these images, ``ks`` that do not fit it or are more than
            its heads of that sign, samples of one image, or settings that cannot be used; before anything
            runs.
        NumericalError: a knockout gave no logits.
    """
    if not isinstance(ranking, Ranking) or ranking.kind != "head":
        raise InputError(f"knock_out_heads takes a ranking of heads; got {ranking!r:.80}")
    check_model(model)
    given = of_two_images(samples)
    checked = check_settings(seed=seed, n_resamples=n_resamples, batch_size=batch_size)
    draws = whole("draws", draws, 1)
    check_reading(reading)
    sizes = list(integers("ks", ks))
    if (
        not sizes
        or sizes != sorted(set(sizes))
        or not 1 <= sizes[0] <= sizes[-1] <= len(ranking.scores)
    ):
        raise InputError(f"ks must ascend within 1 to {len(ranking.scores)}; got {sizes}")
    ranking.check(model, given, force=force)
    order = _order(ranking, sign, sizes[-1])
    if key == "all":
        raise InputError(
            "key='all' leaves the last position nothing to look at; give fewer positions"
        )
    check_positions(model, given, key)
    groups = np.array([sample.source_id for sample in given])
    tops = {k: _named(ranking, order[:k]) for k in sizes}
    beside = {k: _beside(model, tops[k], draws, checked["seed"]) for k in sizes}
    wanted = list(dict.fromkeys(frozenset(tops[k]) for k in sizes))
    wanted = list(dict.fromkeys([*wanted, *(one for k in sizes for one in beside[k][0])]))
    clean, values = _run(model, given, wanted, key, reading, checked["batch_size"], progress)
    place = {heads: i for i, heads in enumerate(wanted)}
    settings = {"seed": checked["seed"], "n_resamples": checked["n_resamples"]}
    tail = _TAILS[sign]
    found = []
    for k in sizes:
        top = place[frozenset(tops[k])]
        sets, exact = beside[k]
        others = [place[one] for one in sets]
        found.append(_point(k, tops[k], clean, values, top, others, exact, tail, groups, settings))
    return HeadKnockout(
        model.name, ranking.method, _adjusted(found), settings["seed"], sign=sign, tail=tail
    )


def _order(ranking: Ranking, sign: HeadSign, most: int) -> np.ndarray:
    """Rows of the ``most`` heads of that sign, first the most important."""
    if not isinstance(sign, str) or sign not in _TAILS:
        raise InputError(f"sign is one of {', '.join(_TAILS)}; got {sign!r}")
    if sign == "any":
        return ranking.top(most)
    speaking = int((ranking.signs == (1 if sign == "for" else -1)).sum())
    if most > speaking:
        raise InputError(
            f"{speaking} of {len(ranking.scores)} heads speak {sign} the answer (a score "
            f"{'above' if sign == 'for' else 'below'} 0), and ks asks for {most}: the others would be heads "
            "that do not. Give smaller ks, or sign='any'"
        )
    return ranking.positive(most) if sign == "for" else ranking.bottom(most)


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
    tail: Tail,
    groups: np.ndarray,
    settings: dict[str, Any],
) -> HeadKnockoutPoint:
    """Without q."""
    change = values["logit_diff"][own] - clean["logit_diff"]
    drawn = values["logit_diff"][others] - clean["logit_diff"]
    # All sets there are were run: others were not drawn, and there is nothing of theirs to resample.
    over_draws = not exact and len(others) > 1
    options = {**settings, "over_draws": over_draws}
    control = excess = accuracy = accuracy_control = accuracy_excess = p = None
    if others:
        control, excess = against_draws(change, drawn, groups, **options)
        p = _rank(float(change.mean()), drawn.mean(axis=1), tail)
    if "correct" in clean:
        right, before = values["correct"], clean["correct"]
        accuracy = paired_accuracy_change(before, right[own], groups, **settings)
        if others:
            accuracy_control, accuracy_excess = against_draws(
                right[own] - before, right[others] - before, groups, accuracy=True, **options
            )
    gap = ""
    if not others:
        gap = (
            f"these are all heads of {'their layer' if len({i for i, _ in top}) == 1 else 'their layers'}: "
            "there is no other set with as many of each layer to compare with"
        )
    return HeadKnockoutPoint(
        k=k,
        heads=top,
        change=mean_change(change, groups, **settings),
        control=control,
        excess=excess,
        sets=len(others),
        exact=exact,
        over_draws=over_draws,
        p=p,
        q=None,
        accuracy=accuracy,
        accuracy_control=accuracy_control,
        accuracy_excess=accuracy_excess,
        gap=gap,
    )


def _rank(own: float, draws: np.ndarray, tail: Tail) -> float:
    """Share of the sets, the top's own among them, that change as much on that side."""
    lower, upper = rank_p(own, draws), rank_p(-own, -draws)
    return {"lower": lower, "upper": upper, "two-sided": min(1.0, 2 * min(lower, upper))}[tail]


def _adjusted(points: list[HeadKnockoutPoint]) -> tuple[HeadKnockoutPoint, ...]:
    """With q over the k that have a p."""
    tested = [point for point in points if point.p is not None]
    adjusted = benjamini_hochberg(np.array([point.p for point in tested], dtype=float))
    q = {point.k: float(one) for point, one in zip(tested, adjusted, strict=True)}
    return tuple(replace(point, q=q.get(point.k)) for point in points)
