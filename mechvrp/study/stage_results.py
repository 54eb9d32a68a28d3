"""What each stage leaves in the run folder for a model: ``stages/STAGE/MODEL.json``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mechvrp.circuits import FittedProbe
from mechvrp.store import RunFolder
from mechvrp.study.coding import decode, plain
from mechvrp.study.schema import (
    AblationSection,
    AccuracyRow,
    CausalSection,
    ModelInfo,
    ProbeSection,
    ReadoutSection,
    SignalSection,
)

__all__ = ["STAGES", "Correlated", "Intervened", "Observed", "ProbeChoice", "keep", "kept"]

STAGES = ("observe", "correlate", "intervene", "report")

Result = TypeVar("Result", "Observed", "Correlated", "Intervened")


@dataclass(frozen=True)
class Observed:
    """That a model was observed; ``failure`` says why it could not be."""

    model: ModelInfo
    timings_s: dict[str, float]
    notes: tuple[str, ...]
    failure: str = ""


@dataclass(frozen=True)
class ProbeChoice:
    """The probe that was chosen, of the residual stream behind block ``layer``; see ``FittedProbe``."""

    layer: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    coef: tuple[float, ...]
    intercept: float
    c: float
    images: tuple[str, ...] | None = None  # unknown to files of earlier versions

    @classmethod
    def of(cls, layer: int, probe: FittedProbe) -> ProbeChoice:
        mean, scale, coef = (tuple(a.tolist()) for a in (probe.mean, probe.scale, probe.coef))
        images = None if probe.images is None else tuple(sorted(probe.images))
        return cls(layer, mean, scale, coef, float(probe.intercept), float(probe.c), images)

    @property
    def site(self) -> str:
        return f"blocks.{self.layer}.hook_resid_post"

    @property
    def probe(self) -> FittedProbe:
        mean, scale, coef = (np.array(a) for a in (self.mean, self.scale, self.coef))
        images = None if self.images is None else frozenset(self.images)
        return FittedProbe(mean, scale, coef, self.intercept, self.c, images)


@dataclass(frozen=True)
class Correlated:
    """What the observations say; ``scores`` are the probe's, by held-out example."""

    accuracy: tuple[AccuracyRow, ...]
    signals: SignalSection
    probe: ProbeSection | None
    readouts: ReadoutSection | None
    choice: ProbeChoice | None
    scored: tuple[int, ...]
    scores: tuple[float, ...]
    timings_s: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Intervened:
    """What the interventions say."""

    ablation: AblationSection | None
    causal: CausalSection | None
    timings_s: dict[str, float]
    notes: tuple[str, ...]


_STAGE_OF: dict[type, str] = {
    Observed: "observe",
    Correlated: "correlate",
    Intervened: "intervene",
}


def keep(run: RunFolder, part: str, result: Observed | Correlated | Intervened) -> None:
    """Write a stage's result; a stage whose result is there has ended."""
    run.write_stage(_STAGE_OF[type(result)], part, plain(dataclasses.asdict(result)))


def kept(run: RunFolder, part: str, kind: type[Result]) -> Result | None:
    """A stage's result, or ``None`` if it has not ended.

    Raises:
        RunFolderError: the file is damaged.
    """
    value = run.read_stage(_STAGE_OF[kind], part)
    return None if value is None else decode(kind, value, f"stages/{_STAGE_OF[kind]}")
