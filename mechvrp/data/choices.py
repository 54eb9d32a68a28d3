"""Multiple choice: options by letter, and the letter in an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mechvrp.data.fields import given_text
from mechvrp.errors import DataError

__all__ = ["LETTERS", "lettered", "read_letter"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# The published reading looks for A to E even where there are fewer choices.
_USUAL = 5
_SENTENCE = re.compile(r"The answer is ([A-Z]).")


def lettered(choices: Sequence[str]) -> str:
    """The choices as lines, ``A. ...`` and on.

    Raises:
        DataError: more choices than letters, or fewer than two.
    """
    if not 2 <= len(choices) <= len(LETTERS):
        raise DataError(f"expected 2 to {len(LETTERS)} choices, got {len(choices)}")
    return "\n".join(f"{LETTERS[i]}. {choice}" for i, choice in enumerate(choices))


def read_letter(text: str, n_choices: int = len(LETTERS)) -> str | None:
    """The letter that an answer chooses, or ``None``: nothing is guessed.

    As LLaVA's evaluation of ScienceQA reads it, space around the answer aside: the letter alone
    (``"B"``); else a letter, a period and a space at the beginning (``"B. Dogs"``); else exactly one
    ``The answer is B.`` (any character may stand for the period). A letter beyond the choices is
    none.
    """
    text = given_text(text).strip()
    if isinstance(n_choices, bool) or not isinstance(n_choices, int) or n_choices < 1:
        raise DataError(f"n_choices must be a whole number of at least 1, got {n_choices!r:.60}")
    options = LETTERS[: max(n_choices, _USUAL)]
    found = _SENTENCE.findall(text)
    if len(text) == 1 and text in options:
        letter = text
    elif len(text) >= 3 and text[0] in options and text[1:3] == ". ":
        letter = text[0]
    elif len(found) == 1:
        letter = found[0]
    else:
        return None
    return letter if letter in LETTERS[:n_choices] else None
