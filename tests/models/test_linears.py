"""Adapted and quantised linear maps: the same sites, and weights that are all that the map multiplies by."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mechvrp
from mechvrp.errors import InputError, UnavailableError, UnsupportedModelError
from mechvrp.models.linears import is_linear, outermost_linears, weight_of
from mechvrp.reliability.margins import logit_margins
from mechvrp.tracing import Site
from tests.support import anyvlm_classes as classes


class Adapted(nn.Module):
    """A LoRA layer as PEFT makes it: ``weight`` is only that of the layer inside."""

    def __init__(self, inner: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base_layer = inner
        self.in_features, self.out_features = inner.in_features, inner.out_features
        self.lora_A = nn.Linear(inner.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, inner.out_features, bias=False)

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 0.5 * self.lora_B(self.lora_A(x))

    def merged(self) -> nn.Linear:
        plain = copy.deepcopy(self.base_layer)
        with torch.no_grad():
            plain.weight += 0.5 * self.lora_B.weight @ self.lora_A.weight
        return plain


class Whole(nn.Module):
    """A linear map that keeps its weight to itself."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = inner.in_features, inner.out_features
        self.own, self.bias = nn.Parameter(inner.weight.detach()), inner.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.own, self.bias)


class Packed(nn.Module):
    """Eight bits a weight, as GPTQ and AWQ have them: nothing is called ``weight``."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = inner.in_features, inner.out_features
        scale = inner.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("packed", (inner.weight.detach() / scale).round().to(torch.int8))
        self.bias = inner.bias

    def _whole(self) -> Tensor:
        packed: Any = self.packed
        return packed * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self._whole(), self.bias)

    def merged(self) -> nn.Linear:
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        plain.weight = nn.Parameter(self._whole())
        if self.bias is not None:
            plain.bias = self.bias
        return plain


def replaced(hf: Any, kind: type[nn.Module], names: tuple[str, ...]) -> tuple[Any, Any]:
    """The model with linear maps of another kind, and one with plain maps that do the same."""
    torch.manual_seed(3)
    hf = copy.deepcopy(hf)
    for path, module in list(hf.named_modules()):
        if isinstance(module, nn.Linear) and path.rpartition(".")[2] in names:
            hf.set_submodule(path, kind(module))
    plain = copy.deepcopy(hf)
    for path, module in list(plain.named_modules()):
        if isinstance(module, kind):
            plain.set_submodule(path, module.merged())
    return hf.eval(), plain.eval()


PARTS = ("q", "k", "v", "z", "pattern", "attn_out", "neurons", "mlp_out", "resid_post")
KINDS = pytest.mark.parametrize("kind", [Adapted, Packed])


@KINDS
@pytest.mark.parametrize("bias", [True, False])
def test_a_weight_is_all_that_the_map_multiplies_by(kind, bias):
    torch.manual_seed(0)
    model = mechvrp.load("tiny-llava")
    odd = kind(nn.Linear(1500, 7, bias=bias))
    assert is_linear(odd)
    torch.testing.assert_close(
        weight_of(model, odd), odd.merged().weight.detach(), atol=1e-6, rtol=0
    )


def test_a_plain_weight_is_itself_and_none_is_an_error():
    model = mechvrp.load("tiny-llava")
    plain = nn.Linear(3, 2)
    assert weight_of(model, plain).data_ptr() == plain.weight.data_ptr()
    with pytest.raises(UnavailableError, match="has no weight"):
        weight_of(model, nn.SiLU())


@KINDS
@pytest.mark.parametrize("name", ["internvl", "smolvlm"])
def test_sites_are_found_through_them(kind, name):
    case = classes.CASES[name]
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj")
    odd, plain = (
        mechvrp.load(hf, probe=case.inputs()) for hf in replaced(case.model(), kind, names)
    )
    assert odd.modules == plain.modules
    assert (odd.d_head, odd.d_mlp, odd.n_kv_heads) == (plain.d_head, plain.d_mlp, plain.n_kv_heads)
    found = []
    for model in (odd, plain):
        sites = [
            Site(part, layer)
            for part in PARTS
            for layer in range(model.n_layers)
            if not model.family.unavailable(part, layer)
        ]
        assert {site.component for site in sites} == set(PARTS)
        found.append(mechvrp.cache(model, model.batch(**case.inputs()), sites))
    assert set(found[0]) == set(found[1])
    for site in found[0]:
        torch.testing.assert_close(found[0][site], found[1][site], atol=2e-4, rtol=1e-4)


@KINDS
def test_heads_and_lenses_read_the_whole_weight(kind):
    base = mechvrp.load("tiny-llava")
    hfs = replaced(base.model, kind, ("o_proj", "lm_head"))
    samples = mechvrp.data.load("scenes", limit=4)[:4]
    heads, margins = [], []
    for hf in hfs:
        model = mechvrp.load(hf, processor=base.processor)
        acts = mechvrp.cache(model, model.encode(samples), ["resid_pre", "resid_post", "z"])
        heads.append(acts.to_transformer_lens(model).stack_head_results(3))
        margins.append(logit_margins(model, samples).post)
    torch.testing.assert_close(heads[0], heads[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(margins[0], margins[1], atol=1e-3, rtol=0)


def test_small_weights_beside_a_large_bias_in_half_precision():
    torch.manual_seed(0)
    model = mechvrp.load("tiny-llava", dtype="bfloat16")
    inner = nn.Linear(64, 32).to(torch.bfloat16)
    with torch.no_grad():
        inner.weight.normal_(0, 0.02)
        inner.bias.normal_(0, 3)
    whole = Whole(inner)
    assert is_linear(whole)
    torch.testing.assert_close(weight_of(model, whole), inner.weight.detach(), atol=1e-3, rtol=1e-2)


def test_an_mlp_whose_sizes_are_called_alike_is_no_linear_map():
    mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    mlp.in_features = mlp.out_features = 4
    assert not is_linear(mlp)
    table = nn.Embedding(9, 4)
    wrapper = Adapted(nn.Linear(9, 4))
    wrapper.base_layer = table
    assert not is_linear(wrapper)


def test_which_adapters_are_in_use_is_in_the_fingerprint():
    base = mechvrp.load("tiny-llava")
    plain = mechvrp.models.fingerprint(base)
    hf, _ = replaced(base.model, Adapted, ("o_proj",))
    model = mechvrp.load(hf, processor=base.processor)
    found = {plain, mechvrp.models.fingerprint(model)}
    layers: list[Any] = [module for module in hf.modules() if isinstance(module, Adapted)]
    for names in (["default"], ["default", "second"]):
        layers[0].active_adapters = names
        found.add(mechvrp.models.fingerprint(model))
    layers[0].scaling = {"default": 3.0}
    found.add(mechvrp.models.fingerprint(model))
    assert len(found) == 5


def test_packed_weights_are_in_the_fingerprint():
    base = mechvrp.load("tiny-llava")
    hf, _ = replaced(base.model, Packed, ("o_proj",))
    model = mechvrp.load(hf, processor=base.processor)
    before = mechvrp.models.fingerprint(model)
    packed = next(module for module in hf.modules() if isinstance(module, Packed)).packed
    packed[0, 0] += 1
    assert mechvrp.models.fingerprint(model) != before


def test_only_the_outermost_of_nested_maps_counts():
    calls = [
        type("Called", (), {"path": path, "module": module})
        for path, module in [
            ("attn", nn.Identity()),
            ("attn.o_proj.base_layer", nn.Linear(2, 2)),
            ("attn.o_proj.lora_A.default", nn.Linear(2, 1)),
            ("attn.o_proj", Adapted(nn.Linear(2, 2))),
            ("attn.o_projector", nn.Linear(2, 2)),
        ]
    ]
    assert [call.path for call in outermost_linears(calls)] == ["attn.o_proj", "attn.o_projector"]


def test_a_folder_of_adapters_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InputError, match=r"adapters of PEFT.*get_base_model"):
        mechvrp.load(str(tmp_path))


def test_a_wrapper_around_a_model_is_refused_with_what_to_do():
    class PeftModel(nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.base_model, self.config = inner, inner.config

        def get_base_model(self) -> Any:
            return self.base_model

    with pytest.raises(UnsupportedModelError, match=r"get_base_model\(\).*merge_and_unload"):
        mechvrp.load(PeftModel(mechvrp.load("tiny-llava").model))
