"""Text from data within a sentence, so that its direction does not turn the words around it."""

from __future__ import annotations

import unicodedata

__all__ = ["isolated"]

_OPEN, _CLOSE = "\u2068", "\u2069"  # first strong isolate, and its end
_ISOLATES = ("LRI", "RLI", "FSI")
#: Of letters written from right to left, and of signs that set a direction.
_TURNING = {"R", "AL", "AN", "LRE", "RLE", "LRO", "RLO", "PDF", "PDI", *_ISOLATES}


def isolated(text: str) -> str:
    """The text between Unicode's isolates, if it holds anything that could turn its line; else as it is.

    In a page's own markup ``<bdi>`` does the same; this is for sentences that are made before.
    """
    kinds = [unicodedata.bidirectional(sign) for sign in text]
    if _TURNING.isdisjoint(kinds):
        return text
    # An end of isolation that is in the text itself must not end this one.
    depth = 0
    kept = []
    for sign, kind in zip(text, kinds, strict=True):
        if kind == "PDI" and depth == 0:
            continue
        depth += (kind in _ISOLATES) - (kind == "PDI")
        kept.append(sign)
    return f"{_OPEN}{''.join(kept)}{_CLOSE * (depth + 1)}"
