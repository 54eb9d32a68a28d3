"""What a report says of models with and without a family written by hand."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, SiteError, UnavailableError, UnsupportedModelError
from mechvrp.models import check_family
from mechvrp.models.structure.classes import checked_classes
from tests.support import tiny
from tests.support.anyvlm_classes import CASES
from tests.support.family_table import PAGE, page


@pytest.fixture(scope="module", params=["llava-clip", "llava-siglip", "paligemma2", "qwen2.5-vl"])
def both(request):
    """A model by its own family, and the same one by its structure alone."""
    name = request.param
    known = mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name))
    unknown = tiny.hf_model(name)
    unknown.config.model_type = "unheard_of"
    return name, known, mechvrp.load(unknown, processor=tiny.processor(name))


def test_the_structure_agrees_with_families_written_by_hand(both):
    _, known, _ = both
    report = check_family(known)
    assert report.described
    assert report.differences == ()
    assert report.missing == ()


def test_a_model_of_an_unknown_type_with_a_processor_is_used_as_any_other(both):
    name, known, unknown = both
    samples = tiny.samples()
    mine, theirs = known.encode(samples, instruction=""), unknown.encode(samples, instruction="")
    assert unknown.family.name == "unheard_of"
    assert unknown.family.attention == known.family.attention
    assert [t.shapes for t in theirs.tokens.images] == [t.shapes for t in mine.tokens.images]
    batch = unknown.batch(**{k: v for k, v in mine.inputs.items() if k != "position_ids"})
    sites = ["resid_post", "z", "neurons", "projected"]
    expected, found = (
        mechvrp.cache(m, b, sites, positions="image") for m, b in ((known, mine), (unknown, batch))
    )
    for site in found.sites:
        assert torch.allclose(found.flat(site), expected.flat(site), atol=1e-4), (name, site)


def test_a_report_says_what_to_do():
    case = CASES["qwen3_vl_moe"]
    report = check_family(mechvrp.load(case.model(), probe=case.inputs()))
    assert not report["neurons"].available
    assert "edit mlp_out" in report["neurons"].remedy
    assert "neurons" in report.missing
    assert "do: edit mlp_out" in str(report)
    assert "if the pixels are given again" in report["resume"].why
    with pytest.raises(InputError, match="no row 'nothing'"):
        report["nothing"]
    assert report.to_dict()["model"] == "Qwen3VLMoeForConditionalGeneration"


@pytest.mark.parametrize("name", ["llava_next", "gemma3"])
def test_half_precision_hides_nothing(name):
    """Sums are rounded, and yet the writers of the residual stream and the mask are found."""
    case = CASES[name]
    model = mechvrp.load(case.model().to(torch.bfloat16), probe=case.inputs())
    report = check_family(model)
    assert set(report.missing) == set(case.missing)
    assert model.family.attention == case.attention
    assert model.modules.attn_write == case.writes[0]


def test_what_is_missing_is_refused_with_the_reason():
    case = CASES["mllama"]
    model = mechvrp.load(case.model(), probe=case.inputs())
    batch = model.batch(**case.inputs([0, 1]))
    with pytest.raises(SiteError, match="no image positions: no position's embedding depends"):
        batch.tokens.resolve("image")
    with pytest.raises(
        UnavailableError, match=r"blocks\.2\.attn\.hook_q: it has cross_attn\.q_proj"
    ):
        mechvrp.cache(model, batch, "blocks.2.attn.hook_q")
    assert mechvrp.cache(model, batch, "blocks.1.attn.hook_q").sites
    with pytest.raises(UnavailableError, match="no projector"):
        _ = model.modules.projector
    report = check_family(model)
    assert report["q"].layers == (2,)
    assert "scaled" in report["attn_out"].why
    # What is advised is there, in the very block.
    for name in ("q", "k", "v", "pattern", "z", "attn_out", "resid_mid", "mlp_out"):
        assert report[name].remedy.startswith("edit resid_post"), name
    assert "positions" not in report["projected"].remedy + report["image"].remedy

    case = CASES["instructblip"]
    model = mechvrp.load(case.model(), probe=case.inputs())
    batch = model.batch(**case.inputs([0, 1]))
    assert batch.tokens.mask("image").sum() == 10
    with pytest.raises(SiteError, match="have no places on a grid"):
        batch.tokens.patch(0, 0, 0)
    with pytest.raises(UnavailableError, match="no places on a grid"):
        model.family.patch_pixels(model.model, dict(batch.inputs), batch.inputs["pixel_values"], 0)


def test_without_anything_to_run_a_model_is_refused():
    model = CASES["internvl"].model()
    with pytest.raises(UnsupportedModelError, match=r"'internvl'; known: llava.*probe=inputs"):
        mechvrp.load(model)
    one = CASES["internvl"].inputs([0])
    with pytest.raises(InputError, match="two samples"):
        mechvrp.load(model, probe=one)
    with pytest.raises(InputError, match="needs input_ids"):
        mechvrp.load(model, probe={})
    inputs = CASES["internvl"].inputs()
    del inputs["pixel_values"]
    known = mechvrp.load(tiny.hf_model("llava-clip"))
    with pytest.raises(UnavailableError, match="without a processor"):
        check_family(known)


def test_models_without_blocks_or_with_an_encoder_are_refused():
    from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

    inputs = {"input_ids": torch.tensor([[1, 2], [3, 4]])}
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 16}
    with pytest.raises(UnsupportedModelError, match="an encoder and a decoder"):
        mechvrp.load(T5ForConditionalGeneration(T5Config(**sizes)), probe=inputs)
    gpt = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16))
    with pytest.raises(UnsupportedModelError, match=r"no blocks were found .* a list of 1 modules"):
        mechvrp.load(gpt, probe=inputs)


def test_classes_that_were_checked():
    rows = {row.model_type: row for row in checked_classes()}
    assert len(rows) >= 20
    assert rows["gemma3"].attention == "image"
    assert rows["qwen3_vl"].sweeps == "resume, full"
    assert rows["mllama"].grid == "keys of cross attention"
    assert PAGE.read_text() == page(checked_classes()), "run python -m tests.support.family_table"
