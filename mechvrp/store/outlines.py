"""Files of safetensors at an address, of which only some bytes are wanted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mechvrp.store.places import is_remote, unreachable

__all__ = ["Fetch", "outlined"]

#: Bytes of a file asked for first, which hold the header of all but the longest.
_HEAD = 65_536

#: Makes these ranges of bytes, each from its first to before its last, be there.
Fetch = Callable[[Sequence[tuple[int, int]]], None]


@contextmanager
def outlined(path: Path) -> Iterator[tuple[Path, Fetch]]:
    """A file of safetensors on this machine, and what fetches parts of it.

    One of this machine is given as it is. Of one at an address there is a file as long that has nothing but
    the header, and holes in place of what was not fetched.
    """
    if not is_remote(path):
        yield path, lambda ranges: None
        return
    remote: Any = path
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / path.name
        with unreachable(path):
            size = int(remote.fs.info(remote.path)["size"])
            head = remote.fs.cat_file(remote.path, start=0, end=min(size, _HEAD))
            end = 8 + int.from_bytes(head[:8], "little")
            if len(head) < end <= size:
                head += remote.fs.cat_file(remote.path, start=len(head), end=end)
        with local.open("wb") as file:
            file.write(head[:end])
            file.truncate(size)

        def fetch(ranges: Sequence[tuple[int, int]]) -> None:
            if not ranges:
                return
            starts, stops = ([each[i] for each in ranges] for i in (0, 1))
            with unreachable(path):
                found = remote.fs.cat_ranges([remote.path] * len(ranges), starts, stops)
                for content in found:
                    if isinstance(content, Exception):  # of one range, in its place
                        raise content
            with local.open("r+b") as file:
                for (start, stop), content in zip(ranges, found, strict=True):
                    if len(content) != stop - start:
                        raise ValueError("it ends early")
                    file.seek(start)
                    file.write(content)

        yield local, fetch
