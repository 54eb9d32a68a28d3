"""The recipe's phases at native resolution: every step draws the size its images have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mechvrp.data.digits import Part
from mechvrp.data.scene_layout import IMAGE_SIZE
from mechvrp.models.zoo.language import LanguagePhase
from mechvrp.models.zoo.sight import SightPhase

__all__ = ["SIZES", "NativeLanguage", "NativeSight", "resized"]

# Height and width in pixels, drawn evenly. The dataset's own size is half of them.
SIZES = (
    (48, 48),
    (48, 48),
    (48, 48),
    (48, 48),
    (48, 72),
    (72, 48),
    (60, 60),
    (84, 84),
)
_OWN = (IMAGE_SIZE, IMAGE_SIZE)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``uint8 [height, width, 3]``: the image at that size (bicubic), or itself if it has it."""
    if image.shape[:2] == size:
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def _drawn(rng: np.random.Generator) -> tuple[int, int]:
    return SIZES[int(rng.integers(len(SIZES)))]


class NativeSight(SightPhase):
    """The sight phase, at several sizes; measured at the dataset's own."""

    family: Any

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        self.family = self.family.at(_drawn(rng))
        return super().loss(rng)

    def accuracy(self, part: Part = "validation", batches: int = 2) -> float:
        self.family = self.family.at(_OWN)
        return super().accuracy(part, batches)


class NativeLanguage(LanguagePhase):
    """The language phase, at several sizes; measured at the dataset's own."""

    family: Any

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        self.family = self.family.at(_drawn(rng))
        return super().loss(rng)

    def accuracy(self, count: int) -> dict[str, float]:
        self.family = self.family.at(_OWN)
        return super().accuracy(count)
