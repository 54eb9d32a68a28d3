"""``Outcomes``: which answers were right under some interventions, and under their random controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechvrp.errors import InputError

__all__ = ["Outcomes"]


@dataclass(frozen=True)
class Outcomes:
    """Right or wrong answers of the same examples under several conditions.

    Attributes:
        clean: booleans [example], without any intervention.
        edited: [condition, draw, example], 1 right, 0 wrong, -1 where it could not be run.
        control: the same of each condition's random control; it may have another number of draws.
        errors: of each condition, "" or why something of it could not be run.
        entropy_before: [condition, example], spatial entropy over log S of the clean run's attention map in
            the layers that the condition is judged by; NaN where there is no such layer, or no map.
        entropy_after: [condition, draw, example], the same under the condition.
    """

    clean: np.ndarray
    edited: np.ndarray
    control: np.ndarray
    errors: tuple[str, ...]
    entropy_before: np.ndarray | None = None
    entropy_after: np.ndarray | None = None

    @classmethod
    def joined(cls, parts: Sequence[Outcomes]) -> Outcomes:
        """Outcomes of the same conditions on further examples, one after the other.

        Raises:
            InputError: there are none.
        """
        if not parts:
            raise InputError("there are no outcomes: no examples were given")

        def along(name: str) -> np.ndarray | None:
            found = [getattr(part, name) for part in parts]
            return None if found[0] is None else np.concatenate(found, axis=-1)

        pairs = zip(*(part.errors for part in parts), strict=True)
        arrays = {n: along(n) for n in ("clean", "edited", "control", *_ENTROPIES)}
        errors = tuple(next((error for error in pair if error), "") for pair in pairs)
        return cls(errors=errors, **arrays)  # type: ignore[arg-type]


_ENTROPIES = ("entropy_before", "entropy_after")
