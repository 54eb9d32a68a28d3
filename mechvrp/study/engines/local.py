"""The engine of one process: one piece after the other."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mechvrp.models import VLM, load
from mechvrp.study.engines.base import Advance, Work

if TYPE_CHECKING:
    from mechvrp.store import Chunks
    from mechvrp.study.config import StudyConfig

__all__ = ["LocalEngine", "loader"]


@dataclass
class LocalEngine:
    """The model in this process.

    Attributes:
        load: gives the model; called when it is needed, and again after the engine was closed.
        owns: whether the model is held here alone, so that closing frees its memory.
    """

    load: Callable[[], VLM]
    owns: bool = True
    _held: VLM | None = field(default=None, init=False)

    @property
    def model(self) -> VLM:
        """The model; loaded at the first use."""
        if self._held is None:
            self._held = self.load()
        return self._held

    def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        return question(self.model, *arguments)

    def run(self, work: Work, chunks: Chunks, advance: Advance) -> None:
        chunks.restore()
        missing = set(chunks.missing())
        for index in range(len(chunks)):
            if index not in missing:
                advance(work.steps(index))
                continue
            piece = work.compute(self.model, work.inputs(index), advance)
            chunks.write(index, piece.table, piece.arrays, piece.dims, piece.notes)

    def close(self) -> None:
        if self._held is not None:
            self._held = None
            if self.owns:
                gc.collect()  # a model refers to itself; the next one may need its memory


def loader(entry: str | VLM, config: StudyConfig) -> Callable[[], VLM]:
    """Gives the model: loaded at each call, or the one that was given."""
    if isinstance(entry, VLM):
        return lambda: entry
    return lambda: load(entry, device=config.device, dtype=config.dtype)
