"""Spatial relations: where is this beside that? Sets in the VRP study's form, and VSR.

VSR: Liu et al., "Visual Spatial Reasoning" (TACL 2023, arXiv 2205.00363).
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from mechvrp.data.assemble import assemble, check_limit, check_max_pixels
from mechvrp.data.benchmark import Entry, check_choice, drafts_of, file_of
from mechvrp.data.counting import read_vrp
from mechvrp.data.fields import text_of, whole_of
from mechvrp.data.images import MAX_PIXELS, ImageFolder
from mechvrp.data.records import Problems, Record, read_json
from mechvrp.data.sample import Dataset
from mechvrp.errors import DataError

__all__ = ["SOURCES", "TEMPLATE", "VSR_SPLITS", "load_spatial"]

SOURCES = ("vrp", "vsr")

VSR_SPLITS = ("train", "dev", "test")

TEMPLATE = 'Is this statement about the image true? "{caption}"'
"""How VSR's captions are asked about: VSR itself labels captions and has no questions."""

_VSR_FOLDERS = ("train2017", "val2017", "images/train2017", "images/val2017")


def load_spatial(
    *,
    root: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: str = "raise",
    images_root: str | os.PathLike[str] | None = None,
    source: str = "vrp",
    template: str = TEMPLATE,
    verify_images: bool | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load questions about spatial relations from a JSON array or JSON lines.

    Each sample has task ``"spatial"``. In the VRP study's form an answer is right if it is the
    record's, normalised. VSR's captions are true or false: they are asked about by ``template``, the
    answer is ``"yes"`` or ``"no"`` and read as POPE's are; ``meta`` holds ``caption`` and
    ``relation``.

    Args:
        root: folder with the file of ``source``: ``"vrp"``: ``spatial.json``, records of
            ``image_id``, ``question`` and ``answer``, the image being ``{image_id}.jpg``; ``"vsr"``:
            ``{split}.jsonl``, records of ``image`` (a file of COCO 2017), ``caption``, ``label`` (0
            or 1) and ``relation``.
        split: of VSR one of :data:`VSR_SPLITS` or ``None`` for all; otherwise ``None``.
        limit: at most this many questions, drawn by ``seed``.
        seed: of that draw.
        on_error: ``"raise"``, or ``"skip"`` to leave bad records out and list them in ``skipped``.
        images_root: where the images are, directly or under ``images/`` (of VSR also under
            ``train2017/`` and ``val2017/``, in ``images/`` or not); ``root`` by default.
        source: one of :data:`SOURCES`.
        template: the question about a VSR caption, with ``{caption}`` for it.
        verify_images: decode each distinct image now (``None``: only under ``"skip"``). Otherwise
            only the presence of the file is checked.
        max_pixels: width x height beyond which an image is refused.

    Raises:
        DataError: a file is missing or damaged, or, under ``"raise"``, a record is, or it repeats
            another.
    """
    check_choice("spatial", "source", source, SOURCES)
    if not isinstance(template, str) or "{caption}" not in template:
        raise DataError(f"template must hold '{{caption}}', got {template!r}")
    if source == "vrp" and split is not None:
        raise DataError(f"spatial sets have no splits, got {split!r}; leave split= out")
    if split is not None:
        check_choice("VSR", "split", split, VSR_SPLITS)
    check_limit(limit)
    check_max_pixels(max_pixels)
    problems = Problems(on_error)
    folders = ("images", "", *(_VSR_FOLDERS if source == "vsr" else ()))
    images = ImageFolder(root if images_root is None else images_root, folders)
    advice = f"the records of source={source!r} belong there"
    drafts = []
    if source == "vrp":
        names, reads = ["spatial.json"], [partial(read_vrp, task="spatial")]
    else:
        splits = VSR_SPLITS if split is None else (split,)
        names = [f"{name}.jsonl" for name in splits]
        reads = [partial(_read_vsr, split=name, template=template) for name in splits]
    for name, read in zip(names, reads, strict=True):
        records = read_json(file_of(Path(root), ("",), name, advice), problems)
        drafts += drafts_of(records, read, problems=problems, images=images, max_pixels=max_pixels)
    return assemble(
        "spatial",
        drafts,
        problems,
        limit=limit,
        seed=seed,
        verify_images=verify_images,
        info={"root": str(root), "split": split, "source": source, "template": template},
    )


def _read_vsr(record: Record, *, split: str, template: str) -> Entry:
    values = record.values
    image, caption = text_of(values, "image"), text_of(values, "caption")
    meta: dict[str, Any] = {
        "caption": caption,
        "relation": text_of(values, "relation"),
        "scoring": "existence",
    }
    fields = {
        "question": template.replace("{caption}", caption),
        "answer": ("no", "yes")[whole_of(values, "label", 2)],
        "image_id": image,
        "task": "spatial",
        "split": split,
        "meta": meta,
    }
    return Entry(f"image {image}, {caption!r}", image, fields)
