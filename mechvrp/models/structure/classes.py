"""The classes whose tiny models the test suite checks, and what was found of each (``classes.json``).

The file is written by ``python -m tests.support.family_table``; tests compare it with what they measure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CheckedClass", "checked_classes", "row_of", "write_classes"]

_FILE = Path(__file__).with_name("classes.json")


@dataclass(frozen=True)
class CheckedClass:
    """What was found of a tiny model of a class.

    Attributes:
        model_type: of its config.
        kind: the class.
        attention: how its prompt attends to itself.
        grid: by which rule its image tokens have places; ``"none"`` if they have none, ``"no image
            positions"`` if they are not in the sequence, ``"keys of cross attention"`` where they are these.
        lacks: components that no block has.
        partly: components that some blocks lack.
        sweeps: ``"branches, suffix, resume, full"`` or those of them that are exact.
    """

    model_type: str
    kind: str
    attention: str
    grid: str
    lacks: tuple[str, ...]
    partly: tuple[str, ...]
    sweeps: str


def checked_classes() -> tuple[CheckedClass, ...]:
    """Every class that the test suite checks, by model type."""
    rows = json.loads(_FILE.read_text())
    return tuple(
        CheckedClass(**{**row, "lacks": tuple(row["lacks"]), "partly": tuple(row["partly"])})
        for row in rows
    )


def row_of(model: Any, sweeps: str) -> CheckedClass:
    """What was found of a model of a structural family."""
    from mechvrp.models.structure.report import report_of

    facts, report = model.family.facts, report_of(model.family.facts, model.family.name)
    sites = [row for row in report.rows if row.what not in ("attention", "padding", "resume")]
    grid = facts.layout.label if facts.image_token is not None else "no image positions"
    if facts.crossed:
        grid = "keys of cross attention"
    return CheckedClass(
        model.family.name,
        facts.kind,
        facts.attention,
        grid,
        tuple(r.what for r in sites if not r.available and r.what not in ("image", "grid")),
        tuple(r.what for r in sites if r.available and r.layers),
        sweeps,
    )


def write_classes(rows: list[CheckedClass]) -> None:
    """Store the rows, by model type."""
    ordered = sorted(rows, key=lambda row: row.model_type)
    _FILE.write_text(json.dumps([row.__dict__ for row in ordered], indent=1) + "\n")
