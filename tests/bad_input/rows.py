"""What a row of the tables is, and the things most rows are made from."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from mechvrp.errors import DataError, MechVRPError

__all__ = ["Bad", "Place", "bad", "encoded", "lines", "table"]

#: Deeper than any reader of JSON or YAML goes.
DEEP = '{"a":' + "[" * 100_000


class Place(SimpleNamespace):
    """What a row may use: ``tmp`` (its own folder), and, where a topic needs a model, ``model`` and ``batch``.

    Files are made below ``tmp`` by `put`, so that whatever else appears there was not asked for.
    """

    tmp: Path

    def put(self, name: str, content: bytes | str | Any) -> Path:
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return path


@dataclass(frozen=True)
class Bad:
    """One bad input.

    Attributes:
        name: what is wrong.
        call: what is done with it.
        error: the class that must be raised, exactly.
        says: what the message must hold: what was given or expected, in its own words.
    """

    name: str
    call: Callable[[Place], Any]
    error: type[MechVRPError]
    says: str


def bad(
    name: str, call: Callable[[Place], Any], says: str, error: type[MechVRPError] = DataError
) -> Bad:
    return Bad(name, call, error, says)


def encoded(
    mode: str = "RGB", size: tuple[int, int] = (8, 6), kind: str = "PNG", **save: Any
) -> bytes:
    """A small image as the bytes of a file."""
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **save)
    return buffer.getvalue()


def lines(*rows: Any) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


ROW = {"image": "a.png", "question": "Is it dark?", "answer": "yes"}


def table(
    content: Any = None, name: str = "metadata.jsonl", **options: Any
) -> Callable[[Place], Any]:
    """Loads a folder with this table (by default of one good row) and one good image."""

    def load(place: Place) -> Any:
        import mechvrp

        place.put("data/a.png", encoded())
        given = lines(ROW) if content is None else content
        if isinstance(given, list):
            given = lines(*given)
        place.put(f"data/{name}", given)
        return mechvrp.data.load("folder", root=place.tmp / "data", **options)

    return load
