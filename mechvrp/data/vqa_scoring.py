"""The VQA evaluation: what counts as the same answer, and accuracy against ten annotators.

Antol et al., "VQA: Visual Question Answering" (ICCV 2015), and Goyal et al. (CVPR 2017, arXiv
1612.00837); the rules are those of the evaluation that the benchmark publishes (GT-Vision-Lab/VQA),
its slips included, since published figures were made with them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from mechvrp.data.fields import given_text, given_texts
from mechvrp.errors import DataError

__all__ = ["normalise_vqa", "vqa_accuracy"]

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA = re.compile(r"\d,\d", re.ASCII)
# The published pattern means to keep a period behind a digit and does not: only what follows counts.
_PERIOD = re.compile(r"\.(?!\d)", re.ASCII)
# The published code gives a flag where the number of replacements goes, and its value is 32.
_PERIODS = 32

_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))

# A word that lacks one of its apostrophes gets it back; one that lacks two does not.
_APOSTROPHES = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
"""
_CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in _APOSTROPHES.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # the wrong way round in the published table

# With fewer answers than this no prediction could reach 1.
_LEAST = 4


def normalise_vqa(text: str) -> str:
    """An answer as the VQA evaluation compares it: ``"Two dogs!"`` is ``"2 dogs"``.

    Line breaks and tabs become spaces. Each mark of ``;/[]"{}()=+\\_-><@`,?!`` is deleted if it has
    a space beside it somewhere, or if the text has a comma between digits; otherwise it becomes a
    space. Periods go unless a digit follows. Then lower case, number words up to ten as digits, no
    ``a``, ``an``, ``the``, and the apostrophes of about 120 contractions.
    """
    return _normalised(given_text(text))


@lru_cache(maxsize=2**14)  # annotators repeat one another
def _normalised(text: str) -> str:
    line = _line(text)
    thousands = _COMMA.search(line) is not None
    marked = line
    for mark in _MARKS:
        if mark in line:
            beside = f"{mark} " in line or f" {mark}" in line
            marked = marked.replace(mark, "" if beside or thousands else " ")
    words = _PERIOD.sub("", marked, count=_PERIODS).lower().split()
    words = [_NUMBERS.get(word, word) for word in words]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The VQA accuracy of an answer, from 0 to 1.

    For every annotator left out, the share min(1, matches / 3) among the others; their mean. Of ten
    annotators 1, 2, 3 and 4 or more who agree with the answer give 0.3, 0.6, 0.9 and 1. Answers are
    compared as :func:`normalise_vqa` has them, but as they stand where all annotators gave the same
    text.

    Args:
        prediction: what the model wrote.
        answers: what each annotator wrote; ten in VQAv2 and OK-VQA.

    Raises:
        DataError: something is not text, or there are fewer than four answers, with which nothing
            could reach 1.
    """
    texts = [given_text(prediction, "the prediction"), *given_texts(answers, "answers")]
    if len(answers) < _LEAST:
        raise DataError(
            f"VQA accuracy needs the answers of at least {_LEAST} annotators, got {len(answers)}"
        )
    given, *truth = map(_line, texts)
    if len(set(truth)) > 1:
        given, *truth = map(_normalised, texts)
    n, matches = len(truth), truth.count(given)
    without_one, with_all = min(1.0, (matches - 1) / 3), min(1.0, matches / 3)
    return (matches * without_one + (n - matches) * with_all) / n


def _line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
