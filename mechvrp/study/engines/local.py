"""The engine of one process: one piece after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from mechvrp.models import VLM, load
from mechvrp.study.engines.base import Advance, Work

if TYPE_CHECKING:
    from mechvrp.store import Chunks
    from mechvrp.study.config import StudyConfig

__all__ = ["LocalEngine", "loader"]


@dataclass(frozen=True)
class LocalEngine:
    """The model in this process.

    Attributes:
        load: gives the model; called when it is needed, several times.
    """

    load: Callable[[], VLM]

    def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        return question(self.load(), *arguments)

    def run(self, work: Work, chunks: Chunks, advance: Advance) -> None:
        chunks.restore()
        missing = set(chunks.missing())
        for index in range(len(chunks)):
            if index not in missing:
                advance(work.steps(index))
                continue
            piece = work.compute(self.load(), work.inputs(index), advance)
            chunks.write(index, piece.table, piece.arrays, piece.dims, piece.notes)

    def close(self) -> None:
        pass  # a later study in this process has the model at hand


def loader(entry: str | VLM, config: StudyConfig) -> Callable[[], VLM]:
    """Gives the model, loading it once, at the first call."""
    if isinstance(entry, VLM):
        return lambda: entry

    @cache
    def get() -> VLM:
        return load(entry, device=config.device, dtype=config.dtype)

    return get
