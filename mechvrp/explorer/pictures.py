"""Images of samples as data URLs, which a browser shows without fetching anything."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechvrp.data import Sample

__all__ = ["data_url"]


def data_url(sample: Sample, longest: int) -> str:
    """The sample's image, scaled down to ``longest`` pixels a side if it is larger.

    Raises:
        DataError: it cannot be opened.
    """
    image = sample.image
    large = max(image.size) > longest
    if large:
        image = image.copy()
        image.thumbnail((longest, longest))
    held = io.BytesIO()
    # A photograph as JPEG; what is shown at its own pixels must keep them.
    kind = "JPEG" if large else "PNG"
    image.convert("RGB").save(held, kind, **({"quality": 85} if large else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(held.getvalue()).decode()}"
