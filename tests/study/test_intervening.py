"""Interventions of a study: pieces, gaps, rows with known answers, words and the page."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import jinja2
import numpy as np
import pandas as pd
import pytest

import mechvrp
from mechvrp.circuits import Ranking
from mechvrp.data import is_correct
from mechvrp.errors import InputError
from mechvrp.plots import causal_changes, corruption_by_layer
from mechvrp.reliability import attention_maps, mean_map
from mechvrp.store import Chunks
from mechvrp.study import page, report_words
from mechvrp.study.causal_rows import causal_section
from mechvrp.study.causal_spec import Ablating, CausalSpec, attention_windows, causal_spec
from mechvrp.study.causal_words import causal_findings, causal_part
from mechvrp.study.coding import decode, plain
from mechvrp.study.intervening import (
    dims_of,
    intervene,
    intervention_forwards,
    join_interventions,
    observed_maps,
)
from mechvrp.study.page import figure_json
from mechvrp.study.rows import CausalSection


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava")


@pytest.fixture(scope="module")
def scenes():
    return list(mechvrp.data.load("scenes", limit=48))


@pytest.fixture(scope="module")
def maps(model, scenes):
    return [mean_map(found) for found in attention_maps(model, scenes)]


def ranking(d=96):
    return Ranking(("blocks.1.hook_resid_post",), np.arange(d) * 1.0)


@pytest.fixture(scope="module")
def spec(model, scenes):
    acts = mechvrp.cache(model, scenes, "resid_post", positions="last")
    right = np.arange(48) % 3 > 0
    return causal_spec(
        model,
        scenes,
        acts.stack("resid_post").numpy(),
        right,
        np.array([s.image_id for s in scenes]),
        ranking=ranking(),
        ks=(0, 5, 48),
        draws=3,
        mask_draws=2,
        noise_draws=2,
        folds=2,
        batch_size=8,
    )


@pytest.fixture(scope="module")
def outcome(model, scenes, maps, spec):
    return intervene(model, scenes[:16], maps[:16], spec)


def test_pieces_are_what_the_whole_is(model, scenes, maps, spec, outcome, tmp_path):
    pieces = Chunks(tmp_path / "0-tiny", 16, 8)
    for index in range(2):
        rows = pieces.rows(index)
        table, arrays = intervene(
            model, scenes[rows.start : rows.stop], maps[rows.start : rows.stop], spec
        )
        pieces.write(index, table, arrays, dims_of(arrays))
    joined, failed = join_interventions(Chunks.open(tmp_path / "0-tiny"))
    assert failed == {}
    assert list(joined)
    assert set(joined) == set(outcome[1])
    for name, values in outcome[1].items():
        assert np.allclose(joined[name], values, atol=1e-5), name
    clean = [is_correct(s, a.text) for s, a in zip(
        scenes[:16], mechvrp.reliability.greedy_answers(model, scenes[:16]), strict=True
    )]  # fmt: skip
    assert (joined["patches.clean"] == 1).tolist() == clean


def test_all_that_ran_is_a_row_and_what_did_not_is_a_gap(scenes, spec, outcome):
    groups = np.array([s.image_id for s in scenes[:16]])
    _, arrays = outcome
    section = causal_section(spec, arrays, {}, groups, n_resamples=200, left_out=3)
    assert len(section.rows) == sum(map(len, spec.conditions.values()))
    assert len({(r.family, r.name) for r in section.rows}) == len(section.rows)
    assert section.gaps == (
        "held-out examples left out, whose clean answer is not one token long: 3",
    )
    for row in section.rows:
        assert row.change_low <= row.change <= row.change_high
        assert row.excess == pytest.approx(row.change - row.control_change)
        assert row.q >= row.p
        assert (row.entropy_change is None) == (
            "noise" not in row.edit
            or (row.first_layer if row.family == "hidden states" else row.last_layer) == 3
        )
    broken = {**arrays, "patches.edited": arrays["patches.edited"].copy()}
    broken["patches.edited"][0, 0, :4] = -1
    less = causal_section(spec, broken, {"patches": ("no grid", "")}, groups, n_resamples=200)
    assert less.gaps == ("image patches (top 30 % masked): no grid (4 of 16 examples)",)
    assert len(less.rows) == len(section.rows) - 1
    other = arrays["patches.clean"] == 1
    other[0] = ~other[0]
    differ = causal_section(spec, arrays, {}, groups, right=other, n_resamples=200)
    assert "1 examples are left out" in differ.gaps[0]
    assert {row.n for row in differ.rows} == {15}
    with pytest.raises(InputError, match="outcomes of shape"):
        causal_section(spec, arrays, {}, groups[:5], n_resamples=200)


def test_a_family_that_fails_leaves_the_others(model, scenes, spec):
    few = replace(spec, ablations=(), scales=np.array([1.0, 0.0, 1.0, 1.0]))
    table, arrays = intervene(model, scenes[:3], [np.ones((2, 2))] * 3, few)
    failed = json.loads(table["failed"][0])
    assert set(failed) == {"patches", "hidden_states", "hidden_states_and_attention"}
    assert "constant" in failed["hidden_states"][0]
    assert (arrays["patches.edited"] == -1).all()
    assert (arrays["attention.edited"] >= 0).all()
    section = causal_section(few, arrays, failed, ["a", "b", "c"], n_resamples=100)
    assert {row.family for row in section.rows} == {"attention"}
    assert len(section.gaps) == 3
    assert any(
        gap.startswith("image patches: ") and "(3 of 3 examples)" in gap for gap in section.gaps
    )


def test_what_cannot_be_ranked_is_a_gap(model, scenes):
    hidden = np.random.default_rng(0).normal(size=(4, 48, 96))
    groups = np.array([s.image_id for s in scenes])
    none = causal_spec(model, scenes, hidden, np.ones(48, bool), groups, ranking=None)
    assert len(none.gaps) == 2
    assert "residual_neurons_zero" not in none.conditions
    one_class = causal_spec(model, scenes, hidden, np.ones(48, bool), groups, ranking=ranking())
    assert one_class.gaps[0].startswith("MLP neurons: wrong answers occur on 0")
    assert "residual_neurons_zero" in one_class.conditions
    with pytest.raises(InputError, match="hidden states of shape"):
        causal_spec(model, scenes, hidden[:2], np.ones(48, bool), groups, ranking=None)


def test_the_spec_is_made_of_the_training_examples(spec, model, scenes):
    site = "blocks.1.mlp.hook_post"
    neurons = mechvrp.cache(model, scenes, site, positions="last")[site].numpy()
    states = mechvrp.cache(model, scenes, "resid_post", positions="last").stack("resid_post")
    residual, mlp = spec.ablations
    assert mlp.ranking.site == site
    assert mlp.ks == residual.ks == (5, 48)
    assert np.allclose(mlp.means, neurons.mean(0), atol=1e-5)
    assert np.allclose(residual.means, states[1].numpy().mean(0), atol=1e-5)
    assert np.allclose(spec.scales, states.double().flatten(1).std(1), rtol=1e-5)
    forwards = intervention_forwards(model, model.encode(scenes[:8]), spec)
    assert set(forwards) == set(spec.conditions)
    assert 4 < forwards["patches"] < 6  # a clean run and four masked ones, without the vision tower
    assert forwards["attention"] < 3


@pytest.mark.parametrize("n", [1, 2, 4, 32])
def test_thirds_cover_all_layers_once(n):
    *parts, whole = attention_windows(n)
    assert whole == (0, n - 1)
    layers = [i for a, b in parts or [whole] for i in range(a, b + 1)]
    assert layers == list(range(n))


def test_maps_come_back_from_a_table():
    grid = np.arange(6.0).reshape(2, 3)
    table = pd.DataFrame({"map": [grid.ravel().astype(np.float32)], "map_rows": [2]})
    assert np.array_equal(observed_maps(table)[0], grid)


# ---- known answers ------------------------------------------------------------------------------

PLAIN = CausalSpec(
    ablations=(),
    scales=np.ones(4),
    hidden_windows=((1, 2),),
    attention_windows=((0, 3),),
    mask_draws=2,
    noise_draws=2,
)
N = 120


def made(top, noisy, entropy):
    """Arrays of ``PLAIN``: shares of answers that the top mask and hidden noise leave right."""
    rng = np.random.default_rng(0)
    clean = np.ones(N, np.int8)

    def runs(conditions, draws, share):
        return (rng.random((conditions, draws, N)) < share).astype(np.int8)

    arrays = {
        "patches.clean": clean,
        "patches.edited": np.concatenate([runs(1, 1, top), runs(1, 1, 0.95)]),
        "patches.control": np.repeat(runs(1, 2, 0.95), 2, axis=0),
        "hidden_states.clean": clean,
        "hidden_states.edited": runs(1, 2, noisy),
        "hidden_states.control": runs(1, 2, 1.0),
        "hidden_states.entropy_before": np.full((1, N), 0.8, np.float32),
        "hidden_states.entropy_after": (0.8 + entropy + 0.05 * rng.normal(size=(1, 2, N))),
    }
    for part in ("attention", "hidden_states_and_attention"):
        arrays |= {f"{part}.clean": clean}
        arrays |= {f"{part}.{kind}": runs(1, 2, 1.0) for kind in ("edited", "control")}
        arrays |= {f"{part}.entropy_before": -np.ones((1, N), np.float32)}
        arrays |= {f"{part}.entropy_after": -np.ones((1, 2, N), np.float32)}
    return arrays


GROUPS = np.arange(N) // 2


def section_of(**shares):
    return causal_section(PLAIN, made(**shares), {}, GROUPS, n_resamples=300)


def test_rows_say_what_was_done_to_the_answers():
    section = section_of(top=0.4, noisy=0.7, entropy=0.0)
    top, bottom, noise, attention, both = section.rows
    assert top.change == pytest.approx(-60, abs=12)
    assert top.excess_high < -30
    assert top.excess_q < 0.01
    assert bottom.excess_low <= 0 <= bottom.excess_high
    assert noise.change == pytest.approx(-30, abs=10)
    assert (noise.draws, noise.n, noise.n_groups) == (2, N, 60)
    assert noise.entropy_before == pytest.approx(0.8)
    assert noise.entropy_low <= 0 <= noise.entropy_high
    for row in (attention, both):
        assert (row.change, row.p, row.entropy_change) == (0, 1, None)
        assert row.change_low < 0 < row.change_high


def test_words_claim_only_what_intervals_and_tests_allow():
    section = section_of(top=0.4, noisy=0.7, entropy=0.0)
    verdicts = [finding.verdict for finding in causal_findings(section)]
    assert verdicts == ["shown", "inconclusive", "shown", "inconclusive", *["inconclusive"] * 2]
    texts = [finding.text for finding in causal_findings(section)]
    assert "more is lost than by the control" in texts[0]
    assert "the interval spans 0" in texts[1]
    assert "accuracy falls, and whether the maps change is not shown" in texts[3]
    diffuse = causal_findings(section_of(top=0.95, noisy=0.7, entropy=0.1))
    assert "maps become more diffuse" in diffuse[3].text
    focused = causal_findings(section_of(top=0.95, noisy=0.7, entropy=-0.1))
    assert (focused[3].verdict, focused[0].verdict) == ("shown", "inconclusive")
    steady = causal_findings(section_of(top=0.95, noisy=1.0, entropy=0.1))
    assert "That accuracy falls there is not shown" in steady[3].text


def planted_units(loss, draws=49):
    """Outcomes where zeroing 5 or more ranked units loses ``loss`` of the answers, random ones nothing."""
    ranking = Ranking(("blocks.1.hook_resid_post",), np.arange(8.0, 0.0, -1.0))
    spec = replace(
        PLAIN,
        ablations=(Ablating("residual neurons", ranking, np.zeros(8), (1, 2, 5, 8)),),
        draws=draws,
    )
    arrays = made(top=0.95, noisy=1.0, entropy=0.0)
    rng = np.random.default_rng(1)
    for mode in ("zero", "mean"):
        part = f"residual_neurons_{mode}"
        clean = arrays["patches.clean"]
        arrays[f"{part}.clean"] = clean
        top = np.repeat(clean[None, None], 4, axis=0)
        if mode == "zero":
            top[2:, :, rng.random(N) < loss] = 0
        control = np.repeat(np.repeat(clean[None, None], 4, axis=0), draws, axis=1)
        control[rng.random(control.shape) < 0.02] = 0
        arrays[f"{part}.edited"], arrays[f"{part}.control"] = top, control
    return causal_section(spec, arrays, {}, GROUPS, n_resamples=300)


def test_ablated_units_are_judged_by_the_whole_curve():
    """With 49 draws no k of eight can pass alone after adjustment; a large effect is shown all the same."""
    section = planted_units(loss=0.3)
    rows = [row for row in section.rows if row.family == "residual neurons"]
    assert {row.curve_p for row in rows if row.edit == "zero"} == {1 / 50}
    assert {row.curve_p for row in rows if row.edit == "mean"} == {1.0}
    assert min(row.excess_q for row in rows) > 0.05
    (found,) = [f for f in causal_findings(section) if "residual neurons" in f.text]
    assert found.verdict == "shown"
    assert "top 5 zeroed, top 8 zeroed" in found.text
    assert "top 1" not in found.text.split("lies below 0 with")[1]
    (none,) = [f for f in causal_findings(planted_units(loss=0.0)) if "residual" in f.text]
    assert none.verdict == "inconclusive"


def test_a_control_that_changes_nothing_still_has_an_interval():
    rows = [r for r in planted_units(loss=0.0).rows if r.family == "residual neurons"]
    for row in rows:
        assert row.control_low < row.control_change < row.control_high
        assert row.excess_low < row.excess < row.excess_high


def page_of(section):
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(page._TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=report_words.percent,
        three=report_words.three,
        signed=report_words.signed,
        change=report_words.signed_three,
    )
    part = causal_part(section, figure_json)
    return environment.get_template("causal.html").render(section={"causal": part}, prefix="m1")


def test_the_page_shows_every_row_and_gap_escaped():
    section = section_of(top=0.4, noisy=0.7, entropy=0.0)
    rows = (replace(section.rows[0], name="<b>top</b>"), *section.rows[1:])
    html = page_of(replace(section, rows=rows, gaps=("a <script> gap",)))
    assert "<b>top</b>" not in html
    assert "&lt;b&gt;top&lt;/b&gt;" in html
    assert "a &lt;script&gt; gap" in html
    assert html.count('<th scope="row">') == len(rows)
    assert html.count('type="application/json"') == 1 + len({row.family for row in rows})
    assert page_of(CausalSection((), 200, ("nothing ran",))).count("nothing ran") == 1


def test_sections_survive_json():
    section = section_of(top=0.4, noisy=0.7, entropy=0.0)
    text = json.dumps(plain(asdict(section)), allow_nan=False)
    assert decode(CausalSection, json.loads(text), "causal") == section


def test_figures_show_each_change_beside_its_control():
    frame = pd.DataFrame(section_of(top=0.4, noisy=0.7, entropy=0.1).rows)
    figure = causal_changes(frame)
    assert [len(trace.x) for trace in figure.data] == [len(frame)] * 2
    assert list(figure.data[0].x) == frame["change"].tolist()
    assert list(figure.data[1].x) == frame["control_change"].tolist()
    one = causal_changes(frame, family="attention")
    assert [len(trace.x) for trace in one.data] == [1, 1]
    noise = corruption_by_layer(frame)
    assert sum(len(trace.x) for trace in noise.data) == 3 * 2 + 1
    with pytest.raises(InputError, match="no interventions"):
        causal_changes(frame, family="none")
    with pytest.raises(InputError, match="no noise"):
        corruption_by_layer(frame[frame["edit"] == "mean"])
