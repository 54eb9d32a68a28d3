"""What a stage asks of the engine that its model computes in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from mechvrp.models import VLM
    from mechvrp.store import Chunks

__all__ = ["Advance", "Engine", "Piece", "Work"]

#: Told of so many steps that are done.
Advance = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Piece:
    """What is kept of one piece: what ``Chunks.write`` takes."""

    table: pd.DataFrame
    arrays: Mapping[str, np.ndarray]
    dims: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Work:
    """What a stage does to each of its pieces.

    Attributes:
        compute: makes a piece from the model and the piece's inputs. It goes to other processes, and what it
            gives depends on its arguments alone: a piece that is made twice is the same. It tells of the steps
            it has done.
        inputs: of a piece by number; called in the process that runs the study.
        steps: how many steps of progress a piece has.
    """

    compute: Callable[[VLM, Any, Advance], Piece]
    inputs: Callable[[int], Any]
    steps: Callable[[int], int]


class Engine(Protocol):
    """Where one model computes. It is loaded when it is first needed."""

    def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """``question(model, *arguments)``, computed once, by one replica of the model."""

    def run(self, work: Work, chunks: Chunks, advance: Advance) -> None:
        """Make and keep the pieces that are missing.

        Raises:
            MechVRPError: of a piece, the first one's.
        """

    def close(self) -> None:
        """Let go of the model; an engine that is asked again loads it again."""
