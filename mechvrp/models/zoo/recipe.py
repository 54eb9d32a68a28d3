"""The recipe's numbers, and what a family has to bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mechvrp.data.scene_questions import Question
    from mechvrp.models.zoo.packing import Packed

__all__ = ["Recipe", "ZooFamily"]


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run: equal recipes give equal weights on one machine.

    Two phases. *Sight*: vision tower and projector learn to name the digit under every image token,
    in the language model's own word embeddings. *Language*: projector and language model learn to
    answer, the tower frozen unless it has a ``tower_rate``, under a curriculum of growing crowds; it
    moves on when the mean of existence and identification on held-back training digits passes
    ``gate`` (or patience ends).

    Attributes:
        seed: of weights and data.
        sight_steps, sight_batch, sight_lr: steps, scenes a step, peak learning rate.
        sight_crowds: digits a scene.
        language_steps, language_batch, language_lr: the same for the second phase.
        tower_rate: learning rate of the tower in the second phase, as a share of the language
            model's; 0 freezes it.
        sight_share: weight of the first phase's loss in the second, for families whose tower learns
            on.
        stages: crowds of each stage of the curriculum; training scenes of the usual distribution
            follow as the last stage.
        gate, gate_every, gate_scenes: accuracy to pass, steps between measurements, scenes a
            measurement.
        patience: steps after which a stage ends although the gate was not passed.
        wild: augmentation of training digits (``draw_scene``).
        weight_decay, clip, warmup: AdamW's decay, gradient norm, warm-up steps.
        save_every: steps between checkpoints.
    """

    seed: int = 0
    sight_steps: int = 1200
    sight_batch: int = 64
    sight_lr: float = 2e-3
    sight_crowds: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9)
    language_steps: int = 2500
    language_batch: int = 32
    language_lr: float = 2e-3
    tower_rate: float = 0.0
    sight_share: float = 0.0
    stages: tuple[tuple[int, ...], ...] = ((1, 2), (1, 2, 3, 4))
    gate: float = 0.85
    gate_every: int = 50
    gate_scenes: int = 64
    patience: int = 300
    wild: float = 1.6
    weight_decay: float = 0.05
    clip: float = 1.0
    warmup: int = 100
    save_every: int = 100


class ZooFamily(Protocol):
    """One architecture: how to build it and how to write its sequences.

    A family may also bring ``phases``, its own versions of the recipe's two phases; ``recipe``, its
    own numbers; and ``further(model, processor, n_images=..., seed=...)``, measurements of its own.
    """

    name: str
    grid: tuple[int, int]

    def build(self, seed: int) -> tuple[Any, Any]:
        """A model with fresh weights, and its processor; torch's random state stays as it was."""

    def pixels(self, processor: Any, images: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """The processor's own image inputs of ``uint8 [48, 48, 3]`` images."""

    def features(self, model: Any, pixels: dict[str, torch.Tensor]) -> torch.Tensor:
        """Image tokens as the language model gets them, ``[batch, rows, columns, d_model]``."""

    def tower(self, model: Any) -> torch.nn.Module:
        """The vision tower, which the language phase freezes or slows."""

    def pack(self, processor: Any, questions: Sequence[Sequence[Question]]) -> Packed:
        """Training sequences of some images' questions."""
