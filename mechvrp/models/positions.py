"""How positions are named: a keyword, a word, numbers, patches, or a position of each sample's own."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechvrp.errors import SiteError

__all__ = ["KEYWORDS", "Each", "Positions", "integers", "on_image"]


@dataclass(frozen=True)
class Each:
    """A position of its own for each sample of a batch.

    Attributes:
        places: one a sample, counted from the end of its prompt (-1 is the last prompt token), so that
            padding changes nothing.
    """

    places: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", integers("positions", self.places))

    def __len__(self) -> int:
        return len(self.places)

    def resolve(self, mask: Bool[Tensor, "batch pos"]) -> tuple[Int[Tensor, " chosen"], ...]:
        """Each sample's position in the padded sequence; ``mask`` is False on padding."""
        if len(self) != len(mask):
            raise SiteError(
                f"{len(self)} positions were given, one a sample, for a batch of {len(mask)}"
            )
        for i, (place, real) in enumerate(zip(self.places, mask.sum(-1).tolist(), strict=True)):
            if not -real <= place < 0:
                raise SiteError(
                    f"position {place} of sample {i} is out of range: its prompt has {real} tokens, "
                    f"{-real} to -1, counted from the end"
                )
        return tuple(torch.tensor([mask.shape[1] + place]) for place in self.places)


#: How positions are named: a keyword (see ``TokenMap.resolve``), a word of the question, one
#: position, several positions or (row, column) patches, or one of each sample's own.
Positions = str | int | Sequence[int] | Sequence[tuple[int, int]] | Each

#: Numbers that one argument may list: no axis of a model is longer.
_MOST = 10_000_000

KEYWORDS = ("all", "image", "last", "question", "text")


def on_image(positions: Positions) -> bool:
    """Whether positions name image tokens and nothing else: ``"image"`` or (row, col) patches."""
    if isinstance(positions, str):
        return positions == "image"
    return isinstance(positions, Sequence) and all(isinstance(p, tuple) for p in positions)


def _masked(items: list[Any]) -> bool:
    return any(isinstance(item, bool) or type(item).__name__ == "bool" for item in items)


def integers(name: str, given: Any) -> tuple[int, ...]:
    """Whole numbers from a number, a sequence, an array or a tensor (no masks, no fractions)."""
    if hasattr(given, "tolist"):
        given = given.tolist()
    if isinstance(given, Sized) and len(given) > _MOST:
        raise SiteError(f"{name}: {len(given):,} numbers were given, more than anything here has")
    items = [given] if not isinstance(given, Iterable) else list(given)
    try:
        if _masked(items):
            raise TypeError
        return tuple(operator.index(item) for item in items)
    except TypeError:
        raise SiteError(
            f"{name} must be whole numbers"
            + " (of a mask, its nonzero indices)" * _masked(items)
            + (
                f", a keyword ({', '.join(KEYWORDS)}), a word or (row, col) pairs"
                * (name == "positions")
            )
            + f"; got {items!r}"
        ) from None
