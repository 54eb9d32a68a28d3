"""Options by letter, and the letter in an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.data import read_letter
from mechvrp.data.choices import lettered
from mechvrp.errors import DataError


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" B\n", "B"),
        ("B. Dogs", "B"),
        ("C. The answer is A.", "C"),
        ("I think so. The answer is D.", "D"),
        ("The answer is D. Surely The answer is D.", None),
        ("The answer is D", None),
        ("The answer is Z.", None),
        ("E", None),  # beyond the four choices
        ("E. Dogs, The answer is A.", None),
        ("b", None),
        ("B.", None),
        ("B)", None),
        ("(B)", None),
        ("Dogs", None),
        ("BD", None),
        ("", None),
    ],
)
def test_the_reading_of_letters(text, letter):
    assert read_letter(text, 4) == letter


@given(st.text(), st.integers(2, 26))
def test_a_letter_is_one_of_the_choices_or_none(text, n):
    letter = read_letter(text, n)
    assert letter is None or "A" <= letter <= chr(ord("A") + n - 1)


def test_choices_as_lines():
    assert lettered(["red", "blue"]) == "A. red\nB. blue"
    for choices in (["x"], ["x"] * 27):
        with pytest.raises(DataError, match="2 to 26 choices"):
            lettered(choices)
