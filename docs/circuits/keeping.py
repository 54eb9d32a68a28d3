"""What was found of one checkpoint, and its folder: written when it is done, read by all that comes after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io

from mechvrp.circuits import AblationCurve, Circuit, FlowPoint, ImageFlow, PatchedShares
from mechvrp.errors import MechVRPError
from mechvrp.statistics import Estimate
from mechvrp.store.json_files import plain

#: Raised when a folder holds other things than before, so that older ones are made anew.
VERSION = 1
COLUMNS = ["figure", "value", "low", "high", "p", "random", "n", "n_groups"]


@dataclass(frozen=True)
class Shares:
    """The measure of a circuit's pairs, pair by pair: what differences between models are made of."""

    images: tuple[str, ...]
    full: np.ndarray  # [pair]: the whole model
    empty: np.ndarray  # [pair]: every head and MLP ablated
    kept: np.ndarray  # [pair]: all but the circuit ablated
    without: np.ndarray  # [pair]: the circuit ablated


@dataclass
class Found:
    """What was found of one checkpoint; what could not be is a gap, with its reason."""

    name: str
    family: str
    fingerprint: str
    made: dict[str, Any]  # sizes and seed
    figures: list[dict[str, Any]] = field(default_factory=list)  # rows of COLUMNS
    hallucinated: dict[str, Any] = field(default_factory=dict)
    answers: pd.DataFrame = field(default_factory=pd.DataFrame)
    circuits: dict[str, Circuit] = field(default_factory=dict)
    shares: dict[str, Shares] = field(default_factory=dict)
    curves: dict[str, AblationCurve] = field(default_factory=dict)
    flow: ImageFlow | None = None
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    plots: dict[str, go.Figure] = field(default_factory=dict)
    gaps: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, figure: str, value: float | Estimate, **more: float | None) -> None:
        """A figure that matters: ``more`` are others of COLUMNS."""
        row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"figure": figure} | more
        if isinstance(value, Estimate):
            row |= {"value": value.value, "low": value.low, "high": value.high}
            row |= {"n": value.n, "n_groups": value.n_groups}
        else:
            row["value"] = float(value)
        self.figures.append(row)

    def get(self, figure: str) -> dict[str, Any] | None:
        """The row of a figure, if there is one."""
        return next((row for row in self.figures if row["figure"] == figure), None)

    @contextmanager
    def gap(self, words: str) -> Iterator[None]:
        """What the library refuses inside is a gap of this name."""
        try:
            yield
        except MechVRPError as error:
            self.gaps[words] = str(error)


def file_name(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name).split()).lower()


def is_kept(folder: Path, fingerprint: str, made: dict[str, Any]) -> bool:
    """Whether the folder is complete, of these weights, sizes and seed."""
    try:
        held = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(held, dict):
        return False
    wanted = {"version": VERSION, "fingerprint": fingerprint, "made": json.loads(json.dumps(made))}
    return all(held.get(name) == value for name, value in wanted.items())


def damage(folder: Path) -> str:
    """Why what `keep` wrote cannot be read; "" if it can."""
    try:
        read(folder)
    except (MechVRPError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def keep(found: Found, folder: Path) -> None:
    """Write tables as CSV, circuits and curves as JSON, and last of all found.json, which makes it complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "found.json").unlink(missing_ok=True)
    for name, circuit in found.circuits.items():
        circuit.save(folder / f"circuit-{file_name(name)}.json")
    for name, curve in found.curves.items():
        curve.save(folder / f"curve-{file_name(name)}.json")
    for name, figure in found.plots.items():
        figure.write_json(folder / f"plot-{file_name(name)}.json")
    tables = dict(found.tables) | {"answers": found.answers}
    tables["figures"] = pd.DataFrame(found.figures, columns=COLUMNS)
    for name, frame in tables.items():
        frame.to_csv(folder / f"{file_name(name)}.csv", index=False)
    held = {"version": VERSION} | {
        name: getattr(found, name)
        for name in ("name", "family", "fingerprint", "made", "figures", "hallucinated", "gaps", "seconds")
    }  # fmt: skip
    held |= {name: list(getattr(found, name)) for name in ("circuits", "curves", "tables", "plots")}
    held["shares"] = {name: asdict(one) for name, one in found.shares.items()}
    held["flow"] = None if found.flow is None else asdict(found.flow)
    text = json.dumps(plain(held, "found.json"), ensure_ascii=False)
    (folder / "found.json").write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> Found:
    """What `keep` wrote."""
    held = json.loads((folder / "found.json").read_text(encoding="utf-8"))

    def csv(name: str) -> pd.DataFrame:
        try:
            return pd.read_csv(folder / f"{file_name(name)}.csv")
        except pd.errors.EmptyDataError:
            return pd.DataFrame()

    return Found(
        name=held["name"], family=held["family"], fingerprint=held["fingerprint"], made=held["made"],
        figures=held["figures"], hallucinated=held["hallucinated"], gaps=held["gaps"],
        seconds=held["seconds"],
        answers=csv("answers"),
        circuits={n: Circuit.load(folder / f"circuit-{file_name(n)}.json") for n in held["circuits"]},
        curves={n: AblationCurve.load(folder / f"curve-{file_name(n)}.json") for n in held["curves"]},
        tables={n: csv(n) for n in held["tables"]},
        plots={
            n: plotly.io.read_json(folder / f"plot-{file_name(n)}.json") for n in held["plots"]
        },
        shares={
            n: Shares(tuple(one.pop("images")), **{k: np.array(v) for k, v in one.items()})
            for n, one in held["shares"].items()
        },
        flow=None if held["flow"] is None else _flow(held["flow"]),
    )  # fmt: skip


def _flow(held: dict[str, Any]) -> ImageFlow:
    def point(row: dict[str, Any]) -> FlowPoint:
        parts = {name: row[name] and Estimate(**row[name]) for name in ("value", "control", "lead")}
        return FlowPoint(**(row | parts))

    shares = held["shares"]
    if shares is not None:
        arrays = {n: {k: np.array(v) for k, v in shares[n].items()} for n in ("moved", "control")}
        shares = PatchedShares(
            tuple(shares["layers"]), arrays["moved"], arrays["control"], np.array(shares["span"]),
            np.array(shares["images"]), shares["unchanged"],
        )  # fmt: skip
    points = tuple(point(row) for row in held["points"])
    return ImageFlow(**(held | {"points": points, "shares": shares}))
