"""What holds of every public figure: look, units, n, intervals, hover, results and refusals."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import mechvrp.circuits as circuits
import mechvrp.reliability as reliability
from mechvrp import plots
from mechvrp.errors import InputError, MechVRPError
from mechvrp.plots import readout_layers, signal_aurocs
from mechvrp.plots.theme import TEMPLATE, wrapped
from tests.support.figures import GIVEN, draw

FIGURES = sorted(GIVEN)
#: Public names that are no figures of their own.
OTHERS = {"clickable_circuit", "save_figure"}
#: What each is drawn with where there is one; overlays of attention, agreement and circuits have no interval.
UNBOUNDED = {"attention_overlay", "agreement_matrix", "circuit_graph"}
#: Cells tell their interval when they are hovered over.
HOVERED = {"effect_map", "effects_over_image"}
UNITS = (
    "AUROC|accuracy, %|accuracy, share|percentage points|logits|share|probability|nats|density|layer|"
    "point-biserial R|overlap|given, %"
)
#: A result's own ``plot``, and the figure it calls.
PLOTS = {
    circuits.AblationCurve: "ablation_curve",
    circuits.Circuit: "circuit_graph",
    circuits.CircuitProof: "faithfulness_curve",
    circuits.Comparison: "baseline_comparison",
    circuits.CurveComparison: "ablations_by_model",
    circuits.FlowComparison: "image_flows_by_model",
    circuits.HeadKnockout: "head_knockout_curve",
    circuits.HeadReading: "head_scores",
    circuits.ImageFlow: "image_flow_layers",
    circuits.ProbeSweep: "layer_sweep",
    circuits.Ranking: "unit_scores",
    circuits.RankingAgreement: "agreement_matrix",
    reliability.Calibration: "reliability_diagram",
    reliability.Margins: "logit_lens",
    reliability.SelectiveRisk: "risk_coverage",
}


def words(figure: go.Figure) -> str:
    """All that stands on axes, in captions, titles and legends."""
    found = [a.text for a in figure.layout.annotations]
    for axis in [*figure.select_xaxes(), *figure.select_yaxes()]:
        found += [axis.title.text, *(axis.ticktext or ())]
    for trace in figure.data:
        found.append(trace.name if trace.showlegend is not False else "")
        if trace.type == "heatmap":
            found.append(trace.colorbar.title.text)
    return " ".join(str(text) for text in found if text)


def test_the_table_has_every_public_figure():
    assert {name for name in plots.__all__ if name[0].islower()} - OTHERS == set(GIVEN)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_names_units_and_n_in_the_one_look(name):
    figure = draw(name)
    assert isinstance(figure, go.Figure)
    assert figure.layout.template == TEMPLATE
    text = words(figure)
    assert re.search(UNITS, text), text
    # Values given by themselves over an image do not say of how many examples they are.
    if name != "effects_over_image":
        assert re.search(r"n = \d", text), text
    if figure.layout.width is None:  # panels of a picture have a size of their own
        titles = [axis.title.text or "" for axis in figure.select_xaxes()]
        lines = [line for title in titles for line in title.split("<br>")]
        assert max(map(len, lines)) <= 46, lines  # longer ones are cut on a narrow page
        legend = [t.name for t in figure.data if t.name and t.showlegend is not False]
        assert max((len(x) for t in legend for x in t.split("<br>")), default=0) <= 40, legend
    figure.to_json()


@pytest.mark.parametrize("name", sorted(set(FIGURES) - UNBOUNDED))
def test_a_figure_draws_the_interval_of_what_it_is_given(name):
    figure = draw(name)
    bars = [
        bar for t in figure.data if t.type in ("scatter", "bar") for bar in (t.error_x, t.error_y)
        if bar.array is not None
    ]  # fmt: skip
    bands = [t for t in figure.data if t.type == "scatter" and t.fill == "tonexty"]
    if name in HOVERED:
        cells = [t for t in figure.data if t.type == "heatmap"]
        assert all(re.search(r"\[%\{customdata", t.hovertemplate) for t in cells)
    else:
        assert bars or bands
        widths = np.concatenate([np.add(bar.array, bar.arrayminus) for bar in bars] or [[1.0]])
        assert np.nanmin(widths) > 0
    assert "interval" in words(figure)


@pytest.mark.parametrize("name", sorted(set(FIGURES) - UNBOUNDED))
def test_hovering_tells_value_and_interval(name):
    """Of every trace that is an estimate: those with bars, and cells."""
    figure = draw(name)
    for trace in figure.data:
        bounded = trace.type == "heatmap" or (
            trace.type in ("scatter", "bar")
            and any(bar.array is not None for bar in (trace.error_x, trace.error_y))
        )
        if bounded:
            assert re.search(r"\[[-%\d]", trace.hovertemplate), (name, trace.name)


@pytest.mark.parametrize("kind", PLOTS, ids=lambda kind: kind.__name__)
def test_a_result_draws_itself_by_the_figure_s_function(kind, monkeypatch):
    called: list[Any] = []
    monkeypatch.setattr(
        plots, PLOTS[kind], lambda *given, **options: called.append(given) or "drawn"
    )
    result = object.__new__(kind)
    if kind is circuits.CurveComparison:
        object.__setattr__(result, "curves", "curves")
    if kind is circuits.Ranking:
        object.__setattr__(result, "scores", np.zeros(3))
    assert result.plot() == "drawn"
    assert called[0][0] == "curves" if kind is circuits.CurveComparison else called[0][0] is result


def test_results_and_their_tables_are_drawn_alike():
    for name in (
        "circuit_graph",
        "faithfulness_curve",
        "unit_scores",
        "head_scores",
        "risk_coverage",
    ):
        (result,), _ = GIVEN[name]()
        assert result.plot().to_json() == getattr(plots, name)(result).to_json()
    (flow,), _ = GIVEN["image_flow_layers"]()
    assert flow.plot().to_json() == plots.image_flow_layers(flow.to_frame()).to_json()
    panels = flow.to_frame().groupby("method")["value"].any().sum()
    assert len(flow.plot().layout.shapes) == panels  # a line where there is nothing to see, in each


def spoilt(name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Inputs of a figure that cannot be drawn: another thing, nothing, a column missing, no number."""
    given, options = GIVEN[name]()
    first, rest = given[0], given[1:]
    bad: list[Any] = ["x", None, 3]
    if isinstance(first, dict):
        bad.append({})
        first = next(iter(first.values()))
        first, *more = first if isinstance(first, tuple) else (first,)
        wrap = (lambda x: {"a": (x, *more)}) if more else (lambda x: {"a": x})
    else:
        wrap = lambda x: x  # noqa: E731
    if isinstance(first, pd.DataFrame):
        bad += [
            wrap(first.iloc[:0]),
            wrap(first.drop(columns=next(c for c in ("n", "exact", "correct") if c in first))),
        ]
        numbers = [c for c in ("auroc", "value", "change", "accuracy", "exact") if c in first]
        if name not in ("signal_violins", "causal_changes", "corruption_by_layer"):
            bad.append(wrap(first.assign(**dict.fromkeys(numbers, math.nan))))
    elif hasattr(first, "data_vars"):
        bad += [first.drop_vars(list(first.data_vars)), first * math.nan]
    elif hasattr(first, "dims"):
        bad += [first[0], first * math.nan]
    elif isinstance(first, np.ndarray):
        bad += [first * math.nan, first[:0]]
    return [((one, *rest), options) for one in bad]


@pytest.mark.parametrize("name", FIGURES)
def test_what_cannot_be_drawn_is_refused_in_words(name):
    for given, options in spoilt(name):
        with pytest.raises(MechVRPError) as error:
            getattr(plots, name)(*given, **options)
        assert len(str(error.value)) > 12


@pytest.mark.parametrize("name", FIGURES)
def test_a_docstring_says_what_is_taken_drawn_and_refused(name):
    text = str(getattr(plots, name).__doc__)
    for part in ("Args:", "Returns:", "Raises:"):
        assert part in text, part


def test_long_names_are_broken_and_escaped():
    assert wrapped("spatial_entropy_normalised", 20) == "spatial_entropy_<br>normalised"
    assert wrapped("<b> & more words", 6) == "&lt;b&gt; &amp;<br>more<br>words"
    assert wrapped("") == ""


def test_signal_aurocs_brackets_signals_that_use_the_label():
    rows = pd.DataFrame(
        {
            "name": ["<b>", "truth_margin", "none"],
            "scope": "all",
            "auroc": [0.6, 0.9, None],
            "low": [0.5, 0.8, None],
            "high": [0.7, 0.95, None],
            "n": 40,
            "uses_label": [False, True, False],
        }
    )
    figure = signal_aurocs(rows)
    assert list(figure.layout.yaxis.ticktext) == ["&lt;b&gt;", "(truth_margin)"]
    assert list(figure.data[0].x) == [0.6, 0.9]
    assert list(figure.data[0].error_x.array) == pytest.approx([0.1, 0.05])
    assert figure.data[0].customdata[0][3] == 40


def test_readout_layers_have_a_line_a_readout_with_the_chosen_layer_filled():
    rows = pd.DataFrame(
        {
            "name": ["linear", "linear", "<i>mlp</i>"],
            "layer": [0, 1, 1],
            "chosen": [False, True, True],
            "auroc": [0.6, 0.7, 0.8],
            "low": [0.5, 0.6, 0.7],
            "high": [0.7, 0.9, 0.85],
            "n": 50,
            "n_groups": 20,
        }
    )
    figure = readout_layers(rows)
    assert [trace.name for trace in figure.data] == ["linear", "&lt;i&gt;mlp&lt;/i&gt;"]
    assert list(figure.data[0].y) == [0.6, 0.7]
    assert list(figure.data[0].error_y.array) == pytest.approx([0.1, 0.2])
    assert list(figure.data[0].marker.symbol) == ["circle-open", "circle"]
    assert "n = 50 examples of 20 images" in figure.layout.yaxis.title.text
    with pytest.raises(InputError, match="no readouts"):
        readout_layers(rows.assign(auroc=None))
