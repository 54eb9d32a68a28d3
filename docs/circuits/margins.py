"""What ablated units do to the answer's margin: accuracy, which turns only with its sign, can hide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from keeping import Found

from mechvrp.statistics import benjamini_hochberg, two_sided_permutation_p

#: Random sets below which a rank among them is no p.
DRAWS = 199
_CONTROLS = ("random", "matched")


def margins(found: Sequence[Found]) -> pd.DataFrame:
    """One row per checkpoint, kind of unit and k, of the saved curves.

    The margin is the logit of the answer that the whole model gives minus the best other token's. Columns:
    checkpoint, units, site, k, of (units of the site), n, n_groups, draws; top: the change of the mean margin,
    with ``_low`` and ``_high``; of random sets (random) and of those of the top's norm (matched) the mean
    change, ``_low``, ``_high``, the ``_least`` and ``_most`` of a draw, ``excess_<control>`` (top minus
    control, paired) with ``_low`` and ``_high``, ``p_<control>`` (two-sided, of the top among the draws;
    missing with fewer than 199) and ``q_<control>`` (Benjamini and Hochberg over all rows).
    """
    rows = [
        row
        for one in found
        for kind, curve in one.curves.items()
        if curve.outcomes is not None and "margin" in curve.outcomes.values
        for row in _of_one(one.name, kind, curve)
    ]
    table = pd.DataFrame(rows)
    for control in _CONTROLS if len(table) else ():
        tested = table[f"p_{control}"].notna()
        table[f"q_{control}"] = np.nan
        if tested.any():
            p = table.loc[tested, f"p_{control}"].to_numpy(float)
            table.loc[tested, f"q_{control}"] = benjamini_hochberg(p)
    return table


def _of_one(name: str, kind: str, curve: Any) -> list[dict[str, Any]]:
    outcomes = curve.outcomes
    held = (
        curve.sets_to_frame().query("part == 'all' and measure == 'margin'").set_index(["set", "k"])
    )
    clean = outcomes.clean["margin"].mean(dtype=float)
    rows = []
    for i, k in enumerate(outcomes.ks):
        if not k:
            continue
        top = held.loc[("top", k)]
        row: dict[str, Any] = {"checkpoint": name, "units": kind, "site": curve.site, "k": k}
        row |= {"of": curve.units, "n": curve.clean_accuracy.n}
        row |= {"n_groups": curve.clean_accuracy.n_groups, "draws": curve.draws}
        row |= {f"top{end}": top[f"change{end}"] for end in ("", "_low", "_high")}
        own = outcomes.values["margin"]["top"][0, i].mean(dtype=float) - clean
        for control in _CONTROLS:
            beside = held.loc[(control, k)]
            row |= {f"{control}{end}": beside[f"change{end}"] for end in ("", "_low", "_high")}
            row |= {f"{control}_least": beside["lowest"], f"{control}_most": beside["highest"]}
            for end in ("", "_low", "_high"):
                row[f"excess_{control}{end}"] = top[f"excess_{control}{end}"]
            drawn = outcomes.values["margin"][control][:, i].mean(axis=1, dtype=float) - clean
            enough = len(drawn) >= DRAWS
            row[f"p_{control}"] = two_sided_permutation_p(own, drawn) if enough else np.nan
        rows.append(row)
    return rows


def told(row: Mapping[str, Any]) -> str:
    """``+0.99 [+0.92, +1.06]; random +0.06, p = 0.010; of its norm +0.64, p = 0.080``."""
    parts = [f"{row['top']:+.2f} [{row['top_low']:+.2f}, {row['top_high']:+.2f}]"]
    for control, words in (("random", "random"), ("matched", "of its norm")):
        p = row[f"p_{control}"]
        beside = f", p = {p:.3f}" if p == p else ""
        parts.append(f"{words} {row[control]:+.2f}{beside}")
    return "; ".join(parts).replace("+0.00", "0.00").replace("-0.00", "0.00")


def markdown(table: pd.DataFrame, names: Sequence[str]) -> str:
    """A row per kind of unit and k, a column for each of these checkpoints."""
    lines = ["| | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    cells = {(r["checkpoint"], r["units"], r["k"]): told(r) for r in table.to_dict("records")}
    for units, k, of in table[["units", "k", "of"]].drop_duplicates().itertuples(index=False):
        row = [cells.get((name, units, k), "gap") for name in names]
        lines.append(f"| {k} of {of} {units} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def summary(table: pd.DataFrame) -> list[str]:
    """In how many rows the top raises, or lowers, the margin more than controls do."""
    texts = []
    for control, words in (("random", "random ones"), ("matched", "random ones of the same norm")):
        tested = table[table[f"q_{control}"].notna()]
        if tested.empty:
            continue
        apart = tested[tested[f"q_{control}"] <= 0.05]
        above = apart[f"excess_{control}"] > 0
        counts = [
            f"{len(part)} (in {part['checkpoint'].nunique()} checkpoints)" if len(part) else "none"
            for part in (apart[above], apart[~above])
        ]
        texts.append(
            f"Of {len(tested)} sets of top units by probe weight in {tested['checkpoint'].nunique()} "
            f"checkpoints {counts[0]} leave a higher margin than {words} do, and {counts[1]} a lower one (q of "
            "at most 0.05)."
        )
    return texts
