"""VQAv2: open questions about COCO images, ten answers each.

Goyal et al., "Making the V in VQA Matter" (CVPR 2017, arXiv 1612.00837); visualqa.org.
"""

from __future__ import annotations

import os

from mechvrp.data.benchmark import check_choice
from mechvrp.data.coco_vqa import VQAFiles, load_coco_vqa
from mechvrp.data.images import MAX_PIXELS
from mechvrp.data.sample import Dataset
from mechvrp.errors import DataError

__all__ = ["SPLITS", "load_vqav2"]

SPLITS = ("train2014", "val2014")
"""The splits whose answers are public."""

_UNANSWERED = ("test2015", "test-dev2015")
_FILES = VQAFiles(
    name="vqav2",
    questions="v2_OpenEnded_mscoco_{}_questions.json",
    annotations="v2_mscoco_{}_annotations.json",
    source="visualqa.org/download.html",
)


def load_vqav2(
    *,
    root: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    images_root: str | os.PathLike[str] | None = None,
    verify_images: bool | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load VQAv2 from its official JSON files.

    Each sample has task ``"vqa"``, as ``answer`` the most frequent one
    (``multiple_choice_answer``), the image's file name as ``image_id`` (as POPE's), and in ``meta``
    ``answers`` (the ten, which :func:`mechvrp.data.score` judges by), ``question_id``,
    ``question_type`` and ``answer_type`` (``"yes/no"``, ``"number"``, ``"other"``).

    Args:
        root: folder with ``v2_OpenEnded_mscoco_{split}_questions.json`` and
            ``v2_mscoco_{split}_annotations.json``, directly or under ``questions/`` and
            ``annotations/``.
        split: one of :data:`SPLITS`, or ``None`` for both.
        limit: at most this many questions, drawn by ``seed``.
        seed: of that draw.
        on_error: ``"raise"``, or ``"skip"`` to leave bad records out and list them in ``skipped``.
        images_root: where ``{split}/``, ``images/{split}/``, ``images/`` or the images themselves
            are; ``root`` by default.
        verify_images: decode each distinct image now (``None``: only under ``"skip"``). Otherwise
            only the presence of the file is checked.
        max_pixels: width x height beyond which an image is refused.

    Raises:
        DataError: a test split (its answers are not public), files are missing or damaged, or,
            under ``"raise"``, a record is, a question has no annotation, or the other way round.
    """
    if split in _UNANSWERED:
        raise DataError(
            f"VQAv2's {split} has no public answers, so nothing can be scored on it; "
            "use split='val2014'"
        )
    if split is not None:
        check_choice("VQAv2", "split", split, SPLITS)
    return load_coco_vqa(
        _FILES,
        root,
        SPLITS if split is None else (split,),
        answer_key="answer",
        limit=limit,
        seed=seed,
        on_error=on_error,
        images_root=images_root,
        verify_images=verify_images,
        max_pixels=max_pixels,
        info={"split": split},
    )
