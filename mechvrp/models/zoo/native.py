"""The recipe's phases at native resolution: every step draws the size its images have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mechvrp.data.digits import Part
from mechvrp.data.scene_layout import Scene
from mechvrp.data.scene_sizes import OWN_SIZE
from mechvrp.models.zoo.language import LanguagePhase
from mechvrp.models.zoo.recipe import Recipe
from mechvrp.models.zoo.sight import SightLoss, SightPhase

__all__ = ["TRAINING_SIZES", "NativeLanguage", "NativeSight"]

# Height and width in pixels, drawn evenly: the sizes of the dataset "scenes-sizes", with the scenes'
# own size as half of the draws. Order and number decide which size a training step draws.
TRAINING_SIZES = (
    (48, 48),
    (48, 48),
    (48, 48),
    (48, 48),
    (48, 72),
    (72, 48),
    (60, 60),
    (84, 84),
)


def _drawn(rng: np.random.Generator) -> tuple[int, int]:
    return TRAINING_SIZES[int(rng.integers(len(TRAINING_SIZES)))]


class NativeSight(SightPhase):
    """The sight phase, at several sizes; measured at the dataset's own."""

    family: Any

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        self.family = self.family.at(_drawn(rng))
        return super().loss(rng)

    def accuracy(self, part: Part = "validation", batches: int = 2) -> float:
        self.family = self.family.at(OWN_SIZE)
        return super().accuracy(part, batches)


class NativeLanguage(LanguagePhase):
    """The language phase, at several sizes; measured at the dataset's own.

    The tower learns on, and so does the decoder's first layer, which tells image tokens their
    places. Without a word about digits both forget them within a few hundred steps (the early loss is
    all captions and counts): naming falls from 74 to 17 percent. So the first phase's loss stays.
    """

    family: Any

    def __init__(self, recipe: Recipe, family: Any, model: Any, processor: Any) -> None:
        self.matching = SightLoss(processor, model.get_input_embeddings(), recipe.seed)
        super().__init__(recipe, family, model, processor, {"heads": self.matching.heads})
        self._behind: torch.Tensor | None = None

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        self.family = self.family.at(_drawn(rng))

        def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            self._behind = output

        handle = self.model.model.language_model.layers[0].register_forward_hook(keep)
        try:
            return super().loss(rng)
        finally:
            handle.remove()

    def beside(self, scenes: list[Scene]) -> torch.Tensor:
        assert self._behind is not None  # the hook has seen the forward pass
        loss: torch.Tensor = self.matching(self.family.on_grid(self._behind), scenes)
        return self.recipe.sight_share * loss

    def accuracy(self, count: int) -> dict[str, float]:
        self.family = self.family.at(OWN_SIZE)
        return super().accuracy(count)
