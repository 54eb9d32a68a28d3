"""Recalibration: maps from a confidence to the share of answers that are right, fitted and saved.

Fit on training images, apply to held-out ones: on the rows it was fitted on any of these looks
calibrated.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax

from mechvrp.errors import DataError, InputError
from mechvrp.files import file_to_write, parse_json, path_of, read_file
from mechvrp.reliability.calibration import checked_confidence
from mechvrp.statistics.checks import require_both, require_finite
from mechvrp.store.atomic import write_atomically

__all__ = [
    "IsotonicCalibration",
    "PlattScaling",
    "Recalibration",
    "TemperatureScaling",
    "load_recalibration",
    "recalibration_of",
]

_FORMAT = 1
# float32 probabilities reach exactly 0 and 1; their log-odds must stay finite.
_MARGIN = 1e-6
# Temperatures searched. Beyond these a model is as good as always or never certain.
_COLDEST, _HOTTEST = 0.01, 100.0


class Recalibration(ABC):
    """A map of confidences ``[n]`` to recalibrated ones."""

    kind: ClassVar[str]

    @abstractmethod
    def __call__(self, confidence: ArrayLike) -> NDArray[np.float64]:
        """Recalibrated confidences ``[n]``, 0 to 1."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Its numbers, as JSON can hold them."""

    def save(self, path: str | Path) -> None:
        """Write it as JSON; `load_recalibration` reads it.

        Raises:
            InputError: no path of a file that can be written.
        """
        target = file_to_write(path, "a recalibration's file")
        record = {"format": _FORMAT, "kind": self.kind, **self.to_dict()}
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        write_atomically(target, lambda file: file.write_text(text, encoding="utf-8"))


@dataclass(frozen=True)
class TemperatureScaling(Recalibration):
    """Logits divided by one number, the temperature: above 1 it makes a model less sure.

    The order of answers, and so AUROC, is not changed; nor, of a confidence taken as the probability
    of being right, which side of 1/2 it is on. Where confidences near 1/2 are off, use `PlattScaling`.

    Source: Guo, Pleiss, Sun and Weinberger 2017 (ICML).

    Attributes:
        temperature: above 0.
    """

    temperature: float
    kind: ClassVar[str] = "temperature"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < np.inf:
            raise InputError(f"a temperature is a number above 0, got {self.temperature}")

    @classmethod
    def fit(cls, confidence: ArrayLike, correct: ArrayLike) -> TemperatureScaling:
        """The temperature of least log-loss on confidences ``[n]`` and correctness ``[n]``.

        The confidence's log-odds are divided; confidences are kept 1e-6 away from 0 and 1.

        Raises:
            InputError: bad confidences or labels, one class only, or no temperature between 0.01 and
                100 is best (right and wrong answers are on the two sides of 1/2, or confidences say
                nothing).
        """
        values, truth = checked_confidence(confidence, correct)
        require_both(truth.astype(bool), "a temperature")
        log_odds = _log_odds(values)
        sign = np.where(truth == 1, 1.0, -1.0)
        return cls(_best_temperature(lambda t: float(np.logaddexp(0, -sign * log_odds / t).mean())))

    @classmethod
    def fit_logits(cls, logits: ArrayLike, targets: ArrayLike) -> TemperatureScaling:
        """The temperature of least cross-entropy on logits ``[n, classes]`` and targets ``[n]``.

        Args:
            logits: ``[n, classes]``, at least two classes.
            targets: ``[n]``, the right class of each, from 0.

        Raises:
            InputError: shapes do not fit, a target is no class, or no temperature between 0.01 and
                100 is best (all are right or wrong, or the logits say nothing).
            NumericalError: NaN or infinity in the logits.
        """
        scores, index = _checked_logits(logits), np.asarray(targets)
        if index.shape != scores.shape[:1] or index.dtype.kind not in "iu":
            raise InputError(
                f"targets are whole numbers [{len(scores)}], got shape {index.shape} and dtype "
                f"{index.dtype}"
            )
        if index.min() < 0 or index.max() >= scores.shape[1]:
            raise InputError(
                f"targets run from {index.min()} to {index.max()}; there are {scores.shape[1]} classes"
            )
        rows = np.arange(len(index))
        return cls(
            _best_temperature(lambda t: -float(log_softmax(scores / t, axis=1)[rows, index].mean()))
        )

    def __call__(self, confidence: ArrayLike) -> NDArray[np.float64]:
        """Recalibrated confidences ``[n]``: their log-odds over the temperature."""
        return np.asarray(expit(_log_odds(_confidences(confidence)) / self.temperature))

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Probabilities ``[n, classes]`` of logits ``[n, classes]`` at this temperature."""
        return np.asarray(softmax(_checked_logits(logits) / self.temperature, axis=1))

    def to_dict(self) -> dict[str, Any]:
        return {"temperature": self.temperature}


@dataclass(frozen=True)
class PlattScaling(Recalibration):
    """``expit(slope * log-odds + intercept)``: temperature scaling with a shift.

    Source: Platt 1999, with his smoothed targets ``(right + 1) / (right + 2)`` and
    ``1 / (wrong + 2)``, so that a fit exists however well the confidence separates.
    """

    slope: float
    intercept: float
    kind: ClassVar[str] = "platt"

    @classmethod
    def fit(cls, confidence: ArrayLike, correct: ArrayLike) -> PlattScaling:
        """Fit on confidences ``[n]`` and correctness ``[n]``, both classes present.

        Raises:
            InputError: bad confidences or labels, or one class only.
        """
        from sklearn.linear_model import LogisticRegression

        values, truth = checked_confidence(confidence, correct)
        right = truth.astype(bool)
        require_both(right, "Platt scaling")
        n, n_right = len(right), int(right.sum())
        target = np.where(right, (n_right + 1) / (n_right + 2), 1 / (n - n_right + 2))
        # A soft target t is a row of weight t that is right and one of weight 1 - t that is wrong.
        column = np.tile(_log_odds(values), 2)[:, None]
        label = np.repeat([True, False], n)
        weight = np.concatenate([target, 1 - target])
        model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
        model.fit(column, label, sample_weight=weight)
        return cls(float(model.coef_[0, 0]), float(model.intercept_[0]))

    def __call__(self, confidence: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(expit(self.slope * _log_odds(_confidences(confidence)) + self.intercept))

    def to_dict(self) -> dict[str, Any]:
        return {"slope": self.slope, "intercept": self.intercept}


@dataclass(frozen=True)
class IsotonicCalibration(Recalibration):
    """The best rising step function, joined by lines; flat beyond the confidences it was fitted on.

    Needs about a thousand rows; it changes the order only by making ties.

    Source: Zadrozny and Elkan 2002 (KDD); ``sklearn.isotonic.IsotonicRegression``.

    Attributes:
        confidence: its corners, rising.
        accuracy: the recalibrated confidence at each, never falling.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    kind: ClassVar[str] = "isotonic"

    def __post_init__(self) -> None:
        x, y = np.asarray(self.confidence), np.asarray(self.accuracy)
        if (
            not len(x)
            or x.ndim != 1
            or x.shape != y.shape
            or (np.diff(x) <= 0).any()
            or (np.diff(y) < 0).any()
        ):
            raise InputError(
                f"expected rising confidences and as many accuracies that never fall, got {len(x)} "
                f"and {len(y)} numbers"
            )
        if min(x[0], y[0]) < 0 or max(x[-1], y[-1]) > 1:
            raise InputError("confidences and accuracies are from 0 to 1")

    @classmethod
    def fit(cls, confidence: ArrayLike, correct: ArrayLike) -> IsotonicCalibration:
        """Fit on confidences ``[n]`` and correctness ``[n]``, both classes present.

        Raises:
            InputError: bad confidences or labels, or one class only.
        """
        from sklearn.isotonic import IsotonicRegression

        values, truth = checked_confidence(confidence, correct)
        require_both(truth.astype(bool), "isotonic calibration")
        model = IsotonicRegression(y_min=0.0, y_max=1.0).fit(values, truth)
        return cls(tuple(model.X_thresholds_.tolist()), tuple(model.y_thresholds_.tolist()))

    def __call__(self, confidence: ArrayLike) -> NDArray[np.float64]:
        return np.interp(_confidences(confidence), self.confidence, self.accuracy)

    def to_dict(self) -> dict[str, Any]:
        return {"confidence": list(self.confidence), "accuracy": list(self.accuracy)}


_KINDS: dict[str, Any] = {
    cls.kind: cls for cls in (TemperatureScaling, PlattScaling, IsotonicCalibration)
}


def load_recalibration(path: str | Path) -> Recalibration:
    """Read what `Recalibration.save` wrote.

    Raises:
        DataError: the file is not there or holds something else.
    """
    place = path_of(path, "a recalibration's file", DataError)
    try:
        record = parse_json(read_file(place, DataError))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(
            f"cannot read a recalibration from {place}: it is damaged: {error}"
        ) from error
    found = record.get("format") if isinstance(record, dict) else record
    if not isinstance(record, dict) or type(found) is not int or found != _FORMAT:
        raise DataError(
            f"{place} is no recalibration of format {_FORMAT}: expected a JSON object that says so; got "
            f"{found!r:.60}"
        )
    return recalibration_of({k: v for k, v in record.items() if k != "format"}, str(place))


def recalibration_of(record: dict[str, Any], where: str) -> Recalibration:
    """The recalibration of this ``kind`` and these numbers (its ``to_dict``).

    Raises:
        DataError: the kind is unknown, or the numbers are not its own; ``where`` is named.
    """
    numbers = {key: value for key, value in record.items() if key != "kind"}
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise DataError(f"{where} is of kind {kind!r}; expected one of {sorted(_KINDS)}")
    try:
        return cast(Recalibration, _KINDS[kind](**{k: _read(k, v) for k, v in numbers.items()}))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} does not hold the numbers of {kind!r}: {error}") from error


def _read(name: str, value: Any) -> Any:
    if name not in ("confidence", "accuracy"):
        return _number(value)
    if not isinstance(value, list):
        raise TypeError(f"{name} is no list")
    return tuple(map(_number, value))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.60} is no number")
    return float(value)


def _best_temperature(loss: Any) -> float:
    # The loss is convex in 1 / T, so it has one minimum in log T as well.
    ends = (np.log(_COLDEST), np.log(_HOTTEST))
    found = minimize_scalar(lambda x: loss(np.exp(x)), bounds=ends, method="bounded")
    flat = max(loss(np.exp(end)) for end in ends) - found.fun < 1e-12
    if flat or min(found.x - ends[0], ends[1] - found.x) < 1e-3:
        raise InputError(
            f"no temperature between {_COLDEST:g} and {_HOTTEST:g} is best: the loss "
            + ("is the same at all" if flat else f"still falls at {np.exp(found.x):.3g}")
            + " (does the confidence separate right from wrong perfectly, or say nothing?); use more "
            "examples, or PlattScaling"
        )
    return float(np.exp(found.x))


def _log_odds(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(logit(np.clip(values, _MARGIN, 1 - _MARGIN)))


def _confidences(confidence: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(confidence, dtype=np.float64)
    return checked_confidence(values, np.zeros_like(values))[0]


def _checked_logits(logits: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(logits, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] == 0 or scores.shape[1] < 2:
        raise InputError(f"logits are [n, classes] of at least 2 classes, got shape {scores.shape}")
    require_finite(scores)
    return scores
