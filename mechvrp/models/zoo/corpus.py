"""Every text the embedded models are trained on, as text: what their tokenizers are built from."""

from __future__ import annotations

from mechvrp.data.digits import DIGIT_WORDS
from mechvrp.data.scene_layout import CELL_NAMES
from mechvrp.data.scene_questions import RELATIONS

__all__ = ["questions", "texts", "whole_words"]


def questions() -> list[str]:
    """Every question of the digit scenes."""
    articles = ["an" if word == "eight" else "a" for word in DIGIT_WORDS]
    asked = [
        f"Is there {a} {word} in the image?" for a, word in zip(articles, DIGIT_WORDS, strict=True)
    ]
    asked += [f"What digit is at the {name}?" for row in CELL_NAMES for name in row]
    asked += [f"Where is the {word}?" for word in DIGIT_WORDS]
    asked += ["How many digits are in the image?", "Describe the image."]
    asked += [
        f"Is the {first} {relation} the {second}?"
        for first in DIGIT_WORDS
        for second in DIGIT_WORDS
        if first != second
        for relation in RELATIONS
    ]
    return asked


def whole_words() -> list[str]:
    """The words, and the names of places, that must be one token each, with their leading space."""
    places = {name for row in CELL_NAMES for name in row}
    relations = {part for relation in RELATIONS for part in relation.split()}
    return [
        f" {word}" for word in (*DIGIT_WORDS, "yes", "no", "nothing", *sorted(places | relations))
    ]


def texts() -> list[str]:
    """The tokenizer's corpus: questions in a chat's wrapping, answers and captions."""
    answers = [f"{word}," for word in whole_words()] * 20
    return [f"USER: \n{question} ASSISTANT:" for question in questions()] + answers
