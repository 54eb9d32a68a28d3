"""``Observations``: all signals of some examples, as arrays and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechvrp.errors import InputError
from mechvrp.reliability.answers import Answer
from mechvrp.reliability.generation import AnswerSignals
from mechvrp.reliability.margins import Margins, join_margins

if TYPE_CHECKING:
    from mechvrp.data import Sample

__all__ = ["STRUCTURE_SIGNALS", "Observations", "join_observations"]

#: Columns of ``Observations.structure``.
STRUCTURE_SIGNALS = (
    "spatial_entropy",
    "spatial_entropy_normalised",
    "cluster_count",
    "image_mass",
    "top_k_mass",
    "gini",
    "peak_sharpness",
    "centre_distance",
    "head_agreement",
)


@dataclass(frozen=True, eq=False, repr=False)
class Observations:
    """What one prefill of each example shows. Made by ``observe``.

    Attributes:
        model: the model's name.
        samples: the examples.
        signals: of each, its greedy answer and the sampled ones.
        hidden: residual stream of the last prompt position behind every block, before any answer token
            is fed, float32.
        structure: numbers of the mean attention map, a column for each of ``STRUCTURE_SIGNALS``.
        entropy_by_layer: H_s of each layer's map, in nats.
        region_mass: share of the map on what the question asks for, NaN where that is not known.
        own: margins of the model's first token and its runner-up.
        truth: margins of the right answer's first token and its foil; NaN for samples without answers.
        maps: attention from the last prompt position to the image tokens, [layer, head, row, col] each
            (grids may differ); ``None`` where they were not kept.
        gaps: by the name of a part of the margins (``entry``, ``mid``, ``post``) why the model has none at
            some depths, where they are NaN. The final margin is always there.
    """

    model: str
    samples: tuple[Sample, ...]
    signals: tuple[AnswerSignals, ...]
    hidden: Float[np.ndarray, "layer example d_model"]
    structure: Float[np.ndarray, "example signal"]
    entropy_by_layer: Float[np.ndarray, "layer example"]
    region_mass: Float[np.ndarray, " example"]
    own: Margins
    truth: Margins
    maps: tuple[Float[np.ndarray, "layer head row col"], ...] | None
    gaps: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def answers(self) -> list[Answer]:
        """The greedy answers, as from ``greedy_answers``."""
        return [s.answer for s in self.signals]

    @property
    def entropy_evolution(self) -> Float[np.ndarray, "change example"]:
        """dH_s: change of H_s from each layer to the next, in nats, [layer - 1, example]."""
        return np.diff(self.entropy_by_layer, axis=0)

    def to_frame(self) -> pd.DataFrame:
        """A row per example: what it is, the greedy answer, and a column per signal.

        Signals that do not exist for some examples (``self_consistency`` without samples,
        ``expected_self_consistency`` of longer answers, ``truth_margin`` without an answer,
        ``region_mass`` without a known region) are nullable columns, missing there (``pd.NA``), never NaN.
        """
        plain: dict[str, Any] = {
            "model": self.model,
            "example": np.arange(len(self)),
            "image_id": [s.image_id for s in self.samples],
            "source_id": [s.source_id for s in self.samples],
            "task": [s.task for s in self.samples],
            "question": [s.question for s in self.samples],
            "answer": [s.answer for s in self.samples],
            "prediction": [a.text for a in self.answers],
            "answer_tokens": [len(a.tokens) for a in self.answers],
        }
        structure = dict(zip(STRUCTURE_SIGNALS, self.structure.T, strict=True))
        structure["cluster_count"] = structure["cluster_count"].astype(np.int64)
        return pd.DataFrame(
            {
                **plain,
                **structure,
                "region_mass": _nullable(self.region_mass),
                "p_tok": [s.token_confidence for s in self.signals],
                "answer_probability": [a.probability for a in self.answers],
                "logit_entropy": [s.logit_entropy for s in self.signals],
                "self_consistency": _nullable([s.self_consistency for s in self.signals]),
                "expected_self_consistency": _nullable(
                    [s.expected_self_consistency for s in self.signals]
                ),
                "own_margin": self.own.final,
                "truth_margin": _nullable(self.truth.final),
            }
        )

    def __repr__(self) -> str:
        layers, n, width = self.hidden.shape
        maps = "" if self.maps is None else ", with maps"
        return f"Observations({self.model!r}, {n} examples, {layers} layers of {width}{maps})"


def _nullable(values: Any) -> pd.Series:
    """Numbers as pandas' ``Float64``, missing where they are ``None`` or NaN."""
    return pd.Series(
        [pd.NA if v is None or np.isnan(v) else float(v) for v in values], dtype="Float64"
    )


def join_observations(parts: Sequence[Observations]) -> Observations:
    """Batches of one model as one; maps are kept if all have them.

    Raises:
        InputError: nothing to join, or observations of several models.
    """
    if not parts:
        raise InputError("no observations to join: there were no samples")
    models = {part.model for part in parts}
    if len(models) > 1:
        raise InputError(f"observations of several models cannot be joined: {sorted(models)}")
    kept = all(part.maps is not None for part in parts)
    return Observations(
        model=parts[0].model,
        samples=tuple(s for part in parts for s in part.samples),
        signals=tuple(s for part in parts for s in part.signals),
        hidden=np.concatenate([part.hidden for part in parts], axis=1),
        structure=np.concatenate([part.structure for part in parts]),
        entropy_by_layer=np.concatenate([part.entropy_by_layer for part in parts], axis=1),
        region_mass=np.concatenate([part.region_mass for part in parts]),
        own=join_margins([part.own for part in parts]),
        truth=join_margins([part.truth for part in parts]),
        maps=tuple(m for part in parts for m in part.maps or ()) if kept else None,
        gaps=parts[0].gaps,
    )
