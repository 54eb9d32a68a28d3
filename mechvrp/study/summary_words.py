"""The three findings that a report begins with: of attention, of hidden states, of what is taken away.

Each is asked of every model, and answered from its numbers: "yes" only where the interval excludes no effect
and the tests that go with it agree, "the other way round" where they agree on the opposite, "not measured"
where there is no number, and else "not shown".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechvrp.study.report_words import (
    ENOUGH,
    Finding,
    ablation_findings,
    probe_against_chance,
    probe_leads,
    probe_scopes,
    signed,
    three,
)
from mechvrp.study.schema import AblationSection, ModelSection, ProbeSection, SignalRow

__all__ = ["Question", "three_findings"]

_Q = 0.05  # false discovery rate
_SHAPE = {
    "spatial_entropy_normalised": "the map's entropy H_s / log S",
    "cluster_count": "its number of clusters C_k",
}


@dataclass(frozen=True)
class Question:
    """What is asked of every model.

    Attributes:
        name: short, for links.
        words: the question.
        answers: a model's name, and what was found.
    """

    name: str
    words: str
    answers: tuple[tuple[str, Finding], ...]


def three_findings(sections: Sequence[ModelSection]) -> tuple[Question, ...]:
    """The three questions of a study, answered for each of its models.

    A verdict is ``"shown"``, ``"inconclusive"``, ``"against"``, or ``"gap"`` where there is no number.
    """
    asked = (
        ("attention", "Does the shape of attention say whether an answer is right?", _attention),
        ("hidden-states", "Can it be read from the hidden states?", _hidden),
        ("ablation", "Do answers depend on where it is read?", _ablation),
    )
    return tuple(
        Question(name, words, tuple((s.model.name, answer(s)) for s in sections))
        for name, words, answer in asked
    )


def _attention(section: ModelSection) -> Finding:
    """By the two summaries of the map that the study is about, within tasks where there are several."""
    signals = section.signals
    rows = [r for r in signals.rows if r.name in _SHAPE] if signals else []
    scope = "within tasks" if any(r.scope == "within tasks" for r in rows) else "all"
    known = [r for r in rows if r.scope == scope and None not in (r.auroc, r.low, r.high)]
    if not known:
        why = "there is no AUROC of the attention map's summaries"
        reasons = dict.fromkeys(row.gap for row in rows if row.gap)
        return _gap(section, f"{why}: {'; '.join(reasons)}" if reasons else why)
    figures = "; ".join(f"{_SHAPE[r.name]}: AUROC {_ends(r.auroc, r.low, r.high)}" for r in known)
    where = "Among answers of the same task, " if scope == "within tasks" else "Over all answers, "
    text = f"{where}{figures}."
    outside = [r for r in known if not (r.low or 0.0) <= 0.5 <= (r.high or 1.0)]
    telling = [r for r in outside if r.q is not None and r.q <= _Q]
    if telling:
        sides = [f"{_SHAPE[r.name]} is {_side(r)} where answers are right" for r in telling]
        text += f" {_capital(' and '.join(sides))} (0.5 is chance, 1 or 0 would be perfect)."
        return _enough(Finding("shown", text), section)
    if outside:
        text += (
            f" {_capital(' and '.join(_SHAPE[r.name] for r in outside))}: the interval excludes chance (0.5), "
            "but not once the number of signals tried is allowed for: not shown."
        )
        return Finding("inconclusive", text)
    both = "Both intervals include" if len(known) > 1 else "The interval includes"
    return Finding(
        "inconclusive",
        f"{text} {both} chance (0.5): that it does is not shown, and a small effect is not ruled out.",
    )


def _side(row: SignalRow) -> str:
    return "higher" if (row.auroc or 0.0) > 0.5 else "lower"


def _enough(finding: Finding, section: ModelSection) -> Finding:
    rows = [r for r in section.accuracy if (r.task, r.split) == ("all", "all")]
    rarer = min((min(r.n_right, r.n - r.n_right) for r in rows), default=0)
    if rarer >= ENOUGH:
        return finding
    return Finding(
        "inconclusive",
        f"{finding.text} But only {rarer} answers are of the rarer kind, right or wrong: inconclusive, at "
        f"least {ENOUGH} are needed.",
    )


def _hidden(section: ModelSection) -> Finding:
    probe = section.probe
    if probe is None:
        return _gap(section, "there is no probe", "no probe")
    for scope in probe_scopes(probe):
        found = probe_against_chance(probe, scope)
        if found is not None:
            leads = " ".join(lead.text for lead in probe_leads(probe, scope))
            return Finding(found.verdict, f"{found.text} {leads}".strip())
    return _gap(section, _no_auroc(probe))


def _no_auroc(probe: ProbeSection) -> str:
    reasons = [row.gap for row in probe.tasks if row.gap]
    return f"the probe has no AUROC: {reasons[0]}" if reasons else "the probe has no AUROC"


def _ablation(section: ModelSection) -> Finding:
    """Judged against random units: that taking units away costs something says little by itself."""
    found = ablation_findings(section.ablation) if section.ablation else []
    if section.ablation is None or not found:
        return _gap(section, "nothing was taken away", "no ablation curve", "no interventions")
    return Finding(found[-1].verdict, f"{_largest(section.ablation)} {found[-1].text}")


def _largest(ablation: AblationSection) -> str:
    point = max((p for p in ablation.points if p.task == "all"), key=lambda p: p.k)
    top = _points(point.change, point.change_low, point.change_high)
    random = _points(point.random_change, point.random_change_low, point.random_change_high)
    return (
        f"With the {point.k} of {ablation.units} dimensions of {ablation.site} that the probe weighs most "
        f"zeroed, accuracy on {point.n} held-out answers about {point.n_groups} images changes by {top}; "
        f"with as many random ones by {random}."
    )


def _gap(section: ModelSection, why: str, *beginnings: str) -> Finding:
    """``beginnings``: of the notes that are about this finding; the others are about other parts."""
    whole = ("no observations", "nothing else of this model could be run")
    reasons = [note for note in section.notes if note.startswith((*whole, *beginnings))]
    told = f" The run says: {'; '.join(reasons)}." if reasons else ""
    return Finding("gap", f"{_capital(why)}.{told}")


def _ends(value: float | None, low: float | None, high: float | None) -> str:
    return f"{three(value)} (95\u00a0% interval {three(low)} to {three(high)})"


def _points(value: float, low: float, high: float) -> str:
    return f"{signed(value)}\u00a0pp (95\u00a0% interval {signed(low)} to {signed(high)})"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
