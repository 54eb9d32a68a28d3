"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

__all__ = ["TEMPORARY", "remove_temporaries", "write_atomically"]

#: How the names of unfinished files begin.
TEMPORARY = ".mechvrp-tmp-"


def write_atomically(target: Path, write: Callable[[Path], Any]) -> Path:
    """Write beside ``target`` and move there: whoever reads sees the old file or the new one.

    Args:
        target: the file.
        write: writes the path it is given.
    """
    # Process ids are those of one machine or container; a folder may be written from several.
    temporary = target.parent / f"{TEMPORARY}{os.getpid()}-{uuid4().hex[:8]}-{target.name}"
    try:
        write(temporary)
        with temporary.open("rb") as handle:  # on disk before it takes the old file's place
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def remove_temporaries(folder: Path) -> int:
    """Remove what killed runs left unfinished; only for who holds the folder's lock."""
    found = [path for path in folder.rglob(f"{TEMPORARY}*") if path.is_file()]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)
