"""What a free-text answer says: yes or no, a number, or just its words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from mechvrp.data.fields import given_text
from mechvrp.errors import DataError

__all__ = [
    "Reading",
    "normalise_answer",
    "official_yes_no",
    "read_count",
    "strict_yes_no",
    "yes_no_label",
    "yes_no_reader",
]

Reading = Literal["official", "strict"]

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_LARGE = re.compile(r"\b(?:hundred|thousand|million)s?\b")
_NUMBERS = {word: value for value, word in enumerate(_UNITS)}
_NUMBERS |= {word: 20 + 10 * index for index, word in enumerate(_TENS)}
_NUMBERS["none"] = 0
_COUNT = re.compile(
    rf"(?P<tens>\b(?:{'|'.join(_TENS)})\b)(?:[\s-]+(?P<unit>(?:{'|'.join(_UNITS[1:10])})\b))?"
    rf"|\b(?P<word>{'|'.join([*_UNITS, 'none'])})\b"
    r"|(?<![\w.])(?P<digits>\d{1,3}(?:,\d{3}){1,5}|\d{1,18})(?![\w]|\.\d)"
)


def official_yes_no(text: str) -> Literal["yes", "no"]:
    """An answer as POPE's own ``evaluate.py`` reads it: ``"no"`` or, failing that, ``"yes"``.

    The text before the first ``.``, commas deleted, split at single spaces; ``"no"`` if a piece is
    ``No``, ``no`` or ``not``, in exactly that case. So ``""``, ``"NO"``, ``"no!"`` and ``"I cannot
    tell"`` are ``"yes"``: what published figures were made with, kept to the letter.
    """
    words = given_text(text).split(".")[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "no", "not") for word in words) else "yes"


def strict_yes_no(text: str) -> Literal["yes", "no", "unknown"]:
    """``"yes"`` or ``"no"`` if that is the first word, in any case; else ``"unknown"``.

    Spaces and punctuation around the word do not count: ``"\\nNo!"`` is ``"no"``, ``"Nope"`` and
    ``"There is not a dog."`` are ``"unknown"``.
    """
    word = re.match(r"[\W_]*([^\W\d_]+(?:['\u2019][^\W\d_]+)*)", given_text(text))
    first = word.group(1).lower() if word else ""
    return "yes" if first == "yes" else "no" if first == "no" else "unknown"


def normalise_answer(text: str) -> str:
    """Stripped, lower-case, without final periods, inner space as single spaces."""
    return " ".join(given_text(text).lower().split()).rstrip(". ")


def read_count(text: str) -> int | None:
    """The first whole number in a text, in digits or in words up to ninety-nine, or ``None``.

    ``"none"`` is 0; ``"1,000"`` is 1000; ``"2.5"`` is no whole number. A text with hundreds or
    more in words is not read: its first small number word would be a part of another number.
    """
    match = _COUNT.search(given_text(text).lower())
    if match is None or _LARGE.search(text.lower()):
        return None
    if match["digits"]:
        return int(match["digits"].replace(",", ""))
    if match["word"]:
        return _NUMBERS[match["word"]]
    return _NUMBERS[match["tens"]] + _NUMBERS.get(match["unit"] or "zero", 0)


def yes_no_reader(reading: str) -> Callable[[str], str]:
    """The reading of that name; ``DataError`` if there is none."""
    readers: dict[str, Callable[[str], str]] = {
        "official": official_yes_no,
        "strict": strict_yes_no,
    }
    if not isinstance(reading, str) or reading not in readers:
        raise DataError(f"reading must be 'official' or 'strict', got {reading!r}")
    return readers[reading]


def yes_no_label(label: object, place: str) -> str:
    """``"yes"`` or ``"no"``; ``DataError`` naming the place if the label is neither."""
    word = label.strip().lower() if isinstance(label, str) else ""
    if word not in ("yes", "no"):
        raise DataError(f"{place} must be 'yes' or 'no', got {label!r}")
    return word
