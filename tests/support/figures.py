"""Small inputs of every public figure, with intervals where a figure can have one."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from PIL import Image

from mechvrp import plots
from mechvrp.circuits import (
    AgainstRandom,
    Circuit,
    CircuitEdge,
    CircuitNode,
    CircuitProof,
    FlowComparison,
    FlowPoint,
    HeadKnockout,
    HeadKnockoutPoint,
    HeadReading,
    ImageFlow,
    NodeRemoval,
    Ranking,
    compare_rankings,
)
from mechvrp.reliability import Margins, measure_calibration, measure_selective_risk
from mechvrp.statistics import Estimate, roc_band

PICTURE = Image.new("RGB", (40, 30), "white")
FEW = {"n_resamples": 200}


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1, 90, 30, 0.95, "bootstrap")


def sweep() -> pd.DataFrame:
    layers = np.arange(3)
    auroc = 0.6 + layers / 10
    return pd.DataFrame(
        {
            "layer": layers, "chosen": layers == 2, "cv_auroc": 0.7, "auroc": auroc, "low": auroc - 0.1,
            "high": auroc + 0.1, "n": 90, "n_groups": 30, "level": 0.95,
        }
    )  # fmt: skip


def curve() -> pd.DataFrame:
    k = np.array([0, 5, 10])
    frame = pd.DataFrame(
        {"task": "all", "k": k, "n": 90, "n_groups": 30, "draws": 20, "level": 0.95}
    )
    for name, slope in (("change", -1.0), ("random_change", -0.2)):
        frame[name] = slope * k
        frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - 2, frame[name] + 2
    return frame.assign(random_min=-9.0, random_max=3.0)


def accuracy() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": ["all", "counting"], "split": "all", "n": [90, 40], "accuracy": [0.8, 0.6],
            "low": [0.7, 0.5], "high": [0.9, 0.7], "level": 0.95,
        }
    )  # fmt: skip


def scores(**more: Any) -> pd.DataFrame:
    """Rows of AUROCs; also of signals and of readouts."""
    rows = {
        "name": ["probe", "answer_probability"], "scope": "all", "layer": [1, 2], "chosen": [True, False],
        "auroc": [0.7, 0.6], "low": [0.6, 0.5], "high": [0.8, 0.7], "within": [0.65, 0.55],
        "within_low": [0.5, 0.4], "within_high": [0.8, 0.7], "kind": "interval", "n": 90, "n_groups": 30,
        "uses_label": False, "model": ["a", "b"], "signal": ["probe", "gini"], "cost_forwards": [0.0, 10.0],
    }  # fmt: skip
    frame = pd.DataFrame(rows | more)
    return frame.assign(value=frame["auroc"])


def changes() -> pd.DataFrame:
    rows = {
        "family": "hidden states", "name": ["noise, layer 0", "noise, layer 1"], "model": "a", "n": 90,
        "n_groups": 30, "change": [-8.0, -1.0], "change_low": [-9.0, -2.0], "change_high": [-7.0, 0.0],
        "control_change": -0.5, "control_low": -1.0, "control_high": 0.0, "edit": "noise",
        "first_layer": [0, 1], "last_layer": [0, 1], "entropy_change": 0.01, "entropy_low": 0.0,
        "entropy_high": 0.02,
    }  # fmt: skip
    return pd.DataFrame(rows)


def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.05, 1, 90).round(2)
    return (
        confidence,
        (rng.random(90) < confidence).astype(int),
        np.repeat(np.arange(30), 3).astype(str),
    )


def effects(**more: Any) -> xr.Dataset:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, 3, 90)) + 1
    coordinates = {"layer": [0, 1], "position": ["a", "b", "last"]}
    return xr.Dataset(
        {"effect": (("layer", "position", "example"), values)},
        coordinates,
        {"measure": "logit_diff"} | more,
    )


def over_image() -> xr.DataArray:
    values = np.random.default_rng(2).normal(size=(2, 3, 4))
    places = {"layer": [0, 1], "row": range(3), "col": range(4)}
    return xr.DataArray(values, dims=("layer", "row", "col"), coords=places)


def knockouts() -> xr.Dataset:
    change = np.array([[0.0, -1.0], [0.5, 0.2]])
    found = {"change": change, "change_low": change - 1, "change_high": change + 1}
    return xr.Dataset(
        {name: (("edge", "layer"), value) for name, value in found.items()},
        {"edge": ["image to last", "image to question"], "layer": [0, 1], "example": range(90)},
        {"measure": "logit_diff", "window": 1, "n_groups": 30},
    )


def verified() -> pd.DataFrame:
    exact = np.array([0.5, -3.0])
    frame = pd.DataFrame(
        {"component": "z", "layer": [0, 1], "place": "last", "estimate": [1.0, -2.0]}
    )
    frame = frame.assign(exact=exact, exact_low=exact - 1, exact_high=exact + 1)
    frame.attrs = {"spearman": 1.0, "measure": "logit_diff", "n": 90, "n_groups": 30}
    return frame


def circuit() -> Circuit:
    names = ("blocks.0.attn.hook_z[head 2]@image", "blocks.1.hook_mlp_out@last")
    head, mlp = map(CircuitNode.parse, names)
    made = {"measure": "logit_diff", "pairs": 90, "images": [str(i) for i in range(30)]}
    edges = (CircuitEdge(head, mlp, 2.0), CircuitEdge(mlp, "logits", -1.0))
    return Circuit((head, mlp), edges, "m", n_layers=2, n_heads=4, settings=made)


def proof() -> CircuitProof:
    share = AgainstRandom(2, estimate(0.8), estimate(0.2), (0.0, 0.4), estimate(0.6), 0.1)
    removed = tuple(
        NodeRemoval(node, estimate(0.5), estimate(0.1), (0.0, 0.3), estimate(0.4), 0.1, 9)
        for node in circuit().nodes
    )
    return CircuitProof(
        circuit=circuit(), total=estimate(0.8), faithfulness=share, completeness=share, minimality=removed,
        curve=(share,), completeness_curve=(share,), model="m",
        measure="logit_diff", mode="zero",
        match="kind", draws=9, curve_draws=9,
        removals=0, possible=99, seen=0, n=90, n_groups=30, seed=0, n_resamples=100,
    )  # fmt: skip


def heads() -> HeadReading:
    rng = np.random.default_rng(3)
    shape = (90, 2, 4)
    one = rng.random(shape)
    direct: Any = SimpleNamespace(heads=torch.tensor(rng.normal(size=shape)))
    return HeadReading(
        "m", "f", "image", "own", one, np.full(shape, np.nan), one, np.full(shape, np.nan), direct,
        tuple(str(i // 3) for i in range(90)), np.zeros(90), np.ones(90), n_resamples=100,
    )  # fmt: skip


def knocked() -> HeadKnockout:
    def point(k: int) -> HeadKnockoutPoint:
        some = tuple((0, h) for h in range(k))
        one, two, three = estimate(-0.5 * k), estimate(-0.1), estimate(-0.4)
        return HeadKnockoutPoint(
            k, some, one, two, three, 9, False, True, 0.1, 0.2, None, None, None
        )

    return HeadKnockout("m", "carried", (point(1), point(2)), 0)


def flow() -> ImageFlow:
    points = tuple(
        FlowPoint(
            method, what, measure, layer, window, estimate(layer / 2), estimate(0.1), estimate(0.1)
        )
        for method, what, measure, window in (
            ("knockout", "image to last", "logit_diff", 1),
            ("patching", "text", "share", None),
        )
        for layer in (0, 1)
    )
    return ImageFlow("m", "f", 2, "causal", points, {})


def compared_flows() -> FlowComparison:
    return FlowComparison({"a": flow(), "b": flow()}, pd.DataFrame(), pd.DataFrame(), 0.5)


def margins() -> Margins:
    rng = np.random.default_rng(4)
    post = rng.normal(size=(3, 90))
    mid = post - rng.normal(size=post.shape)
    return Margins(np.arange(90), np.arange(90) + 1, rng.normal(size=90), mid, post)


def ranking(seed: int = 5) -> Ranking:
    values = np.random.default_rng(seed).normal(size=90)
    return Ranking(
        ("blocks.2.hook_resid_post",), values, "probe weight", low=values - 0.1, high=values + 0.1,
        images=frozenset("ab"),
    )  # fmt: skip


def signals() -> pd.DataFrame:
    confidence, correct, images = answers()
    rows = {"answer_probability": confidence, "correct": correct, "image_id": images}
    return pd.DataFrame(rows | {"spatial_entropy": np.random.default_rng(6).normal(size=90)})


#: By figure: what it is given, each made anew.
GIVEN: dict[str, Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "ablation_curve": lambda: ((curve(),), {"units": 96}),
    "ablations_by_model": lambda: (({"a": (curve(), 96)},), {}),
    "accuracy_by_model": lambda: (({"a": accuracy()},), {}),
    "agreement_matrix": lambda: ((compare_rankings({"a": ranking(), "b": ranking(7)}),), {}),
    "attention_overlay": lambda: ((np.full((1, 2, 3, 4), 0.05), PICTURE), {}),
    "auroc_against_cost": lambda: ((scores(),), {}),
    "baseline_comparison": lambda: ((scores(),), {}),
    "causal_changes": lambda: ((changes(),), {}),
    "changes_by_model": lambda: ((changes(),), {}),
    "circuit_graph": lambda: ((circuit(),), {}),
    "corruption_by_layer": lambda: ((changes(),), {}),
    "effect_map": lambda: ((effects(),), {}),
    "effects_over_image": lambda: (
        (over_image(), PICTURE),
        {"interval": (over_image() - 1, over_image() + 1), "title": "logits"},
    ),
    "faithfulness_curve": lambda: ((proof(),), {}),
    "head_knockout_curve": lambda: ((knocked(),), {}),
    "head_scores": lambda: ((heads(),), {}),
    "image_flow_layers": lambda: ((flow(),), {}),
    "image_flows_by_model": lambda: ((compared_flows(),), {}),
    "knockouts_by_layer": lambda: ((knockouts(),), {}),
    "layer_sweep": lambda: ((sweep(),), {}),
    "layers_by_model": lambda: (({"a": sweep()},), {}),
    "logit_lens": lambda: ((margins(),), {"correct": answers()[1], "groups": answers()[2]}),
    "readout_aurocs": lambda: ((scores(),), {}),
    "readout_layers": lambda: ((scores(),), {}),
    "reliability_diagram": lambda: ((measure_calibration(*answers(), **FEW),), {}),
    "risk_coverage": lambda: ((measure_selective_risk(*answers(), **FEW),), {}),
    "roc_curves": lambda: ((roc_band(*answers(), **FEW),), {}),
    "signal_aurocs": lambda: ((scores(),), {}),
    "signal_violins": lambda: ((signals(),), {}),
    "signals_by_model": lambda: ((scores(),), {}),
    "task_accuracy": lambda: ((accuracy(),), {}),
    "unit_activations": lambda: ((answers()[0], answers()[1]), {"groups": answers()[2]}),
    "unit_scores": lambda: ((ranking(),), {}),
    "verified_patches": lambda: ((verified(),), {}),
}  # fmt: skip


def draw(name: str) -> Any:
    """A figure of its small input."""
    given, options = GIVEN[name]()
    return getattr(plots, name)(*given, **options)
