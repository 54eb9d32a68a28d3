"""``Batch``: encoded samples, ready for the model, with their token map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor, device

from mechvrp.models.tokens import TokenMap

if TYPE_CHECKING:
    from mechvrp.data import Sample

__all__ = ["Batch", "sample_key"]


def sample_key(sample: Sample) -> str:
    """What tells a sample from others of its dataset."""
    return "\0".join((sample.image_id, sample.task, sample.question))


@dataclass(frozen=True)
class Batch:
    """Encoded samples.

    Attributes:
        inputs: the keyword arguments of the Hugging Face model, on its device.
        tokens: which position is what.
        samples: the samples, ``None`` where the inputs were encoded elsewhere.
        prompts: the text of each prompt as given to the processor, ``None`` likewise.
    """

    inputs: Mapping[str, Tensor]
    tokens: TokenMap
    samples: tuple[Sample, ...] | None = None
    prompts: tuple[str, ...] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """What tells samples apart wherever they are: image, task and question, or the row's number.

        Random draws belong to these keys, so a sample has the same ones in any batch. Rows encoded
        elsewhere have nothing but their number.
        """
        if self.samples is None:
            return tuple(f"row {i}" for i in range(len(self)))
        return tuple(sample_key(sample) for sample in self.samples)

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, target: str | device) -> Batch:
        """The same batch with its inputs on another device."""
        return replace(self, inputs={k: v.to(target) for k, v in self.inputs.items()})

    def __repr__(self) -> str:
        images = sorted({shape for t in self.tokens.images for shape in t.shapes})
        grids = ", ".join(f"{r}x{c}" for r, c in images)
        return f"Batch({len(self)} samples, {self.tokens.length} positions, image grids {grids})"
