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
    accuracy = found["accuracy"]
    rows = [
        _row(
            f"{task}: at least {floor:.0%}",
            _percent(accuracy[task]),
            accuracy[task]["value"] >= floor,
        )
        for task, floor in FLOORS.items()
    ]
    poll, every = found["polls"]["random"], accuracy["all"]
    rows.append(
        _row(
            f"existence, random polls: at least {_RANDOM_POLL:.0%}",
            _percent(poll),
            poll["value"] >= _RANDOM_POLL,
        )
    )
    low, high = _MIXED
    rows.append(
        _row(
            f"all tasks: between {low:.0%} and {high:.0%}",
            _percent(every),
            low <= every["value"] <= high,
        )
    )
    count = len(found["attention"]["clusters"])
    rows.append(
        _row(f"C_k takes at least {_CLUSTER_VALUES} values", str(count), count >= _CLUSTER_VALUES)
    )
    gap = found["random_minus_adversarial"]
    rows.append(
        _row(
            "worse on adversarial than on random polls (asked of one family)",
            f"{gap['value']:+.1f} points",
            gap["low"] > 0,
        )
    )
    leads = {
        row["name"]: row["lead_low"]
        for row in found["probe"].get("comparison", [])
        if row["scope"] == "all" and row["lead_low"] is not None
    }
    rows.append(
        _row(
            "probe's AUROC above both baselines over all questions (asked of one family)",
            f"lower ends of its leads {', '.join(f'{v:+.3f}' for v in leads.values()) or 'none'}",
            bool(leads) and min(leads.values()) > 0,
        )
    )
    return rows


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['value']:.1f} %"


def _row(what: str, here: str, met: bool) -> dict[str, Any]:
    return {"what": what, "here": here, "met": bool(met)}
