"""Which questions a model cannot be asked, found before anything is computed of the others."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvrp.data import Sample
from mechvrp.errors import DataError, InputError
from mechvrp.models.rotations import (
    RotaryLimit,
    RotaryLimitError,
    lengths_of,
    rotary_limits,
)
from mechvrp.models.vlm import VLM

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Asked", "refusals"]

Size = tuple[int, int]

Asked = tuple[str, str, Size]
"""A question, its task, and width and height of the image it is about."""

# Room beside the largest image, since not every size was tried.
_ROOM = 1.25
_SHORT = "?"


def refusals(
    model: VLM, asked: Sequence[Asked], *, new_tokens: int = 1, together: bool = True
) -> dict[int, str]:
    """Why the model cannot be asked some of these, by their numbers.

    It is tried with those that it may refuse, with a black image of the size:

    - of images, those at the corners of all sizes in log(width), log(height). Limits of a side, of the area
      and of the aspect ratio are straight lines there, so that where the corners are taken nothing between
      them is refused. Where one is refused, there are new corners without it, until all are taken;
    - of questions, those that spell a special token (an image's placeholder, a beginning), and those whose
      bytes may be more than the tokens that the largest image leaves (a token stands for one byte at least).

    What a processor refuses for other reasons is still refused when it is encoded.

    Where rotary frequencies depend on other prompts beyond some length (`rotary_limits`), questions that pass
    it with their answers are left out too, if there are others that do not.

    Args:
        model: with a processor.
        asked: the questions.
        new_tokens: the most that an answer may have.
        together: whether several are asked in one batch.

    Raises:
        UnavailableError: the model cannot encode any sample.
    """
    lengths: dict[Asked, int | str] = {}
    positions: dict[Asked, int] = {}

    def length(one: Asked) -> int | str:
        """Tokens of the prompt, or why there is none."""
        if one not in lengths:
            question, task, size = one
            try:
                batch = model.encode(Sample(_black(size), question, task=task))
            except (DataError, InputError, RotaryLimitError) as error:
                lengths[one] = str(error)
            else:
                lengths[one] = batch.inputs["input_ids"].shape[1]
                positions[one] = lengths_of(batch.inputs)[1]
        return lengths[one]

    tasks = sorted({task for _, task, _ in asked})
    if not tasks:
        return {}
    refused, taken = _refused_sizes(
        {size for _, _, size in asked},
        lambda size: isinstance(length((_SHORT, tasks[0], size)), str),
    )
    longest = _longest(length, tasks, taken)
    specials = _specials(model)
    starts = {token[0] for token in specials}
    found, near = {}, dict[int, int]()
    limits = [limit for limit in rotary_limits(model.model) if together or limit.kind != "longrope"]
    rooms = [limit.most - new_tokens + 1 for limit in limits]
    most = min([math.inf if model.n_ctx is None else model.n_ctx, *rooms])
    for index, one in enumerate(asked):
        question, task, size = one
        tokens = _ROOM * longest[task] + _bytes(question)
        long = tokens > most
        spelt = any(start in question for start in starts) and any(
            token in question for token in specials
        )
        if long or spelt or size in refused:
            why = length(one)
            if isinstance(why, str):
                found[index] = why
            elif long:
                near[index] = positions[one]
    for limit, room in zip(limits, rooms, strict=True):
        near = {index: n for index, n in near.items() if index not in found}
        for index in _beyond(near, len(asked) - len(found), limit, room):
            found[index] = (
                f"its prompt is {near[index]} positions long, and with an answer of up to {new_tokens} tokens "
                f"it passes {limit.most}, beyond which the frequencies of the model's rotary positions "
                f"(rope_type={limit.kind!r}) depend on other prompts: shorten the question, or allow fewer new "
                "tokens (max_new_tokens)"
            )
    return found


def _beyond(near: dict[int, int], number: int, limit: RotaryLimit, room: int) -> set[int]:
    """Which questions must be left out so that the rest do not change one another.

    Args:
        near: positions of the prompts that may be beyond the limit.
        number: of all questions.
        limit: of the model.
        room: the most positions that a prompt may have, so that its answer stays below.
    """
    beyond = {index for index, n in near.items() if n > room}
    if len(beyond) < number:
        return beyond
    # None stays below. Prompts that are beyond by themselves can be asked beside each other, not beside
    # those that only their answers bring there; but most of the questions are not given up for a few.
    over = {index for index in beyond if near[index] > limit.most}
    return beyond - over if limit.kind == "longrope" and 2 * len(over) > number else set()


def _refused_sizes(
    sizes: Collection[Size], refuses: Callable[[Size], bool]
) -> tuple[set[Size], set[Size]]:
    """The sizes that are refused, and those among the others that were tried."""
    ordered = sorted(set(sizes))
    points = np.log(np.array(ordered, dtype=float)).reshape(-1, 2)
    left = np.arange(len(ordered))
    refused, taken = set[Size](), set[Size]()
    while len(left):
        corners = {ordered[i]: i for i in left[_corners(points[left])]}
        new = sorted(set(corners) - taken)
        if not new:
            break
        bad = {size for size in new if refuses(size)}
        taken |= set(new) - bad
        refused |= bad
        left = np.setdiff1d(left, [corners[size] for size in bad])
    # Tilings have most tokens where an image is large and all but square, which need be no corner.
    if len(left):
        squarest = ordered[left[int(points[left].min(axis=1).argmax())]]
        if squarest not in taken:
            (refused if refuses(squarest) else taken).add(squarest)
    return refused, taken


def _corners(points: np.ndarray) -> np.ndarray:
    """Numbers of those that the others lie between."""
    from scipy.spatial import ConvexHull, QhullError

    if len(points) < 4:
        return np.arange(len(points))
    try:
        return np.asarray(ConvexHull(points).vertices)
    except QhullError:  # they lie on one line, which has two ends; sorted, these are first and last
        return np.array([0, len(points) - 1])


def _longest(
    length: Callable[[Asked], int | str], tasks: Sequence[str], sizes: Collection[Size]
) -> dict[str, float]:
    """Tokens of the shortest question about the largest image, by task; without end where it is refused."""
    first = {size: length((_SHORT, tasks[0], size)) for size in sizes}
    known = {size: n for size, n in first.items() if isinstance(n, int)}
    if not known:
        return dict.fromkeys(tasks, np.inf)
    smallest = min(known, key=lambda size: (size[0] * size[1], size))
    found = {}
    for task in tasks:  # prompts of tasks differ in their text alone
        own = length((_SHORT, task, smallest))
        more = own - known[smallest] if isinstance(own, int) else np.inf
        found[task] = max(known.values()) + more
    return found


def _specials(model: VLM) -> tuple[str, ...]:
    tokenizer: Any = model.tokenizer
    named = getattr(tokenizer, "all_special_tokens", ())
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    image = str(getattr(model.processor, "image_token", "") or "")
    return tuple({image, *named, *(token.content for token in added if token.special)} - {""})


def _bytes(question: str) -> int:
    """In UTF-8; tokenizers may first write what one character stands for in full, or take it apart."""
    forms = (question, *(unicodedata.normalize(form, question) for form in ("NFKC", "NFKD")))
    return max(len(form.encode("utf-8", "replace")) for form in forms)


def _black(size: Size) -> Callable[[], Image]:
    from PIL import Image

    return lambda: Image.new("RGB", size)
