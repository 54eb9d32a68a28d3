"""What the loaders of published benchmarks share: finding files, and records to drafts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mechvrp.data.assemble import Draft
from mechvrp.data.images import ImageFolder, ImageSource
from mechvrp.data.records import Problems, Record
from mechvrp.data.sample import Sample
from mechvrp.errors import DataError

__all__ = ["Entry", "check_choice", "drafts_of", "file_of"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that was understood.

    Attributes:
        identity: what names it within its split (``"question 17"``); no two may share it.
        image: name of the image's file.
        fields: of :class:`~mechvrp.data.Sample`.
    """

    identity: str
    image: str
    fields: dict[str, Any]


def drafts_of(
    records: Iterable[Record],
    read: Callable[[Record], Entry | None],
    *,
    problems: Problems,
    images: ImageFolder,
    max_pixels: int,
) -> list[Draft]:
    """The drafts of a benchmark's records, in their order.

    Args:
        records: as read from the files.
        read: understands one: raises ``DataError`` with the reason alone if it is malformed, gives
            ``None`` if it does not belong to what was asked for.
        problems: what becomes of a malformed or repeated record.
        images: where the images are.
        max_pixels: width x height beyond which an image is refused.
    """
    drafts: list[Draft] = []
    seen: dict[tuple[str, str], str] = {}
    for record in records:
        try:
            entry = read(record)
        except DataError as error:
            problems.report(record.where, str(error))
            continue
        if entry is None:
            continue
        key = (entry.fields.get("split", ""), entry.identity)
        where = f"{record.where} ({entry.identity})"
        if key in seen:
            problems.report(where, f"{entry.identity} was already read from {seen[key]}")
            continue
        seen[key] = record.where
        drafts.append(
            Draft(
                where, partial(_build, where=where, entry=entry, images=images, pixels=max_pixels)
            )
        )
    return drafts


def file_of(root: Path, folders: Sequence[str], name: str, advice: str) -> Path:
    """The file ``name`` in the first of ``folders`` (under ``root``) that has it.

    Raises:
        DataError: none has; the message ends with ``advice``.
    """
    for folder in folders:
        if (root / folder / name).is_file():
            return root / folder / name
    looked = ", ".join(str(root / folder) for folder in folders)
    raise DataError(f"{name} is missing (looked in {looked}); {advice}")


def check_choice(benchmark: str, what: str, value: object, known: Sequence[str]) -> None:
    """Raise ``DataError`` unless ``value`` is one of ``known``."""
    if value not in known:
        raise DataError(f"{benchmark} has the {what}s {', '.join(known)}; got {value!r}")


def _build(*, where: str, entry: Entry, images: ImageFolder, pixels: int) -> Sample:
    source = ImageSource(where, file=images.find(entry.image), max_pixels=pixels)
    return Sample(source, **entry.fields)
