"""Measuring a native-resolution checkpoint at other image sizes than the dataset's own."""

from __future__ import annotations

from typing import Any

from mechvrp.data.scene_sizes import SIZES
from mechvrp.data.scenes import load_scenes
from mechvrp.models.zoo.evaluate import answers

__all__ = ["measure_sizes"]


def measure_sizes(
    model: Any, processor: Any, *, n_images: int = 100, seed: int = 1_000, batch: int = 64
) -> dict[str, dict[str, Any]]:
    """Accuracy in the mixed split by image size, greedy and single-turn, on unseen digits.

    Returns:
        By ``"HEIGHTxWIDTH"``: ``accuracy``, ``n`` (samples), and ``tasks``, each task's accuracy.
    """
    figures: dict[str, dict[str, Any]] = {}
    for size in SIZES:  # the same scenes and questions at each
        samples = list(load_scenes(split="mixed", n_images=n_images, seed=seed, sizes=[size]))
        said = answers(model, processor, samples, batch=batch)
        hits: dict[str, list[bool]] = {}
        for answer, sample in zip(said, samples, strict=True):
            hits.setdefault(sample.task, []).append(answer == sample.answer)
        every = [hit for row in hits.values() for hit in row]
        figures[f"{size[0]}x{size[1]}"] = {
            "accuracy": round(sum(every) / len(every), 4),
            "n": len(every),
            "tasks": {task: round(sum(row) / len(row), 4) for task, row in hits.items()},
        }
    return figures
