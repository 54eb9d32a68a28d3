"""What ``summary.json`` and ``examples.parquet`` hold: the contract of runner and report.

`Summary` is the whole of ``summary.json``: ``RunFolder.write_summary(summary.to_json())`` writes it
and ``Summary.from_json(run.read_summary())`` reads it. Each model has its own `ModelSection`. An
absent number is null and comes with a reason, never NaN and never 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechvrp.errors import RunFolderError
from mechvrp.reliability.signals import SIGNALS
from mechvrp.store.columns import check_kinds, check_present
from mechvrp.study.coding import decode, plain
from mechvrp.study.rows import CausalRow, CausalSection, ReadoutRow, ReadoutSection

if TYPE_CHECKING:
    from mechvrp.store import RunFolder

__all__ = [
    "EXAMPLE_COLUMNS",
    "AblationSection",
    "AccuracyRow",
    "CalibrationInfo",
    "CausalRow",
    "CausalSection",
    "ComparisonRow",
    "CurveRow",
    "DataInfo",
    "FusionInfo",
    "LayerRow",
    "ModelInfo",
    "ModelSection",
    "ProbeSection",
    "ReadoutRow",
    "ReadoutSection",
    "SignalRow",
    "SignalSection",
    "Summary",
    "TaskRow",
    "check_examples",
]

SCHEMA_VERSION = 1

EXAMPLE_COLUMNS: dict[str, str] = {
    "model": "name of the model, as in its section of the summary",
    "example": "index of the example in the data set",
    "image_id": "identity of the image",
    "source_id": "image_id, or that of the image it was made from; not in older runs",
    "task": "task name",
    "split": "'train' or 'heldout'",
    "question": "the question as asked, without the prompt template",
    "answer": "the benchmark's answer",
    "prediction": "the model's greedy answer",
    "correct": "boolean, by the benchmark's own rule",
    "answer_probability": "the model's probability of its answer, 0 to 1",
    "probe_score": "held-out examples: log-odds of a right answer; null for training examples",
    "gallery": "name of the image's picture in gallery/, or null if the run keeps none",
}


#: Of `EXAMPLE_COLUMNS`: not in tables of older runs.
_NEWER = ("source_id",)
#: Of `EXAMPLE_COLUMNS`: with rows that have no value.
_MISSING = ("probe_score", "gallery")
#: What each of `EXAMPLE_COLUMNS` holds; text, where it is not said.
_KINDS = dict.fromkeys(EXAMPLE_COLUMNS, "text") | {
    "example": "whole number",
    "correct": "boolean",
    "answer_probability": "number",
    "probe_score": "number",
}


@dataclass(frozen=True)
class ModelInfo:
    """One model: its name, the family's name, its sizes, and which weights it had (``fingerprint``).

    ``crops``: it is shown a central square of an image; null in runs that did not note it.
    """

    name: str
    family: str
    n_layers: int
    d_model: int
    n_parameters: int
    dtype: str
    device: str
    fingerprint: str = ""
    crops: bool | None = None


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
    signal is higher where answers are wrong. ``uses_label``: it describes and must not predict. ``p`` is of
    no difference between right and wrong answers, ``q`` Benjamini and Hochberg's over the scope's signals.
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
    p: float | None = None
    q: float | None = None


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
    readouts: ReadoutSection | None = None
    causal: CausalSection | None = None


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
        found: dict[str, Any] = plain(dataclasses.asdict(self))
        return found

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
        summary: Summary = decode(cls, value, "summary")
        return summary


def check_examples(run: RunFolder, models: Sequence[str]) -> None:
    """Check that a run's table has `EXAMPLE_COLUMNS`, signals that are numbers, and rows of every model.

    Args:
        run: with a table of examples.
        models: models that must have rows.

    Raises:
        RunFolderError: a column or a model's rows are missing, or a column holds something else.
    """
    columns, path = run.example_columns(), run.path / "examples.parquet"
    absent = [n for n in EXAMPLE_COLUMNS if n not in columns and n not in _NEWER]
    if absent:
        raise RunFolderError(f"examples.parquet lacks the columns {absent}; it has {list(columns)}")
    signals = run.config.get("signals")
    more = signals if isinstance(signals, list) else ()
    check_kinds(path, columns, dict.fromkeys([*SIGNALS, *map(str, more)], "number") | _KINDS)
    required = tuple(name for name in _KINDS if name not in (*_NEWER, *_MISSING))
    table = run.read_examples(required)
    check_present(path, table, required)
    without = sorted(set(models) - set(table["model"]))
    if without:
        raise RunFolderError(f"examples.parquet has no rows of the models {without}")
