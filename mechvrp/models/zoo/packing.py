"""Many single-turn prompts about one image in one sequence, exactly as if each stood alone.

The image is most of a sequence, and under causal attention its tokens do not depend on what
follows. So its questions are laid side by side behind it as *branches*: every branch sees the image
and itself, starts at the same position id, and computes what its single-turn prompt would have
computed. One forward pass trains a dozen questions an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from mechvrp.errors import DataError

__all__ = ["Branch", "Packed", "pack_branches"]

_IGNORED = -100
_GROUP = 4  # branches that attend in one call: fewer calls against fewer hidden pairs


class Branch(NamedTuple):
    """Token ids of one prompt behind the image, where its answer starts, and a loss weight."""

    ids: list[int]
    answer: int
    weight: float


@dataclass(frozen=True)
class Packed:
    """Model inputs and supervision of packed branches.

    Attributes:
        inputs: ``input_ids`` and ``position_ids`` ``[batch, length]``, ``attention_mask``
            ``[1, 1, length, length]`` (true: may look), and what else the family needs.
        targets: ``[batch, length]``, the id to predict *at* each position, -100 where there is
            none.
        weights: ``[batch, length]``, loss weights.
        answers: ``[batch, branches]``, the position that predicts each branch's first answer token.
        groups: where the shared image ends and where each group of branches ends, in positions: a
            group sees the image and itself, and nothing sees more.
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    weights: torch.Tensor
    answers: torch.Tensor
    groups: tuple[int, ...]


def pack_branches(
    prefix: list[int],
    rows: Sequence[Sequence[Branch]],
    slots: Sequence[int],
    *,
    pad: int,
    end_weight: float = 0.2,
) -> Packed:
    """Pack branches behind a common prefix.

    Args:
        prefix: ids up to and including the image.
        rows: for each image, its branches, as many as there are slots.
        slots: the room of each branch, in tokens; equal in all rows, so that one mask serves a
            batch.
        pad: id that fills what a branch leaves of its slot.
        end_weight: loss weight of the closing token relative to the answer's.

    Raises:
        DataError: a row with too few or too many branches, or a branch longer than its slot.
    """
    start, length = len(prefix), len(prefix) + sum(slots)
    ids = torch.full((len(rows), length), pad)
    ids[:, :start] = torch.tensor(prefix)
    targets = torch.full((len(rows), length), _IGNORED)
    weights = torch.zeros(len(rows), length)
    answers = torch.zeros(len(rows), len(slots), dtype=torch.long)
    for r, row in enumerate(rows):
        if len(row) != len(slots):
            raise DataError(f"image {r} has {len(row)} questions for {len(slots)} slots")
        at = start
        for b, (branch, room) in enumerate(zip(row, slots, strict=True)):
            if len(branch.ids) > room:
                raise DataError(
                    f"a prompt of {len(branch.ids)} tokens does not fit a slot of {room}"
                )
            stop = at + len(branch.ids)
            ids[r, at:stop] = torch.tensor(branch.ids)
            first = at + branch.answer - 1  # the position that predicts the answer's first token
            targets[r, first : stop - 1] = ids[r, first + 1 : stop]
            weights[r, first : stop - 1] = branch.weight
            weights[r, stop - 2] = branch.weight * end_weight
            answers[r, b] = first
            at += room
    branch_of = torch.zeros(length, dtype=torch.long)
    positions = torch.arange(length)
    at = start
    for b, room in enumerate(slots, start=1):
        branch_of[at : at + room] = b
        positions[at : at + room] = torch.arange(start, start + room)
        at += room
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = causal & ((branch_of[None, :] == 0) | (branch_of[None, :] == branch_of[:, None]))
    inputs = {
        "input_ids": ids,
        "position_ids": positions.expand(len(rows), -1),
        "attention_mask": visible[None, None],
    }
    ends = np.cumsum([start, *slots])
    groups = (*(int(end) for end in ends[:-1:_GROUP]), length)
    return Packed(inputs, targets, weights, answers, groups)
