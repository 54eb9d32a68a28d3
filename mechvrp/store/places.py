"""Where runs are kept: folders of this machine, and addresses that fsspec knows (``s3://bucket/run``)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from mechvrp import files
from mechvrp.errors import InputError, MechVRPError, RunFolderError, UnavailableError
from mechvrp.files import path_of

__all__ = [
    "TEMPORARY",
    "fetched",
    "is_file",
    "is_remote",
    "make_folder",
    "names_in",
    "place",
    "put",
    "refuse_links",
    "unreachable",
]

#: How the names of unfinished files begin.
TEMPORARY = ".mechvrp-tmp-"

#: Stores in which a file appears as a whole when it has been written, and is not seen before.
_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory"}


def place(path: str | Path, options: Mapping[str, Any] | None = None) -> Path:
    """A path of this machine, or for an address (``PROTOCOL://...``) an object that is used like one.

    Keys and endpoints of an address are fsspec's own settings (``FSSPEC_S3_ENDPOINT_URL``, ``AWS_PROFILE``, its
    configuration files), or ``options``.

    Raises:
        UnavailableError: universal-pathlib or the protocol's file system is not installed.
        InputError: no such protocol.
        RunFolderError: its file system cannot be had (one in a file that is not there, a server that does not
            answer), or it is no path.
    """
    if is_remote(path):
        return path  # type: ignore[return-value]
    if not isinstance(path, str) or "://" not in path:
        return path_of(path, "a run folder", RunFolderError)
    protocol = str(path).partition("://")[0]
    try:
        import fsspec
        from upath import UPath
    except ImportError as error:
        raise UnavailableError(
            f"{path} is an address, which needs universal-pathlib: pip install 'mechvrp[remote-runs]'"
        ) from error
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise InputError(
            f"{path}: fsspec knows no protocol {protocol!r}; give a folder, or an address such as "
            "s3://bucket/run"
        ) from error
    except ImportError as error:
        raise UnavailableError(
            f"{path}: the file system of {protocol!r} is not installed: {error}"
        ) from error
    try:
        # Another process may have written since a folder was listed.
        made = UPath(path, **{"use_listings_cache": False, **(options or {})})
        _ = made.fs  # some file systems look for what they are in when they are made
    except Exception as error:  # of any class, as in `unreachable`
        raise RunFolderError(
            f"{path} cannot be reached: {type(error).__name__}: {error}"
        ) from error
    return cast(Path, made)


def is_remote(path: Any) -> bool:
    """Whether it is a path of another file system than this machine's (or of one in memory)."""
    return hasattr(path, "fs") and hasattr(path, "protocol")


def make_folder(path: Path) -> None:
    """Make a folder and those above it; stores of objects have none (and a typing error makes no bucket)."""
    if is_remote(path) and path.protocol in _WHOLE:  # type: ignore[attr-defined]
        return
    if not is_remote(path):
        files.make_folder(path, RunFolderError)
        return
    with unreachable(path):
        path.mkdir(parents=True, exist_ok=True)


def is_file(path: Path) -> bool:
    """Whether there is such a file; a store that does not answer is an error.

    fsspec's own ``isfile`` says no whatever the reason, and what is there would be taken for lost.
    """
    if not is_remote(path):
        return path.is_file()
    with unreachable(path):
        try:
            return bool(path.fs.info(path.path)["type"] == "file")  # type: ignore[attr-defined]
        except FileNotFoundError:
            return False


def names_in(folder: Path) -> set[str]:
    """What a folder holds, by one listing: to ask for each of many files takes minutes at a remote place."""
    with unreachable(folder):
        try:
            return {path.name for path in folder.iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            return set()


def refuse_links(folder: Path) -> None:
    """Raise ``RunFolderError`` where a link in a folder leads out of it, to be read or written elsewhere."""
    if is_remote(folder) or not folder.is_dir():
        return
    root, waiting = Path(os.path.realpath(folder)), [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                    if not Path(real).is_relative_to(root):
                        raise RunFolderError(
                            f"{entry.path} is a link that leaves the folder {folder}: what belongs there would "
                            f"be read and written at {real}. Copy what it leads to in its place"
                        )
                elif entry.is_dir():
                    waiting.append(entry.path)


@contextmanager
def fetched(path: Path) -> Iterator[Path]:
    """The file on this machine: itself, or a copy for the time being."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with unreachable(path), path.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
        yield copy


def put(local: Path, target: Path) -> None:
    """Copy a file of this machine to a remote place, where it appears as a whole."""
    system: Any = target.fs  # type: ignore[attr-defined]
    with unreachable(target):
        if target.protocol in _WHOLE:  # type: ignore[attr-defined]
            system.put_file(str(local), target.path)  # type: ignore[attr-defined]
            return
        # Of each writer its own: two may write the same file at once.
        temporary: Any = target.with_name(f"{TEMPORARY}{uuid4().hex}-{local.name}")
        try:
            system.put_file(str(local), temporary.path)
            system.mv(temporary.path, target.path)  # type: ignore[attr-defined]
        except BaseException:
            with suppress(Exception):  # what went wrong first is what is told
                system.rm_file(temporary.path)
            raise


@contextmanager
def unreachable(path: Any) -> Iterator[None]:
    """What a remote store answers with, where it does not let us, is an error of the run folder."""
    if not is_remote(path):
        yield
        return
    try:
        yield
    except MechVRPError:
        raise
    except (
        Exception
    ) as error:  # each file system has errors of its own (botocore's are no OSErrors)
        raise RunFolderError(
            f"{path} cannot be reached or written: {type(error).__name__}: {error}"
        ) from error
