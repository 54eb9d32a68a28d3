"""Second phase: the language model learns to answer, under a curriculum; towers are mostly frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mechvrp.data.digits import Part
from mechvrp.data.scene_layout import Scene, draw_scene
from mechvrp.data.scene_questions import (
    Question,
    caption,
    counting,
    existence,
    identification,
    location,
    mixed,
)
from mechvrp.data.scene_render import render_pixels
from mechvrp.models.zoo.packed_layers import packed_layers
from mechvrp.models.zoo.phase import Phase, step_rng
from mechvrp.models.zoo.recipe import Recipe, ZooFamily

__all__ = ["LanguagePhase", "training_questions"]

_POLLS = 4
_IDENTIFICATIONS = 3
_LOCATIONS = 4
_SPATIAL = 4


def training_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Seventeen questions about a scene: the four tasks, and two that lead up to them.

    Four polls, three identifications, four relations, a count; four locations (half of a relation)
    and a caption (all identifications at once) are not evaluated.

    Absent digits are drawn evenly, never by co-occurrence: what an adversarial poll asks for is, in
    training, usually there. Scenes of one digit have no relations, and get identifications instead.
    """
    present = [int(d) for d in rng.permutation(scene.digits)]
    absent = [int(d) for d in rng.permutation([d for d in range(10) if d not in scene.digits])]
    questions = [
        existence(scene, among[i % len(among)])
        for i in range(_POLLS // 2)
        for among in (present, absent)
    ]
    cells = [scene.placed[int(i)].cell for i in rng.permutation(len(scene.placed))]
    questions += [identification(scene, cells[i % len(cells)]) for i in range(_IDENTIFICATIONS)]
    questions += [location(scene, present[i % len(present)]) for i in range(_LOCATIONS)]
    questions.append(counting(scene))
    for i in range(_SPATIAL):
        relation = [q for q in mixed(scene, rng) if q.task == "spatial"]
        questions += relation or [identification(scene, cells[i % len(cells)])]
    return [*questions, caption(scene)]


class LanguagePhase(Phase):
    """See the module."""

    name = "language"

    def __init__(
        self,
        recipe: Recipe,
        family: ZooFamily,
        model: Any,
        processor: Any,
        further: dict[str, torch.nn.Module] | None = None,
    ) -> None:
        self.family, self.model, self.processor = family, model, processor
        tower = family.tower(model)
        tower.requires_grad_(recipe.tower_rate > 0)
        super().__init__(
            recipe,
            {"model": model, **(further or {})},
            steps=recipe.language_steps,
            rate=recipe.language_lr,
            slow=tower,
            slow_rate=recipe.tower_rate,
        )
        self.state = {"stage": 0, "advanced": [], "existence": [], "tasks": []}

    def _scenes(self, rng: np.random.Generator, part: Part, count: int, wild: float) -> list[Scene]:
        stages = self.recipe.stages
        stage = int(self.state["stage"])
        crowd = stages[stage] if stage < len(stages) else None
        return [draw_scene(rng, part=part, crowd=crowd, wild=wild) for _ in range(count)]

    def _forward(
        self, scenes: list[Scene], questions: list[list[Question]]
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Logits ``[n, vocabulary]`` and targets ``[n]`` where supervised, and the packing."""
        packed = self.family.pack(self.processor, questions)
        pixels = self.family.pixels(self.processor, [render_pixels(s) for s in scenes])
        with packed_layers(self.model.model.language_model.layers, packed):
            hidden = self.model.model(**packed.inputs, **pixels, use_cache=False).last_hidden_state
        return self.model.lm_head(hidden[0]), packed.targets[packed.targets >= 0], packed

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        scenes = self._scenes(rng, "train", self.recipe.language_batch, self.recipe.wild)
        questions = [training_questions(scene, rng) for scene in scenes]
        logits, targets, packed = self._forward(scenes, questions)
        weights = packed.weights[packed.targets >= 0]
        loss = (F.cross_entropy(logits, targets, reduction="none") * weights).sum() / weights.sum()
        return loss + self.beside(scenes)

    def beside(self, scenes: list[Scene]) -> torch.Tensor | float:
        """What else a family minimises, after the forward pass of these scenes."""
        return 0.0

    @torch.no_grad()
    def accuracy(self, count: int) -> dict[str, float]:
        """Accuracy of the first answer token by task, on held-back digits at the present stage."""
        rng = step_rng(self.recipe.seed, "language-check", int(self.state["stage"]))
        scenes = self._scenes(rng, "validation", count, 1.0)
        questions = [training_questions(scene, rng) for scene in scenes]
        right: dict[str, list[bool]] = {}
        for start in range(0, count, self.recipe.language_batch):
            rows = slice(start, start + self.recipe.language_batch)
            logits, targets, packed = self._forward(scenes[rows], questions[rows])
            hit = torch.zeros_like(packed.targets, dtype=torch.bool)
            hit[packed.targets >= 0] = logits.argmax(-1) == targets
            for r, row in enumerate(questions[rows]):
                for b, question in enumerate(row):
                    right.setdefault(question.task, []).append(bool(hit[r, packed.answers[r, b]]))
        return {task: sum(hits) / len(hits) for task, hits in right.items()}

    def after(self, step: int) -> None:
        """Measure every ``gate_every`` steps; advance when seeing and locating pass the gate."""
        if step % self.recipe.gate_every:
            return
        tasks = self.accuracy(self.recipe.gate_scenes)
        self.state["tasks"].append([step, self.state["stage"], tasks])
        stage, began = self.state["stage"], (self.state["advanced"] or [0])[-1]
        passed = (tasks["existence"] + tasks["identification"]) / 2 >= self.recipe.gate
        if stage < len(self.recipe.stages) and (passed or step - began >= self.recipe.patience):
            self.state["stage"] += 1
            self.state["advanced"].append(step)
