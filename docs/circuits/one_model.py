"""Everything the case study asks of one model: circuits, rankings, ablation curves, image flow, heads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

import mechvrp
from mechvrp.circuits import (
    AblationCurve,
    Circuit,
    CircuitProof,
    Discovery,
    ImageFlow,
    Pairs,
    Ranking,
    ablation_curve,
    compare_rankings,
    counterfactual_pairs,
    discover_circuit,
    hallucinated_pairs,
    image_flow,
    knock_out_heads,
    probe_sweep,
    prove_circuit,
    rank_units,
    read_heads,
    right_answers,
)
from mechvrp.circuits.circuit_runs import CircuitRuns
from mechvrp.circuits.random_circuits import random_circuits
from mechvrp.data import Sample, counterfactual_pair
from mechvrp.errors import InputError, MechVRPError

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """How much of everything. ``steps`` of a curve are shares of a site's units."""

    find: int = 16  # pairs that a circuit is found on
    prove: int = 30  # pairs that it is proven on
    scenes: int = 150  # searched for hallucinations, as many again for the proof
    draws: int = 199  # random circuits, random sets of units, random sets of heads
    retest_draws: int = 49  # random circuits, on the other kind of answers
    removal_draws: int = 3
    curve_draws: int = 9
    ranked: int = 500  # polls that units are ranked on
    exact: int = 40  # of these, for the exact effect of every unit
    asked: int = 400  # held-out polls
    ablated: int = 120  # of these, for the ablation curves
    steps: tuple[float, ...] = (0.05, 0.2, 0.5)
    flow: int = 60  # of these, for image flow and heads
    resamples: int = 2000


QUICK = Sizes(
    find=8, prove=10, scenes=40, draws=19, retest_draws=9, removal_draws=1, curve_draws=3, ranked=240, exact=0,
    asked=120, ablated=40, steps=(0.2, 0.5), flow=16, resamples=500,
)  # fmt: skip


@dataclass(frozen=True)
class Shares:
    """The measure of a circuit's pairs, pair by pair: what differences between models are made of."""

    images: tuple[str, ...]
    full: np.ndarray  # [pair]: the whole model
    empty: np.ndarray  # [pair]: every head and MLP ablated
    kept: np.ndarray  # [pair]: all but the circuit ablated
    without: np.ndarray  # [pair]: the circuit ablated


@dataclass
class Found:
    """What was found of one model; what could not be is a gap, with its reason."""

    name: str
    circuits: dict[str, Circuit] = field(default_factory=dict)
    proofs: dict[str, CircuitProof] = field(default_factory=dict)
    shares: dict[str, Shares] = field(default_factory=dict)
    overlap: dict[str, float] = field(default_factory=dict)
    hallucinated: dict[str, Any] = field(default_factory=dict)
    answers: pd.DataFrame = field(default_factory=pd.DataFrame)
    probe: pd.DataFrame = field(default_factory=pd.DataFrame)
    agreement: dict[str, pd.DataFrame] = field(default_factory=dict)
    curves: dict[str, AblationCurve] = field(default_factory=dict)
    flow: ImageFlow | None = None
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    gaps: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def study_model(name: str, sizes: Sizes, seed: int, say: Tell = print) -> Found:
    """Run all steps. A step that this model or so few scenes do not allow is a gap, and the rest goes on."""
    found = Found(name)
    model = mechvrp.load(name)
    polls = {
        "rank": _polls(seed + 1, sizes.ranked),  # other scenes than
        "ask": _polls(seed, sizes.asked),  # these
    }

    def step(words: str, run: Callable[[], None]) -> None:
        began = time.perf_counter()
        try:
            run()
        except MechVRPError as error:
            found.gaps[words] = str(error)
            say(f"{name}: {words}: a gap: {error}")
        found.seconds[words] = time.perf_counter() - began
        say(f"{name}: {words} ({found.seconds[words]:.0f} s)")

    step("circuits", lambda: _circuits(model, found, sizes, seed))
    step("rankings and ablation curves", lambda: _units(model, found, polls, sizes, seed))
    step("image flow", lambda: _flow(model, found, sizes, seed))
    step("heads", lambda: _heads(model, found, polls, sizes, seed))
    return found


def _polls(seed: int, n: int) -> list[Sample]:
    """Adversarial polls: a yes and a no of each scene, so that there are many scenes."""
    every = mechvrp.data.load("scenes", split="adversarial", seed=seed, n_images=-(-n // 2))
    seen: dict[str, int] = {}
    kept = []
    for sample in every:
        seen[sample.image_id] = seen.get(sample.image_id, 0) + 1
        if seen[sample.image_id] <= 2:  # they alternate
            kept.append(sample)
    return kept[:n]


def _existence(seed: int, n: int) -> list[Sample]:
    """Polls for random digits, a yes and a no of each scene."""
    return list(mechvrp.data.load("scenes", task="existence", seed=seed, limit=n))


# --- circuits ---------------------------------------------------------------------------------------------


def right_pairs(model: mechvrp.VLM, samples: list[Sample], most: int) -> Pairs:
    """Pairs of which the model answers both sides rightly: the first ones, at most so many."""
    others = [counterfactual_pair(sample) for sample in samples]
    both = right_answers(model, samples) & right_answers(model, others)
    chosen = np.flatnonzero(both)[:most]
    return counterfactual_pairs(
        model,
        [samples[i] for i in chosen],
        [others[i] for i in chosen],
        target="right",
        foil="right",
    )


def _circuits(model: mechvrp.VLM, found: Found, sizes: Sizes, seed: int) -> None:
    load = mechvrp.data.load
    training = list(
        load("scenes", split="train", task="existence", seed=seed, limit=4 * sizes.find)
    )
    half = len(training) // 2
    asked = _existence(seed, 2 * sizes.prove)
    held = {"existence": right_pairs(model, asked, sizes.prove)}
    discovered = {
        "existence": discover_circuit(model, right_pairs(model, training[:half], sizes.find)),
        "existence, found again": discover_circuit(
            model, right_pairs(model, training[half:], sizes.find)
        ),
    }
    try:
        pairs, held["hallucinated"] = _hallucinations(model, found, sizes, seed)
        discovered["hallucinated"] = discover_circuit(model, pairs)
    except MechVRPError as error:
        found.gaps["hallucinated answers"] = str(error)
    found.circuits = {name: one.circuit for name, one in discovered.items()}
    _overlaps(model, found, seed)
    for behaviour, pairs in held.items():
        if behaviour in discovered:
            _prove(model, found, discovered[behaviour], behaviour, pairs, sizes, seed)
    options: dict[str, Any] = {
        "minimality": False, "draws": sizes.retest_draws, "seed": seed, "n_resamples": sizes.resamples,
    }  # fmt: skip
    for behaviour, other in (("existence", "hallucinated"), ("hallucinated", "existence")):
        if behaviour not in found.circuits or other not in held:
            continue
        name = f"{behaviour} circuit on {other} answers"
        try:
            found.proofs[name] = found.circuits[behaviour].retest(model, held[other], **options)
            found.shares[name] = _shares(model, found.circuits[behaviour], held[other])
        except MechVRPError as error:
            found.gaps[name] = str(error)


def _hallucinations(
    model: mechvrp.VLM, found: Found, sizes: Sizes, seed: int
) -> tuple[Pairs, Pairs]:
    """Pairs to find the circuit on, and pairs of other scenes to prove it on."""
    parts = []
    for words, one, most in (("found on", seed + 1, sizes.find), ("proven on", seed, sizes.prove)):
        polls = mechvrp.data.load("scenes", split="adversarial", seed=one, n_images=sizes.scenes)
        some = hallucinated_pairs(model, list(polls), seed=seed)
        found.hallucinated[words] = {
            "asked": some.asked, "yes": some.found, "traced": len(some.traced),
            "mistaken": [
                f"{old} for {sample.meta['digit']}"
                for old, sample in zip(some.mistaken, some.traced, strict=True)
            ],
        }  # fmt: skip
        if some.pairs is None or some.pairs.n_groups < 2:
            raise mechvrp.errors.UnavailableError(
                f"{some}: too few for a circuit that is proven on other images; ask for more scenes"
            )
        others = [sample for part in some.pairs for sample in part.counterfactual.samples or ()]
        parts.append(counterfactual_pairs(model, list(some.traced)[:most], others[:most]))
    return parts[0], parts[1]


def _overlaps(model: mechvrp.VLM, found: Found, seed: int) -> None:
    """How many nodes circuits share, beside random circuits of the composition of the second."""
    first = found.circuits["existence"]
    for name in ("existence, found again", "hallucinated"):
        if name in found.circuits:
            found.overlap[name] = first.compare(found.circuits[name]).nodes_jaccard
            mine = set(first.nodes)
            drawn = random_circuits(model, found.circuits[name].nodes, 199, seed=seed)
            found.overlap[f"{name}: random"] = float(
                np.mean([len(mine & set(one)) / len(mine | set(one)) for one in drawn])
            )


def _prove(
    model: mechvrp.VLM, found: Found, discovered: Discovery, name: str, pairs: Pairs, sizes: Sizes,
    seed: int,
) -> None:  # fmt: skip
    found.tables[f"discovery: {name}"] = discovered.to_frame()
    found.figures[f"circuit of {name} answers"] = discovered.circuit.plot()
    ladder = [size for size in (1, 2, 4, 8, 16, 32) if size <= len(discovered.order)]
    try:
        proof = prove_circuit(
            discovered.circuit, model, pairs, draws=sizes.draws, removal_draws=sizes.removal_draws,
            order=discovered.order, sizes=ladder, curve_draws=sizes.curve_draws, seed=seed,
            n_resamples=sizes.resamples,
        )  # fmt: skip
        found.proofs[name] = proof
        found.shares[name] = _shares(model, discovered.circuit, pairs)
        found.figures[f"faithfulness, {name} answers, held-out scenes"] = proof.plot()
    except MechVRPError as error:
        found.gaps[f"proof of the circuit of {name} answers"] = str(error)


def _shares(model: mechvrp.VLM, circuit: Circuit, pairs: Pairs) -> Shares:
    runs = CircuitRuns(model, pairs)
    values = runs.run([(), circuit.nodes, circuit.nodes], ["rest", "rest", "circuit"])
    return Shares(pairs.groups, runs.full, values[0], values[1], values[2])


# --- units ------------------------------------------------------------------------------------------------


def _units(
    model: mechvrp.VLM, found: Found, polls: dict[str, list[Sample]], sizes: Sizes, seed: int
) -> None:
    every = polls["rank"] + polls["ask"]
    right = right_answers(model, every)
    n = len(polls["rank"])
    found.answers = pd.DataFrame(
        {
            "image_id": [s.image_id for s in polls["ask"]],
            "digit": [s.meta["digit"] for s in polls["ask"]],
            "answer": [s.answer for s in polls["ask"]],
            "right": right[n:],
        }
    )
    acts = mechvrp.cache(model, every, "resid_post", positions="last")
    sweep = probe_sweep(
        np.stack([acts[f"blocks.{i}.hook_resid_post"].numpy() for i in range(model.n_layers)]),
        right,
        [sample.image_id for sample in every],
        [sample.task for sample in every],
        range(n),
        range(n, len(every)),
        seed=seed,
        n_resamples=sizes.resamples,
    )
    found.probe = sweep.to_frame()
    layer = sweep.chosen_layer
    sites = {
        "MLP neurons": f"blocks.{layer}.mlp.hook_post",
        "residual dimensions": f"blocks.{layer}.hook_resid_post",
    }
    for kind, site in sites.items():
        try:
            rankings = _rank(model, polls["rank"], site, right[:n], sizes, seed)
            agreement = compare_rankings(rankings)
            found.agreement[kind] = agreement.matrix("rbo")
            found.tables[f"agreement: {kind}"] = agreement.to_frame()
            found.tables[f"ranking: {kind}"] = rankings["probe"].to_frame()
            units = len(rankings["probe"].scores)
            found.curves[kind] = ablation_curve(
                model,
                polls["ask"][: sizes.ablated],
                rankings["probe"],
                [max(1, round(share * units)) for share in sizes.steps],
                draws=sizes.draws,
                sets=("matched",),
                seed=seed,
                n_resamples=sizes.resamples,
            )
        except MechVRPError as error:
            found.gaps[kind] = str(error)


def _rank(
    model: mechvrp.VLM, samples: list[Sample], site: str, right: np.ndarray, sizes: Sizes, seed: int
) -> dict[str, Ranking]:
    rankings = {}
    for method in ("probe", "sparse probe", "mean difference"):
        rankings[method] = rank_units(model, samples, site, method, labels=right, seed=seed)
    for method, n in (("attribution", len(samples)), ("ablation", sizes.exact)):
        if n:
            rankings[method] = rank_units(model, samples[:n], site, method, folds=None, seed=seed)
    rankings["random"] = rank_units(model, samples, site, "random", folds=None, seed=seed)
    return rankings


# --- image information ------------------------------------------------------------------------------------


def _flow(model: mechvrp.VLM, found: Found, sizes: Sizes, seed: int) -> None:
    samples = _existence(seed, sizes.flow)
    options: dict[str, Any] = {"seed": seed, "n_resamples": sizes.resamples}
    try:
        found.flow = image_flow(model, samples, **options)
    except InputError as error:  # the probe needs more scenes than the other methods
        found.gaps["image flow, by a probe"] = str(error)
        found.flow = image_flow(model, samples, methods=("knockout", "patching"), **options)
    found.figures["image information at text positions"] = found.flow.plot()


def _heads(
    model: mechvrp.VLM, found: Found, polls: dict[str, list[Sample]], sizes: Sizes, seed: int
) -> None:
    reading = read_heads(model, polls["rank"][: sizes.flow], seed=seed, n_resamples=sizes.resamples)
    found.tables["heads"] = reading.to_frame()
    found.figures["heads"] = reading.plot()
    ranking = reading.ranking("carried")
    ks = [k for k in (1, 2, 4) if k <= (ranking.scores > 0).sum()]
    knocked = knock_out_heads(
        model, polls["ask"][: sizes.flow], ranking, ks, draws=sizes.draws, seed=seed,
        n_resamples=sizes.resamples,
    )  # fmt: skip
    found.tables["knockouts"] = knocked.to_frame()
    found.figures["heads that no longer see the image"] = knocked.plot()
