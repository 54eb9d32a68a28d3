"""Whether each image token answers to the pixels of the place that a layout gives it.

Every token is tried, with few runs: a cell of an image has a number of the image, of its row and of its
column, and for each bit of these the cells that have it are changed in one run, the others in another. A
token moves more in that of the two in which its own cell is changed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mechvrp.models.image_tokens import place_images
from mechvrp.models.structure.layouts import Layout
from mechvrp.models.structure.probing import Probe

__all__ = ["misplaced"]

#: How many times as much a token is to move with its own cell as with all that have another bit.
_SURE = 2.0
#: Up to how many cells a sample are tried one by one where that is not so.
_FEW = 256


class _Cells:
    """The cells of all images, numbered from 1 on.

    Attributes:
        at: image (of the batch), row and column of each number, [number, 3]; the first row is of none.
        tokens: the number of the cell that each position stands for, 0 for none, [batch, pos].
        pixels: the number of the cell that each part of the pixels is of, to be broadcast with them.
    """

    def __init__(self, probe: Probe, rule: Layout, image: Tensor, counts: list[int]) -> None:
        grids = rule.grids(probe.model, probe.inputs, counts)
        at = [
            (index, r, c)
            for index, g in enumerate(grids)
            for r in range(g.rows)
            for c in range(g.cols)
        ]
        self.at = torch.tensor([(0, 0, 0), *at])
        self.tokens = torch.zeros(image.shape, dtype=torch.long)
        number = 0
        for sample, placed in enumerate(place_images(torch.where(image, 1, 0), 1, grids)):
            here = placed.position[placed.row >= 0]
            self.tokens[sample, here] = number + torch.arange(1, len(here) + 1)
            number += len(here)
        pixels = probe.pixels()
        axis = -3 if pixels.ndim >= 4 else -1  # channels, or values of a patch: all of one cell
        thin = pixels.any(axis, keepdim=True).cpu().float()
        thin.neg_()  # tiles of zeros stay so
        given = {**probe.inputs, "pixel_values": thin}
        for one, (index, row, col) in enumerate(at):
            rule.cell(probe.model, given, index, row, col).fill_(one + 1)
        self.pixels = thin.long().clamp(min=0)

    def bits(self) -> Tensor:
        """Which numbers have each bit that not all of them share, [bit, number]."""
        found = [
            (self.at[:, part] >> bit) % 2 == 1
            for part in range(3)
            for bit in range(int(self.at[:, part].max()).bit_length())
        ]
        kept = [bit for bit in found if bool(bit[1:].any()) and not bool(bit[1:].all())]
        return torch.stack(kept) if kept else torch.zeros(0, len(self.at), dtype=torch.bool)

    def place(self, number: int) -> str:
        image, row, col = self.at[number].tolist()
        return f"the token of row {row} and column {col} of image {image}"


def misplaced(
    probe: Probe, rule: Layout, image: Tensor, counts: list[int], tower: nn.Module | None
) -> str:
    """Which token answers more to other pixels than to those of its place, "" if none does.

    Where a token moves nearly as much with others' cells as with its own, or more, bits are not enough (some
    cells move all that they reach more than others do): each is changed by itself then, but in samples of
    very many.

    Args:
        rule: the layout.
        image: which positions are image tokens, [batch, pos].
        counts: how many they are, by sample.
        tower: whose attention is left out.
    """
    cells = _Cells(probe, rule, image, counts)
    bits = cells.bits()
    own = bits[:, cells.tokens]
    placed = cells.tokens > 0
    sides = torch.stack([bits, ~bits], dim=1)
    sides[..., 0] = False  # what is of no cell is never changed
    found = list(probe.answers_to((side[cells.pixels] for side in sides.flatten(0, 1)), tower))
    sure = bool(len(bits))
    right = torch.ones_like(placed)
    if found:
        gap = torch.stack([gap for gap, _ in found]).unflatten(0, (-1, 2))
        moved = torch.stack([moved for _, moved in found]).unflatten(0, (-1, 2))
        mine = torch.where(own, gap[:, 0], gap[:, 1])
        others = torch.where(own, gap[:, 1], gap[:, 0])
        there = torch.where(own, moved[:, 0], moved[:, 1])
        right = ((mine > others) & there).all(0)
        apart = torch.maximum(mine, others) >= _SURE * torch.minimum(mine, others)
        sure = bool((right & apart.all(0))[placed].all())
    numbers = [row[row > 0].tolist() for row in cells.tokens]
    if not sure and max(map(len, numbers)) <= _FEW:
        return _one_by_one(probe, cells, numbers, tower)
    wrong = cells.tokens[placed & ~right]
    return f"{cells.place(int(wrong[0]))} answers more to other places" if len(wrong) else ""


def _one_by_one(
    probe: Probe, cells: _Cells, numbers: list[list[int]], tower: nn.Module | None
) -> str:
    """The same from one run for each cell, in which one cell of each sample is changed."""
    steps = [
        # Others in each, so that images that are in one another's place are seen.
        [own[(step + sample) % len(own)] if own else 0 for sample, own in enumerate(numbers)]
        for step in range(max(map(len, numbers)))
    ]

    def masks() -> Iterator[Tensor]:
        for step in steps:
            yield torch.isin(cells.pixels, torch.tensor([n for n in step if n]))

    for step, (gap, moved) in zip(steps, probe.answers_to(masks(), tower), strict=True):
        for sample, number in enumerate(step):
            most = int(gap[sample].argmax())
            if number and (int(cells.tokens[sample, most]) != number or not moved[sample, most]):
                return f"another moves more than {cells.place(number)} when its pixels are changed"
    return ""
