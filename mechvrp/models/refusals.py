"""Which questions a model cannot be asked, found before anything is computed of the others."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mechvrp.data import Sample
from mechvrp.errors import MechVRPError
from mechvrp.models.vlm import VLM

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Asked", "refusals"]

Size = tuple[int, int]

Asked = tuple[str, str, Size]
"""A question, its task, and width and height of the image it is about."""

# Room beside the largest image: the number of tokens of tilings is not largest at a corner of the sizes.
_ROOM = 1.25


def refusals(model: VLM, asked: Sequence[Asked]) -> dict[int, str]:
    """Why the model cannot be asked some of these, by their numbers.

    It is tried with those that it may refuse, with a black image of the size:

    - of images, those at the corners of all sizes in log(width), log(height). Limits of a side, of the area
      and of the aspect ratio are straight lines there, so that where the corners are taken nothing between
      them is refused. Where one is refused, there are new corners without it, until all are taken;
    - of questions, those that spell the image's placeholder, and those whose bytes may be more than the
      tokens that the largest image leaves (a token stands for one byte at least).

    What a processor refuses for other reasons is still refused when it is encoded.

    Args:
        model: with a processor.
        asked: the questions.
    """

    def reason(one: Asked) -> str | None:
        question, task, size = one
        try:
            model.encode(Sample(_black(size), question, task=task))
        except MechVRPError as error:
            return str(error)
        return None

    tasks = {task for _, task, _ in asked}
    if not tasks:
        return {}
    some = min(tasks)
    refused, corners = _refused_sizes(
        {size for _, _, size in asked}, lambda size: reason(("?", some, size)) is not None
    )
    longest = {task: _longest(model, task, corners) for task in tasks}
    token = str(getattr(model.processor, "image_token", "") or "")
    found = {}
    for index, one in enumerate(asked):
        question, task, size = one
        tokens = _ROOM * longest[task] + _bytes(question)
        long = model.n_ctx is not None and tokens > model.n_ctx
        if long or size in refused or (token and token in question):
            why = reason(one)
            if why is not None:
                found[index] = why
    return found


def _refused_sizes(
    sizes: Collection[Size], refuses: Callable[[Size], bool]
) -> tuple[set[Size], set[Size]]:
    """The sizes that are refused, and those among the others that were tried."""
    left, refused, taken = set(sizes), set[Size](), set[Size]()
    while new := _corners(left) - taken:
        bad = {size for size in sorted(new) if refuses(size)}
        taken |= new - bad
        refused |= bad
        left -= bad
    return refused, taken


def _corners(sizes: Collection[Size]) -> set[Size]:
    """Those that the others lie between, in log(width), log(height)."""
    from scipy.spatial import ConvexHull, QhullError

    ordered = sorted(sizes)
    if len(ordered) < 4:
        return set(ordered)
    points = np.log(np.array(ordered, dtype=float))
    try:
        return {ordered[i] for i in ConvexHull(points).vertices}
    except QhullError:  # they lie on one line, which has two ends; sorted, these are first and last
        return {ordered[0], ordered[-1]}


def _longest(model: VLM, task: str, sizes: Collection[Size]) -> int:
    """Tokens of the longest prompt of the shortest question about an image of these sizes."""
    found = [
        model.encode(Sample(_black(size), "?", task=task)).inputs["input_ids"].shape[1]
        for size in sizes
    ]
    return max(found, default=0)


def _bytes(question: str) -> int:
    """In UTF-8; tokenizers may first write what one character stands for in full."""
    plain = len(question.encode("utf-8", "replace"))
    return max(plain, len(unicodedata.normalize("NFKC", question).encode("utf-8", "replace")))


def _black(size: Size) -> Callable[[], Image]:
    from PIL import Image

    return lambda: Image.new("RGB", size)
