"""The recipe's phases at native resolution: every step draws the size its images have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mechvrp.data.digits import Part
from mechvrp.data.scene_layout import Scene
from mechvrp.data.scene_render import render_pixels
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


def _matching(processor: Any, model: Any, seed: int) -> SightLoss:
    # Behind the decoder's first layer, in front of the norm of the second one's attention.
    return SightLoss(processor, model.get_input_embeddings(), seed, cosine=True)


class NativeSight(SightPhase):
    """The sight phase, at several sizes; measured at the dataset's own.

    Image tokens get their places in the decoder's first layer. Behind it they are to point where the
    embeddings of their words point, and words in questions still, too: so the second layer's attention
    can match the one with the other.
    """

    family: Any

    def _matching(self) -> SightLoss:
        return _matching(self.processor, self.model, self.recipe.seed)

    def _compared(self, scenes: list[Scene]) -> tuple[torch.Tensor, torch.Tensor | None]:
        pixels = self.family.pixels(self.processor, [render_pixels(s) for s in scenes])
        return self.family.compared(self.model, pixels)  # type: ignore[no-any-return]

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        self.family = self.family.at(_drawn(rng))
        return super().loss(rng)

    def accuracy(self, part: Part = "validation", batches: int = 2) -> float:
        self.family = self.family.at(OWN_SIZE)
        return super().accuracy(part, batches)


class NativeLanguage(LanguagePhase):
    """The language phase, at several sizes; measured at the dataset's own.

    The tower learns on, and so does the decoder's first layer, which tells image tokens their
    places. Without a word about digits both forget them within a few hundred steps, the early loss being
    all captions and counts. So the first phase's loss stays.
    """

    family: Any

    def __init__(self, recipe: Recipe, family: Any, model: Any, processor: Any) -> None:
        self.matching = _matching(processor, model, recipe.seed)
        super().__init__(recipe, family, model, processor, {"heads": self.matching.heads})
        self._seen: tuple[torch.Tensor, torch.Tensor] | None = None

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        self.family = self.family.at(_drawn(rng))

        def keep(_module: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            self._seen = inputs[0], output

        handle = self.model.model.language_model.layers[0].register_forward_hook(keep)
        try:
            return super().loss(rng)
        finally:
            handle.remove()

    def beside(self, scenes: list[Scene]) -> torch.Tensor:
        assert self._seen is not None  # the hook has seen the forward pass
        embedded, behind = self._seen
        words = self.family.words(self.model, embedded[:, : self.family.image_end])
        loss: torch.Tensor = self.matching(self.family.on_grid(behind), scenes, words)
        return self.recipe.sight_share * loss

    def accuracy(self, count: int) -> dict[str, float]:
        self.family = self.family.at(OWN_SIZE)
        return super().accuracy(count)
