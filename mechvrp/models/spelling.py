"""The text that tokens spell, and which of them spells what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["spelled"]


def spelled(
    tokenizer: Any, ids: Sequence[int], shown: Sequence[bool]
) -> tuple[str, list[tuple[int, int]]]:
    """The text of some tokens of a sequence, and every position's span in it.

    Growing prefixes are decoded, since a token's text can depend on its neighbours (byte-level pieces of
    one character, a leading space that only the first token loses).

    Args:
        tokenizer: with ``decode``.
        ids: [pos].
        shown: [pos], whether a token counts; others (padding, image tokens) have an empty span.
    """
    text, kept = "", []
    spans: list[tuple[int, int]] = []
    for token, counts in zip(ids, shown, strict=True):
        if not counts:
            spans.append((len(text), len(text)))
            continue
        kept.append(token)
        grown = tokenizer.decode(
            kept, skip_special_tokens=False, clean_up_tokenization_spaces=False
        ).rstrip("\ufffd")
        spans.append((len(text), len(grown)))
        text = grown
    return text, spans
