"""How a monitor does on images that it was not fitted on, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mechvrp.data.sources import image_sources
from mechvrp.errors import InputError
from mechvrp.reliability.calibration import measure_calibration
from mechvrp.statistics import Estimate, auroc_interval, auroc_lead, correlation_interval

__all__ = ["Figure", "consistency", "evaluate"]


@dataclass(frozen=True)
class Figure:
    """One figure on held-out images, or why there is none.

    Attributes:
        name: what it is.
        value, low, high: with a 95 % interval that resamples images; ``None`` where there is none.
        n, images: examples, and the images they are of.
        gap: why there is none; empty otherwise.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    images: int
    gap: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: none ({self.gap})"
        return (
            f"{self.name}: {self.value:.3f} [{self.low:.3f}, {self.high:.3f}] "
            f"({self.n} questions, {self.images} images)"
        )


def consistency(table: pd.DataFrame) -> np.ndarray:
    """Self-consistency of each example: what it is on average where that is known, else as sampled.

    NaN where it is not known.
    """
    found = np.full(len(table), np.nan)
    for name in ("self_consistency", "expected_self_consistency"):
        if name in table:
            values = table[name].to_numpy(dtype=np.float64, na_value=np.nan)
            found = np.where(np.isnan(values), found, values)
    return found


def evaluate(
    heldout: pd.DataFrame,
    scores: np.ndarray,
    risk: pd.DataFrame,
    reliability: np.ndarray,
    *,
    target: str,
    n_resamples: int,
    seed: int,
) -> tuple[Figure, ...]:
    """Figures of the score on all held-out images, and of the reliability on those of the risk part.

    The score was fitted on neither; the reliability was calibrated on the other held-out images.

    Args:
        heldout, scores: the examples, and the log-odds of each.
        risk, reliability: those of the risk part, and the reliability of each.
        target: ``"self_consistency"`` adds how the score goes with it.
        n_resamples, seed: of the intervals.
    """
    settings = {"n_resamples": n_resamples, "seed": seed}
    found: list[Figure] = []

    def add(name: str, rows: pd.DataFrame, make: Callable[[], Estimate]) -> None:
        images = len(set(image_sources(rows)))
        try:
            made = make()
        except InputError as error:  # one class only, a constant signal, too few images
            found.append(Figure(name, None, None, None, len(rows), images, str(error)))
        else:
            value, low, high = (float(x) for x in (made.value, made.low, made.high))
            found.append(Figure(name, value, low, high, len(rows), images))

    def beside(words: str, values: np.ndarray) -> None:
        """The AUROC of another score, and the lead over it."""
        add(f"AUROC of {words}", heldout, lambda: auroc_interval(values, right, groups, **settings))
        add(
            f"lead over {words}",
            heldout,
            lambda: auroc_lead(scores, values, right, groups, **settings),
        )

    right = heldout["correct"].to_numpy(dtype=bool)
    groups = image_sources(heldout)
    add("AUROC for correctness", heldout, lambda: auroc_interval(scores, right, groups, **settings))
    if "answer_probability" in heldout:
        probability = heldout["answer_probability"].to_numpy(dtype=np.float64)
        beside("the answer's probability", probability)
    if target == "self_consistency":
        sampled = consistency(heldout)
        known = ~np.isnan(sampled)
        add(
            "correlation with self-consistency",
            heldout[known],
            lambda: correlation_interval(scores[known], sampled[known], groups[known], **settings),
        )
        if known.all():
            beside("self-consistency itself", sampled)
    truth, images = risk["correct"].to_numpy(dtype=bool), image_sources(risk)
    try:
        calibration = measure_calibration(reliability, truth, images, **settings)
    except InputError as error:
        found.append(
            Figure("Brier score", None, None, None, len(risk), len(set(images)), str(error))
        )
    else:
        add("Brier score", risk, lambda: calibration.brier)
        add("calibration error (equal mass)", risk, lambda: calibration.ece_mass)
        add("mean reliability minus accuracy", risk, lambda: calibration.gap)
    return tuple(found)
