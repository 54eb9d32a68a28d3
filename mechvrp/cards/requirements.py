"""What an embedded checkpoint has to reach, so that what people see on it is worth seeing."""

from __future__ import annotations

from typing import Any

__all__ = ["FLOORS", "requirements"]

FLOORS = {"identification": 0.85, "counting": 0.75, "spatial": 0.75}
"""Least accuracy in the mixed split, by task."""

_RANDOM_POLL = 0.85
_MIXED = (0.70, 0.95)
_CLUSTER_VALUES = 4


def requirements(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked of the checkpoint, what it has, and whether that is enough.

    The last two are asked of at least one family of the three, not of each.
    """
    rows = [
        _row(
            f"{task}, at least {floor:.0%}",
            value := found["accuracy"][task]["value"],
            value >= floor,
        )
        for task, floor in FLOORS.items()
    ]
    value = found["polls"]["random"]["value"]
    rows.append(
        _row(f"existence, random polls, at least {_RANDOM_POLL:.0%}", value, value >= _RANDOM_POLL)
    )
    value = found["accuracy"]["all"]["value"]
    low, high = _MIXED
    rows.append(_row(f"all tasks, between {low:.0%} and {high:.0%}", value, low <= value <= high))
    count = len(found["attention"]["clusters"])
    rows.append(
        _row(f"values that C_k takes, at least {_CLUSTER_VALUES}", count, count >= _CLUSTER_VALUES)
    )
    gap = found["random_minus_adversarial"]
    rows.append(
        _row("worse on adversarial than on random polls (one family)", gap["value"], gap["low"] > 0)
    )
    leads = [
        row["lead_low"]
        for row in found["probe"].get("comparison", [])
        if row["scope"] == "all" and row["lead_low"] is not None
    ]
    rows.append(
        _row(
            "probe above both baselines (one family)",
            min(leads) if leads else None,
            bool(leads) and min(leads) > 0,
        )
    )
    return rows


def _row(what: str, value: float | None, met: bool) -> dict[str, Any]:
    return {"what": what, "value": value, "met": bool(met)}
