"""Measuring a native-resolution checkpoint at other image sizes than the dataset's own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvrp.data.sample import Sample
from mechvrp.data.scenes import load_scenes
from mechvrp.models.zoo.evaluate import answers
from mechvrp.models.zoo.native import SIZES, resized

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["at_size", "measure_sizes"]


def _resized(sample: Sample, size: tuple[int, int]) -> Image:
    from PIL import Image

    return Image.fromarray(resized(np.asarray(sample.image), size))


def at_size(sample: Sample, size: tuple[int, int]) -> Sample:
    """The sample with its image resized to ``(height, width)`` pixels."""
    return Sample(
        partial(_resized, sample, size),
        sample.question,
        sample.answer,
        image_id=sample.image_id,
        task=sample.task,
        split=sample.split,
        meta=sample.meta,
    )


def measure_sizes(
    model: Any, processor: Any, *, n_images: int = 100, seed: int = 1_000, batch: int = 64
) -> dict[str, dict[str, Any]]:
    """Accuracy in the mixed split by image size, greedy and single-turn, on unseen digits.

    Returns:
        By ``"HEIGHTxWIDTH"``: ``accuracy``, ``n`` (samples), and ``tasks``, each task's accuracy.
    """
    samples = list(load_scenes(split="mixed", n_images=n_images, seed=seed))
    figures: dict[str, dict[str, Any]] = {}
    for size in dict.fromkeys(SIZES):
        said = answers(model, processor, [at_size(s, size) for s in samples], batch=batch)
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
