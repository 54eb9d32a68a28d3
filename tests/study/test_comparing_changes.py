"""Comparing runs: whole curves, kinds of control, amounts, readouts of attention, refused joint tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mechvrp.study.comparing import RunComparison, compare_runs
from mechvrp.study.schema import CausalRow, CausalSection
from tests.support.studies import (
    causal_row,
    causal_section,
    examples,
    figure_of,
    readout_section,
    row_of,
    section,
    write_run,
)

FAST = {"n_resamples": 200}
MORE = "{}: smallest k with more of a drop than random"


def compared(path: Path, *causal: CausalSection, **more: Any) -> RunComparison:
    """A checkpoint for each causal section: a, b, ..."""
    pairs = []
    for i, own in enumerate(causal):
        table = examples("abc"[i], seed=i)
        pairs.append((section(table, causal=own, **more), table))
    return compare_runs([write_run(path, *pairs)], **FAST)


def curve(family: str, edit: str, p: float | None, q: float) -> list[CausalRow]:
    """Drops of 1 and 6 at k = 5 and 32, beyond random units; ``q`` is of each k by itself."""
    units = {"units": 64, "first_layer": 2, "last_layer": 2, "edit": edit, "draws": 49}
    return [
        causal_row(family, f"top {k} {edit}", change, amount=k, excess_q=q, curve_p=p, **units)
        for k, change in ((5, -1.0), (32, -6.0))
    ]


def curves(*pairs: tuple[float | None, float]) -> CausalSection:
    """Residual stream zeroed and set to the mean, then the MLP likewise."""
    places = [(f, e) for f in ("residual neurons", "MLP neurons") for e in ("zero", "mean")]
    rows = [row for place, pair in zip(places, pairs, strict=True) for row in curve(*place, *pair)]
    return CausalSection(tuple(rows), 200)


def test_whole_curves_decide_and_are_adjusted_together(tmp_path):
    # No k passes by itself; of two curves of a place one at 0.02 has q = 0.04.
    found = compared(
        tmp_path / "r", curves((0.02, 0.2), (0.02, 0.2), (0.9, 0.2), (0.02, 0.2)), ablation=None
    )
    for name, k in (
        ("residual stream, zeroed", 32),
        ("residual stream, set to the mean", 32),
        ("MLP, zeroed", None),
        ("MLP, set to the mean", 32),
    ):
        figure = figure_of(found.causal, "a", MORE.format(name))
        assert (None if pd.isna(figure["value"]) else figure["value"]) == k, name
    detail = figure_of(found.causal, "a", MORE.format("MLP, set to the mean"))["detail"]
    assert "rank of the whole curve among 49 random draws: p = 0.02, q = 0.04" in detail
    assert "over 2 curves" in detail
    assert "no p below 0.02 is possible, nor q below 0.04 for one curve alone" in detail
    # Each k's own q stays in the table.
    assert figure_of(found.causal, "a", "MLP, zeroed: top 32")["q"] == 0.02
    texts = {f.text: f.verdict for f in found.findings["scenes, mixed"]}
    (mlp,) = [t for t in texts if t.startswith("MLP, set to the mean")]
    assert texts[mlp] == "shown"
    assert "no p below 0.02" in mlp
    (zeroed,) = [t for t in texts if t.startswith("MLP, zeroed")]
    assert texts[zeroed] == "inconclusive"


def test_one_curve_of_several_is_adjusted_away(tmp_path):
    one = curves((0.9, 0.01), (0.9, 0.01), (0.03, 0.01), (0.9, 0.01))
    found = compared(tmp_path / "r", one, ablation=None)
    figure = figure_of(found.causal, "a", MORE.format("MLP, zeroed"))
    assert pd.isna(figure["value"])  # q = 0.06, though each k's own is 0.01
    assert "q = 0.06 over 2 curves" in figure["gap"]


def test_the_studys_own_curve_is_one_of_its_place(tmp_path):
    found = compared(tmp_path / "r", curves((0.9, 0.2), (0.03, 0.2), (0.9, 0.2), (0.9, 0.2)))
    own = figure_of(found.causal, "a", MORE.format("residual stream, zeroed"))
    assert own["value"] == 32  # its curve's p is 0.04, the other's 0.03
    assert "p = 0.04, q = 0.04 over 2 curves; no p below 0.048 is possible" in own["detail"]
    alone = compared(tmp_path / "s", CausalSection((), 200))
    own = figure_of(alone.causal, "a", MORE.format("residual stream, zeroed"))
    assert "p = 0.04; no p below 0.048 is possible" in own["detail"]


def test_older_runs_are_judged_as_they_were(tmp_path):
    older = curves((None, 0.01), (None, 0.2), (None, 0.2), (None, 0.01))
    found = compared(tmp_path / "r", older, ablation=None)
    shown = figure_of(found.causal, "a", MORE.format("residual stream, zeroed"))
    assert shown["value"] == 32
    assert "for want of a rank test of the whole curve" in shown["detail"]
    assert pd.isna(figure_of(found.causal, "a", MORE.format("MLP, zeroed"))["value"])
    texts = [f.text for f in found.findings["scenes, mixed"] if f.text.startswith("Residual")]
    assert all("or want of a rank test of the whole curve" in text for text in texts)
    assert all(text.count("rank test") == 1 for text in texts)
    assert len(texts) == 2


def test_noise_has_a_position_control(tmp_path):
    causal = causal_section()
    last = causal_row("attention", "noise of 1 on log-weights, layer 3", -3.0, edit="noise", amount=1.0,
                      first_layer=3, last_layer=3, control="the same at another text position")  # fmt: skip
    found = compared(tmp_path / "r", replace(causal, rows=(*causal.rows, last)))
    of_last = "attention: noise of 1 on log-weights, layer 3"
    control = figure_of(found.causal, "a", f"{of_last}: position control")
    assert "the same at another text position, 5 draws; " in control["detail"]
    assert "0 by construction" in control["detail"]
    beyond = figure_of(found.causal, "a", f"{of_last}: minus position control")
    assert "0 by construction" in beyond["detail"]
    # A window that also holds earlier layers can reach the answer from there.
    window = "hidden states: noise of 1 SD, layers 2 to 3: position control"
    assert "construction" not in figure_of(found.causal, "a", window)["detail"]
    assert figure_of(found.structure, "a", "top 30 % masked: control")["value"] == -0.5
    texts = [f.text for f in found.findings["scenes, mixed"]]
    (noise,) = [t for t in texts if t.startswith("Noise of 1 SD on middle-late layers")]
    assert "its control (the same noise at another text position)" in noise
    assert "random" not in noise
    (masked,) = [t for t in texts if t.startswith("Masking the 30 % of patches")]
    assert "its control (random patches)" in masked


def other_amounts() -> CausalSection:
    def other(row: CausalRow) -> CausalRow:
        if row.family == "image patches":
            return replace(row, name=row.name.replace("30", "20"), amount=0.2)
        if row.family == "hidden states":
            return replace(row, name=row.name.replace("of 1", "of 2"), amount=2.0)
        return row

    own = causal_section()
    return replace(own, rows=tuple(map(other, own.rows)))


def test_other_amounts_are_named_and_not_pooled(tmp_path):
    found = compared(tmp_path / "r", causal_section(), other_amounts())
    pooled = set(found.pooled["quantity"])
    assert not [name for name in pooled if "masked" in name or " SD " in name]
    texts = [f.text for f in found.findings["scenes, mixed"]]
    for start, model in (
        ("Masking the 30 % of patches attended most changes", "a"),
        ("Masking the 20 % of patches attended most changes", "b"),
        ("Noise of 1 SD on middle-late layers", "a"),
        ("Noise of 2 SD on middle-late layers", "b"),
    ):
        (text,) = [t for t in texts if t.startswith(start)]
        assert f"accuracy by: {model} " in text


def test_a_recipe_speaks_of_its_own_amounts(tmp_path):
    tables = [examples(name, seed=i, n=150) for i, name in enumerate("ab")]
    pairs = [(section(table, causal=other_amounts()), table) for table in tables]
    path = write_run(tmp_path / "r", *pairs)
    found = compare_runs([path], training_seeds={"tiny": ["a", "b"]}, **FAST)
    texts = [f.text for f in found.findings["training seeds"]]
    for name in ("top 20 % masked", "top 20 % masked: minus control"):
        assert any(f"change of {name} is" in text for text in texts)
    (noise,) = [t for t in texts if "noise of 2 SD on middle-late layers: minus position" in t]
    assert "Student's t with 1 degree of freedom" in noise
    assert not any("30 %" in text for text in texts)


def test_missing_interventions_are_gaps_under_the_others_names(tmp_path):
    found = compared(tmp_path / "r", other_amounts(), CausalSection((), 200, ("no patches here",)))
    masked = figure_of(found.structure, "b", "top 20 % masked")
    assert masked["gap"] == "no patches here"
    noise = figure_of(found.summary, "b", "noise of 2 SD on middle-late layers")
    assert pd.isna(noise["value"])
    alone = compared(tmp_path / "s", CausalSection((), 200))
    assert pd.isna(figure_of(alone.structure, "a", "patches masked")["value"])


def test_both_readouts_of_attention_are_structure_and_cost_nothing(tmp_path):
    readouts = readout_section()
    linear = next(row for row in readouts.rows if row.name == "11 attention features")
    trees = replace(linear, name="11 attention features, trees", auroc=0.61, lead=None)
    readouts = replace(readouts, rows=(*readouts.rows, trees))
    found = compared(tmp_path / "r", causal_section(), readouts=readouts)
    for name, value in (("11 attention features", 0.52), ("11 attention features, trees", 0.61)):
        assert figure_of(found.structure, "a", f"AUROC of {name}")["value"] == value
        assert figure_of(found.structure, "a", f"balanced accuracy of {name}")["value"] == 0.7
        cost = found.cost[found.cost["signal"] == name].iloc[0]
        assert (cost["cost_forwards"], cost["kind"], cost["auroc"]) == (0, "structure", value)
    measures = found.self_consistency_and_hidden["measure"]
    assert not measures.str.contains("11 attention features").any()


def test_the_rank_tests_p_stands_beside_auroc_only(tmp_path):
    found = compared(tmp_path / "r", causal_section())
    for table in (found.structure, found.self_consistency_and_hidden):
        own = table[(table["kind"] == "R") & table["value"].notna()]
        assert len(own)
        assert own[["p", "q"]].isna().all(axis=None)
    area = figure_of(found.structure, "a", "AUROC of C_k")
    assert area[["p", "q"]].notna().all()


def test_a_joint_test_of_r_with_few_wrong_answers_is_a_gap(tmp_path):
    pairs = []
    for i, name in enumerate("ab"):
        table = examples(name, seed=i, n=240)
        table["correct"] = [j % 20 != i for j in range(240)]  # 12 wrong
        pairs.append((section(table), table))
    found = compare_runs([write_run(tmp_path / "r", *pairs)], **FAST)
    row = row_of(found, "cluster_count", "R")
    assert pd.isna(row["p_joint"])
    assert "no joint test: 'a on scenes, mixed' has 12 rows of the rarer label" in row["gap"]
    assert row["stratified"] == pytest.approx(row["stratified"])
    assert pd.notna(row_of(found, "cluster_count", "AUROC")["p_joint"])
