"""Plotly figures, one function each. Importing this registers nothing with plotly."""

from mechvrp.plots.ablations import ablation_curve as ablation_curve
from mechvrp.plots.agreement import agreement_matrix as agreement_matrix
from mechvrp.plots.attention import attention_overlay as attention_overlay
from mechvrp.plots.causal import causal_changes as causal_changes
from mechvrp.plots.causal import corruption_by_layer as corruption_by_layer
from mechvrp.plots.circuits import circuit_graph as circuit_graph
from mechvrp.plots.clicks import CLICK_SCRIPT as CLICK_SCRIPT
from mechvrp.plots.clicks import clickable_circuit as clickable_circuit
from mechvrp.plots.confidence import reliability_diagram as reliability_diagram
from mechvrp.plots.confidence import risk_coverage as risk_coverage
from mechvrp.plots.confidence import roc_curves as roc_curves
from mechvrp.plots.costs import auroc_against_cost as auroc_against_cost
from mechvrp.plots.dots import baseline_comparison as baseline_comparison
from mechvrp.plots.dots import signal_aurocs as signal_aurocs
from mechvrp.plots.dots import task_accuracy as task_accuracy
from mechvrp.plots.effect_maps import effect_map as effect_map
from mechvrp.plots.forests import signals_by_model as signals_by_model
from mechvrp.plots.heads import head_knockout_curve as head_knockout_curve
from mechvrp.plots.heads import head_scores as head_scores
from mechvrp.plots.image_effects import effects_over_image as effects_over_image
from mechvrp.plots.image_flows import image_flow_layers as image_flow_layers
from mechvrp.plots.image_flows import image_flows_by_model as image_flows_by_model
from mechvrp.plots.interventions import changes_by_model as changes_by_model
from mechvrp.plots.lens import logit_lens as logit_lens
from mechvrp.plots.models import ablations_by_model as ablations_by_model
from mechvrp.plots.models import accuracy_by_model as accuracy_by_model
from mechvrp.plots.models import layers_by_model as layers_by_model
from mechvrp.plots.patching import knockouts_by_layer as knockouts_by_layer
from mechvrp.plots.patching import verified_patches as verified_patches
from mechvrp.plots.proofs import faithfulness_curve as faithfulness_curve
from mechvrp.plots.readouts import readout_aurocs as readout_aurocs
from mechvrp.plots.readouts import readout_layers as readout_layers
from mechvrp.plots.saving import save_figure as save_figure
from mechvrp.plots.sweeps import layer_sweep as layer_sweep
from mechvrp.plots.theme import TEMPLATE as TEMPLATE
from mechvrp.plots.units import unit_activations as unit_activations
from mechvrp.plots.units import unit_scores as unit_scores
from mechvrp.plots.violins import signal_violins as signal_violins

__all__ = [
    "CLICK_SCRIPT",
    "TEMPLATE",
    "ablation_curve",
    "ablations_by_model",
    "accuracy_by_model",
    "agreement_matrix",
    "attention_overlay",
    "auroc_against_cost",
    "baseline_comparison",
    "causal_changes",
    "changes_by_model",
    "circuit_graph",
    "clickable_circuit",
    "corruption_by_layer",
    "effect_map",
    "effects_over_image",
    "faithfulness_curve",
    "head_knockout_curve",
    "head_scores",
    "image_flow_layers",
    "image_flows_by_model",
    "knockouts_by_layer",
    "layer_sweep",
    "layers_by_model",
    "logit_lens",
    "readout_aurocs",
    "readout_layers",
    "reliability_diagram",
    "risk_coverage",
    "roc_curves",
    "save_figure",
    "signal_aurocs",
    "signal_violins",
    "signals_by_model",
    "task_accuracy",
    "unit_activations",
    "unit_scores",
    "verified_patches",
]
