"""The observation stage: everything one prefill shows of each example, kept piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from mechvrp.data import is_correct, normalised_for_vote
from mechvrp.errors import InputError, NumericalError, UnavailableError
from mechvrp.reliability import (
    COMPARATOR_SIGNALS,
    STRUCTURE_FEATURES,
    Observations,
    comparator_columns,
    measure_signal,
    observe,
    structure_features,
)
from mechvrp.study.config import StudyConfig
from mechvrp.study.engines.base import Advance, Engine, Piece, Work

if TYPE_CHECKING:
    from mechvrp.data import Dataset, Sample
    from mechvrp.models import VLM
    from mechvrp.store import Chunks

__all__ = ["FEATURE", "observe_missing", "piece_size"]

#: How columns of the stress test's features are called: this and the feature's name.
FEATURE = "feature_"

_PIECE = 128  # examples a piece, about: what a killed run computes again at most


def piece_size(batch_size: int) -> int:
    """Examples a piece: whole batches, so that no example's batch depends on where a run was killed."""
    return batch_size * max(1, round(_PIECE / batch_size))


def observe_missing(
    engine: Engine, dataset: Dataset, config: StudyConfig, chunks: Chunks, advance: Advance
) -> list[str]:
    """Observe the examples whose pieces are not there yet; returns what of all could not be had, and why.

    A piece's table has a row per example (``Observations.to_frame``, whether it is ``correct``, the sampled
    answers, the mean attention map); its arrays are ``hidden`` [layer, example, d_model],
    ``entropy_by_layer`` [layer, example], and the margins at every depth that the model has.

    Args:
        engine: where the model computes.
        dataset, config: of the study.
        chunks: of the model's observations.
        advance: called with the number of examples done.
    """

    def inputs(index: int) -> tuple[range, list[Sample]]:
        rows = chunks.rows(index)
        return rows, dataset[rows.start : rows.stop]

    work = Work(partial(_observe_piece, config), inputs, lambda index: len(chunks.rows(index)))
    engine.run(work, chunks, advance)
    return chunks.notes()


def _observe_piece(
    config: StudyConfig, model: VLM, inputs: tuple[range, list[Sample]], advance: Advance
) -> Piece:
    rows, samples = inputs
    seen = observe(
        model,
        samples,
        k=config.samples,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
        max_new_tokens=config.max_new_tokens,
        normalise=partial(normalised_for_vote, reading=config.yes_no),
        batch_size=config.batch_size,
    )
    table, gaps = _table(seen, rows, config), list[str]()
    if config.comparators:
        table = pd.concat([table, _comparators(model, samples, gaps)], axis=1)
    for name in config.signals:
        if name in table:
            raise InputError(
                f"a study has a column {name!r}: register the signal under another name"
            )
        table[name] = _registered(name, model, samples, seen, gaps)
    gaps += [f"no margins {_DEPTHS[part]}: {why}" for part, why in seen.gaps.items()]
    advance(len(rows))
    arrays = _arrays(seen)
    return Piece(table, arrays, {name: _DIMS[name] for name in arrays}, tuple(gaps))


def _comparators(model: VLM, samples: Sequence[Sample], gaps: list[str]) -> pd.DataFrame:
    """Their columns; empty, with the reason among the gaps, where they can't be had."""
    try:
        return comparator_columns(model, samples)
    except (NumericalError, UnavailableError) as error:
        gaps.append(f"no comparators for {len(samples)} examples: {error}")
        return pd.DataFrame(
            {name: pd.array([pd.NA] * len(samples), "Float64") for name in COMPARATOR_SIGNALS}
        )


def _registered(
    name: str, model: VLM, samples: Sequence[Sample], seen: Observations, gaps: list[str]
) -> Any:
    """A registered signal's column; empty, with the reason among the gaps, where it can't be had."""
    try:
        with torch.no_grad():
            return pd.array(measure_signal(name, model, samples, seen), "Float64")
    except (NumericalError, UnavailableError) as error:
        gaps.append(f"no signal {name} for {len(samples)} examples: {error}")
        return pd.array([pd.NA] * len(samples), "Float64")


def _table(seen: Observations, rows: range, config: StudyConfig) -> pd.DataFrame:
    table = seen.to_frame()
    maps: Sequence[np.ndarray] = seen.maps or ()
    features = pd.DataFrame([structure_features(found) for found in maps])[list(STRUCTURE_FEATURES)]
    mean = [found.mean(axis=(0, 1), dtype=np.float64) for found in maps]
    return table.assign(
        example=np.array(rows),
        correct=[
            is_correct(s, a.text, reading=config.yes_no)
            for s, a in zip(seen.samples, seen.answers, strict=True)
        ],
        votes=pd.Series([list(s.votes) for s in seen.signals], dtype=object),
        map_rows=[found.shape[0] for found in mean],
        map=[(found / found.sum()).astype(np.float32).ravel() for found in mean],
        **{FEATURE + name: features[name].to_numpy() for name in features.columns},
    )


#: The parts of margins by depth.
_DEPTHS = {
    "entry": "before block 0",
    "mid": "between attention and MLP",
    "post": "behind blocks but the last",
}
_DIMS = {
    "hidden": ("layer", "example", "d_model"),
    "entropy_by_layer": ("layer", "example"),
    **{
        f"{kind}_{part}": ("example",)
        for kind in ("own", "truth")
        for part in ("token", "foil", "entry")
    },
    **{
        f"{kind}_{part}": ("layer", "example")
        for kind in ("own", "truth")
        for part in ("mid", "post")
    },
}


def _arrays(seen: Observations) -> dict[str, np.ndarray]:
    arrays: dict[str, Any] = {"hidden": seen.hidden, "entropy_by_layer": seen.entropy_by_layer}
    for kind in ("own", "truth"):
        margins = getattr(seen, kind)
        known = margins.token >= 0
        arrays |= {f"{kind}_token": margins.token, f"{kind}_foil": margins.foil}
        for part in (
            part for part in _DEPTHS if part not in seen.gaps
        ):  # in one order: bytes are kept
            # 0 where there is no such pair: its token is -1
            arrays[f"{kind}_{part}"] = np.where(known, getattr(margins, part), 0.0)
    return arrays
