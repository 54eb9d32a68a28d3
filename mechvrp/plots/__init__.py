"""Plotly figures, one function each. Importing this registers nothing with plotly."""

from mechvrp.plots.ablations import ablation_curve as ablation_curve
from mechvrp.plots.dots import baseline_comparison as baseline_comparison
from mechvrp.plots.dots import task_accuracy as task_accuracy
from mechvrp.plots.sweeps import layer_sweep as layer_sweep
from mechvrp.plots.theme import TEMPLATE as TEMPLATE

__all__ = [
    "TEMPLATE",
    "ablation_curve",
    "baseline_comparison",
    "layer_sweep",
    "task_accuracy",
]
