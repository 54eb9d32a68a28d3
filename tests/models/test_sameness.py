"""What is measured once is kept for models that compute the same, and for no others."""

from __future__ import annotations

import gc
import types
import weakref
from typing import Any

import pytest
import torch

import mechvrp
from mechvrp.models.structure import family
from mechvrp.models.structure.sameness import code_of, sameness
from mechvrp.patching import plan, sweep, trials
from tests.support.anyvlm_classes import CASES

CASE = CASES["internvl"]


def loaded(hf: Any) -> Any:
    return mechvrp.load(hf, probe=CASE.inputs())


def blocks(hf: Any) -> Any:
    return hf.model.language_model.layers


def looking_back(own: Any) -> Any:
    def forward(states: Any, *args: Any, **kwargs: Any) -> Any:
        return own(states, *args, **kwargs) + 0.5 * states.mean(1, keepdim=True)

    return forward


def test_the_same_model_again_is_not_looked_at_again(monkeypatch):
    facts = loaded(CASE.model()).family.facts
    monkeypatch.setattr(family, "measure", lambda *_: pytest.fail("measured again"))
    assert loaded(CASE.model()).family.facts is facts
    again = loaded(CASE.model())
    loaded(again.model)  # nnsight's own wrapping is not taken for a change
    assert again.family.facts is facts


def test_a_forward_replaced_on_instances_is_seen():
    """After one that attends causally, and is planned for; then one of its class and config that does not."""
    edit = mechvrp.scale("resid_post", 0.2, layer=0, positions=[-3])
    plain = loaded(CASE.model())
    assert plain.family.attention == "causal"
    plan(plain, plain.batch(**CASE.inputs([0])), [edit])
    hf = CASE.model()
    for layer in blocks(hf):
        layer.forward = looking_back(layer.forward)
    model = loaded(hf)
    assert model.family.attention == "prefix"
    batch = model.batch(**CASE.inputs([0]))
    with mechvrp.trace(model, batch) as t:
        t.apply(edit)
        expected = t.logits[:, -1].float().save()
    found = sweep(model, batch, [edit], "logits", progress=False)["logits"].values[0]
    torch.testing.assert_close(torch.from_numpy(found), expected)
    # And the other way round: nothing of it is kept for others.
    assert loaded(CASE.model()).family.attention == "causal"


def test_a_class_that_was_patched_between_two_loads_is_seen(monkeypatch):
    assert loaded(CASE.model()).family.attention == "causal"
    cls = type(blocks(CASE.model())[0])
    plain = cls.forward

    def forward(self: Any, states: Any, *args: Any, **kwargs: Any) -> Any:
        return plain(self, states, *args, **kwargs) + 0.5 * states.mean(1, keepdim=True)

    monkeypatch.setattr(cls, "forward", forward)
    assert loaded(CASE.model()).family.attention == "prefix"


def test_weights_are_part_of_what_is_computed():
    """Without what attention writes nothing shows which way it looks; the next has those weights."""
    case = CASES["gemma3"]
    hf = case.model()
    with torch.no_grad():
        for layer in hf.model.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
    assert mechvrp.load(hf, probe=case.inputs()).family.attention == "causal"
    assert mechvrp.load(case.model(), probe=case.inputs()).family.attention == "image"


def _method(hf: Any) -> None:
    hf.model.get_image_features = types.MethodType(lambda self, *a, **k: None, hf.model)


def _hook(hf: Any) -> None:
    blocks(hf)[1].register_forward_hook(lambda *_: None)


def _parametrized(hf: Any) -> None:
    torch.nn.utils.parametrize.register_parametrization(
        blocks(hf)[0].mlp.up_proj, "weight", torch.nn.Identity()
    )


def _scaling(hf: Any) -> None:
    blocks(hf)[2].self_attn.scaling *= 2


def _causal(hf: Any) -> None:
    blocks(hf)[2].self_attn.is_causal = False


def _setting(hf: Any) -> None:
    blocks(hf)[2].self_attn.config._attn_implementation = "eager"


def _weight(hf: Any) -> None:
    with torch.no_grad():
        hf.lm_head.weight[3, 5] += 1


def _frequencies(hf: Any) -> None:
    hf.model.language_model.rotary_emb.inv_freq *= 0.5


def _activation(hf: Any) -> None:
    for layer in blocks(hf):
        layer.mlp.act_fn = torch.nn.GELU()


@pytest.mark.parametrize(
    "change",
    [
        _method, _hook, _parametrized, _scaling, _causal, _setting, _weight, _frequencies,
        _activation,
    ],
)  # fmt: skip
def test_every_change_of_what_is_computed_makes_another_key(change):
    inputs = CASE.inputs()
    plain, other = CASE.model(), CASE.model()
    key = sameness(plain, inputs)
    assert key is not None
    assert key == sameness(other, inputs)
    change(other)
    assert key != sameness(other, inputs)
    assert key == sameness(plain, inputs)


def test_functions_beside_the_classes_and_registered_ones_count(monkeypatch):
    import sys

    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    hf = CASE.model()
    code = code_of(hf)
    assert code == code_of(hf)
    space = sys.modules[type(blocks(hf)[0]).__module__]
    with monkeypatch.context() as patched:
        rotate = space.rotate_half
        patched.setattr(space, "rotate_half", lambda x: -rotate(x))
        assert code_of(hf) != code
    assert code_of(hf) == code
    kept = ALL_ATTENTION_FUNCTIONS["sdpa"]
    try:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = lambda *a, **k: kept(*a, **k)
        assert code_of(hf) != code
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert code_of(hf) == code


def test_settings_that_hold_themselves_make_no_key():
    hf = CASE.model()
    assert sameness(hf, CASE.inputs()) is not None
    held: dict[str, Any] = {}
    held["itself"] = held
    blocks(hf)[0].extra = held
    assert sameness(hf, CASE.inputs()) is None
    assert loaded(hf).n_layers


def test_hooks_that_were_tried_under_are_let_go(monkeypatch):
    model = loaded(CASE.model())
    runs: list[trials.Trial] = []

    def tried(*_: Any) -> trials.Trial:
        runs.append(trials.Trial(resume=str(len(runs))))
        return runs[-1]

    monkeypatch.setattr(trials, "_tried", tried)
    first = trials.trial(model)
    gone = []
    for _ in range(12):

        def hook(*_: Any) -> None: ...

        gone.append(weakref.ref(hook))
        handle = blocks(model.model)[0].register_forward_hook(hook)
        assert trials.trial(model) is trials.trial(model) is runs[-1]
        handle.remove()
        del hook
        assert trials.trial(model) is first  # used again and again, so it stays
    assert len(runs) == 13
    gc.collect()
    assert [ref() is None for ref in gone] == [True] * 5 + [False] * 7
