"""Packing under a prefix mask, where a whole prompt looks at itself in both directions.

PaliGemma's image tokens see the question, so what they become differs between the questions about
one image, and branches behind a shared image cannot all be exact. Two ways out:

* *guest*: branches, of which one, the guest, is seen by the image. The guest's branch computes
  exactly what its single-turn prompt computes; the others compute what theirs would if the image
  had been asked the guest's question. A dozen questions for the price of one image: most of
  training runs on these.
* *alone*: one question a sequence, exact, an image's tokens repeated for every question. The last
  steps of training, and all measurements.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechvrp.errors import DataError
from mechvrp.models.zoo.packing import Branch, Packed, pack_branches

__all__ = ["pack_alone", "pack_guests"]

_FIRST = 1  # PaliGemma counts positions from 1


def pack_guests(
    prefix: list[int],
    rows: Sequence[Sequence[Branch]],
    guests: Sequence[int],
    slots: Sequence[int],
    *,
    pad: int,
    guest_weight: float,
) -> Packed:
    """Pack branches behind a common prefix that looks at itself and at its guest.

    Args:
        prefix: ids of the image tokens and ``<bos>``.
        rows: for each image, its branches, as many as there are slots.
        guests: for each image, which of its branches the prefix sees.
        slots: the room of each branch, in tokens.
        pad: id that fills what a branch leaves of its slot.
        guest_weight: factor on the loss of guests, whose computation is the one that users meet.

    Raises:
        DataError: as ``pack_branches``; or a guest that is no branch.
    """
    packed = pack_branches(prefix, rows, slots, pad=pad)
    packed.inputs["position_ids"] = packed.inputs["position_ids"] + _FIRST
    mask = packed.inputs["attention_mask"].expand(len(rows), -1, -1, -1).clone()
    shared = len(prefix)
    mask[:, :, :shared, :shared] = True
    starts = [shared + sum(slots[:b]) for b in range(len(slots))]
    for r, (row, guest) in enumerate(zip(rows, guests, strict=True)):
        if not 0 <= guest < len(row):
            raise DataError(f"image {r} has {len(row)} questions, and question {guest} as a guest")
        for b, (branch, start) in enumerate(zip(row, starts, strict=True)):
            question = slice(start, start + branch.answer)
            mask[r, 0, question, question] = True
            if b == guest:
                mask[r, 0, :shared, question] = True
                packed.weights[r, start : start + slots[b]] *= guest_weight
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
    rows = [[branch] for branch in branches]
    return pack_guests(prefix, rows, [0] * len(rows), [room], pad=pad, guest_weight=1.0)
