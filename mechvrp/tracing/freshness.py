"""Keep nnsight's view of a trace's source as fresh as the code that runs.

nnsight runs the *source* of a trace's body, which it reads once a file. After a reload (or IPython's
autoreload) it would go on running the old body, silently: edits that were taken out would still be made.
"""

from __future__ import annotations

import linecache
from types import CodeType, FrameType

from nnsight.tracing.globals import BLOCKS, SOURCES

__all__ = ["forget_stale_source"]


def forget_stale_source(frame: FrameType) -> None:
    """Drop what nnsight remembers of a file if the running code comes from a newer text of it.

    A file that was edited but not reloaded keeps its old text, since its old code is what runs.
    """
    code = frame.f_code
    known = SOURCES.get(code.co_filename)
    if known is None:
        return
    linecache.checkcache(code.co_filename)
    text = "".join(linecache.getlines(code.co_filename))
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
