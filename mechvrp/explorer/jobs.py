"""Long work that tells how far it is and can be cancelled."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["Cancelled", "Job", "Worker"]

T = TypeVar("T")

#: Called with what is being done, how much is done, and of how much.
Progress = Callable[[str, int, int], None]


class Cancelled(Exception):  # noqa: N818 (no error: somebody asked for it)
    """The work was cancelled. Not one of mechvrp's own errors, which a sweep takes for a failed variant."""


class Job:
    """One piece of work: whether it is to go on, and whom to tell how far it is.

    Args:
        progress: called from the thread that works.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._stop = threading.Event()
        self._progress = progress

    def cancel(self) -> None:
        """Ask it to stop at its next step; from any thread."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        return self._stop.is_set()

    def check(self) -> None:
        """Raise ``Cancelled`` if it was cancelled."""
        if self._stop.is_set():
            raise Cancelled

    def step(self, label: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` is done; raise ``Cancelled`` if it was cancelled."""
        self.check()
        if self._progress is not None:
            self._progress(label, min(done, total), total)

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each behind a check."""
        for item in items:
            self.check()
            yield item


class Worker:
    """One thread that does one thing after the other, since traces of one model cannot run side by side."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = threading.Lock()
        self._undone = 0
        self._idle = threading.Condition(self._busy)

    def submit(self, work: Callable[[], None]) -> None:
        """Do it when what was submitted before is done. It handles its own errors."""
        with self._busy:
            self._undone += 1
            if self._thread is None:
                # A daemon: an interpreter that ends does not wait for it.
                self._thread = threading.Thread(
                    target=self._run, name="mechvrp-explorer", daemon=True
                )
                self._thread.start()
        self._waiting.put(work)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all is done; whether it is."""
        with self._idle:
            return self._idle.wait_for(lambda: self._undone == 0, timeout)

    def close(self) -> None:
        """End the thread behind what was submitted."""
        if self._thread is not None:
            self._waiting.put(None)

    def _run(self) -> None:
        while (work := self._waiting.get()) is not None:
            try:
                work()
            finally:
                with self._idle:
                    self._undone -= 1
                    self._idle.notify_all()
