"""From parsed records to a ``Dataset``: the limit, the image checks and the skips."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechvrp.data.fields import given_text
from mechvrp.data.images import Look
from mechvrp.data.records import Problems
from mechvrp.data.sample import Dataset, Sample
from mechvrp.errors import DataError

__all__ = ["Draft", "assemble", "check_columns", "check_limit", "check_max_pixels"]


@dataclass(frozen=True, slots=True)
class Draft:
    """A record that parsed well: its place, and what makes it a sample.

    ``build`` finds the image and raises ``DataError`` with the reason alone if it cannot.
    """

    where: str
    build: Callable[[], Sample]


def assemble(
    name: str,
    drafts: Sequence[Draft],
    problems: Problems,
    *,
    limit: int | None,
    seed: int,
    verify_images: bool | None,
    info: Mapping[str, Any],
) -> Dataset:
    """Make samples of drafts, in their order.

    Args:
        name: the dataset's name.
        drafts: the records.
        problems: what becomes of a record whose image is missing or bad.
        limit: at most this many samples, drawn at random without replacement by ``seed`` and put
            back in order. Only records drawn are checked; under ``"skip"`` a bad one is replaced by
            the next drawn, and a smaller limit draws a part of what a larger one does.
        seed: of that draw; without a limit it changes nothing.
        verify_images: decode each distinct image now; ``None`` does so exactly under ``"skip"``,
            where a bad image is a record to leave out.
        info: of the dataset.

    Raises:
        DataError: a bad image under ``"raise"``, or nothing is left.
    """
    order = list(range(len(drafts)))
    if limit is not None:
        random.Random(seed).shuffle(order)
    if verify_images is not None and not isinstance(verify_images, bool):
        raise DataError(f"verify_images must be True, False or None, got {verify_images!r:.60}")
    verify = problems.skip if verify_images is None else verify_images
    seen: dict[Hashable, Look] = {}
    chosen: dict[int, Sample] = {}
    for index in order:
        if limit is not None and len(chosen) == limit:
            break
        draft = drafts[index]
        try:
            sample = draft.build()
        except DataError as error:
            problems.report(draft.where, str(error))
            continue
        found = sample.look(seen) if verify else None
        reason = found if isinstance(found, str) else None
        if reason is None:
            chosen[index] = sample
        else:
            problems.report(draft.where, reason)
    samples = [chosen[index] for index in sorted(chosen)]
    details = {**info, "limit": limit, "seed": seed, "skipped": len(problems.skipped)}
    return Dataset(name, samples, skipped=problems.skipped, info=details)


def check_limit(limit: object) -> None:
    """Raise ``DataError`` unless ``limit`` is ``None`` or a whole number of at least 1."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise DataError(f"limit must be None or a whole number of at least 1, got {limit!r}")


def check_columns(columns: object, fields: Sequence[str]) -> None:
    """Raise ``DataError`` unless ``columns`` names the columns of some of ``fields``."""
    if not isinstance(columns, Mapping):
        raise DataError(
            f"columns= says which column holds a field, {{'question': 'text'}}; got {columns!r:.60}"
        )
    unknown = sorted(map(str, set(columns) - set(fields)))
    if unknown:
        raise DataError(f"columns= names fields {unknown}; the fields are {', '.join(fields)}")
    for field, name in columns.items():
        given_text(name, f"columns[{field!r}]")


def check_max_pixels(max_pixels: object) -> None:
    """Raise ``DataError`` unless ``max_pixels`` is a whole number of at least 1."""
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise DataError(f"max_pixels must be a whole number of at least 1, got {max_pixels!r}")
