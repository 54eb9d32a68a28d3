"""Which images samples show, and which pairs of them are linked, so that they are no independent evidence."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from mechvrp.data import Sample

__all__ = ["connected", "images_of"]


def images_of(samples: Iterable[Sample | None]) -> frozenset[str]:
    """Ids of the images of some samples, and of those that these were made from; None and no id add none."""
    ids = (i for one in samples if one is not None for i in (one.image_id, one.source_id))
    return frozenset(filter(None, ids))


def connected(names: Sequence[str], images: Sequence[Collection[str]]) -> tuple[str, ...]:
    """A name for each row: one for all rows that share an image, or are linked by others that do.

    Args:
        names: of the rows; that of a group's first row is the group's.
        images: ids of each row's images.
    """
    rows = np.repeat(np.arange(len(images)), [len(some) for some in images])
    _, ids = np.unique(
        np.array(list(chain.from_iterable(images)), dtype=object), return_inverse=True
    )
    size = len(names) + int(ids.max(initial=-1)) + 1
    links = coo_array((np.ones(len(rows)), (rows, len(names) + ids)), shape=(size, size))
    _, part = connected_components(links, directed=False)
    first: dict[int, str] = {}
    return tuple(first.setdefault(int(one), name) for one, name in zip(part, names, strict=False))
