"""Values of image tokens, laid out on the image's own grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mechvrp.errors import UnavailableError

if TYPE_CHECKING:
    from mechvrp.models import ImageTokens

__all__ = ["on_grid"]


def on_grid(
    tokens: ImageTokens, values: Float[np.ndarray, "... token"]
) -> Float[np.ndarray, "... row col"]:
    """One sample's image tokens' values at their rows and columns.

    Args:
        tokens: ``batch.tokens.images[i]``.
        values: in the order of ``tokens.position``.

    Raises:
        UnavailableError: several images, or image tokens without a place on the grid.
    """
    if len(tokens.shapes) != 1 or int(tokens.row.min()) < 0:
        raise UnavailableError(
            f"a map needs one image whose tokens all lie on its grid; this sample has "
            f"{len(tokens.shapes)} images of grids {tokens.shapes} and "
            f"{int((tokens.row < 0).sum())} tokens without a place"
        )
    found = np.zeros((*values.shape[:-1], *tokens.shapes[0]), values.dtype)
    found[..., tokens.row.numpy(), tokens.col.numpy()] = values
    return found
