"""OK-VQA: questions about COCO images that need knowledge from outside them.

Marino et al., "OK-VQA" (CVPR 2019, arXiv 1906.00067); okvqa.allenai.org.
"""

from __future__ import annotations

import os

from mechvrp.data.benchmark import check_choice
from mechvrp.data.coco_vqa import VQAFiles, load_coco_vqa
from mechvrp.data.images import MAX_PIXELS
from mechvrp.data.sample import Dataset

__all__ = ["SPLITS", "load_okvqa"]

SPLITS = ("train2014", "val2014")

_ANSWERS = ("answer", "raw_answer")
_FILES = VQAFiles(
    name="okvqa",
    questions="OpenEnded_mscoco_{}_questions.json",
    annotations="mscoco_{}_annotations.json",
    source="okvqa.allenai.org/download.html",
)


def load_okvqa(
    *,
    root: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    images_root: str | os.PathLike[str] | None = None,
    answers: str = "answer",
    verify_images: bool | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load OK-VQA from its official JSON files.

    Samples are as :func:`~mechvrp.data.vqav2.load_vqav2` has them; ``answer`` is the most frequent
    one. The annotators' answers are published stemmed (``answer``: "race", which the official
    evaluation compares with) and as written (``raw_answer``: "racing").

    Args:
        root: folder with ``OpenEnded_mscoco_{split}_questions.json`` and
            ``mscoco_{split}_annotations.json``, directly or under ``questions/`` and
            ``annotations/``.
        answers: which of the two is scored against, ``"answer"`` (official) or ``"raw_answer"``; it
            is ``meta["answers"]``, and the other ``meta["raw_answers"]`` or
            ``meta["stemmed_answers"]``, for a second score by
            :func:`~mechvrp.data.vqa_accuracy`.
        split, limit, seed, on_error, images_root, verify_images, max_pixels: as of ``load_vqav2``.

    Raises:
        DataError: as ``load_vqav2``.
    """
    check_choice("OK-VQA", "form of answer", answers, _ANSWERS)
    if split is not None:
        check_choice("OK-VQA", "split", split, SPLITS)
    return load_coco_vqa(
        _FILES,
        root,
        SPLITS if split is None else (split,),
        answer_key=answers,
        limit=limit,
        seed=seed,
        on_error=on_error,
        images_root=images_root,
        verify_images=verify_images,
        max_pixels=max_pixels,
        info={"split": split, "answers": answers},
    )
