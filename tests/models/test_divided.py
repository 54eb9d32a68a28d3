"""Models that one device does not hold give what the whole model gives, or say why not."""

from __future__ import annotations

import re

import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, UnavailableError, UnsupportedModelError
from tests.support import tiny
from tests.support.anyvlm_classes import CASES
from tests.support.processes import in_processes, saved

#: Every component that can be read and edited, and whether a sweep's edits of it are of some heads or units.
SITES = (
    "embed", "vision_resid_post", "projected", "resid_pre", "q", "k", "v", "pattern", "z", "attn_out",
    "resid_mid", "neurons", "mlp_out", "resid_post", "logits",
)  # fmt: skip


def edits() -> dict[str, object]:
    """One at every kind of site of the blocks; heads and neurons that belong to the second half among them."""
    found = {
        "neurons": mechvrp.zero("neurons", layer=1, positions="last", units=[1, 2, 35]),
        "z": mechvrp.zero("z", layer=1, heads=3, positions="last"),
        "q": mechvrp.scale("q", -50.0, layer=1, heads=3, positions="last"),
        "k": mechvrp.scale("k", -50.0, layer=1, heads=1, positions="image"),
        "v": mechvrp.scale("v", 0.5, layer=1, heads=1),
        "steered": mechvrp.steer("resid_pre", torch.linspace(-1, 1, 32), 2.0, layer=1),
        "pattern": mechvrp.knockout(1, query="last", key="image", heads=3),
        "heads": mechvrp.knockout(1, query=-1, key="image"),
        "embed": mechvrp.scale("embed", 0.5, positions="last"),
    }
    for name in ("attn_out", "resid_mid", "mlp_out", "resid_post"):
        found[name] = mechvrp.scale(name, 0.5, layer=0)
    return found


def check(whole, divided, tolerance: float, without: str = "") -> None:
    """Reads, edits in a trace and in a sweep, assigned values and answers are those of the whole model."""
    batch, own = (m.encode(tiny.samples()) for m in (whole, divided))
    for site in [s for s in SITES if s != without]:
        positions = "last" if site == "pattern" else "all"
        a = mechvrp.cache(whole, batch, site, positions=positions)
        b = mechvrp.cache(divided, own, site, positions=positions)
        for name in a:
            torch.testing.assert_close(b.flat(name), a.flat(name), atol=tolerance, rtol=0)
    variants = edits()
    variants.pop(without, None)
    swept = [
        mechvrp.sweep(m, b, variants, ["logits", "attention"], progress=False)
        for m, b in ((whole, batch), (divided, own))
    ]
    for name in ("logits", "attention"):
        assert abs(swept[0][name] - swept[1][name]).max() <= tolerance
    # What the edits do is far above what rounding does, so agreement is no accident.
    moved = abs(swept[0].logits - swept[0].base_logits).max(["example", "vocab"])
    assert float(moved.min()) > 1e-4, (
        moved
    )  # edits do far more than rounding: agreement is no accident
    given = torch.linspace(-1, 1, whole.d_model).expand(3, batch.tokens.length, -1).contiguous()
    for edit in (variants["pattern"], variants["neurons"]):
        logits = []
        for m, b in ((whole, batch), (divided, own)):
            with mechvrp.trace(m, b) as t:
                t.resid_post[0] = given
                t.apply(edit)
                logits.append(t.logits.save())
        torch.testing.assert_close(logits[1], logits[0], atol=tolerance, rtol=0)
    assert whole.generate(batch, max_new_tokens=3) == divided.generate(own, max_new_tokens=3)


LAYERS = "model.language_model.layers"
OTHERS = ("embed_tokens", "norm", "rotary_emb")
TOWERS = {"llava-clip": ("vision_tower", "multi_modal_projector"), "qwen2-vl": ("visual",)}


def in_part_on_disk(name: str, *disk: str) -> dict[str, str]:
    parts = [f"model.{part}" for part in TOWERS[name]] + ["lm_head"]
    parts += [f"model.language_model.{part}" for part in OTHERS]
    parts += [f"{LAYERS}.{i}" for i in range(3)]
    return {part: "disk" if part.endswith(disk) else "cpu" for part in parts}


@pytest.mark.parametrize(
    ("name", "disk"),
    [
        ("llava-clip", ("layers.1", "layers.2")),
        ("qwen2-vl", ("visual", "embed_tokens", "layers.0")),
    ],
)
def test_layers_on_disk_change_nothing(name, disk, tmp_path):
    folder = saved(name, tmp_path)
    divided = mechvrp.load(folder, device_map=in_part_on_disk(name, *disk))
    assert any(p.is_meta for p in divided.model.parameters())
    check(mechvrp.load(folder, device="cpu"), divided, 0.0)


def test_a_whole_model_on_disk_runs_and_its_weights_are_refused(tmp_path):
    folder = saved("llava-clip", tmp_path)
    whole = mechvrp.load(folder, device="cpu")
    divided = mechvrp.load(folder, device_map={"": "disk"})
    assert all(p.is_meta for p in divided.model.parameters())
    batch, own = (m.encode(tiny.samples()) for m in (whole, divided))
    a, b = (mechvrp.cache(m, x, "resid_post") for m, x in ((whole, batch), (divided, own)))
    assert torch.equal(a.flat("blocks.2.hook_resid_post"), b.flat("blocks.2.hook_resid_post"))
    with pytest.raises(UnavailableError, match="not in memory"):
        b.to_transformer_lens(divided)
    with pytest.raises(UnavailableError, match="not in memory"):
        mechvrp.models.fingerprint(divided)


def test_a_model_found_by_structure_is_the_same_on_disk(tmp_path):
    case = CASES["internvl"]
    case.model().save_pretrained(tmp_path)
    given = {"processor": tiny.processor("llava-clip"), "probe": case.inputs()}
    whole = mechvrp.load(tmp_path, device="cpu", **given)
    divided = mechvrp.load(tmp_path, device_map={"": "disk"}, **given)
    assert divided.family.facts.reasons == whole.family.facts.reasons
    variants = [
        mechvrp.scale("mlp_out", 0.5, layer=2, positions="last"),
        mechvrp.zero("projected", positions="image"),
    ]
    found, gradients = [], []
    for model in (whole, divided):
        batch = model.batch(**case.inputs([2, 1]))
        found.append(mechvrp.sweep(model, batch, variants, "logits", progress=False))
        with mechvrp.trace(model, batch, grad=True) as t:
            hidden = t.resid_post[1]
            loss = t.logits[:, -1, 5].sum()
            with loss.backward():
                gradients.append(hidden.grad.save())
    assert found[0].drop_attrs().equals(found[1].drop_attrs())
    assert found[0].attrs["token_layers"] == found[1].attrs["token_layers"]
    assert torch.equal(*gradients)
    assert gradients[0].any()


def in_two_processes(rank: int, folder: str, attn: str) -> None:
    from transformers.distributed import DistributedConfig

    whole = mechvrp.load(folder, device="cpu", attn=attn)
    divided = mechvrp.load(folder, attn=attn, distributed_config=DistributedConfig(tp_plan="auto"))
    weight = divided.model.get_submodule(f"{LAYERS}.0.mlp.down_proj").weight
    assert weight.to_local().shape == (32, 20)  # half of the neurons are here
    check(whole, divided, 2e-6, without="embed")
    batch = divided.encode(tiny.samples())
    with pytest.raises(
        UnavailableError, match="hook_embed cannot be read .* use resid_pre of layer 0"
    ):
        mechvrp.cache(divided, batch, "embed")
    with pytest.raises(UnavailableError, match=re.escape("(tensor parallelism)")):
        mechvrp.trace(divided, batch, grad=True)
    acts = mechvrp.cache(divided, batch, ["resid_pre", "resid_post", "z"], positions="all")
    theirs = mechvrp.cache(whole, batch, ["resid_pre", "resid_post", "z"], positions="all")
    a, b = acts.to_transformer_lens(divided), theirs.to_transformer_lens(whole)
    torch.testing.assert_close(a.stack_head_results(3), b.stack_head_results(3), atol=2e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "attn"), [("llava-clip", "sdpa"), ("qwen2-vl", "eager")])
def test_layers_divided_between_processes(name, attn, tmp_path):
    in_processes(in_two_processes, saved(name, tmp_path), attn)


def by_structure(rank: int, folder: str) -> None:
    from transformers.distributed import DistributedConfig

    from mechvrp.models.placing import is_sharded
    from mechvrp.models.structure import family

    case = CASES["idefics3"]
    given = {"processor": tiny.processor("llava-clip"), "probe": case.inputs()}
    whole = mechvrp.load(folder, device="cpu", **given)
    family._KNOWN.clear()
    divided = mechvrp.load(folder, distributed_config=DistributedConfig(tp_plan="auto"), **given)
    assert is_sharded(divided.model)
    assert divided.family.facts.reasons == whole.family.facts.reasons
    edits = [mechvrp.scale("mlp_out", 0.5, layer=2, positions="last"), mechvrp.knockout(1)]
    found = []
    for model in (whole, divided):
        batch = model.batch(**case.inputs([2, 1]))
        acts = mechvrp.cache(model, batch, ["z", "neurons", "q"], positions="all")
        swept = mechvrp.sweep(model, batch, edits, "logits", progress=False)
        found.append([*(acts.flat(site) for site in acts), torch.tensor(swept["logits"].values)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, atol=5e-6, rtol=0)


@pytest.mark.slow
def test_a_model_found_by_structure_divided_between_processes(tmp_path):
    CASES["idefics3"].model().save_pretrained(tmp_path)
    in_processes(by_structure, str(tmp_path))


def three_do_not_divide(rank: int, folder: str) -> None:
    from transformers.distributed import DistributedConfig

    with pytest.raises(UnsupportedModelError, match="4 heads .* do not divide between 3"):
        mechvrp.load(folder, distributed_config=DistributedConfig(tp_plan="auto"))


@pytest.mark.slow
def test_uneven_parts_are_refused(tmp_path):
    in_processes(three_do_not_divide, saved("llava-clip", tmp_path), world=3)


def test_placements_that_exclude_each_other():
    with pytest.raises(InputError, match="neither device nor device_map"):
        mechvrp.load("tiny-llava", device="cpu", distributed_config=object())
    with pytest.raises(InputError, match="this model is loaded"):
        mechvrp.load(tiny.hf_model("llava-clip"), distributed_config=object())
