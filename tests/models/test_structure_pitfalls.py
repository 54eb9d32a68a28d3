"""Models that look like what they are not: each has a part that its structure alone would name wrongly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import mechvrp
from mechvrp.errors import UnavailableError, UnsupportedModelError
from mechvrp.models import check_family
from mechvrp.models.structure.logits import logit_gap
from mechvrp.patching import plan, sweep
from tests.support import anyvlm_classes as classes
from tests.support.anyvlm import AFTER, BEFORE, IMAGE, PAD, VOCAB, Case, images, pixels, text, tower
from tests.support.anyvlm_decoders import llava


def looked_at(case: Case, hf: Any = None) -> Any:
    return mechvrp.load(case.model() if hf is None else hf, probe=case.inputs())


def lacks(model: Any, component: str) -> list[int]:
    return [i for i in range(model.n_layers) if model.family.unavailable(component, i)]


STREAM = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")


@pytest.mark.parametrize(
    ("kind", "options", "without"),
    [
        ("gemma2", {"head_dim": 8}, ()),
        ("olmo2", {}, ()),
        ("granite", {"residual_multiplier": 0.5}, ("attn_out", "resid_mid", "mlp_out")),
        ("cohere", {}, ("resid_mid",)),
    ],
)
def test_what_is_added_to_the_stream_under_other_decoders(kind, options, without):
    """The family written by hand is for decoders whose parts are added as they are."""
    case = llava(kind, **options)
    model = looked_at(case)
    assert model.family.measured
    assert {c for c in STREAM if model.family.unavailable(c, 1)} == set(without)
    batch = model.batch(**case.inputs([1, 2]))
    found = mechvrp.cache(
        model, batch, [mechvrp.Site(c, 1) for c in STREAM if c not in without], positions="all"
    )
    value = {c: found.flat(mechvrp.Site(c, 1)) for c in STREAM if c not in without}
    if not without:
        torch.testing.assert_close(value["resid_pre"] + value["attn_out"], value["resid_mid"])
        torch.testing.assert_close(value["resid_mid"] + value["mlp_out"], value["resid_post"])
    elif kind == "cohere":
        added = value["attn_out"] + value["mlp_out"]
        torch.testing.assert_close(value["resid_pre"] + added, value["resid_post"])


def test_an_image_that_is_added_to_early_blocks_only_is_not_forgotten():
    """Qwen3-VL has dozens of blocks, and adds image features behind the first few."""

    def config() -> Any:
        found = classes._qwen3_vl()
        found.text_config.num_hidden_layers = 6
        found.text_config.layer_types = ["full_attention"] * 6
        return found

    case = replace(classes.CASES["qwen3_vl"], config=config)
    model = looked_at(case)
    assert model.family.facts.resumes
    assert not model.family.forgets_image
    made = plan(model, model.batch(**case.inputs([2, 1])), [mechvrp.zero("mlp_out", layer=4)])
    assert [group.mode for group in made.groups] == ["resume"]


def test_heads_are_those_of_attention_where_most_blocks_have_another_kind():
    """Three of four blocks of a real Qwen3.5 have linear attention, with heads of other numbers and sizes."""

    def config() -> Any:
        import transformers as tf

        found = classes._qwen3_5().to_dict()
        kinds = ["linear_attention", "linear_attention", "full_attention"]
        heads = {"linear_num_value_heads": 8, "linear_value_head_dim": 4}
        own = {**found["text_config"], "layer_types": kinds, **heads}
        return tf.Qwen3_5Config(**{**found, "text_config": own})

    model = looked_at(replace(classes.CASES["qwen3_5"], config=config))
    for site in ("v", "z", "pattern", "attn_out"):
        assert lacks(model, site) == [0, 1], site
    assert model.modules.attn == "self_attn"


def test_neurons_are_of_what_acts_by_position():
    """A Mamba writes from more values than the MLP reads, and is not called attention."""
    mamba = {"attn_layer_period": 3, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 4}
    case = llava(
        "jamba", expert_layer_period=3, expert_layer_offset=2, use_mamba_kernels=False, **mamba
    )
    model = looked_at(case)
    assert model.modules.neurons == "feed_forward.down_proj"
    assert model.modules.mlp_write == "feed_forward"
    assert lacks(model, "neurons") == [2]  # experts
    assert lacks(model, "attn_out") == lacks(model, "z") == [0, 2]


def test_blocks_that_return_tuples():
    case = llava(
        "falcon_h1", mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_n_groups=1,
        mamba_d_state=8, mamba_chunk_size=8,
    )  # fmt: skip
    model = looked_at(case)
    assert model.modules.neurons == "feed_forward.down_proj"
    report = check_family(model)
    assert "returns a tuple" in report["resume"].why
    batch = model.batch(**case.inputs([0, 1]))
    with mechvrp.trace(model, batch) as t:
        after = t.resid_post[1].save()
        before = t.resid_pre[2].save()
    assert torch.equal(after, before)
    edit = mechvrp.zero("resid_post", layer=1)
    with mechvrp.trace(model, batch) as t:
        t.apply(edit)
        zeroed = t.resid_pre[2].save()
    assert not zeroed.any()
    assert [group.mode for group in plan(model, batch, [edit]).groups] == ["full"]


def test_decoders_that_count_their_positions_behind_the_blocks_are_swept_whole():
    case = llava("codegen", n_embd=32, n_layer=3, n_head=4, rotary_dim=4, n_positions=256)
    model = looked_at(case)
    batch = model.batch(**case.inputs([0, 1]))
    edit = mechvrp.zero("mlp_out", layer=1)
    assert [group.mode for group in plan(model, batch, [edit]).groups] == ["full"]
    found = sweep(model, batch, [edit], "logits", progress=False)["logits"].values[0]
    with mechvrp.trace(model, batch) as t:
        t.apply(edit)
        expected = t.logits[:, -1].float().save()
    torch.testing.assert_close(torch.from_numpy(found), expected)


def test_heads_of_another_size_are_not_taken_for_more_heads():
    """Gemma 4: blocks that see everything have larger heads; its config has no one number for all."""

    def config() -> Any:
        import transformers as tf

        own = text(
            "gemma4_text", head_dim=8, global_head_dim=16, hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=VOCAB, num_hidden_layers=6, sliding_window=64,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
            num_kv_shared_layers=3, use_double_wide_mlp=True,
        )  # fmt: skip
        vision = {
            "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 12,
            "num_attention_heads": 2, "num_key_value_heads": 2, "pooling_kernel_size": 2,
            "patch_size": 4, "position_embedding_size": 64,
        }  # fmt: skip
        return tf.Gemma4Config(
            text_config=own, vision_config=vision, audio_config=None, image_token_id=IMAGE,
            video_token_id=4, audio_token_id=5, boi_token_id=BEFORE, eoi_token_id=AFTER,
            boa_token_id=9, eoa_token_index=10,
        )  # fmt: skip

    def encode(seed: int) -> Any:
        y, x = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        place = torch.stack([x, y], -1).view(1, 16, 2)
        given = {"pixel_values": pixels(seed, 1, 16, 48).sigmoid(), "image_position_ids": place}
        return [BEFORE, *[IMAGE] * 4, AFTER], given

    case = Case("gemma4", config, encode, by_token={"mm_token_type_ids": images})
    model = looked_at(case)
    assert (model.n_heads, model.n_kv_heads, model.d_head, model.d_mlp) == (4, 2, 8, 40)
    assert lacks(model, "z") == lacks(model, "pattern") == [2, 5]
    assert "64 values there, where most blocks have 32" in model.family.unavailable("z", 2)
    assert lacks(model, "neurons") == [3, 4, 5]  # twice as wide
    assert lacks(model, "k") == [2, 3, 4, 5]  # the last three have none
    found = mechvrp.cache(model, model.batch(**case.inputs([0])), ["blocks.0.attn.hook_z"])
    assert found["blocks.0.attn.hook_z"].shape[-2:] == (4, 8)


def kosmos() -> Case:
    def config() -> Any:
        import transformers as tf

        own = {
            "vocab_size": VOCAB, "embed_dim": 32, "layers": 3, "ffn_dim": 40, "attention_heads": 4,
            "max_position_embeddings": 128, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
        vision = {k: v for k, v in tower("").items() if k != "model_type"}
        return tf.Kosmos2Config(text_config=own, vision_config=vision, latent_query_num=5)

    return Case("kosmos2", config, classes._one(5), by_token={"image_embeds_position_mask": images})


def test_positions_that_a_model_counts_otherwise_are_left_to_it():
    case = kosmos()
    model = looked_at(case)
    assert not check_family(model)["positions"].available
    given = case.inputs([0, 1])
    batch = model.batch(**given)
    with mechvrp.trace(model, batch) as t:
        found = t.logits[:, -1].save()
    with torch.no_grad():
        expected = model.model(**given, use_cache=False).logits[:, -1]
    torch.testing.assert_close(found, expected)
    assert (
        "counts positions by itself"
        in plan(model, batch, [mechvrp.zero("mlp_out", layer=2)]).why_not
    )


def blind(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    # Positions that begin anew would tell transformers where a prompt does.
    return args, {**kwargs, "attention_mask": None, "position_ids": None}


def masked(_: Any, args: Any, out: Any) -> Any:
    """As Chameleon masks its image tokens."""
    out.logits[..., 5:9] = torch.finfo(out.logits.dtype).min
    return out


@pytest.mark.parametrize("masks", [False, True])
def test_a_model_that_sees_its_padding_takes_no_padded_batch(masks):
    """Beside the lowest number that there is, no difference is large."""
    case = classes.CASES["internvl"]
    plain, hf = case.model(), case.model()
    for one in (plain, hf):
        if masks:
            one.register_forward_hook(masked)
    assert check_family(looked_at(case, plain))["padding"].available
    hf.model.language_model.register_forward_pre_hook(blind, with_kwargs=True)
    model = looked_at(case, hf)
    assert not check_family(model)["padding"].available
    with pytest.raises(UnavailableError, match=r"prompts of different lengths .* one at a time"):
        model.batch(**case.inputs([0, 1]))
    one = model.batch(**case.inputs([1]))
    made = plan(model, one, [mechvrp.zero("mlp_out", layer=2, positions="last")])
    assert [group.mode for group in made.groups] == ["full"]


def test_gaps_of_logits():
    low = torch.finfo(torch.float32).min
    own = torch.tensor([[1.0, -2.0, low, float("-inf")]])
    assert logit_gap(own.clone(), own) == 0
    assert logit_gap(own + torch.tensor([0.5, 0, 0, 0]), own) == 0.25
    for other in ([1.0, low, low, low], [1.0, -2.0, low, low / 2], [1.0, float("nan"), low, low]):
        assert logit_gap(torch.tensor([other]), own) == float("inf")
    assert logit_gap(torch.tensor([[-1e5]]), torch.tensor([[-2e5]])) == 0.5


def test_a_projector_is_what_is_used_not_what_is_equal():
    case = classes.CASES["deepseek_vl"]
    hf = case.model()
    kept: dict[str, Any] = {}
    hf.model.echo = torch.nn.Identity()
    hf.model.aligner.register_forward_hook(lambda _, __, out: kept.update(out=out))

    def echo(*_: Any) -> None:
        hf.model.echo(kept["out"])

    hf.model.language_model.register_forward_pre_hook(echo)
    model = looked_at(case, hf)
    assert model.modules.projector == "model.aligner"


def test_experts_that_take_other_tokens_along_do_not_look_backwards():
    case = llava("gpt_oss", head_dim=8, num_local_experts=2, num_experts_per_tok=1)
    model = looked_at(case)
    assert model.family.attention == "causal"
    assert lacks(model, "pattern") == []  # eager; its sinks are no function's to leave out


def test_two_attentions_have_no_one_pattern():
    model = looked_at(llava("diffllama"))
    assert lacks(model, "pattern") == lacks(model, "z") == [0, 1, 2]
    assert not lacks(model, "attn_out")


def test_a_lens_makes_logits_as_the_model_does():
    """LLaVA over Gemma 2 caps no logits, though the config of its decoder says by what."""
    from mechvrp.reliability.margins import lens_logits

    case = llava("gemma2", head_dim=8)
    model = looked_at(case)
    batch = model.batch(**case.inputs([0, 1]))
    with mechvrp.trace(model, batch) as t:
        last = t.resid_post[2][:, -1].save()
        logits = t.logits[:, -1].save()
    tokens = torch.arange(VOCAB).expand(2, -1)
    torch.testing.assert_close(lens_logits(model, last, tokens), logits)

    hf = case.model()
    twice = hf.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        out = twice(*args, **kwargs)
        out.logits = out.logits * 2
        return out

    hf.forward = forward
    model = looked_at(case, hf)
    with pytest.raises(UnavailableError, match="logits are not what the unembedding makes"):
        lens_logits(model, last, tokens)
    assert "do: read logits" in str(check_family(model))


def test_blocks_over_other_positions_than_the_prompt_s_are_refused():
    import transformers as tf

    vision = {k: v for k, v in tower("").items() if k != "model_type"}
    config = tf.GitConfig(
        vision_config=vision, vocab_size=VOCAB, hidden_size=32, num_hidden_layers=3,
        num_attention_heads=4, intermediate_size=40, max_position_embeddings=128, pad_token_id=PAD,
    )  # fmt: skip
    case = Case("git", lambda: config, lambda s: ([], {"pixel_values": pixels(s, 1, 3, 16, 16)}))
    with pytest.raises(UnsupportedModelError, match=r"given \[3, 29, 32\], not the prompt's"):
        looked_at(case)


def test_blocks_that_run_twice_are_refused():
    case = classes.CASES["internvl"]
    hf = case.model()
    layers = hf.model.language_model.layers
    layers[2] = layers[1]
    with pytest.raises(UnsupportedModelError, match="not each once one after the other"):
        looked_at(case, hf)


def test_a_module_that_was_replaced_is_looked_at_anew():
    case = classes.CASES["internvl"]
    looked_at(case)
    hf = case.model()

    class Halved(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return self.inner(x) / 2

    for layer in hf.model.language_model.layers:
        layer.mlp = Halved(layer.mlp)
    model = looked_at(case, hf)
    assert model.family.unavailable("neurons", 1)


def test_no_traceback_of_others_comes_out(monkeypatch):
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError("of the model's own")

    monkeypatch.setattr("mechvrp.models.structure.family.measure", fails)
    monkeypatch.setattr("mechvrp.models.structure.family._KNOWN", {})
    with pytest.raises(UnsupportedModelError, match="could not be looked at .ZeroDivisionError"):
        looked_at(classes.CASES["internvl"])
