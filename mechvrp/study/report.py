"""``report.html``: one page, made from a run folder alone, that opens without a network.

Everything that comes from data is escaped: by Jinja's autoescape in the page, by
`mechvrp.plots` in figures, and in the JSON of figures by writing ``<``, ``>`` and ``&`` as escapes.
A content security policy in the page is the second line: it lets no request out and runs no script
but the page's own, which it names by their hashes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mechvrp.plots import (
    ablation_curve,
    ablations_by_model,
    accuracy_by_model,
    baseline_comparison,
    layer_sweep,
    layers_by_model,
    signal_aurocs,
    task_accuracy,
)
from mechvrp.plots.directions import isolated
from mechvrp.store import RunFolder
from mechvrp.study import report_words
from mechvrp.study.browsing import Browser, example_browser
from mechvrp.study.causal_words import causal_part
from mechvrp.study.page import figure_json, render
from mechvrp.study.readout_words import readout_part
from mechvrp.study.schema import ModelSection, Summary, check_examples
from mechvrp.study.summary_words import three_findings

__all__ = ["render_report", "write_report"]

#: Bytes of the page beside plotly.js: where all examples do not fit, fewer are shown.
PAGE = 5_000_000
_FORM = 20_000  # of them the browser's own markup, beside its data

_SPLIT_WORDS = {"all": "all", "train": "training", "heldout": "held out"}


def write_report(run: RunFolder) -> Path:
    """Write ``report.html`` from the other files of a run folder; returns its path.

    Raises:
        RunFolderError: the summary, the examples or a picture is missing or damaged.
    """
    return run.write_report(render_report(run))


def render_report(run: RunFolder) -> str:
    """The report as HTML text; see `write_report`."""
    summary = Summary.from_json(run.read_summary())
    # A model that could not be observed has no accuracy, and no examples.
    observed = [section for section in summary.sections if section.accuracy]
    _check_examples(run, [section.model.name for section in observed])
    values: dict[str, Any] = {
        "summary": summary,
        "answered": [
            report_words.accuracy_finding(s.model.name, s.accuracy).text
            if s.accuracy
            else f"{isolated(s.model.name)} could not be observed."
            for s in summary.sections
        ],
        "questions": three_findings(summary.sections),
        "sections": [_section(section) for section in summary.sections],
        "overview": _overview(summary.sections),
        "versions": run.versions,
        "config": json.dumps(run.config, indent=2, ensure_ascii=False),
        "split_words": _SPLIT_WORDS,
    }

    def page(browser: Browser | None) -> str:
        return render(
            "report.html", own_scripts=("report.js", "examples.js"), browser=browser, **values
        )

    # The examples have what the rest leaves of the page's size.
    rest = len(page(None).encode("utf-8", "replace")) - len(get_plotlyjs().encode())
    budget = max(PAGE - rest - _FORM, PAGE // 5)
    return page(example_browser(run, summary.sections, summary.seeds.get("study", 0), budget))


def _check_examples(run: RunFolder, models: Sequence[str]) -> None:
    if not models and not run.has("examples.parquet"):
        return
    check_examples(run, models)


def _overview(sections: Sequence[ModelSection]) -> dict[str, Any]:
    """Figures of all models on the same axes, and who is missing from them; of one, none."""
    if len(sections) < 2:
        return {}
    names = {section.model.name: section for section in sections}
    probes = {n: pd.DataFrame(s.probe.layers) for n, s in names.items() if s.probe}
    ablations = {
        n: (pd.DataFrame(s.ablation.points), s.ablation.units)
        for n, s in names.items()
        if s.ablation
    }
    figures = {}
    accuracies = {n: pd.DataFrame(s.accuracy) for n, s in names.items() if s.accuracy}
    if accuracies:
        figures["accuracy"] = figure_json(accuracy_by_model(accuracies))
    if probes:
        figures["layers"] = figure_json(layers_by_model(probes))
    if ablations:
        figures["ablations"] = figure_json(ablations_by_model(ablations))
    return {
        "figures": figures,
        "without_probe": [n for n in names if n not in probes],
        "without_ablation": [n for n in names if n not in ablations],
    }


def _section(section: ModelSection) -> dict[str, Any]:
    """What the template needs of one model: its summary, findings and figures."""
    figures: dict[str, Markup] = {}
    if section.accuracy:
        figures["accuracy"] = figure_json(task_accuracy(pd.DataFrame(section.accuracy)))
    if section.signals and any(row.auroc is not None for row in section.signals.rows):
        figures["signals"] = figure_json(signal_aurocs(pd.DataFrame(section.signals.rows)))
    if section.probe:
        figures["sweep"] = figure_json(layer_sweep(pd.DataFrame(section.probe.layers)))
        figures["comparison"] = figure_json(
            baseline_comparison(pd.DataFrame(section.probe.comparison))
        )
    readouts = readout_part(section.readouts, _rarer(section)) if section.readouts else None
    if readouts and readouts["figure"] is not None:
        figures["readouts"] = figure_json(readouts["figure"])
    if readouts and readouts["by_layer"] is not None:
        figures["readouts_by_layer"] = figure_json(readouts["by_layer"])
    task_figures: dict[str, Markup] = {}
    if section.ablation:
        points, units = pd.DataFrame(section.ablation.points), section.ablation.units
        figures["ablation"] = figure_json(ablation_curve(points, units=units))
        task_figures = {
            task: figure_json(ablation_curve(points, task=task, units=units))
            for task in dict.fromkeys(points["task"])
            if task != "all"
        }
    return {
        "summary": section,
        "findings": report_words.findings(section) + (readouts["findings"] if readouts else []),
        "readouts": readouts,
        "causal": causal_part(section.causal, figure_json) if section.causal else None,
        "figures": figures,
        "task_figures": task_figures,
    }


def _rarer(section: ModelSection) -> int | None:
    """Held-out answers of the rarer kind, right or wrong."""
    rows = [r for r in section.accuracy if (r.task, r.split) == ("all", "heldout")]
    return min(rows[0].n_right, rows[0].n - rows[0].n_right) if rows else None
