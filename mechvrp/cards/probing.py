"""Whether a checkpoint's errors can be read from its hidden states: the probe of its card."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from mechvrp.circuits import Comparison, compare_with_baselines, probe_sweep
from mechvrp.data import Dataset, train_test_split
from mechvrp.data.scene_layout import CROWD
from mechvrp.statistics import Estimate, auroc_interval, auroc_lead

__all__ = ["as_row", "probe"]

#: Wrong answers that either half of the images must hold for a probe to be worth fitting.
_ENOUGH = 10


def as_row(estimate: Estimate) -> dict[str, Any]:
    """An estimate as JSON."""
    row = asdict(estimate)
    return {key: row[key] for key in ("value", "low", "high", "n", "n_groups")}


def probe(table: pd.DataFrame, hidden: Any, dataset: Dataset, seed: int) -> dict[str, Any]:
    """The linear probe of correctness, chosen on one half of the images and judged on the other."""
    _, test = train_test_split(dataset, test_size=0.5, seed=seed, stratify=list(table["task"]))
    held = table["image"].isin({s.image_id for s in test}).to_numpy()
    right, groups = table["right"].to_numpy(), table["image"].to_numpy()
    tasks = table["task"].to_numpy()
    wrong = [int((~right[side]).sum()) for side in (~held, held)]
    counts = {
        "n_train": int((~held).sum()),
        "n_train_wrong": wrong[0],
        "n_heldout": int(held.sum()),
        "n_heldout_wrong": wrong[1],
    }
    if min(wrong) < _ENOUGH:
        return {**counts, "gap": f"one half of the images has only {min(wrong)} wrong answers"}
    sweep = probe_sweep(
        hidden, right, groups, tasks, np.flatnonzero(~held), np.flatnonzero(held), seed=seed
    )
    beside = compare_with_baselines(
        sweep,
        hidden,
        right,
        groups,
        tasks,
        list(table["answer"]),
        table["probability"].to_numpy(),
    )
    layers, comparison = sweep.to_frame(), beside.to_frame()
    return {
        **counts,
        "chosen_layer": sweep.chosen_layer,
        "layers": _records(layers[["layer", "cv_auroc", "auroc", "low", "high"]]),
        "comparison": _records(comparison),
        "tasks": _records(sweep.tasks_frame()),
        "usual_crowds": _usual(table[held], sweep.scores, beside, seed),
    }


def _usual(
    table: pd.DataFrame, scores: np.ndarray, beside: Comparison, seed: int
) -> dict[str, Any]:
    """The same scores on held-out scenes with no more digits than training scenes hold."""
    inside = (table["crowd"] <= max(CROWD)).to_numpy()
    right, groups = table["right"].to_numpy(), table["image"].to_numpy()
    counts = (table["task"] == "counting").to_numpy()
    found: dict[str, Any] = {
        "most": max(CROWD),
        "wrong_beyond": int((~right[~inside]).sum()),
        "wrong_counts_beyond": int((~right[~inside & counts]).sum()),
        "wrong_inside": int((~right[inside]).sum()),
        "rows": [],
    }
    if found["wrong_inside"] < _ENOUGH:
        return found
    labels, images = right[inside], groups[inside]
    named = {"probe": scores} | {b.name: b.scores for b in beside.baselines}
    for name, values in named.items():
        row = {"name": name, **as_row(auroc_interval(values[inside], labels, images, seed=seed))}
        if name != "probe":
            lead = auroc_lead(scores[inside], values[inside], labels, images, seed=seed)
            row["lead"] = as_row(lead)
        found["rows"].append(row)
    return found


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return json.loads(frame.to_json(orient="records", double_precision=6))  # type: ignore[no-any-return]
