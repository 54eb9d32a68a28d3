"""Hallucinated answers and the scenes in which they become right."""

from __future__ import annotations

import numpy as np
import pytest

import mechvrp
from mechvrp.circuits import hallucinated_pairs
from mechvrp.data import counterfactual_pair, one_digit_replaced
from mechvrp.errors import DataError, InputError
from mechvrp.reliability import greedy_answers


@pytest.fixture(scope="module")
def polls():
    return list(mechvrp.data.load("scenes", split="adversarial", seed=1, n_images=20))


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava")


def test_pairs_differ_in_one_digit_and_in_the_answer_only(model, polls):
    found = hallucinated_pairs(model, polls, tries=2)
    absent = [s for s in polls if s.answer == "no"]
    said = [a.text for a in greedy_answers(model, absent)]
    assert found.asked == len(absent)
    assert found.found == said.count("yes") > 0
    wrong = {(s.image_id, s.question) for s, a in zip(absent, said, strict=True) if a == "yes"}
    assert {(s.image_id, s.question) for s in (*found.traced, *found.untraced)} == wrong

    clean = [s for part in found.pairs for s in part.clean.samples]
    others = [s for part in found.pairs for s in part.counterfactual.samples]
    assert [s.question for s in clean] == [s.question for s in others]
    assert {a.text for a in greedy_answers(model, clean)} == {"yes"}
    assert {a.text for a in greedy_answers(model, others)} == {"no"}
    for sample, other, old in zip(clean, others, found.mistaken, strict=True):
        assert sample.answer == other.answer == "no"
        assert other.meta["replaced"][0] == old != sample.meta["digit"] != other.meta["replaced"][1]
        box = sample.meta["boxes"][old]
        changed = np.any(np.asarray(sample.image) != np.asarray(other.image), axis=-1)
        rows, columns = np.nonzero(changed)
        assert len(rows)
        assert box[1] <= rows.min() <= rows.max() < box[3]
        assert box[0] <= columns.min() <= columns.max() < box[2]
    assert found.pairs.groups == tuple(s.image_id for s in clean)


def test_the_same_seed_gives_the_same_pairs_and_polls_for_what_is_there_do_not_count(model, polls):
    some = [s for s in polls if s.answer == "no"][:40]
    first, again = (hallucinated_pairs(model, some, tries=1, seed=3) for _ in range(2))
    assert first.mistaken == again.mistaken
    assert [s.image_id for s in first.untraced] == [s.image_id for s in again.untraced]
    with pytest.raises(InputError, match="right answer is no"):
        hallucinated_pairs(model, [s for s in polls if s.answer == "yes"][:4])
    with pytest.raises(InputError, match="tries"):
        hallucinated_pairs(model, some, tries=0)


def test_none_is_no_pairs(model, polls):
    absent = [s for s in polls if s.answer == "no"]
    said = greedy_answers(model, absent[:20])
    right = [s for s, a in zip(absent, said, strict=False) if a.text == "no"][:5]
    found = hallucinated_pairs(model, right)
    assert found.pairs is None
    assert (found.found, found.asked) == (0, 5)


def test_one_digit_replaced_is_of_ones_own_choice(polls):
    sample = next(s for s in polls if s.answer == "yes")
    there, asked = list(sample.meta["cells"]), sample.meta["digit"]
    absent = next(w for w in ("zero", "one", "two", "three", "four") if w not in there)
    gone = one_digit_replaced(sample, asked, absent)
    assert (gone.answer, gone.question) == ("no", sample.question)
    assert gone.meta["replaced"] == (asked, absent)
    kept = one_digit_replaced(sample, next(w for w in there if w != asked), absent)
    assert kept.answer == "yes"
    # Another picture than the counterfactual's has another name.
    assert gone.image_id != counterfactual_pair(sample).image_id
    with pytest.raises(DataError, match="is not in|holds no"):
        one_digit_replaced(sample, absent, asked)
    with pytest.raises(DataError, match="no digit"):
        one_digit_replaced(sample, asked, "ten")
