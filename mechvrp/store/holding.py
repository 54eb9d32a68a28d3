"""One writer a run folder: a lock of the operating system, or at a remote address a lease."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from mechvrp.errors import RunFolderError
from mechvrp.store.places import is_remote, unreachable

__all__ = ["hold"]

#: Seconds between two renewals of a lease, and after which one that was not renewed counts as left behind.
_RENEWED, _STALE = 15.0, 60.0


@contextmanager
def hold(folder: Path, name: str) -> Iterator[Callable[[], None]]:
    """Hold a folder for writing by its lock file ``name``.

    On this machine the system lets go of it however the process ends. At a remote address the file is a lease,
    renewed every 15 s; one of a process that was killed is taken over once it has not changed for a minute.

    Yields:
        What to call before each write: it raises ``RunFolderError`` where the lease has been lost meanwhile.

    Raises:
        RunFolderError: another process (or another run in this one) holds it, or it cannot be locked.
    """
    path = folder / name
    if is_remote(folder):
        with _lease(path) as held:
            yield held
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(_BUSY.format(folder)) from None
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        raise RunFolderError(f"{path} cannot be locked: {error}") from error
    try:
        yield always
    finally:
        lock.release()


def always() -> None:
    """A folder of this machine is held until it is let go of."""


_BUSY = "{} is being written by another process; wait until it has ended, or choose another folder"


@contextmanager
def _lease(path: Any) -> Iterator[Callable[[], None]]:
    mine = f"{socket.gethostname()} {os.getpid()} {uuid4().hex}"
    renewed = _now()
    with unreachable(path):
        if not _claim(path, mine):
            _take_over(path, mine)
            renewed = _now()
    ended, lost = threading.Event(), threading.Event()

    def renew() -> None:
        nonlocal renewed
        while not ended.wait(_RENEWED):
            try:
                began = _now()
                if _owner(path) != mine:
                    lost.set()
                    return
                _write(path, mine)
                renewed = began
            except Exception:  # each file system has errors of its own
                continue  # it may answer again before the lease counts as left behind; else `held` tells

    def held() -> None:
        # One that was not renewed in time (a store that did not answer, a machine that slept) may be another's.
        late = any(now - then > 2 * _RENEWED for now, then in zip(_now(), renewed, strict=True))
        if late and not lost.is_set():
            with unreachable(path):
                if _owner(path) != mine:
                    lost.set()
        tell()

    def tell() -> None:
        if lost.is_set():
            raise RunFolderError(
                f"{path.parent} was taken over by another process while this one wrote: its lease had not been "
                f"renewed for {_STALE:.0f} s (was the machine asleep?). Nothing is written any more; run the "
                "command again when the other has ended"
            )

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        ended.set()
        thread.join()
        with unreachable(path):
            if _owner(path) == mine:
                path.unlink(missing_ok=True)
            else:
                lost.set()
    tell()


def _now() -> tuple[float, float]:
    """By a clock that nobody sets, and by one that goes on while the machine sleeps."""
    return time.monotonic(), time.time()


def _claim(path: Any, mine: str) -> bool:
    """Make the lease, if there is none."""
    if _content(path) is not None:  # some stores know no "create", and would write over it
        return False
    try:
        _create(path, mine)
    except FileExistsError:
        return False
    return _owner(path) == mine  # of two at such a store the later one has it


def _create(path: Any, mine: str) -> None:
    path.fs.pipe_file(path.path, _text(mine), mode="create")


def _take_over(path: Any, mine: str) -> None:
    """Take a lease that is not renewed; refuse one that is."""
    before, until = _content(path), time.monotonic() + _STALE
    while time.monotonic() < until:
        time.sleep(min(_STALE / 20, 1.0))
        now = _content(path)
        if now is None and _claim(path, mine):
            return
        if now != before:
            raise RunFolderError(_BUSY.format(path.parent))
    _write(path, mine)
    time.sleep(_STALE / 20)  # of two that take over at once the later one has it
    if _owner(path) != mine:
        raise RunFolderError(_BUSY.format(path.parent))


def _text(mine: str) -> bytes:
    return json.dumps({"owner": mine, "renewed": time.time()}).encode()


def _write(path: Any, mine: str) -> None:
    path.fs.pipe_file(path.path, _text(mine))


def _content(path: Any) -> bytes | None:
    try:
        found: bytes = path.fs.cat_file(path.path)
    except FileNotFoundError:
        return None
    return found


def _owner(path: Any) -> str:
    try:
        return str(json.loads(_content(path) or b"{}").get("owner", ""))
    except (ValueError, AttributeError):
        return ""
