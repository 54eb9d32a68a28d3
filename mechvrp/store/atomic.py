"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError

from mechvrp.errors import RunFolderError
from mechvrp.store.places import TEMPORARY, is_remote, names_in, put

__all__ = ["TEMPORARY", "remove_temporaries", "write_atomically"]


def write_atomically(target: Path, write: Callable[[Path], Any]) -> Path:
    """Write beside ``target`` and move there: whoever reads sees the old file or the new one.

    Args:
        target: the file; at a remote place it is written on this machine, and put there.
        write: writes the path it is given.

    Raises:
        RunFolderError: it cannot be written: a full disk, no right to.
    """
    try:
        return _written(target, write)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise RunFolderError(f"{target} cannot be written: {why}") from error


def _written(target: Path, write: Callable[[Path], Any]) -> Path:
    if is_remote(target):
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / target.name
            write(local)
            put(local, target)
        return target
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
    if is_remote(folder):  # signs for workers, and what stores that show unfinished files have
        names = sorted(name for name in names_in(folder) if name.startswith(TEMPORARY))
        found = [folder / name for name in names]
    else:
        found = [path for path in folder.rglob(f"{TEMPORARY}*") if path.is_file()]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)
