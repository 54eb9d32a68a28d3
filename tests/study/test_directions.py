"""Text of data within a sentence cannot turn the words around it."""

from __future__ import annotations

from mechvrp.plots.directions import isolated
from mechvrp.study.report_words import accuracy_finding
from mechvrp.study.schema import AccuracyRow


def test_plain_text_stays_as_it_is() -> None:
    for text in ("", "tiny-llava", "Où est l'étoile — 左?"):
        assert isolated(text) == text


def test_what_turns_a_line_is_closed_in() -> None:
    assert isolated("a\u202eb") == "\u2068a\u202eb\u2069"
    assert isolated("שלום") == "\u2068שלום\u2069"
    # An end in the text would end the isolation, and a beginning would go on behind it.
    assert isolated("a\u2069b\u202e") == "\u2068ab\u202e\u2069"
    assert isolated("a\u2067b") == "\u2068a\u2067b\u2069\u2069"


def test_sentences_close_in_the_names_in_them() -> None:
    row = AccuracyRow("all", "all", 4, 3, 4, 0.75, 0.5, 1.0, 0.95, "")
    text = accuracy_finding("model\u202e", [row]).text
    assert text.startswith("\u2068model\u202e\u2069 answered 3 of 4")
