"""The language phase under a prefix mask: questions apart from the image first, then alone with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mechvrp.data.scene_layout import Scene
from mechvrp.data.scene_questions import Question
from mechvrp.data.scene_render import render_pixels
from mechvrp.models.zoo.language import LanguagePhase, training_questions
from mechvrp.models.zoo.packed_layers import packed_layers
from mechvrp.models.zoo.packing import Packed
from mechvrp.models.zoo.phase import step_rng

__all__ = ["PrefixLanguage"]

# From this share of the phase on, every question stands alone: the image's tokens then learn to
# look at the one question they will be asked.
_ALONE_FROM = 0.8
_ALONE = 3  # questions an image in those steps: three sequences cost what seventeen branches cost
_MEASURED = 6  # questions an image in a measurement


class PrefixLanguage(LanguagePhase):
    """See the module. Measurements are exact, whatever the steps are."""

    family: Any

    def __init__(self, recipe: Any, family: Any, model: Any, processor: Any) -> None:
        super().__init__(recipe, family, model, processor)
        self.done = 0

    def step(self, step: int) -> float:
        self.done = step
        return super().step(step)

    def _logits(self, packed: Packed, scenes: list[Scene], each: int) -> torch.Tensor:
        """Logits ``[n, vocabulary]`` where supervised; every scene serves ``each`` rows."""
        pixels = self.family.pixels(self.processor, [render_pixels(s) for s in scenes])
        seen = self.family.encoded(self.model, pixels, each)
        with packed_layers(self.model.model.language_model.layers, packed):
            hidden = self.model.model(
                **packed.inputs, mm_encoder_outputs={"image": seen}, use_cache=False
            ).last_hidden_state
        return self.model.lm_head(hidden[0])

    def _chosen(
        self, questions: list[Question], rng: np.random.Generator, count: int
    ) -> list[Question]:
        return [questions[int(i)] for i in rng.permutation(len(questions))[:count]]

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        scenes = self._scenes(rng, "train", self.recipe.language_batch, self.recipe.wild)
        questions = [training_questions(scene, rng) for scene in scenes]
        if self.done >= _ALONE_FROM * self.steps:
            chosen = [self._chosen(row, rng, _ALONE) for row in questions]
            packed = self.family.alone(self.processor, [q for row in chosen for q in row])
            logits = self._logits(packed, scenes, _ALONE)
        else:
            packed = self.family.pack(self.processor, questions)
            logits = self._logits(packed, scenes, 1)
        wanted = packed.targets >= 0
        weights = packed.weights[wanted]
        losses = F.cross_entropy(logits, packed.targets[wanted], reduction="none")
        return (losses * weights).sum() / weights.sum()

    @torch.no_grad()
    def accuracy(self, count: int) -> dict[str, float]:
        """Accuracy of the first answer token by task, single-turn, on held-back digits."""
        rng = step_rng(self.recipe.seed, "language-check", int(self.state["stage"]))
        scenes = self._scenes(rng, "validation", count, 1.0)
        chosen = [self._chosen(training_questions(s, rng), rng, _MEASURED) for s in scenes]
        right: dict[str, list[bool]] = {}
        batch = max(1, self.recipe.language_batch // 2)
        for start in range(0, count, batch):
            flat = [q for row in chosen[start : start + batch] for q in row]
            packed = self.family.alone(self.processor, flat)
            logits = self._logits(packed, scenes[start : start + batch], _MEASURED)
            hit = torch.zeros_like(packed.targets, dtype=torch.bool)
            hit[packed.targets >= 0] = logits.argmax(-1) == packed.targets[packed.targets >= 0]
            for r, question in enumerate(flat):
                right.setdefault(question.task, []).append(bool(hit[r, packed.answers[r, 0]]))
        return {task: sum(hits) / len(hits) for task, hits in right.items()}
