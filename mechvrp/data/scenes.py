"""The embedded dataset "digit scenes": questions about pictures of handwritten digits.

Generated from a seed, drawn when a sample's image is asked for, and never the digits that the
embedded checkpoints were trained on (except in ``split="train"``). What a scene is:
``scene_layout``. In which sizes there are images of it: ``scene_sizes``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, islice
from typing import Any

from mechvrp.data.digits import DIGIT_WORDS
from mechvrp.data.sample import Dataset, Sample
from mechvrp.data.scene_counterfactual import counterfactual_pair
from mechvrp.data.scene_layout import Scene
from mechvrp.data.scene_questions import POLLS, TASKS, Question, mixed, polls
from mechvrp.data.scene_render import render
from mechvrp.data.scene_sizes import OWN_SIZE, SIZES, checked_sizes, scaled_box
from mechvrp.data.scene_streams import question_rng, scene_at, size_rng
from mechvrp.errors import DataError

__all__ = ["SPLITS", "counterfactual_pair", "load_scenes", "load_sized_scenes", "scene_samples"]

SPLITS = ("mixed", *POLLS, "train")

#: Samples and scenes that one call may ask for: each sample takes some kilobytes of memory.
MOST = 10_000_000


def _meta(
    scene: Scene, question: Question, seed: int, index: int, size: tuple[int, int]
) -> dict[str, Any]:
    """What is known about a sample: ground truth of the picture, and what the question asks for."""
    by_word = {DIGIT_WORDS[p.digit]: p for p in scene.placed}
    return {
        "cells": {word: p.cell for word, p in by_word.items()},
        "boxes": {word: scaled_box(p.box, size) for word, p in by_word.items()},
        "digit_images": {word: p.image for word, p in by_word.items()},
        "strengths": {word: p.strength for word, p in by_word.items()},
        "crowd": len(scene.placed),
        "contrast": scene.contrast,
        "noise": scene.noise,
        "seed": seed,
        "index": index,
        "size": size,
        **question.about,
    }


def scene_samples(
    split: str,
    seed: int,
    index: int,
    task: str | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> list[Sample]:
    """All samples of one scene of a split (of one task): a function of its arguments alone."""
    scene, rng = scene_at(split, seed, index), question_rng(split, seed, index)
    size, image_id = OWN_SIZE, f"{'train-' if split == 'train' else ''}{seed}-{index:05d}"
    if sizes is None:
        image_id = f"scenes-{image_id}"
    else:
        size = sizes[int(size_rng(split, seed, index).integers(len(sizes)))]
        # Another size is another picture, so other ``sizes`` give other names.
        image_id = f"scenes-sizes-{image_id}-{size[0]}x{size[1]}"
    questions = polls(scene, split, rng) if split in POLLS else mixed(scene, rng)
    return [
        Sample(
            partial(render, scene, size),
            question.text,
            question.answer,
            image_id=image_id,
            task=question.task,
            split=split,
            meta=_meta(scene, question, seed, index, size),
        )
        for question in questions
        if task in (None, question.task)
    ]


def _generate(
    split: str,
    task: str | None,
    seed: int,
    n_images: int | None,
    counterfactual: bool,
    sizes: Sequence[tuple[int, int]] | None,
) -> Iterator[Sample]:
    for index in count() if n_images is None else range(n_images):
        for sample in scene_samples(split, seed, index, task, sizes):
            if not counterfactual:
                yield sample
            elif sample.task in ("existence", "identification"):
                yield sample
                yield counterfactual_pair(sample)


def load_scenes(
    *,
    split: str | None = None,
    task: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    n_images: int | None = None,
    counterfactual: bool = False,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Dataset:
    """The digit scenes.

    Args:
        split: ``"mixed"`` (the default: per image a yes and a no poll, two identifications, a count
            and a relation), ``"random"``, ``"popular"`` or ``"adversarial"`` (POPE's balanced
            existence polls: same images, same yes questions, other absent digits), or ``"train"``
            (the mix, on training scenes).
        task: only ``"existence"``, ``"identification"``, ``"counting"`` or ``"spatial"``.
        limit: at most this many samples; only their scenes are generated.
        seed: of the scenes. Images of different seeds are different, and named so.
        n_images: number of scenes; by default as many as ``limit`` needs, or 500.
        counterfactual: after each existence and identification sample, its counterfactual: the same
            image with one digit replaced, so that the right answer changes
            (``counterfactual_pair``). An even ``limit`` keeps the last pair whole.
        sizes: heights and widths in pixels; each image is resized to one of them, chosen evenly
            and alike in all evaluation splits. Scenes and questions are those without ``sizes``
            (every image 48x48), but the images are named otherwise. A sample's is ``meta["size"]``;
            ``meta["boxes"]`` are in its pixels.

    Raises:
        DataError: an unknown split or task, a task that the split or the counterfactuals do not
            have, a number that is not positive, or unusable sizes.
    """
    split = "mixed" if split is None else split
    if split not in SPLITS:
        raise DataError(f"scenes have no split {split!r}: the splits are {', '.join(SPLITS)}")
    if task is not None and task not in TASKS:
        raise DataError(f"scenes have no task {task!r}: the tasks are {', '.join(TASKS)}")
    if split in POLLS and task not in (None, "existence"):
        raise DataError(
            f"split {split!r} holds existence polls only: ask for {task!r} of split 'mixed'"
        )
    if counterfactual and task in ("counting", "spatial"):
        raise DataError(
            f"replacing one digit does not change a {task} answer: counterfactuals exist for "
            "existence and identification"
        )
    for name, value in (("n_images", n_images), ("limit", limit)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
            raise DataError(f"{name} is {value!r:.60} and must be at least 1 and at most {MOST:,}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise DataError(f"seed is {seed!r:.60} and must not be negative")
    if n_images is None and limit is None:
        n_images = 500
    pairs = None if sizes is None else checked_sizes(sizes)
    samples = list(islice(_generate(split, task, seed, n_images, counterfactual, pairs), limit))
    info: dict[str, Any] = {
        "split": split,
        "task": task,
        "seed": seed,
        "n_images": n_images,
        "limit": limit,
        "counterfactual": counterfactual,
    }
    if pairs is None:
        return Dataset("scenes", samples, info=info)
    return Dataset("scenes-sizes", samples, info={**info, "sizes": pairs})


def load_sized_scenes(
    *,
    split: str | None = None,
    task: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    n_images: int | None = None,
    counterfactual: bool = False,
) -> Dataset:
    """The digit scenes at the sizes of ``SIZES``; arguments and errors as of ``load_scenes``."""
    return load_scenes(
        split=split,
        task=task,
        limit=limit,
        seed=seed,
        n_images=n_images,
        counterfactual=counterfactual,
        sizes=SIZES,
    )
