"""Counterfactual pairs: one digit replaced, so that the right answer changes."""

from __future__ import annotations

from functools import partial

from mechvrp.data.digits import DIGIT_WORDS, Part, digit_indices
from mechvrp.data.fields import check_seed
from mechvrp.data.sample import Sample, check_sample
from mechvrp.data.scene_layout import Scene, replace_digit
from mechvrp.data.scene_questions import existence, identification
from mechvrp.data.scene_render import render
from mechvrp.data.scene_streams import scene_at
from mechvrp.errors import DataError

__all__ = ["counterfactual_pair", "one_digit_replaced"]


def _scene(sample: Sample) -> Scene:
    """The scene behind a sample of ``load_scenes``."""
    meta = sample.meta
    if (
        not {"seed", "index", "size", "cells", "digit"} <= meta.keys()
        or "counterfactual_of" in meta
    ):
        raise DataError(
            f"sample {sample.image_id!r} is not an original digit scene: counterfactuals "
            'exist for the existence and identification samples of mechvrp.data.load("scenes")'
        )
    return scene_at(sample.split, meta["seed"], meta["index"])


def counterfactual_pair(sample: Sample, seed: int = 0) -> Sample:
    """The counterfactual of a sample: same question, one digit replaced, another answer.

    A yes poll loses the digit it asks for; in a no poll, some digit becomes the one asked for; in
    an identification, the digit asked about becomes another that the scene does not hold. The new
    digit stands in the old one's box with its slant, ink and noise: outside that box, pixels are
    identical. A resized image has a counterfactual resized in the same way; there the change
    reaches beyond the box as far as bicubic interpolation looks, two pixels of the 48x48 scene.

    Args:
        sample: an existence or identification sample of the digit scenes.
        seed: chooses the digit and its picture.

    Returns:
        A sample whose ``meta`` also holds ``counterfactual_of`` (the original's ``image_id``),
        ``replaced`` (old and new word), and ``original_answer``.

    Raises:
        DataError: not a digit scene, or a task whose answer one replacement cannot change.
    """
    import numpy as np

    check_sample(sample)
    check_seed(seed)
    if sample.task not in ("existence", "identification"):
        raise DataError(
            f"replacing one digit does not change a {sample.task} answer: counterfactuals exist "
            "for existence and identification"
        )
    scene, meta = _scene(sample), sample.meta
    rng = np.random.default_rng([meta["seed"], meta["index"], seed, 3])
    asked = DIGIT_WORDS.index(meta["digit"])
    absent = [d for d in range(10) if d not in scene.digits]
    if asked in scene.digits:
        old, new = asked, absent[int(rng.integers(len(absent)))]
    else:
        old, new = scene.digits[int(rng.integers(len(scene.digits)))], asked
    indices = digit_indices(_part(sample), new)
    return _replaced(sample, scene, old, new, indices[int(rng.integers(len(indices)))], seed)


def one_digit_replaced(sample: Sample, old: str, new: str, seed: int = 0) -> Sample:
    """A sample's counterfactual of one's own choice: this digit replaced by that one, the same question.

    All else is as of `counterfactual_pair`, but the right answer may stay what it was.

    Args:
        sample: an existence or identification sample of the digit scenes.
        old: the digit that goes, by its word (``"seven"``); of an identification the one asked about.
        new: the digit that comes in its place.
        seed: chooses the digit's picture.

    Raises:
        DataError: as `counterfactual_pair`; ``old`` is not in the scene, or ``new`` is.
    """
    import numpy as np

    check_sample(sample)
    check_seed(seed)
    if sample.task not in ("existence", "identification"):
        raise DataError(
            f"a {sample.task} sample has no counterfactual with one digit replaced: existence and "
            "identification samples have"
        )
    scene = _scene(sample)
    for word in (old, new):
        if word not in DIGIT_WORDS:
            raise DataError(f"no digit {word!r}: the digits are {', '.join(DIGIT_WORDS)}")
    if sample.task == "identification" and old != sample.meta["digit"]:
        raise DataError(
            f"the question is about the {sample.meta['digit']}: replacing the {old} changes nothing asked"
        )
    gone, comes = DIGIT_WORDS.index(old), DIGIT_WORDS.index(new)
    rng = np.random.default_rng([sample.meta["seed"], sample.meta["index"], seed, 5, gone, comes])
    indices = digit_indices(_part(sample), comes)
    return _replaced(
        sample, scene, gone, comes, indices[int(rng.integers(len(indices)))], seed, mark="chosen-"
    )


def _part(sample: Sample) -> Part:
    return "train" if sample.split == "train" else "evaluation"


def _replaced(
    sample: Sample, scene: Scene, old: int, new: int, image: int, seed: int, mark: str = ""
) -> Sample:
    """The sample with ``old`` replaced by that picture of ``new``, and its question asked again."""
    meta = sample.meta
    changed = replace_digit(scene, old, new, image)
    if sample.task == "existence":
        question = existence(changed, DIGIT_WORDS.index(meta["digit"]))
    else:
        question = identification(changed, tuple(meta["cell"]))
    words = DIGIT_WORDS[old], DIGIT_WORDS[new]
    maps = {
        key: {words[1] if word == words[0] else word: value for word, value in meta[key].items()}
        for key in ("cells", "boxes", "strengths")
    }
    return Sample(
        partial(render, changed, meta["size"]),
        question.text,
        question.answer,
        image_id=f"{sample.image_id}-{words[0]}-to-{words[1]}-{mark}{seed}",
        task=sample.task,
        split=sample.split,
        meta={
            **meta,
            **maps,
            **question.about,
            "digit_images": {DIGIT_WORDS[p.digit]: p.image for p in changed.placed},
            "counterfactual_of": sample.image_id,
            "replaced": words,
            "original_answer": sample.answer,
        },
    )
