"""Ablation curves run on a model are those of one forward each; bad input is refused before any."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.circuits import (
    AblationCurve,
    FittedProbe,
    Ranking,
    matched_sets,
    rank_by_probe_weight,
    unit_norms,
)
from mechvrp.circuits.logistic import fit_probe
from mechvrp.data import counterfactual_pair, is_correct
from mechvrp.errors import (
    InputError,
    NumericalError,
    ShapeError,
    SiteError,
    UnavailableError,
)
from mechvrp.plots import ablation_curve

PLACES = {
    "resid_post": ("blocks.2.hook_resid_post", "last"),
    "neurons": ("blocks.3.mlp.hook_post", "last"),
    "all positions": ("blocks.2.mlp.hook_post", "all"),
    "heads": ("blocks.1.attn.hook_z", "last"),
    "heads, image": ("blocks.1.attn.hook_z", "image"),
    "image features": ("vision_projector.hook_out", "image"),
}
FEW = {"draws": 2, "n_resamples": 100, "answer_tokens": None}


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava")


@pytest.fixture(scope="module")
def scenes():
    return list(mechvrp.data.load("scenes", limit=24))


@pytest.fixture(scope="module")
def yes_no(scenes):
    """Polls of three images, whose prompts are equally long."""
    return [s for s in scenes[:18] if s.task == "existence"]


def ranked(vlm, site, **more):
    width = {"z": vlm.n_heads, "neurons": vlm.d_mlp}.get(
        mechvrp.Site.parse(site).component, vlm.d_model
    )
    return Ranking((site,), np.random.default_rng(1).normal(size=width), **more)


def probe_of(d, seed=3, images=("another",)):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=d), rng.uniform(0.5, 2, d), rng.normal(size=d)
    return FittedProbe(*weights, 0.3, 1.0, images)


def by_hand(model, samples, site, units, positions, values, probe=None):
    """One trace with a change in place: right or wrong; the answer's logit and margin to the runner-up, [2];
    the probe's score."""
    batch = model.encode(samples)
    component = mechvrp.Site.parse(site).component
    with torch.no_grad():
        clean = []
        with mechvrp.trace(model, batch) as t:
            clean.append(t.logits[:, -1].save())
    own = clean[0].argmax(-1)
    with mechvrp.trace(model, batch) as t:
        state = t[site]
        if len(units):
            if component == "projected":
                where = (slice(None), list(units))
                state[where] = values[where].to(state)
            else:
                for i, at in enumerate(batch.tokens.resolve(positions)):
                    for p in at.tolist():
                        state[i, p, list(units)] = values[i, p, list(units)].to(state)
        if probe is not None:
            seen = t[probe[1]][:, -1].save()
        logits = t.logits[:, -1].float().save()
    rows = torch.arange(len(samples))
    others = logits.clone()
    others[rows, own] = -torch.inf
    margin = logits[rows, own] - others.max(-1).values
    texts = [
        model.tokenizer.decode([int(i)], skip_special_tokens=True).strip()
        for i in logits.argmax(-1)
    ]
    right = [is_correct(s, text, reading="strict") for s, text in zip(samples, texts, strict=True)]
    score = None if probe is None else probe[0].scores(seen.double().numpy())
    return np.array(right), np.stack([logits[rows, own].numpy(), margin.numpy()]), score


def reference(model, samples, site, positions, mode, over, curve_seed=0):
    """What is put in the place of units, the site's whole value, worked out from the cache by hand."""
    batch = model.encode(samples)
    component = mechvrp.Site.parse(site).component
    whole = mechvrp.cache(
        model, batch, site, positions="image" if component == "projected" else "all"
    )
    clean = whole.flat(site) if component == "projected" else whole[site]
    if mode == "zero":
        return torch.zeros_like(clean)
    if mode == "mean":
        return over.flat(site).mean(0).expand(clean.shape)
    out = clean.clone()
    donors = [
        mechvrp.resample(site, over, seed=curve_seed, positions=positions).donor(key)
        for key in batch.keys
    ]
    for i, donor in enumerate(donors):
        theirs = over[site][donor]
        if component == "projected":
            size = len(theirs)
            out[i * size : (i + 1) * size] = theirs
        else:
            at = batch.tokens.resolve(positions)[i]
            out[i, at] = theirs if positions != "last" else theirs[None]
    return out


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
@pytest.mark.parametrize("place", list(PLACES))
def test_outcomes_are_those_of_one_trace_each(model, yes_no, scenes, place, mode):
    site, positions = PLACES[place]
    ranking = ranked(model, site)
    units = len(ranking.scores)
    ks = (0, 1, units // 2)
    over = None
    if mode != "zero":
        # Resampled at all positions, donors' prompts must be as long.
        donors = yes_no if positions == "all" else scenes[18:]
        over = mechvrp.cache(model, donors, site, positions=positions)
    curve = mechvrp.ablation_curve(
        model, yes_no, ranking, ks, mode=mode, over=over, positions=positions, batch_size=4, **FEW
    )
    out = curve.outcomes
    assert len(out.images) == len(yes_no)
    values = reference(model, yes_no, site, positions, mode, over)
    rows = {"top": [ranking.top(ks[2])], "random": ranking.random(ks[2], 1, 0)}
    if mode == "zero":
        rows |= {"bottom": [ranking.bottom(ks[2])], "least": [ranking.least(ks[2])]}
    for name, draws in rows.items():
        for draw, chosen in enumerate(draws):
            right, (logit, margin), _ = by_hand(model, yes_no, site, chosen, positions, values)
            assert out.values["accuracy"][name][draw, 2].tolist() == right.tolist()
            assert out.values["margin"][name][draw, 2] == pytest.approx(margin, abs=2e-4)
            assert out.values["logit"][name][draw, 2] == pytest.approx(logit, abs=2e-4)
    assert np.array_equal(out.values["accuracy"]["top"][0, 0], out.clean["accuracy"])
    assert out.values["margin"]["matched"].shape == (2, 3, len(yes_no))
    assert curve.settings["mode"] == mode
    assert np.ptp(out.values["margin"]["top"][0], axis=0).max() > 0


@pytest.mark.parametrize(
    ("positions", "mode"),
    [("last", "zero"), ("all", "zero"), ("image", "zero"), ("last", "mean"), ("image", "resample")],
)
def test_the_probes_score_worked_out_is_the_one_read_in_the_run(model, yes_no, positions, mode):
    site = "blocks.2.hook_resid_post"
    ranking, probe = ranked(model, site), probe_of(model.d_model)
    over = None
    if mode != "zero":
        over = mechvrp.cache(model, yes_no, site, positions=positions)
    curve = mechvrp.ablation_curve(
        model,
        yes_no,
        ranking,
        (3, 40),
        mode=mode,
        over=over,
        positions=positions,
        probe=probe,
        **FEW,
    )
    values = reference(model, yes_no, site, positions, mode, over)
    for i, k in enumerate((3, 40)):
        *_, score = by_hand(model, yes_no, site, ranking.top(k), positions, values, (probe, site))
        assert curve.outcomes.values["probe"]["top"][0, i] == pytest.approx(score, abs=1e-4)
    if positions == "image":  # behind them nothing of this layer's last position is left to change
        assert np.array_equal(
            curve.outcomes.values["probe"]["top"][0, 1], curve.outcomes.clean["probe"]
        )


def test_a_probe_at_a_later_site_is_read_in_the_run(model, yes_no):
    site, later = "blocks.1.mlp.hook_post", "blocks.3.hook_resid_post"
    ranking, probe = ranked(model, site), probe_of(model.d_model)
    curve = mechvrp.ablation_curve(
        model, yes_no, ranking, (5, 100), probe=probe, probe_site=later, sets=(), **FEW
    )
    values = reference(model, yes_no, site, "last", "zero", None)
    *_, score = by_hand(model, yes_no, site, ranking.top(100), "last", values, (probe, later))
    assert curve.outcomes.values["probe"]["top"][0, 1] == pytest.approx(score, abs=1e-3)
    frame = curve.sets_to_frame()
    assert set(frame["measure"]) == {"accuracy", "logit", "margin", "probe"}
    ends = frame.query("measure == 'logit' and set == 'top'")[
        ["change_low", "change", "change_high"]
    ]
    assert (np.diff(ends.to_numpy()) > 0).all()


def test_a_ranking_of_several_sites(model, yes_no):
    sites = ("blocks.1.mlp.hook_post", "blocks.3.mlp.hook_post")
    ranking = Ranking(sites, np.random.default_rng(0).normal(size=2 * model.d_mlp))
    curve = mechvrp.ablation_curve(model, yes_no, ranking, (50,), **FEW)
    rows = ranking.top(50)
    edits = [
        mechvrp.zero(s, positions="last", units=[int(r) % model.d_mlp for r in rows if r // model.d_mlp == i])
        for i, s in enumerate(sites)
    ]  # fmt: skip
    found = mechvrp.sweep(model, model.encode(yes_no), [edits], progress=False)
    assert curve.outcomes.values["margin"]["top"][0, 0] == pytest.approx(
        found["logit_diff"].values[0], abs=1e-4
    )
    assert curve.site == ", ".join(sites)
    assert curve.units == 2 * model.d_mlp


def test_labels_files_and_repr(model, scenes, tmp_path):
    ranking = ranked(model, "blocks.2.hook_resid_post")
    split = {
        s.image_id: "ab"[i % 2] for i, s in enumerate({s.image_id: s for s in scenes}.values())
    }
    curve = mechvrp.ablation_curve(
        model, scenes, ranking, (0, 2, 48), draws=3, split=split, n_resamples=100,
        tasks=lambda s: s.task[:2], probe=probe_of(model.d_model),
    )  # fmt: skip
    assert set(curve.split_points) == {"a", "b"}
    frame = curve.to_frame()
    assert {"split: a", "split: b", "all", "ex"} <= set(frame["task"])
    assert all(len(name) == 2 for name in curve.task_points)
    assert "3 draws: no p against random sets is given" in " ".join(curve.notes)
    with pytest.raises(InputError, match="too few for a p"):
        curve.smallest_k()
    names = [str(trace.name).replace("<br>", " ") for trace in curve.plot().data]
    assert "top k by given scores, 95 % interval" in names
    assert "random units of the top's norm: mean, 95 % interval" in names
    drawn = curve.plot("logit")
    (line,) = [t for t in drawn.data if t.name and t.name.startswith("top k")]
    logits = [p for p in curve.sets if (p.part, p.measure, p.set) == ("all", "logit", "top")]
    assert list(line.x) == ["2", "48"]
    assert list(line.y) == [p.change.value for p in logits]
    assert line.error_y.array[1] == pytest.approx(logits[1].change.high - logits[1].change.value)
    assert "logit,<br>logits" in drawn.layout.yaxis.title.text
    again = AblationCurve.load(curve.save(tmp_path / "curve.json"))
    assert repr(again) == repr(curve)
    assert again.points == curve.points
    assert again.sets == curve.sets
    assert again.contrasts == curve.contrasts
    assert again.bottleneck == curve.bottleneck
    assert again.settings == curve.settings
    for name, sets in curve.outcomes.values.items():
        for which, value in sets.items():
            assert np.array_equal(again.outcomes.values[name][which], value)
            assert again.outcomes.values[name][which].dtype == value.dtype
    assert again.to_frame().equals(frame)
    # A file of before, without the answer's logit.
    held = json.loads((tmp_path / "curve.json").read_text())
    for part in ("clean", "values"):
        del held["outcomes"][part]["logit"]
    for part in ("sets", "contrasts"):
        held[part] = [row for row in held[part] if row["measure"] != "logit"]
    (tmp_path / "old.json").write_text(json.dumps(held))
    old = AblationCurve.load(tmp_path / "old.json")
    with pytest.raises(InputError, match="no 'logit'; it has accuracy, margin, probe"):
        old.plot("logit")
    with pytest.raises(InputError, match="no measure 'loss'"):
        old.plot("loss")
    with pytest.raises(InputError, match="give the curve itself"):
        ablation_curve(frame, measure="logit")
    assert set(old.outcomes.values) == set(old.sets_to_frame()["measure"])
    assert set(old.outcomes.values) == {"accuracy", "margin", "probe"}
    (tmp_path / "bad.json").write_text('{"kind": "other"}')
    with pytest.raises(InputError, match="expected 'mechvrp ablation curve'"):
        AblationCurve.load(tmp_path / "bad.json")


def test_norms_are_those_of_the_activations_and_matched_sets_match(model, scenes):
    site = "blocks.1.attn.hook_z"
    over = mechvrp.cache(model, scenes[:8], site, positions="last")
    norms = unit_norms(over, ranked(model, site))
    assert norms == pytest.approx(over[site].square().sum(-1).mean(0).sqrt().numpy(), rel=1e-5)
    site = "blocks.2.mlp.hook_post"
    over = mechvrp.cache(model, scenes[:8], site, positions="last")
    loud = unit_norms(over, ranked(model, site))
    ranking = Ranking((site,), loud + 0.1 * np.random.default_rng(0).normal(size=len(loud)))
    ks = (10, 40, 80)
    found = matched_sets(ranking, loud, ks, 5, 0)
    plain = ranking.random(80, 5, 0)
    for i, k in enumerate(ks):
        top = np.sqrt((loud[ranking.top(k)] ** 2).sum())
        for draw in range(5):
            mine = np.sqrt((loud[found.rows[draw, :k]] ** 2).sum())
            assert mine / top == pytest.approx(found.ratio[draw, i])
            # Random sets of the loudest units' number are far quieter than they.
            assert abs(np.log(mine / top)) < abs(
                np.log(np.sqrt((loud[plain[draw, :k]] ** 2).sum()) / top)
            )
    assert np.abs(found.ratio - 1).max() < 0.15


def test_answers_of_several_tokens_are_left_out_and_counted(model, scenes):
    ranking = ranked(model, "blocks.2.hook_resid_post")
    tokens = [1] * len(scenes)
    tokens[:3] = [2, 0, 5]
    curve = mechvrp.ablation_curve(model, scenes, ranking, (5,), **{**FEW, "answer_tokens": tokens})
    assert len(curve.outcomes.images) == len(scenes) - 3
    assert f"3 of {len(scenes)} examples" in curve.notes[0]
    with pytest.raises(UnavailableError, match="none of 24 clean answers"):
        mechvrp.ablation_curve(
            model, scenes, ranking, (5,), **{**FEW, "answer_tokens": [2] * len(scenes)}
        )


def test_what_does_not_fit_is_refused_before_any_forward(model, scenes, monkeypatch):
    site = "blocks.2.hook_resid_post"
    good, probe = ranked(model, site), probe_of(model.d_model)
    acts = mechvrp.cache(model, scenes[:4], site, positions="last")
    monkeypatch.setattr(type(model), "encode", lambda *a, **k: pytest.fail("it ran"))

    def curve(ranking=good, ks=(0, 1), samples=scenes, **more):
        return mechvrp.ablation_curve(model, samples, ranking, ks, **more)

    for ks in ((0, 97), (5, 1), (1, 1), (-1, 2), (), (0,)):
        with pytest.raises(InputError, match="ks must be different and ascending"):
            curve(ks=ks)
    with pytest.raises(InputError, match="draws=0"):
        curve(draws=0)
    with pytest.raises(InputError, match="no set 'upper'"):
        curve(sets=("upper",))
    with pytest.raises(ShapeError, match="units, the ranking 7"):
        curve(Ranking((site,), np.ones(7)))
    with pytest.raises(InputError, match="the ranking is of"):
        curve(ranked(model, site, model="other", fingerprint="0" * 32))
    with pytest.raises(InputError, match="made from 1 of these images"):
        curve(ranked(model, site, images=frozenset([scenes[0].image_id])))
    with pytest.raises(InputError, match="mode is 'zero'"):
        curve(mode="median")
    with pytest.raises(InputError, match="needs over="):
        curve(mode="mean")
    with pytest.raises(InputError, match="takes no over"):
        curve(over=acts)
    with pytest.raises(InputError, match="cached at 'last'"):
        curve(mode="mean", over=acts, positions="image")
    with pytest.raises(InputError, match="tasks must be a name for each"):
        curve(tasks=["a"])
    with pytest.raises(InputError, match="split has no entry for image"):
        curve(split={"x": "y"})
    with pytest.raises(InputError, match="chance has no level for the tasks"):
        curve(chance={"existence": 0.5})
    with pytest.raises(InputError, match="chance is a share"):
        curve(chance=1.0)
    with pytest.raises(InputError, match="answer_tokens has 2 counts"):
        curve(answer_tokens=[1, 1])
    with pytest.raises(InputError, match="2 samples of 1 images; .* at least two"):
        curve(samples=scenes[:2])
    with pytest.raises(InputError, match="2 samples of 1 images; .* at least two"):
        curve(samples=[scenes[0], counterfactual_pair(scenes[0])])
    nameless = [mechvrp.Sample(s.image, s.question, s.answer, task=s.task) for s in scenes[:2]]
    with pytest.raises(InputError, match="2 of 2 samples have no image_id"):
        curve(samples=nameless)
    with pytest.raises(SiteError, match="computed before"):
        curve(probe=probe, probe_site="blocks.1.hook_resid_post")
    with pytest.raises(SiteError, match="residual stream or an MLP's neurons"):
        curve(probe=probe, probe_site="blocks.3.attn.hook_z")
    with pytest.raises(ShapeError, match="the probe is of 5 dimensions"):
        curve(probe=probe_of(5))
    with pytest.raises(InputError, match="the probe was fitted on 1 of these images"):
        curve(probe=probe, probe_images=[scenes[0].image_id])
    for given in ({"probe_site": site}, {"probe_images": ["a"]}):
        with pytest.raises(InputError, match=f"{next(iter(given))} was given without a probe"):
            curve(**given)
    with pytest.raises(InputError, match="probe is a mechvrp.circuits.FittedProbe"):
        curve(probe=good)
    for given in ("abc", scenes[0].image_id, 5, [1]):
        with pytest.raises(InputError, match="probe_images holds image ids, one text each"):
            curve(probe=probe, probe_images=given)

    for name, value in (("draws", 2.5), ("seed", -1), ("seed", "a"), ("n_resamples", 5), ("n_resamples", 0),
                        ("batch_size", 0), ("draws", [1, 2])):  # fmt: skip
        with pytest.raises(InputError, match=name):
            curve(**{name: value})
    for ks in ((1.5,), [0, 1.9], "12"):
        with pytest.raises(InputError, match="ks must be whole numbers, ascending within 0 to 96"):
            curve(ks=ks)
    for draws in (1.5, "9", True):
        with pytest.raises(InputError, match=f"draws={draws!r}; expected one whole number of at"):
            curve(draws=draws)
    for samples in (["a", "b"], "ab", 5, [], {"a": scenes[0]}):
        with pytest.raises(InputError, match="expected samples"):
            curve(samples=samples)
    with pytest.raises(InputError, match="expected samples"):
        curve(mode="mean", over=5)
    with pytest.raises(InputError, match="expected samples .* got none"):
        curve(mode="mean", over=[])
    with pytest.raises(InputError, match="ranking must be"):
        curve([3, 1, 2])
    for labels in ({"tasks": 5}, {"split": 5}):
        with pytest.raises(InputError, match="must be a name for each"):
            curve(**labels)
    for name in ("all", "split: a"):
        with pytest.raises(InputError, match=f"tasks holds the name '{name}'"):
            curve(tasks=lambda s, name=name: name)
        with pytest.raises(InputError, match=f"split holds the name '{name}'"):
            curve(split=lambda s, name=name: name)
    with pytest.raises(InputError, match="sets must be names"):
        curve(sets=5)
    with pytest.raises(InputError, match="chance is a share"):
        curve(chance="half")
    with pytest.raises(InputError, match="answer_tokens must be whole"):
        curve(answer_tokens=[1.5] * len(scenes))
    with pytest.raises(InputError, match="reading is 'official' or 'strict'"):
        curve(reading="loose")
    for positions in ("lasst", 1.5, [], [(1, 2, 3)], ""):
        with pytest.raises(InputError, match="position|patch"):
            curve(positions=positions)
    unanswered = [mechvrp.Sample(s.image, s.question, "", s.image_id, s.task) for s in scenes]
    with pytest.raises(InputError, match="24 of 24 samples have no answer"):
        curve(samples=unanswered)
    acts.flat(site)[0, 0] = torch.nan
    with pytest.raises(NumericalError, match="1 values at"):
        curve(mode="mean", over=acts)


def test_a_probe_of_the_evaluations_images_is_refused_whoever_knows_of_them(
    model, yes_no, monkeypatch
):
    """By itself, by what is given beside it, by their source; and where nobody says, it is asked for."""
    site = "blocks.2.hook_resid_post"
    features = mechvrp.cache(model, yes_no, site, positions="last")[site].numpy()
    labels = np.arange(len(yes_no)) % 2 == 0
    ids = [s.image_id for s in yes_no]
    fitted, nameless = fit_probe(features, labels, 1.0, ids), fit_probe(features, labels, 1.0)
    assert (fitted.images, nameless.images) == (frozenset(ids), None)
    with pytest.raises(ShapeError, match="1 groups for"):
        fit_probe(features, labels, 1.0, ids[:1])
    twins = [counterfactual_pair(s) for s in yes_no]

    def curve(samples=yes_no, **more):
        options = {"sets": (), "draws": 1, "n_resamples": 20, **more}
        return mechvrp.ablation_curve(model, samples, ranked(model, site), (5,), **options)

    with monkeypatch.context() as patched:
        patched.setattr(type(model), "encode", lambda *a, **k: pytest.fail("it ran"))
        for samples in (yes_no, twins):
            with pytest.raises(InputError, match="fitted on 3 of these images"):
                curve(samples, probe=fitted)
            with pytest.raises(InputError, match="fitted on 3 of these images"):
                curve(samples, probe=fitted, probe_images=["another"])
        with pytest.raises(InputError, match="fitted on 1 of these images"):
            curve(probe=nameless, probe_images=ids[:1])
        with pytest.raises(InputError, match=r"does not know .* give probe_images="):
            curve(probe=nameless)
        for known in (None, ["another"]):
            found = rank_by_probe_weight(fitted, site, images=known)
            assert found.images == frozenset(ids) | frozenset(known or ())
            for samples in (yes_no, twins):
                with pytest.raises(InputError, match="3 of these images"):
                    found.check(model, samples)
        with pytest.raises(InputError, match=r"does not know .* give images="):
            rank_by_probe_weight(nameless, site)
        with pytest.raises(InputError, match="images holds image ids"):
            rank_by_probe_weight(nameless, site, images="abc")
    assert "probe" in curve(probe=nameless, probe_images=["another"]).outcomes.values
    assert curve(probe=nameless, force=True).settings["forced"]
    assert rank_by_probe_weight(nameless, site, images=()).images == frozenset()


def test_positions_out_of_range_are_refused_before_the_model_runs(model, yes_no, monkeypatch):
    monkeypatch.setattr(type(model.model), "forward", lambda *a, **k: pytest.fail("it ran"))
    with pytest.raises(SiteError, match="9999"):
        mechvrp.ablation_curve(
            model, yes_no, ranked(model, "blocks.2.hook_resid_post"), (5,), positions=9999, **FEW
        )


def test_images_are_encoded_once(model, yes_no, monkeypatch):
    encode, seen = type(model).encode, []

    def counted(self, samples, *a, **k):
        seen.append(len(samples))
        return encode(self, samples, *a, **k)

    monkeypatch.setattr(type(model), "encode", counted)
    ranking = ranked(model, "blocks.2.hook_resid_post")
    mechvrp.ablation_curve(model, yes_no, ranking, (5,), sets=(), **FEW)
    assert seen == [len(yes_no)]
