"""``compare.html`` and its tables: a comparison as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mechvrp.errors import RunFolderError
from mechvrp.plots import (
    ablations_by_model,
    accuracy_by_model,
    auroc_against_cost,
    changes_by_model,
    layers_by_model,
    signals_by_model,
)
from mechvrp.store.atomic import TEMPORARY, remove_temporaries, write_atomically
from mechvrp.store.json_files import read_object
from mechvrp.store.places import is_file, make_folder, names_in, place, refuse_links, unreachable
from mechvrp.study.compare_tables import TextTable, latex
from mechvrp.study.compare_units import Unit
from mechvrp.study.page import figure_json, render

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from mechvrp.study.comparing import RunComparison

__all__ = [
    "check_out",
    "comparison_figures",
    "render_comparison",
    "write_comparison",
    "write_text",
]

_MARKER = "comparison.json"
_FORMAT = "mechvrp-comparison"


def write_comparison(found: RunComparison, out: str | Path) -> Path:
    """Write ``compare.html``, ``tables/*.csv``, ``tables/*.tex`` and ``comparison.json``; returns the page.

    Each file is written as a whole or not at all. A folder with an earlier comparison is written over.

    Raises:
        RunFolderError: ``out`` is a file, is or lies in a run folder, or holds what no comparison wrote.
    """
    folder = place(out)
    earlier = check_out(folder)
    files: dict[str, str] = {"compare.html": render_comparison(found)}
    for name, table in found.tables().items():
        files[f"tables/{name}.csv"] = table.to_csv(index=False)
        files[f"tables/{name}.tex"] = latex(found.text_tables()[name])
    make_folder(folder / "tables")
    there = names_in(folder) | {f"tables/{name}" for name in names_in(folder / "tables")}
    foreign = [n for n in files if n in there and n not in earlier]
    if foreign:
        raise RunFolderError(
            f"{out}: {foreign[0]} is there and is not a comparison's; choose another"
        )
    # The marker comes first and names every file, so that a killed writing can be repeated.
    marker = {"format": _FORMAT, "files": sorted({*files, *earlier}), **found.inputs()}
    write_text(folder / _MARKER, json.dumps(marker, indent=2, ensure_ascii=False) + "\n")
    remove_temporaries(folder)
    for name, text in files.items():
        write_text(folder / name, text)
    for name in sorted(set(earlier) - set(files)):
        with unreachable(folder):
            (folder / name).unlink(missing_ok=True)
    marker["files"] = sorted(files)
    write_text(folder / _MARKER, json.dumps(marker, indent=2, ensure_ascii=False) + "\n")
    return folder / "compare.html"


def check_out(folder: Path) -> list[str]:
    """Names of the files that an earlier comparison wrote there.

    Raises:
        RunFolderError: the folder is none for a comparison.
    """
    for above in (folder, *folder.resolve().parents):
        try:
            within = is_file(above / "config.json") and is_file(above / "versions.json")
        except (RunFolderError, OSError):
            if above is folder:
                raise
            # One may be let see a part of a store only: of what lies above it nothing is known.
            within = False
        if within:
            raise RunFolderError(
                f"{folder} is or lies in a run folder; a comparison needs a folder of its own"
            )
    if is_file(folder):
        raise RunFolderError(f"{folder} is a file; a comparison needs a folder of its own")
    held = [name for name in names_in(folder) if not name.startswith(TEMPORARY)]
    if not held:
        return []
    refuse_links(folder)  # else what a marker names would be removed elsewhere
    try:
        marker = read_object(folder / _MARKER) if _MARKER in held else {}
        files = marker["files"] if marker["format"] == _FORMAT else None
    except (RunFolderError, KeyError):
        files = None
    if not isinstance(files, list) or not all(_ours(name) for name in files):
        raise RunFolderError(
            f"{folder} is not empty and holds no comparison (it has {', '.join(sorted(held)[:5])}); choose "
            "another folder"
        )
    return files


def _ours(name: Any) -> bool:
    """Only names that a comparison writes: a marker must not name other files for removal."""
    if name == "compare.html":
        return True
    path = Path(str(name))
    return (
        len(path.parts) == 2
        and path.parts[0] == "tables"
        and path.suffix in (".csv", ".tex")
        and path.stem.replace("_", "").isalnum()
    )


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text as a whole or not at all."""
    # A lone surrogate has no UTF-8 form; "?" stands for it, as in a run's files.
    data = text.encode("utf-8", errors="replace")
    return write_atomically(path, lambda target: target.write_bytes(data))


def comparison_figures(found: RunComparison) -> dict[str, dict[str, go.Figure]]:
    """Plotly figures by data set and name; one that has nothing to show is not there."""
    figures: dict[str, dict[str, Any]] = {}
    for data in dict.fromkeys(unit.data for unit in found.units):
        units = [unit for unit in found.units if unit.data == data]
        own: dict[str, Any] = {
            "accuracy": accuracy_by_model(
                {unit.model: pd.DataFrame(unit.section.accuracy) for unit in units}
            )
        }
        for measure in ("R", "AUROC"):
            rows = pd.DataFrame(_signal_rows(units, measure))
            if len(rows) and rows["value"].notna().any():
                pooled = _pooled(found.pooled, data, measure)
                own[f"signals_{measure}"] = signals_by_model(rows, pooled, measure=measure)
        probes = {u.model: pd.DataFrame(u.section.probe.layers) for u in units if u.section.probe}
        if probes:
            own["layers"] = layers_by_model(probes)
        curves = {
            u.model: (pd.DataFrame(u.section.ablation.points), u.section.ablation.units)
            for u in units
            if u.section.ablation
        }
        if curves:
            own["ablations"] = ablations_by_model(curves)
        changes = pd.DataFrame(_changes(units))
        if len(changes):
            own["changes"] = changes_by_model(changes)
        costs = found.cost[found.cost["data"] == data]
        if len(costs) and costs["auroc"].notna().any():
            own["cost"] = auroc_against_cost(costs)
        figures[data] = own
    return figures


def _signal_rows(units: list[Unit], measure: str) -> list[dict[str, Any]]:
    pick: Callable[[Any], tuple[Any, Any, Any]] = (
        (lambda row: (row.r, row.r_low, row.r_high))
        if measure == "R"
        else (lambda row: (row.auroc, row.low, row.high))
    )
    found = []
    for unit in units:
        for row in unit.section.signals.rows if unit.section.signals else ():
            if row.scope == "all" and row.name != "spatial_entropy":
                value, low, high = pick(row)
                found.append(
                    {
                        "name": row.name, "model": unit.model, "value": value, "low": low,
                        "high": high, "n": row.n, "uses_label": row.uses_label,
                    }
                )  # fmt: skip
    return found


def _pooled(pooled: pd.DataFrame, data: str, measure: str) -> pd.DataFrame | None:
    if pooled.empty:
        return None
    rows = pooled[
        (pooled["data"] == data) & (pooled["recipe"] == "") & (pooled["measure"] == measure)
    ]
    columns = {
        "quantity": "name", "stratified": "value", "stratified_low": "low", "stratified_high": "high",
    }  # fmt: skip
    return rows[[*columns, "n"]].rename(columns=columns)


def _changes(units: list[Unit]) -> list[dict[str, Any]]:
    """The interventions but the neurons', which have a curve of their own."""
    return [
        {
            "name": f"{row.family}: {row.name}", "model": unit.model, "change": row.change,
            "change_low": row.change_low, "change_high": row.change_high,
            "control_change": row.control_change, "control_low": row.control_low,
            "control_high": row.control_high, "n": row.n,
        }
        for unit in units
        for row in (unit.section.causal.rows if unit.section.causal else ())
        if "neurons" not in row.family
    ]  # fmt: skip


def render_comparison(found: RunComparison) -> str:
    """The page as HTML text."""
    figures = {
        data: {name: figure_json(figure) for name, figure in own.items()}
        for data, own in comparison_figures(found).items()
    }
    tables: Mapping[str, list[TextTable]] = found.text_tables()
    by_data = {
        data: {name: _of(tables[name], data) for name in tables if name != "pooled"}
        for data in figures
    }
    return render(
        "compare.html",
        found=found,
        figures=figures,
        by_data=by_data,
        pooled=tables["pooled"],
        units=found.units,
    )


def _of(tables: list[TextTable], data: str) -> TextTable | None:
    return next((table for table in tables if table.caption.endswith(f": {data}")), None)
