"""``render_chat``: a prompt by a checkpoint's own chat template, which is a stranger's small program."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mechvrp.errors import UnavailableError

__all__ = ["render_chat"]

#: What a template may take; those of real checkpoints take milliseconds.
_SECONDS = 5.0


class _TooLong(BaseException):
    """Not an ``Exception``, which a template's filters and tests could catch."""


def render_chat(processor: Any, messages: list[dict[str, Any]]) -> str:
    """The text that the processor's chat template makes of messages, the assistant's turn begun.

    Raises:
        UnavailableError: the template fails, or takes longer than a few seconds.
    """
    try:
        with _limited(_SECONDS):
            text = processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
    except _TooLong:
        why: BaseException | None = None
        how = f"it was still running after {_SECONDS:g} s"
    # Jinja's own errors are of many classes, and what a template computes may raise any other.
    except Exception as error:
        why, how = error, f"{type(error).__name__}: {str(error)[:300]}"
    else:
        return str(text)
    name = getattr(getattr(processor, "tokenizer", None), "name_or_path", "") or "this model"
    raise UnavailableError(
        f"the chat template of {name} ({type(processor).__name__}) fails: {how}. Mend or replace it "
        "(chat_template.jinja beside the weights), give a processor that has another "
        "(mechvrp.load(..., processor=...)), or encode inputs yourself and give them to model.batch (and, of a "
        "model that no family describes, to mechvrp.load(..., probe=...))"
    ) from why


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """``_TooLong`` in this thread once it has been in here so long.

    It ends what runs in Python, endless loops included; a single operation in C (a power of a huge number)
    is waited for.
    """
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    me, turn = ctypes.c_ulong(threading.get_ident()), threading.Lock()
    left, sent = threading.Event(), threading.Event()

    def stop() -> None:
        with turn:
            if not left.is_set():
                sent.set()
                raise_in(me, ctypes.py_object(_TooLong))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with turn:
            left.set()
            if sent.is_set():
                raise_in(me, None)  # it may not have arrived yet
