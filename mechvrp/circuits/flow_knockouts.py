"""Attention from text to image cut in windows of layers: what it does to answers, beside a control."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mechvrp.circuits.drawn_controls import against_draws, mean_change
from mechvrp.circuits.integration_results import FlowPoint
from mechvrp.patching.attention_edges import knockout
from mechvrp.patching.causal import window_around
from mechvrp.patching.image_draws import count_edges, patches_of_edges
from mechvrp.patching.knockouts import EDGES, check_edge
from mechvrp.patching.sweeping import sweep
from mechvrp.statistics import benjamini_hochberg, drawn_accuracy_change, paired_accuracy_change
from mechvrp.tracing.caching import in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["flow_edges", "knockout_points"]

Edges = Mapping[str, tuple["Positions", "Positions"]]


@dataclass(frozen=True)
class _Cut:
    """One knockout: an edge, the layers it is cut in, and which draw of the control it is (-1: none)."""

    edge: str
    layer: int | None
    window: int | None
    draw: int = -1


def flow_edges(model: VLM) -> Edges:
    """The edges cut by default: query and key positions, by the way information would have gone.

    Image to all text, to the last position alone, to the question alone, question to last; and, where
    the prompt's attention looks both ways (PaliGemma), question to image.
    """
    edges: dict[str, tuple[Any, Any]] = {"image to text": ("text", "image"), **EDGES}
    if model.family.attention != "causal":
        edges["question to image"] = ("image", "question")
    return edges


def knockout_points(
    model: VLM,
    samples: Sequence[Sample],
    *,
    edges: Edges,
    windows: Sequence[int],
    layers: Sequence[int],
    measure: str = "logit_diff",
    draws: int = 1,
    reading: Literal["official", "strict"] = "strict",
    seed: int = 0,
    n_resamples: int = 2000,
    batch_size: int = 32,
    progress: bool = False,
) -> list[FlowPoint]:
    """Changes of the clean answer's measure and of accuracy, for each edge, window and layer.

    The control cuts at least as many edges (the same layers and heads) between image positions: random image
    positions no longer see the image. A cut in all layers together stands behind each edge's layers. A cut
    that fails is a point with the reason as its ``gap``; where a draw of the control fails, the point has its
    value, no control, and the reason as ``control_gap``.

    Args:
        model: from ``mechvrp.load``.
        samples: what is asked.
        edges: as ``attention_knockout``.
        windows: how many layers are cut together.
        layers: the middles of the windows.
        measure: of the clean run's answer: ``"logit_diff"`` (against the best other token of each run),
            ``"probability"``, ``"logit"``.
        draws: of the control, averaged; 0: no control.
        reading: how yes/no answers are read.
        seed, n_resamples: of draws, and of resampling images (the control's intervals: draws too, of two or
            more).
        batch_size, progress: of the runs.

    Raises:
        InputError: an edge that attention does not have, an unusable window, or no knockout that can be
            made.
    """
    cuts = [
        _Cut(edge, layer, window, draw)
        for edge in edges
        for window, layer in [*((w, i) for w in windows for i in layers), (None, None)]
        for draw in range(-1, draws)
    ]
    for window in windows:
        window_around(0, window, model.n_layers)
    scored = all(sample.answer.strip() for sample in samples)
    names = {"measure": measure, **({"correct": "correct"} if scored else {})}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    base: dict[str, list[np.ndarray]] = {name: [] for name in names}
    errors: dict[_Cut, str] = {}
    rng = np.random.default_rng([seed, 3])
    for chunk in in_batches(samples, batch_size, progress, "knocking out"):
        batch = model.encode(chunk)
        for edge, (query, key) in edges.items():
            check_edge(model, batch, edge, query, key)
        variants = _variants(model, batch, edges, cuts, rng)
        with warnings.catch_warnings():
            # What cannot be cut becomes a marked gap.
            warnings.filterwarnings("ignore", message=r".*variants have no values")
            found = sweep(model, batch, variants, names, reading=reading, progress=False)
        for cut, error in zip(cuts, found["error"].values, strict=True):
            if error:
                errors.setdefault(cut, str(error))
        for name in names:
            parts[name].append(found[name].values.astype(np.float64))
            base[name].append(found[f"base_{name}"].values.astype(np.float64))
    value = {
        name: dict(zip(cuts, np.concatenate(rows, axis=-1), strict=True))
        for name, rows in parts.items()
    }
    clean = {name: np.concatenate(rows) for name, rows in base.items()}
    groups = np.array([sample.source_id for sample in samples])
    settings = {"seed": seed, "n_resamples": n_resamples}
    points: list[FlowPoint] = []
    for name, title in (("measure", measure), ("correct", "accuracy")):
        for cut in (c for c in cuts if c.draw < 0):
            point = FlowPoint("knockout", cut.edge, title, cut.layer, cut.window)
            if name not in value:
                gap = "some samples have no right answer, so there is no accuracy"
                points.append(replace(point, gap=gap))
                continue
            if cut in errors:
                points.append(replace(point, gap=errors[cut]))
                continue
            controls = [replace(cut, draw=i) for i in range(draws)]
            beside = None
            if failed := [errors[c] for c in controls if c in errors]:
                why = f"{len(failed)} of {draws} draws of the control failed: {failed[0]}"
                point = replace(point, control_gap=why)
            elif draws:
                beside = np.stack([value[name][c] for c in controls])
            points.append(_changed(point, clean[name], value[name][cut], beside, groups, settings))
    return _adjusted(points)


def _variants(
    model: VLM, batch: Batch, edges: Edges, cuts: Sequence[_Cut], rng: np.random.Generator
) -> list[Any]:
    """The edits of each cut; a draw of the control is one set of image positions for all layers."""
    every = list(range(model.n_layers))
    draws = 1 + max(cut.draw for cut in cuts)
    places: dict[tuple[str, int], Any] = {}
    for edge, (query, key) in edges.items():
        most = max(count_edges(model, batch, query, key))
        for draw in range(draws):
            places[edge, draw] = patches_of_edges(model, batch, most, rng)
    found = []
    for cut in cuts:
        query, key = edges[cut.edge] if cut.draw < 0 else (places[cut.edge, cut.draw], "image")
        at = every
        if cut.layer is not None and cut.window is not None:
            at = list(window_around(cut.layer, cut.window, model.n_layers))
        found.append(knockout(at, query=query, key=key))
    return found


def _changed(
    point: FlowPoint,
    clean: np.ndarray,
    cut: np.ndarray,
    control: np.ndarray | None,
    groups: np.ndarray,
    settings: dict[str, Any],
) -> FlowPoint:
    """The point with its value and, beside draws ``[draw, example]`` of the control, control and lead."""
    accuracy = point.measure == "accuracy"
    if accuracy:
        found = paired_accuracy_change(clean, cut, groups, **settings)
        point = replace(point, value=found.change, p=found.p_value)
    else:
        point = replace(point, value=mean_change(cut - clean, groups, **settings))
    if control is None:
        return point
    several = len(control) > 1
    if accuracy and not several:  # nothing is known of other draws
        one = drawn_accuracy_change(clean, cut[None], control, groups, **settings)
        return replace(point, control=one.control.change, lead=one.excess.change)
    beside, lead = against_draws(
        cut - clean, control - clean, groups, over_draws=several, accuracy=accuracy, **settings
    )
    return replace(point, control=beside, lead=lead)


def _adjusted(points: list[FlowPoint]) -> list[FlowPoint]:
    """With q over the layers of one edge and window."""
    families: dict[Any, list[int]] = {}
    for i, point in enumerate(points):
        if point.p is not None and point.layer is not None:
            families.setdefault((point.what, point.window, point.measure), []).append(i)
    for members in families.values():
        adjusted = benjamini_hochberg(np.array([points[i].p for i in members], dtype=float))
        for i, q in zip(members, adjusted, strict=True):
            points[i] = replace(points[i], q=float(q))
    return points
