"""The case study in words and figures, as one page that needs no network."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pandas as pd
from one_model import Found

from mechvrp.statistics import Estimate

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em;"
    "color:#1a1a1a;background:#fff}table{border-collapse:collapse;font-size:14px;display:block;"
    "overflow-x:auto}td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}.gap{border-left:4px solid #D55E00;"
    "padding-left:1em}"
)


def told(one: Estimate, form: str = ".2f") -> str:
    """``0.91 [0.85, 0.96]``."""
    return f"{one.value:{form}} [{one.low:{form}}, {one.high:{form}}]"


def words_of(found: Found) -> list[str]:
    """What was found of one model, a sentence or two per step."""
    texts = []
    answers = found.answers
    if len(answers):
        absent = answers[answers["answer"] == "no"]
        texts.append(
            f"Of {len(answers)} held-out polls it answers {100 * answers['right'].mean():.1f} % rightly; to "
            f"{100 * (~absent['right']).mean():.1f} % of {len(absent)} digits that are not there it says yes."
        )
    for where, counts in found.hallucinated.items():
        texts.append(
            f"Scenes that the circuit of hallucinated answers was {where}: {counts['yes']} of "
            f"{counts['asked']} polls for absent digits answered yes; {counts['traced']} of these become no "
            f"when one digit is replaced ({_most(counts['mistaken'])})."
        )
    for name, proof in found.proofs.items():
        own = name if " on " in name else f"circuit of {name} answers"
        texts.append(
            f"The {own} ({proof.n} held-out pairs of {proof.n_groups} images): {len(proof.circuit)} nodes "
            f"keep {told(proof.faithfulness.circuit)} of the difference, {proof.draws} random circuits of the "
            f"same composition {told(proof.faithfulness.random)} (p = {proof.faithfulness.p:.3f}); the model "
            f"without it keeps {told(proof.completeness.circuit)}, without random ones "
            f"{told(proof.completeness.random)} (p = {proof.completeness.p:.3f})."
        )
        if proof.minimality:
            frame = proof.to_frame()
            rows = frame[frame["figure"] == "minimality"]
            sure = int((rows["low"] > 0).sum())
            first = rows.iloc[0]
            texts.append(
                f"Of its nodes {sure} of {len(rows)} lower faithfulness when taken out (interval above 0); "
                f"most of all {first['node']}, by {first['value']:.2f} [{first['low']:.2f}, "
                f"{first['high']:.2f}]."
            )
    if "hallucinated" in found.overlap:
        part = found.overlap
        texts.append(
            f"The circuits of right and of hallucinated answers share {part['hallucinated']:.2f} of their "
            f"nodes (Jaccard; random circuits {part['hallucinated: random']:.2f}); two circuits of right "
            f"answers, found on different scenes, {part['existence, found again']:.2f} (random "
            f"{part['existence, found again: random']:.2f}). These are single numbers, without an interval."
        )
    if len(found.probe):
        row = found.probe[found.probe["chosen"]].iloc[0]
        texts.append(
            f"Whether an answer is right is read best behind block {int(row['layer'])} (by cross-validation): "
            f"AUROC {row['auroc']:.2f} [{row['low']:.2f}, {row['high']:.2f}] on held-out scenes."
        )
    for kind, matrix in found.agreement.items():
        others = [
            f"{name} {matrix.loc['probe', name]:.2f}"
            for name in matrix.columns
            if name not in ("probe", "random")
        ]
        texts.append(
            f"Rankings of its {kind}: rank-biased overlap with probe weight: {', '.join(others)}; of a random "
            f"order {matrix.loc['probe', 'random']:.2f}."
        )
    for kind, curve in found.curves.items():
        index = curve.bottleneck.get("random")
        text = f"bottleneck index {told(index)}" if index else f"no index: {curve.bottleneck_gap}"
        last = curve.points[-1]
        texts.append(
            f"Zeroing the top {kind} by probe weight at {curve.site}: {text}; the largest set, {last.k} "
            f"of {curve.units}, changes accuracy by {told(last.change, '+.1f')} pp, random sets by "
            f"{told(last.random_change, '+.1f')} pp (q = {last.excess_q or float('nan'):.2f})."
        )
    if found.flow is not None:
        for what in ("text", "last"):
            at = found.flow.integration(what=what)
            texts.append(
                f"The {what} positions carry half of the change that another image makes "
                + (
                    f"behind block {at.layer} (depth {_ends(at)})."
                    if at.layer is not None
                    else f"at no depth that can be told: {at.gap}."
                )
            )
    if "knockouts" in found.tables:
        for row in found.tables["knockouts"].to_dict("records"):
            texts.append(
                f"Heads {row['heads']} cut off from the image: the lead of the answer changes by "
                f"{row['change']:.2f} [{row['change_low']:.2f}, {row['change_high']:.2f}] logits; "
                f"{row['sets']} other sets of as many heads of these layers by {row['control']:.2f} "
                f"(p = {row['p']:.3f})."
            )
    return texts


def _most(mistaken: list[str]) -> str:
    counts = pd.Series(mistaken, dtype=object).value_counts()
    if counts.empty:
        return "none"
    return "most often " + ", ".join(f"{name} {n}" for name, n in counts.head(3).items())


def _ends(at: Any) -> str:
    if at.crossing is None:
        return "not told"
    if at.crossing_low is None or at.crossing_high is None:
        return f"{at.crossing:.2f}, without an interval"
    return f"{at.crossing:.2f} [{at.crossing_low:.2f}, {at.crossing_high:.2f}]"


def apart(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """What distinguishes the models, and what does not, in words."""
    yes, no = [], []
    for row in table.to_dict("records"):
        text = (
            f"{row['figure']}: {row['first']} minus {row['second']} {row['difference']:+.2f} "
            f"[{row['low']:+.2f}, {row['high']:+.2f}]"
        )
        if row["q"] == row["q"]:
            text += f", q = {row['q']:.3f}"
        (yes if row["told"] else no).append(text)
    return yes, no


class Page:
    """Paragraphs, tables and figures, in order."""

    def __init__(self, title: str) -> None:
        self._parts = [
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>",
            f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        ]
        self._script = True

    def heading(self, text: str, level: int = 2) -> None:
        self._parts.append(f"<h{level}>{html.escape(text)}</h{level}>")

    def text(self, text: str, kind: str = "") -> None:
        mark = f" class='{kind}'" if kind else ""
        self._parts.append(f"<p{mark}>{html.escape(text)}</p>")

    def items(self, texts: list[str]) -> None:
        self._parts.append("<ul>" + "".join(f"<li>{html.escape(t)}</li>" for t in texts) + "</ul>")

    def table(self, frame: pd.DataFrame) -> None:
        self._parts.append(frame.to_html(index=False, border=0, float_format="{:.3g}".format))

    def figure(self, figure: Any, title: str) -> None:
        self.heading(title, 4)
        self._parts.append(figure.to_html(full_html=False, include_plotlyjs=self._script))
        self._script = False

    def write(self, path: Path) -> None:
        path.write_text("\n".join(self._parts), encoding="utf-8")
