"""Batches: a sample answers alike alone and in company, and the token map says what is where."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mechvrp
from mechvrp.errors import (
    DataError,
    InputError,
    NumericalError,
    ShapeError,
    SiteError,
    UnavailableError,
)
from tests.support import tiny


@pytest.fixture(scope="module", params=tiny.NAMES)
def model(request):
    return mechvrp.load(tiny.hf_model(request.param), processor=tiny.processor(request.param))


@pytest.fixture(scope="module")
def llava():
    return mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))


def logits(model, samples):
    batch = model.encode(samples)
    with torch.no_grad():
        return model.model(**batch.inputs).logits[torch.arange(len(batch)), batch.tokens.last]


def test_a_sample_alone_and_in_a_batch(model):
    samples = tiny.samples()
    together = logits(model, samples)
    shuffled = logits(model, samples[::-1]).flip(0)
    for i, sample in enumerate(samples):
        alone = logits(model, [sample])[0]
        scale = alone.abs().max()
        assert (together[i] - alone).abs().max() < 1e-5 * scale
        assert (shuffled[i] - alone).abs().max() < 1e-5 * scale
    # The images matter: the same question about another image gives other logits.
    other = [mechvrp.Sample(tiny.image(9), samples[0].question, task=samples[0].task)]
    assert (logits(model, other)[0] - together[0]).abs().max() > 1e-3


def test_generated_answers_do_not_depend_on_the_batch(model):
    samples = tiny.samples()
    together = model.generate_ids(model.encode(samples), max_new_tokens=4)
    for i, sample in enumerate(samples):
        alone = model.generate_ids(model.encode(sample), max_new_tokens=4)[0]
        assert together[i][: len(alone)].tolist() == alone.tolist()
    assert all(isinstance(a, str) for a in model.generate(model.encode(samples), max_new_tokens=2))


def test_generation_starts_with_the_forward_s_argmax(model):
    samples = tiny.samples()
    first = model.generate_ids(model.encode(samples), max_new_tokens=1)[:, 0]
    assert first.tolist() == logits(model, samples).argmax(-1).tolist()


def test_image_positions_and_grid(model):
    """Perturb one patch in pixels with the tower's mixing cut: one decoder position answers."""
    samples = tiny.samples()
    batch = model.encode(samples)
    for i, tokens in enumerate(batch.tokens.images):
        rows, cols = tokens.shapes[0]
        assert len(tokens) == rows * cols
        placeholders = batch.inputs["input_ids"][i] == model.family.image_token_id(model.model)
        assert tokens.position.tolist() == placeholders.nonzero().flatten().tolist()
        for j in range(len(tokens)):
            row, col = int(tokens.row[j]), int(tokens.col[j])
            position = batch.tokens.patch(i, row, col)
            assert position == int(tokens.position[j])
            assert batch.tokens.grid_of(i, position) == (row, col)
            assert batch.tokens.grid_of(i, position - batch.tokens.length) == (row, col)
    assert batch.tokens.grid_of(0, batch.tokens.length - 1) is None


@pytest.mark.parametrize("name", tiny.NAMES)
def test_a_patch_s_pixels_reach_its_own_position(name):
    hf = tiny.hf_model(name)
    model = mechvrp.load(hf, processor=tiny.processor(name))
    sample = tiny.samples()[1]  # 32 x 16 pixels: two by four tokens in Qwen
    base = model.encode(sample)
    rows, cols = base.tokens.images[0].shapes[0]
    target = (rows - 1, 1)
    size = 8 if name.startswith("qwen") else 4  # pixels a token (with merging)
    picture = sample.image.resize((cols * size, rows * size))
    changed = picture.copy()
    box = [target[1] * size, target[0] * size, (target[1] + 1) * size, (target[0] + 1) * size]
    changed.paste((255, 0, 0), tuple(box))

    # Without attention in the tower nothing mixes patches.
    for path, module in hf.named_modules():
        if path.endswith(("out_proj", "attn.proj")) and ("vision" in path or "visual" in path):
            torch.nn.init.zeros_(module.weight)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    found = []
    for image in (picture, changed):
        batch = model.encode(mechvrp.Sample(image, sample.question))
        with mechvrp.trace(model, batch) as t:
            found.append(t.resid_pre[0][0].save())
    moved = (found[0] != found[1]).any(-1).nonzero().flatten().tolist()
    assert moved == [batch.tokens.patch(0, *target)]


def test_words_and_questions(model):
    samples = tiny.samples()
    tokens = model.encode(samples).tokens
    for i, sample in enumerate(samples):
        text = "".join(tokens.strings(i)[p] for p in tokens.question[i])
        assert text == sample.question
        assert tokens.last[i] == tokens.length - 1
    found = tokens.find("Seven", missing="empty")
    assert "".join(tokens.strings(0)[p] for p in found[0]) == "seven"
    assert [len(f) for f in found[1:]] == [0, 0]
    assert not len(tokens.find("eve", missing="empty")[0])  # whole words only
    with pytest.raises(SiteError, match=r"sample 1 has no word 'seven'"):
        tokens.find("seven")

    alone = model.encode(samples[0]).tokens
    word, tokens_of_image = alone.resolve("word:image")[0], alone.resolve("image")[0]
    assert "".join(alone.strings(0)[p] for p in word) == "image"
    assert not set(word.tolist()) & set(tokens_of_image.tolist())


def test_a_question_that_repeats_its_instruction(llava):
    sample = mechvrp.Sample(tiny.image(0), "word")
    tokens = llava.encode(sample).tokens
    span = tokens.question[0]
    assert "".join(tokens.strings(0)[p] for p in span) == "word"
    after = "".join(tokens.strings(0)[p] for p in range(int(span[-1]) + 1, tokens.length))
    assert after.startswith("\nAnswer the question using a single word")


def test_right_padding_is_refused(model):
    raw = dict(model.encode(tiny.samples()).inputs)
    for key in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"):
        if key in raw:
            raw[key] = raw[key].flip(-1)
    with pytest.raises(DataError, match="padded on the right"):
        model.batch(**raw)


def test_greedy_is_greedy_whatever_the_checkpoint_says():
    model = mechvrp.load(tiny.hf_model("qwen2-vl"), processor=tiny.processor("qwen2-vl"))
    batch = model.encode(tiny.samples())
    plain = model.generate_ids(batch, max_new_tokens=5)
    model.model.generation_config.update(
        repetition_penalty=1.5, do_sample=True, temperature=0.7, top_k=1, num_beams=2
    )
    assert torch.equal(model.generate_ids(batch, max_new_tokens=5), plain)
    assert not torch.equal(
        model.generate_ids(batch, max_new_tokens=5, repetition_penalty=9.0), plain
    )


@pytest.mark.parametrize(
    "said",
    [
        {"num_return_sequences": 3, "do_sample": True},
        {"num_return_sequences": 3, "num_beams": 4, "num_beam_groups": 2},
        {"prompt_lookup_num_tokens": 4},
        {"assistant_early_exit": 1},
        {"dola_layers": "low"},
    ],
    ids=str,
)
def test_ways_of_generating_in_a_checkpoint_do_not_matter(said):
    model = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    batch = model.encode(tiny.samples())
    plain = model.generate_ids(batch, max_new_tokens=5)
    model.model.generation_config.update(**said)
    assert torch.equal(model.generate_ids(batch, max_new_tokens=5), plain)
    sampled = model.generate_ids(batch, max_new_tokens=2, do_sample=True, num_return_sequences=2)
    assert len(sampled) == 2 * len(batch)


def test_stop_strings_of_a_checkpoint_end_answers():
    model = mechvrp.load("tiny-llava")
    batch = model.encode(mechvrp.data.load("scenes", task="existence", limit=1))
    config = model.model.generation_config
    config.suppress_tokens = [config.eos_token_id]  # so that it goes on
    ids = model.generate_ids(batch, max_new_tokens=6)[0]
    stop = model.tokenizer.decode(ids[:1]).strip()
    config.stop_strings = [stop]
    stopped = model.generate_ids(batch, max_new_tokens=6)[0]
    assert (len(ids), len(stopped)) == (6, 1)
    assert torch.equal(model.generate_ids(batch, max_new_tokens=6, stop_strings=None)[0], ids)
    bare = mechvrp.load(model.model)
    with pytest.raises(UnavailableError, match="stop_strings.*without a processor"):
        bare.generate_ids(batch, max_new_tokens=6)


def test_more_answers_than_beams_are_refused_with_what_to_do():
    model = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    batch = model.encode(tiny.samples())
    config = model.model.generation_config
    for answers, beams in ((3, None), (3, 1), (3, 2)):
        config.num_return_sequences, config.num_beams = answers, beams
        with pytest.raises(UnavailableError, match="num_return_sequences = 1"):
            model.generate_ids(batch, max_new_tokens=2)


def test_position_keywords_partition_the_prompt(model):
    tokens = model.encode(tiny.samples()).tokens
    image, text, everything = (tokens.mask(k) for k in ("image", "text", "all"))
    assert torch.equal(image | text, everything)
    assert not (image & text).any()
    assert torch.equal(everything, tokens.attention_mask)
    assert not (tokens.mask("question") & ~text).any()


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_question_is_found_in_its_tokens(llava, text):
    if not text.strip() or "<" in text:  # special tokens spelled out are not a question's text
        return
    tokens = llava.encode(mechvrp.Sample(tiny.image(0), text), instruction="").tokens
    spelled = "".join(tokens.strings(0)[p] for p in tokens.question[0])
    assert text.strip() in spelled


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ("nonsuch", "no word 'nonsuch'"),
        (9999, "has 1.. positions|has .* positions"),
        ([0], "is padding in sample"),
        ([(4, 0)], "outside the 4 x 4 grid"),
        ([], "no positions"),
        ([1.5], "positions must be"),
    ],
)
def test_bad_positions_are_refused(llava, positions, message):
    tokens = llava.encode(tiny.samples(), instruction="").tokens
    with pytest.raises(SiteError, match=message):
        tokens.resolve(positions)


def test_inputs_encoded_elsewhere(model):
    encoded = model.encode(tiny.samples())
    raw = {k: v for k, v in encoded.inputs.items() if k != "position_ids"}
    bare = mechvrp.load(model.model)
    batch = bare.batch(**raw)
    for a, b in zip(batch.tokens.images, encoded.tokens.images, strict=True):
        assert a.position.tolist() == b.position.tolist()
    with mechvrp.trace(bare, batch) as t:
        logits = t.logits.save()
    with torch.no_grad():
        assert torch.equal(logits, model.model(**encoded.inputs).logits)
    with pytest.raises(SiteError, match="encoded elsewhere"):
        batch.tokens.question
    with pytest.raises(UnavailableError, match="without a processor"):
        bare.encode(tiny.samples())


def test_missing_inputs_are_refused(model):
    encoded = model.encode(tiny.samples())
    for key in model.family.required_inputs:
        raw = {k: v for k, v in encoded.inputs.items() if k not in (key, "position_ids")}
        with pytest.raises(InputError, match=key):
            model.batch(**raw)
    with pytest.raises(InputError, match="input_ids"):
        model.batch(pixel_values=encoded.inputs["pixel_values"])
    with pytest.raises(ShapeError, match="batch, pos"):
        model.batch(input_ids=encoded.inputs["input_ids"][0])


def test_a_dropped_image_is_noticed(llava):
    raw = dict(llava.encode(tiny.samples()).inputs)
    with pytest.raises(DataError, match="sample 2 has 16 image tokens"):
        llava.batch(**{**raw, "pixel_values": raw["pixel_values"][:2]})
    more = torch.cat([raw["pixel_values"], raw["pixel_values"][:1]])
    with pytest.raises(DataError, match="1 of 4 images have no tokens"):
        llava.batch(**{**raw, "pixel_values": more})


def test_what_encode_refuses(llava):
    with pytest.raises(InputError, match="empty question"):
        llava.encode(mechvrp.Sample(tiny.image(0), "  "))
    with pytest.raises(InputError, match="image placeholder"):
        llava.encode(mechvrp.Sample(tiny.image(0), "What is <image>?"))
    lone = mechvrp.Sample(tiny.image(0), "\ud800 lone?", image_id="mine")
    with pytest.raises(
        InputError, match=r"image_id='mine'.* does not encode to UTF-8: character 0"
    ):
        llava.encode([mechvrp.Sample(tiny.image(0), "What is \U0001f600?"), lone])
    with pytest.raises(InputError, match="no samples"):
        llava.encode([])
    with pytest.raises(InputError, match="str"):
        llava.encode(["a question"])


def test_an_image_the_processor_refuses_is_named():
    model = mechvrp.load("tiny-qwen2-vl")
    good = mechvrp.data.load("scenes", limit=2)
    thin = mechvrp.Sample(Image.new("RGB", (400, 1)), "How many digits?", "0", image_id="thin")
    with pytest.raises(InputError, match=r"image_id='thin'.*400 x 1 pixels.*aspect ratio"):
        model.encode([*good, thin])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_there_is_no_answer_of_nan(value):
    """The likeliest token of NaN is token 0, which reads as an empty answer."""
    model = mechvrp.load(tiny.hf_model("llava-clip"), processor=tiny.processor("llava-clip"))
    batch = model.encode(tiny.samples())
    model.generate_ids(batch, max_new_tokens=2)
    with torch.no_grad():
        model.model.get_submodule("model.language_model.norm").weight[3] = value
    with pytest.raises(NumericalError, match="NaN or infinite at position .* no answer"):
        model.generate(batch)
