"""Packing under a prefix mask, where a whole prompt looks at itself in both directions.

PaliGemma's image tokens see the question, so what they become differs between the questions about
one image, and branches behind a shared image cannot be exact. Two ways out:

* *apart*: branches behind an image that sees itself and no question. Seventeen questions for the price
  of one image, not quite what users run: most of training. (Letting the image see one of its questions
  at a time, exact for that one, was worse: to the other sixteen it is noise. "Where is the seven?" was
  answered rightly in 40 percent of cases after 1,200 steps, against 75 percent after 1,100 now.)
* *alone*: one question a sequence, exact, an image's tokens repeated for every question. The last
  steps of training, and all measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mechvrp.models.zoo.packing import Branch, Packed, pack_branches

__all__ = ["pack_alone", "pack_apart"]

_FIRST = 1  # PaliGemma counts positions from 1


def pack_apart(
    prefix: list[int], rows: Sequence[Sequence[Branch]], slots: Sequence[int], *, pad: int
) -> Packed:
    """Pack branches behind a common prefix that looks at itself and at none of them.

    Args:
        prefix: ids of the image tokens and ``<bos>``.
        rows: for each image, its branches, as many as there are slots.
        slots: the room of each branch, in tokens.
        pad: id that fills what a branch leaves of its slot.

    Raises:
        DataError: as ``pack_branches``.
    """
    packed = pack_branches(prefix, rows, slots, pad=pad)
    packed.inputs["position_ids"] = packed.inputs["position_ids"] + _FIRST
    mask = packed.inputs["attention_mask"].expand(len(rows), -1, -1, -1).clone()
    shared = len(prefix)
    mask[:, :, :shared, :shared] = True
    for r, row in enumerate(rows):
        start = shared
        for branch, room in zip(row, slots, strict=True):
            question = slice(start, start + branch.answer)
            mask[r, 0, question, question] = True
            start += room
    packed.inputs["attention_mask"] = mask
    return packed


def pack_alone(prefix: list[int], branches: Sequence[Branch], *, pad: int) -> Packed:
    """One prompt and its answer a row, exactly as the model's own prefix mask has them.

    Args:
        prefix: ids of the image tokens and ``<bos>``.
        branches: for each row, its only question.
        pad: id behind a row that is shorter than the longest; nothing looks at it.
    """
    room = max(len(branch.ids) for branch in branches)
    packed = pack_apart(prefix, [[branch] for branch in branches], [room], pad=pad)
    shared = len(prefix)
    for r, branch in enumerate(branches):
        packed.inputs["attention_mask"][r, 0, :shared, shared : shared + branch.answer] = True
    return replace(packed, groups=(shared + room,))  # the image sees the question
