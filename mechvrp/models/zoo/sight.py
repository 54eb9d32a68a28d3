"""First phase: vision tower and projector learn to see, in the language model's own words.

Every image token is matched with the word embeddings of the ten digits and of the nine places,
"top left" to "bottom right" (CLIP's contrastive idea, with words for captions). The language model
then starts from image tokens that already lie near the words it has to answer with, as LLaVA's first
training stage arranges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mechvrp.data.digits import DIGIT_WORDS, Part
from mechvrp.data.scene_layout import CELL, CELL_NAMES, GRID, IMAGE_SIZE, Scene, draw_scene
from mechvrp.data.scene_render import render_pixels
from mechvrp.models.zoo.phase import Phase, step_rng
from mechvrp.models.zoo.recipe import Recipe, ZooFamily

__all__ = ["SightHeads", "SightLoss", "SightPhase", "token_labels"]

_NONE = 10  # the class of image tokens that lie under no digit
_COSINE_SCALE = 10.0  # a digit and a place share a token's direction: each has at most 7 of it
_PLACE_WEIGHT = 0.5  # of the loss on the place, which is learned in the first hundred steps


class SightHeads(torch.nn.Module):
    """What this phase needs and then throws away: a class for bare paper, and a scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.paper = torch.nn.Parameter(torch.zeros(width))
        self.scale = torch.nn.Parameter(torch.zeros(()))


def token_labels(scenes: list[Scene], grid: tuple[int, int]) -> np.ndarray:
    """Which digit each image token's centre lies on, 10 for none: ``[scenes, rows, columns]``."""
    labels = np.full((len(scenes), *grid), _NONE)
    y = (np.arange(grid[0]) + 0.5) * IMAGE_SIZE / grid[0]
    x = (np.arange(grid[1]) + 0.5) * IMAGE_SIZE / grid[1]
    for i, scene in enumerate(scenes):
        for placed in scene.placed:
            left, top, right, bottom = placed.box
            inside = np.outer((y > top) & (y < bottom), (x > left) & (x < right))
            labels[i][inside] = placed.digit
    return labels


class SightLoss(torch.nn.Module):
    """How far image tokens are from the words for what they show and where they are.

    Args:
        processor: its tokenizer knows the words.
        embeddings: the language model's word embeddings (not a part of this module).
        seed: of the heads.
        cosine: compare directions, at a fixed scale: a norm stands before the attention that is to match
            image tokens with words, so lengths mean nothing to it, and angles must not be small.
    """

    def __init__(
        self, processor: Any, embeddings: torch.nn.Module, seed: int, *, cosine: bool = False
    ) -> None:
        super().__init__()
        self.cosine = cosine
        # In a list: not a submodule, whose weights would be saved and trained twice.
        self._embeddings: list[Any] = [embeddings]

        def token(word: str) -> int:
            return int(processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0])

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = SightHeads(self._embeddings[0].weight.shape[1])
        self.words = torch.tensor([token(word) for word in DIGIT_WORDS])
        self.places = torch.tensor([token(name) for row in CELL_NAMES for name in row])
        if cosine:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                torch.nn.init.normal_(self.heads.paper)

    def logits(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Digit logits ``[scenes, rows, columns, 11]`` and place logits ``[..., 9]``."""
        embeddings = self._embeddings[0].weight
        classes = torch.cat([embeddings[self.words], self.heads.paper[None]])
        places = embeddings[self.places]
        if self.cosine:
            features, classes, places = (
                F.normalize(x, dim=-1) for x in (features, classes, places)
            )
            features = features * _COSINE_SCALE
        else:
            features = features * self.heads.scale.exp()
        return features @ classes.T, features @ places.T

    def drift(self, words: torch.Tensor) -> torch.Tensor:
        """How far the directions of digits and places ``[19, d_model]`` are from their embeddings'."""
        anchors = self._embeddings[0].weight[torch.cat([self.words, self.places])]
        return (1 - F.cosine_similarity(words, anchors, dim=-1)).mean()

    def forward(
        self, features: torch.Tensor, scenes: list[Scene], words: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss of image tokens ``[scenes, rows, columns, d_model]``.

        ``words``: the digits and places ``[19, d_model]`` where image tokens are compared with their
        embeddings, if that is not where words are embedded: they are to stay what they were.
        """
        digits, places = self.logits(features)
        grid = (features.shape[1], features.shape[2])
        labels = torch.from_numpy(token_labels(scenes, grid))
        loss = F.cross_entropy(digits.flatten(0, 2), labels.flatten())
        rows, columns = (((torch.arange(n) + 0.5) * IMAGE_SIZE / n // CELL).long() for n in grid)
        cells = (rows[:, None] * GRID + columns[None, :]).expand(len(scenes), -1, -1)
        place = F.cross_entropy(places.flatten(0, 2), cells.flatten())
        total = loss + _PLACE_WEIGHT * place
        return total if words is None else total + self.drift(words)


class SightPhase(Phase):
    """See the module."""

    name = "sight"

    def __init__(self, recipe: Recipe, family: ZooFamily, model: Any, processor: Any) -> None:
        self.family, self.model, self.processor, self.recipe = family, model, processor, recipe
        self.matching = self._matching()
        modules = {"model": model, "heads": self.matching.heads}
        super().__init__(recipe, modules, steps=recipe.sight_steps, rate=recipe.sight_lr)

    def _matching(self) -> SightLoss:
        return SightLoss(self.processor, self.model.get_input_embeddings(), self.recipe.seed)

    def _compared(self, scenes: list[Scene]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Image tokens, and words where they are compared if that is not where words are embedded."""
        pixels = self.family.pixels(self.processor, [render_pixels(s) for s in scenes])
        return self.family.features(self.model, pixels), None

    def _scenes(self, rng: np.random.Generator, part: Part, wild: float) -> list[Scene]:
        crowds = self.recipe.sight_crowds
        return [
            draw_scene(rng, part=part, crowd=crowds, wild=wild)
            for _ in range(self.recipe.sight_batch)
        ]

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        scenes = self._scenes(rng, "train", self.recipe.wild)
        features, words = self._compared(scenes)
        loss: torch.Tensor = self.matching(features, scenes, words)
        return loss

    @torch.no_grad()
    def accuracy(self, part: Part = "validation", batches: int = 2) -> float:
        """Share of digits named rightly by the sum of their tokens' logits, on held-back digits."""
        right = total = 0
        for batch in range(batches):
            scenes = self._scenes(step_rng(self.recipe.seed, "sight-check", batch), part, 1.0)
            logits, _ = self.matching.logits(self._compared(scenes)[0])
            labels = token_labels(scenes, self.family.grid)
            for i, scene in enumerate(scenes):
                for digit in scene.digits:
                    votes = logits[i][torch.from_numpy(labels[i] == digit)].log_softmax(-1).sum(0)
                    right += int(votes[:_NONE].argmax()) == digit
                    total += 1
        return right / total

    def after(self, step: int) -> None:
        if step % 100 == 0 or step == self.steps:
            self.state.setdefault("accuracy", []).append([step, self.accuracy()])
