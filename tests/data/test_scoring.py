"""Answer scoring: POPE's own readings to the letter, and no figure that is not a number."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mechvrp.data import (
    Sample,
    is_correct,
    normalise_answer,
    normalised_for_vote,
    official_yes_no,
    pope_scores,
    read_count,
    score,
    strict_yes_no,
)
from mechvrp.errors import DataError

from .conftest import POPE_FILES

GOLDEN = json.loads((POPE_FILES / "pope_parse_golden.json").read_text())


@pytest.mark.parametrize(("answer", "reading"), GOLDEN)
def test_the_official_reading_is_the_official_code(answer, reading):
    assert official_yes_no(answer) == reading


@pytest.mark.parametrize(
    ("answer", "reading"),
    [
        *[(text, "yes") for text in ("Yes", "yes.", " YES!", '"Yes"', "**Yes**", "Yes, it is.")],
        *[(text, "no") for text in ("No", "NO", "no!", "no\n", "\nNo", "No;", "No, there is none")],
        *[
            (text, "unknown")
            for text in ("", " ", "Nope", "none", "not", "yesterday", "I don't know")
        ],
        *[(text, "unknown") for text in ("There is not a dog.", "unanswerable", "Is there? No")],
    ],
)
def test_the_strict_reading(answer, reading):
    assert strict_yes_no(answer) == reading


@given(st.text())
def test_readings_never_fail(text):
    assert official_yes_no(text) in ("yes", "no")
    assert strict_yes_no(text) in ("yes", "no", "unknown")
    count = read_count(text)
    assert count is None or count >= 0
    assert normalise_answer(normalise_answer(text)) == normalise_answer(text)


def test_pope_figures_by_hand():
    labels = ["yes"] * 4 + ["no"] * 4
    predictions = ["Yes", "yes, I see it", "No", "Hmm", "no", "No.", "Yes", "Hmm"]
    official = pope_scores(predictions, labels)
    assert (official.tp, official.fp, official.tn, official.fn) == (3, 2, 2, 1)
    assert (official.accuracy, official.precision, official.recall) == (5 / 8, 3 / 5, 3 / 4)
    assert official.f1 == pytest.approx(2 * 0.6 * 0.75 / (0.6 + 0.75))
    assert (official.yes_ratio, official.unknown_rate) == (5 / 8, 0.0)
    strict = pope_scores(predictions, labels, reading="strict")
    assert (strict.tp, strict.fp, strict.tn, strict.fn) == (2, 1, 2, 2)
    assert (strict.accuracy, strict.precision, strict.recall) == (4 / 8, 2 / 3, 2 / 4)
    assert (strict.yes_ratio, strict.unknown_rate) == (3 / 8, 2 / 8)


answers = st.sampled_from(["Yes", "No", "no.", "perhaps", ""])


@given(
    st.lists(st.tuples(answers, st.sampled_from(["yes", "no", "YES"])), min_size=1),
    st.sampled_from(["official", "strict"]),
)
def test_pope_figures_are_numbers_and_agree_with_scikit_learn(rows, reading):
    from sklearn.metrics import precision_recall_fscore_support

    predictions, labels = zip(*rows, strict=True)
    found = pope_scores(predictions, labels, reading=reading)
    figures = (found.accuracy, found.precision, found.recall, found.f1, found.yes_ratio)
    assert all(math.isfinite(x) and 0 <= x <= 1 for x in (*figures, found.unknown_rate))
    read = official_yes_no if reading == "official" else strict_yes_no
    precision, recall, f1, _ = precision_recall_fscore_support(
        [label.lower() == "yes" for label in labels],
        [read(prediction) == "yes" for prediction in predictions],
        average="binary",
        zero_division=0,
    )
    assert figures[1:4] == pytest.approx((precision, recall, f1))


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([], [], "at least one"),
        (["yes"], [], "1 predictions and 0 labels"),
        (["yes"], ["maybe"], "label 0 must be 'yes' or 'no', got 'maybe'"),
        (["yes", None], ["yes", "no"], "prediction 1 must be text, got None"),
    ],
)
def test_pope_figures_need_sound_input(predictions, labels, message):
    with pytest.raises(DataError, match=message):
        pope_scores(predictions, labels)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("3", 3),
        ("three", 3),
        ("Three.", 3),
        ("There are 3 dogs and 2 cats.", 3),
        ("There are two dogs", 2),
        ("twenty-one", 21),
        ("Forty two", 42),
        ("ninety", 90),
        ("none", 0),
        ("zero", 0),
        ("1,000 people", 1000),
        ("3, 4", 3),
        ("3.", 3),
        ("2.5", None),
        ("someone", None),
        ("a few", None),
        ("", None),
        ("one hundred", None),
        ("7th", None),
        ("9" * 5000, None),
    ],
)
def test_counts(text, count):
    assert read_count(text) == count


@given(st.integers(0, 10**12))
def test_any_number_in_digits(number):
    assert read_count(f"I count {number:,}.") == number == read_count(str(number))


def sample(task, answer, **meta):
    return Sample(Image.new("RGB", (1, 1)), "q", answer, task=task, meta=meta)


@pytest.mark.parametrize(
    ("task", "answer", "prediction", "right"),
    [
        ("counting", "2", "two", True),
        ("counting", "two", "2.", True),
        ("counting", "two", "There are two of them", True),
        ("counting", "2", "3", False),
        ("counting", "2", "", False),
        ("counting", "many", "Many.", True),
        ("identification", "eight", " Eight.\n", True),
        ("identification", "eight", "an eight", False),
        ("spatial", "yes", "Yes.", True),
        ("vqa", "a  red car", "A red car", True),
        ("existence", "no", "No, there is no dog.", True),
        ("existence", "yes", "No", False),
    ],
)
def test_correctness_by_task(task, answer, prediction, right):
    assert is_correct(sample(task, answer), prediction) is right
    assert score(sample(task, answer), prediction) == float(right)


def test_the_two_readings_of_existence():
    assert is_correct(sample("existence", "yes"), "I cannot tell")
    assert not is_correct(sample("existence", "yes"), "I cannot tell", reading="strict")
    assert not is_correct(sample("existence", "no"), "NO")
    assert is_correct(sample("existence", "no"), "NO", reading="strict")
    with pytest.raises(DataError, match="'official' or 'strict'"):
        is_correct(sample("existence", "no"), "NO", reading="lenient")  # type: ignore[arg-type]


def test_unscorable_samples():
    with pytest.raises(DataError, match="has no answer"):
        score(sample("vqa", ""), "x")
    with pytest.raises(DataError, match="must be 'yes' or 'no', got 'dog'"):
        score(sample("existence", "dog"), "yes")
    with pytest.raises(DataError, match="must be text, got 3"):
        score(sample("vqa", "3"), 3)  # type: ignore[arg-type]


TEN = ["two", "2", "2", "3", "2", "3", "3", "3", "2", "4"]


def test_the_rule_can_be_named():
    assert score(sample("vqa", "2"), "two") == 0
    assert score(sample("vqa", "2", answers=TEN), "two") == 1
    assert score(sample("vqa", "2", answers=TEN), "four") == 0.3
    assert score(sample("vqa", "2", answers=TEN, scoring="exact"), "two") == 0
    assert score(sample("vqa", "2", scoring="counting"), "two") == 1
    assert score(sample("spatial", "yes", scoring="existence"), "Yes, it is.") == 1
    with pytest.raises(DataError, match="one of counting, .*, vqa, got 'soft'"):
        score(sample("vqa", "2", scoring="soft"), "two")


def test_a_letter_without_choices_is_any_letter():
    assert score(sample("multiple-choice", "F"), "F") == 1
    assert score(sample("multiple-choice", "F"), "The answer is F.") == 1
    with pytest.raises(DataError, match="must be a letter"):
        score(sample("multiple-choice", "a cab"), "A")
    with pytest.raises(DataError, match="'letter' and 'text', got"):
        score(sample("multiple-choice", "A", readings=["number"]), "A")
    with pytest.raises(DataError, match=r"meta\['choices'\] must be a list"):
        score(sample("multiple-choice", "A", choices="abc"), "A")
    with pytest.raises(DataError, match="none of its choices"):
        score(sample("multiple-choice", "A", choices=["x", "y"], readings=["text"]), "x")


def test_two_choices_that_read_the_same_are_both_right():
    same = sample("multiple-choice", "C", choices=["x", "y", "x"], readings=("letter", "text"))
    assert [score(same, text) for text in ("A", "C", "x", "B")] == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("asked", "votes"),
    [
        (sample("existence", "yes"), [("Yes, a dog", "yes"), ("no dog", "no"), ("", "yes")]),
        (sample("counting", "2"), [("two", "2"), ("There are 2.", "2"), ("Many.", "many")]),
        (sample("multiple-choice", "A"), [("B. x", "B"), ("B", "B"), ("The dog.", "the dog")]),
        (sample("vqa", "2", answers=TEN), [("The two!", "2"), ("dont", "don't")]),
        (sample("vqa", "2"), [("The  Two.", "the two")]),
        (sample("direct-answer", "x", answers=TEN), [(" The Two. ", "The Two.")]),
        (sample("spatial", "x", scoring="gqa"), [("Left..", "left")]),
        (sample("identification", "x"), [(" Eight.\n", "eight")]),
    ],
)
def test_votes_are_counted_in_the_form_that_is_scored(asked, votes):
    for text, vote in votes:
        assert normalised_for_vote(asked, text) == vote


def test_a_vote_does_not_need_the_answer():
    assert normalised_for_vote(sample("existence", ""), "Nope", reading="strict") == "unknown"
    assert normalised_for_vote(sample("existence", "dog"), "Nope") == "yes"
    with pytest.raises(DataError, match="must be text"):
        normalised_for_vote(sample("existence", "yes"), None)  # type: ignore[arg-type]


RULES = [
    sample("existence", "yes"),
    sample("counting", "2"),
    sample("multiple-choice", "B", choices=["x", "y"], readings=("letter", "text")),
    sample("vqa", "2", answers=TEN),
    sample("direct-answer", "x", answers=TEN),
    sample("spatial", "x", scoring="gqa"),
    sample("identification", "x"),
]


@given(st.sampled_from(RULES), st.text(max_size=8), st.text(max_size=8))
def test_equal_votes_score_alike(asked, first, second):
    found = [score(asked, text) for text in (first, second)]
    assert all(0 <= value <= 1 for value in found)
    if normalised_for_vote(asked, first) == normalised_for_vote(asked, second):
        assert found[0] == found[1]
