"""The most memory that a piece of work took."""

from __future__ import annotations

import threading
from types import TracebackType

import torch

__all__ = ["PeakMemory"]

_EVERY = 0.01  # seconds


class PeakMemory:
    """Context manager; ``bytes`` is then the most memory held inside beyond that at its beginning.

    On CUDA the allocator's own account. On the CPU the process's resident memory, looked at every 10 ms:
    what other threads take at the same time counts too, and memory that was freed but not given back
    to the system before the beginning does not.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0
        self._stop = threading.Event()

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            import psutil

            self._process = psutil.Process()
            self._before = self._peak = self._process.memory_info().rss
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before
        else:
            self._stop.set()
            self._thread.join()
            self._look()
            self.bytes = self._peak - self._before

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        self._peak = max(self._peak, self._process.memory_info().rss)
