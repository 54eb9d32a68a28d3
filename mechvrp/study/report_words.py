"""The plain-words findings of a report, made from the numbers.

An interval that includes the value of no effect (0.5 for an AUROC, 0 for a difference) is said to
be inconclusive: it neither shows an effect nor shows that there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechvrp.plots.directions import isolated
from mechvrp.study.schema import (
    AblationSection,
    AccuracyRow,
    ComparisonRow,
    CurveRow,
    ModelSection,
    ProbeSection,
    SignalSection,
)

__all__ = [
    "ENOUGH",
    "Finding",
    "ablation_findings",
    "accuracy_finding",
    "findings",
    "percent",
    "probe_against_chance",
    "probe_leads",
    "probe_scopes",
    "signed",
    "signed_three",
    "three",
]

_Q = 0.05  # false discovery rate


@dataclass(frozen=True)
class Finding:
    """One sentence or two, and its verdict.

    Attributes:
        verdict: ``"fact"``, ``"shown"``, ``"inconclusive"`` or ``"against"``.
        text: plain text (a template escapes it).
    """

    verdict: str
    text: str


def findings(section: ModelSection) -> list[Finding]:
    """What this model's numbers say, in the order in which a reader needs it."""
    if not section.accuracy:
        return [Finding("inconclusive", f"{isolated(section.model.name)} could not be observed.")]
    found = [accuracy_finding(section.model.name, section.accuracy)]
    if section.signals:
        found += _signals(section.signals, _rarer_heldout(section.accuracy))
    if section.probe:
        found += _probe(section.probe)
    if section.ablation:
        found += ablation_findings(section.ablation)
    return found


def percent(value: float | None) -> str:
    """A share as percent: ``0.785`` is ``78.5 %``, with a space that does not break."""
    return "none" if value is None else f"{100 * value:.1f}\u00a0%"


def three(value: float | None) -> str:
    """Three decimals, for AUROCs."""
    return "none" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """One decimal with its sign (a true minus), for percentage points."""
    return "none" if value is None else f"{value:+.1f}".replace("-", "−")


def signed_three(value: float | None) -> str:
    """Three decimals with their sign (a true minus), for differences of AUROCs."""
    return "none" if value is None else f"{value:+.3f}".replace("-", "−")


def accuracy_finding(name: str, rows: Sequence[AccuracyRow]) -> Finding:
    """How many answers are right, over all and in the best and worst task."""
    row = next(row for row in rows if row.task == "all" and row.split == "all")
    interval = "" if row.low is None else f", {_range(percent(row.low), percent(row.high))}"
    text = (
        f"{isolated(name)} answered {row.n_right} of {row.n} questions rightly "
        f"({percent(row.accuracy)}{interval})."
    )
    tasks = [r for r in rows if r.split == "all" and r.task != "all" and r.accuracy is not None]
    if len(tasks) > 1:
        best, worst = max(tasks, key=_share), min(tasks, key=_share)
        text += (
            f" Its best task is {isolated(best.task)} ({percent(best.accuracy)}), "
            f"its worst {isolated(worst.task)} ({percent(worst.accuracy)})."
        )
    return Finding("fact", text)


def _share(row: AccuracyRow) -> float:
    return row.accuracy or 0.0


def _rarer_heldout(rows: Sequence[AccuracyRow]) -> int:
    """Held-out answers of the rarer kind, right or wrong."""
    held = [row for row in rows if (row.task, row.split) == ("all", "heldout")]
    return min((min(row.n_right, row.n - row.n_right) for row in held), default=0)


def _signals(signals: SignalSection, rarer: int) -> list[Finding]:
    """How many signals of each kind tell anything, within tasks where there are several.

    ``rarer``: number of held-out answers of the rarer kind.
    """
    scope = "within tasks" if any(r.scope == "within tasks" for r in signals.rows) else "all"
    kinds = {"structure": "attention", "generation": "the answer's probabilities"}
    found = []
    for kind, words in kinds.items():
        rows = [
            row
            for row in signals.rows
            if (row.kind, row.scope) == (kind, scope)
            and row.auroc is not None
            and not row.uses_label
        ]
        if not rows:
            continue
        telling = [r for r in rows if not (r.low or 0.0) <= 0.5 <= (r.high or 1.0)]
        strongest = max(rows, key=lambda r: abs((r.auroc or 0.5) - 0.5))
        where = " within tasks" if scope == "within tasks" else ""
        found.append(
            Finding(
                "fact",
                f"Of {len(rows)} signals of {words}, {len(telling)} have an interval that excludes 0.5{where} "
                "(one at a time: about one in twenty would by chance). The one furthest from it is "
                f"{strongest.name.replace('_', ' ')}, AUROC {three(strongest.auroc)} "
                f"({_range(three(strongest.low), three(strongest.high))}).",
            )
        )
    if (fused := signals.fusion) is not None:
        figure = f"{three(fused.auroc)} ({_range(three(fused.low), three(fused.high))})"
        ends = _range(signed_three(fused.lead_low), signed_three(fused.lead_high))
        lead = f"{signed_three(fused.lead)} ({ends})"
        verdict = (
            "shown" if fused.lead_low > 0 else "against" if fused.lead_high < 0 else "inconclusive"
        )
        text = (
            f"{len(fused.names)} signals that cost no further forward, fused on training images, predict "
            f"right answers on held-out ones with AUROC {figure}: {lead} against "
            f"{fused.best.replace('_', ' ')} alone, the best of them on training images."
        )
        if fused.within is not None:
            ends = _range(three(fused.within_low), three(fused.within_high))
            text += (
                f" Telling hard tasks from easy ones counts in that; among answers of the same task their "
                f"AUROC is {three(fused.within)} ({ends})."
            )
        if verdict != "inconclusive" and rarer < ENOUGH:
            verdict, text = "inconclusive", f"{text} But {_too_few(rarer)}."
        found.append(Finding(verdict, text))
    return found


def _probe(probe: ProbeSection) -> list[Finding]:
    """Within tasks and over all (one of them where there is one task), each with its control."""
    scopes = probe_scopes(probe)
    found = [finding for scope in scopes if (finding := probe_against_chance(probe, scope))]
    for scope in scopes:
        found += probe_leads(probe, scope)
    return found


def probe_scopes(probe: ProbeSection) -> tuple[str, ...]:
    """What the probe is judged over, what tells most first.

    Over all, telling hard tasks from easy ones is enough; within them it is not.
    """
    several = sum(row.task not in ("all", "within tasks") for row in probe.tasks) > 1
    return ("within tasks", "all") if several else ("all",)


def probe_against_chance(probe: ProbeSection, scope: str) -> Finding | None:
    """Whether the probe tells anything, beside its control; ``None`` where it has no AUROC."""
    rows = {(row.name, row.scope): row for row in probe.comparison}
    row = rows.get(("probe", scope))
    if row is None or row.auroc is None:
        return None
    if scope == "within tasks":
        sentence = "orders right and wrong answers of the same task with AUROC {}"
    elif len(probe_scopes(probe)) > 1:
        sentence = "predicts whether the answer is right, over all tasks, with AUROC {}"
    else:
        sentence = "predicts whether the answer is right with AUROC {}"
    where = f"A linear probe ({probe.site_words}), on images it was not fitted on, "
    control = rows.get(("shuffled labels", scope))
    return _against_chance(where + sentence, row, control, _rarer(probe))


def probe_leads(probe: ProbeSection, scope: str) -> list[Finding]:
    """The probe minus each baseline."""
    return [
        _lead(row, _rarer(probe))
        for row in probe.comparison
        if row.scope == scope and None not in (row.lead, row.lead_low, row.lead_high)
    ]


def _rarer(probe: ProbeSection) -> int:
    overall = next(row for row in probe.tasks if row.task == "all")
    return min(overall.n_right, overall.n - overall.n_right)


#: With fewer answers of the rarer kind than this the interval of an AUROC is too narrow: under the null
#: 5 % of them lie above 0.5 with five such answers, and 8 % with three, instead of 2.5 %. That of a
#: difference of two AUROCs excludes 0 in 11 % of null data sets with five such answers, and in 68 % with one.
ENOUGH = 10


def _too_few(rarer: int) -> str:
    return (
        f"there {'is' if rarer == 1 else 'are'} only {rarer} held-out "
        f"{'answer' if rarer == 1 else 'answers'} of the rarer kind: inconclusive, at least {ENOUGH} are needed"
    )


def _against_chance(
    sentence: str, row: ComparisonRow, control: ComparisonRow | None, rarer: int
) -> Finding:
    figure = f"{three(row.auroc)} ({_range(three(row.low), three(row.high))})"
    text = sentence.format(figure)
    low, high = row.low, row.high
    if low is None or high is None:
        return Finding("inconclusive", f"{text}: no interval could be made.")
    beside, above = "", True
    if control is not None and control.high is not None and row.auroc is not None:
        above = row.auroc > control.high
        beside = (
            f" Fitted in the same way to shuffled labels, {control.n} times, it gives "
            f"{three(control.low)} to {three(control.high)}."
        )
    if (low > 0.5 or high < 0.5) and rarer < ENOUGH:
        return Finding("inconclusive", f"{text}, but {_too_few(rarer)}.{beside}")
    if low > 0.5 and not above:
        return Finding(
            "inconclusive",
            f"{text}.{beside} The probe is not above all of these: inconclusive.",
        )
    if low > 0.5:
        return Finding("shown", f"{text}: better than chance (0.5).{beside}")
    if high < 0.5:
        return Finding("against", f"{text}: worse than chance (0.5); it points the wrong way.")
    return Finding("inconclusive", f"{text}: inconclusive, the interval includes chance (0.5).")


def _lead(row: ComparisonRow, rarer: int) -> Finding:
    low, high = row.lead_low or 0.0, row.lead_high or 0.0
    scope = "" if row.scope == "all" else ", within tasks"
    figure = f"{row.lead:+.3f} ({_range(f'{low:+.3f}', f'{high:+.3f}')})".replace("-", "−")
    text = f"Probe minus the baseline “{row.name}”{scope}: AUROC {figure}"
    if (low > 0 or high < 0) and rarer < ENOUGH:
        return Finding("inconclusive", f"{text}, but {_too_few(rarer)}.")
    if low > 0:
        return Finding("shown", f"{text}. The probe predicts better than that baseline.")
    if high < 0:
        return Finding("against", f"{text}. The probe predicts worse than that baseline.")
    return Finding(
        "inconclusive",
        f"{text}: inconclusive, the interval includes 0. That the probe predicts better than this "
        "baseline is not shown.",
    )


def ablation_findings(ablation: AblationSection) -> list[Finding]:
    """Whether zeroing the top units costs anything, and whether more than random ones; none without points."""
    points = [point for point in ablation.points if point.task == "all" and point.k > 0]
    if not points:
        return []
    return [_top_change(ablation, points), _top_against_random(ablation, points)]


def _top_change(ablation: AblationSection, points: list[CurveRow]) -> Finding:
    what = f"the dimensions of {ablation.site} that the probe weighs most"
    lower = [p for p in points if p.change_high < 0 and p.change_q is not None and p.change_q <= _Q]
    if lower:
        shown = lower[:1] if len(lower) == 1 else [lower[0], lower[-1]]
        changes = ", ".join(f"{_change(p)} at k = {p.k}" for p in shown)
        return Finding(
            "shown",
            f"Zeroing {what} lowers accuracy at k = {_list(lower)} (of {ablation.units}): "
            f"{changes}.",
        )
    worst = min(points, key=lambda p: p.change)
    return Finding(
        "inconclusive",
        f"Zeroing {what}: at no k up to {points[-1].k} (of {ablation.units}) is a loss of accuracy "
        f"distinguishable from none. The lowest change is {_change(worst)} at k = {worst.k}. An "
        "effect inside such an interval is not ruled out.",
    )


def _top_against_random(ablation: AblationSection, points: list[CurveRow]) -> Finding:
    """By interval at each k, and by one rank test of the whole curve; both must agree.

    The rank test is of the top costing more. Where it costs less, the same ranks are read from the other end.
    """
    p = points[0].curve_p
    least = 1 / (ablation.draws + 1)
    test = (
        f"Over the whole curve, the rank of the top's loss among {ablation.draws} random draws gives "
        f"p = {three(p)} (no less than {three(least)} is possible with {ablation.draws} draws)."
    )
    more = [point for point in points if point.excess_high < 0]
    less = [point for point in points if point.excess_low > 0]
    as_many = "zeroing as many random dimensions"
    if more and not less and p is not None and p <= _Q:
        return Finding(
            "shown",
            f"Zeroing them costs more accuracy than {as_many} at k = {_list(more)}: {_extreme(more)}. {test}",
        )
    if less and not more and p is not None and 1 - p + least <= _Q:
        return Finding(
            "against",
            f"Zeroing them costs less accuracy than {as_many} at k = {_list(less)}: {_extreme(less)}. {test} "
            "Read from the other end, for a smaller loss, it gives "
            f"p = {three(1 - p + least)} (draws that tie with it count for it).",
        )
    return Finding(
        "inconclusive",
        f"That zeroing them costs more accuracy than {as_many} is not shown: {_why_not(more, less)}; "
        f"{_extreme(points)}. {test}",
    )


def _why_not(more: list[CurveRow], less: list[CurveRow]) -> str:
    """Why neither direction is shown, from the k whose interval lies below 0 and above it."""
    sides = []
    if more:
        sides.append(f"the intervals of the difference lie below 0 at k = {_list(more)}")
    if less:
        sides.append(
            f"{'' if more else 'the intervals of the difference lie '}above 0 at k = {_list(less)}"
        )
    if not sides:
        return "at every k the interval of the difference includes 0"
    if more and less:
        return f"{' and '.join(sides)}, which disagree"
    cost = "" if more else ", where they cost less"
    return f"{sides[0]}{cost}, but the rank test does not agree"


def _extreme(points: list[CurveRow]) -> str:
    """The difference furthest from 0, whichever its sign."""
    point = max(points, key=lambda point: abs(point.excess))
    figure = _pp(point.excess, point.excess_low, point.excess_high)
    return f"the difference furthest from 0 is {figure} at k = {point.k}"


def _change(point: CurveRow) -> str:
    return _pp(point.change, point.change_low, point.change_high)


def _pp(value: float, low: float, high: float) -> str:
    return f"{signed(value)}\u00a0pp ({_range(signed(low), signed(high))})"


def _range(low: str, high: str) -> str:
    return f"95\u00a0% interval {low} to {high}"


def _list(points: list[CurveRow]) -> str:
    return ", ".join(str(point.k) for point in points)
