"""The three findings: what is said follows from the intervals, and what was not measured is said to be so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mechvrp.study.report_words import Finding
from mechvrp.study.schema import ModelSection
from mechvrp.study.summary_words import three_findings
from tests.support.studies import examples, section


@pytest.fixture(scope="module")
def made() -> ModelSection:
    return section(examples("a", tasks=2))


def answers(given: ModelSection) -> list[Finding]:
    return [question.answers[0][1] for question in three_findings([given])]


def shaped(given: ModelSection, **changes: Any) -> ModelSection:
    """The section with these figures for both summaries of the map."""
    rows = tuple(
        replace(row, **changes)
        if row.name in ("spatial_entropy_normalised", "cluster_count")
        else row
        for row in given.signals.rows
    )
    return replace(given, signals=replace(given.signals, rows=rows))


def test_every_model_is_asked_all_three(made: ModelSection) -> None:
    other = section(examples("b", seed=1), parts=False)
    found = three_findings([made, other])
    assert [question.name for question in found] == ["attention", "hidden-states", "ablation"]
    assert all([name for name, _ in question.answers] == ["a", "b"] for question in found)


def test_an_interval_that_spans_chance_shows_nothing(made: ModelSection) -> None:
    found = answers(shaped(made, auroc=0.52, low=0.45, high=0.59, q=0.6))[0]
    assert found.verdict == "inconclusive"
    assert "0.520 (95\u00a0% interval 0.450 to 0.590)" in found.text
    assert "Both intervals include chance (0.5)" in found.text
    assert "is not ruled out" in found.text
    assert found.text.startswith("Among answers of the same task")


def test_an_effect_is_shown_with_its_direction(made: ModelSection) -> None:
    found = answers(shaped(made, auroc=0.4, low=0.33, high=0.47, q=0.01))[0]
    assert found.verdict == "shown"
    assert "is lower where answers are right" in found.text


def test_one_of_many_tries_shows_nothing(made: ModelSection) -> None:
    found = answers(shaped(made, auroc=0.58, low=0.51, high=0.65, q=0.3))[0]
    assert found.verdict == "inconclusive"
    assert "not once the number of signals tried is allowed for" in found.text


def test_few_wrong_answers_show_nothing(made: ModelSection) -> None:
    given = shaped(made, auroc=0.8, low=0.7, high=0.9, q=0.01)
    few = tuple(replace(row, n_right=row.n - 4) for row in given.accuracy)
    found = answers(replace(given, accuracy=few))[0]
    assert found.verdict == "inconclusive"
    assert "only 4 answers are of the rarer kind" in found.text


def test_hidden_states_beside_both_baselines(made: ModelSection) -> None:
    tasks = [replace(made.probe.tasks[0], task=t) for t in ("all", "task 0", "task 1")]
    found = answers(replace(made, probe=replace(made.probe, tasks=tuple(tasks))))[1]
    assert found.verdict == "shown"
    assert "of the same task with AUROC 0.800 (95\u00a0% interval 0.700 to 0.880)" in found.text
    assert "“task and answer”, within tasks: AUROC +0.200" in found.text
    assert "“answer probability”, within tasks: AUROC +0.020" in found.text
    assert "is not shown" in found.text  # of that last lead, whose interval spans 0


def test_ablation_is_judged_against_random_units(made: ModelSection) -> None:
    found = answers(made)[2]
    assert found.verdict == "shown"
    assert "With the 32 of 64 dimensions of blocks.2.hook_resid_post" in found.text
    assert "accuracy on 60 held-out answers about 20 images changes by" in found.text
    assert "−9.0\u00a0pp (95\u00a0% interval −12.0 to −6.0)" in found.text
    assert "as many random ones by −1.0\u00a0pp" in found.text


def against_random(made: ModelSection, p: float, *ends: tuple[float, float, float]) -> Finding:
    """The third finding with these differences, from k = 5 on, and this p of the rank test."""
    first, *points = made.ablation.points
    changed = (
        replace(point, curve_p=p, excess=mid, excess_low=low, excess_high=high)
        for point, (mid, low, high) in zip(points, ends, strict=True)
    )
    curve = replace(made.ablation, points=(first, *changed))
    return answers(replace(made, ablation=curve))[2]


def test_a_difference_that_includes_none_is_said_to(made: ModelSection) -> None:
    found = against_random(made, 0.3, (-0.5, -3.0, 2.0), (2.7, -0.3, 5.7))
    assert found.verdict == "inconclusive"
    assert "is not shown: at every k the interval of the difference includes 0" in found.text
    # The largest is the one furthest from 0, not the lowest.
    assert (
        "furthest from 0 is +2.7\u00a0pp (95\u00a0% interval −0.3 to +5.7) at k = 32" in found.text
    )


def test_units_that_cost_less_than_random_ones_are_the_other_way_round(made: ModelSection) -> None:
    found = against_random(made, 1.0, (3.0, 1.0, 5.0), (2.0, 1.0, 5.0))
    assert found.verdict == "against"
    assert "costs less accuracy than zeroing as many random dimensions at k = 5, 32" in found.text
    assert "+3.0\u00a0pp (95\u00a0% interval +1.0 to +5.0) at k = 5" in found.text
    assert "for a smaller loss, it gives p = 0.048" in found.text
    assert "includes 0" not in found.text


def test_a_rank_test_that_does_not_agree_is_said_to(made: ModelSection) -> None:
    found = against_random(made, 0.5, (3.0, 1.0, 5.0), (2.0, -1.0, 5.0))
    assert found.verdict == "inconclusive"
    assert "lie above 0 at k = 5, where they cost less, but the rank test does not" in found.text
    found = against_random(made, 0.5, (-3.0, -5.0, -1.0), (2.0, -1.0, 5.0))
    assert found.verdict == "inconclusive"
    assert "lie below 0 at k = 5, but the rank test does not agree" in found.text
    found = against_random(made, 0.04, (-3.0, -5.0, -1.0), (2.0, 1.0, 5.0))
    assert found.verdict == "inconclusive"
    assert "lie below 0 at k = 5 and above 0 at k = 32, which disagree" in found.text


def test_what_was_not_measured_is_a_gap_with_its_reason() -> None:
    given = replace(section(examples("a"), parts=False), signals=None)
    found = answers(given)
    assert [f.verdict for f in found] == ["gap"] * 3
    assert "no probe: the training images hold no wrong answers" in found[1].text


def test_a_gap_tells_the_notes_of_its_own_finding_only() -> None:
    notes = (
        "no probe: too few wrong answers",
        "no ablation curve: there is no probe to rank units by",
        "no readout by MLP probe: it did not converge",
    )
    given = replace(section(examples("a"), parts=False), signals=None, notes=notes)
    attention, hidden, ablation = (found.text for found in answers(given))
    assert "The run says" not in attention
    assert hidden == "There is no probe. The run says: no probe: too few wrong answers."
    assert ablation == (
        "Nothing was taken away. The run says: no ablation curve: there is no probe to rank units by."
    )
    # What kept the whole model from being run is about all three.
    whole = "nothing else of this model could be run: its numbers are not finite"
    assert all(whole in found.text for found in answers(replace(given, notes=(whole,))))
