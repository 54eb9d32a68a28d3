"""What a run found out, compared with another's."""

from __future__ import annotations

import json

import pandas as pd

from mechvrp.store import RunFolder

__all__ = ["records", "same"]


def records(run: RunFolder) -> dict[str, object]:
    """All that a run found out: everything but times."""
    summary = run.read_summary()
    for section in summary["sections"]:
        section.pop("timings_s")
    summary.pop("created")
    found: dict[str, object] = {"summary": json.dumps(summary, sort_keys=True)}
    found["files"] = sorted(
        str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.suffix != ".lock"
    )
    for path in sorted(run.path.rglob("*")):
        if path.suffix == ".safetensors":
            found[str(path.relative_to(run.path))] = path.read_bytes()
    return found


def same(run: RunFolder, other: RunFolder) -> None:
    """Raise unless both hold the same files, tables, numbers, and bytes of arrays."""
    pd.testing.assert_frame_equal(run.read_examples(), other.read_examples())
    a, b = records(run), records(other)
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []
