"""What probes' leads, interventions and calibration say, in each checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from mechvrp.plots.directions import isolated
from mechvrp.study.compare_ablations import ABLATED
from mechvrp.study.compare_causal import CONTROL, late_noise, noise_amount, top_masked
from mechvrp.study.compare_measures import Figure
from mechvrp.study.compare_phrases import PAPER, names_of, numbered, rarer, shown_ends
from mechvrp.study.compare_units import Unit
from mechvrp.study.report_words import ENOUGH, Finding

__all__ = ["checkpoint_findings"]


def checkpoint_findings(units: Sequence[Unit], own: Sequence[Figure]) -> list[Finding]:
    """Findings that name each checkpoint, from the units and figures of one data set."""
    return [
        *_leads(units, own),
        *_masked(units, own),
        *(finding for name in ABLATED for finding in _ablations(own, name)),
        *_noise(units, own),
        *_sharpness(own),
        *_calibration(own),
    ]


def _leads(units: Sequence[Unit], own: Sequence[Figure]) -> list[Finding]:
    """The probe against its baselines, in each checkpoint that has enough answers of the rarer kind."""
    found = []
    answers = {unit.key: rarer([unit], "heldout") for unit in units if unit.section.probe}
    for name in ("task and answer", "answer probability"):
        given = numbered(own, f"probe minus {name}")
        if not given:
            continue
        counted = [(f, ends) for f, ends in given if answers[f.model, f.data] >= ENOUGH]
        above = [f for f, ends in counted if ends[1] > 0]
        below = [f for f, ends in counted if ends[2] < 0]
        each = "; ".join(
            f"{isolated(f.model)} {shown_ends('AUROC difference', ends)}" for f, ends in given
        )
        verdict = "against" if below else "shown" if len(above) == len(given) else "inconclusive"
        says = f"The interval lies above 0 in {len(above)} of {len(given)}, below 0 in {len(below)}"
        if len(above) + len(below) < len(counted):
            says += "; where it includes 0, neither is shown"
        few = [
            f"{isolated(f.model)} ({answers[f.model, f.data]})"
            for f, _ in given
            if answers[f.model, f.data] < ENOUGH
        ]
        if few:
            says += (
                f". Not counted, for want of held-out answers of the rarer kind ({ENOUGH} are needed): "
                f"{names_of(few)}"
            )
        text = (
            f"Does the probe know more than {name} alone? Difference of AUROC on held-out images: "
            f"{each}. {says}."
        )
        found.append(Finding(verdict, text))
    return found


def _masked(units: Sequence[Unit], own: Sequence[Figure]) -> list[Finding]:
    """One finding for each fraction: changes of different ones are different things."""
    rows = {row.name: row for unit in units for row in top_masked(unit)}
    return [
        finding
        for name, row in rows.items()
        for finding in _changes(
            own,
            name,
            f"Masking the {100 * row.amount:g} % of patches attended most",
            (CONTROL["mean"], "random patches"),
        )
    ]


def _noise(units: Sequence[Unit], own: Sequence[Figure]) -> list[Finding]:
    """One finding for each amount."""
    amounts = dict.fromkeys(noise_amount(unit) for unit in units)
    return [
        finding
        for amount in amounts
        if amount is not None
        for finding in _changes(
            own,
            late_noise(amount),
            f"Noise of {amount:g} SD on middle-late layers",
            (CONTROL["noise"], "the same noise at another text position"),
        )
    ]


def _changes(
    own: Sequence[Figure], measure: str, words: str, control: tuple[str, str]
) -> list[Finding]:
    """``control``: what it is called, and what it is."""
    given = numbered(own, measure)
    if not given:
        return []
    beyond = {f.model: ends for f, ends in numbered(own, f"{measure}: minus {control[0]}")}
    each = "; ".join(
        f"{isolated(f.model)} {shown_ends('pp', ends)}"
        + (f", {shown_ends('pp', beyond[f.model])} beyond its control" if f.model in beyond else "")
        for f, ends in given
    )
    drops = [f.model for f, ends in given if ends[2] < 0]
    more = [model for model, ends in beyond.items() if ends[2] < 0]
    verdict = "shown" if drops and len(more) == len(given) else "inconclusive"
    return [
        Finding(
            verdict,
            f"{words} changes accuracy by: {each}. The interval lies below 0 in {names_of(drops)}; that of the "
            f"difference from its control ({control[1]}) in {names_of(more)}. Intervals are one at a time.",
        )
    ]


def _ablations(own: Sequence[Figure], name: str) -> list[Finding]:
    measure = f"{name}: smallest k with {{}}"
    given = [f for f in own if f.measure == measure.format("a drop")]
    known = [f for f in given if f.value is not None or "none shown" in f.gap]
    if not known:
        return []
    more = {f.model: f for f in own if f.measure == measure.format("more of a drop than random")}
    parts = []
    for figure in known:
        beyond = more.get(figure.model)
        if figure.value is None:
            first = f"no loss of accuracy is {figure.gap.removeprefix('none ')}"
        else:
            first = f"it lowers accuracy from k = {figure.value:.0f} ({figure.detail})"
        at = "at no k" if beyond is None or beyond.value is None else f"from k = {beyond.value:.0f}"
        parts.append(
            (
                f"in {isolated(figure.model)} {first}, and more of a loss than random ones give {at}",
                beyond,
            )
        )
    specific = [f for f in known if f.model in more and more[f.model].value is not None]
    tests = ["" if beyond is None else beyond.detail.partition("; ")[2] for _, beyond in parts]
    each = "; ".join(
        f"{words} ({test})" if test and len(set(tests)) > 1 else words
        for (words, _), test in zip(parts, tests, strict=True)
    )
    text = f"{name[0].upper()}{name[1:]}, the units that the probe weighs most: {each}."
    if tests[0] and len(set(tests)) == 1:  # said once for all
        text += f" {tests[0][0].upper()}{tests[0][1:]}."
    text += " A loss that is not shown may still be there."
    if name == ABLATED[0]:
        text += (
            " Reported: −8.3 pp from the top 5 in one model, 1 pp at most from half of the layer in two "
            f"({PAPER})."
        )
    return [Finding("shown" if len(specific) == len(known) else "inconclusive", text)]


def _sharpness(own: Sequence[Figure]) -> list[Finding]:
    given = numbered(own, "attention-confidence correlation")
    if not given:
        return []
    each = "; ".join(f"{isolated(f.model)} {shown_ends('R', ends)}" for f, ends in given)
    above = [f.model for f, ends in given if ends[1] > 0]
    below = [f.model for f, ends in given if ends[2] < 0]
    return [
        Finding(
            "fact",
            "Is a model surer where its attention is sharper? Correlation of 1 - H_s / log S with the "
            f"answer's probability: {each}. Above 0 in {names_of(above)}; below 0 in {names_of(below)}. "
            "Reported by the press: 0.74, 0.68 and 0.71 for three large models.",
        )
    ]


def _calibration(own: Sequence[Figure]) -> list[Finding]:
    given = numbered(own, "ECE of answer probability")
    if not given:
        return []
    each = "; ".join(
        f"{isolated(f.model)} {shown_ends('AUROC', ends)} ({f.detail})" for f, ends in given
    )
    return [Finding("fact", f"Expected calibration error of the answer's probability: {each}.")]
