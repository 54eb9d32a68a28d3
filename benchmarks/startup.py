"""How long it takes until the command line answers, and what an import costs."""

from __future__ import annotations

from benchmarks.table import Row
from benchmarks.timing import python_seconds

__all__ = ["rows"]


def rows() -> list[Row]:
    """What the command line and imports cost."""
    bare = python_seconds(["-c", "pass"])
    light = python_seconds(["-c", "import mechvrp"])
    torch = python_seconds(["-c", "import torch"])
    help_ = python_seconds(["-m", "mechvrp", "--help"])
    return [
        Row("`import mechvrp`, beyond starting Python", light - bare, "s"),
        Row("`import torch`, beyond starting Python", torch - bare, "s"),
        Row("`mechvrp --help`, whole process", help_, "s"),
    ]
