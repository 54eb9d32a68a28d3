"""Sweeps: every plan gives what one forward a variant gives; what cannot be shared is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import mechvrp
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.patching import execution, plan, sweep
from tests.support import tiny

EAGER = {}
SDPA = {}


def loaded(name, attn):
    known = EAGER if attn == "eager" else SDPA
    if name not in known:
        model = mechvrp.load(tiny.hf_model(name, attn=attn), processor=tiny.processor(name))
        known[name] = model
    return known[name]


def naive(model, batch, edits):
    with mechvrp.trace(model, batch) as t:
        t.apply(edits)
        logits = t.logits.save()
    return logits[:, -1].float()


def close(found, expected):
    scale = expected.abs().max()
    assert float((found - expected).abs().max()) <= 1e-5 * float(scale)


POSITIONS = ["last", "image", "all", "question", -2, [-3, -1], [(0, 1)]]
SITES = [
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "neurons",
    "z",
    "q",
    "k",
    "v",
]


def drawn_edit(draw, model, acts):
    where = draw(st.sampled_from([*SITES, "embed", "projected", "vision_resid_post", "logits"]))
    if draw(st.integers(0, 9)) == 0:
        pattern = mechvrp.Site("pattern", draw(st.integers(0, model.n_layers - 1)))
        positions = draw(st.sampled_from(["last", "question"]))
        if draw(st.booleans()):
            return mechvrp.noise(pattern, 0.5, seed=draw(st.integers(0, 9)), positions=positions)
        return mechvrp.knockout(
            pattern.layer, query=positions, key=draw(st.sampled_from(["image", -4]))
        )
    depth = model.n_vision_layers if where == "vision_resid_post" else model.n_layers
    layer = draw(st.integers(0, depth - 1)) if mechvrp.tracing.COMPONENTS[where].layered else None
    site = mechvrp.Site(where, layer)
    positions = draw(st.sampled_from(POSITIONS))
    if where == "vision_resid_post":
        positions = "all"
    if where == "projected":
        positions = draw(st.sampled_from(["image", [(0, 0), (1, 1)]]))
    if where == "logits":
        positions = draw(st.sampled_from(["last", "all"]))
    if where == "embed":
        positions = draw(st.sampled_from(["last", "all", "question"]))
    more = {"positions": positions}
    if where in ("q", "z") and draw(st.booleans()):
        more["heads"] = draw(st.sampled_from([[0], [1, 3]]))
    if draw(st.booleans()) and where != "vision_resid_post":
        more["units"] = draw(st.sampled_from([[0], [2, 5, 7]]))
    kind = draw(st.sampled_from(["zero", "scale", "noise", "mean", "replace"]))
    if kind == "mean" and where == "resid_post":
        return mechvrp.mean(site, acts, **more)
    if kind == "scale":
        return mechvrp.scale(site, draw(st.sampled_from([-1.0, 0.5, 3.0])), **more)
    if kind == "noise":
        return mechvrp.noise(site, 0.5, seed=draw(st.integers(0, 9)), **more)
    if kind == "replace" and where in ("resid_pre", "resid_mid", "attn_out"):
        return mechvrp.replace(site, torch.linspace(-1, 1, model.d_model), **more)
    return mechvrp.zero(site, **more)


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking runs models for minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data())
@pytest.mark.parametrize("name", tiny.NAMES)
def test_every_plan_gives_what_one_forward_a_variant_gives(name, data):
    draw = data.draw
    model = loaded(name, draw(st.sampled_from(["sdpa", "eager"])))
    samples = tiny.samples()
    chosen = draw(st.sampled_from([samples, samples[1:], samples[:1], samples[::-1]]))
    batch = model.encode(chosen, instruction="")
    acts = mechvrp.cache(model, batch, "resid_post", positions="last")
    n = draw(st.integers(1, 9))
    variants = [
        [drawn_edit(draw, model, acts) for _ in range(draw(st.integers(0, 2)))] for _ in range(n)
    ]
    memory = draw(st.sampled_from([1, 2**20, 2**29]))
    found = sweep(
        model, batch, variants, ["logits", "logit_diff", "kl"], memory=memory, progress=False
    )
    assert not any(found["error"].values)
    for i, edits in enumerate(variants):
        expected = naive(model, batch, edits)
        close(torch.from_numpy(found["logits"].values[i]), expected)
    clean = naive(model, batch, [])
    close(torch.from_numpy(found["base_logits"].values), clean)


MODES = {
    "branches": lambda: mechvrp.zero("neurons", layer=1, positions="last", units=[1, 2]),
    "suffix": lambda: mechvrp.zero("resid_pre", layer=1, positions="question"),
    "resume": lambda: mechvrp.zero("mlp_out", layer=1),
    "full": lambda: mechvrp.scale("vision_resid_post", 0.5, layer=1),
}


@pytest.mark.parametrize("name", tiny.NAMES)
def test_plans_choose_the_cheapest_exact_mode(name):
    model = loaded(name, "sdpa")
    batch = model.encode(tiny.samples()[:1], instruction="")  # no padding: "all" begins at 0
    causal = model.family.attention == "causal"
    for mode, make in MODES.items():
        made = plan(model, batch, [make()])
        wanted = mode if causal or mode == "full" else "resume"
        assert [group.mode for group in made.groups] == [wanted], str(made)
    assert bool(made.why_not) is not causal


def test_prefix_attention_would_be_wrong_with_a_shared_prefix():
    """What the planner refuses for PaliGemma is refused for a reason: forced, it changes the logits."""
    model = loaded("paligemma", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    edit = mechvrp.zero("resid_pre", layer=1, positions="question")
    honest = sweep(model, batch, [edit], "logits", progress=False)["logits"].values[0]
    close(torch.from_numpy(honest), naive(model, batch, edit))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechvrp.patching.planning.can_split", lambda *_: "")
        forced = sweep(model, batch, [edit], "logits", progress=False)
    assert "suffix" in forced.attrs["plan"]
    assert float(np.abs(forced["logits"].values[0] - honest).max()) > 1e-3


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llava-clip", "qwen2-vl"])
def test_variants_join_a_pass_where_they_begin(name, attn):
    """Of all layers together: each begins at its own block, and at its own position."""
    model = loaded(name, attn)
    batch = model.encode(tiny.samples(), instruction="")
    places = ["last", [-3, -1], [-2], [-4]]
    variants = [
        mechvrp.zero(component, layer=layer, units=[layer, 5], positions=position)
        for component in ("resid_post", "neurons", "v", "resid_mid", "resid_pre")
        for position in places
        for layer in range(model.n_layers)
    ]
    variants.append(mechvrp.scale("logits", 2.0, positions="last"))
    early = [[(0, 0)], [(0, 1), (1, 1)]]  # so long that they are rows of their own
    variants += [
        [
            mechvrp.zero("mlp_out", layer=layer, positions=e),
            mechvrp.zero("z", layer=2, heads=[1], positions="last"),
        ]
        for e in early
        for layer in range(model.n_layers)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechvrp.patching.planning._BRANCH", 0.25)
        patch.setattr("mechvrp.patching.planning._PASS", 0)
        made = plan(model, batch, variants)
        found = sweep(model, batch, variants, "logits", progress=False)
    modes = [group.mode for group in made.groups]
    assert modes.count("branches") == 3  # one, two, and up to four positions
    assert modes.count("suffix") == 2
    assert made.forwards == 1 + len(modes)
    for i, edits in enumerate(variants):
        close(torch.from_numpy(found["logits"].values[i]), naive(model, batch, edits))
    for few in ([0, 40], [45, 2], [3, 12], [22, 23]):  # beginning at another block than the first
        some = sweep(model, batch, [variants[i] for i in few], "logits", progress=False)
        close(
            torch.from_numpy(some["logits"].values), torch.from_numpy(found["logits"].values[few])
        )


def weighted(draw_from):
    """Edits of attention weights, at the last position and at others, alone and with other edits."""
    last = mechvrp.zero("neurons", layer=1, positions="last")
    return {
        "cut": mechvrp.knockout([1, 2], query="last", key="image"),
        "cut questions": mechvrp.knockout(1, query="question", key="image"),
        "noisy": mechvrp.noise("pattern", 1.0, layer=1, positions="last"),
        "noisy late": mechvrp.noise("pattern", 1.0, layer=[0, 2], positions=-2, seed=draw_from),
        "noisy all": mechvrp.noise("pattern", 1.0, layer=1, seed=draw_from),
        "both": [mechvrp.knockout(2), last],
        "other": last,
        "state": mechvrp.noise("resid_post", 1.0, layer=0, positions="last"),
        "patches": mechvrp.zero("projected", positions=[(0, 0)]),
        "tower": mechvrp.scale("vision_resid_post", 0.5, layer=0),
        "values": mechvrp.zero("z", layer=1, positions="question"),
        "whole": mechvrp.zero("mlp_out", layer=1),
        "nothing": [],
        "behind": mechvrp.zero("resid_post", layer=-1, units=[0]),
    }


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("name", tiny.NAMES)
def test_edited_and_watched_attention_is_that_of_one_forward_a_variant(name, attn):
    model = loaded(name, attn)
    batch = model.encode(tiny.samples(), instruction="")
    variants = weighted(3)
    if model.family.attention == "causal":
        modes = {group.mode for group in plan(model, batch, variants).groups}
        assert modes >= {"branches", "suffix", "resume", "full", "clean"}
    found = sweep(model, batch, variants, ["logits", "attention"], progress=False)
    assert found["attention"].dims == ("variant", "example", "layer", "position")
    for title, edits in variants.items():
        rows = []
        with mechvrp.trace(model, batch) as t:
            t.apply(edits)
            for layer in range(model.n_layers):
                rows.append(t.attention_rows(layer).float().mean(1).save())
            logits = t.logits[:, -1].float().save()
        here = found.sel(variant=title)
        close(torch.from_numpy(here["logits"].values), logits)
        close(torch.from_numpy(here["attention"].values), torch.stack(rows, dim=1))
        if title == "nothing":
            assert (here["attention"] == found["base_attention"]).all()


def test_attention_alone_can_be_watched_and_is_refused_where_one_number_is_wanted():
    model = loaded("llava-clip", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    edits = [mechvrp.zero("mlp_out", layer=0)]
    alone = sweep(model, batch, edits, "attention", progress=False)
    beside = sweep(model, batch, edits, ["logit", "attention"], progress=False)
    assert np.array_equal(alone["attention"].values, beside["attention"].values)
    assert np.allclose(alone["attention"].sum("position"), 1, atol=1e-5)
    with pytest.raises(InputError, match="one number"):
        mechvrp.patching.attention_knockout(model, batch, measure="attention", progress=False)


def test_sliding_windows_are_not_shared():
    model = loaded("llava-clip", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    config = model.model.config.get_text_config(decoder=True)
    before = getattr(config, "sliding_window", None)
    try:
        config.sliding_window = 8
        made = plan(model, batch, [MODES["branches"]()])
        assert made.groups[0].mode == "resume"
        assert "window 8" in str(made)
        # A cache that slides keeps one position less than its window.
        config.sliding_window = batch.tokens.length
        assert plan(model, batch, [MODES["branches"]()]).groups[0].mode == "resume"
        config.sliding_window = batch.tokens.length + 1
        assert plan(model, batch, [MODES["branches"]()]).groups[0].mode == "branches"
    finally:
        config.sliding_window = before


@pytest.mark.parametrize("name", ["llava-clip", "paligemma", "qwen2-vl"])
def test_the_plans_account_is_what_is_computed(name, monkeypatch):
    """Tokens through each block, counted by plain hooks, against the plan's own count."""
    model = loaded(name, "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    variants = [mechvrp.zero("neurons", layer=layer, positions="last") for layer in range(3)]
    variants += [mechvrp.zero("resid_post", layer=0, positions="question"), []]
    made = plan(model, batch, variants)
    # Inside: what is skipped is not called. Keys and values are of all, queries of the last where they can be.
    counted = {"self_attn.k_proj": [], "self_attn.o_proj": [], "mlp.down_proj": []}
    blocks = model.model.model.language_model.layers
    handles = [
        block.get_submodule(part).register_forward_hook(
            lambda m, a, out, part=part: counted[part].append(out[..., 0].numel())
        )
        for block in blocks
        for part in counted
    ]
    try:
        found = sweep(model, batch, variants, progress=False)
    finally:
        for handle in handles:
            handle.remove()
    attention = sum(p.numel() for p in blocks[0].self_attn.parameters())
    share = attention / sum(p.numel() for p in blocks[0].parameters())
    asking = [blocks[0].self_attn.q_proj, blocks[0].self_attn.o_proj]
    asked = sum(p.numel() for part in asking for p in part.parameters()) * share / attention
    attended, written, transformed = (sum(tokens) for tokens in counted.values())
    total = (share - asked) * attended + asked * written + (1 - share) * transformed
    assert total == pytest.approx(made.token_layers)
    assert made.token_layers == pytest.approx(found.attrs["token_layers"])
    assert transformed != attended  # the last block, and blocks run from their MLP on
    assert found.attrs["forward_calls"] == made.forwards
    assert made.naive_token_layers == 5 * 3 * batch.tokens.length * 3


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llava-clip", "paligemma", "qwen2-vl"])
def test_the_last_block_asks_for_the_last_position_only(name, attn):
    """Rows of whole sequences, or of their ends: one query each, unless an edit looks at the others."""
    model = loaded(name, attn)
    batch = model.encode(tiny.samples(), instruction="")
    last = model.n_layers - 1
    variants = [
        mechvrp.zero("neurons", layer=0, positions="all", units=[1, 2]),
        mechvrp.zero("v", layer=last, positions="image"),
        mechvrp.scale("k", 0.3, layer=last, positions="all"),
        mechvrp.zero("z", layer=last, positions="all", heads=[0]),
        [mechvrp.zero("embed", positions="question"), mechvrp.zero("attn_out", layer=last)],
    ]
    looking = [
        mechvrp.scale("q", 0.5, layer=last, positions="all"),
        mechvrp.zero("pattern", layer=last, positions="image"),
    ]
    block = model.model.model.language_model.layers[last]
    for edits in (variants, looking):
        seen = []
        handle = block.self_attn.o_proj.register_forward_hook(
            lambda m, a, out, seen=seen: seen.append(out.shape[1])
        )
        try:
            found = sweep(model, batch, edits, "logits", progress=False)
        finally:
            handle.remove()
        for ours, edit in zip(found.logits.values, edits, strict=True):
            close(torch.from_numpy(ours), naive(model, batch, edit))
        assert (set(seen[1:]) == {1}) == (edits is variants)  # behind the clean run
    watched = sweep(model, batch, variants, ["logits", "attention"], progress=False)
    close(torch.from_numpy(watched.logits.values[0]), naive(model, batch, variants[0]))


def test_all_queries_are_run_where_one_alone_cannot_be(monkeypatch):
    """Other attention implementations take other masks; a fused projection has no queries of its own."""
    model = loaded("llava-clip", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    edits = [mechvrp.zero("neurons", layer=0, positions="all")]
    single = plan(model, batch, edits)
    assert [group.queries for group in single.groups] == [False]
    monkeypatch.setattr(type(model), "attn_implementation", "flash_attention_2")
    assert [group.queries for group in plan(model, batch, edits).groups] == [True]
    monkeypatch.undo()
    monkeypatch.setattr("mechvrp.tracing.access.has_single_queries", lambda *_: False)
    fused = plan(model, batch, edits)
    assert fused.token_layers > single.token_layers
    found = sweep(model, batch, edits, "logits", progress=False)
    close(torch.from_numpy(found.logits.values[0]), naive(model, batch, edits[0]))


@pytest.mark.parametrize("name", ["llava-clip", "paligemma", "qwen2-vl"])
@pytest.mark.parametrize("measure", ["logits", "attention"])
def test_the_clean_run_goes_on_as_generation_does(name, measure):
    """Logits of the second token are generate's; variants behind it are as if nothing had been asked."""
    model = loaded(name, "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    assert not batch.tokens.attention_mask.all()  # padding on the left
    made = model.generate_output(
        batch,
        max_new_tokens=2,
        min_new_tokens=2,
        output_logits=True,
        return_dict_in_generate=True,
    )
    seen = []

    def look(clean):
        close(clean.logits, made.logits[0])
        for _ in range(2):  # its keys and values stay as they were
            seen.append(clean.logits_behind(made.sequences[:, -2]))

    edits = [mechvrp.zero("resid_post", layer=1, positions=p) for p in ("last", "all")]
    found = sweep(model, batch, edits, measure, progress=False, on_clean=look)[measure].values
    close(seen[0], made.logits[1])
    assert torch.equal(seen[0], seen[1])
    expected = sweep(model, batch, edits, measure, progress=False)[measure].values
    close(torch.from_numpy(found), torch.from_numpy(expected))


@pytest.mark.parametrize("name", ["llava-clip", "paligemma", "qwen2-vl"])
def test_what_every_run_has_is_there_in_every_mode(name):
    model = loaded(name, "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    base = mechvrp.noise("projected", 0.5, positions="image")
    variants = {mode: make() for mode, make in MODES.items()}
    variants["first block"] = mechvrp.zero("attn_out", layer=0)
    variants["none"] = []
    found = sweep(model, batch, variants, "logits", base=base, progress=False)
    for i, edits in enumerate(variants.values()):
        close(torch.from_numpy(found["logits"].values[i]), naive(model, batch, [base, edits]))
    close(torch.from_numpy(found["base_logits"].values), naive(model, batch, base))
    with pytest.raises(InputError, match="in front of the decoder"):
        sweep(model, batch, variants, base=MODES["branches"](), progress=False)


def test_measures_by_hand():
    model = loaded("llava-clip", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    edit = mechvrp.zero("mlp_out", layer=2, positions="last")

    def entropy(logits, clean):
        return torch.distributions.Categorical(logits=logits).entropy()

    found = sweep(
        model,
        batch,
        {"a": edit},
        ["logit", "probability", "logit_diff", "kl", "logits", "correct", entropy],
        target=[5, 6, 7],
        foil=[8, 9, 10],
        progress=False,
    )
    logits, clean = naive(model, batch, edit), naive(model, batch, [])
    rows = torch.arange(3)
    at = lambda ids: logits[rows, torch.tensor(ids)]  # noqa: E731
    expected = {
        "logit": at([5, 6, 7]),
        "probability": logits.softmax(-1)[rows, torch.tensor([5, 6, 7])],
        "logit_diff": at([5, 6, 7]) - at([8, 9, 10]),
        "kl": torch.nn.functional.kl_div(
            logits.log_softmax(-1), clean.log_softmax(-1), log_target=True, reduction="none"
        ).sum(-1),
        "entropy": torch.distributions.Categorical(logits=logits).entropy(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].values[0], value.numpy(), atol=1e-4, err_msg=name)
    assert found["logits"].dims == ("variant", "example", "vocab")
    assert float(found["base_kl"].max()) == pytest.approx(0, abs=1e-6)
    assert set(found["correct"].values.ravel()) <= {0.0, 1.0}
    assert found["description"].item().startswith("zero blocks.2.hook_mlp_out")
    best = sweep(model, batch, [edit], "logit_diff", target=[5, 6, 7], progress=False)
    others = logits.clone()
    others[rows, torch.tensor([5, 6, 7])] = float("-inf")
    np.testing.assert_allclose(
        best["logit_diff"].values[0], (at([5, 6, 7]) - others.amax(-1)).numpy(), atol=1e-4
    )


def test_right_answers_first_token():
    model = mechvrp.load("tiny-llava")
    batch = model.encode(mechvrp.data.load("scenes", limit=12))
    found = sweep(model, batch, [[]], ["correct", "logit_diff"], target="right", progress=False)
    said = [model.tokenizer.decode([int(t)]).strip() for t in found["target"]]
    assert said == [s.answer for s in batch.samples]
    # right exactly where the right answer beats all others
    assert ((found["logit_diff"] > 0) == (found["correct"] == 1)).all()


def test_a_variant_that_fails_names_itself_and_the_rest_is_kept():
    model = loaded("llava-clip", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    acts = mechvrp.cache(model, batch, "resid_post", positions="last")
    variants = {
        "good": mechvrp.zero("mlp_out", layer=1, positions="last"),
        "bad layer": mechvrp.zero("mlp_out", layer=9),
        "bad position": mechvrp.mean("resid_post", acts, pooled=False, layer=1, positions=[-2, -1]),
        "infinite": [mechvrp.scale("mlp_out", 1e38, layer=1, positions="last")] * 2,
        "also good": mechvrp.zero("mlp_out", layer=1, positions="last", units=[3]),
    }
    with pytest.warns(UserWarning, match="3 of 5 variants"):
        found = sweep(model, batch, variants, "logits", progress=False)
    errors = dict(zip(found["variant"].values, found["error"].values, strict=True))
    assert "out of range" in errors["bad layer"]
    assert "position -2" in errors["bad position"]
    assert "NaN" in errors["infinite"]
    for name in ("good", "also good"):
        assert errors[name] == ""
        close(
            torch.from_numpy(found["logits"].sel(variant=name).values),
            naive(model, batch, variants[name]),
        )
    assert np.isnan(found["logits"].sel(variant="infinite")).all()


def test_failures_of_all_kinds_and_what_they_cost():
    """A shape that does not fit the tower is found when it runs; the others are kept, the cost is told."""
    model = loaded("llava-clip", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    good = [mechvrp.zero("neurons", layer=i, positions="last", units=[i]) for i in range(3)]
    variants = {
        "wide": mechvrp.steer("vision_resid_post", torch.ones(7), layer=0),
        (0, "a"): good[0],
        (1, "b"): good[1],
        "infinite": [mechvrp.scale("mlp_out", 1e38, layer=1, positions="last")] * 2,
    }
    with pytest.warns(UserWarning, match="2 of 4 variants"):
        found = sweep(
            model,
            batch,
            variants,
            ["logits", lambda t: t.resid_post[0].sum((1, 2))],
            progress=False,
        )
    errors = dict(zip(found["variant"].values, found["error"].values, strict=True))
    assert "RuntimeError" in errors["wide"]
    assert "NaN" in errors["infinite"]
    for name, edit in (("(0, 'a')", good[0]), ("(1, 'b')", good[1])):
        assert errors[name] == ""
        values = found["logits"].sel(variant=name).values
        close(torch.from_numpy(values), naive(model, batch, edit))
    (reading,) = [name for name in found.data_vars if "lambda" in name and "base" not in name]
    assert np.isnan(found[reading].sel(variant=["wide", "infinite"])).all()
    assert np.isfinite(found[reading].sel(variant=["(0, 'a')", "(1, 'b')"])).all()
    made = plan(model, batch, variants)
    assert found.attrs["token_layers"] > made.token_layers  # the pack was run again, one by one
    with pytest.raises(InputError, match="put it in a list"):
        sweep(model, batch, good[0])


def test_a_large_vocabulary_narrows_a_pack():
    model = loaded("llava-clip", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    variants = [mechvrp.zero("neurons", layer=1, positions="last", units=[i]) for i in range(40)]
    (before,) = plan(model, batch, variants, memory=2**21).groups
    vocabulary = model.d_vocab
    try:
        model.d_vocab = 100 * vocabulary
        (after,) = plan(model, batch, variants, memory=2**21).groups
    finally:
        model.d_vocab = vocabulary
    assert after.width * 4 * 4 * 3 * 100 * vocabulary <= 2**21 or after.width == 1
    assert after.width < before.width


def test_blocks_of_parallel_residuals_begin_whole():
    """What is between attention and MLP is not there, so a run cannot begin in it."""
    import transformers as tf

    text = tf.CohereConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = tiny.hf_model("llava-clip").config
    torch.manual_seed(0)
    hf = tf.LlavaForConditionalGeneration(
        tf.LlavaConfig(
            vision_config=config.vision_config,
            text_config={**text.to_dict(), "vocab_size": config.text_config.vocab_size},
            image_token_id=config.image_token_id,
        )
    ).eval()
    model = mechvrp.load(hf, processor=tiny.processor("llava-clip"))
    batch = model.encode(tiny.samples(), instruction="")
    variants = [mechvrp.zero("neurons", layer=i, positions="last", units=[i]) for i in range(3)]
    made = plan(model, batch, variants)
    assert [start.mlp_first for group in made.groups for start in group.starts] == [-1] * 3
    found = sweep(model, batch, variants, "logits", progress=False)
    for i, edit in enumerate(variants):
        close(torch.from_numpy(found["logits"].values[i]), naive(model, batch, edit))


def test_packs_are_halved_when_memory_runs_out(monkeypatch):
    model = loaded("llava-clip", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    variants = [mechvrp.zero("neurons", layer=1, positions="last", units=[i]) for i in range(9)]
    expected = sweep(model, batch, variants, "logits", progress=False)
    sizes, real = [], execution.Runner.run

    def tight(self, group, pack):
        sizes.append(len(pack))
        if len(pack) > 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return real(self, group, pack)

    monkeypatch.setattr(execution.Runner, "run", tight)
    found = sweep(model, batch, variants, "logits", progress=False)
    assert sizes == [9, 4, 2, 2, 2, 2, 1]
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-5)


def test_the_model_is_as_it_was():
    model = loaded("qwen2-vl", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    before = naive(model, batch, [])
    sweep(model, batch, [make() for make in MODES.values()], progress=False)
    assert torch.equal(naive(model, batch, []), before)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"variants": []}, InputError, "at least one variant"),
        ({"variants": [3]}, InputError, "expected interventions"),
        ({"measure": "accuracy"}, InputError, "no measure 'accuracy'"),
        ({"measure": []}, InputError, "no measure was given"),
        ({"measure": ["kl", "kl"]}, InputError, "two measures"),
        ({"target": [1]}, ShapeError, "one token id a sample"),
        ({"target": [1, 2, 10**6]}, InputError, "within 0"),
        ({"target": [1, 2, 3], "foil": [1, 4, 5]}, InputError, "foil is its target"),
        ({"measure": lambda logits, clean: logits}, ShapeError, "gives"),
    ],
)
def test_bad_sweeps_are_refused(options, error, match):
    model = loaded("llava-clip", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")
    given_ = {"variants": [[]], "measure": "kl", "progress": False, **options}
    with pytest.raises(error, match=match):
        sweep(model, batch, **given_)


def overflowing() -> mechvrp.VLM:
    """In float16, with a projection whose products are beyond what that can hold."""
    model = mechvrp.load("tiny-llava", dtype="float16", device="cpu")
    model.model.model.language_model.layers[1].mlp.down_proj.weight.data *= 60_000
    return model


def test_a_clean_run_of_nan_is_refused_and_not_measured():
    model = overflowing()
    scenes = mechvrp.data.load("scenes", n_images=2)
    batch = model.encode(scenes)
    edits = [mechvrp.zero("mlp_out", layer=1)]  # that heals it
    for measure in (["logit_diff", "kl", "correct"], lambda t: t.resid_post[1].sum((1, 2))):
        with pytest.raises(
            NumericalError, match="in float16 are NaN or infinite .*dtype='bfloat16'"
        ):
            sweep(model, batch, edits, measure, progress=False)
    ranking = mechvrp.Ranking(("blocks.0.mlp.hook_post",), np.arange(model.d_mlp, dtype=float))
    with pytest.raises(NumericalError, match="are NaN or infinite"):
        mechvrp.ablation_curve(model, scenes, ranking, (2, 4), draws=3, progress=False)


def test_tokens_masked_with_infinity_are_refused_with_what_to_do():
    model = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))

    def masked(_, args, logits):
        logits[..., 5] = float("-inf")

    handle = model.model.lm_head.register_forward_hook(masked)
    batch = model.encode(tiny.samples(), instruction="")
    with pytest.raises(NumericalError, match="masked with -inf cannot be compared"):
        sweep(model, batch, [mechvrp.zero("mlp_out", layer=1)], progress=False)
    handle.remove()


def test_a_reading_that_is_nan_without_edits_is_refused():
    model = loaded("llava-clip", "sdpa")
    batch = model.encode(tiny.samples(), instruction="")

    def root(t):
        return t.resid_post[0][:, -1, 0] * float("nan")

    with pytest.raises(NumericalError, match="values of 'root' in the clean run"):
        sweep(model, batch, [mechvrp.zero("mlp_out", layer=1)], root, progress=False)
