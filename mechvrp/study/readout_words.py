"""What the readouts say, in sentences and for the report's template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from mechvrp.plots import readout_aurocs, readout_layers
from mechvrp.study.report_words import ENOUGH, Finding, percent, signed_three, three
from mechvrp.study.rows import ReadoutRow, ReadoutSection

__all__ = ["readout_findings", "readout_part"]

_LINEAR = "linear probe"
_FEATURES = "11 attention features"


def readout_part(section: ReadoutSection, rarer: int | None = None) -> dict[str, Any]:
    """For ``readouts.html``: ``section``, its ``findings``, and its plotly figures (None: no AUROC).

    ``figure`` is of the rows, ``by_layer`` of every layer. ``rarer`` as in `readout_findings`.
    """
    drawn = any(row.auroc is not None for row in section.rows)
    layers = pd.DataFrame(
        [
            {**asdict(layer), "name": row.name, "n": row.n, "n_groups": row.n_groups}
            for row in section.rows
            for layer in row.by_layer
            if layer.auroc is not None
        ]
    )
    return {
        "section": section,
        "findings": readout_findings(section, rarer),
        "figure": readout_aurocs(pd.DataFrame(section.rows)) if drawn else None,
        "by_layer": None if layers.empty else readout_layers(layers),
    }


def readout_findings(section: ReadoutSection, rarer: int | None = None) -> list[Finding]:
    """Whether another readout of hidden states beats the linear one, and whether attention tells anything.

    Args:
        section: of one model.
        rarer: number of held-out answers of the rarer kind, if known: with few of them intervals are too
            narrow, and nothing is said to be shown.
    """
    states = [row for row in section.rows if not row.name.startswith(_FEATURES)]
    features = [row for row in section.rows if row.name.startswith(_FEATURES)]
    found = [*_leads(states), *_attention(features)]
    if rarer is None or rarer >= ENOUGH:
        return found
    few = (
        f" There {'is' if rarer == 1 else 'are'} only {rarer} held-out "
        f"{'answer' if rarer == 1 else 'answers'} of the rarer kind: inconclusive, at least {ENOUGH} are "
        "needed."
    )
    # Said of inconclusive ones, too: they may name single readouts as worse, or below chance.
    return [Finding("inconclusive", f.text + few) for f in found]


def _leads(rows: Sequence[ReadoutRow]) -> list[Finding]:
    judged = [row for row in rows if row.lead is not None and row.name != _LINEAR]
    if not judged:
        return []
    better = [row for row in judged if (row.lead_low or 0.0) > 0]
    worse = [row for row in judged if (row.lead_high or 0.0) < 0]
    best = max(judged, key=lambda row: row.lead or 0.0)
    words = f"Of {len(judged)} other readouts of the hidden states"
    if better:
        text = (
            f"{words}, {_names(better)} {_verb('predict', better)} correctness better than the linear probe "
            f"of one layer: AUROC {'; '.join(_lead(row) for row in better)}. Intervals are one at a time."
        )
        return [Finding("shown", text)]
    text = (
        f"{words}, none is shown to predict correctness better than the linear probe of one layer. The "
        f"largest difference is that of {_named(best.name)}: AUROC {_lead(best)}."
    )
    if worse:
        text += f" Worse than it: {_names(worse)}."
    return [Finding("against" if len(worse) == len(judged) else "inconclusive", text)]


def _attention(rows: Sequence[ReadoutRow]) -> list[Finding]:
    """Shown only if both classifiers are above chance, since either alone is one of two attempts."""
    known = [row for row in rows if row.balanced_accuracy is not None]
    if not known:
        return []
    text = (
        "Given all eleven features of attention at once, on held-out images "
        f"{' and '.join(_classifier(row) for row in known)}; chance is 50\u00a0%."
    )
    above = [row for row in known if (row.balanced_low or 0.0) > 0.5]
    below = [row for row in known if row.balanced_high is not None and row.balanced_high < 0.5]
    inside = [row for row in known if row.within is not None]
    if len(above) == len(known) and all((row.within_low or 0.0) > 0.5 for row in inside):
        text += f" {_both(known)} above chance: attention's shape goes with correctness here."
        return [Finding("shown", text + _within(known))]
    if len(below) == len(known):
        text += f" {_both(known)} below chance: what was learned on training images points the wrong way."
        return [Finding("against", text)]
    if len(above) == len(known):
        # Telling tasks apart is enough for that.
        text += f" {_both(known)} above chance over all."
        return [Finding("inconclusive", text + _within(known))]
    return [Finding("inconclusive", text + _sides(known, above, below))]


def _sides(
    known: Sequence[ReadoutRow], above: Sequence[ReadoutRow], below: Sequence[ReadoutRow]
) -> str:
    """Which intervals include chance, and on which side the others lie."""
    reach = [row for row in known if row not in above and row not in below]
    if len(reach) == len(known):
        first = "Both intervals include" if len(known) > 1 else "The interval includes"
        tail = f"an effect inside {'them' if len(known) > 1 else 'it'} is not ruled out"
        return f" {first} chance: that attention's shape tells anything is not shown, and {tail}."
    parts = []
    for rows, words in (
        (above, "lies above chance"),
        (reach, "includes chance"),
        (below, "lies wholly below chance"),
    ):
        parts += [f"that of {_named(row.name)} {words}" for row in rows]
    text = f" The interval {', '.join(parts).removeprefix('that ')}"
    if above:
        return f"{text}: inconclusive, both are needed."
    return f"{text}: that attention's shape tells anything is not shown."


def _classifier(row: ReadoutRow) -> str:
    kind = "a classifier of trees" if row.name.endswith("trees") else "a linear classifier"
    text = (
        f"{kind} has a balanced accuracy of {percent(row.balanced_accuracy)} (95\u00a0% interval "
        f"{percent(row.balanced_low)} to {percent(row.balanced_high)})"
    )
    if row.auroc is not None:
        text += f" and an AUROC of {three(row.auroc)} ({three(row.low)} to {three(row.high)})"
    return text


def _within(rows: Sequence[ReadoutRow]) -> str:
    """Whether that holds among answers of the same task: over all, telling tasks apart is enough."""
    known = [row for row in rows if row.within is not None]
    if not known:
        return ""
    figures = " and ".join(
        f"{three(row.within)} ({three(row.within_low)} to {three(row.within_high)})"
        for row in known
    )
    if all((row.within_low or 0.0) > 0.5 for row in known):
        return f" So it does among answers of the same task: AUROC {figures}."
    shown = " for both" if any((row.within_low or 0.0) > 0.5 for row in known) else ""
    return f" Among answers of the same task that is not shown{shown}: AUROC {figures}."


def _both(rows: Sequence[ReadoutRow]) -> str:
    return "Both are" if len(rows) > 1 else "It is"


def _lead(row: ReadoutRow) -> str:
    ends = f"{signed_three(row.lead_low)} to {signed_three(row.lead_high)}"
    return f"{signed_three(row.lead)} (95\u00a0% interval {ends})"


def _names(rows: Sequence[ReadoutRow]) -> str:
    """Names with their article; the last five layers' readout is one thing, too."""
    return ", ".join(_named(row.name) for row in rows)


def _named(name: str) -> str:
    if name.startswith(_FEATURES):
        return "the classifier of trees" if name.endswith("trees") else "the linear classifier"
    return f"the probe of the {name}" if name.startswith("last ") else f"the {name}"


def _verb(verb: str, rows: Sequence[ReadoutRow]) -> str:
    return f"{verb}s" if len(rows) == 1 else verb
