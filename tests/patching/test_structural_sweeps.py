"""Sweeps of models that no family describes: every plan is exact, or is not made."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.errors import UnavailableError
from mechvrp.models.structure.classes import checked_classes
from mechvrp.patching import plan, sweep
from mechvrp.patching.trials import Trial, trial
from tests.support.anyvlm_classes import CASES
from tests.support.family_table import sweeps_of

#: Of the fast suite; the others are swept with the slow tests.
FAST = ("idefics3", "gemma3", "qwen3_vl")

SITES = ("resid_pre", "q", "v", "z", "attn_out", "resid_mid", "neurons", "mlp_out", "resid_post")


def naive(model, batch, edits):
    with mechvrp.trace(model, batch) as t:
        t.apply(edits)
        logits = t.logits.save()
    return logits[:, -1].float()


def variants(model):
    """At all kinds of sites that there are, of one position, some, the image's and all."""
    places = ["last", [-3, -1], "all"]
    if not model.family.no_image():
        places.append("image")
    last, found = model.n_layers - 1, []
    for i, component in enumerate(SITES):
        for layer in (0, 1, last):
            if model.family.unavailable(component, layer):
                continue
            place = places[(i + layer) % len(places)]
            found.append(mechvrp.scale(component, 0.4, layer=layer, positions=place))
    found.append([])
    found += [[a, b] for a, b in zip(found[2:9:3], found[10:17:3], strict=False) if a and b]
    for component in ("embed", "projected"):
        if not model.family.unavailable(component):
            where = "image" if component == "projected" else "last"
            found.append(mechvrp.scale(component, 0.3, positions=where))
    if not model.family.unavailable("pattern", last):
        found.append(mechvrp.knockout(last, query="last", key=-4))
    return found


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_every_plan_gives_what_one_forward_a_variant_gives(name):
    case = CASES[name]
    model = mechvrp.load(case.model(), probe=case.inputs())
    batch = model.batch(**case.inputs([2, 1]))
    edits = variants(model)
    made = plan(model, batch, edits)
    assert bool(made.why_not) is not case.split, str(made)
    (stored,) = (r for r in checked_classes() if r.model_type == model.family.name)
    assert sweeps_of(model, batch) == stored.sweeps
    modes = {group.mode for group in made.groups}
    if case.split:
        assert {"branches", "resume"} <= modes, str(made)
    for memory in (2**29, 1):
        found = sweep(model, batch, edits, "logits", memory=memory, progress=False)
        assert not any(found["error"].values), found["error"].values
        for i, edit in enumerate(edits):
            expected = naive(model, batch, edit)
            gap = (torch.from_numpy(found["logits"].values[i]) - expected).abs().max()
            assert float(gap) <= 2e-5 * float(expected.abs().max()), (edit, str(made))


@pytest.mark.parametrize("masks", [False, True])
def test_what_a_trial_shows_to_be_wrong_is_not_used(monkeypatch, masks):
    """With a planner that would not know better, the trial finds that prefixes cannot be shared.

    Though some logits be masked, as Chameleon's are, with the lowest number there is.
    """

    def masked(_, args, out):
        out.logits[..., 5:9] = torch.finfo(out.logits.dtype).min
        return out

    case = CASES["gemma3"]
    hf = case.model(seed=1)
    if masks:
        hf.register_forward_hook(masked)
    model = mechvrp.load(hf, probe=case.inputs())
    monkeypatch.setattr(type(model.family), "inseparable", lambda self: "")
    monkeypatch.setattr("mechvrp.patching.planning.can_split", lambda *_: "")
    found = trial(model)
    assert not found.resume
    assert "differs by" in found.split


def test_models_whose_runs_cannot_be_resumed_are_run_whole(monkeypatch):
    case = CASES["qwen3_vl"]
    model = mechvrp.load(case.model(), probe=case.inputs())
    batch = model.batch(**case.inputs([2, 1]))
    edit = mechvrp.scale("mlp_out", 0.4, layer=1)
    # Without its pixels a run lacks what is added between blocks: resuming is then wrong.
    monkeypatch.setattr(model.family, "forgets_image", True)
    assert "differs by" in trial(model).resume
    made = plan(model, batch, [edit])
    assert [group.mode for group in made.groups] == ["full"]
    assert "whole forwards only" in str(made)
    found = sweep(model, batch, [edit], "logits", progress=False)
    expected = naive(model, batch, edit)
    assert torch.allclose(torch.from_numpy(found["logits"].values[0]), expected, atol=1e-4)


def mean_added(_, args, out):
    return out + 0.5 * out.mean(1, keepdim=True)


def neighbour_added(_, args, out):
    return torch.cat([out[:, :-1], out[:, -1:] + out[:, max(out.shape[1] - 2, 0), None]], dim=1)


@pytest.mark.parametrize(
    ("hook", "samples", "why"),
    [
        (neighbour_added, [0, 1], "cannot be run for the last position alone"),
        (mean_added, [0, 3], "cannot take prompts of different lengths"),  # it sees its padding
    ],
)
def test_blocks_that_are_not_run_for_the_last_position_alone_are_run_whole(hook, samples, why):
    """What a block gives is mixed over positions behind it, so the last one's is not enough."""
    case = CASES["internvl"]
    hf = case.model()
    for layer in hf.model.language_model.layers:
        layer.register_forward_hook(hook)
    model = mechvrp.load(hf, probe=case.inputs())
    batch = model.batch(**case.inputs(samples))
    edits = variants(model)
    made = plan(model, batch, edits)
    assert {group.mode for group in made.groups} == {"clean", "full"}
    assert why in made.uncut
    found = sweep(model, batch, edits, "logits", progress=False)
    for i, edit in enumerate(edits):
        expected = naive(model, batch, edit)
        torch.testing.assert_close(torch.from_numpy(found["logits"].values[i]), expected)


def test_a_model_whose_traces_do_not_hold_is_refused(monkeypatch):
    case = CASES["idefics3"]
    model = mechvrp.load(case.model(), probe=case.inputs())
    monkeypatch.setattr("mechvrp.patching.trials._wrong", lambda *_: {"full": "it differs"})
    with pytest.raises(UnavailableError, match="cannot be swept.*one by one"):
        plan(model, model.batch(**case.inputs([0])), [mechvrp.zero("mlp_out", layer=0)])


def test_what_was_tried_is_tried_anew_when_the_model_computes_otherwise():
    """A hook put on a model that was swept before: its blocks now look backwards."""
    case = CASES["internvl"]
    model = mechvrp.load(case.model(), probe=case.inputs())
    batch = model.batch(**case.inputs([0]))
    edit = mechvrp.scale("resid_post", 0.2, layer=0, positions=[-3])
    assert [group.mode for group in plan(model, batch, [edit]).groups] == ["suffix"]
    before = trial(model)
    assert trial(model) is before

    def mixed(_, args, out):
        return out + 0.5 * args[0].mean(1, keepdim=True)

    for layer in model.model.model.language_model.layers:
        layer.register_forward_hook(mixed)
    assert "differs by" in trial(model).split
    found = sweep(model, batch, [edit], "logits", progress=False)
    expected = naive(model, batch, edit)
    torch.testing.assert_close(torch.from_numpy(found["logits"].values[0]), expected)


def test_hand_written_families_are_not_tried():
    assert trial(mechvrp.load("tiny-llava")) == Trial()
