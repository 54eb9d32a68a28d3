"""Positions that runs over heads and flows are asked for, checked before a model computes anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechvrp.circuits.sample_checks import without_word
from mechvrp.errors import InputError, SiteError
from mechvrp.models.tokens import KEYWORDS

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM
    from mechvrp.models.tokens import Positions

__all__ = ["check_positions"]


def check_positions(model: VLM, samples: Sequence[Sample], positions: Positions) -> None:
    """Raise unless these positions can be named: of the first sample, and a word of every question.

    Raises:
        SiteError: no such position or patch, or a question without the word.
        InputError: of another type.
    """
    try:
        model.encode(list(samples[:1])).tokens.resolve(positions)
    except TypeError as error:
        raise InputError(f"{positions!r} names no positions ({error})") from error
    if not isinstance(positions, str) or positions in KEYWORDS:
        return
    if absent := without_word(samples, positions):
        raise SiteError(
            f"{len(absent)} of {len(samples)} samples have no word {positions.removeprefix('word:')!r} in "
            f"their question, e.g. {absent[0]!r}; the keywords are {', '.join(KEYWORDS)}"
        )
