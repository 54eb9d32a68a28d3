"""Models with planted circuits, and what tests of circuits ask about them; each is made once a run."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import mechvrp
from mechvrp.circuits import (
    AnswerReader,
    Planted,
    Ranking,
    plant_circuit,
    rank_by_probe_weight,
    sweep_answers,
)
from mechvrp.circuits.logistic import DEFAULT_C_GRID, cross_validate, fit_probe, grouped_folds
from mechvrp.data import Sample

#: The embedded models.
MODELS = ("tiny-llava", "tiny-paligemma", "tiny-qwen2-vl")
#: Ways to plant: few neurons with decoys; half the layer; few neurons among others that write too.
KINDS: dict[str, dict[str, Any]] = {
    "concentrated": {"neurons": 4, "decoys": 6},
    "spread": {"neurons": 128},
    "noisy": {"neurons": 8, "noise": 2.0},
}
#: Scenes that circuits are planted with; the ones after them are to evaluate on.
PLANTING = 32


def model(name: str = "tiny-llava") -> mechvrp.VLM:
    return _loaded(name)


@cache
def _loaded(name: str) -> mechvrp.VLM:
    return mechvrp.load(name)


@cache
def questions(n: int, *, planting: bool = False) -> tuple[Sample, ...]:
    """``n`` existence questions, two to an image, half of them to be answered with yes."""
    scenes = mechvrp.data.load("scenes", n_images=PLANTING + 160)
    found = [s for s in scenes if s.task == "existence"]
    found = found[: 2 * PLANTING] if planting else found[2 * PLANTING :]
    assert len(found) >= n
    return tuple(found[:n])


def planted(
    kind: str = "concentrated", name: str = "tiny-llava", *, layer: int = 2, seed: int = 0
) -> Planted:
    """A model with a circuit of one of ``KINDS``; its images are not among ``questions``."""
    # All by position: `cache` takes a default and the same value given for two calls.
    return _made(kind, name, layer, seed)


@cache
def _made(kind: str, name: str, layer: int, seed: int) -> Planted:
    samples = questions(2 * PLANTING, planting=True)
    return plant_circuit(model(name), samples, layer=layer, seed=seed, **KINDS[kind])


@cache
def _read(found: Planted, samples: tuple[Sample, ...]) -> tuple[np.ndarray, np.ndarray]:
    acts = mechvrp.cache(found.model, list(samples), [found.site, "unembed.hook_out"])
    return acts[found.site].double().numpy(), acts["unembed.hook_out"].argmax(-1).numpy()


def said_yes(found: Planted, samples: tuple[Sample, ...]) -> np.ndarray:
    """Boolean [example], whether its greedy first token is the positive answer's; it is one of the two."""
    tokens = _read(found, samples)[1]
    assert np.isin(tokens, found.tokens).all()
    return np.asarray(tokens == found.tokens[0])


def neurons_of(found: Planted, samples: tuple[Sample, ...]) -> np.ndarray:
    """[example, d_mlp], the layer's neurons at the last prompt token."""
    return _read(found, samples)[0]


def by_probe(found: Planted, samples: tuple[Sample, ...], c: float | None = None) -> Ranking:
    """The layer's neurons by the weight a probe of the model's own answer gives them.

    ``c`` is its inverse strength, by default chosen by cross-validation.
    """
    features, labels = neurons_of(found, samples), said_yes(found, samples)
    groups = np.array([s.image_id for s in samples])
    if c is None:
        folds = grouped_folds(labels, groups, 5, 0)
        c = cross_validate(features, labels, folds, DEFAULT_C_GRID).c
    probe = fit_probe(features, labels, c)
    return rank_by_probe_weight(probe, found.site, model=found.model, images=groups)


def permuted(ranking: Ranking, seed: int) -> Ranking:
    """The same scores, given to units at random."""
    scores = np.random.default_rng(seed).permutation(ranking.scores)
    return Ranking(ranking.sites, scores, method="permuted " + ranking.method)


def null_outcomes(
    found: Planted, samples: tuple[Sample, ...], ks: tuple[int, ...], seeds: int, draws: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right or wrong with units taken away that rankings without meaning put on top, and with random ones.

    All in one sweep a batch. Gives clean [example], top [seed, k, example] of a ranking permuted by each
    seed, and random [draw, k, example] of the sets that `ablate_ranking` draws.
    """
    scores = np.random.default_rng(0).normal(size=found.model.d_mlp)
    ranking = Ranking((found.site,), scores)
    tops = [permuted(ranking, 1000 + seed) for seed in range(seeds)]
    edits = [top.edits(top.top(k)) for top in tops for k in ks]
    random = {k: ranking.random(k, draws, 7) for k in ks}
    edits += [ranking.edits(random[k][draw]) for draw in range(draws) for k in ks]
    scored = sweep_answers(
        found.model, found.model.encode(samples), edits, AnswerReader(found.model)
    )
    assert not any(scored.errors)
    right = (scored.answers == 1).reshape(seeds + draws, len(ks), -1)
    return scored.clean, right[:seeds], right[seeds:]
