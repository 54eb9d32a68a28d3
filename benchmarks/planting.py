"""How well methods that rank units find planted circuits, as the rest of the layer says more and more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

import mechvrp
from benchmarks.table import Row
from mechvrp.circuits import Planted, Ranking, plant_circuit, rank_by_probe_weight
from mechvrp.circuits.logistic import (
    DEFAULT_C_GRID,
    cross_validate,
    fit_probe,
    grouped_folds,
    one_thread_if_small,
)
from mechvrp.data import Sample
from mechvrp.models import zoo

__all__ = ["METHODS", "rows"]

#: Noise levels: what the layer's other neurons write beside the planted ones, as `plant_circuit` has it.
NOISES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
#: Planted neurons and decoys, and their layer.
NEURONS, DECOYS, LAYER = 8, 6, 2


def _probe_weight(found: Planted, samples: Sequence[Sample]) -> Ranking:
    """The L2 probe of the model's own answer, its strength by cross-validation over images."""
    acts = mechvrp.cache(found.model, samples, [found.site, "unembed.hook_out"])
    features = acts[found.site].double().numpy()
    labels = (acts["unembed.hook_out"].argmax(-1) == found.tokens[0]).numpy()
    folds = grouped_folds(labels, np.array([s.image_id for s in samples]), 5, 0)
    with one_thread_if_small(features):
        c = cross_validate(features, labels, folds, DEFAULT_C_GRID).c
        return rank_by_probe_weight(fit_probe(features, labels, c), found.site)


def _random(found: Planted, samples: Sequence[Sample]) -> Ranking:
    rng = np.random.default_rng(found.seed)
    return Ranking((found.site,), rng.normal(size=found.model.d_mlp), method="random")


#: Each ranks the layer's neurons of a planted model, from samples it was not planted with.
METHODS: dict[str, Callable[[Planted, Sequence[Sample]], Ranking]] = {
    "probe weight (L2)": _probe_weight,
    "random": _random,
}


def rows(
    names: Sequence[str] | None = None,
    *,
    noises: Sequence[float] = NOISES,
    n: int = 200,
    seeds: int = 3,
) -> list[Row]:
    """Precision at k = the number planted, mean over seeds, by model, method and noise.

    Args:
        names: of embedded models, by default all.
        noises: levels of noise.
        n: examples that methods rank from.
        seeds: circuits planted at each level.
    """
    scenes = mechvrp.data.load("scenes", n_images=50 + n // 2)
    asked = [s for s in scenes if s.task == "existence"]
    planting, ranking = asked[:100], asked[100 : 100 + n]
    found = []
    for name in names or zoo.names():
        model = mechvrp.load(name)
        precision: dict[str, list[list[float]]] = {method: [] for method in METHODS}
        for noise in noises:
            planted = [
                plant_circuit(
                    model,
                    planting,
                    layer=LAYER,
                    neurons=NEURONS,
                    decoys=DECOYS,
                    noise=noise,
                    seed=seed,
                )
                for seed in range(seeds)
            ]
            for method, rank in METHODS.items():
                precision[method].append([p.precision_at(rank(p, ranking)) for p in planted])
        for method, levels in precision.items():
            for noise, values in zip(noises, levels, strict=True):
                found.append(
                    Row(
                        f"planted circuit found, {name}, by {method}, noise {noise:g}",
                        float(np.mean(values)),
                        "",
                        least=1.0 if noise == 0 and method != "random" else None,
                        detail=f"precision at k = {NEURONS} of {model.d_mlp} neurons of layer {LAYER}, mean of "
                        f"{seeds} plants ({min(values):.2f} to {max(values):.2f}), {len(ranking)} examples",
                    )
                )
    return found
