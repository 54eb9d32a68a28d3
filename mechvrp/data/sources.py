"""Which rows of a table of examples are no independent evidence of each other."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["image_sources"]


def image_sources(table: pd.DataFrame) -> np.ndarray:
    """``[row]`` the image of each row, or the one that it was made from: ``Sample.source_id``.

    Resampling and divisions take the rows of one source together. Where older runs did not note it, it is
    the row's ``image_id``.
    """
    found = table["image_id"].astype(object)
    if "source_id" in table:
        found = table["source_id"].astype(object).fillna(found)
    return found.to_numpy(dtype=str)
