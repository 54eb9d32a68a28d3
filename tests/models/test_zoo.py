"""The embedded checkpoint as anyone loads it, and the recipe that trained it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.data.digits import DIGIT_WORDS
from mechvrp.data.scene_layout import draw_scene
from mechvrp.data.scene_questions import TASKS
from mechvrp.data.scenes import load_scenes
from mechvrp.errors import DataError, UnsupportedModelError
from mechvrp.models import zoo
from mechvrp.models.zoo.corpus import questions, whole_words
from mechvrp.models.zoo.evaluate import answers
from mechvrp.models.zoo.language import training_questions
from mechvrp.models.zoo.packing import Branch, pack_branches
from mechvrp.models.zoo.phase import step_rng
from mechvrp.models.zoo.recipe import Recipe
from mechvrp.models.zoo.sight import token_labels
from mechvrp.models.zoo.tiny_llava import TinyLlava
from mechvrp.models.zoo.trainer import train

MINIATURE = Recipe(
    sight_steps=2,
    sight_batch=2,
    language_steps=3,
    language_batch=2,
    stages=((1,),),
    gate=0.0,
    gate_every=1,
    gate_scenes=2,
    warmup=1,
    save_every=1,
)


@pytest.fixture(scope="module")
def llava():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    path = zoo.folder("tiny-llava")
    model = AutoModelForImageTextToText.from_pretrained(path).eval()
    return model, AutoProcessor.from_pretrained(path)


def prompt(processor, question):
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    return processor.apply_chat_template([user], add_generation_prompt=True)


# The folder


def test_folder_is_an_ordinary_llava(llava):
    model, processor = llava
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert type(processor).__name__ == "LlavaProcessor"
    assert model.dtype == torch.float32
    assert model.config.mechvrp_instruction == ""
    assert processor.tokenizer.padding_side == "left"
    size = (zoo.folder("tiny-llava") / "model.safetensors").stat().st_size
    assert size < 6e6


def test_names_and_folder_say_what_there_is():
    assert "tiny-llava" in zoo.names()
    with pytest.raises(UnsupportedModelError, match="tiny-llava"):
        zoo.folder("tiny-lava")


def test_the_chat_template_writes_llavas_prompt(llava):
    _, processor = llava
    question = "Is there an eight in the image?"
    text = prompt(processor, question)
    assert text == f"USER: <image>\n{question} ASSISTANT:"
    reply = {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    assert processor.apply_chat_template([user, reply]) == f"{text} yes</s>"


def test_one_image_becomes_144_tokens_behind_one_bos(llava):
    model, processor = llava
    sample = load_scenes(limit=1)[0]
    ids = processor(text=prompt(processor, sample.question), images=sample.image)["input_ids"][0]
    assert sum(i == model.config.image_token_id for i in ids) == 144
    assert [i for i, token in enumerate(ids) if token == model.config.bos_token_id] == [0]


def test_training_record_holds_what_was_measured():
    record = json.loads((zoo.folder("tiny-llava") / "training.json").read_text())
    assert record["family"] == "tiny-llava"
    assert record["finished"]
    assert {*TASKS, "mixed", "random", "popular", "adversarial"} <= record["measured"].keys()
    assert record["measured"]["mixed"]["n"] >= 1000


def test_it_answers_unseen_digits_far_above_chance(llava):
    model, processor = llava
    samples = list(load_scenes(limit=120, seed=77))
    said = answers(model, processor, samples)
    right = {task: [] for task in TASKS}
    for answer, sample in zip(said, samples, strict=True):
        right[sample.task].append(answer == sample.answer)
    assert np.mean([hit for hits in right.values() for hit in hits]) > 0.65
    assert np.mean(right["existence"]) > 0.65
    assert np.mean(right["identification"]) > 0.5
    assert set(said) <= {*DIGIT_WORDS, "yes", "no"}


# The tokenizer


@given(st.text(max_size=40))
def test_any_text_survives_the_tokenizer(llava, text):
    tokenizer = llava[1].tokenizer
    ids = tokenizer.encode(text)
    if not any(special in text for special in tokenizer.all_special_tokens):
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids


def test_every_answer_and_question_word_is_one_token(llava):
    tokenizer = llava[1].tokenizer
    for word in whole_words():
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1, word
    assert {" seven", " yes", " centre"} <= set(whole_words())


# Training sequences


def test_training_prompts_have_the_ids_the_processor_gives(llava):
    _, processor = llava
    family = TinyLlava()
    blank = np.zeros((48, 48, 3), dtype=np.uint8)
    rng = np.random.default_rng(0)
    scene = draw_scene(rng)
    asked = training_questions(scene, rng)
    packed = family.pack(processor, [asked])
    ids = packed.inputs["input_ids"][0]
    visible = packed.inputs["attention_mask"][0, 0]
    for question, at in zip(asked, packed.answers[0].tolist(), strict=True):
        seen = ids[visible[at]].tolist()  # what the position that answers can look at, in order
        assert (
            seen == processor(text=prompt(processor, question.text), images=blank)["input_ids"][0]
        )
        answer = processor.tokenizer(" " + question.answer, add_special_tokens=False)["input_ids"]
        assert packed.targets[0, at : at + len(answer) + 1].tolist() == [
            *answer,
            processor.tokenizer.eos_token_id,
        ]


def test_a_packed_branch_computes_what_its_single_turn_prompt_computes(llava):
    model, processor = llava
    rng = np.random.default_rng(1)
    scene = draw_scene(rng)
    asked = training_questions(scene, rng)
    from mechvrp.data.scene_render import render, render_pixels

    family = TinyLlava()
    packed = family.pack(processor, [asked])
    with torch.no_grad():
        pixels = family.pixels(processor, [render_pixels(scene)])
        many = model(**packed.inputs, **pixels).logits[0, packed.answers[0]]
        inputs = processor(
            text=[prompt(processor, q.text) for q in asked],
            images=[render(scene)] * len(asked),
            padding=True,
            return_tensors="pt",
        )
        alone = model(**inputs).logits[:, -1]
    torch.testing.assert_close(many, alone, atol=2e-4, rtol=1e-4)


@given(st.integers(0, 2**31 - 1), st.integers(1, 9))
def test_training_questions_fit_their_slots_and_are_balanced(seed, crowd):
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, crowd=min(crowd, 7))
    asked = training_questions(scene, rng)
    assert len(asked) == 17
    assert [q.task for q in asked].count("caption") == 1
    polls = [q.answer for q in asked if q.task == "existence"]
    assert polls.count("yes") == polls.count("no") == 2


def test_packing_refuses_what_does_not_fit():
    branch = Branch([5, 6, 7], 2, 1.0)
    with pytest.raises(DataError, match="does not fit a slot of 2"):
        pack_branches([1, 2], [[branch]], [2], pad=0)
    with pytest.raises(DataError, match="1 questions for 2 slots"):
        pack_branches([1, 2], [[branch]], [3, 3], pad=0)


def test_token_labels_mark_the_digits_tokens():
    scene = draw_scene(np.random.default_rng(3), crowd=4)
    labels = token_labels([scene], (12, 12))[0]
    assert set(labels.flatten()) == {*scene.digits, 10}
    for placed in scene.placed:
        rows, columns = np.nonzero(labels == placed.digit)
        assert ({*rows // 4}, {*columns // 4}) == ({placed.cell[0]}, {placed.cell[1]})


# The recipe


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path):
    whole = train(TinyLlava(), MINIATURE, tmp_path / "whole")
    assert whole.finished
    for _ in range(10):
        part = train(TinyLlava(), MINIATURE, tmp_path / "parts", stop_after=1)
        if part.finished:
            break
    else:
        pytest.fail("never finished")
    for (name, a), b in zip(
        whole.model.state_dict().items(), part.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert whole.record["states"] == part.record["states"]
    again = train(TinyLlava(), MINIATURE, tmp_path / "whole")
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            whole.model.state_dict().values(), again.model.state_dict().values(), strict=True
        )
    )


def test_the_recipe_trains_and_keeps_its_hands_off_the_rest(tmp_path):
    state = torch.get_rng_state()
    trained = train(TinyLlava(), MINIATURE, tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    fresh, _ = TinyLlava().build(MINIATURE.seed)
    moved = {
        name.split(".")[1]
        for (name, a), b in zip(
            trained.model.state_dict().items(), fresh.state_dict().values(), strict=True
        )
        if not torch.equal(a, b)
    }
    assert moved == {"vision_tower", "multi_modal_projector", "language_model", "weight"}
    assert trained.record["states"][1]["advanced"] == [1]


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    train(TinyLlava(), MINIATURE, tmp_path, stop_after=1)
    with pytest.raises(DataError, match="another run"):
        train(TinyLlava(), replace(MINIATURE, seed=1), tmp_path)


def test_every_steps_data_is_its_own():
    draws = {
        (phase, step): step_rng(0, phase, step).integers(2**60)
        for phase in ("sight", "language")
        for step in range(3)
    }
    assert len(set(draws.values())) == 6
    assert step_rng(0, "sight", 1).integers(2**60) == draws["sight", 1]


def test_the_corpus_holds_every_question_of_the_dataset():
    known = set(questions())
    assert {s.question for s in load_scenes(n_images=60)} <= known
