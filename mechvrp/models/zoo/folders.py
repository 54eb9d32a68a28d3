"""Where the embedded checkpoints lie."""

from __future__ import annotations

from pathlib import Path

from mechvrp.errors import UnsupportedModelError

__all__ = ["folder", "names"]

_HERE = Path(__file__).parent


def names() -> list[str]:
    """The embedded checkpoints that are there, sorted."""
    return sorted(path.parent.name for path in _HERE.glob("*/config.json"))


def folder(name: str) -> Path:
    """The Hugging Face folder of an embedded checkpoint.

    Raises:
        UnsupportedModelError: there is none of that name; the message lists those there are.
    """
    if name not in names():
        raise UnsupportedModelError(
            f"no embedded checkpoint {name!r}: there are {', '.join(names()) or 'none'}"
        )
    return _HERE / name
