"""Interventions, each applied in a trace, and the sweeps and patching that take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import mechvrp
from mechvrp import patching
from mechvrp.errors import InputError, MechVRPError, NumericalError, ShapeError, SiteError
from tests.bad_input.rows import Bad, Place, bad

__all__ = ["ROWS"]


def applied(make: Callable[[Place], Any]) -> Any:
    def run(place: Place) -> Any:
        edit = make(place)
        with mechvrp.trace(place.model, place.batch) as t:
            t.apply(edit)
            t.logits.save()

    return run


def edit(
    name: str, *given: Any, says: str, error: type[MechVRPError] = SiteError, **options: Any
) -> Bad:
    """An intervention at block 1, applied."""
    words = ", ".join(
        [f"{one!r:.20}" for one in given] + [f"{k}={v!r:.20}" for k, v in options.items()]
    )
    options = {"layer": 1, **options}
    make = getattr(mechvrp, name)
    return bad(f"{name}({words})", applied(lambda place: make(*given, **options)), says, error)


def swept(**options: Any) -> Any:
    """A sweep of one variant whose other arguments are bad; the model is not run for it."""

    def run(place: Place) -> Any:
        variants = options.pop("variants", {"a": mechvrp.zero("neurons", layer=1)})
        return mechvrp.sweep(place.model, place.batch, variants, **{"progress": False, **options})

    return run


def patched(name: str, *given: Any, **options: Any) -> Any:
    """A method on a batch (and, where it takes two, the same batch)."""

    def run(place: Place) -> Any:
        function = getattr(patching, name)
        two = name in ("activation_patching", "attribution_patching", "path_patching")
        batches = (place.batch,) * (1 + two)
        quiet = {} if name in ("attribution_patching", "corrupted_batch") else {"progress": False}
        return function(place.model, *batches, *given, **{**quiet, **options})

    return run


WIDTH = 96
ONES = torch.ones(WIDTH)
NAN = torch.full((WIDTH,), float("nan"))
PLAIN = ("plain tensor of real numbers", ShapeError)
MAPS = [np.ones((12, 12)), np.ones((12, 12))]

ROWS: list[Bad] = [
    edit("zero", "neurons", units=10**9, says="has 256 units, 0 to 255"),
    edit("zero", "neurons", units=-1, says="got unit -1"),
    edit("zero", "neurons", units=1.5, says="units must be whole numbers; got [1.5]"),
    edit("zero", "neurons", units=[True, False], says="units must be whole numbers (of a mask, its nonzero indices)"),
    edit("zero", "neurons", units="abc", says="units must be whole numbers"),
    edit("zero", "neurons", units=[], says="units is empty"),
    edit("zero", "resid_post", heads=0, says="has no heads"),
    edit("zero", "z", heads=99, says="has 4 heads, 0 to 3"),
    edit("zero", "pattern", units=1, says="not units"),
    edit("zero", "neurons", layer=99, says="is out of range"),
    edit("zero", "neurons", layer="1", says="layers must be whole numbers"),
    edit("zero", "neurons", layer=None, says="neurons needs a layer"),
    edit("zero", "neurons", layer=[1, 1], says="layers must be different"),
    edit("zero", "neurons", layer=[], says="layers must be different and at least one"),
    edit("zero", "neurons", positions="nowhere", says="has no word 'nowhere'"),
    edit("zero", "neurons", positions=1.5, says="positions must be whole numbers"),
    edit("zero", "embed", layer=None, positions="image", says="is overwritten by image features"),
    edit("zero", "projected", layer=None, positions="last", says="holds image tokens only"),
    edit("zero", "vision_resid_post", layer=0, positions="last", says="has no prompt positions"),
    edit("scale", "neurons", float("nan"), says="a factor must be finite", error=NumericalError),
    edit("scale", "neurons", 10**400, says="a factor must be finite", error=NumericalError),
    edit("scale", "neurons", "2", says="a factor must be a number; got '2'", error=InputError),
    edit("scale", "neurons", 1j, says="a factor must be a number; got 1j", error=InputError),
    edit("steer", "resid_post", [1.0] * WIDTH, says="steer takes a tensor; got list", error=ShapeError),
    edit("steer", "resid_post", np.ones(WIDTH), says="steer takes a tensor; got ndarray", error=ShapeError),
    edit("steer", "resid_post", torch.ones(WIDTH + 1), says="expected (96,)", error=ShapeError),
    edit("steer", "resid_post", torch.ones(0), says="expected (96,)", error=ShapeError),
    edit("steer", "resid_post", NAN, says="finite numbers", error=NumericalError),
    edit("steer", "resid_post", ONES, "a", says="alpha must be a number", error=InputError),
    edit("steer", "resid_post", ONES.to(torch.complex64), says=PLAIN[0], error=PLAIN[1]),
    edit("steer", "resid_post", ONES.to("meta"), says=PLAIN[0], error=PLAIN[1]),
    edit("steer", "resid_post", ONES.to_sparse(), says=PLAIN[0], error=PLAIN[1]),
    edit("steer", "pattern", torch.ones(4), says="it cannot be steered"),
    edit("replace", "resid_post", None, says="replace takes a tensor; got NoneType", error=ShapeError),
    edit("replace", "resid_post", torch.ones(3, 3), says="shape (3, 3)", error=ShapeError),
    edit("replace", "resid_post", NAN, says="finite numbers", error=NumericalError),
    edit("mean", "resid_post", None, says="the reference must be activations, got NoneType", error=InputError),
    edit("mean", "resid_post", ONES, says="the reference must be activations, got Tensor", error=InputError),
    bad("mean over another site", applied(lambda p: mechvrp.mean("attn_out", p.acts, layer=1)), "attn_out", SiteError),
    bad("mean that is pooled 'x'", applied(lambda p: mechvrp.mean("resid_post", p.acts, layer=1, pooled="x")), "pooled is True or False", InputError),
    bad("resample with a seed of a letter", applied(lambda p: mechvrp.resample("resid_post", p.acts, layer=1, seed="a")), "seed must be a whole number", InputError),
    bad("resample with half a draw", applied(lambda p: mechvrp.resample("resid_post", p.acts, layer=1, draw=0.5)), "draw must be a whole number", InputError),
    edit("noise", "resid_post", float("nan"), says="an amount of noise must be finite", error=NumericalError),
    edit("noise", "resid_post", -1, says="at least 0; got -1", error=NumericalError),
    edit("noise", "resid_post", "a", says="an amount of noise must be a number", error=InputError),
    edit("noise", "resid_post", 1.0, seed=-1, says="seed must be a whole number", error=InputError),
    edit("noise", "resid_post", 1.0, over="x", says="over must be activations", error=InputError),
    *(
        bad(f"knockout({given!r}, {options})", applied(lambda p, g=given, o=options: mechvrp.knockout(g, **o)), says, SiteError)
        for given, options, says in (
            (99, {}, "is out of range"), ("1", {}, "layers must be whole numbers"), (None, {}, "layer"),
            (1, {"query": "nowhere"}, "has no word 'nowhere'"), (1, {"key": [999]}, "position 999 is out of range"), (1, {"heads": 99}, "has 4 heads"),
        )
    ),
    bad("a text for an intervention", applied(lambda p: "x"), "apply takes interventions such as mechvrp.zero", InputError),
    bad("None for an intervention", applied(lambda p: None), "apply takes interventions such as mechvrp.zero", InputError),
    bad("a text among interventions", applied(lambda p: [[mechvrp.zero("neurons", layer=1)], ["x"]]), "apply takes interventions such as mechvrp.zero", InputError),
    # sweeps
    *(
        bad(f"a sweep of {variants!r:.20}", swept(variants=variants), says, InputError)
        for variants, says in (
            (None, "variants is a list; got None"), (3, "variants is a list; got 3"), ("x", "variants is a list; got the text"), ({}, "at least one variant"),
            ({"a": None}, "expected interventions"), ([None], "expected interventions"),
        )
    ),
    *(
        bad(f"a sweep with {options!s:.40}", swept(**options), says, error)
        for options, says, error in (
            ({"measure": "nope"}, "no measure 'nope'", InputError), ({"measure": None}, "measure is a list; got None", InputError),
            ({"measure": [3]}, "no measure 3", InputError), ({"memory": 0}, "memory=0; expected one whole number", InputError),
            ({"memory": "a"}, "memory='a'; expected one whole number", InputError), ({"on_clean": 3}, "on_clean is a function", InputError),
            ({"base": "x"}, "expected interventions", InputError), ({"target": "nope"}, "target is 'own', 'right' or one token id", InputError),
            ({"target": ["yes", "no"]}, "target is 'own', 'right' or one token id", InputError), ({"target": [1]}, "target must be one token id a sample", ShapeError),
            ({"target": [10**9] * 2}, "target ids must be within", InputError), ({"foil": "zzz"}, "foil is one token id", InputError),
        )
    ),
    bad("a sweep of a name", lambda p: mechvrp.sweep("tiny-llava", p.batch, [mechvrp.zero("neurons", layer=1)]), "expected a model", InputError),
    bad("a sweep of samples", lambda p: mechvrp.sweep(p.model, p.samples, [mechvrp.zero("neurons", layer=1)]), "expected a batch", InputError),
    bad("a plan of None", lambda p: mechvrp.plan(p.model, None, [mechvrp.zero("neurons", layer=1)]), "expected a batch", InputError),
    # patching
    *(
        bad(f"{name}({str(options)[1:-1]:.40})", patched(name, **options), says, error)
        for name, options, says, error in (
            ("activation_patching", {"component": "nope"}, "a component of the blocks; got 'nope'", SiteError), ("activation_patching", {"over": "x"}, "over is 'position', 'head', 'patch' or 'unit'", InputError),
            ("activation_patching", {"units": [1]}, "units go with over='unit'", InputError), ("activation_patching", {"layers": [99]}, "is out of range", SiteError),
            ("activation_patching", {"positions": 3.5}, "positions is a list; got 3.5", InputError), ("activation_patching", {"direction": "x"}, "direction is 'denoise' or 'noise'", InputError),
            ("attribution_patching", {"steps": 0}, "steps", InputError), ("causal_trace", {"corrupt": 3}, "expected a batch", InputError),
            ("causal_trace", {"sigma": "a"}, "sigma must be a number", InputError), ("causal_trace", {"sigma": -1}, "sigma must be above 0", InputError),
            ("causal_trace", {"draws": 0}, "draws=0; expected one whole number", InputError), ("causal_trace", {"window": 1.5}, "window=1.5; expected one whole number", InputError),
            ("causal_trace", {"seed": "a"}, "seed must be a whole number", InputError), ("causal_trace", {"n_resamples": 0}, "n_resamples=0", InputError),
            ("attention_knockout", {"edges": 3}, "edges are pairs", InputError), ("attention_knockout", {"edges": {}}, "at least one edge", InputError),
            ("attention_knockout", {"edges": {"a": ("last",)}}, "edges are pairs", InputError), ("attention_knockout", {"window": 0}, "window=0", InputError),
        )
    ),
    *(
        bad(f"masking by {what}", patched("mask_image_patches", given, **options), says, error)
        for what, given, options, says, error in (
            ("None", None, {}, "scores is a list; got None", InputError), ("letters", ["a", "b"], {}, "are numbers, one a patch", ShapeError),
            ("maps of another grid", [np.ones((3, 3))] * 2, {}, "has (12, 12) patches", ShapeError), ("NaN", [np.full((12, 12), np.nan)] * 2, {}, "of them not finite", ShapeError),
            ("one map", MAPS[:1], {}, "1 maps of scores were given for 2 samples", ShapeError), ("none of the patches", MAPS, {"fraction": 0}, "fraction must be between 0 and 1", InputError),
            ("a fraction that is a letter", MAPS, {"fraction": "a"}, "fraction must be a number", InputError), ("another fill", MAPS, {"fill": "red"}, "fill", InputError),
            ("no draws", MAPS, {"draws": 0}, "draws at least 1", InputError),
        )
    ),
    *(
        bad(f"a batch corrupted by {how!r} with {options}", patched("corrupted_batch", how, **options), says, InputError)
        for how, options, says in (
            ("erase", {}, "how is 'swap', 'blur' or 'mask'"), ("mask", {}, "needs masks"), ("mask", {"masks": 3}, "masks is a list; got 3"),
            ("blur", {"radius": -1}, "radius must be above 0"), ("blur", {"radius": "a"}, "radius must be a number"), ("swap", {"seed": -1}, "seed must be a whole number"),
        )
    ),
    bad("paths between nothing", patched("path_patching", None, None), "ends of paths is a list", InputError),
    bad("paths between texts that are no sites", patched("path_patching", ["x"], ["y"]), "no site 'x'", SiteError),
    bad("blanks of a number", lambda p: patching.blank_patches(3), "masks is a list; got 3", InputError),
    bad("blanks that are no booleans", lambda p: patching.blank_patches([np.zeros((2, 2))]), "masks are booleans", ShapeError),
    bad("effects of a number", lambda p: patching.patch_effects(3), "expected what causal_trace gives", InputError),
]  # fmt: skip
