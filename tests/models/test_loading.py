"""Loading: one path for folders, names and models in memory; what is not known is refused."""

from __future__ import annotations

import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, UnsupportedModelError
from mechvrp.models import Family, register_family
from tests.support import tiny


@pytest.mark.parametrize("name", tiny.NAMES)
def test_a_saved_folder_loads_and_answers_alike(name, tmp_path):
    made = mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name))
    made.model.save_pretrained(tmp_path)
    made.processor.save_pretrained(tmp_path)
    if name == "paligemma2":
        with pytest.warns(UserWarning, match="eager"):
            loaded = mechvrp.load(str(tmp_path), device="cpu")
        assert loaded.attn_implementation == "eager"
    else:
        loaded = mechvrp.load(str(tmp_path), device="cpu")
        assert loaded.attn_implementation == "sdpa"
    assert type(loaded.model) is type(made.model)
    for attribute in ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_mlp"):
        assert getattr(loaded, attribute) == getattr(made, attribute)
    a, b = (m.encode(tiny.samples()) for m in (made, loaded))
    assert a.prompts == b.prompts
    with torch.no_grad():
        assert torch.equal(made.model(**a.inputs).logits, loaded.model(**b.inputs).logits)


def test_sizes_come_from_the_weights():
    model = mechvrp.load(tiny.hf_model("paligemma2"))
    assert (model.n_layers, model.d_model, model.n_heads, model.n_kv_heads) == (3, 32, 4, 2)
    assert (model.d_head, model.d_mlp, model.n_vision_layers) == (16, 40, 3)
    assert "paligemma" in repr(model)


def test_dtype_by_name():
    assert mechvrp.load(tiny.hf_model("llava-clip"), dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(InputError, match="no torch dtype"):
        mechvrp.load(tiny.hf_model("llava-clip"), dtype="float7")


def test_attention_of_a_model_in_memory():
    hf = tiny.hf_model("llava-clip")
    assert mechvrp.load(hf).attn_implementation == "sdpa"
    assert mechvrp.load(hf, attn="eager").attn_implementation == "eager"


def test_what_load_refuses(tmp_path):
    with pytest.raises(InputError, match="VLM already"):
        mechvrp.load(mechvrp.load(tiny.hf_model("llava-clip")))
    with pytest.raises(InputError, match="no model named"):
        mechvrp.load("./no/such/folder")
    with pytest.raises(InputError, match="no model named 'tiny-lava'"):
        mechvrp.load("tiny-lava")
    with pytest.raises(InputError, match="could not load"):
        mechvrp.load(str(tmp_path))
    with pytest.raises(InputError, match="not both"):
        mechvrp.load("tiny-llava", device="cpu", device_map="auto")


def saved(folder, name="llava-clip"):
    hf = tiny.hf_model(name)
    hf.save_pretrained(folder)
    tiny.processor(name).save_pretrained(folder)
    return hf


def test_a_folder_with_pickled_weights_is_refused_with_how_to_convert_it(tmp_path):
    hf = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(hf.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(
        InputError, match=r"pytorch_model\.bin, and only safetensors .*use_safetensors"
    ):
        mechvrp.load(tmp_path)
    assert mechvrp.load(tmp_path, dispatch=False).n_layers  # no weights are read
    from transformers import AutoModelForImageTextToText

    # What it says to do is enough.
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, use_safetensors=False)
    loaded.save_pretrained(tmp_path)
    assert mechvrp.load(tmp_path).n_layers


def test_a_folder_without_a_processor_is_refused_with_where_to_get_one(tmp_path):
    tiny.hf_model("llava-clip").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"no processor could be read .*processor=\.\.\."):
        mechvrp.load(tmp_path)
    assert mechvrp.load(tmp_path, processor=tiny.processor("llava-clip")).processor


def test_an_unknown_architecture_is_refused_with_what_is_known():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16))
    with pytest.raises(UnsupportedModelError, match=r"'gpt2'; known: llava, .*register_family"):
        mechvrp.load(model)


def test_a_family_leaves_models_it_does_not_describe_to_their_structure():
    hf = tiny.hf_model("llava-clip")
    hf.config.vision_config.model_type = "pixtral"
    with pytest.raises(UnsupportedModelError, match="'llava-pixtral-llama'.* give its processor"):
        mechvrp.load(hf)


def test_registering_a_family():
    class Mine(Family):
        name = "mine"
        model_types = ("mine",)

        def prompt(self, processor, question, *, task, instruction):
            return question

        def grids(self, model, inputs):
            return []

    from mechvrp.models import families

    before = families.families()
    try:
        register_family(Mine())
        assert families.families()["mine"].name == "mine"
        with pytest.raises(InputError, match="already have a family"):
            register_family(Mine())
        hf = tiny.hf_model("llava-clip")
        hf.config.model_type = "mine"
        del hf.model.multi_modal_projector
        with pytest.raises(UnsupportedModelError, match="multi_modal_projector"):
            mechvrp.load(hf)
    finally:
        families._FAMILIES.clear()
        families._FAMILIES.update(before)


@pytest.mark.parametrize(
    ("name", "task", "ending"),
    [
        ("llava-clip", "vqa", "Q?\nAnswer the question using a single word or phrase. ASSISTANT:"),
        (
            "llava-clip",
            "multiple-choice",
            "Q?\nAnswer with the option's letter from the given choices directly. ASSISTANT:",
        ),
        ("llava-clip", "open-ended", "Q? ASSISTANT:"),
        ("qwen2-vl", "existence", "Q? Please answer yes or no.<|im_end|>"),
        (
            "qwen2-vl",
            "vqa",
            "Q?\nPlease try to answer the question with short words or phrases if possible.<|im_end|>",
        ),
        (
            "qwen2-vl",
            "multiple-choice",
            "Q?\nPlease select the correct answer from the options above.<|im_end|>",
        ),
        ("qwen2-vl", "open-ended", "Q?<|im_end|>"),
        ("paligemma", "multiple-choice", "answer en Q?"),
    ],
)
def test_the_instruction_is_the_task_s(name, task, ending):
    from mechvrp.models import families

    family = families.families()[name.removesuffix("-clip").replace("-", "_")]
    text = family.prompt(tiny.processor(name), "Q?", task=task, instruction=None)
    assert text.replace("\n<|im_start|>assistant\n", "").endswith(ending)


@pytest.mark.parametrize("name", ["llava-clip", "qwen2-vl", "paligemma"])
def test_official_prompts(name):
    model = mechvrp.load(tiny.hf_model(name), processor=tiny.processor(name))
    sample = tiny.samples()[0]
    (official,) = model.encode(sample).prompts
    (bare,) = model.encode(sample, instruction="").prompts
    expected = {
        "llava-clip": (
            "A chat between a curious user and an artificial intelligence assistant. The assistant "
            "gives helpful, detailed, and polite answers to the user's questions. USER: <image>\n"
            "Is there a seven in the image?\nAnswer the question using a single word or phrase. "
            "ASSISTANT:",
            "USER: <image>\nIs there a seven in the image? ASSISTANT:",
        ),
        "qwen2-vl": (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "<|vision_start|><image><|vision_end|>Is there a seven in the image? Please answer yes "
            "or no.<|im_end|>\n<|im_start|>assistant\n",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "<|vision_start|><image><|vision_end|>Is there a seven in the image?<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        "paligemma": ("<image>answer en Is there a seven in the image?",) * 2,
    }[name]
    assert (official, bare) == expected
    model.model.config.mechvrp_instruction = ""
    assert model.encode(sample).prompts == (bare,)
    text = "".join(model.encode(sample).tokens.strings(0))
    if name == "paligemma":
        assert text == "<s>answer en Is there a seven in the image?\n"
