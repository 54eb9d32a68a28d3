"""The embedded PaliGemma and Qwen2-VL: what they were taught is what their users run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import mechvrp
from mechvrp.data.digits import DIGIT_WORDS
from mechvrp.data.sample import Sample
from mechvrp.data.scene_layout import draw_scene
from mechvrp.data.scene_questions import TASKS
from mechvrp.data.scene_render import render, render_pixels
from mechvrp.data.scene_sizes import SIZES, resized
from mechvrp.data.scenes import load_scenes
from mechvrp.models import zoo
from mechvrp.models.zoo.corpus import questions, whole_words
from mechvrp.models.zoo.evaluate import answers
from mechvrp.models.zoo.language import training_questions
from mechvrp.models.zoo.native import TRAINING_SIZES, NativeLanguage
from mechvrp.models.zoo.packed_layers import packed_layers
from mechvrp.models.zoo.packing import Branch
from mechvrp.models.zoo.prefix_packing import pack_alone
from mechvrp.models.zoo.recipe import Recipe
from mechvrp.models.zoo.tiny_paligemma import TinyPaliGemma
from mechvrp.models.zoo.tiny_qwen2_vl import TinyQwen2VL
from mechvrp.models.zoo.train import FAMILIES as FAMILIES_BY_NAME
from mechvrp.models.zoo.trainer import train

FAMILIES = (TinyPaliGemma, TinyQwen2VL)

MINIATURE = Recipe(
    sight_steps=1,
    sight_batch=2,
    language_steps=4,
    language_batch=2,
    stages=((1,),),
    gate=0.0,
    gate_every=2,
    gate_scenes=2,
    warmup=1,
    save_every=1,
)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def fresh(request):
    """A family, and its model and processor with fresh weights."""
    family = request.param()
    return family, *family.build(0)


@pytest.fixture(scope="module")
def paligemma():
    family = TinyPaliGemma()
    return family, *family.build(0)


@pytest.fixture(scope="module")
def qwen():
    family = TinyQwen2VL()
    return family, *family.build(0)


def asked_about(scene, seed=1):
    return training_questions(scene, np.random.default_rng(seed))


def prompt(processor, question):
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    return processor.apply_chat_template([user], add_generation_prompt=True)


def encoded(processor, asked, image):
    """What the processor gives for some questions (of a sample or of training) about one image."""
    texts = [q.question if isinstance(q, Sample) else q.text for q in asked]
    inputs = processor(
        text=[prompt(processor, text) for text in texts],
        images=[[image]] * len(asked),
        padding=True,
        return_tensors="pt",
    )
    inputs.pop("labels", None)
    return inputs


def unpadded(inputs, row):
    return inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()


# Tokenizers, prompts, sizes


def test_models_are_small_and_of_the_real_classes(fresh):
    family, model, processor = fresh
    names = {
        "tiny-paligemma": ("PaliGemmaForConditionalGeneration", "PaliGemmaProcessor"),
        "tiny-qwen2-vl": ("Qwen2VLForConditionalGeneration", "Qwen2VLProcessor"),
    }
    assert (type(model).__name__, type(processor).__name__) == names[family.name]
    assert 5e5 < sum(p.numel() for p in model.parameters()) < 1.2e6
    assert model.config.mechvrp_instruction == ""
    assert processor.tokenizer.padding_side == "left"


def test_building_leaves_torchs_random_state_alone(fresh):
    family, model, _ = fresh
    state = torch.get_rng_state()
    again, _ = family.build(0)
    assert torch.equal(state, torch.get_rng_state())
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_every_answer_and_question_word_is_one_token(fresh):
    tokenizer = fresh[2].tokenizer
    for word in whole_words():
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1, word


@pytest.mark.parametrize("text", ["", " seven", "naïve café — 数字 🙂\n\ttab", "answer en <mask>"])
def test_any_text_survives_the_tokenizer(fresh, text):
    tokenizer = fresh[2].tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_paligemmas_prompt_is_the_one_the_library_writes(paligemma):
    _, model, processor = paligemma
    sample = load_scenes(limit=1)[0]
    vlm = mechvrp.load(model, processor=processor)
    batch = vlm.encode([sample])
    inputs = encoded(processor, [sample], sample.image)
    assert batch.inputs["input_ids"].tolist() == inputs["input_ids"].tolist()
    text = processor.tokenizer.decode(unpadded(inputs, 0))
    assert text == "<image>" * 144 + f"<bos>answer en {sample.question}\n"


def test_paligemmas_suffix_is_an_answer_and_the_end(paligemma):
    _, _, processor = paligemma
    sample = load_scenes(limit=1)[0]
    inputs = processor(
        text=["<image>answer en Is there?"], images=[[sample.image]], suffix=[" yes"]
    )
    answer = [processor.tokenizer.convert_tokens_to_ids("Ġyes"), processor.tokenizer.eos_token_id]
    assert inputs["input_ids"][0][-2:] == answer
    assert sum(inputs["token_type_ids"][0]) == 2


def test_qwens_prompt_is_the_one_the_library_writes(qwen):
    _, model, processor = qwen
    sample = load_scenes(limit=1)[0]
    batch = mechvrp.load(model, processor=processor).encode([sample])
    inputs = encoded(processor, [sample], sample.image)
    assert batch.inputs["input_ids"].tolist() == inputs["input_ids"].tolist()
    assert processor.tokenizer.decode(unpadded(inputs, 0)) == (
        "<|im_start|>user\n<|vision_start|>"
        + "<|image_pad|>" * 64
        + f"<|vision_end|>{sample.question}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_qwens_template_writes_whole_conversations(qwen):
    processor = qwen[2]
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
    ]
    assert processor.apply_chat_template(talk) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Is there?<|im_end|>\n"
        "<|im_start|>assistant\n yes<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("size", "grid"), [((48, 48), (8, 8)), ((48, 72), (8, 12)), ((84, 84), (14, 14))]
)
def test_qwens_processor_keeps_native_resolution(qwen, size, grid):
    family, model, processor = qwen
    image = Image.fromarray(resized(render_pixels(draw_scene(np.random.default_rng(0))), size))
    inputs = encoded(processor, asked_about(draw_scene(np.random.default_rng(0)))[:1], image)
    assert inputs["image_grid_thw"].tolist() == [[1, 2 * grid[0], 2 * grid[1]]]
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == grid[0] * grid[1]
    assert family.at(size).grid == grid


def test_qwens_training_sizes_take_64_to_196_tokens():
    tokens = [np.prod(TinyQwen2VL().at(size).grid) for size in SIZES]
    assert (min(tokens), max(tokens)) == (64, 196)
    assert len({rows / columns for rows, columns in SIZES}) == 3
    assert tuple(dict.fromkeys(TRAINING_SIZES)) == SIZES


# Training sequences


@pytest.mark.parametrize("size", [(48, 48), (72, 48)])
def test_qwens_packed_branches_have_the_processors_ids_and_positions(qwen, size):
    family, model, processor = qwen
    family = family.at(size)
    scene = draw_scene(np.random.default_rng(3))
    asked = asked_about(scene)
    image = Image.fromarray(resized(render_pixels(scene), size))
    inputs = encoded(processor, asked, image)
    true, _ = model.model.get_rope_index(
        **{
            k: inputs[k]
            for k in ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        }
    )
    packed = family.pack(processor, [asked])
    visible = packed.inputs["attention_mask"][0, 0]
    for row, (question, at) in enumerate(zip(asked, packed.answers[0].tolist(), strict=True)):
        seen = visible[at]
        assert packed.inputs["input_ids"][0][seen].tolist() == unpadded(inputs, row)
        real = inputs["attention_mask"][row].bool()
        assert packed.inputs["position_ids"][:, 0, seen].equal(true[:, row, real])
        ids = processor.tokenizer(f" {question.answer}", add_special_tokens=False)["input_ids"]
        taught = packed.targets[0, at : at + len(ids) + 1].tolist()
        assert taught == [*ids, processor.tokenizer.eos_token_id]


@pytest.mark.parametrize("size", [(48, 48), (48, 72)])
def test_a_packed_branch_of_qwen_computes_what_its_prompt_computes(qwen, size):
    family, model, processor = qwen
    family = family.at(size)
    scene = draw_scene(np.random.default_rng(4))
    asked = asked_about(scene)
    packed = family.pack(processor, [asked])
    image = Image.fromarray(resized(render_pixels(scene), size))
    with torch.no_grad():
        pixels = family.pixels(processor, [render_pixels(scene)])
        many = model(**packed.inputs, **pixels).logits[0, packed.answers[0]]
        alone = model(**encoded(processor, asked, image)).logits[:, -1]
    torch.testing.assert_close(many, alone, atol=2e-5, rtol=1e-4)


def test_paligemmas_packed_branches_have_the_processors_ids(paligemma):
    family, _, processor = paligemma
    asked = asked_about(draw_scene(np.random.default_rng(5)))
    inputs = encoded(processor, asked, render(draw_scene(np.random.default_rng(5))))
    packed = family.pack(processor, [asked])
    visible = packed.inputs["attention_mask"][0, 0]
    for row, (question, at) in enumerate(zip(asked, packed.answers[0].tolist(), strict=True)):
        assert packed.inputs["input_ids"][0][visible[at]].tolist() == unpadded(inputs, row)
        places = packed.inputs["position_ids"][0][visible[at]].tolist()
        assert places == list(range(1, len(places) + 1))
        ids = processor.tokenizer(f" {question.answer}", add_special_tokens=False)["input_ids"]
        taught = packed.targets[0, at : at + len(ids) + 1].tolist()
        assert taught == [*ids, processor.tokenizer.eos_token_id]


def test_a_question_alone_computes_what_its_prompt_computes(paligemma):
    family, model, processor = paligemma
    scene = draw_scene(np.random.default_rng(6))
    asked = asked_about(scene)
    with torch.no_grad():
        true = model(**encoded(processor, asked, render(scene))).logits[:, -1]
        pixels = family.pixels(processor, [render_pixels(scene)])
        packed = family.alone(processor, asked)
        seen = {"image": family.encoded(model, pixels, len(asked))}
        logits = model(**packed.inputs, mm_encoder_outputs=seen).logits
        alone = logits[torch.arange(len(asked)), packed.answers[:, 0]]
        torch.testing.assert_close(alone, true, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES_BY_NAME)
@pytest.mark.parametrize("single", [False, True], ids=["branches", "single"])
def test_packed_layers_compute_what_the_models_own_do(name, single):
    family = FAMILIES_BY_NAME[name]()
    model, processor = family.build(0)
    rng = np.random.default_rng(4)
    scenes = [draw_scene(rng, crowd=crowd) for crowd in (1, 6)]
    asked = [training_questions(scene, rng) for scene in scenes]
    asked = [row[:1] if single else row for row in asked]
    if single and hasattr(family, "alone"):  # where the image sees the question
        packed = family.alone(processor, [q for row in asked for q in row])
    else:
        packed = family.pack(processor, asked)
    pixels = family.pixels(processor, [render_pixels(scene) for scene in scenes])
    wanted = packed.targets >= 0

    def run():
        model.zero_grad()
        hidden = model.model(**packed.inputs, **pixels, use_cache=False).last_hidden_state
        hidden = hidden[wanted] if hidden.shape[:2] == wanted.shape else hidden[0]
        hidden.square().mean().backward()
        return hidden, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    hidden, gradients = run()
    with packed_layers(model.model.language_model.layers, packed):
        fast, its_gradients = run()
    assert fast.shape == hidden.shape == (int(wanted.sum()), hidden.shape[-1])
    torch.testing.assert_close(fast, hidden, atol=1e-5, rtol=1e-4)
    assert its_gradients.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(its_gradients[key], gradient, atol=1e-6, rtol=1e-3, msg=key)
    assert not any("forward" in vars(layer) for layer in model.model.language_model.layers)


def test_questions_apart_do_not_see_each_other_nor_does_the_image(paligemma):
    """Each of many branches computes what it does as the only branch of an image that sees none."""
    family, model, processor = paligemma
    scene = draw_scene(np.random.default_rng(6))
    asked = asked_about(scene)
    pixels = family.pixels(processor, [render_pixels(scene)])
    with torch.no_grad():
        seen = {"image": family.encoded(model, pixels, 1)}
        packed = family.pack(processor, [asked])
        many = model(**packed.inputs, mm_encoder_outputs=seen).logits[0, packed.answers[0]]
        for row in (0, 7, 16):
            packed = family.pack(processor, [[asked[row]]])
            one = model(**packed.inputs, mm_encoder_outputs=seen).logits[0, packed.answers[0]]
            torch.testing.assert_close(many[row], one[0], atol=2e-5, rtol=1e-4)
    visible = packed.inputs["attention_mask"][0, 0]
    assert bool(visible[:145, :145].all())
    assert not bool(visible[:145, 145:].any())


def test_the_answer_of_a_row_is_hidden_from_its_prompt():
    branch = Branch([5, 6, 7, 8], 2, 1.0)
    packed = pack_alone([1, 2], [branch, Branch([5, 6, 7], 2, 1.0)], pad=0)
    mask = packed.inputs["attention_mask"][0, 0].int().tolist()
    assert mask == [
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1],
    ]
    assert packed.targets.tolist() == [
        [-100, -100, -100, 7, 8, -100],
        [-100, -100, -100, 7, -100, -100],
    ]


# The recipe


def test_an_interrupted_run_ends_with_the_same_weights(fresh, tmp_path):
    family = type(fresh[0])
    whole = train(family(), MINIATURE, tmp_path / "whole")
    for _ in range(10):
        part = train(family(), MINIATURE, tmp_path / "parts", stop_after=2)
        if part.finished:
            break
    else:
        pytest.fail("never finished")
    for (name, a), b in zip(
        whole.model.state_dict().items(), part.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert whole.record["states"] == part.record["states"]
    assert whole.record["states"][1]["advanced"] == [2]


def test_the_language_phase_leaves_the_tower_alone(fresh, tmp_path):
    family = type(fresh[0])()
    model = train(family, MINIATURE, tmp_path, stop_after=1).model
    before = {k: v.clone() for k, v in family.tower(model).state_dict().items()}
    trained = train(family, MINIATURE, tmp_path).model
    after = family.tower(trained).state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_slowed_tower_learns_with_its_own_rate():
    family = TinyQwen2VL()
    recipe = replace(MINIATURE, tower_rate=0.25, sight_share=0.5)
    phase = NativeLanguage(recipe, family, *family.build(0))
    rates = {id(p): g["share"] for g in phase.optimizer.param_groups for p in g["params"]}
    tower = {id(p) for p in family.tower(phase.model).parameters()}
    assert {rates[i] for i in tower} == {0.25}
    assert {share for i, share in rates.items() if i not in tower} == {1.0}
    before = {k: v.clone() for k, v in phase.model.state_dict().items()}
    phase.step(0)
    moved = {k for k, v in phase.model.state_dict().items() if not torch.equal(v, before[k])}
    assert any(".blocks." in name for name in moved)
    assert {g["lr"] / g["share"] for g in phase.optimizer.param_groups} == {phase.learning_rate(0)}
    assert not phase.model.model.language_model.layers[0]._forward_hooks


def test_the_loss_beside_is_the_sight_phases_own():
    """On one batch: loss with the share minus loss without it is the share of the sight loss."""
    family = TinyQwen2VL()
    without, with_it = (
        NativeLanguage(replace(MINIATURE, sight_share=share), family, *family.build(0))
        for share in (0.0, 0.5)
    )
    losses = [phase.loss(np.random.default_rng(4)).item() for phase in (without, with_it)]
    rng = np.random.default_rng(4)
    size = TRAINING_SIZES[int(rng.integers(len(TRAINING_SIZES)))]
    scenes = with_it._scenes(rng, "train", MINIATURE.language_batch, MINIATURE.wild)
    here = family.at(size)
    features, words = here.compared(
        with_it.model, here.pixels(with_it.processor, [render_pixels(s) for s in scenes])
    )
    expected = 0.5 * with_it.matching(features, scenes, words).item()
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", FAMILIES_BY_NAME)
def test_attention_starts_by_matching(name):
    model, _ = FAMILIES_BY_NAME[name]().build(0)
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        assert torch.equal(attention.k_proj.weight, attention.q_proj.weight)
        assert not torch.equal(attention.v_proj.weight, attention.q_proj.weight)


# The checkpoints


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def checkpoint(request):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    name = request.param.name
    if name not in zoo.names():
        pytest.skip(f"{name} is not trained yet: python -m mechvrp.models.zoo.train {name}")
    path = zoo.folder(name)
    model = AutoModelForImageTextToText.from_pretrained(path).eval()
    return request.param, path, model, AutoProcessor.from_pretrained(path)


def test_folders_are_ordinary_and_small(checkpoint):
    family, path, model, processor = checkpoint
    _, fresh_processor = family().build(0)
    sample = load_scenes(limit=1)[0]
    ours, theirs = (encoded(p, [sample], sample.image) for p in (fresh_processor, processor))
    assert {k: v.tolist() for k, v in ours.items()} == {k: v.tolist() for k, v in theirs.items()}
    assert model.dtype == torch.float32
    assert sum(file.stat().st_size for file in path.iterdir()) < 6e6


def test_training_records_hold_what_was_measured(checkpoint):
    family, path, _, _ = checkpoint
    record = json.loads((path / "training.json").read_text())
    assert record["family"] == family.name
    assert record["finished"]
    measured = record["measured"]
    assert measured["mixed"]["n"] >= 1000
    assert {*TASKS, "random", "popular", "adversarial"} <= measured.keys()


def test_they_answer_unseen_digits_far_above_chance(checkpoint):
    _, _, model, processor = checkpoint
    samples = list(load_scenes(limit=120, seed=77))
    said = answers(model, processor, samples)
    right = {task: [] for task in TASKS}
    for answer, sample in zip(said, samples, strict=True):
        right[sample.task].append(answer == sample.answer)
    assert np.mean([hit for hits in right.values() for hit in hits]) > 0.65
    assert np.mean(right["identification"]) > 0.6
    assert set(said) <= {*DIGIT_WORDS, "yes", "no"}


def test_the_library_loads_them_by_name(checkpoint):
    family, _, model, _ = checkpoint
    vlm = mechvrp.load(family.name)
    samples = list(load_scenes(limit=3))
    batch = vlm.encode(samples)
    with torch.no_grad(), mechvrp.trace(vlm, batch) as t:
        logits = t.logits.save()
    assert torch.isfinite(logits).all()
    assert vlm.n_layers == model.config.get_text_config().num_hidden_layers
    assert {s.question for s in samples} <= set(questions())
