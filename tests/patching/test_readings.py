"""Measures that read the trace, and the account of memory."""

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, ShapeError
from mechvrp.patching import attention_knockout, attribution_patching
from mechvrp.patching.memory import PeakMemory
from tests.support import tiny


@pytest.fixture(scope="module", params=["llava-clip", "qwen2-vl"])
def run(request):
    model = mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))
    return model, model.encode(tiny.samples(), instruction="")


def focus(t):
    """The most attention that any head of two layers gives to one position."""
    return torch.stack([t.attention_rows(layer).amax(-1) for layer in (1, 2)], dim=1)


def length(t):
    return t.resid_post[1][:, -1].norm(dim=-1)


VARIANTS = {
    "noise": lambda: mechvrp.noise("resid_pre", 0.5, layer=1, positions="image"),
    "neurons": lambda: [mechvrp.zero("neurons", layer=0, positions="last", units=[1, 2])],
    "image": lambda: mechvrp.zero("projected"),
}


def test_readings_are_those_of_a_trace_with_the_edits(run):
    model, batch = run
    variants = {name: make() for name, make in VARIANTS.items()}
    found = mechvrp.sweep(
        model, batch, variants, ["probability", focus, length], base=mechvrp.scale("projected", 1.5),
        progress=False,
    )  # fmt: skip
    assert found["focus"].dims == ("variant", "example", "focus_0", "focus_1")
    for name, edits in [*variants.items(), (None, [])]:
        with mechvrp.trace(model, batch) as t:
            t.apply(mechvrp.scale("projected", 1.5), edits)
            rows = focus(t).save()
        with mechvrp.trace(model, batch) as t:
            t.apply(mechvrp.scale("projected", 1.5), edits)
            norm = length(t).save()
        mine = found.sel(variant=name) if name else found
        prefix = "" if name else "base_"
        np.testing.assert_allclose(mine[f"{prefix}focus"], rows, atol=1e-6)
        np.testing.assert_allclose(mine[f"{prefix}length"], norm, rtol=1e-6)
    alone = mechvrp.sweep(
        model, batch, variants, length, progress=False, base=mechvrp.scale("projected", 1.5)
    )
    np.testing.assert_array_equal(alone["length"], found["length"])
    plain = mechvrp.sweep(
        model, batch, variants, "probability", base=mechvrp.scale("projected", 1.5), progress=False
    )
    np.testing.assert_array_equal(plain["probability"], found["probability"])
    forwards = found.attrs["forward_calls"] - plain.attrs["forward_calls"]
    assert forwards == 2 * (len(variants) + 1)
    per_forward = plain.attrs["naive_token_layers"] / len(variants)
    assert found.attrs["token_layers"] == pytest.approx(
        plain.attrs["token_layers"] + forwards * per_forward
    )


def test_a_reading_that_is_not_finite_fails_its_variant_only(run):
    model, batch = run

    def inverse(t):
        return 1 / t.mlp_out[1][:, -1].norm(dim=-1)

    variants = {"gone": mechvrp.zero("mlp_out", layer=1), "kept": VARIANTS["noise"]()}
    with pytest.warns(UserWarning, match="1 of 2 variants"):
        found = mechvrp.sweep(model, batch, variants, inverse, progress=False)
    assert "inverse is NaN or infinite" in str(found["error"].sel(variant="gone").values)
    assert np.isfinite(found["inverse"].sel(variant="kept")).all()
    assert np.isnan(found["inverse"].sel(variant="gone")).all()


def test_readings_of_a_wrong_kind_are_refused(run):
    model, batch = run
    edit = VARIANTS["neurons"]()
    with pytest.raises(ShapeError, match="3 examples"):
        mechvrp.sweep(model, batch, [edit], lambda t: t.resid_post[1].sum(), progress=False)
    with pytest.raises(ShapeError, match="got float"):
        mechvrp.sweep(model, batch, [edit], lambda t: 1.0, progress=False)
    with pytest.raises(InputError, match="of one argument"):
        attribution_patching(model, batch, batch, measure=length)
    found = attention_knockout(model, batch, layers=[1], measure=length, progress=False)
    assert found["change"].shape == (3, 1)


def test_peak_memory_sees_what_is_held_for_a_moment():
    with PeakMemory(torch.device("cpu")) as small:
        pass
    with PeakMemory(torch.device("cpu")) as large:
        block = np.ones(2**25)  # 256 MiB, written to
        del block
    assert large.bytes > 200 * 2**20 > small.bytes


def test_a_sweep_reports_its_memory(run):
    model, batch = run
    found = mechvrp.sweep(model, batch, [VARIANTS["noise"]()], progress=False)
    assert 0 <= found.attrs["peak_memory"] < 2**30
