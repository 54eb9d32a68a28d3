"""Traces: edits order themselves, nnsight stays available, bad input is refused before compute."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, ShapeError, SiteError
from tests.support import tiny


@pytest.fixture(scope="module", params=["llava-clip", "paligemma", "qwen2.5-vl"])
def model(request):
    return mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))


@pytest.fixture(scope="module")
def batch(model):
    return model.encode(tiny.samples(), instruction="")


def run(model, batch, *edits):
    with mechvrp.trace(model, batch) as t:
        t.apply(*edits)
        logits = t.logits.save()
    return logits


def test_the_example_of_the_docstring(model, batch):
    with mechvrp.trace(model, batch) as t:
        h = t.resid_post[1].save()
        t.apply(mechvrp.zero("blocks.2.mlp.hook_post", positions="last", units=[3, 17]))
        logits = t.logits.save()
    with mechvrp.trace(model, batch) as t:
        neurons = t.neurons[2]
        neurons[:, -1, [3, 17]] = 0
        by_hand = t.logits.save()
    assert h.shape == (3, batch.tokens.length, model.d_model)
    assert torch.equal(logits, by_hand)


def test_hook_names_indices_and_negative_layers_agree(model, batch):
    with mechvrp.trace(model, batch) as t:
        a = t.resid_post[2].save()
        b = t["blocks.2.hook_resid_post"].save()
        c = t.resid_post[-1].save()
        d = t["blocks.-1.hook_resid_post"].save()
    assert torch.equal(a, b)
    assert torch.equal(a, c)
    assert torch.equal(a, d)


def test_edits_order_themselves(model, batch):
    edits = [
        mechvrp.zero("blocks.2.hook_mlp_out"),
        mechvrp.zero("blocks.0.attn.hook_z", heads=[1]),
        mechvrp.zero("vision_projector.hook_out", positions=[(0, 1)]),
        mechvrp.zero("blocks.1.hook_resid_mid", positions="last", units=5),
    ]
    expected = run(model, batch, *edits)
    assert torch.equal(run(model, batch, *edits[::-1]), expected)
    with mechvrp.trace(model, batch) as t:
        for edit in edits:
            t.apply(edit)
        first = t.resid_post[0].save()
        t.apply(mechvrp.zero("blocks.2.hook_resid_post", positions="last", units=0))
        last = t.resid_post[2].save()
        logits = t.logits.save()
    with mechvrp.trace(model, batch) as t:
        clean = t.resid_post[0].save()
    assert not torch.equal(first, clean)
    assert (last[:, -1, 0] == 0).all()
    assert not torch.equal(logits, expected)


def test_an_edit_after_the_last_read_is_still_made(model, batch):
    with mechvrp.trace(model, batch) as t:
        t.apply(mechvrp.zero("unembed.hook_out", positions="last"))
        out = t.result.save()
    assert (out.logits[:, -1] == 0).all()
    assert not (out.logits[:, -2] == 0).all()


def test_edits_at_one_site_keep_their_order(model, batch):
    site = "blocks.1.hook_resid_post"
    ones = mechvrp.replace(site, torch.ones(model.d_model), positions="last")
    nothing = mechvrp.zero(site, positions="last")
    a, b = run(model, batch, ones, nothing), run(model, batch, nothing)
    assert torch.equal(a, b)
    assert torch.equal(run(model, batch, nothing, ones), run(model, batch, ones))
    assert not torch.equal(a, run(model, batch, ones))


@pytest.mark.parametrize("positions", ["last", "image", "question", "all", [(0, 0), (1, 1)], [-2]])
@pytest.mark.parametrize("site", ["blocks.1.hook_resid_post", "blocks.0.attn.hook_v"])
def test_zero_touches_just_what_it_names(model, batch, site, positions):
    heads = {"heads": [0]} if "attn" in site else {}
    with mechvrp.trace(model, batch) as t:
        clean = t[site].clone().save()
        t.apply(mechvrp.zero(site, positions=positions, units=[2, 4], **heads))
        edited = t[site].save()
    chosen = batch.tokens.mask(positions)
    where = torch.zeros_like(clean, dtype=torch.bool)
    for unit in (2, 4):
        view = where[..., 0, unit] if heads else where[..., unit]
        view[chosen] = True
    assert (edited[where] == 0).all()
    assert torch.equal(edited[~where], clean[~where])


def test_replacing_every_state_by_another_run_s_gives_that_run(model, batch):
    other = [mechvrp.Sample(tiny.image(7 + i, *s.image.size), s.question) for i, s in
             enumerate(tiny.samples())]  # fmt: skip
    source = model.encode(other, instruction="")
    with mechvrp.trace(model, source) as t:
        h = t.resid_post[1].save()
        expected = t.logits.save()
    patched = run(model, batch, mechvrp.replace("blocks.1.hook_resid_post", h))
    assert torch.equal(patched[:, -1], expected[:, -1])


def test_nnsight_stays_available(model, batch):
    with mechvrp.trace(model, batch, grad=True) as t:
        h = t.resid_post[0]
        logits = t.logits
        with logits[:, -1].max(-1).values.sum().backward():
            grad = h.grad.save()
    assert grad.shape == (3, batch.tokens.length, model.d_model)
    assert grad.abs().sum() > 0

    with mechvrp.trace(model, batch) as t:
        h = t.resid_post[0].save()
        t.stop()
    assert not h.requires_grad

    def halve(trace):  # functions called inside a trace work
        trace.resid_post[1] = trace.resid_post[1] / 2

    with mechvrp.trace(model, batch) as t:
        halve(t)
        a = t.logits.save()
    with mechvrp.trace(model, batch) as t:
        block = t.vlm.envoy.model.language_model.layers[1]
        block.output = block.output / 2
        b = t.logits.save()
    assert torch.equal(a, b)


def test_grad_mode_is_as_asked_and_nothing_else_changes(model, batch):
    with torch.no_grad():
        clean = model.model(**batch.inputs).logits
    before = torch.is_grad_enabled()
    with mechvrp.trace(model, batch) as t:
        t.resid_post[0] = t.resid_post[0] * 0
        edited = t.logits.save()
    assert torch.is_grad_enabled() == before
    assert edited.grad_fn is None
    with torch.no_grad():
        assert torch.equal(model.model(**batch.inputs).logits, clean)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mechvrp.zero("blocks.1.hook_resid_pst"), SiteError, "Did you mean"),
        (lambda: mechvrp.zero("resid_post"), SiteError, "needs a layer"),
        (lambda: mechvrp.zero("blocks.3.hook_resid_post"), SiteError, "3 layers, 0 to 2"),
        (
            lambda: mechvrp.zero("blocks.0.mlp.hook_post", units=[40]),
            SiteError,
            "40 units, 0 to 39",
        ),
        (lambda: mechvrp.zero("blocks.0.attn.hook_z", heads=[4]), SiteError, "4 heads, 0 to 3"),
        (lambda: mechvrp.zero("blocks.0.hook_resid_pre", heads=[0]), SiteError, "has no heads"),
        (lambda: mechvrp.zero("blocks.0.hook_resid_pre", units=[]), SiteError, "units is empty"),
        (lambda: mechvrp.zero("hook_embed", positions="nonsuch"), SiteError, "no word 'nonsuch'"),
        (lambda: mechvrp.zero("vision_projector.hook_out", positions="last"), SiteError, "image"),
        (lambda: mechvrp.zero("hook_embed", layer=1), SiteError, "no layers|names"),
        (lambda: mechvrp.replace("hook_embed", torch.zeros(7)), ShapeError, "broadcasts"),
        (lambda: mechvrp.replace("hook_embed", 0.0), ShapeError, "float"),
    ],
)
def test_bad_edits_are_refused_before_compute(model, batch, make, error, message):
    forwards = []
    handle = model.model.register_forward_pre_hook(lambda *_: forwards.append(1))
    layers = model.model.model.language_model.layers
    ran = layers[0].register_forward_pre_hook(lambda *_: forwards.append(0))
    try:
        with pytest.raises(error, match=message):
            with mechvrp.trace(model, batch) as t:
                t.apply(make())
                t.logits.save()
        assert 0 not in forwards
    finally:
        handle.remove()
        ran.remove()


def test_bad_reads_and_writes(model, batch):
    with pytest.raises(SiteError, match="computed later"):
        with mechvrp.trace(model, batch) as t:
            t.resid_post[2].save()
            t.resid_post[1].save()
    with pytest.raises(SiteError, match="already computed"):
        with mechvrp.trace(model, batch) as t:
            t.resid_post[2].save()
            t.apply(mechvrp.zero("blocks.1.hook_resid_post"))
    with pytest.raises(ShapeError, match=r"expected \(3, "):
        with mechvrp.trace(model, batch) as t:
            t.resid_post[0] = torch.zeros(3, model.d_model)
    with pytest.raises(ShapeError, match="float"):
        with mechvrp.trace(model, batch) as t:
            t.resid_post[0] = 0.0
    with pytest.raises(ShapeError, match="vision_encoder"):
        with mechvrp.trace(model, batch) as t:
            t.vision_resid_post[0] = torch.zeros(1)
    with pytest.raises(SiteError, match=r"assign to t\.resid_post\[layer\]"):
        with mechvrp.trace(model, batch) as t:
            t.resid_post = torch.zeros(1)
    with pytest.raises(AttributeError, match="its sites are"):
        with mechvrp.trace(model, batch) as t:
            t.residpost
    with pytest.raises(SiteError, match="already ran past"):
        with mechvrp.trace(model, batch) as t:
            t.apply(mechvrp.zero("blocks.0.hook_resid_post"))
            t.vlm.envoy.model.language_model.layers[2].output.save()
    # After all these a plain trace still works.
    with mechvrp.trace(model, batch) as t:
        assert t.logits.isfinite().all()


def test_stopping_with_edits_that_were_not_reached_is_an_error(model, batch):
    with pytest.raises(SiteError, match="not made yet, at blocks.2.hook_resid_post"):
        with mechvrp.trace(model, batch) as t:
            t.apply(mechvrp.zero("blocks.2.hook_resid_post"))
            t.resid_post[0].save()
            t.stop()
    with mechvrp.trace(model, batch) as t:
        t.apply(mechvrp.zero("blocks.0.hook_resid_post"))
        h = t.resid_post[0].save()
        t.stop()
    assert (h[batch.tokens.mask("all")] == 0).all()


def test_an_assigned_tensor_stays_the_caller_s(model, batch):
    with mechvrp.trace(model, batch) as t:
        kept = t.resid_post[1].clone().save()
    before = kept.clone()
    with mechvrp.trace(model, batch) as t:
        t.resid_post[1] = kept
        t.resid_post[1][:] = 0
        logits = t.logits.save()
    assert torch.equal(kept, before)
    zeroed = run(model, batch, mechvrp.zero("blocks.1.hook_resid_post"))
    assert torch.equal(logits[:, -1], zeroed[:, -1])


def test_whole_numbers_in_any_form_and_no_masks(model, batch):
    import numpy as np

    site = "blocks.1.mlp.hook_post"
    expected = run(model, batch, mechvrp.zero(site, units=[3, 5], positions=[-1]))
    for units in (np.array([3, 5]), torch.tensor([3, 5]), range(3, 6, 2), (np.int64(3), 5)):
        for positions in (-1, np.int64(-1), np.array([-1]), torch.tensor([-1])):
            found = run(model, batch, mechvrp.zero(site, units=units, positions=positions))
            assert torch.equal(found, expected)
    for wrong in (np.zeros(40, dtype=bool), torch.ones(40, dtype=torch.bool), [1.9], "3", True):
        with pytest.raises(SiteError, match="whole numbers"):
            mechvrp.zero(site, units=wrong)
    with pytest.raises(SiteError, match="two positions or one patch"):
        run(model, batch, mechvrp.zero(site, positions=(0, 1)))


def test_one_trace_at_a_time(model, batch):
    with pytest.raises(InputError, match="already running"):
        with mechvrp.trace(model, batch) as t:
            t.resid_post[0].save()
            mechvrp.cache(model, batch, "resid_post")
    with pytest.raises(ShapeError, match="float64"):
        with mechvrp.trace(model, batch) as t:
            t.resid_post[0] = t.resid_post[0].double()


def test_a_trace_runs_once(model, batch):
    once = mechvrp.trace(model, batch)
    with once as t:
        t.logits.save()
    with pytest.raises(InputError, match="runs once"):
        with once as t:
            t.logits.save()


def test_all_layers_can_be_iterated(model, batch):
    import nnsight

    with mechvrp.trace(model, batch) as t:
        states = nnsight.save([h[:, -1] for h in t.resid_post])
    assert len(states) == model.n_layers
    acts = mechvrp.cache(model, batch, "resid_post")
    assert torch.equal(torch.stack(states), acts.stack("resid_post"))


def test_reloaded_code_runs_its_new_body(model, batch, tmp_path, monkeypatch):
    """nnsight keeps the source of a file; after a reload its old text must not run."""
    import importlib

    monkeypatch.syspath_prepend(tmp_path)
    text = (
        "import mechvrp\n"
        "def go(model, batch):\n"
        "    with mechvrp.trace(model, batch) as t:\n"
        "        {}\n"
        "        logits = t.logits.save()\n"
        "    return logits\n"
    )
    name = f"edited_experiment_{model.family.name.replace('-', '_')}"
    file = tmp_path / f"{name}.py"
    file.write_text(text.format("t.apply(mechvrp.zero('blocks.1.hook_resid_post'))"))
    module = importlib.import_module(name)
    edited = module.go(model, batch)
    file.write_text("# a line more\n" + text.format("pass  # no edit any more"))
    stale = module.go(model, batch)  # not reloaded: the old code is what runs
    importlib.invalidate_caches()
    fresh = importlib.reload(module).go(model, batch)
    assert torch.equal(stale, edited)
    assert torch.equal(fresh, run(model, batch))
    assert not torch.equal(fresh, edited)


def test_what_trace_takes(model, batch):
    with pytest.raises(InputError, match="mechvrp.load"):
        mechvrp.trace(model.model, batch)
    with pytest.raises(InputError, match="encode"):
        mechvrp.trace(model, batch.inputs)
    with pytest.raises(InputError, match="interventions"):
        with mechvrp.trace(model, batch) as t:
            t.apply("blocks.0.hook_resid_post")
