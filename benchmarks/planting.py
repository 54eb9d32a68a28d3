"""How well methods that rank units find planted circuits, as the rest of the layer says more and more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import mechvrp
from benchmarks.table import Row
from mechvrp.circuits import Planted, Ranking, plant_circuit, rank_units
from mechvrp.data import Sample, counterfactual_pair
from mechvrp.models import zoo

__all__ = ["METHODS", "rows"]

#: Noise levels: what the layer's other neurons write beside the planted ones, as `plant_circuit` has it.
NOISES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
#: Planted neurons and decoys, and their layer.
NEURONS, DECOYS, LAYER = 8, 6, 2


#: Examples of methods that go through the model for each unit or pair; the others get all.
FEW = 40


def _ranked(
    method: str, *, limit: int | None = None, labelled: bool = False
) -> Callable[[Planted, Sequence[Sample]], Ranking]:
    """A method of `rank_units`; labels are the model's own answers."""

    def rank(found: Planted, samples: Sequence[Sample]) -> Ranking:
        given = list(samples)[:limit]
        options: dict[str, Any] = {}
        if labelled:
            logits = mechvrp.cache(found.model, given, "unembed.hook_out")["unembed.hook_out"]
            options["labels"] = (logits.argmax(-1) == found.tokens[0]).numpy()
        if method == "attribution of a pair":
            options["corrupted"] = [counterfactual_pair(sample, found.seed) for sample in given]
        return rank_units(found.model, given, found.site, method, seed=found.seed, **options)

    return rank


#: Each ranks the layer's neurons of a planted model, from samples it was not planted with.
METHODS: dict[str, Callable[[Planted, Sequence[Sample]], Ranking]] = {
    "probe": _ranked("probe", labelled=True),
    "sparse probe": _ranked("sparse probe", labelled=True),
    "MLP probe": _ranked("MLP probe", labelled=True),
    "mean difference": _ranked("mean difference", labelled=True),
    "attribution": _ranked("attribution"),
    "attribution of a pair": _ranked("attribution of a pair", limit=FEW),
    "ablation": _ranked("ablation", limit=FEW),
    "random": _ranked("random"),
}

#: Methods that need not find all planted neurons of a clean plant: an L1 probe of the answer is content with
#: those that suffice to tell it, and of eight that say nearly the same fewer do.
NOT_ALL = ("sparse probe", "random")


def rows(
    names: Sequence[str] | None = None,
    *,
    methods: Sequence[str] = tuple(METHODS),
    noises: Sequence[float] = NOISES,
    n: int = 200,
    seeds: int = 3,
) -> list[Row]:
    """Precision at k = the number planted, mean over seeds, by model, method and noise.

    Args:
        names: of embedded models, by default all.
        methods: names of `METHODS`.
        noises: levels of noise.
        n: examples that methods rank from; some take the first `FEW` of them.
        seeds: circuits planted at each level.
    """
    scenes = mechvrp.data.load("scenes", n_images=50 + n // 2)
    asked = [s for s in scenes if s.task == "existence"]
    planting, ranking = asked[:100], asked[100 : 100 + n]
    found = []
    for name in names or zoo.names():
        model = mechvrp.load(name)
        precision: dict[str, list[list[float]]] = {method: [] for method in methods}
        used: dict[str, int] = {}
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
            for method in methods:
                rankings = [METHODS[method](p, ranking) for p in planted]
                precision[method].append(
                    [p.precision_at(one) for p, one in zip(planted, rankings, strict=True)]
                )
                used[method] = int(rankings[0].settings["examples"])
        for method, levels in precision.items():
            for noise, values in zip(noises, levels, strict=True):
                found.append(
                    Row(
                        f"planted circuit found, {name}, by {method}",
                        float(np.mean(values)),
                        "",
                        least=1.0 if noise == 0 and method not in NOT_ALL else None,
                        detail=f"precision at k = {NEURONS} of {model.d_mlp} neurons of layer {LAYER}, mean of "
                        f"{seeds} plants, {used[method]} examples; lowest and highest plant by noise: "
                        + ", ".join(f"{min(v):.2f} to {max(v):.2f}" for v in levels),
                        column=f"noise {noise:g}",
                    )
                )
    return found
