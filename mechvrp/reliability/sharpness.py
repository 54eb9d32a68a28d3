"""Is a model surer where its attention is sharper, and overconfident there when it is wrong?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mechvrp.errors import InputError, NumericalError
from mechvrp.reliability.calibration import checked_confidence
from mechvrp.statistics import Estimate
from mechvrp.statistics.checks import numbers
from mechvrp.statistics.correlation import correlation_interval

__all__ = ["SharpnessCorrelations", "attention_sharpness", "sharpness_against_confidence"]

# The 1e-9 inside the entropy's logarithm takes it past its ends by up to S times as much.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class SharpnessCorrelations:
    """Pearson's r of attention sharpness with confidence.

    Attributes:
        confidence: over all answers.
        overconfidence: over wrong answers only, where all confidence is too much; None where it does
            not exist.
        gap: why ``overconfidence`` is None; None otherwise.
        n_wrong: wrong answers.
    """

    confidence: Estimate
    overconfidence: Estimate | None
    gap: str | None
    n_wrong: int


def attention_sharpness(entropy: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]:
    """``1 - H_s / log S``: 0 of a uniform map, 1 of one that is all on one image token.

    Args:
        entropy: ``[n]``, spatial entropies in nats (`spatial_entropy`).
        tokens: image tokens S, one number or ``[n]``, at least 2.

    Raises:
        InputError: fewer than 2 tokens, or an entropy outside 0 .. log S (in bits? times log 2).
        NumericalError: NaN or infinity.
    """
    values, size = numbers(entropy, "entropy"), numbers(tokens, "tokens")
    if not np.isfinite(values).all():
        raise NumericalError(
            f"{int((~np.isfinite(values)).sum())} of {values.size} entropies are NaN or infinite"
        )
    if size.ndim and size.shape != values.shape:
        raise InputError(f"expected one number of tokens or {values.shape}, got {size.shape}")
    if not (size >= 2).all():
        raise InputError(f"a map needs at least 2 image tokens, got {size.min():g}")
    sharpness = 1 - values / np.log(size)
    if values.size and (sharpness.min() < -_TOLERANCE or sharpness.max() > 1 + _TOLERANCE):
        raise InputError(
            f"entropies run from {values.min():.4g} to {values.max():.4g} nats; expected 0 to log S = "
            f"{np.log(size.max()):.4g} (in bits? multiply by log 2)"
        )
    return np.asarray(np.clip(sharpness, 0.0, 1.0))


def sharpness_against_confidence(
    sharpness: ArrayLike,
    confidence: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike | None = None,
    **settings: Any,
) -> SharpnessCorrelations:
    """Correlation of attention sharpness with confidence, over all and over wrong answers.

    Args:
        sharpness: ``[n]`` (`attention_sharpness`).
        confidence: ``[n]``, the model's probability of its answer, 0 to 1.
        correct: ``[n]``, 0 or 1.
        groups: ``[n]`` image of each row; ``None`` makes each row its own.
        settings: ``n_resamples``, ``level`` and ``seed`` of ``group_bootstrap``.

    Raises:
        InputError: lengths differ, confidences outside 0..1, labels other than 0 and 1, sharpness or
            confidence is constant over all answers.
        NumericalError: NaN or infinity.
    """
    values, truth = checked_confidence(confidence, correct)
    sharp = np.asarray(sharpness, dtype=np.float64)
    if sharp.shape != values.shape:
        raise InputError(f"sharpness has shape {sharp.shape}, confidence {values.shape}")
    images = np.arange(len(values)) if groups is None else np.asarray(groups)
    overall = correlation_interval(sharp, values, images, **settings)
    wrong = truth == 0
    over, gap = None, None
    if not wrong.any():
        gap = "no answer is wrong"
    else:
        try:
            over = correlation_interval(sharp[wrong], values[wrong], images[wrong], **settings)
        except InputError as error:  # too few images with wrong answers, or no variation there
            gap = str(error)
    return SharpnessCorrelations(overall, over, gap, int(wrong.sum()))
