"""The case study of circuits (docs/circuits): its folders, comparisons and words, on made-up figures."""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.circuits import Circuit, CircuitNode, FlowPoint, ImageFlow, PatchedShares
from mechvrp.circuits.circuit_runs import shares
from mechvrp.errors import UnavailableError
from mechvrp.statistics import Estimate

ROOT = Path(__file__).parent.parent
NAMES = ("study", "one_model", "across", "chance", "margins", "telling", "keeping")


@pytest.fixture(scope="module")
def docs():
    """The modules of docs/circuits, which are scripts beside each other and no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs/circuits"))
        for name in NAMES:
            patch.delitem(sys.modules, name, raising=False)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
        for name in NAMES:
            sys.modules.pop(name)


def made(docs, name="tiny-llava", family="tiny-llava", weights="a", seed=0, **figures):
    """A checkpoint with these figures, 20 polls, and shares of 6 pairs."""
    rng = np.random.default_rng(seed)
    one = docs.keeping.Found(name, family, weights, {"seed": 0})
    for figure, value in figures.items():
        one.note(figure, value)
    absent = np.arange(20) % 2 == 1
    images = [f"image {i // 2}" for i in range(20)]
    right = rng.random(20) < 0.8
    one.answers = pd.DataFrame({"image_id": images, "absent": absent, "right": right})
    full, empty = 3 + rng.random(6), rng.random(6)
    one.shares["existence"] = docs.keeping.Shares(
        tuple(images[:6]), full, empty, 0.9 * full + 0.1 * empty, empty.copy()
    )
    return one


def estimate(value):
    return Estimate(value, value - 0.1, value + 0.1, 12, 6, 0.95, "bootstrap")


def a_flow():
    points = (
        FlowPoint("patching", "text", "share", 0, value=estimate(0.4), control=estimate(0.0)),
        FlowPoint("patching", "text", "share", 1, gap="no pairs"),
    )
    found = PatchedShares(
        (0, 1), {"text": np.array([[0.4, 0.6], [1.0, 2.0]])}, {"text": np.zeros((1, 2, 2))},
        np.array([1.0, 2.0]), np.array(["a", "b"]), 1,
    )  # fmt: skip
    return ImageFlow("m", "f", 2, "causal", points, {"patching": "c"}, found, {"seed": 0})


# --- families ---------------------------------------------------------------------------------------------


def seeds_of(docs, family, values):
    return [
        made(docs, f"{family}-{i}", family, f"{family} {i}", depth=value)
        for i, value in enumerate(values)
    ]


def test_three_seeds_against_three_can_not_be_told_below_a_tenth(docs):
    found = [*seeds_of(docs, "a", (0.1, 0.2, 0.3)), *seeds_of(docs, "b", (0.5, 0.6, 0.9))]
    table, texts = docs.across.families(found)
    (row,) = table.to_dict("records")
    assert row["apart"]
    assert row["p"] == pytest.approx(0.1)
    assert (row["first_mean"], row["second_mean"]) == pytest.approx((0.2, 2 / 3))
    assert (row["second_low"], row["second_high"], row["second_n"]) == (0.5, 0.9, 3)
    assert "a 3, b 3" in texts[0]
    assert "in 1 all seeds" in texts[1]
    assert "0.1 would be expected to, the mean over all 10 ways" in texts[1]
    assert "as many or more do in 10% of them" in texts[1]
    assert "No p could be below 0.1" in texts[1]
    assert texts[2].startswith("depth: a 0.20 (0.10 to 0.30, 3 seeds)")
    mixed = [*seeds_of(docs, "a", (0.1, 0.2, 0.7)), *seeds_of(docs, "b", (0.5, 0.6, 0.9))]
    (row,) = docs.across.families(mixed)[0].to_dict("records")
    assert not row["apart"]
    assert row["p"] > 0.1


def test_fewer_than_three_checkpoints_say_nothing_of_a_family(docs):
    found = [*seeds_of(docs, "a", (0.1, 0.2, 0.3)), *seeds_of(docs, "b", (0.5, 0.6))]
    table, texts = docs.across.families(found)
    assert table.empty
    assert "a 3, b 2" in texts[0]
    assert "nothing is claimed" in texts[1]
    # Copies of one checkpoint are one, whatever they are called.
    copies = [replace(found[-1], name=f"copy {i}") for i in range(4)]
    table, texts = docs.across.families([*found, *copies])
    assert table.empty
    assert "a 3, b 2" in texts[0]


def test_a_figure_that_one_seed_lacks_is_not_tested(docs):
    found = [*seeds_of(docs, "a", (0.1, 0.2, 0.3)), *seeds_of(docs, "b", (0.5, 0.6, 0.9))]
    found[0].note("index", 0.3)
    found[-1].figures.clear()
    table, texts = docs.across.families(found)
    assert table["p"].isna().all()
    assert table.set_index("figure")["missing"].to_dict() == {"depth": 1, "index": 5}
    assert "No figure is known" in texts[1]


@given(st.lists(st.floats(-5, 5).map(lambda x: round(x, 2)), min_size=6, max_size=7, unique=True))
def test_exact_p_is_that_of_all_ways_to_share_out(docs, values):
    one, other = values[:3], values[3:]
    gaps = []
    for chosen in itertools.combinations(range(len(values)), 3):
        rest = [v for i, v in enumerate(values) if i not in chosen]
        gaps.append(np.mean([values[i] for i in chosen]) - np.mean(rest))
    own = np.mean(one) - np.mean(other)
    lower, upper = (np.mean([sign * (g - own) <= 1e-9 for g in gaps]) for sign in (1, -1))
    assert docs.across.exact_p(one, other) == pytest.approx(min(1, 2 * min(lower, upper)))


@pytest.mark.parametrize("sizes", [(3, 3), (3, 3, 3), (3, 4)])
def test_families_are_shared_out_in_every_way(docs, sizes):
    rng = np.random.default_rng(len(sizes))
    families = {
        f"family {f}": [
            made(docs, f"{f}-{i}", f"family {f}", f"{f} {i}", one=v, same=1.0, again=v, other=rng.random())
            for i, v in enumerate(rng.random(n))
        ]
        for f, n in enumerate(sizes)
    }  # fmt: skip
    found = docs.chance.shared_out(families, 3)
    every = [one for ones in families.values() for one in ones]
    counts, groups = [], set()
    for order in itertools.permutations(range(len(every)) if len(every) < 8 else (), len(every)):
        ends = np.cumsum((0, *sizes))
        parts = [frozenset(order[a:b]) for a, b in itertools.pairwise(ends)]
        groups.add(frozenset(parts))
        n = 0
        for figure in ("one", "same", "again", "other"):
            values = [one.get(figure)["value"] for one in every]
            for a, b in itertools.combinations(parts, 2):
                low, high = [values[i] for i in a], [values[i] for i in b]
                n += max(low) < min(high) or max(high) < min(low)
        counts.append(n)
    pairs = len(sizes) * (len(sizes) - 1) // 2
    assert found["all"]["comparisons"] == 4 * pairs
    assert (
        found["distinct"]["comparisons"] == 2 * pairs
    )  # neither the same everywhere nor a repetition
    if counts:
        assert found["ways"] == len(groups)
        assert found["all"]["apart"] == counts[0]
        assert found["all"]["mean"] == pytest.approx(np.mean(counts))
        assert found["all"]["share"] == pytest.approx(np.mean(np.array(counts) >= counts[0]))
    else:
        assert found["ways"] == 280
        # No two values are the same: a tenth of the ways to halve six have all of one on one side.
        assert found["distinct"]["mean"] == pytest.approx(0.6)
    assert docs.chance.shared_out({str(i): every[:6] for i in range(4)}, 3) is None


def test_heads_that_come_first_are_counted_against_chance(docs):
    found = [made(docs, str(i), weights=str(i)) for i in range(4)]
    for one, p in zip(found, (0.25, 0.25, 0.5, 0.25), strict=True):
        one.tables["knockouts"] = pd.DataFrame({"k": [1, 2], "p": [p, None], "sets": [3, 0]})
    told = docs.chance.first_heads([*found, replace(found[2], name="a copy")])
    assert list(told) == ["1"]
    one = told["1"]
    assert (one["checkpoints"], one["first"], one["first_by_chance"]) == (4, 3, 1.0)
    assert one["first_p"] == pytest.approx(4 * 0.25**3 * 0.75 + 0.25**4)
    # Of 4^4 ranks, one sums to 4 and four to 5.
    assert (one["mean_p"], one["p"]) == pytest.approx((1.25 / 4, 5 / 256))
    assert one["least_by_chance"] == pytest.approx(1 - 0.75**4)
    found[0].tables["knockouts"]["sets"] = 7
    assert "first" not in docs.chance.first_heads(found)["1"]


# --- margins ----------------------------------------------------------------------------------------------


def a_curve(top, random, matched, draws=199):
    """A curve of one k whose margins are 1 in the clean run, and changed by these everywhere."""
    images = np.repeat(np.arange(10), 2)
    rng = np.random.default_rng(0)
    noise = {"random": rng.uniform(-0.1, 0.1, draws), "matched": rng.uniform(-0.1, 0.1, draws)}
    rows = [
        {"part": "all", "measure": "margin", "set": name, "k": 4, "change": change, "change_low": change - 0.1,
         "change_high": change + 0.1, "lowest": change - 0.1, "highest": change + 0.1}
        for name, change in (("top", top), ("random", random), ("matched", matched))
    ]  # fmt: skip
    for name, change in (("random", random), ("matched", matched)):
        ends = {"": 0, "_low": -0.1, "_high": 0.1}
        rows[0] |= {f"excess_{name}{end}": top - change + by for end, by in ends.items()}
    values = {"top": np.full((1, 2, 20), 1 + top)}
    values |= {
        name: np.broadcast_to((1 + change + noise[name])[:, None, None], (draws, 2, 20))
        for name, change in (("random", random), ("matched", matched))
    }
    outcomes = SimpleNamespace(
        ks=(0, 4), clean={"margin": np.ones(20)}, values={"margin": values}, images=images
    )
    return SimpleNamespace(
        outcomes=outcomes, units=16, site="blocks.3.mlp.hook_post", draws=draws,
        clean_accuracy=SimpleNamespace(n=20, n_groups=10), sets_to_frame=lambda: pd.DataFrame(rows),
    )  # fmt: skip


def test_margins_are_ranked_on_both_sides_of_random_sets(docs):
    found = [made(docs, name) for name in ("up", "down", "like")]
    for one, top in zip(found, (0.9, -0.9, 0.0), strict=True):
        one.curves["MLP neurons"] = a_curve(top, 0.0, 0.9)
    table = docs.margins.margins(found).set_index("checkpoint")
    assert len(table) == 3
    assert table["top"].tolist() == [0.9, -0.9, 0.0]
    assert table["p_random"][["up", "down"]].tolist() == [0.01, 0.01]  # the least of 199 draws
    assert table["p_random"]["like"] > 0.5
    assert table["p_matched"].tolist() == pytest.approx([table["p_matched"]["up"], 0.01, 0.01])
    assert table["q_random"]["up"] == pytest.approx(0.015)
    assert table["excess_random"].tolist() == pytest.approx([0.9, -0.9, 0])
    texts = docs.margins.summary(table.reset_index())
    assert (
        "Of 3 sets of top units by probe weight in 3 checkpoints 1 (in 1 checkpoints) leave a higher"
        in texts[0]
    )
    assert "and 1 (in 1 checkpoints) a lower one" in texts[0]
    assert "none leave a higher margin than random ones of the same norm" in texts[1]
    lines = docs.margins.markdown(table.reset_index(), ["up", "absent"]).splitlines()
    assert lines[0] == "| | up | absent |"
    assert lines[2].startswith(
        "| 4 of 16 MLP neurons | +0.90 [+0.80, +1.00]; random 0.00, p = 0.010; "
    )
    assert lines[2].endswith("| gap |")


def test_margins_have_no_p_of_few_draws(docs):
    one = made(docs)
    assert docs.margins.margins([one]).empty
    one.curves["MLP neurons"] = a_curve(0.9, 0.0, 0.9, draws=19)
    table = docs.margins.margins([one])
    assert table[["p_random", "q_random", "p_matched", "q_matched"]].isna().all(axis=None)
    assert docs.margins.summary(table) == []
    assert docs.margins.told(table.iloc[0]).endswith("random 0.00; of its norm +0.90")


# --- checkpoints ------------------------------------------------------------------------------------------


def test_a_checkpoint_beside_itself_differs_in_nothing(docs):
    one = made(docs)
    table, gaps = docs.across.differences(
        [one, replace(one, name="its double")], seed=0, resamples=100
    )
    assert set(table["figure"]) == {
        "polls answered rightly", "absent digits said to be there", "faithfulness: existence",
        "without it: existence",
    }  # fmt: skip
    assert table["difference"].abs().max() == 0
    assert not table["told"].any()
    assert {gap.split(":")[0] for gap in gaps} == {"bottleneck index", "depth of half"}


def test_differences_have_the_sign_and_size_that_was_put_in(docs):
    one, other = made(docs, "one"), made(docs, "other")
    one.answers["right"] = True
    other.answers["right"] = ~other.answers["absent"]  # says yes to everything
    part = other.shares["existence"]
    other.shares["existence"] = replace(part, kept=0.4 * part.full + 0.6 * part.empty)
    table, _ = docs.across.differences([one, other], seed=0, resamples=200)
    rows = table.set_index("figure")
    assert rows.loc["polls answered rightly", "difference"] == pytest.approx(0.5)
    assert rows.loc["absent digits said to be there", "difference"] == pytest.approx(-1)
    assert (rows["low"] <= rows["difference"] + 1e-9).all()
    assert (rows["high"] >= rows["difference"] - 1e-9).all()
    assert rows.loc["faithfulness: existence", "difference"] == pytest.approx(0.5)
    assert rows.loc["without it: existence", "difference"] == pytest.approx(0)
    assert rows.loc["faithfulness: existence", "told"]
    assert not rows.loc["without it: existence", "told"]
    yes, no = docs.telling.apart(table)
    assert len(yes) + len(no) == 4
    assert any("one minus other +0.50 [" in text for text in yes)


def test_shares_are_the_package_s_own(docs):
    part = made(docs).shares["existence"]
    weights = np.random.default_rng(0).integers(1, 4, (5, 6)).astype(float)
    ours = docs.across.share(part, "kept", weights)
    np.testing.assert_allclose(
        ours, shares(part.kept[:, None], part.full, part.empty, weights)[:, 0]
    )


# --- words ------------------------------------------------------------------------------------------------


def test_figures_are_told_with_their_intervals_and_units(docs):
    told = docs.telling.told
    row = {"figure": "faithfulness: existence", "value": 0.914, "low": 0.85, "high": 0.961}
    assert told(row) == "0.91 [0.85, 0.96]"
    assert told(row | {"figure": "polls answered rightly"}) == "91.4 % [85.0, 96.1]"
    bare = {"value": 12.0, "low": None, "high": None}
    assert told(bare | {"figure": "nodes: existence"}) == "12"
    difference = {"figure": "x", "difference": -0.001, "low": -0.2, "high": 0.3}
    assert told(difference, sign=True) == "0.00 [-0.20, +0.30]"
    pp = difference | {"figure": "polls answered rightly"}
    assert told(pp, sign=True) == "-0.1 pp [-20.0, +30.0]"


def test_an_index_of_few_random_sets_is_told_without_a_p(docs):
    row = {"figure": "bottleneck index: neurons", "value": 0.2, "low": 0.1, "high": 0.3}
    for p, words in ((None, "too few random sets for a p."), (0.005, "sets p = 0.005.")):
        (told,) = docs.telling.words_of(
            {"figures": [row | {"p": p}], "hallucinated": {}, "gaps": {}}
        )
        assert told.endswith(words)


def test_the_table_has_a_gap_where_a_checkpoint_has_no_figure(docs):
    one, other = made(docs, "one"), made(docs, "other")
    one.note("faithfulness: existence", estimate(0.9), random=0.2, p=0.005)
    both = {"checkpoints": {f.name: {"figures": f.figures} for f in (one, other)}}
    lines = docs.telling.markdown(both, ["one", "other"]).splitlines()
    assert lines[0] == "| | one | other |"
    assert (
        lines[2] == "| faithfulness: existence | 0.90 [0.80, 1.00]; random 0.20; p = 0.005 | gap |"
    )


# --- folders ----------------------------------------------------------------------------------------------


def test_what_is_kept_is_read_again(docs, tmp_path):
    keeping = docs.keeping
    one = made(docs, depth=0.5)
    one.flow = a_flow()
    one.circuits["existence"] = Circuit((CircuitNode("mlp_out", 0),), (), "m", "f", "llava", 4, 4)
    one.tables["heads"] = pd.DataFrame({"layer": [0, 1], "value": [0.25, 0.5]})
    one.tables["empty"] = pd.DataFrame()
    one.plots["a plot"] = go.Figure(go.Scatter(x=[1], y=[2]))
    with one.gap("a step"):
        raise UnavailableError("too few")
    keeping.keep(one, tmp_path / "m")
    again = keeping.read(tmp_path / "m")
    assert (again.name, again.figures, again.gaps) == (one.name, one.figures, {"a step": "too few"})
    assert again.get("depth")["value"] == 0.5
    pd.testing.assert_frame_equal(again.answers, one.answers)
    pd.testing.assert_frame_equal(again.tables["heads"], one.tables["heads"])
    assert again.tables["empty"].empty
    assert again.circuits["existence"].nodes == one.circuits["existence"].nodes
    assert again.plots["a plot"].data[0].y[0] == 2
    assert again.flow.points == one.flow.points
    np.testing.assert_array_equal(again.flow.shares.moved["text"], one.flow.shares.moved["text"])
    np.testing.assert_array_equal(again.shares["existence"].kept, one.shares["existence"].kept)
    assert str(again.flow.integration(n_resamples=50)) == str(one.flow.integration(n_resamples=50))


def test_only_a_complete_folder_of_these_settings_is_kept(docs, tmp_path):
    keeping, made_of = docs.keeping, {"sizes": {"steps": (0.1, 0.2)}, "seed": 0}
    one = replace(made(docs), made=made_of)
    assert not keeping.is_kept(tmp_path / "m", "a", made_of)
    keeping.keep(one, tmp_path / "m")
    assert keeping.is_kept(tmp_path / "m", "a", made_of)
    assert not keeping.is_kept(tmp_path / "m", "b", made_of)
    assert not keeping.is_kept(tmp_path / "m", "a", made_of | {"seed": 1})
    for damaged in ('{"version": 1, "name"', "[1]", "null"):
        (tmp_path / "m/found.json").write_text(damaged)
        assert not keeping.is_kept(tmp_path / "m", "a", made_of)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("circuit-existence.json", "{}"),
        ("plot-a-plot.json", "{"),
        ("heads.csv", None),
        ("found.json", None),
    ],
)
def test_a_folder_with_a_damaged_file_is_studied_again_and_says_so(
    docs, tmp_path, monkeypatch, capsys, file, text
):
    study = docs.study

    def studied(name, source, family, sizes, seed, say):
        one = made(docs, name, family, study.fingerprint(study.mechvrp.load(source)), depth=0.4)
        one.made = {"sizes": study.asdict(sizes), "seed": seed}
        one.circuits["existence"] = Circuit(
            (CircuitNode("mlp_out", 0),), settings={"faithfulness": 0.9, "pairs": 2}
        )
        one.tables["heads"] = pd.DataFrame({"layer": [0, 1]})
        one.plots["a plot"] = go.Figure(go.Scatter(x=[1], y=[2]))
        return one

    monkeypatch.setattr(study, "study_model", studied)
    monkeypatch.setattr(study.mechvrp, "load", cache(study.mechvrp.load))
    checkpoints = study.checkpoints_of(["tiny-llava"])
    study.run(checkpoints, study.QUICK, out=tmp_path)
    kept = tmp_path / "tiny-llava" / file
    if text is not None:
        kept.write_text(text)
    elif file == "found.json":  # whole JSON, of these settings, and yet not what was written
        held = json.loads(kept.read_text())
        kept.write_text(json.dumps({k: v for k, v in held.items() if k != "shares"}))
    else:
        kept.unlink()
    capsys.readouterr()
    study.run(checkpoints, study.QUICK, out=tmp_path)
    told = capsys.readouterr().out
    assert "is damaged" in told
    assert "studied again" in told
    study.run(checkpoints, study.QUICK, out=tmp_path)
    assert "kept from before" in capsys.readouterr().out


def test_checkpoints_are_named_once_and_their_folders_there(docs, tmp_path):
    study = docs.study
    (tmp_path / "seed1").mkdir()
    also = f"tiny-llava={tmp_path / 'seed1'}"
    found = study.checkpoints_of(["tiny-llava"], [also])
    assert found[1] == ("seed1", str(tmp_path / "seed1"), "tiny-llava")
    for bad in ("tiny-llava", f"llava={tmp_path}", "tiny-llava=nowhere"):
        with pytest.raises(SystemExit, match="FAMILY=FOLDER"):
            study.checkpoints_of(["tiny-llava"], [bad])
    with pytest.raises(SystemExit, match="each once"):
        study.checkpoints_of(["tiny-llava"], [also, also])


def test_a_sibling_is_studied_as_its_own_and_nothing_twice(docs, tmp_path, monkeypatch, capsys):
    study, ran = docs.study, []
    sibling = tmp_path / "tiny-llava-seed1"
    shutil.copytree(ROOT / "mechvrp/models/zoo/tiny-llava", sibling)

    def studied(name, source, family, sizes, seed, say):
        ran.append(name)
        weights = study.fingerprint(study.mechvrp.load(source))
        one = made(docs, name, family, weights, depth=0.4)
        one.made = {"sizes": study.asdict(sizes), "seed": seed}
        return one

    monkeypatch.setattr(study, "study_model", studied)
    monkeypatch.setattr(study.mechvrp, "load", cache(study.mechvrp.load))
    checkpoints = study.checkpoints_of(["tiny-llava"], [f"tiny-llava={sibling}"])
    for seed in (0, 0, 1):
        study.run(checkpoints, study.QUICK, out=tmp_path / "out", seed=seed)
    assert ran == 2 * ["tiny-llava", "tiny-llava-seed1"]
    assert "tiny-llava-seed1: kept from before" in capsys.readouterr().out
    held = json.loads((tmp_path / "out/results.json").read_text())
    assert list(held["checkpoints"]) == ["tiny-llava", "tiny-llava-seed1"]
    assert held["families"][0] == "Checkpoints of different weights: tiny-llava 1."  # it is a copy
    assert "nothing is claimed" in (tmp_path / "out/page.html").read_text()
    with pytest.raises(SystemExit, match="was given as tiny-paligemma"):
        study.run(
            study.checkpoints_of([], [f"tiny-paligemma={sibling}"]), study.QUICK, out=tmp_path
        )
