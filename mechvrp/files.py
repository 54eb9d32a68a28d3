"""Paths, files and JSON as callers give them, looked at strictly."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from mechvrp.errors import InputError

__all__ = ["distinct_names", "file_to_write", "make_folder", "parse_json", "path_of", "read_file"]

#: An address, or what ``Path`` makes of one.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+:/")


def path_of(given: Any, what: str = "a path", error: type[InputError] = InputError) -> Path:
    """``given`` as a path of this machine; a ``~`` that it begins with is the user's home, as in a shell.

    Args:
        given: what a caller gave.
        what: what it is the path of, for the message.
        error: the class to raise.

    Raises:
        InputError: (``error``) it is no path, is empty, is an address, or cannot be the name of a file.
    """
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
        raise error(f"{what} is text or a Path; got {given!r:.60} ({type(given).__name__})")
    name = os.fspath(given)
    if not name or "\0" in name:
        raise error(f"{what} is empty or holds a NUL character: {name!r:.60}")
    if _ADDRESS.match(name):
        raise error(
            f"{what} is one of this machine; got {name!r:.60}, an address (a folder of that name is "
            f"{'./' + name!r:.60}). Of what is written, runs, comparisons and stores of activations can be at "
            "addresses, which are given as text"
        )
    try:
        name = os.path.expanduser(name)
        os.stat(name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # to be made, or refused by whoever opens it
    except (
        OSError,
        ValueError,
    ) as reason:  # too long, a loop of links, characters no name can hold
        why = reason.strerror if isinstance(reason, OSError) else reason
        raise error(f"{what} {name!r:.60} cannot be looked up: {why}") from reason
    return Path(name)


def file_to_write(given: Any, what: str = "a path", error: type[InputError] = InputError) -> Path:
    """``given`` as the path of a file that can be written.

    Raises:
        InputError: (``error``) it is no path, or a folder, or in none.
    """
    target = path_of(given, what, error)
    if target.is_dir():
        raise error(f"{target} is a folder; give the path of a file in it")
    if not target.parent.is_dir():
        raise error(f"{target.parent} is not a folder; make it before saving {target.name} there")
    return target


def read_file(path: Path, error: type[InputError] = InputError) -> bytes:
    """The bytes of a file; a pipe or a device, which might never end, is not read.

    Raises:
        InputError: (``error``) there is no such file, it is no regular one, or it cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            kind = "a folder" if path.is_dir() else "a pipe, a socket or a device"
            raise error(f"{path} cannot be read: it is {kind}, and a file was expected")
        return path.read_bytes()
    except FileNotFoundError as reason:
        raise error(f"{path} cannot be read: there is no such file") from reason
    except OSError as reason:
        raise error(f"{path} cannot be read: {reason.strerror}") from reason


def make_folder(path: Path, error: type[InputError] = InputError) -> Path:
    """The folder, made if need be.

    Raises:
        InputError: (``error``) it cannot be made: something else is there, or no right to write.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise error(f"the folder {path} cannot be made: {reason.strerror}") from reason
    return path


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text, by the standard's letter and no more.

    Python's own reader takes ``NaN`` and ``Infinity``, makes infinity of ``1e999``, keeps the last of
    two values of one name, and gives up on deep nesting with an error of another kind.

    Raises:
        ValueError: any of that, or no JSON in UTF-8.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"it holds {constant}, which is not JSON")

    def finite(digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            raise ValueError(f"it holds {digits:.20}, beyond what a number here can be")
        return number

    def whole(digits: str) -> int:
        finite(digits)
        return int(digits)

    try:
        return json.loads(
            raw.decode("utf-8"),
            parse_constant=refuse,
            parse_float=finite,
            parse_int=whole,
            object_pairs_hook=distinct_names,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these names and values (``object_pairs_hook`` of ``json``).

    Raises:
        ValueError: a name comes twice, of which JSON readers keep the last, silently.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for twice, _ in pairs:
            if twice in seen:
                raise ValueError(f"the name {twice!r} comes twice in one object")
            seen.add(twice)
    return found
