"""Every site, on every family: what is read equals a plain hook's, what is edited changes as by hand."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.tracing import COMPONENTS
from tests.support import byhand, tiny

SITES = [c for c in COMPONENTS if c != "pattern"]


def layers(component: str) -> list[int | None]:
    if not COMPONENTS[component].layered:
        return [None]
    return [0, 1] if component == "vision_resid_post" else [0, 2]


def canonical(value: torch.Tensor, component: str, model: mechvrp.VLM) -> torch.Tensor:
    if component in "qkvz":
        return byhand.heads(value, model.d_head)
    return value.reshape(-1, model.d_model) if component == "projected" else value


@pytest.fixture(scope="module", params=tiny.NAMES)
def family(request):
    """(name, model, batch): sites are read on this model, edited by hand on fresh copies."""
    name = request.param
    model = mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name))
    return name, model, model.encode(tiny.samples(), instruction="")


@pytest.mark.parametrize("component", SITES)
def test_a_read_equals_a_plain_hook(family, component):
    name, model, batch = family
    for layer in layers(component):
        seen = []
        fresh = tiny.hf_model(name)
        byhand.hook(fresh, name, component, layer, lambda x: seen.append(x.clone()) or x)  # noqa: B023
        with torch.no_grad():
            fresh(**batch.inputs, use_cache=False)
        site = mechvrp.Site(component, layer)
        with mechvrp.trace(model, batch) as t:
            value = t[site].save()
        assert torch.equal(value, canonical(seen[0], component, model)), site


def test_every_site_in_one_trace(family):
    _, model, batch = family
    sites = sorted(
        (mechvrp.Site(c, layer) for c in SITES for layer in layers(c)), key=lambda s: s.order
    )
    import nnsight

    with mechvrp.trace(model, batch) as t:
        values = nnsight.save([t[site] for site in sites])
    with torch.no_grad():
        logits = model.model(**batch.inputs).logits
    assert len(values) == len(sites)
    assert torch.equal(values[-1], logits)


@pytest.mark.parametrize("component", SITES)
def test_an_edit_changes_the_logits_as_by_hand(family, component):
    name, model, batch = family
    with torch.no_grad():
        clean = model.model(**batch.inputs).logits
    for layer in layers(component):

        def edit(x):
            edited = x.clone()
            edited[-1] = edited[-1] * 0.5 + 0.25
            return edited

        fresh = tiny.hf_model(name)
        byhand.hook(fresh, name, component, layer, edit)
        with torch.no_grad():
            expected = fresh(**batch.inputs, use_cache=False).logits
        site = mechvrp.Site(component, layer)
        with mechvrp.trace(model, batch) as t:
            old = t[site]
            new = old.clone()
            if component == "projected" and name[:4] != "qwen":
                new = new.view(len(batch), -1, model.d_model)  # by hand: the last image
            new[-1] = new[-1] * 0.5 + 0.25
            t[site] = new.view(old.shape)
            logits = t.logits.save()
        assert torch.equal(logits, expected), site
        unused = component == "vision_resid_post" and name == "llava-clip" and layer == 2
        assert unused or not torch.equal(logits, clean), site


@pytest.mark.parametrize("component", ["resid_post", "resid_mid", "z", "neurons", "projected"])
def test_an_edit_in_place_is_an_edit(family, component):
    _, model, batch = family
    site = mechvrp.Site(component, 1 if COMPONENTS[component].layered else None)
    with mechvrp.trace(model, batch) as t:
        t[site] = torch.zeros_like(t[site])
        assigned = t.logits.save()
    with mechvrp.trace(model, batch) as t:
        t[site][:] = 0
        in_place = t.logits.save()
    assert torch.equal(assigned, in_place)


def test_pattern_under_eager(family):
    name, _, batch = family
    model = mechvrp.load(tiny.hf_model(name, attn="eager"), processor=tiny.processor(name))
    with mechvrp.trace(model, batch) as t:
        read = t.pattern[1].save()
    with torch.no_grad():
        clean = model.model(**batch.inputs, output_attentions=True)
    assert torch.equal(read, clean.attentions[1])
    real = batch.tokens.mask("all")
    assert torch.allclose(read.sum(-1)[:, 0][real], torch.ones(int(real.sum())))

    def edit(weights):
        return weights.flip(-1) * 0.5

    fresh = tiny.hf_model(name, attn="eager")
    byhand.hook_pattern(fresh, 1, edit)
    with torch.no_grad():
        expected = fresh(**batch.inputs).logits
    with mechvrp.trace(model, batch) as t:
        t.pattern[1] = edit(t.pattern[1])
        logits = t.logits.save()
    assert torch.equal(logits, expected)
    assert not torch.equal(logits, clean.logits)
    # The model is as it was.
    with torch.no_grad():
        assert torch.equal(model.model(**batch.inputs).logits, clean.logits)
