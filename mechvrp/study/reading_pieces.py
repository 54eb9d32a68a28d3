"""What was observed, read back in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from mechvrp.data.sources import image_sources
from mechvrp.errors import RunFolderError
from mechvrp.reliability import STRUCTURE_FEATURES
from mechvrp.store import Chunks
from mechvrp.study.observing import FEATURE

__all__ = [
    "bounded",
    "check_rows",
    "example_tables",
    "hidden_states",
    "observed_table",
    "other_scores",
]

#: Columns that are long: read only where they are used.
_LONG = ("votes", "map", "map_rows")
_FEATURES = tuple(FEATURE + name for name in STRUCTURE_FEATURES)


def bounded(indices: np.ndarray, groups: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Whole images, drawn until no more fit in ``limit`` examples; all of them if they fit.

    Args:
        indices: of examples, ascending.
        groups: image of every example of the data set.
    """
    if len(indices) <= limit:
        return indices
    images, codes = np.unique(groups[indices], return_inverse=True)
    sizes = np.bincount(codes)
    order = np.random.default_rng(seed).permutation(len(images))
    fit = order[np.cumsum(sizes[order]) <= limit]
    return indices[np.isin(codes, fit)]


def observed_table(pieces: Chunks) -> pd.DataFrame:
    """A row per example: what it is, its answer, its signals, and the features of its attention map."""
    parts = [table.drop(columns=list(_LONG)) for table in pieces.tables()]
    return pd.concat(parts, ignore_index=True)


def example_tables(pieces: Chunks) -> Iterator[pd.DataFrame]:
    """The same without features, a piece at a time."""
    for table in pieces.tables():
        # Noted in all pieces, though an older version may have made some of them.
        sources = image_sources(table)
        yield table.drop(columns=[*_LONG, *_FEATURES]).assign(source_id=sources)


def check_rows(pieces: Chunks, rows: np.ndarray) -> None:
    """Refuse pieces of other examples than ``rows``, made before what was observed had changed."""
    if not np.array_equal(pieces.table(["example"])["example"].to_numpy(), rows):
        raise RunFolderError(
            f"{pieces.folder} holds other examples than are to be intervened on: what was observed of them has "
            "changed since. Remove that folder and run the study again"
        )


def hidden_states(pieces: Chunks, rows: np.ndarray) -> np.ndarray:
    """Residual streams [layer, example, d_model] of the examples ``rows`` (ascending)."""
    return np.concatenate(list(pieces.examples("hidden", rows)), axis=1)


def other_scores(
    pieces: Chunks, layer: int, rows: np.ndarray, score: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """A probe's scores of the examples ``rows`` (ascending), a piece at a time."""
    found = [score(states) for states in pieces.examples("hidden", rows, layer=layer)]
    return np.concatenate([np.empty(0), *found])
