"""Run folders of generated numbers, with every part a study can have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mechvrp.store import RunFolder
from mechvrp.study.correlating import signal_section
from mechvrp.study.schema import (
    AblationSection,
    CausalRow,
    CausalSection,
    ComparisonRow,
    CurveRow,
    DataInfo,
    LayerRow,
    ModelInfo,
    ModelSection,
    ProbeSection,
    ReadoutRow,
    ReadoutSection,
    Summary,
    TaskRow,
)
from mechvrp.study.sections import accuracy_rows

RULE = "exact match of the normalised answer"


def examples(
    name: str, *, n: int = 120, seed: int = 0, tasks: int = 1, prefix: str = "scene"
) -> pd.DataFrame:
    """``n`` questions about ``n / 3`` images, some answered wrongly; signals that say something or nothing.

    Images, tasks and questions depend on ``n``, ``tasks`` and ``prefix`` only; answers on ``seed``.
    """
    rng = np.random.default_rng(seed)
    correct = rng.random(n) < 0.65
    probability = np.clip(0.6 + 0.2 * correct + 0.1 * rng.normal(size=n), 0.05, 0.99)
    held = np.arange(n) // 3 % 2 == 1
    scores = np.where(held, 1.5 * correct + rng.normal(size=n), np.nan)
    return pd.DataFrame(
        {
            "model": name,
            "example": np.arange(n),
            "image_id": [f"{prefix}-{i // 3}" for i in range(n)],
            "task": [f"task {i % tasks}" for i in range(n)],
            "split": np.where(held, "heldout", "train"),
            "question": [f"question {i}?" for i in range(n)],
            "answer": "yes",
            "prediction": np.where(correct, "yes", "no"),
            "correct": correct,
            "answer_probability": probability,
            "probe_score": pd.Series(scores).astype("Float64"),
            "gallery": pd.Series([None] * n, dtype="string"),
            "answer_tokens": 1,
            "spatial_entropy": 3.0 + rng.random(n),
            "spatial_entropy_normalised": np.clip(0.8 + 0.1 * rng.normal(size=n), 0, 1),
            "cluster_count": rng.integers(1, 5, n),
            "self_consistency": np.clip(
                np.round(probability + 0.1 * rng.normal(size=n), 1), 0.1, 1
            ),
            "truth_margin": 2.0 * correct + rng.normal(size=n),
        }
    )


def causal_row(family: str, name: str, change: float, **more: Any) -> CausalRow:
    """An intervention whose control does nothing; ``change`` plus and minus 2."""
    given: dict[str, Any] = {
        "control": "random " + name, "site": "blocks.2.hook_resid_post", "edit": "mean", "amount": 0.3,
        "first_layer": None, "last_layer": None, "units": None, "n": 60, "n_groups": 20, "draws": 5,
        "accuracy": 0.65, "change": change, "change_low": change - 2, "change_high": change + 2,
        "p": 0.01, "q": 0.02, "control_change": -0.5, "control_low": -1.0, "control_high": 0.0,
        "excess": change + 0.5, "excess_low": change - 1.5, "excess_high": change + 2.5,
        "excess_p": 0.02, "excess_q": 0.04,
    }  # fmt: skip
    return CausalRow(family, name, **(given | more))


def causal_section() -> CausalSection:
    window = {"edit": "noise", "amount": 1.0, "entropy_before": 0.8, "entropy_change": 0.01}
    window |= {"entropy_low": -0.01, "entropy_high": 0.03}
    units = {"units": 64, "first_layer": 2, "last_layer": 2}
    return CausalSection(
        rows=(
            causal_row("image patches", "top 30 % masked", -8.0),
            causal_row("image patches", "bottom 30 % masked", -1.0, q=0.6),
            causal_row("residual neurons", "top 5 set to the mean", -1.0, amount=5, q=0.5, **units),
            causal_row("residual neurons", "top 32 set to the mean", -6.0, amount=32, **units),
            causal_row("MLP neurons", "top 5 zeroed", -4.0, edit="zero", amount=5, **units),
            causal_row("hidden states", "noise of 1 SD, layers 0 to 1", -20.0, first_layer=0,
                       last_layer=1, **window),
            causal_row("hidden states", "noise of 1 SD, layers 2 to 3", -10.0, first_layer=2,
                       last_layer=3, **window),
            causal_row("attention", "noise of 1 SD, layers 2 to 3", -3.0, edit="noise", amount=1.0),
        ),
        n_resamples=200,
        gaps=("no noise on hidden states and attention: too few images",),
    )  # fmt: skip


def readout_section() -> ReadoutSection:
    def row(name: str, auroc: float, **more: Any) -> ReadoutRow:
        lead = None if name == "linear probe" else auroc - 0.8
        return ReadoutRow(
            name, None, "C = 0.1", 60, 20, auroc, auroc - 0.1, auroc + 0.1, None, None, None, lead,
            None if lead is None else lead - 0.1, None if lead is None else lead + 0.1,
            0.7, 0.6, 0.8, **more,
        )  # fmt: skip

    return ReadoutSection(
        rows=(
            row("linear probe", 0.8), row("sparse probe", 0.78),
            row("11 attention features", 0.52),
            replace(row("MLP probe", 0.5), auroc=None, low=None, high=None, gap="it did not converge"),
        ),
        n_resamples=200,
    )  # fmt: skip


def _probe_section(table: pd.DataFrame) -> ProbeSection:
    held = int((table["split"] == "heldout").sum())
    layers = tuple(
        LayerRow(i, i == 2, 0.1, 0.8, 0.7 + i / 30, 0.6, 0.9, held, held // 3, 0.95)
        for i in range(4)
    )
    rows = []
    for scope in ("all", *(("within tasks",) if table["task"].nunique() > 1 else ())):
        rows += [
            ComparisonRow("probe", scope, 0.8, 0.7, 0.88, "interval", held, None, None, None),
            ComparisonRow("task and answer", scope, 0.6, 0.5, 0.7, "interval", held, 0.2, 0.1, 0.3),
            ComparisonRow(
                "answer probability", scope, 0.78, 0.7, 0.85, "interval", held, 0.02, -0.1, 0.14
            ),
            ComparisonRow("shuffled labels", scope, 0.5, 0.4, 0.6, "range", 20, None, None, None),
        ]
    return ProbeSection(
        "blocks.2.hook_resid_post", "residual stream behind block 2", 2, 5, 20, 200, layers,
        (TaskRow("all", held, held // 2, 0.8, 0.7, 0.88, ""),), tuple(rows),
    )  # fmt: skip


def _ablation_section(n: int) -> AblationSection:
    points = []
    for k, change in ((0, 0.0), (5, -1.0), (32, -9.0)):
        q = 0.5 if k < 32 else 0.01
        points.append(
            CurveRow(
                "all", k, n, n // 3, 0.95, 0.6, 0.5, 0.7, change, change - 3, change + 3, -1.0, -2.0,
                0.0, change + 1, change - 2, change + 4, -2.0, 0.0, q, q, q, q, 20, 0.04,
            )
        )  # fmt: skip
    return AblationSection("blocks.2.hook_resid_post", "zeroed", 64, 20, 200, tuple(points))


def section(
    table: pd.DataFrame,
    *,
    family: str = "llava",
    data: str = "scenes",
    split: str = "mixed",
    rule: str = RULE,
    n_layers: int = 4,
    parameters: int = 1000,
    parts: bool = True,
    **more: Any,
) -> ModelSection:
    """A section whose signals and accuracy are those of the table, the rest made up.

    ``parts=False`` leaves out probe, ablation, causal rows and readouts.
    """
    held = (table["split"] == "heldout").to_numpy()
    right, groups, tasks = (table[c].to_numpy() for c in ("correct", "image_id", "task"))
    images = table.groupby("split")["image_id"].nunique()
    found = ModelSection(
        model=ModelInfo(
            str(table["model"].iloc[0]), family, n_layers, 64, parameters, "float32", "cpu"
        ),
        data=DataInfo(
            data, split, 0, len(table), len(set(groups)), int((~held).sum()), int(images["train"]),
            int(held.sum()), int(images["heldout"]), tuple(sorted(set(tasks))),
        ),
        label_rule=rule,
        accuracy=accuracy_rows(
            right, tasks.astype(str), groups.astype(str), table["split"].to_numpy(), n_resamples=200
        ),
        probe=_probe_section(table) if parts else None,
        ablation=_ablation_section(int(held.sum())) if parts else None,
        timings_s={},
        notes=() if parts else ("no probe: the training images hold no wrong answers",),
        signals=signal_section(
            table, np.flatnonzero(~held), np.flatnonzero(held), folds=2, seed=0, n_resamples=200
        ),
        readouts=readout_section() if parts else None,
        causal=causal_section() if parts else None,
    )  # fmt: skip
    return replace(found, **more)


def write_run(path: Path, *pairs: tuple[ModelSection, pd.DataFrame], samples: int = 10) -> Path:
    """A run folder of these sections and tables of examples."""
    run = RunFolder.create(path, {"name": path.name, "samples": samples})
    run.write_examples(pd.concat([table for _, table in pairs], ignore_index=True))
    summary = Summary("generated", "2000-01-01T00:00:00+00:00", {}, tuple(s for s, _ in pairs))
    run.write_summary(summary.to_json())
    return path


def run(path: Path, *names: str, family: str = "llava", seed: int = 0, **more: Any) -> Path:
    """A run folder of several models on the same questions; ``more`` goes to ``examples`` and ``section``."""
    pairs = []
    options = {k: more.pop(k) for k in ("n", "tasks", "prefix") if k in more}
    for i, name in enumerate(names):
        table = examples(name, seed=seed + i, **options)
        pairs.append((section(table, family=family, **more), table))
    return write_run(path, *pairs)


def row_of(found: Any, quantity: str, measure: str) -> pd.Series:
    """The pooled row of a comparison, the first of its pools."""
    rows = found.pooled
    return rows[(rows["quantity"] == quantity) & (rows["measure"] == measure)].iloc[0]


def figure_of(table: pd.DataFrame, model: str, measure: str) -> pd.Series:
    """The one row of a comparison's table."""
    rows = table[(table["model"] == model) & (table["measure"] == measure)]
    assert len(rows) == 1, (measure, sorted(set(table["measure"])))
    return rows.iloc[0]
