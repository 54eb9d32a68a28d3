"""What ``summary.json`` and ``examples.parquet`` hold: the contract of runner and report.

`Summary` is the whole of ``summary.json``: ``RunFolder.write_summary(summary.to_json())`` writes it
and ``Summary.from_json(run.read_summary())`` reads it. Each model has its own `ModelSection`. An
absent number is null and comes with a reason, never NaN and never 0.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from mechvrp.errors import RunFolderError

__all__ = [
    "EXAMPLE_COLUMNS",
    "AblationSection",
    "AccuracyRow",
    "CalibrationInfo",
    "ComparisonRow",
    "CurveRow",
    "DataInfo",
    "FusionInfo",
    "LayerRow",
    "ModelInfo",
    "ModelSection",
    "ProbeSection",
    "SignalRow",
    "SignalSection",
    "Summary",
    "TaskRow",
    "check_examples",
    "rows_of",
]

SCHEMA_VERSION = 1

EXAMPLE_COLUMNS: dict[str, str] = {
    "model": "name of the model, as in its section of the summary",
    "example": "index of the example in the data set",
    "image_id": "identity of the image",
    "task": "task name",
    "split": "'train' or 'heldout'",
    "question": "the question as asked, without the prompt template",
    "answer": "the benchmark's answer",
    "prediction": "the model's greedy answer",
    "correct": "boolean, by the benchmark's own rule",
    "answer_probability": "the model's probability of its answer, 0 to 1",
    "probe_score": "held-out examples: log-odds of a right answer; null for training examples",
    "gallery": "name of the image in gallery/, or null if it is not in the gallery",
}


@dataclass(frozen=True)
class ModelInfo:
    """One model: its name, the family's name and its sizes."""

    name: str
    family: str
    n_layers: int
    d_model: int
    n_parameters: int
    dtype: str
    device: str


@dataclass(frozen=True)
class DataInfo:
    """The data set, and how its examples and images were divided."""

    name: str
    split: str
    seed: int | None
    n: int
    n_images: int
    n_train: int
    n_train_images: int
    n_heldout: int
    n_heldout_images: int
    tasks: tuple[str, ...]
    n_skipped: int = 0


@dataclass(frozen=True)
class AccuracyRow:
    """Accuracy (0 to 1) of one task (or ``"all"``) in one split (or ``"all"``)."""

    task: str
    split: str
    n: int
    n_right: int
    n_groups: int
    accuracy: float | None
    low: float | None
    high: float | None
    level: float
    gap: str = ""


@dataclass(frozen=True)
class LayerRow:
    """One layer of the probe sweep; `ProbeSweep.to_frame`."""

    layer: int
    chosen: bool
    c: float
    cv_auroc: float
    auroc: float
    low: float
    high: float
    n: int
    n_groups: int
    level: float


@dataclass(frozen=True)
class TaskRow:
    """The chosen probe's AUROC over all, within tasks, per task; `ProbeSweep.tasks_frame`."""

    task: str
    n: int
    n_right: int
    auroc: float | None
    low: float | None
    high: float | None
    gap: str


@dataclass(frozen=True)
class ComparisonRow:
    """One score and scope beside the probe; `Comparison.to_frame`."""

    name: str
    scope: str
    auroc: float | None
    low: float | None
    high: float | None
    kind: str
    n: int
    lead: float | None
    lead_low: float | None
    lead_high: float | None


@dataclass(frozen=True)
class CurveRow:
    """One k of the ablation curve, over all or in one task; `AblationCurve.to_frame`."""

    task: str
    k: int
    n: int
    n_groups: int
    level: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    change: float
    change_low: float
    change_high: float
    random_change: float
    random_change_low: float
    random_change_high: float
    excess: float
    excess_low: float
    excess_high: float
    random_min: float
    random_max: float
    change_p: float | None
    change_q: float | None
    excess_p: float | None
    excess_q: float | None
    draws: int
    curve_p: float | None


@dataclass(frozen=True)
class ProbeSection:
    """The probe sweep, its tasks and its comparison with baselines.

    ``site`` is the hook name with the chosen layer in it, ``site_words`` says it in words.
    """

    site: str
    site_words: str
    chosen_layer: int
    folds: int
    control_draws: int
    n_resamples: int
    layers: tuple[LayerRow, ...]
    tasks: tuple[TaskRow, ...]
    comparison: tuple[ComparisonRow, ...]


@dataclass(frozen=True)
class AblationSection:
    """The ablation curve; ``units`` is the site's number of units, ``edit`` says what was done."""

    site: str
    edit: str
    units: int
    draws: int
    n_resamples: int
    points: tuple[CurveRow, ...]


@dataclass(frozen=True)
class SignalRow:
    """One signal against correctness, over all examples or within tasks.

    ``r`` is the point-biserial correlation (over all examples only); an ``auroc`` below 0.5 means that the
    signal is higher where answers are wrong. ``uses_label``: it describes and must not predict.
    """

    name: str
    kind: str
    uses_label: bool
    cost_forwards: float
    scope: str
    n: int
    r: float | None
    r_low: float | None
    r_high: float | None
    auroc: float | None
    low: float | None
    high: float | None
    gap: str = ""


@dataclass(frozen=True)
class FusionInfo:
    """Signals in one logistic regression, on held-out images, against the best single one of training.

    ``within`` is the AUROC over pairs of the same task, null where there is one task (or it is undefined).
    """

    names: tuple[str, ...]
    n: int
    auroc: float
    low: float
    high: float
    best: str
    best_auroc: float
    lead: float
    lead_low: float
    lead_high: float
    within: float | None
    within_low: float | None
    within_high: float | None


@dataclass(frozen=True)
class CalibrationInfo:
    """Of the answer's probability: ECE (equal width), Brier score, mean confidence minus accuracy."""

    n: int
    ece: float
    ece_low: float
    ece_high: float
    ece_if_calibrated: float
    brier: float
    brier_low: float
    brier_high: float
    excess: float
    excess_low: float
    excess_high: float


@dataclass(frozen=True)
class SignalSection:
    """All signals, their fusion, and the calibration of the answer's probability."""

    rows: tuple[SignalRow, ...]
    fusion: FusionInfo | None
    calibration: CalibrationInfo | None
    n_resamples: int
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSection:
    """Everything about one model. A part that was not run is null, with the reason in ``notes``."""

    model: ModelInfo
    data: DataInfo
    label_rule: str
    accuracy: tuple[AccuracyRow, ...]
    probe: ProbeSection | None
    ablation: AblationSection | None
    timings_s: dict[str, float]
    notes: tuple[str, ...] = ()
    signals: SignalSection | None = None


@dataclass(frozen=True)
class Summary:
    """The whole of ``summary.json``.

    Attributes:
        title: heading of the report.
        created: ISO 8601 time, UTC.
        seeds: what was seeded, and with what.
        sections: one per model.
        schema: version of this layout.
    """

    title: str
    created: str
    seeds: dict[str, int]
    sections: tuple[ModelSection, ...]
    schema: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """JSON types only; tuples become lists."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Summary:
        """Rebuild a summary.

        Raises:
            RunFolderError: a field is missing, unknown or of another type; it is named.
        """
        if value.get("schema") != SCHEMA_VERSION:
            raise RunFolderError(
                f"summary.json is of schema {value.get('schema')!r}; this mechvrp reads "
                f"{SCHEMA_VERSION}. Use the version of mechvrp that wrote it"
            )
        summary: Summary = _decode(cls, value, "summary")
        return summary


Row = TypeVar("Row")


def rows_of(row_type: type[Row], frame: pd.DataFrame) -> tuple[Row, ...]:
    """A result's ``to_frame()`` as rows of the schema; NaN becomes None.

    >>> rows_of(LayerRow, sweep.to_frame())  # doctest: +SKIP
    """
    records = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    return tuple(
        _decode(row_type, {str(k): _item(v) for k, v in record.items()}, row_type.__name__)
        for record in records
    )


def check_examples(examples: pd.DataFrame, models: Sequence[str]) -> None:
    """Check that a table has `EXAMPLE_COLUMNS` and rows of every model.

    Raises:
        RunFolderError: a column or a model's rows are missing.
    """
    absent = [name for name in EXAMPLE_COLUMNS if name not in examples.columns]
    if absent:
        raise RunFolderError(
            f"examples.parquet lacks the columns {absent}; it has {list(examples.columns)}"
        )
    without = sorted(set(models) - set(examples["model"]))
    if without:
        raise RunFolderError(f"examples.parquet has no rows of the models {without}")


def _item(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else _item(value)


def _decode(kind: Any, value: Any, where: str) -> Any:
    """``value`` (JSON) as ``kind``: a dataclass, tuple[X, ...], dict[str, X], X | None, or X."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if not isinstance(value, Mapping):
            raise RunFolderError(f"{where}: expected an object, found {value!r:.60}")
        absent = [
            field.name
            for field in dataclasses.fields(kind)
            if field.name not in value and field.default is dataclasses.MISSING
        ]
        unknown = sorted(set(value) - set(hints))
        if absent or unknown:
            raise RunFolderError(f"{where}: missing fields {absent}, unknown fields {unknown}")
        fields = {
            name: _decode(hints[name], item, f"{where}.{name}") for name, item in value.items()
        }
        return typing.cast(Any, kind)(**fields)
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _decode(inner, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise RunFolderError(f"{where}: expected {kind}, found {value!r:.60}")
