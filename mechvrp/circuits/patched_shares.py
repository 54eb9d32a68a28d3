"""How much of an answer's change the text positions carry, by depth: another run's states patched in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mechvrp.circuits.crossed import Crossed
from mechvrp.errors import InputError, NumericalError
from mechvrp.patching.alignment import check_aligned
from mechvrp.patching.answer_pairs import reads_as
from mechvrp.patching.grids import activation_patching, values_of
from mechvrp.patching.image_draws import drawn_patches
from mechvrp.statistics import Estimate
from mechvrp.tracing.caching import in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = ["PATCHED", "IntegrationLayer", "PatchedShares", "patched_shares"]

#: Positions whose states are patched; those of the image are the complement of the text.
PATCHED = ("text", "question", "last", "image")
_CONTROLLED = ("text",)


@dataclass(frozen=True)
class IntegrationLayer:
    """The first layer behind which some positions carry more than a threshold of the answer's change.

    Attributes:
        what: which positions.
        threshold: share of the change.
        layer: None where no layer's share is above it.
        low, high: 95 % interval over images, whole layers; an end that lies beyond the last layer is None.
        depth: share of the model's layers up to and with ``layer``; None likewise.
        crossing: the depth at which the share reaches the threshold, on straight lines between layers (from 0
            before the first block): finer than whole layers, and no more exact than such lines. None where
            there is no layer, or what lies before the first one was not patched.
        crossing_low, crossing_high: its 95 % interval over images; None where more than 2.5 % of the
            resamples have none.
        missing: share of the resamples in which no layer's share is above the threshold.
        n, n_groups: pairs and images.
        gap: why there is no layer; empty where there is one.
    """

    what: str
    threshold: float
    layer: int | None
    low: int | None
    high: int | None
    depth: float | None
    crossing: float | None
    crossing_low: float | None
    crossing_high: float | None
    missing: float
    n: int
    n_groups: int
    gap: str = ""

    def __str__(self) -> str:
        if self.layer is None:
            return f"integration layer ({self.what}): none; {self.gap}"
        high = "none" if self.high is None else self.high
        return (
            f"integration layer ({self.what}, share above {self.threshold:g}): {self.layer} "
            f"[{self.low}, {high}] (95 % bootstrap by image; n = {self.n} pairs of {self.n_groups} images)"
        )


@dataclass(frozen=True, eq=False)
class PatchedShares:
    """Pairs of runs that differ in the image and in the answer, and what patching does to them.

    Attributes:
        layers: behind which states were patched.
        moved: by positions, ``[layer, pair]``: the measure with states patched minus without.
        control: by positions, ``[draw, layer, pair]``: the same for as many random image positions.
        span: ``[pair]``, the measure in the other run minus in the unpatched one.
        images: ``[pair]``, ids of the images patched into; of one made from another, of that one.
        unchanged: pairs left out since the model gives the same answer to both images.
    """

    layers: tuple[int, ...]
    moved: Mapping[str, NDArray[np.float64]]
    control: Mapping[str, NDArray[np.float64]]
    span: NDArray[np.float64]
    images: NDArray[np.str_]
    unchanged: int

    def estimates(
        self, what: str, *, seed: int = 0, n_resamples: int = 2000
    ) -> list[tuple[Estimate, Estimate | None, Estimate | None]]:
        """Share, control's share and the difference, for each layer.

        A share is the sum over pairs of what was moved over the sum of the spans: 0 as unpatched, 1 as in the
        other run. Intervals resample images; the control's and the difference's also the draws, of two or
        more.

        Raises:
            InputError: no such positions, or pairs of fewer than two images.
            NumericalError: the two runs are not told apart (`total`).
        """
        moved = self.checked(what)
        self.total(seed=seed, n_resamples=n_resamples)
        crossed = Crossed(self.images, seed=seed, n_resamples=n_resamples)
        whole, spans = self.span.mean(), crossed.means(self.span)[:, None]
        shares, resampled = moved.mean(axis=-1) / whole, crossed.means(moved) / spans

        def estimates(
            values: NDArray[Any], drawn: NDArray[Any], *, draws: bool = False
        ) -> list[Estimate]:
            if not np.isfinite(drawn).all():
                raise NumericalError(
                    "the two runs do not differ at all in a resample of the images"
                )
            return [
                crossed.estimate(value, ends, draws=draws)
                for value, ends in zip(values, drawn.T, strict=True)
            ]

        value = estimates(shares, resampled)
        if what not in self.control:
            return [(one, None, None) for one in value]
        control = self.control[what]
        several = len(control) > 1
        beside = control.mean(axis=0)
        drawn = (crossed.drawn(control) if several else crossed.means(beside)) / spans
        other = beside.mean(axis=-1) / whole
        return list(
            zip(
                value,
                estimates(other, drawn, draws=several),
                estimates(shares - other, resampled - drawn, draws=several),
                strict=True,
            )
        )

    def total(self, *, seed: int = 0, n_resamples: int = 2000) -> Estimate:
        """The mean change between the two runs, of which there are shares.

        Raises:
            NumericalError: its interval over images holds 0: a share of it could be of any size.
        """
        crossed = Crossed(self.images, seed=seed, n_resamples=n_resamples)
        found = crossed.estimate(float(self.span.mean()), crossed.means(self.span), draws=False)
        if found.low <= 0 <= found.high:
            raise NumericalError(
                f"between the two images the measure changes by {found}: not told from 0, so there is no "
                "share of it. Give more pairs, or another measure"
            )
        return found

    def crossings(
        self, what: str, threshold: float, n_layers: int, weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The first layer above the threshold, and the depth at which the share reaches it, ``[resample]``.

        Args:
            weights: ``[resample, pair]``, how often each pair was drawn.

        Returns:
            Layers, infinite where none is above; depths, NaN where there is none (see `IntegrationLayer`).
        """
        moved = self.checked(what)
        number = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool)
        if not number or not 0 <= threshold < 1:
            raise InputError(
                f"threshold={threshold!r}; expected a share of the change within 0 to 1, below 1"
            )
        shares = (weights @ moved.T) / (weights @ self.span)[:, None]
        # Ascending, whatever order the layers were asked for in.
        order = np.argsort(self.layers)
        layers, shares = np.asarray(self.layers, dtype=np.float64)[order], shares[:, order]
        above = shares > threshold
        first, rows = above.argmax(axis=1), np.arange(len(shares))
        any_above = above.any(axis=1)
        before = np.maximum(first - 1, 0)
        # Text positions hold nothing of the image before block 0.
        start, left = (layers[before] + 1) / n_layers, shares[rows, before]
        begins = first == 0
        start, left = np.where(begins, 0.0, start), np.where(begins, 0.0, left)
        end, right = (layers[first] + 1) / n_layers, shares[rows, first]
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = start + (end - start) * (threshold - left) / (right - left)
        known = any_above & (~begins | (layers[0] == 0))
        return np.where(any_above, layers[first], np.inf), np.where(known, depth, np.nan)

    def integration(
        self, *, what: str, threshold: float, n_layers: int, seed: int, n_resamples: int
    ) -> IntegrationLayer:
        """As ``ImageFlow.integration``."""
        images, codes = np.unique(self.images, return_inverse=True)
        if len(images) < 2:
            raise InputError(f"an interval over images needs at least two; got {len(images)}")
        self.total(seed=seed, n_resamples=n_resamples)
        whole, depth = self.crossings(what, threshold, n_layers, np.ones((1, len(codes))))
        rng = np.random.default_rng(seed)
        share = np.full(len(images), 1 / len(images))
        counts = rng.multinomial(len(images), share, size=n_resamples)[:, codes]
        drawn, depths = self.crossings(what, threshold, n_layers, counts.astype(np.float64))
        # A quantile that is itself one of the layers: there is none between two.
        ends = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
        low, high = (int(end) if np.isfinite(end) else None for end in ends)
        found = int(whole[0]) if np.isfinite(whole[0]) else None
        finite = np.isfinite(depths)
        crossing: tuple[float | None, float | None] = (None, None)
        if finite.mean() > 0.975:
            low_depth, high_depth = np.quantile(depths[finite], [0.025, 0.975])
            crossing = (float(low_depth), float(high_depth))
        return IntegrationLayer(
            what=what,
            threshold=threshold,
            layer=found,
            low=low,
            high=high,
            depth=None if found is None else (found + 1) / n_layers,
            crossing=float(depth[0]) if np.isfinite(depth[0]) else None,
            crossing_low=crossing[0],
            crossing_high=crossing[1],
            missing=float(np.isinf(drawn).mean()),
            n=len(codes),
            n_groups=len(images),
            gap="" if found is not None else f"no layer's share is above {threshold:g}",
        )

    def checked(self, what: str) -> NDArray[np.float64]:
        """What patching these positions moved (raises ``InputError`` for others)."""
        if what not in self.moved:
            raise InputError(f"positions {what!r} were not patched; {', '.join(self.moved)} were")
        if not abs(float(self.span.sum())) > 0:
            raise NumericalError("the two runs do not differ on average: there is nothing to share")
        return self.moved[what]


def patched_shares(
    model: VLM,
    samples: Sequence[Sample],
    others: Sequence[Sample],
    *,
    layers: Sequence[int],
    measure: str = "logit_diff",
    draws: int = 1,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = False,
) -> PatchedShares | str:
    """Patch states behind each layer from a run on another image into that on a sample's own.

    Only pairs whose first answer token differs (and reads otherwise) count: of the others there is no change
    of the answer to carry. The measure's target is the answer to the sample's own image, its foil the answer
    to the other one.

    Args:
        model: from ``mechvrp.load``.
        samples: what is patched into.
        others: for each the sample whose states are put in: another image, the same question.
        layers: behind which.
        measure: ``"logit_diff"``, ``"probability"`` or ``"logit"`` of the own answer.
        draws: of as many random image positions as there are of the text's, the control.
        seed: of the draws.
        batch_size, progress: of the runs.

    Returns:
        The pairs; or, where no answer changes, why there are none, in words.

    Raises:
        InputError: pairs that are not aligned.
    """
    kept: list[tuple[Sample, Sample, int, int]] = []
    pairs = list(zip(samples, others, strict=True))
    for chunk in _chunks(pairs, batch_size, progress, "pairing"):
        first, second = (model.encode([pair[side] for pair in chunk]) for side in (0, 1))
        check_aligned(first, second)
        own, reached = (values_of(model, b, [])[1].argmax(-1).tolist() for b in (first, second))
        for (sample, other), a, b in zip(chunk, own, reached, strict=True):
            if reads_as(model, a) != reads_as(model, b):
                kept.append((sample, other, a, b))
    if not kept:
        return f"the model gives the same answer to both images of all {len(pairs)} pairs"
    chosen = list(layers)
    moved: dict[str, list[np.ndarray]] = {what: [] for what in PATCHED}
    control: dict[str, list[np.ndarray]] = {what: [] for what in _CONTROLLED}
    spans = []
    rng = np.random.default_rng([seed, 4])
    for chunk in _chunks(kept, batch_size, progress, "patching"):
        into, source = (model.encode([pair[side] for pair in chunk]) for side in (0, 1))
        places: list[Any] = list(PATCHED)
        for what in _CONTROLLED:
            most = max(len(found) for found in into.tokens.resolve(what))
            places += [drawn_patches(into, most, rng) for _ in range(draws)]
        found = activation_patching(
            model,
            into,
            source,
            positions=places,
            layers=chosen,
            direction="noise",
            measure=measure,
            target=[pair[2] for pair in chunk],
            foil=[pair[3] for pair in chunk] if measure == "logit_diff" else None,
            progress=False,
        )
        unpatched = found["clean"].values.astype(np.float64)
        change = np.moveaxis(found["value"].values.astype(np.float64) - unpatched, 1, 0)
        spans.append(found["corrupted"].values - unpatched)
        for what, rows in zip(PATCHED, change, strict=False):
            moved[what].append(rows)
        for i, what in enumerate(_CONTROLLED):
            start = len(PATCHED) + i * draws
            control[what].append(change[start : start + draws])
    return PatchedShares(
        layers=tuple(chosen),
        moved={what: np.concatenate(parts, axis=-1) for what, parts in moved.items()},
        control={what: np.concatenate(parts, axis=-1) for what, parts in control.items() if draws},
        span=np.concatenate(spans),
        images=np.array([pair[0].source_id for pair in kept]),
        unchanged=len(pairs) - len(kept),
    )


def _chunks(pairs: list[Any], size: int, progress: bool, label: str) -> Any:
    """Lists of pairs; ``in_batches`` asks nothing of what it divides."""
    return in_batches(pairs, size, progress, label)
