"""Models that no family describes: what is found by structure is what is there, and no more is claimed."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.models.structure.classes import checked_classes, row_of
from mechvrp.tracing import COMPONENTS
from tests.support import anyvlm, byhand
from tests.support.anyvlm_classes import CASES

SITES = [c for c in COMPONENTS if c != "pattern"]


def layers(model, component):
    if not COMPONENTS[component].layered:
        return [None]
    depth = model.n_vision_layers if component == "vision_resid_post" else model.n_layers
    return [0, depth - 1]


def claimed(model, component, layer=None):
    return not model.family.unavailable(component, layer)


@pytest.fixture(scope="module", params=list(CASES))
def known(request):
    """(case, model, batch): a mixed batch, not the probe."""
    case = CASES[request.param]
    model = mechvrp.load(case.model(), probe=case.inputs())
    return case, model, model.batch(**case.inputs([3, 1, 2]))


def test_what_is_claimed(known):
    case, model, _ = known
    lost = {c for c in COMPONENTS if not claimed(model, c, 0)}
    assert lost == set(case.missing), model.family.facts.reasons
    assert model.family.attention == case.attention
    (stored,) = (r for r in checked_classes() if r.model_type == model.family.name)
    assert row_of(model, stored.sweeps) == stored, "run python -m tests.support.family_table"


def test_reads_equal_plain_hooks(known):
    case, model, batch = known
    sites = sorted(
        (
            mechvrp.Site(c, layer)
            for c in SITES
            for layer in layers(model, c)
            if claimed(model, c, layer)
        ),
        key=lambda s: s.order,
    )
    seen, fresh = {}, case.model()
    for site in sites:

        def keep(value, site=site):
            seen.setdefault(site, value.clone())
            return value

        byhand.attach(fresh, site.component, *case.place(site.component, site.layer), keep)
    with torch.no_grad():
        fresh(**batch.inputs, use_cache=False)
    import nnsight

    with mechvrp.trace(model, batch) as t:
        values = nnsight.save([t[site].clone() for site in sites])
    for site, value in zip(sites, values, strict=True):
        expected = seen[site]
        if site.component in "qkvz":
            expected = byhand.heads(expected, model.d_head)
        assert torch.equal(value, expected.reshape(value.shape)), site


def test_edits_change_the_logits_as_by_hand(known):
    """An edit at every site at once: one at the wrong place would change the logits otherwise."""
    case, model, batch = known
    layer = 1

    def edit(x):
        edited = x.clone()
        edited[-1] = edited[-1] * 0.7 + 0.05
        return edited

    sites = [mechvrp.Site(c, layer if COMPONENTS[c].layered else None) for c in SITES]
    sites = [s for s in sites if claimed(model, s.component, s.layer)]
    fresh = case.model()
    made = []

    def once(value):  # a projector may be called again, for other things than images
        made.append(value)
        return edit(value) if len(made) == 1 else value

    for site in sites:
        fn = once if site.component == "projected" else edit
        byhand.attach(fresh, site.component, *case.place(site.component, site.layer), fn)
    with torch.no_grad():
        clean = model.model(**batch.inputs, use_cache=False).logits
        expected = fresh(**batch.inputs, use_cache=False).logits
    shape = {}

    def own(value, site):
        like = value.view(shape[site]) if site in shape else value
        return edit(like).view(value.shape)

    path, _ = case.place("projected", None)
    for site in sites:
        if site.component == "projected":
            again = case.model()

            def keep(value, site=site):
                shape.setdefault(site, value.shape)
                return value

            byhand.attach(again, "projected", path, "out", keep)
            with torch.no_grad():
                again(**batch.inputs, use_cache=False)
    with mechvrp.trace(model, batch) as t:
        for site in sorted(sites, key=lambda s: s.order):
            t[site] = own(t[site], site)
        logits = t.logits.save()
    assert torch.equal(logits, expected)
    assert not torch.equal(logits, clean)


def test_grids(known):
    case, _, batch = known
    for sample, seed in enumerate([3, 1, 2]):
        tokens = batch.tokens.images[sample]
        if case.grid is None:
            assert tokens.shapes in ((), ((0, 0),))
            continue
        assert list(tokens.shapes) == case.grid(seed)
        assert torch.equal(
            tokens.position, (batch.inputs["input_ids"][sample] == anyvlm.IMAGE).nonzero().flatten()
        )


def test_padding_and_other_samples_change_nothing(known):
    case, model, batch = known
    with torch.no_grad():
        together = model.model(**batch.inputs, use_cache=False).logits[:, -1]
    scale = together.abs().max()
    for sample, seed in enumerate([3, 1, 2]):
        alone = model.batch(**case.inputs([seed]))
        with torch.no_grad():
            logits = model.model(**alone.inputs, use_cache=False).logits[0, -1]
        assert float((logits - together[sample]).abs().max()) <= 5e-5 * float(scale), sample
