"""Digit scenes: what they promise about determinism, digits, balance, truth and counterfactuals."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvrp.data.digits import DIGIT_WORDS, PARTS, digit_indices
from mechvrp.data.scene_counterfactual import counterfactual_pair
from mechvrp.data.scene_layout import CELL, CELL_NAMES, IMAGE_SIZE, cooccurrence, draw_scene
from mechvrp.data.scene_questions import POLLS, RELATIONS, TASKS, caption, spatial
from mechvrp.data.scene_render import render_pixels
from mechvrp.data.scenes import load_scenes
from mechvrp.errors import DataError

seeds = st.integers(0, 2**31 - 1)


def key(sample):
    return sample.image_id, sample.question, sample.answer, sample.task


def pixels(sample):
    return np.asarray(sample.image).astype(int)


# Digits


def test_parts_of_the_digits_are_disjoint_complete_and_stratified():
    indices = {part: {i for d in range(10) for i in digit_indices(part, d)} for part in PARTS}
    assert sum(map(len, indices.values())) == len(set().union(*indices.values())) == 1797
    for part, share in PARTS.items():
        for digit in range(10):
            size = len(digit_indices(part, digit))
            assert abs(size - share * 180) < 6, (part, digit, size)


def test_evaluation_shows_no_digit_that_training_may_show():
    trained = {i for d in range(10) for i in digit_indices("train", d)}
    for seed in (0, 7):
        shown = {
            split: {
                image
                for sample in load_scenes(split=split, seed=seed, n_images=60)
                for image in sample.meta["digit_images"].values()
            }
            for split in ("mixed", *POLLS, "train")
        }
        assert shown["train"] <= trained
        for split in ("mixed", *POLLS):
            assert not shown[split] & trained


# Determinism and size


@pytest.mark.parametrize("split", ["mixed", *POLLS, "train"])
def test_same_seed_same_dataset_other_seed_another(split):
    first, again = (load_scenes(split=split, n_images=8, seed=3) for _ in range(2))
    assert [key(s) for s in first] == [key(s) for s in again]
    assert all((pixels(a) == pixels(b)).all() for a, b in zip(first, again, strict=True))
    other = load_scenes(split=split, n_images=8, seed=4)
    assert not {s.image_id for s in first} & {s.image_id for s in other}
    assert (pixels(first[0]) != pixels(other[0])).any()


def test_limit_is_a_prefix_and_generates_only_what_it_needs(monkeypatch):
    from mechvrp.data import scenes

    whole = load_scenes(n_images=10)
    made = []
    real = scenes.scene_at
    monkeypatch.setattr(scenes, "scene_at", lambda *a: made.append(a) or real(*a))
    part = load_scenes(n_images=1_000_000, limit=9)
    assert [key(s) for s in part] == [key(s) for s in whole[:9]]
    assert len(made) <= 2


def test_no_pixels_are_drawn_before_an_image_is_asked_for(monkeypatch):
    from mechvrp.data import scene_render

    drawn = []
    real = scene_render.render_pixels
    monkeypatch.setattr(scene_render, "render_pixels", lambda s: drawn.append(s) or real(s))
    sample = load_scenes(limit=5)[4]
    assert not drawn
    image = sample.image
    assert (image.size, image.mode, len(drawn)) == ((IMAGE_SIZE, IMAGE_SIZE), "RGB", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "mixed, random, popular, adversarial, train"),
        ({"task": "vqa"}, "existence, identification, counting, spatial"),
        ({"split": "popular", "task": "counting"}, "existence polls only"),
        ({"task": "spatial", "counterfactual": True}, "existence and identification"),
        ({"limit": 0}, "at least 1"),
        ({"n_images": 0}, "at least 1"),
        ({"seed": -1}, "negative"),
    ],
)
def test_unusable_arguments_say_what_there_is(options, message):
    with pytest.raises(DataError, match=message):
        load_scenes(**options)


# Polls


def test_polls_are_balanced_in_every_image():
    for split in POLLS:
        answers = defaultdict(Counter)
        for sample in load_scenes(split=split, n_images=80):
            answers[sample.image_id][sample.answer] += 1
        assert all(c["yes"] == c["no"] for c in answers.values())
        assert Counter(c["yes"] for c in answers.values())[3] > 40


def test_polls_share_images_and_yes_questions_and_differ_in_no_questions():
    sets = {split: load_scenes(split=split, n_images=60) for split in POLLS}
    for answer in ("yes", "no"):
        asked = [
            {(s.image_id, s.question) for s in sets[split] if s.answer == answer} for split in POLLS
        ]
        if answer == "yes":
            assert asked[0] == asked[1] == asked[2]
        else:
            assert asked[0] != asked[1] != asked[2] != asked[0]
    for samples in zip(*sets.values(), strict=True):
        assert len({s.image_id for s in samples}) == 1
        assert all((pixels(samples[0]) == pixels(s)).all() for s in samples[1:])


def test_the_mixed_split_shows_the_same_images_as_the_polls():
    mixed = {s.image_id: s for s in load_scenes(n_images=5)}
    for sample in load_scenes(split="adversarial", n_images=5):
        assert (pixels(sample) == pixels(mixed[sample.image_id])).all()


def test_absent_digits_are_more_frequent_in_popular_and_more_companionable_in_adversarial():
    """Measured on the scenes themselves, not on the table that chose them."""
    scenes = {s.image_id: set(s.meta["cells"]) for s in load_scenes(n_images=400, seed=11)}
    frequency = Counter(d for digits in scenes.values() for d in digits)
    together = Counter((a, b) for digits in scenes.values() for a in digits for b in digits)
    share, company = {}, {}
    for split in POLLS:
        by_image = defaultdict(lambda: ([], []))
        for s in load_scenes(split=split, n_images=200, seed=12):
            if s.answer == "no":
                asked, present = s.meta["digit"], s.meta["cells"]
                shares, companies = by_image[s.image_id]
                shares.append(frequency[asked] / len(scenes))
                companies.append(np.mean([together[asked, p] / frequency[p] for p in present]))
        share[split] = np.array([np.mean(shares) for shares, _ in by_image.values()])
        company[split] = np.array([np.mean(companies) for _, companies in by_image.values()])

    def clearly_above(first, second):  # paired by image: both lists follow the same images
        difference = first - second
        return difference.mean() > 4 * difference.std() / np.sqrt(len(difference))

    assert clearly_above(share["popular"], share["random"])
    assert clearly_above(company["adversarial"], company["random"])
    assert clearly_above(company["adversarial"], company["popular"])


def test_cooccurrence_is_a_symmetric_table_of_shares():
    shares = cooccurrence()
    assert shares.shape == (10, 10)
    assert (shares == shares.T).all()
    assert (shares <= np.minimum.outer(shares.diagonal(), shares.diagonal())).all()
    assert shares.diagonal().max() > 1.5 * shares.diagonal().min()


# Truth


def check_answer(sample):
    """The answer, worked out from ``meta`` alone."""
    meta = sample.meta
    cells = meta["cells"]
    if sample.task == "existence":
        assert meta["digit"] in sample.question
        return "yes" if meta["digit"] in cells else "no"
    if sample.task == "identification":
        (word,) = (w for w, cell in cells.items() if cell == meta["cell"])
        assert CELL_NAMES[meta["cell"][0]][meta["cell"][1]] in sample.question
        return word
    if sample.task == "counting":
        return DIGIT_WORDS[len(cells)]
    (r1, c1), (r2, c2) = cells[meta["digit"]], cells[meta["other"]]
    truth = {"left of": c1 < c2, "right of": c1 > c2, "above": r1 < r2, "below": r1 > r2}
    assert (r1 != r2) if meta["relation"] in ("above", "below") else (c1 != c2)
    return "yes" if truth[meta["relation"]] else "no"


@pytest.mark.parametrize("split", ["mixed", *POLLS, "train"])
def test_answers_follow_from_meta(split):
    for sample in load_scenes(split=split, n_images=50, seed=5):
        assert sample.answer == check_answer(sample)
        assert sample.meta["crowd"] == len(sample.meta["cells"]) == len(sample.meta["boxes"])


def test_mixed_holds_all_tasks_and_task_selects():
    data = load_scenes(n_images=100)
    assert {s.task for s in data} == set(TASKS)
    for task in TASKS:
        chosen = load_scenes(n_images=100, task=task)
        assert [key(s) for s in chosen] == [key(s) for s in data if s.task == task]
    for task in ("existence", "spatial"):
        yes = np.mean([s.answer == "yes" for s in data if s.task == task])
        assert 0.35 < yes < 0.65


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(0, 9), st.floats(0, 2))
def test_any_scene_keeps_its_digits_apart_and_inside_their_cells(seed, crowd, wild):
    scene = draw_scene(np.random.default_rng(seed), crowd=crowd, wild=wild)
    assert len(set(scene.digits)) == len({p.cell for p in scene.placed}) == crowd
    for placed in scene.placed:
        left, top, right, bottom = placed.box
        assert placed.cell[1] * CELL <= left < right <= (placed.cell[1] + 1) * CELL
        assert placed.cell[0] * CELL <= top < bottom <= (placed.cell[0] + 1) * CELL
        assert placed.image in digit_indices("train", placed.digit)
    drawn = render_pixels(scene)
    assert drawn.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert drawn.dtype == np.uint8
    assert caption(scene).answer.count(",") == max(0, crowd - 1)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_spatial_relations_are_consistent_or_refused(seed):
    scene = draw_scene(np.random.default_rng(seed), crowd=2)
    a, b = scene.placed
    opposite = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
    for axis, relations in ((1, RELATIONS[:2]), (0, RELATIONS[2:])):
        for relation in relations:
            if a.cell[axis] == b.cell[axis]:
                with pytest.raises(DataError, match="unclear"):
                    spatial(scene, a.digit, b.digit, relation)
                continue
            answer = spatial(scene, a.digit, b.digit, relation).answer
            assert spatial(scene, b.digit, a.digit, opposite[relation]).answer == answer
            assert spatial(scene, b.digit, a.digit, relation).answer != answer


# Counterfactuals


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(0, 40), st.sampled_from(["existence", "identification"]))
def test_a_counterfactual_changes_one_box_and_the_answer(seed, draw, task):
    sample = load_scenes(n_images=1, seed=seed, task=task)[0]
    twin = counterfactual_pair(sample, seed=draw)
    assert twin.question == sample.question
    assert twin.answer != sample.answer
    assert twin.answer == check_answer(twin)
    assert twin.image_id != sample.image_id
    old, new = twin.meta["replaced"]
    left, top, right, bottom = sample.meta["boxes"][old]
    assert twin.meta["boxes"][new] == (left, top, right, bottom)
    different = (pixels(sample) != pixels(twin)).any(-1)
    assert different[top:bottom, left:right].any()
    different[top:bottom, left:right] = False
    assert not different.any()


def test_counterfactual_datasets_alternate_and_stay_on_evaluation_digits():
    data = load_scenes(n_images=20, counterfactual=True)
    trained = {i for d in range(10) for i in digit_indices("train", d)}
    for original, twin in zip(data[::2], data[1::2], strict=True):
        assert twin.meta["counterfactual_of"] == original.image_id
        assert twin.meta["original_answer"] == original.answer != twin.answer
        assert not set(twin.meta["digit_images"].values()) & trained


def test_counterfactuals_are_refused_where_there_are_none():
    with pytest.raises(DataError, match="counting"):
        counterfactual_pair(load_scenes(task="counting", limit=1)[0])
    twin = load_scenes(limit=2, counterfactual=True)[1]
    with pytest.raises(DataError, match="original digit scene"):
        counterfactual_pair(twin)


def test_importing_the_data_package_loads_no_heavy_library():
    import subprocess
    import sys

    code = (
        "import sys, mechvrp.data.scenes, mechvrp.data.scene_render;"
        "print([m for m in ('torch', 'transformers', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_scene_drawn_twice_is_the_same_and_its_own_copy():
    scene = draw_scene(np.random.default_rng(3))
    first = render_pixels(scene)
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(render_pixels(scene), kept)
    assert kept.any()
