"""``ImageTokens``: where the tokens of a sample's images stand, in the sequence and on their grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from mechvrp.errors import DataError

if TYPE_CHECKING:
    from mechvrp.models.families import Grid

__all__ = ["ImageTokens", "place_images"]


@dataclass(frozen=True)
class ImageTokens:
    """The image tokens of one sample, in raster order.

    Attributes:
        position: where each token stands in the padded sequence, [token].
        row, col: its place on its image's grid, [token]; -1 for a token with no place (CLS).
        image: which of the sample's images it belongs to, [token].
        feature: its row in the ``projected`` site, which lists the tokens of the whole batch.
        shapes: (rows, columns) of each image's grid.
    """

    position: Int[Tensor, " token"]
    row: Int[Tensor, " token"]
    col: Int[Tensor, " token"]
    image: Int[Tensor, " token"]
    feature: Int[Tensor, " token"]
    shapes: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.position)


def place_images(
    input_ids: Int[Tensor, "batch pos"], token_id: int | None, grids: Sequence[Grid]
) -> tuple[ImageTokens, ...]:
    """Each sample's image tokens, from the grids of all images in the order of the inputs.

    Args:
        input_ids: [batch, pos].
        token_id: the placeholder that stands for an image token, ``None`` if there is none.
        grids: the layout of every image.

    Raises:
        DataError: a sample has more or fewer image tokens than its images give, or images are left.
    """
    found, feature = [], 0
    remaining = iter(grids)
    for sample, ids in enumerate(input_ids):
        # No id equals None: images that are not in the sequence have no positions.
        position = (ids == (-1 if token_id is None else token_id)).nonzero().flatten()
        row: list[int] = []
        col: list[int] = []
        image: list[int] = []
        shapes: list[tuple[int, int]] = []
        while len(row) < len(position):
            grid = next(remaining, None)
            if grid is None:
                raise DataError(
                    f"sample {sample} has {len(position)} image tokens in its prompt, but its "
                    f"images give {len(row)}: an image is missing, or was resized elsewhere"
                )
            row += [-1] * grid.extra
            col += [-1] * grid.extra
            for r in range(grid.rows):
                row += [r] * grid.cols + [-1] * grid.ends
                col += [*range(grid.cols), *[-1] * grid.ends]
            image += [len(shapes)] * grid.tokens
            shapes.append((grid.rows, grid.cols))
        if len(row) != len(position):
            raise DataError(
                f"sample {sample} has {len(position)} image tokens in its prompt, but its "
                f"{len(shapes)} image(s) of {shapes} tokens give {len(row)}"
            )
        found.append(
            ImageTokens(
                position,
                torch.tensor(row, dtype=torch.long),
                torch.tensor(col, dtype=torch.long),
                torch.tensor(image, dtype=torch.long),
                torch.arange(feature, feature + len(row)),
                tuple(shapes),
            )
        )
        feature += len(row)
    left = sum(1 for _ in remaining)
    if left:
        raise DataError(f"{left} of {len(grids)} images have no tokens in any prompt")
    return tuple(found)
