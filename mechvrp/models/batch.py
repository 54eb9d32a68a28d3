"""``Batch``: encoded samples, ready for the model, with their token map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor, device

from mechvrp.models.tokens import TokenMap

if TYPE_CHECKING:
    from mechvrp.data import Sample

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """Encoded samples.

    Attributes:
        inputs: the keyword arguments of the Hugging Face model, on its device.
        tokens: which position is what.
        samples: the samples, ``None`` where the inputs were encoded elsewhere.
        prompts: the text of each prompt as given to the processor, ``None`` likewise.
        rows: of a batch taken from another one, which of its samples each row is; ``None``: itself.
    """

    inputs: Mapping[str, Tensor]
    tokens: TokenMap
    samples: tuple[Sample, ...] | None = None
    prompts: tuple[str, ...] | None = None
    rows: tuple[int, ...] | None = None

    @property
    def origin(self) -> tuple[int, ...]:
        """Which sample of the batch that was encoded each row is."""
        return tuple(range(len(self))) if self.rows is None else self.rows

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, target: str | device) -> Batch:
        """The same batch with its inputs on another device."""
        return replace(self, inputs={k: v.to(target) for k, v in self.inputs.items()})

    def __repr__(self) -> str:
        images = sorted({shape for t in self.tokens.images for shape in t.shapes})
        grids = ", ".join(f"{r}x{c}" for r, c in images)
        return f"Batch({len(self)} samples, {self.tokens.length} positions, image grids {grids})"
