"""Splits: an image is on one side, whatever the groups; the same seed, the same split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mechvrp.data
from mechvrp.data import Dataset, Sample, group_folds, train_test_split
from mechvrp.errors import DataError

IMAGE = Image.new("RGB", (1, 1))


def make(groups, split="x"):
    return Dataset(
        "mine",
        [Sample(IMAGE, f"q{i}", "yes", image_id=str(g), split=split) for i, g in enumerate(groups)],
    )


grouped = st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda g: len(set(g)) > 1)


@given(grouped, st.floats(0.05, 0.95), st.integers(0, 2**31 - 1), st.booleans())
def test_no_image_is_on_both_sides(groups, test_size, seed, stratified):
    dataset = make(groups)
    stratify = [g % 2 for g in groups] if stratified else None
    train, test = train_test_split(dataset, test_size=test_size, seed=seed, stratify=stratify)
    assert not set(train.image_ids) & set(test.image_ids)
    positions = [int(s.question[1:]) for side in (train, test) for s in side]
    assert sorted(positions) == list(range(len(groups)))
    for side in (train, test):
        order = [int(s.question[1:]) for s in side]
        assert order == sorted(order)
    again = train_test_split(dataset, test_size=test_size, seed=seed, stratify=stratify)
    assert again[1].image_ids == test.image_ids
    assert abs(len(set(test.image_ids)) - test_size * len(set(groups))) <= 1


def test_images_made_from_one_another_stay_together():
    data = mechvrp.data.load("scenes", n_images=8, counterfactual=True)
    source = {s.image_id: s.meta.get("counterfactual_of", s.image_id) for s in data}
    assert len(set(source.values())) < len(source)
    assert [s.source_id for s in data] == [source[s.image_id] for s in data]
    train, test = train_test_split(data, seed=1)
    assert not {source[i] for i in train.image_ids} & {source[i] for i in test.image_ids}
    groups = ["a", "b"] * (len(data) // 2)
    for one, other in group_folds(list(data), 2, groups=groups):
        assert {groups[i] for i in one} == {"a", "b"} - {groups[i] for i in other}
    with pytest.raises(DataError, match="groups has a group for each"):
        group_folds(list(data), 2, groups=["a"])
    with pytest.raises(DataError, match="3 distinct images, got 2, where those that groups link"):
        group_folds(list(data), 3, groups=groups)


@pytest.mark.filterwarnings("ignore:The least populated class")
@given(grouped, st.integers(2, 5), st.integers(0, 2**31 - 1), st.booleans())
def test_folds_partition_the_images(groups, n_folds, seed, stratified):
    dataset = make(groups)
    names = ["a" if g % 2 else "b" for g in groups]
    stratify = names if stratified else None
    try:
        folds = group_folds(dataset, n_folds, seed=seed, stratify=stratify)
    except DataError:
        few_images = len(set(groups)) < n_folds
        assert few_images or max(names.count("a"), names.count("b")) < n_folds
        return
    ids = np.array(dataset.image_ids)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(groups)))
    for train, test in folds:
        assert not set(ids[train]) & set(ids[test])
        assert len(train) + len(test) == len(groups)


def test_the_splits_of_pope_are_kept_apart_together(make_pope):
    root = make_pope()
    both = [*mechvrp.data.load("pope", root=root, split="random")]
    both += mechvrp.data.load("pope", root=root, split="adversarial")
    train, test = train_test_split(Dataset("both", both), test_size=0.3)
    assert not set(train.image_ids) & set(test.image_ids)
    assert (len(test), {s.split for s in test}) == (0.3 * 6000, {"random", "adversarial"})
    assert test.info == {"side": "test", "test_size": 0.3, "split_seed": 0}


def test_stratification_balances_a_rare_class():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 3)
    rare = np.repeat(rng.random(60) < 0.15, 3).tolist()
    gaps = {}
    for stratify in (None, rare):
        gap = []
        for seed in range(10):
            sides = train_test_split(make(groups), seed=seed, stratify=stratify)
            shares = [np.mean([rare[int(s.question[1:])] for s in side]) for side in sides]
            gap.append(abs(shares[0] - shares[1]))
        gaps[stratify is None] = np.mean(gap)
    assert gaps[False] < 0.02 < gaps[True]


def test_bad_input():
    with pytest.raises(DataError, match=r"sample 1 .* has no image_id"):
        train_test_split(make(["a", ""]))
    with pytest.raises(DataError, match="at least 2 distinct images, got 1: give .* more images$"):
        train_test_split(make(["a", "a"]))
    with pytest.raises(DataError, match=r"\(0, 1\), got 1"):
        train_test_split(make("ab"), test_size=1)
    with pytest.raises(DataError, match="1 classes for 2 samples"):
        train_test_split(make("ab"), stratify=[1])
    with pytest.raises(DataError, match="at least 3 distinct images, got 2: .* or fewer folds"):
        group_folds(make("ab"), 3)
    with pytest.raises(DataError, match="n_folds"):
        group_folds(make("ab"), 1)
