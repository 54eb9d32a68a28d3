"""Attribution patching: against gradients by finite differences, and where it must be exact."""

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.data import Sample
from mechvrp.errors import InputError, SiteError
from mechvrp.patching import activation_patching, attribution_patching
from tests.support import tiny

NAMES = ["llava-clip", "paligemma", "qwen2.5-vl"]


def batches(model, questions=("Is there a seven in the image?", "What digit is here?")):
    return [
        model.encode(
            [
                Sample(tiny.image(seed + i), question, "yes", f"{seed}-{i}", "existence")
                for i, question in enumerate(questions)
            ],
            instruction="",
        )
        for seed in (0, 10)
    ]


@pytest.fixture(scope="module", params=NAMES)
def pair(request):
    model = mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))
    return model, *batches(model)


LAST = 2  # of three layers


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize(
    ("component", "options"),
    [
        ("resid_post", {"positions": [-1, -3]}),
        ("attn_out", {"positions": ["last", "question"]}),
        ("z", {"over": "head"}),
        ("k", {"over": "head", "positions": "image"}),
        ("neurons", {"over": "unit", "units": [0, 5, 9]}),
        ("resid_pre", {"over": "patch"}),
    ],
)
def test_estimates_are_the_slope_of_small_patches(component, options, direction):
    """Central differences: patches of 3 percent of the way, forwards and backwards."""
    model = mechvrp.load(
        tiny.hf_model("llava-clip").double(), processor=tiny.processor("llava-clip")
    )
    clean, corrupted = batches(model)
    given = {"measure": "logit", "target": [7, 8], "direction": direction, "layers": [1]}
    found = attribution_patching(model, clean, corrupted, component, **given, **options)
    into, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    site = mechvrp.Site(component, 1)
    values = []
    for batch in (into, source):
        with mechvrp.trace(model, batch) as t:
            values.append(t[site].save())
    step = 0.03
    places = found._places
    estimates = found.estimates[component].values[0].reshape(len(places), -1)
    for where, estimate in zip(places.values(), estimates, strict=True):
        ends = []
        for share in (-step, step):
            near = values[0] + share * (values[1] - values[0])
            with mechvrp.trace(model, into) as t:
                t.apply(mechvrp.replace(site, near, **where))
                ends.append(t.logits.save())
        slope = ((ends[1] - ends[0]) / (2 * step))[[0, 1], -1, [7, 8]]
        np.testing.assert_allclose(
            estimate, slope.numpy(), atol=0.01 * np.abs(estimates).max(), rtol=0.005
        )


def test_runs_are_measured_as_activation_patching_measures_them(pair):
    model, clean, corrupted = pair

    def energy(logits, _clean):
        return logits.square().sum(-1)

    for measure in (energy, "kl", "probability", "logit_diff"):
        given = {"positions": ["last"], "layers": [LAST], "measure": measure}
        exact = activation_patching(model, clean, corrupted, progress=False, **given)
        found = attribution_patching(model, clean, corrupted, **given).estimates
        np.testing.assert_allclose(found["unpatched"], exact["corrupted"], rtol=1e-4, atol=1e-6)
        if measure != "kl":  # whose reference is each run's own clean logits
            np.testing.assert_allclose(found["reached"], exact["clean"], rtol=1e-4)


def test_integrated_gradients_of_the_input_sum_to_the_whole_change(pair):
    """Completeness (Sundararajan et al. 2017): over all positions of the decoder's input."""
    model, clean, corrupted = pair
    found = attribution_patching(
        model, clean, corrupted, "resid_pre", positions=["all"], layers=[0],
        measure="logit", target=[7, 8], steps=64,
    )  # fmt: skip
    data = found.estimates
    whole = (data["reached"] - data["unpatched"]).values
    np.testing.assert_allclose(
        data["resid_pre"].values[0, 0], whole, atol=0.02 * np.abs(whole).max()
    )
    rough = attribution_patching(
        model, clean, corrupted, "resid_pre", positions=["all"], layers=[0],
        measure="logit", target=[7, 8],
    )  # fmt: skip
    assert (
        np.abs(rough.estimates["resid_pre"].values[0, 0] - whole).max()
        > np.abs(data["resid_pre"].values[0, 0] - whole).max()
    )


def test_verify_runs_the_largest_patches(pair):
    model, clean, corrupted = pair
    found = attribution_patching(
        model, clean, corrupted, ["resid_post", "mlp_out"], positions=["last", "question", "image"],
        measure="logit_diff",
    )  # fmt: skip
    checked = found.verify(top=6, progress=False)
    means = np.concatenate(
        [found.estimates[c].mean("example").values.ravel() for c in found.components]
    )
    np.testing.assert_allclose(
        np.abs(checked["estimate"]), np.sort(np.abs(means))[::-1][:6], rtol=1e-6
    )
    for row in checked.itertuples():
        exact = activation_patching(
            model, clean, corrupted, row.component, positions=[row.place], layers=[row.layer],
            progress=False,
        )  # fmt: skip
        change = (exact["value"].values[0, 0] - exact["corrupted"].values).mean()
        assert row.exact == pytest.approx(change, abs=1e-5)
        assert row.exact_low <= row.exact <= row.exact_high
    assert -1 <= checked.attrs["spearman"] <= 1


def test_the_estimates_order_patches_nearly_as_the_exact_ones_do():
    model = mechvrp.load("tiny-llava")
    scenes = [s for s in mechvrp.data.load("scenes", n_images=40) if s.task == "existence"]
    clean = model.encode(scenes[:6])
    corrupted = model.encode(
        [
            Sample(b.image, a.question, a.answer, b.image_id, a.task)
            for a, b in zip(scenes[:6], scenes[20:26], strict=True)
        ]
    )
    options = {"over": "patch", "measure": "logit_diff"}
    estimate = attribution_patching(model, clean, corrupted, steps=8, **options)
    exact = activation_patching(model, clean, corrupted, progress=False, **options)
    from scipy.stats import spearmanr

    ours = estimate.estimates["resid_post"].mean("example").values.ravel()
    theirs = (exact["value"] - exact["corrupted"]).mean("example").values.ravel()
    assert spearmanr(ours, theirs).statistic > 0.5


def test_nothing_of_the_model_is_changed(pair):
    model, clean, corrupted = pair
    before = {name: p.grad for name, p in model.model.named_parameters()}
    needs = {name: p.requires_grad for name, p in model.model.named_parameters()}
    attribution_patching(model, clean, corrupted)
    assert all(p.grad is before[name] for name, p in model.model.named_parameters())
    assert needs == {name: p.requires_grad for name, p in model.model.named_parameters()}
    assert torch.is_grad_enabled()


def test_unusable_requests_are_refused(pair):
    model, clean, corrupted = pair

    def ask(*args, **options):
        return attribution_patching(model, clean, corrupted, *args, **options)

    with pytest.raises(InputError, match="gradient"):
        ask(measure="correct")
    with pytest.raises(InputError, match="no gradient"):
        ask(measure=lambda logits, clean: logits.argmax(-1).float())
    with pytest.raises(InputError, match="steps"):
        ask(steps=0)
    with pytest.raises(SiteError, match="component of the blocks"):
        ask("projected")
    with pytest.raises(InputError, match="equally many units"):
        ask(["neurons", "resid_post"], over="unit")
    with pytest.raises(InputError, match="between 1 and"):
        ask(positions=["last"]).verify(top=99)
    with pytest.raises(InputError, match="equally long"):
        attribution_patching(model, clean, model.encode(tiny.samples()[:1]))
