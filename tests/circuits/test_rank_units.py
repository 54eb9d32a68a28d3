"""Methods of ranking against scikit-learn, autograd and forwards written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mechvrp
from mechvrp.circuits import RANKING_METHODS, Ranking, RankingMethod, UnitScores, rank_units
from mechvrp.circuits.rank_methods import PairAttribution
from mechvrp.circuits.rank_methods.intervals import fold_interval
from mechvrp.circuits.rank_methods.sparse import _entries
from mechvrp.data import counterfactual_pair
from mechvrp.errors import InputError, NumericalError, ShapeError, SiteError, UnavailableError

NEURONS, RESID = "blocks.2.mlp.hook_post", "blocks.1.hook_resid_post"
HEADS, IMAGE = "blocks.2.attn.hook_z", "vision_projector.hook_out"


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava")


@pytest.fixture(scope="module")
def scenes():
    return list(mechvrp.data.load("scenes", limit=60))


@pytest.fixture(scope="module")
def labels(scenes):
    # Not of the model's answers, which are nearly all right: any two classes do for parity.
    return np.array([i % 3 > 0 for i in range(len(scenes))])


@pytest.fixture(scope="module")
def polls():
    found = mechvrp.data.load("scenes", limit=80)
    return [sample for sample in found if sample.task == "existence"][:10]


def standardised(model, samples, site):
    values = mechvrp.cache(model, samples, site)[site].flatten(1).double().numpy()
    return StandardScaler().fit_transform(values)


def test_probe_weights_are_those_of_scikit_learn(model, scenes, labels):
    found = rank_units(model, scenes, NEURONS, labels=labels, folds=4, seed=3)
    c = found.settings["c"]
    x = mechvrp.cache(model, scenes, NEURONS)[NEURONS].double().numpy()
    pipe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
    images = [s.image_id for s in scenes]
    by_hand = pipe.fit(x, labels)[1].coef_[0]
    assert np.allclose(found.scores, by_hand, rtol=1e-3, atol=1e-6)
    splitter = StratifiedGroupKFold(n_splits=4, shuffle=True, random_state=3)
    refits = [
        pipe.fit(x[rest], labels[rest])[1].coef_[0] for rest, _ in splitter.split(x, labels, images)
    ]
    error = np.sqrt(3 / 4 * ((refits - np.mean(refits, axis=0)) ** 2).sum(0))
    assert np.allclose(found.high - found.scores, 3.18244630528 * error, rtol=2e-3, atol=1e-6)
    assert np.allclose(found.scores - found.low, found.high - found.scores)
    assert found.images == set(images)
    assert found.settings["per"] == "standard deviation"
    assert found.settings["right"] == labels.sum()
    raw = rank_units(model, scenes, NEURONS, labels=labels, folds=4, seed=3, per="unit")
    assert np.allclose(raw.scores, found.scores / x.std(0))


def test_one_probe_is_fitted_on_all_sites(model, scenes, labels):
    found = rank_units(model, scenes, "resid_post", layers=[0, 2], labels=labels, c_grid=[0.01])
    assert found.sites == ("blocks.0.hook_resid_post", "blocks.2.hook_resid_post")
    x = np.concatenate([standardised(model, scenes, site) for site in found.sites], axis=1)
    by_hand = LogisticRegression(C=0.01, max_iter=2000).fit(x, labels).coef_[0]
    assert np.allclose(found.scores, by_hand, rtol=1e-3, atol=1e-6)


def test_a_head_s_score_is_its_part_of_the_difference_of_log_odds(model, scenes, labels):
    found = rank_units(model, scenes, HEADS, labels=labels, c_grid=[0.01])
    x = standardised(model, scenes, HEADS)
    coef = LogisticRegression(C=0.01, max_iter=2000).fit(x, labels).coef_[0]
    part = coef * (x[labels].mean(0) - x[~labels].mean(0))
    assert np.allclose(found.scores, part.reshape(4, -1).sum(1), rtol=1e-3)
    odds = x @ coef
    assert found.scores.sum() == pytest.approx(odds[labels].mean() - odds[~labels].mean(), rel=1e-3)
    with pytest.raises(InputError, match="a head's score"):
        rank_units(model, scenes, HEADS, labels=labels, per="unit")


def test_image_features_are_means_over_the_image(model, scenes, labels):
    found = rank_units(model, scenes[:30], IMAGE, "mean difference", labels=labels[:30], folds=2)
    with mechvrp.trace(model, model.encode(scenes[:30])) as t:
        value = t.projected.save()
    x = value.unflatten(0, (30, -1)).double().mean(1).numpy()
    truth = labels[:30]
    assert np.allclose(found.columns["difference"], x[truth].mean(0) - x[~truth].mean(0), atol=1e-5)


def test_the_sparse_path(model, scenes, labels):
    found = rank_units(model, scenes, RESID, "sparse probe", labels=labels, multiples=[1.2, 2, 6])
    path = found.settings["path"]
    assert [one["nonzero"] for one in path] == sorted(one["nonzero"] for one in path)
    assert 0 < found.settings["nonzero"] == (found.scores != 0).sum() < 96
    assert found.settings["c"] in [one["c"] for one in path]
    assert found.settings["cv_auroc"] == max(one["cv_auroc"] for one in path)
    zeros = found.order[found.settings["nonzero"] :]
    late = np.where(found.columns["entered"] < 0, 99, found.columns["entered"])[zeros]
    assert (np.diff(late) >= 0).all()  # of units without a weight those that enter first
    assert {"entered", "selected"} <= set(found.to_frame().columns)
    assert ((found.columns["selected"] >= 0) & (found.columns["selected"] <= 1)).all()


def test_entries_of_a_path_by_hand():
    sizes = np.array([[0, 0.1, 0, 0], [0.2, 0.3, 0, 0.5]])
    entered, ties = _entries(sizes)
    assert entered.tolist() == [1, 0, -1, 1]
    assert np.argsort(-ties).tolist() == [1, 3, 0, 2]


def test_probes_find_the_units_that_decide(model, scenes, monkeypatch):
    """Activations with five units that the label depends on, among many that it does not."""
    from mechvrp.circuits.rank_methods.base import RankingTask

    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 256)) * np.geomspace(0.01, 100, 256)  # decoys of large norm
    chosen = [3, 60, 100, 150, 250]
    signs = np.array([1, -1, 1, -1, 1])
    z = (x / np.geomspace(0.01, 100, 256))[:, chosen] @ signs
    truth = z > np.median(z)
    x[:, chosen] += 3 * np.outer(2 * truth - 1, signs) * np.geomspace(0.01, 100, 256)[chosen]
    monkeypatch.setattr(RankingTask, "features", property(lambda task: x))
    for method in ("probe", "sparse probe", "MLP probe", "mean difference"):
        found = rank_units(model, scenes, NEURONS, method, labels=truth, folds=5)
        assert set(found.top(5)) == set(chosen), method
        told = (
            found.signs[chosen] != 0
        )  # an L1 probe may need fewer of them, and then orders the rest
        assert (found.signs[chosen] == signs)[told].all(), method
        assert told.all() or method == "sparse probe"
        if method in ("probe", "mean difference"):
            assert ((found.low > 0) | (found.high < 0))[chosen].all(), method
    assert (found.columns["q"][chosen] < 0.01).all()
    raw = rank_units(model, scenes, NEURONS, labels=truth, folds=5, per="unit")
    assert set(raw.top(5)) != set(chosen)  # what the standardised weights are for


def test_gradient_times_activation_is_autograd_s(model, scenes):
    found = rank_units(model, scenes[:6], NEURONS, "attribution", folds=None, batch_size=4)
    batch = model.encode(scenes[:6])
    with mechvrp.trace(model, batch, grad=True) as t:
        value = t.neurons[2].save()
        logits = t.logits.save()
    top = logits[:, -1].topk(2).values
    (gradient,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), value)
    by_hand = (gradient * value)[:, -1].mean(0).detach().numpy()
    assert np.allclose(found.scores, by_hand, atol=1e-5)
    assert found.low is None
    assert found.settings["interval"] is None
    mean = rank_units(model, scenes[:6], NEURONS, "attribution", baseline="mean", folds=None)
    last, slope = value[:, -1].detach(), gradient[:, -1]
    assert np.allclose(mean.scores, (slope * (last - last.mean(0))).mean(0).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["tiny-llava", "tiny-paligemma", "tiny-qwen2-vl"])
@pytest.mark.parametrize("site", ["blocks.0.hook_resid_pre", HEADS, IMAGE])
def test_attribution_sums_to_a_step_along_the_activation(name, scenes, site):
    """The sum over units is the derivative along scaling all of them: by finite differences."""
    model, samples = mechvrp.load(name), scenes[:3]
    found = rank_units(model, samples, site, "attribution", folds=None, measure="logit")
    batch = model.encode(samples)
    positions = "image" if site == IMAGE else "last"
    step = 1e-2
    variants = [
        mechvrp.scale(site, 1 + step, positions=positions),
        mechvrp.scale(site, 1 - step, positions=positions),
    ]
    logit = mechvrp.sweep(model, batch, variants, "logit", progress=False)["logit"].values
    slope = ((logit[0] - logit[1]) / (2 * step)).mean()
    assert found.scores.sum() == pytest.approx(slope, rel=2e-2, abs=2e-3)


def test_attribution_of_the_right_answer(model, scenes):
    options = {"target": "right", "measure": "probability", "folds": None}
    found = rank_units(model, scenes[:4], RESID, "attribution", **options)
    with mechvrp.trace(model, model.encode(scenes[:4]), grad=True) as t:
        value = t.resid_post[1].save()
        logits = t.logits.save()
    last = logits[:, -1]
    swept = mechvrp.sweep(model, model.encode(scenes[:4]), [[]], target="right", progress=False)
    words = torch.from_numpy(swept["target"].values)
    assert [model.tokenizer.decode(w).strip() for w in words] == [x.answer for x in scenes[:4]]
    total = last.softmax(-1)[torch.arange(4), words].sum()
    (gradient,) = torch.autograd.grad(total, value)
    assert np.allclose(found.scores, (gradient * value)[:, -1].mean(0).detach(), atol=1e-5)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("site", [NEURONS, HEADS, IMAGE])
def test_attribution_of_pairs_is_attribution_patching_s(model, polls, site, direction):
    corrupted = [counterfactual_pair(sample) for sample in polls]
    found = rank_units(
        model,
        polls,
        site,
        "attribution of a pair",
        corrupted=corrupted,
        direction=direction,
        folds=2,
        batch_size=4,
    )
    clean, other = model.encode(polls), model.encode(corrupted)
    values = []
    for batch in (clean, other):
        with mechvrp.trace(model, batch, grad=True) as t:
            value = t[site].detach().clone().requires_grad_().save()
            t[site] = value
            logits = t.logits[:, -1].save()
        values.append((value, logits))
    own = values[0][1].argmax(-1)
    into = values[1 if direction == "denoise" else 0]
    at = own[:, None]
    best = into[1].scatter(1, at, -np.inf).amax(1)
    (gradient,) = torch.autograd.grad((into[1].gather(1, at)[:, 0] - best).sum(), into[0])
    product = (gradient * (values[0][0] - values[1][0])).detach()
    if site == IMAGE:
        by_hand = product.unflatten(0, (len(polls), -1)).sum(1)
    else:
        by_hand = product[:, -1].sum(-1) if site == HEADS else product[:, -1]
    assert np.allclose(found.scores, by_hand.mean(0), atol=1e-4)
    assert found.images == {s.image_id for s in [*polls, *corrupted]}


def test_steps_between_a_pair_of_images(model, polls):
    """Integrated gradients sum to the whole change: of image features all of it passes through them."""
    corrupted = [counterfactual_pair(sample) for sample in polls[:3]]
    options = {"corrupted": corrupted, "measure": "logit", "folds": None}
    found = rank_units(model, polls[:3], IMAGE, "attribution of a pair", steps=40, **options)
    ends = []
    for samples in (polls[:3], corrupted):
        with mechvrp.trace(model, model.encode(samples)) as t:
            ends.append(t.logits[:, -1].save())
    own = ends[0].argmax(-1)[:, None]
    change = (ends[0].gather(1, own) - ends[1].gather(1, own)).mean()
    assert found.scores.sum() == pytest.approx(float(change), rel=0.05)


@pytest.mark.parametrize("site", [RESID, HEADS, IMAGE])
def test_ablation_is_one_forward_for_each_unit(model, scenes, site):
    samples = scenes[::30]  # of different images
    found = rank_units(model, samples, site, "ablation", folds=2, batch_size=1)
    batch = model.encode(samples)
    with mechvrp.trace(model, batch) as t:
        value = t[site].save()
        clean = t.logits[:, -1].save()
    at = clean.argmax(-1)[:, None]

    def difference(logits):
        return logits.gather(1, at)[:, 0] - logits.scatter(1, at, -np.inf).amax(1)

    mean = value.mean(0) if site == IMAGE else value[:, -1].mean(0)
    for unit in (0, 3):
        with mechvrp.trace(model, batch) as t:
            state = t[site]
            at_last = state if site == IMAGE else state[:, -1]
            at_last[:, unit] = mean[unit]
            logits = t.logits[:, -1].save()
        by_hand = (difference(clean) - difference(logits)).mean()
        assert found.scores[unit] == pytest.approx(float(by_hand), abs=2e-4)
    other = rank_units(model, samples, HEADS, "ablation", reference=scenes[20:30], folds=None)
    assert other.images == {s.image_id for s in [*samples, *scenes[20:30]]}


def test_random_depends_on_seed_and_site_alone(model, scenes):
    def scores(site=NEURONS, samples=scenes, **options):
        return rank_units(model, samples, site, "random", **options).scores

    assert np.array_equal(scores(), scores(samples=scenes[:3]))
    assert not np.array_equal(scores(), scores(seed=1))
    assert not np.array_equal(scores(), scores("blocks.1.mlp.hook_post"))
    found = rank_units(model, scenes, NEURONS, "random")
    assert found.low is None
    found.check(model, scenes)  # it knows nothing of these images


def test_labels_are_the_model_s_own_answers_by_default(model, scenes):
    more = list(mechvrp.data.load("scenes", limit=100))
    found = rank_units(model, more, RESID, "mean difference", folds=2)
    own = np.array(
        [
            mechvrp.data.is_correct(sample, answer, reading="strict")
            for i in range(0, 100, 50)
            for sample, answer in zip(
                more[i : i + 50],
                model.generate(model.encode(more[i : i + 50]), max_new_tokens=1),
                strict=True,
            )
        ]
    )
    assert found.settings["right"] == own.sum() < 100
    again = rank_units(model, more, RESID, "mean difference", labels=own, folds=2)
    assert np.array_equal(found.scores, again.scores)
    found.check(model)
    with pytest.raises(InputError, match="of these images"):
        found.check(model, more[:2])


def test_the_interval_of_a_mean_is_the_jackknife_s():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 3))
    by_fold = np.stack([np.delete(values, i, axis=0).mean(0) for i in range(20)])
    low, high = fold_interval(values.mean(0), by_fold, 20)
    error = values.std(0, ddof=1) / np.sqrt(20)  # of a mean the jackknife is exact
    assert np.allclose(high - low, 2 * 2.093024 * error)
    with pytest.raises(NumericalError, match="folds"):
        fold_interval(values.mean(0), by_fold * np.nan, 20)


def test_bad_input_is_refused_before_any_forward(model, scenes, labels, monkeypatch):
    def rank(*arguments, **options):
        return rank_units(model, *arguments, **options)

    corrupted = scenes[:4]
    refused = [
        (InputError, "Did you mean 'probe'", (scenes, NEURONS, "prob"), {}),
        (InputError, "no option 'grid'", (scenes, NEURONS), {"grid": [1]}),
        (InputError, "Did you mean 'c_grid'", (scenes, NEURONS), {"c_gird": [1]}),
        (InputError, "Its options: none", (scenes, NEURONS, "random"), {"c": 1}),
        (InputError, "expected samples .* got none", ([], NEURONS), {}),
        (InputError, "expected samples .* number 0 .* 'a'", (["a"], NEURONS), {}),
        (SiteError, "no site", (scenes, "blocks.2.mlp.hook_pst"), {}),
        (SiteError, "out of range", (scenes, "blocks.9.mlp.hook_post"), {}),
        (SiteError, "cannot be ranked", (scenes, "unembed.hook_out"), {}),
        (InputError, "one component", (scenes, [NEURONS, RESID]), {}),
        (InputError, "layers go with", (scenes, [NEURONS]), {"layers": [1]}),
        (ShapeError, "expected booleans", (scenes, NEURONS), {"labels": labels[:3]}),
        (ShapeError, "expected booleans", (scenes, NEURONS), {"labels": labels * 1.0}),
        (InputError, "answers are right", (scenes, NEURONS), {"labels": labels | True}),
        (InputError, "answers are wrong", (scenes, NEURONS), {"labels": labels & False}),
        (InputError, "give folds", (scenes, NEURONS), {"folds": None, "labels": labels}),
        (InputError, "at most", (scenes, NEURONS), {"folds": 50, "labels": labels}),
        (
            InputError,
            "50 distinct images.*more images.*at most 10 folds, or folds=None",
            (scenes, NEURONS, "attribution"),
            {"folds": 50},
        ),
        (InputError, "c_grid", (scenes, NEURONS), {"c_grid": [0.0]}),
        (InputError, "multiples", (scenes, NEURONS, "sparse probe"), {"multiples": [1]}),
        (InputError, "hidden=0", (scenes, NEURONS, "MLP probe"), {"hidden": 0}),
        (InputError, "per is one of", (scenes, NEURONS), {"per": "sd"}),
        (InputError, "measure='kl'", (scenes, NEURONS, "attribution"), {"measure": "kl"}),
        (InputError, "baseline", (scenes, NEURONS, "attribution"), {"baseline": "median"}),
        (InputError, "needs corrupted", (scenes, NEURONS, "attribution of a pair"), {}),
        (
            InputError,
            "60 samples and 4",
            (scenes, NEURONS, "attribution of a pair"),
            {"corrupted": corrupted},
        ),
        (InputError, "holds no samples", (scenes, NEURONS, "ablation"), {"reference": []}),
        (
            UnavailableError,
            "not read through a norm",
            (scenes, NEURONS),
            {"per": "normed unit"},
        ),
    ]
    monkeypatch.setattr(type(model), "encode", lambda *a, **k: pytest.fail("it ran"))
    for error, words, arguments, options in refused:
        with pytest.raises(error, match=words):
            rank(*arguments, **options)


def test_pairs_that_do_not_align_are_refused(model, polls, scenes):
    others = [s for s in scenes if s.task == "spatial"][: len(polls)]
    pairs = polls[: len(others)]
    options = {"corrupted": others, "folds": 2}
    with pytest.raises(InputError, match=r"paired with another question.*same_question=False"):
        rank_units(model, pairs, NEURONS, "attribution of a pair", **options)
    with pytest.raises(InputError, match="equally long|do not correspond"):
        rank_units(model, pairs, NEURONS, "attribution of a pair", same_question=False, **options)


def test_images_of_one_scene_are_in_one_fold(model, polls):
    """Pairs both ways round, and scenes beside their counterfactuals, are no more scenes than there are."""
    seen = []

    class Fixed(RankingMethod):
        name = "fixed"

        def score(self, task):
            seen.append(task)
            return UnitScores(np.ones(task.rows), "ones", np.ones((len(task.folds), task.rows)))

    twins = [counterfactual_pair(sample) for sample in polls]
    ids = [sample.image_id for sample in polls]
    found = rank_units(model, polls + twins, NEURONS, Fixed(), folds=2)
    assert found.images == {s.image_id for s in polls + twins}
    (task,) = seen
    assert task.groups.tolist() == ids * 2
    for train, test in task.folds:
        assert not {(ids * 2)[i] for i in train} & {(ids * 2)[i] for i in test}
    with pytest.raises(InputError, match="made from .* of these images"):
        rank_units(model, twins, NEURONS, Fixed(), folds=2).check(model, polls)
    nameless = [
        mechvrp.Sample(s.image, s.question, s.answer, s.image_id, s.task) for s in polls + twins
    ]
    there, back = nameless[: len(polls)], nameless[len(polls) :]
    both = PairAttribution(corrupted=back + there)
    assert list(both.groups(there + back)) == ids * 2


def test_nan_activations_are_refused(scenes, labels):
    broken = mechvrp.load("tiny-llava")
    with torch.no_grad():
        broken.model.model.language_model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(NumericalError, match="NaN"):
        rank_units(broken, scenes, NEURONS, labels=labels)
    for method in ("attribution", "ablation"):
        with pytest.raises(NumericalError, match="NaN"):
            rank_units(broken, scenes[:8], NEURONS, method, folds=2)


def test_a_method_of_one_s_own(model, scenes):
    class Means(RankingMethod):
        name = "mean activation"

        def score(self, task):
            return UnitScores(task.features.mean(0)[: self.n], "mean activation")

        n = None

    found = rank_units(model, scenes[:5], RESID, Means(), folds=None)
    assert isinstance(found, Ranking)
    x = mechvrp.cache(model, scenes[:5], RESID)[RESID]
    assert np.allclose(found.scores, x.double().mean(0))
    method = Means()
    method.n = 5
    with pytest.raises(ShapeError, match="96 units"):
        rank_units(model, scenes[:5], RESID, method, folds=None)
    with pytest.raises(InputError, match="options already"):
        rank_units(model, scenes[:5], RESID, method, per="unit")


def test_every_method_has_a_name_and_words(model):
    for name, method in RANKING_METHODS.items():
        assert method.name == name
        assert method.__doc__
