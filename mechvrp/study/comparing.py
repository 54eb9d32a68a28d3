"""``compare_runs``: several checkpoints, data sets and training seeds beside each other, and pooled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mechvrp.errors import InputError
from mechvrp.statistics.checks import check_seed
from mechvrp.store.places import make_folder, place
from mechvrp.study.compare_ablations import ablations
from mechvrp.study.compare_causal import aligned_gaps, interventions, masking, seeds_summary
from mechvrp.study.compare_costs import CostRow, cost_rows
from mechvrp.study.compare_measures import Figure, accuracy, hidden_states, structure
from mechvrp.study.compare_pooling import pooled_figures, pooled_signals
from mechvrp.study.compare_pools import PooledRow, make_pools
from mechvrp.study.compare_recipe_words import recipe_findings
from mechvrp.study.compare_report import (
    check_out,
    comparison_figures,
    render_comparison,
    write_comparison,
    write_text,
)
from mechvrp.study.compare_tables import (
    TextTable,
    cost_table,
    latex,
    pooled_table,
    side_by_side,
)
from mechvrp.study.compare_units import Unit, check_recipes, load_units
from mechvrp.study.compare_words import compared_findings
from mechvrp.study.report_words import Finding

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["RunComparison", "compare_runs"]

_CAPTIONS = {
    "accuracy": "Accuracy with 95 % intervals",
    "structure": "Attention structure and correctness",
    "self_consistency_and_hidden": "Self-consistency and hidden states",
    "causal": "Ablation and corruption, change of accuracy in percentage points",
    "summary": "Attention and confidence, corruption, calibration",
}


@dataclass(frozen=True, eq=False, repr=False)
class RunComparison:
    """Runs compared; made by `compare_runs`.

    Attributes:
        units: what was compared, one checkpoint on one data set each.
        recipes: recipes with their training seeds.
        remarks: what a reader must know of what was compared: runs left out, questions asked twice.
        accuracy, structure, self_consistency_and_hidden, causal, summary: a row per figure (`Figure`).
        pooled: a row per pooled figure (`PooledRow`).
        cost: a row per signal and checkpoint (`CostRow`).
        findings: by data set (and ``"all data"``, ``"training seeds"``), in plain words.
        seed, n_resamples: of the intervals made here; those of single checkpoints are their runs'.
    """

    units: tuple[Unit, ...]
    recipes: Mapping[str, tuple[str, ...]]
    remarks: tuple[str, ...]
    figures_by_table: Mapping[str, tuple[Figure, ...]]
    pooled_rows: tuple[PooledRow, ...]
    cost_rows: tuple[CostRow, ...]
    findings: Mapping[str, tuple[Finding, ...]]
    seed: int
    n_resamples: int

    @property
    def accuracy(self) -> pd.DataFrame:
        return self._frame("accuracy")

    @property
    def structure(self) -> pd.DataFrame:
        return self._frame("structure")

    @property
    def self_consistency_and_hidden(self) -> pd.DataFrame:
        return self._frame("self_consistency_and_hidden")

    @property
    def causal(self) -> pd.DataFrame:
        return self._frame("causal")

    @property
    def summary(self) -> pd.DataFrame:
        return self._frame("summary")

    @property
    def pooled(self) -> pd.DataFrame:
        return pd.DataFrame(self.pooled_rows, columns=list(PooledRow.__dataclass_fields__))

    @property
    def cost(self) -> pd.DataFrame:
        return pd.DataFrame(self.cost_rows, columns=list(CostRow.__dataclass_fields__))

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name, as numbers."""
        found = {name: self._frame(name) for name in _CAPTIONS}
        return {**found, "pooled": self.pooled, "cost": self.cost}

    def text_tables(self) -> dict[str, list[TextTable]]:
        """All tables by name, as a reader sees them: one per data set, or per pool."""
        found = {
            name: side_by_side(self.figures_by_table[name], caption)
            for name, caption in _CAPTIONS.items()
        }
        return {
            **found,
            "pooled": pooled_table(self.pooled_rows),
            "cost": cost_table(self.cost_rows),
        }

    def figures(self) -> dict[str, dict[str, go.Figure]]:
        """Plotly figures by data set and name."""
        return comparison_figures(self)

    def to_csv(self, folder: str | Path) -> list[Path]:
        """Write each table as ``NAME.csv``, numbers unrounded; returns the paths."""
        return self._write(folder, ".csv", lambda name: self.tables()[name].to_csv(index=False))

    def to_latex(self, folder: str | Path) -> list[Path]:
        """Write each table as ``NAME.tex``, in booktabs' style; returns the paths."""
        return self._write(folder, ".tex", lambda name: latex(self.text_tables()[name]))

    def to_html(self) -> str:
        """The page: one file that needs no network."""
        return render_comparison(self)

    def write(self, out: str | Path) -> Path:
        """Write the page and all tables into a folder; see `write_comparison`."""
        return write_comparison(self, out)

    def inputs(self) -> dict[str, Any]:
        """What was compared and how, as JSON."""
        return {
            "units": [
                {
                    "run": unit.run,
                    "created": unit.created,
                    "model": unit.model,
                    "family": unit.family,
                    "data": unit.data,
                    "n": unit.section.data.n,
                }
                for unit in self.units
            ],
            "recipes": {name: list(members) for name, members in self.recipes.items()},
            "seed": self.seed,
            "n_resamples": self.n_resamples,
        }

    def _frame(self, name: str) -> pd.DataFrame:
        return pd.DataFrame(self.figures_by_table[name], columns=list(Figure.__dataclass_fields__))

    def _write(self, folder: str | Path, ending: str, text: Callable[[str], str]) -> list[Path]:
        target = place(folder)
        make_folder(target)
        paths = []
        for name in self.tables():
            path = target / f"{name}{ending}"
            paths.append(write_text(path, text(name)))
        return paths

    def __repr__(self) -> str:
        models = dict.fromkeys(unit.model for unit in self.units)
        data = dict.fromkeys(unit.data for unit in self.units)
        return f"RunComparison({', '.join(models)}; {'; '.join(data)})"


def compare_runs(
    paths: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    training_seeds: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    n_resamples: int = 2000,
) -> RunComparison:
    """Compare finished studies: the study's three results side by side, and pooled.

    The unit is one checkpoint on one data set. Its figures are its run's own; what is made here are
    pooled figures: fixed and random effects with Cochran's Q, which take checkpoints as independent, and
    estimates stratified by checkpoint with a joint test of equality, which resample an image in all
    checkpoints that were shown it at once. Runs that count other answers as right are not pooled.

    Args:
        paths: run folders, each with one or several models.
        out: folder for ``compare.html`` and ``tables/``, or an address (``s3://bucket/compared``); nothing is
            written by default.
        training_seeds: recipes with the names of checkpoints that differ by their training seed alone. Without
            it everything said is about single checkpoints.
        seed, n_resamples: of the intervals made here.

    Raises:
        InputError: nothing to compare, a checkpoint that was asked the same questions twice with different
            answers, two different models of one name, or unusable ``training_seeds``.
        RunFolderError: a folder is missing, unfinished or damaged; ``out`` cannot be written to.
    """
    if isinstance(paths, str | Path) or not isinstance(paths, Sequence):
        raise InputError(f"paths is a list of run folders; got {paths!r:.60}")
    if training_seeds is not None and not isinstance(training_seeds, Mapping):
        raise InputError(
            f"training_seeds holds lists of checkpoints by recipe; got {training_seeds!r:.60}"
        )
    check_seed(seed)
    if not isinstance(n_resamples, int) or n_resamples < 100:
        raise InputError(f"n_resamples must be a whole number of at least 100; got {n_resamples!r}")
    if out is not None:
        check_out(place(out))
    units, remarks = load_units(paths)
    recipes = check_recipes(units, training_seeds or {})
    figures = _figures(units, seed=seed, n_resamples=n_resamples)
    pooled: list[PooledRow] = []
    flat = [figure for name in figures for figure in figures[name]]
    for pool in make_pools(units, recipes):
        pooled += pooled_signals(pool, seed=seed, n_resamples=n_resamples)
        pooled += pooled_figures(pool, flat)
    data = list(dict.fromkeys(unit.data for unit in units))
    findings = {name: compared_findings(units, flat, pooled, name) for name in data}
    if len(data) > 1:
        findings["all data"] = compared_findings(units, flat, pooled, "all data")
    if recipes:
        findings["training seeds"] = recipe_findings(units, pooled, recipes)
    found = RunComparison(
        units=units,
        recipes=recipes,
        remarks=remarks,
        figures_by_table=figures,
        pooled_rows=tuple(pooled),
        cost_rows=tuple(row for unit in units for row in cost_rows(unit)),
        findings=findings,
        seed=seed,
        n_resamples=n_resamples,
    )
    if out is not None:
        found.write(out)
    return found


def _figures(
    units: Sequence[Unit], *, seed: int, n_resamples: int
) -> dict[str, tuple[Figure, ...]]:
    makers: dict[str, Callable[[Unit], list[Figure]]] = {
        "accuracy": accuracy,
        "structure": lambda unit: [*structure(unit), *masking(unit)],
        "self_consistency_and_hidden": hidden_states,
        "causal": lambda unit: [*ablations(unit), *interventions(unit)],
        "summary": lambda unit: seeds_summary(unit, seed=seed, n_resamples=n_resamples),
    }
    return {
        name: tuple(aligned_gaps(figure for unit in units for figure in make(unit)))
        for name, make in makers.items()
    }
