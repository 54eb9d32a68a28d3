"""One figure from several models' estimates: fixed and random effects, and how they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mechvrp.errors import InputError, NumericalError
from mechvrp.statistics.estimate import Estimate

__all__ = ["PooledEstimate", "pooled_estimate"]

PoolingScale = Literal["linear", "logit", "fisher-z"]

_THERE: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "logit": lambda x: float(np.log(x) - np.log1p(-x)),
    "fisher-z": lambda x: float(np.arctanh(x)),
}
_BACK: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "logit": lambda x: float(1 / (1 + np.exp(-x))),
    "fisher-z": lambda x: float(np.tanh(x)),
}
# Open intervals in which a value and its interval must lie on each scale.
_RANGE = {"linear": (-np.inf, np.inf), "logit": (0.0, 1.0), "fisher-z": (-1.0, 1.0)}


@dataclass(frozen=True)
class PooledEstimate:
    """Several estimates as one.

    Attributes:
        fixed: their mean weighted by inverse variance: of a figure that is the same in all models.
        random: the mean of a population of models that differ, its interval Hartung and Knapp's by
            Student's t: wide with three models, and next to no statement with two.
        q: Cochran's Q, chi-squared with (models - 1) degrees of freedom if the models are alike.
        p_heterogeneity: the chance of such a Q or a larger one.
        i_squared: share of the spread that is not chance, ``max(0, (Q - df) / Q)``.
        tau_squared: variance between models, on ``scale`` (Paule and Mandel 1982).
        weights_fixed, weights_random: each model's share.
        scale: on which was pooled; ``fixed`` and ``random`` are given on the estimates' own.
    """

    fixed: Estimate
    random: Estimate
    q: float
    p_heterogeneity: float
    i_squared: float
    tau_squared: float
    weights_fixed: dict[str, float]
    weights_random: dict[str, float]
    scale: PoolingScale


def pooled_estimate(
    estimates: Mapping[str, Estimate], *, scale: PoolingScale = "linear"
) -> PooledEstimate:
    """Pool one figure over models: fixed effect (inverse variance) and random effects.

    ``statsmodels.stats.meta_analysis.combine_effects``; random effects by Paule and Mandel. The
    standard error of each estimate is the width of its interval over twice the normal quantile, both
    on ``scale``; intervals by Student's t are slightly wider, so the pooled one is at least as wide.

    The fixed effect's interval is normal. That of random effects is Hartung and Knapp's (Statistics in
    Medicine 20, 2001; Sidik and Jonkman 2002) as modified by Knapp and Hartung (2003): Student's t
    with (models - 1) degrees of freedom times the larger of two standard errors, theirs, from the
    weighted spread of the estimates about their mean, and the ordinary one. A normal interval takes
    the variance between models as known: with three models it covers 75 to 82 % where they differ
    much. Without the larger of the two, estimates that happen to agree would give next to no width,
    and unequal standard errors too little (Roever, Knapp and Friede 2015). Models that do not differ
    at all are then covered more often than the level says.

    **The estimates are taken as independent.** Those of models that were shown the same images are
    not: an image that is hard for one is often hard for the others, and then Q is too small and the
    pooled intervals too narrow. :func:`stratified_point_biserial` and :func:`stratified_auroc`
    resample an image in all models at once.

    Args:
        estimates: by model, at least two, all at one level.
        scale: ``"logit"`` for shares and AUROCs, ``"fisher-z"`` for correlations, ``"linear"`` for
            differences.

    Returns:
        In ``fixed`` and ``random``, ``n`` is the sum of rows, and ``n_groups`` the largest number of
        images of any model, since models usually share them.

    Raises:
        InputError: fewer than two estimates, different levels, an interval without width or that
            ends at its value (an exact bound), or outside the scale's range.
        NumericalError: NaN or infinity.
    """
    from scipy.stats import chi2, norm, t
    from statsmodels.stats.meta_analysis import combine_effects

    if scale not in _RANGE:
        raise InputError(f"scale is 'linear', 'logit' or 'fisher-z', got {scale!r}")
    if not isinstance(estimates, Mapping):
        raise InputError(f"pooling takes estimates by name; got {estimates!r:.60}")
    if len(estimates) < 2:
        raise InputError(f"pooling needs at least 2 estimates, got {len(estimates)}")
    for name, estimate in estimates.items():
        if not isinstance(estimate, Estimate):
            raise InputError(f"pooling takes estimates by name; {name!r:.60} is {estimate!r:.60}")
    levels = {estimate.level for estimate in estimates.values()}
    if len(levels) > 1:
        raise InputError(f"expected intervals of one level, got {sorted(levels)}")
    level = levels.pop()
    quantile = float(norm.ppf((1 + level) / 2))
    values, errors = _on_scale(estimates, scale, quantile)
    with np.errstate(divide="ignore"):  # its own I^2 divides by Q, which may be 0
        found = combine_effects(values, errors**2, method_re="iterated")
    names = list(estimates)
    q = float(found.q)
    freedom = len(names) - 1
    rows = sum(estimate.n for estimate in estimates.values())
    images = max(estimate.n_groups for estimate in estimates.values())

    def pooled(mean: float, reach: float, kind: str) -> Estimate:
        value, low, high = (_BACK[scale](mean + by) for by in (0.0, -reach, reach))
        method = f"{kind} over {len(names)} models, {scale}"
        return Estimate(value, low, high, rows, images, level, method)

    error = max(float(found.sd_eff_w_re), float(found.sd_eff_w_re_hksj))
    reach = float(t.ppf((1 + level) / 2, freedom)) * error
    return PooledEstimate(
        fixed=pooled(
            float(found.mean_effect_fe), quantile * float(found.sd_eff_w_fe), "fixed effect"
        ),
        random=pooled(float(found.mean_effect_re), reach, "random effects (Hartung-Knapp)"),
        q=q,
        p_heterogeneity=float(chi2.sf(q, freedom)),
        i_squared=max(0.0, (q - freedom) / q) if q > 0 else 0.0,
        tau_squared=float(found.tau2),
        weights_fixed=dict(zip(names, map(float, found.weights_rel_fe), strict=True)),
        weights_random=dict(zip(names, map(float, found.weights_rel_re), strict=True)),
        scale=scale,
    )


def _on_scale(
    estimates: Mapping[str, Estimate], scale: PoolingScale, quantile: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values ``[models]`` on the scale, and their standard errors."""
    least, most = _RANGE[scale]
    there = _THERE[scale]
    values, errors = [], []
    for name, estimate in estimates.items():
        ends = (estimate.low, estimate.value, estimate.high)
        if not all(np.isfinite(ends)):
            raise NumericalError(f"the estimate of {name!r} is not finite: {ends}")
        if not (least < ends[0] and ends[2] < most):
            raise InputError(
                f"the estimate of {name!r}, {estimate}, is not within ({least:g}, {most:g}), which "
                f"scale={scale!r} needs; leave the model out, or use another scale"
            )
        if not ends[0] < ends[1] < ends[2]:
            raise InputError(
                f"the interval of {name!r}, {estimate}, has no width on one side, so that its "
                "standard error is not known: leave the model out, or pool rows (stratified_auroc)"
            )
        values.append(there(ends[1]))
        errors.append((there(ends[2]) - there(ends[0])) / (2 * quantile))
    return np.array(values), np.array(errors)
