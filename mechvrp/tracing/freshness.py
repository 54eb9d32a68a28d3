"""Keep nnsight's view of a trace's source as fresh as the code that runs.

nnsight runs the *source* of a trace's body, which it reads once a file. After a reload (or IPython's
autoreload) it would go on running the old body, silently: edits that were taken out would still be made.
"""

from __future__ import annotations

import linecache
from types import CodeType, FrameType
from typing import Any

from nnsight.tracing.globals import BLOCKS, SOURCES

__all__ = ["forget_stale_source"]

#: By file, the texts that were last found to be the same: linecache's entry and nnsight's.
_compared: dict[str, tuple[Any, str]] = {}


def forget_stale_source(frame: FrameType) -> None:
    """Drop what nnsight remembers of a file if the running code comes from a newer text of it.

    A file that was edited but not reloaded keeps its old text, since its old code is what runs.
    """
    code = frame.f_code
    known = SOURCES.get(code.co_filename)
    if known is None:
        return
    linecache.checkcache(code.co_filename)
    entry = linecache.cache.get(code.co_filename)
    seen = _compared.get(code.co_filename)
    if seen is not None and seen[0] is entry and seen[1] is known:
        return  # a long file's text need not be put together for every trace
    text = "".join(linecache.getlines(code.co_filename))
    if text == known:
        _compared[code.co_filename] = linecache.cache.get(code.co_filename), known
    if text == known or not text or not _made_from(code, text):
        return
    del SOURCES[code.co_filename]
    for key in [key for key in BLOCKS if key[0] == code.co_filename]:
        del BLOCKS[key]


def _made_from(code: CodeType, text: str) -> bool:
    """Whether compiling ``text`` gives this very code."""
    try:
        whole = compile(text, code.co_filename, "exec", dont_inherit=True)
    except SyntaxError:
        return False
    left = [whole]
    while left:
        found = left.pop()
        if found == code:
            return True
        left += [c for c in found.co_consts if isinstance(c, CodeType)]
    return False
