"""Attention weights under SDPA: the same numbers, and the same effect of edits, as under eager."""

import pytest
import torch

import mechvrp
from mechvrp.errors import UnavailableError
from mechvrp.tracing.attention import Inputs
from tests.support import tiny

NAMES = [name for name in tiny.NAMES if name != "paligemma2"]  # eager whatever is asked for


def pair(name):
    """The same weights under SDPA and under eager."""
    return [
        mechvrp.load(tiny.hf_model(name, attn=attn), processor=tiny.processor(name))
        for attn in ("sdpa", "eager")
    ]


@pytest.fixture(scope="module", params=NAMES)
def models(request):
    return pair(request.param)


SELECTIONS = ["last", "question", "all", [-1, -4], [(0, 0), (1, 1)]]


@pytest.mark.parametrize("which", [slice(None), slice(0, 1)], ids=["padded", "alone"])
def test_rows_are_those_of_eager(models, which):
    sdpa, eager = models
    samples = tiny.samples()[which]
    for positions in SELECTIONS:
        ours, theirs = (
            mechvrp.cache(m, m.encode(samples, instruction=""), "pattern", positions=positions)
            for m in (sdpa, eager)
        )
        for site in ours:
            real = slice(None)
            if positions == "all":  # "all" leaves padding out
                assert ours.rows(site).position.max() == -1
            torch.testing.assert_close(
                ours.flat(site)[real], theirs.flat(site)[real], rtol=0, atol=1e-5
            )


def test_a_trace_gives_rows_and_whole_patterns(models):
    sdpa, eager = models
    batch = sdpa.encode(tiny.samples(), instruction="")
    with mechvrp.trace(sdpa, batch) as t:
        rows = t.attention_rows(0).save()
        whole = t.pattern[1].save()
        again = t.attention_rows(1, "last").save()
    with mechvrp.trace(eager, batch) as t:
        expected = t.pattern[0].save()
        both = t.pattern[1].save()
    real = batch.tokens.mask("all")
    assert torch.allclose(rows, expected[:, :, -1], atol=1e-5)
    assert torch.allclose(again, both[:, :, -1], atol=1e-5)
    at = (real[:, None, :, None] & torch.ones_like(whole, dtype=torch.bool)).expand_as(whole)
    assert torch.allclose(whole[at], both[at], atol=1e-5)


EDITS = {
    "assigned": lambda t: t.pattern.__setitem__(1, t.pattern[1].flip(1) * 0.5),
    "in place": lambda t: t.pattern[1][:, 1, -1].mul_(0.25),
    "applied": lambda t: t.apply(mechvrp.zero("pattern", layer=1, positions="last", heads=[0])),
    "knocked out": lambda t: t.apply(mechvrp.knockout([0, 2], query="last", key="image")),
}


@pytest.mark.parametrize("kind", EDITS)
def test_edits_of_the_pattern_do_what_they_do_under_eager(models, kind):
    logits = []
    for model in models:
        batch = model.encode(tiny.samples(), instruction="")
        with mechvrp.trace(model, batch) as t:
            EDITS[kind](t)
            edited = t.logits.save()
        with mechvrp.trace(model, batch) as t:
            clean = t.logits.save()
        assert not torch.allclose(edited[:, -1], clean[:, -1], atol=1e-4)
        logits.append(edited[:, -1])
    scale = float(logits[1].abs().max())
    assert float((logits[0] - logits[1]).abs().max()) < 1e-5 * scale


def test_edits_of_one_pattern_add_up_in_order(models):
    logits = []
    for model in models:
        batch = model.encode(tiny.samples()[:1], instruction="")
        with mechvrp.trace(model, batch) as t:
            t.pattern[1][:, 0] = 0
            t.apply(mechvrp.scale("pattern", 2.0, layer=1, heads=[1]))
            t.apply(mechvrp.scale("pattern", 0.5, layer=1, heads=[1]))
            t.apply(mechvrp.zero("pattern", layer=1, heads=[2]))
            rows = t.attention_rows(1).save()
            logits.append(t.logits.save()[:, -1])
        assert not rows[:, [0, 2]].any()
        assert torch.allclose(rows[:, [1, 3]].sum(-1), torch.ones(1, 2))
    assert torch.allclose(*logits, atol=1e-5 * float(logits[1].abs().max()))


def test_reading_a_pattern_changes_nothing(models):
    sdpa, _ = models
    batch = sdpa.encode(tiny.samples(), instruction="")
    with torch.no_grad():
        before = sdpa.model(**batch.inputs).logits
    implementation = sdpa.model.config._attn_implementation
    with mechvrp.trace(sdpa, batch) as t:
        for layer in range(sdpa.n_layers):
            t.attention_rows(layer)
        rows = t.logits.save()
    with mechvrp.trace(sdpa, batch) as t:
        for pattern in t.pattern:
            assert pattern.shape[-1] == batch.tokens.length
        explicit = t.logits.save()
    assert torch.equal(rows, before)
    assert torch.allclose(explicit[:, -1], before[:, -1], atol=1e-5 * float(before.abs().max()))
    with torch.no_grad():
        assert torch.equal(sdpa.model(**batch.inputs).logits, before)
    assert sdpa.model.config._attn_implementation == implementation


def test_rows_take_memory_of_their_own_number_only():
    """No tensor with one entry for each pair of tokens is made on the way."""
    made = []

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            made.extend(
                o.numel()
                for o in (out if isinstance(out, tuple) else (out,))
                if hasattr(o, "numel")
            )
            return out

    n, heads, length, width = 2, 4, 500, 8
    query, key, value = (torch.randn(n, h, length, width) for h in (heads, 2, 2))
    inputs = Inputs(query, key, value, None, 0.3, causal=True)
    with Watched():
        rows = inputs.rows(torch.arange(n), torch.full((n,), length - 1))
    assert max(made) <= n * heads * length * width
    assert torch.allclose(rows, inputs.weights()[:, :, -1], atol=1e-6)


@pytest.mark.parametrize("mask", ["none", "bool", "float"])
@pytest.mark.parametrize("causal", [True, False])
def test_made_weights_are_those_that_torch_s_attention_uses(mask, causal):
    """Against ``scaled_dot_product_attention``, whose output they must give with these values."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, h, 7, 4) for h in (4, 2, 2))
    seen = torch.ones(7, 7).tril().bool().expand(2, 1, 7, 7).clone()
    seen[0, :, :, 0] = False
    seen[0, :, 0, 0] = True
    given = {
        "none": None,
        "bool": seen,
        "float": torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min),
    }[mask]
    inputs = Inputs(query, key, value, given, 0.5, causal)
    z = inputs.mixed(inputs.weights())
    expected = torch.nn.functional.scaled_dot_product_attention(
        query,
        key.repeat_interleave(2, 1),
        value.repeat_interleave(2, 1),
        attn_mask=given,
        is_causal=causal and given is None,
        scale=0.5,
    )
    assert torch.allclose(z, expected.transpose(1, 2), atol=1e-6)
    sample, at = torch.tensor([0, 1, 1]), torch.tensor([6, 2, 6])
    assert torch.allclose(inputs.rows(sample, at), inputs.weights()[sample, :, at], atol=1e-6)


def test_other_implementations_are_refused():
    model = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    batch = model.encode(tiny.samples()[:1], instruction="")
    config = model.model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = "flash_attention_2"
    try:
        for use in (
            lambda t: t.pattern[0],
            lambda t: t.attention_rows(0),
            lambda t: t.apply(mechvrp.knockout(0)),
        ):
            with pytest.raises(UnavailableError, match=r"flash_attention_2.*attn='sdpa'"):
                with mechvrp.trace(model, batch) as t:
                    use(t)
    finally:
        config._attn_implementation = before


def test_a_pattern_that_was_only_read_leaves_the_model_s_own_attention(models):
    sdpa, _ = models
    batch = sdpa.encode(tiny.samples(), instruction="")
    with mechvrp.trace(sdpa, batch) as t:
        before = t.logits.save()
    with mechvrp.trace(sdpa, batch) as t:
        t.pattern[1].save()
        after = t.logits.save()
    assert torch.equal(before, after)


def test_gradients_flow_through_edited_patterns(models):
    sdpa, eager = models
    found = []
    for model in (sdpa, eager):
        batch = model.encode(tiny.samples()[:1], instruction="")
        with mechvrp.trace(model, batch, grad=True) as t:
            value = t.resid_pre[1]
            t.pattern[1] = t.pattern[1] * 0.5
            logits = t.logits.save()
            kept = value.save()
        (gradient,) = torch.autograd.grad(logits[0, -1, 5], kept)
        found.append(gradient)
    assert found[0].abs().max() > 0
    assert torch.allclose(*found, atol=1e-5 * float(found[1].abs().max()))
    batch = sdpa.encode(tiny.samples()[:1], instruction="")
    with mechvrp.trace(sdpa, batch, grad=True) as t:
        value = t.resid_pre[1].save()
        t.pattern[1][:, 0] = 0
        logits = t.logits.save()
    assert torch.autograd.grad(logits[0, -1, 5], value)[0].isfinite().all()


def test_weights_in_bfloat16_are_those_of_float32_rounded():
    torch.manual_seed(1)
    query, key = (3 * torch.randn(1, 2, 40, 16) for _ in range(2))
    low = Inputs(query.bfloat16(), key.bfloat16(), key.bfloat16(), None, 0.25, True)
    exact = Inputs(
        query.bfloat16().float(), key.bfloat16().float(), key.bfloat16().float(), None, 0.25, True
    )
    assert torch.equal(low.weights(), exact.weights().bfloat16())
