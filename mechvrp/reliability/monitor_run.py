"""What the monitor is fitted on: one model's examples in a run folder, and its hidden states."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechvrp.errors import InputError, RunFolderError
from mechvrp.models import VLM, fingerprint
from mechvrp.reliability.signals import SIGNALS
from mechvrp.store import Chunks, RunFolder
from mechvrp.store.columns import check_kinds, check_present

__all__ = ["FittedModel", "RunExamples", "identify", "read_run"]

#: Of a run's summary, what tells its model.
_INFO = {"name": str, "family": str, "n_layers": int, "d_model": int, "dtype": str}


#: Of its table of examples, what each example must have.
_COLUMNS = {
    **dict.fromkeys(("model", "image_id", "task", "split"), "text"),
    "example": "whole number",
    "correct": "boolean",
}


@dataclass(frozen=True)
class FittedModel:
    """The model that a monitor is for.

    Attributes:
        name, family, n_layers, d_model, dtype: as the run has them.
        fingerprint: of its weights (`mechvrp.models.fingerprint`).
    """

    name: str
    family: str
    n_layers: int
    d_model: int
    dtype: str
    fingerprint: str

    def check(self, model: VLM) -> None:
        """Refuse any other model.

        Another dtype is refused like other weights: it moves the hidden states and some answers, and
        what was promised was promised of the answers that were counted.

        Raises:
            InputError: it is another model; the message says what differs. Or it is no loaded model.
        """
        if not isinstance(model, VLM):
            raise InputError(
                f"a loaded model is expected, as mechvrp.load(...) gives it; got {type(model).__name__}"
            )
        found = _description(model)
        for field, value in found.items():
            mine = getattr(self, field)
            if value != mine:
                remedy = (
                    f"load it with dtype={mine!r}, or fit a monitor on a run in {value}"
                    if field == "dtype"
                    else "fit a monitor on a run of this model"
                )
                raise InputError(
                    f"this monitor was fitted on {self.name} of {field} {mine!r}; {model.name} has {value!r}: "
                    f"{remedy}"
                )
        weights = fingerprint(model)
        if weights != self.fingerprint:
            raise InputError(
                f"this monitor was fitted on {self.name} with the weights {self.fingerprint}; those of "
                f"{model.name} are {weights}: fit a monitor on a run of this model"
            )


def _description(model: VLM) -> dict[str, Any]:
    return {
        "family": model.family.name,
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def identify(model: VLM) -> FittedModel:
    """A model's own description."""
    return FittedModel(name=model.name, fingerprint=fingerprint(model), **_description(model))


@dataclass(frozen=True)
class RunExamples:
    """One model's examples in a run.

    Attributes:
        model: which one.
        data: name of the dataset.
        max_new_tokens: at which answers were cut.
        table: a row per example, in the dataset's order.
        pieces: of the observation stage, which hold the hidden states.
    """

    model: FittedModel
    data: str
    max_new_tokens: int
    table: pd.DataFrame
    pieces: Chunks

    def check_sizes(self) -> None:
        """Compare the model's sizes with what the first piece holds, before anything is made by them.

        Raises:
            RunFolderError: they differ, or the piece is missing or damaged.
        """
        held = next(self.pieces.examples("hidden", np.arange(0))).shape
        if held != (self.model.n_layers, 0, self.model.d_model):
            raise RunFolderError(
                f"the run's summary tells of {self.model.n_layers} layers of width {self.model.d_model}, "
                f"and the hidden states in {self.pieces.folder} are of shape {held} (no example). Run the "
                "study again"
            )

    def hidden(
        self, rows: np.ndarray, layers: Sequence[int]
    ) -> Float[np.ndarray, "layer row d_model"]:
        """Residual streams of some examples behind some blocks; one piece is in memory at a time.

        Args:
            rows: ascending.
            layers: their numbers.

        Raises:
            RunFolderError: a piece is missing or of another model's shape.
        """
        self.check_sizes()
        found = np.empty((len(layers), len(rows), self.model.d_model), dtype=np.float32)
        for index, part in enumerate(self.pieces.arrays(["hidden"])):
            held, span = part["hidden"], self.pieces.rows(index)
            if held.shape != (self.model.n_layers, len(span), self.model.d_model):
                raise RunFolderError(
                    f"piece {index} in {self.pieces.folder} holds hidden states {held.shape}; expected "
                    f"({self.model.n_layers}, {len(span)}, {self.model.d_model}). Run the study again"
                )
            low, high = np.searchsorted(rows, [span.start, span.stop])
            inside = rows[low:high] - span.start
            found[:, low:high] = held[np.asarray(layers)][:, inside]
        return found


def read_run(run: Any, model: VLM | str | None) -> RunExamples:
    """One model's examples.

    Args:
        run: a run folder, its path, or what ``mechvrp.run_study`` returned.
        model: which of the run's models, by its name or loaded; needed where the run has several, and
            loaded where the run does not say by which weights it was made.

    Raises:
        RunFolderError: the folder holds no finished run.
        InputError: the run is not one of this model, or which one is meant cannot be told.
    """
    if model is not None and not isinstance(model, VLM | str):
        raise InputError(
            "model is one of the run's models, by its name or as mechvrp.load(...) gives it; got "
            f"{type(model).__name__}"
        )
    folder = getattr(run, "run", run)
    if isinstance(folder, str | Path):
        folder = RunFolder.open(folder)
    if not isinstance(folder, RunFolder):
        raise InputError(
            f"fit takes a run folder, its path, or what run_study returned; got {type(run).__name__}"
        )
    sections = _sections(folder)
    names = [info["name"] for info in sections]
    if model is None and len(names) > 1:
        raise InputError(
            f"{folder.path} holds runs of {', '.join(names)}; say which by its name: model={names[0]!r}"
        )
    name = model.name if isinstance(model, VLM) else model
    if name is not None and name not in names:
        raise InputError(f"{folder.path} holds runs of {', '.join(names)}, not of {name}")
    index = 0 if name is None else names.index(name)
    fitted = _fitted(sections[index], model if isinstance(model, VLM) else None, folder)
    path, columns = folder.path / "examples.parquet", folder.example_columns()
    absent = [column for column in _COLUMNS if column not in columns]
    if absent:
        raise RunFolderError(f"{path} lacks the columns {absent}; it has {list(columns)}")
    numbers = [column for column in SIGNALS if column in columns]
    check_kinds(path, columns, dict.fromkeys(numbers, "number") | _COLUMNS)
    table = folder.read_examples()
    check_present(path, table, tuple(_COLUMNS))
    table = table[table["model"] == fitted.name].sort_values("example").reset_index(drop=True)
    return RunExamples(
        model=fitted,
        data=str(folder.config.get("data")),
        max_new_tokens=_max_new_tokens(folder),
        table=table,
        pieces=_pieces(folder, index, fitted.name, table),
    )


def _sections(folder: RunFolder) -> list[dict[str, Any]]:
    found = folder.read_summary().get("sections")
    if found is not None and not isinstance(found, list):
        raise RunFolderError(
            f"{folder.path / 'summary.json'} is damaged: its sections are {found!r:.60}"
        )
    infos = [s.get("model") if isinstance(s, dict) else None for s in found or []]
    for info in infos:
        if not isinstance(info, dict) or any(type(info.get(k)) is not t for k, t in _INFO.items()):
            raise RunFolderError(
                f"{folder.path / 'summary.json'} is damaged: it does not describe its models"
            )
        if min(info["n_layers"], info["d_model"]) < 1:
            raise RunFolderError(
                f"{folder.path / 'summary.json'} is damaged: {info['name']} has {info['n_layers']} layers of "
                f"width {info['d_model']}"
            )
    if not infos:
        raise RunFolderError(f"{folder.path / 'summary.json'} describes no model")
    return infos  # type: ignore[return-value]


def _fitted(info: dict[str, Any], model: VLM | None, folder: RunFolder) -> FittedModel:
    known = info.get("fingerprint") or None
    if known is None and model is None:
        raise InputError(
            f"{folder.path} does not record the weights of {info['name']}; give the model that the run "
            "was made with: Monitor.fit(run, model=mechvrp.load(...))"
        )
    weights = fingerprint(model) if known is None and model is not None else str(known)
    fitted = FittedModel(**{name: info[name] for name in _INFO}, fingerprint=weights)
    if model is not None:
        fitted.check(model)
    return fitted


def _max_new_tokens(folder: RunFolder) -> int:
    found = folder.config.get("max_new_tokens")
    if type(found) is not int or found < 1:
        raise RunFolderError(
            f"{folder.path} does not say how long answers could be: max_new_tokens is {found!r}"
        )
    return found


def _pieces(folder: RunFolder, index: int, name: str, table: pd.DataFrame) -> Chunks:
    part = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{index}-{name}")
    written = folder.written_chunks("observe")
    if part not in written:
        raise RunFolderError(
            f"{folder.path} holds no observations of {name} (parts: {sorted(written)}); run the study again"
        )
    pieces = written[part]
    here = len(table) == pieces.total  # a total that is far too large must not be counted through
    if not here or not np.array_equal(table["example"].to_numpy(), np.arange(pieces.total)):
        raise RunFolderError(
            f"the table in {folder.path} has {len(table)} examples of {name}, its observations "
            f"{pieces.total}; run the study again"
        )
    return pieces
