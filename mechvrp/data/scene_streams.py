"""Which scene is which: a scene is a function of its split's family, the seed and its index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechvrp.data.digits import Part
from mechvrp.data.scene_layout import Scene, draw_scene

if TYPE_CHECKING:
    import numpy as np

__all__ = ["question_rng", "scene_at", "size_rng"]

# Keys of the random streams. Evaluation and training scenes come from different ones, and a scene's
# questions and its size from others than the scene itself, so that all evaluation splits show one
# picture, and show it whether or not sizes are asked for. (3 is taken by the counterfactuals.)
_EVALUATION, _TRAIN = 1, 2
_LAYOUT, _QUESTIONS, _SIZE = 1, 2, 4


def _rng(split: str, seed: int, index: int, stream: int) -> np.random.Generator:
    import numpy as np

    family = _TRAIN if split == "train" else _EVALUATION
    return np.random.default_rng([family, seed, index, stream])


def scene_at(split: str, seed: int, index: int) -> Scene:
    """The scene at ``index`` of a split under ``seed``; all evaluation splits share theirs."""
    part: Part = "train" if split == "train" else "evaluation"
    return draw_scene(_rng(split, seed, index, _LAYOUT), part=part)


def question_rng(split: str, seed: int, index: int) -> np.random.Generator:
    """The generator that chooses the questions of that scene."""
    return _rng(split, seed, index, _QUESTIONS)


def size_rng(split: str, seed: int, index: int) -> np.random.Generator:
    """The generator that chooses the size of that scene's image."""
    return _rng(split, seed, index, _SIZE)
