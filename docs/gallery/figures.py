"""A function a figure: its body is what the gallery shows beside the picture."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from results import Results

from mechvrp import circuits, plots
from mechvrp.circuits import (
    compare_curves,
    compare_image_flows,
    compare_rankings,
    compare_with_baselines,
    discover_circuit,
    knock_out_heads,
    probe_sweep,
    prove_circuit,
    rank_units,
    read_heads,
)
from mechvrp.patching import attention_knockout, attribution_patching, causal_trace
from mechvrp.reliability import measure_calibration, measure_selective_risk
from mechvrp.statistics import roc_band
from mechvrp.study.readout_words import readout_part


def layer_sweep(made: Results) -> go.Figure:
    features, right, images, tasks, train, heldout = made.probing
    sweep = probe_sweep(features, right, images, tasks, train, heldout)
    return sweep.plot()


def baseline_comparison(made: Results) -> go.Figure:
    answers, probability = made.observed.to_frame()["prediction"], made.probability
    found = compare_with_baselines(made.sweep, *made.probing[:4], answers, probability)
    return found.plot()


def ablation_curve(made: Results) -> go.Figure:
    ranking = rank_units(
        made.model, made.training, made.site, "probe", labels=made.right_in_training
    )
    curve = circuits.ablation_curve(made.model, made.heldout, ranking, [0, 5, 10, 20, 48])
    return curve.plot()


def ablations_by_model(made: Results) -> go.Figure:
    curves = {name: made.curve(name) for name in made.models}
    return compare_curves(curves).plot()


def agreement_matrix(made: Results) -> go.Figure:
    methods = ("probe", "sparse probe", "mean difference", "attribution", "random")
    found = compare_rankings({method: made.ranking(method=method) for method in methods})
    return found.plot()


def unit_scores(made: Results) -> go.Figure:
    return made.ranking().plot(top=20)


def unit_activations(made: Results) -> go.Figure:
    layer, unit = made.sweep.chosen_layer, int(made.ranking().to_frame()["unit"][0])
    return plots.unit_activations(made.observed, made.correct, layer=layer, unit=unit)


def signal_violins(made: Results) -> go.Figure:
    names = ["spatial_entropy", "cluster_count", "answer_probability", "own_margin"]
    return plots.signal_violins(made.observed, made.correct, names=names, columns=2)


def reliability_diagram(made: Results) -> go.Figure:
    found = measure_calibration(made.probability, made.correct, made.images)
    return found.plot()


def risk_coverage(made: Results) -> go.Figure:
    signals = made.observed.to_frame()[["answer_probability", "own_margin"]].astype(float)
    found = {s: measure_selective_risk(signals[s], made.correct, made.images) for s in signals}
    return plots.risk_coverage(found)


def roc_curves(made: Results) -> go.Figure:
    signals = made.observed.to_frame()[["answer_probability", "gini"]].astype(float)
    return plots.roc_curves({s: roc_band(signals[s], made.correct, made.images) for s in signals})


def logit_lens(made: Results) -> go.Figure:
    return plots.logit_lens(made.observed, correct=made.correct)


def attention_overlay(made: Results) -> go.Figure:
    return plots.attention_overlay(made.observed, layers=[2], heads=[1, 2], panel=160)


def effect_map(made: Results) -> go.Figure:
    positions = [[(6, column)] for column in range(12)] + ["last"]
    traced = causal_trace(made.model, made.batch, positions=positions, draws=2, progress=False)
    return plots.effect_map(traced)


def effects_over_image(made: Results) -> go.Figure:
    traced = causal_trace(made.model, made.batch, layers=[0, 2], draws=1, progress=False)
    return plots.effects_over_image(traced, made.batch.samples[0].image, panel=160)


def knockouts_by_layer(made: Results) -> go.Figure:
    found = attention_knockout(made.model, made.batch, measure="logit_diff", progress=False)
    return plots.knockouts_by_layer(found)


def verified_patches(made: Results) -> go.Figure:
    part = next(iter(made.pairs[0]))
    found = attribution_patching(made.model, part.clean, part.counterfactual, "mlp_out")
    return plots.verified_patches(found.verify(top=20, progress=False))


def circuit_graph(made: Results) -> go.Figure:
    found = discover_circuit(made.model, made.pairs[0])
    return found.circuit.plot()


def faithfulness_curve(made: Results) -> go.Figure:
    found, pairs = made.discovered, made.pairs[1]
    proof = prove_circuit(
        found.circuit, made.model, pairs, draws=19, removal_draws=1, order=found, sizes=[2, 4, 8],
        curve_draws=9,
    )  # fmt: skip
    return proof.plot()


def head_scores(made: Results) -> go.Figure:
    return read_heads(made.model, made.samples[:60]).plot()


def head_knockout_curve(made: Results) -> go.Figure:
    ranking = read_heads(made.model, made.training[:60]).ranking("carried")
    return knock_out_heads(made.model, made.heldout[:40], ranking, [1, 2], draws=30).plot()


def image_flow_layers(made: Results) -> go.Figure:
    return made.flows["tiny-llava"].plot()


def image_flows_by_model(made: Results) -> go.Figure:
    return compare_image_flows(made.flows).plot()


def task_accuracy(made: Results) -> go.Figure:
    rows = pd.DataFrame(made.study.summary.sections[0].accuracy)
    return plots.task_accuracy(rows, splits=("train", "heldout"))


def signal_aurocs(made: Results) -> go.Figure:
    return plots.signal_aurocs(pd.DataFrame(made.study.summary.sections[0].signals.rows))


def readout_aurocs(made: Results) -> go.Figure:
    return plots.readout_aurocs(pd.DataFrame(made.study.summary.sections[0].readouts.rows))


def readout_layers(made: Results) -> go.Figure:
    readouts = made.study.summary.sections[0].readouts
    return readout_part(readouts)["by_layer"]


def causal_changes(made: Results) -> go.Figure:
    return plots.causal_changes(pd.DataFrame(made.study.summary.sections[0].causal.rows))


def corruption_by_layer(made: Results) -> go.Figure:
    return plots.corruption_by_layer(pd.DataFrame(made.study.summary.sections[0].causal.rows))


def accuracy_by_model(made: Results) -> go.Figure:
    return made.compared.figures()["scenes, mixed"]["accuracy"]


def layers_by_model(made: Results) -> go.Figure:
    return made.compared.figures()["scenes, mixed"]["layers"]


def signals_by_model(made: Results) -> go.Figure:
    return made.compared.figures()["scenes, mixed"]["signals_R"]


def changes_by_model(made: Results) -> go.Figure:
    return made.compared.figures()["scenes, mixed"]["changes"]


def auroc_against_cost(made: Results) -> go.Figure:
    return made.compared.figures()["scenes, mixed"]["cost"]
