"""Signals that users and other packages add: one description and one function each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import OutOfMemoryError, Tensor

from mechvrp.errors import InputError, MechVRPError, NumericalError, ShapeError
from mechvrp.plugins import load_plugins
from mechvrp.reliability.signals import SIGNALS, Signal, find_signals

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM
    from mechvrp.reliability.observations import Observations

__all__ = [
    "SignalFunction",
    "check_registered",
    "known_signals",
    "measure_signal",
    "register_signal",
    "registered_signals",
]

#: Of a model, some samples and what was observed of them: a number a sample, NaN where there is none.
SignalFunction = Callable[["VLM", "Sequence[Sample]", "Observations"], ArrayLike]


@dataclass(frozen=True)
class _Registered:
    signal: Signal
    compute: SignalFunction


_REGISTERED: dict[str, _Registered] = {}


def register_signal(signal: Signal, compute: SignalFunction, *, replace: bool = False) -> Signal:
    """Make a signal known by its name: studies compute it where it is asked for (``signals``).

    Args:
        signal: its name, what it costs, and whether it uses the right answer; then it describes and never
            predicts.
        compute: of a model, samples and their ``Observations`` a number a sample, ``[n]``; NaN where there is
            none. Called a piece at a time (128 samples or so), with the model in eval mode and no gradients.
        replace: whether a signal registered before may be replaced.

    Raises:
        InputError: the name is taken or is no identifier, or these are something else.

    Example:
        >>> from mechvrp.reliability import Signal, register_signal
        >>> length = Signal(
        ...     name="question_words", kind="comparator", higher_means_right=None, uses_label=False,
        ...     cost_forwards=0, description="Words of the question.", source="this example", unit="words",
        ... )
        >>> _ = register_signal(length, lambda model, samples, seen: [len(s.question.split()) for s in samples])
    """
    if not isinstance(signal, Signal) or not callable(compute):
        raise InputError(
            f"expected a Signal and a function that computes it; got {signal!r:.60}, {compute!r:.60}"
        )
    if not signal.name.isidentifier():
        raise InputError(f"a signal's name is letters, digits and _; got {signal.name!r}")
    if signal.name in SIGNALS:
        raise InputError(f"a signal named {signal.name!r} exists already; give yours another name")
    if signal.name in _REGISTERED and not replace:
        raise InputError(
            f"a signal named {signal.name!r} is registered; pass replace=True to replace it"
        )
    _REGISTERED[signal.name] = _Registered(signal, compute)
    return signal


def registered_signals() -> dict[str, Signal]:
    """The signals that were registered, those of other packages included, by name."""
    load_plugins("mechvrp.signals")
    return {name: found.signal for name, found in _REGISTERED.items()}


def known_signals() -> dict[str, Signal]:
    """``SIGNALS`` and those that were registered, by name."""
    return {**SIGNALS, **registered_signals()}


def check_registered(names: Iterable[str]) -> None:
    """Raise ``InputError`` unless each name is of a registered signal, once."""
    added = registered_signals()
    for signal in find_signals(names, added.values()):
        if signal.name not in added:
            raise InputError(
                f"{signal.name!r} is measured in every study; 'signals' names further ones, that were "
                f"registered ({', '.join(added) or 'none is'})"
            )


def measure_signal(
    name: str, model: VLM, samples: Sequence[Sample], seen: Observations
) -> np.ndarray:
    """The numbers of a registered signal, ``[n]``, NaN where there is none.

    Raises:
        InputError: no such signal, or its function fails.
        ShapeError: it gave another number of values than there are samples.
        NumericalError: it gave an infinite value, or something that is no number.
    """
    check_registered([name])
    try:
        found = _REGISTERED[name].compute(model, samples, seen)
    except (MechVRPError, MemoryError, OutOfMemoryError):
        raise
    except Exception as error:  # whatever another package raises
        raise InputError(
            f"the function of the signal {name!r} failed on {len(samples)} samples: {type(error).__name__}: "
            f"{error}"
        ) from error
    try:
        if isinstance(found, Tensor):
            found = found.detach().cpu().double().numpy()
        values = np.asarray(found, dtype=np.float64)
        if np.asarray(found).dtype.kind in "USc":  # numpy reads numbers in texts
            raise TypeError(f"it has values of type {np.asarray(found).dtype}")
    except (TypeError, ValueError) as error:
        raise NumericalError(
            f"the signal {name!r} gave something that is no number: {error}"
        ) from error
    if values.shape != (len(samples),):
        raise ShapeError(
            f"the signal {name!r} gave values of shape {list(values.shape)} for {len(samples)} samples"
        )
    if np.isinf(values).any():
        raise NumericalError(
            f"the signal {name!r} is infinite for {int(np.isinf(values).sum())} of {len(samples)} samples; "
            "give NaN where there is no value"
        )
    return values
