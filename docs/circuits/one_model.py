"""Everything the case study asks of one checkpoint: circuits, rankings, ablation curves, image flow, heads."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from keeping import Found, Shares

import mechvrp
from mechvrp.circuits import (
    Circuit,
    CircuitProof,
    Discovery,
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
from mechvrp.errors import UnavailableError
from mechvrp.models import fingerprint
from mechvrp.statistics import accuracy_interval

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """How much of everything. ``steps`` of a curve are shares of a site's units."""

    find: int = 16  # pairs that a circuit is found on
    prove: int = 30  # pairs that it is proven on
    scenes: int = 150  # searched for hallucinations, as many again for the proof
    draws: int = 99  # random circuits, and random sets of heads
    retest_draws: int = 29  # random circuits, on the other kind of answers
    removal_draws: int = 2
    curve_draws: int = 9
    ranked: int = 500  # polls that units are ranked on
    exact: int = 40  # of these, for the exact effect of every unit
    asked: int = 400  # held-out polls
    ablated: int = 200  # of these, for the ablation curves
    unit_draws: int = 199  # random sets of units
    steps: tuple[float, ...] = (0.05, 0.2, 0.5)
    flow: int = 60  # polls for image flow and heads
    resamples: int = 2000


QUICK = Sizes(
    find=8, prove=10, scenes=40, draws=19, retest_draws=9, removal_draws=1, curve_draws=3, ranked=240, exact=0,
    unit_draws=19, asked=120, ablated=40, steps=(0.2, 0.5), flow=16, resamples=500,
)  # fmt: skip


def study_model(name: str, source: str, family: str, sizes: Sizes, seed: int, say: Tell) -> Found:
    """Run all steps. A step that this model or so few scenes do not allow is a gap, and the rest goes on."""
    model = mechvrp.load(source)
    model.name = name  # what is kept names no folder of the machine that it was made on
    made = {"sizes": asdict(sizes), "seed": seed}
    found = Found(name, family, fingerprint(model), made)
    polls = {
        "rank": _polls(seed + 1, sizes.ranked),  # other scenes than
        "ask": _polls(seed, sizes.asked),  # these
    }
    steps: dict[str, Callable[[], None]] = {
        "circuits": lambda: _circuits(model, found, sizes, seed),
        "rankings and ablation curves": lambda: _units(model, found, polls, sizes, seed),
        "image flow": lambda: _flow(model, found, sizes, seed),
        "heads": lambda: _heads(model, found, polls, sizes, seed),
    }
    for words, run in steps.items():
        began = time.perf_counter()
        with found.gap(words):
            run()
        found.seconds[words] = time.perf_counter() - began
        say(f"{name}: {words} ({found.seconds[words]:.0f} s)")
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


def _existence(seed: int, n: int, split: str = "mixed") -> list[Sample]:
    """Polls for random digits, one of each scene: right is yes in one, no in the next."""
    every = mechvrp.data.load("scenes", split=split, task="existence", seed=seed, limit=2 * n)
    scenes: dict[str, list[Sample]] = {}
    for sample in every:
        scenes.setdefault(sample.image_id, []).append(sample)
    wanted = itertools.cycle(("yes", "no"))
    return [
        next((s for s in one if s.answer == word), one[0])
        for one, word in zip(scenes.values(), wanted, strict=False)
    ]


# --- circuits ---------------------------------------------------------------------------------------------


def right_pairs(model: mechvrp.VLM, samples: list[Sample], most: int) -> Pairs:
    """Pairs of which the model answers both sides rightly: the first ones, at most so many."""
    others = [counterfactual_pair(sample) for sample in samples]
    both = right_answers(model, samples) & right_answers(model, others)
    chosen = np.flatnonzero(both)[:most]
    if not len(chosen):
        raise UnavailableError(f"of {len(samples)} pairs the model answers none rightly twice")
    return counterfactual_pairs(
        model, [samples[i] for i in chosen], [others[i] for i in chosen], target="right", foil="right"
    )  # fmt: skip


def _circuits(model: mechvrp.VLM, found: Found, sizes: Sizes, seed: int) -> None:
    half = 2 * sizes.find  # some are answered wrongly
    training = _existence(seed, 2 * half, "train")
    held: dict[str, Pairs] = {}
    discovered: dict[str, Discovery] = {}

    def discover(name: str, pairs: Pairs) -> None:
        discovered[name] = discover_circuit(model, pairs)
        found.circuits[name] = discovered[name].circuit
        found.tables[f"discovery: {name}"] = discovered[name].to_frame()

    with found.gap("circuit of existence answers"):
        held["existence"] = right_pairs(model, _existence(seed, 2 * sizes.prove), sizes.prove)
        discover("existence", right_pairs(model, training[:half], sizes.find))
    with found.gap("circuit of existence answers, found again"):
        discover("existence, found again", right_pairs(model, training[half:], sizes.find))
    with found.gap("circuit of hallucinated answers"):
        pairs, held["hallucinated"] = _hallucinations(model, found, sizes, seed)
        discover("hallucinated", pairs)
    _overlaps(model, found, seed)
    for name, pairs in held.items():
        if name in discovered:
            _prove(model, found, discovered[name], name, pairs, sizes, seed)
    for name, other in (("existence", "hallucinated"), ("hallucinated", "existence")):
        if name not in found.circuits or other not in held:
            continue
        words = f"{name} circuit on {other} answers"
        with found.gap(words):
            proof = found.circuits[name].retest(
                model, held[other], minimality=False, draws=sizes.retest_draws, seed=seed,
                n_resamples=sizes.resamples,
            )  # fmt: skip
            _proven(model, found, words, proof, held[other])


def _hallucinations(
    model: mechvrp.VLM, found: Found, sizes: Sizes, seed: int
) -> tuple[Pairs, Pairs]:
    """Pairs to find the circuit on, and pairs of other scenes to prove it on."""
    parts = []
    for words, one, most in (("found on", seed + 1, sizes.find), ("proven on", seed, sizes.prove)):
        polls = mechvrp.data.load("scenes", split="adversarial", seed=one, n_images=sizes.scenes)
        some = hallucinated_pairs(model, list(polls), seed=seed)
        mistaken = [
            f"{old} for {sample.meta['digit']}"
            for old, sample in zip(some.mistaken, some.traced, strict=True)
        ]
        found.hallucinated[words] = {
            "asked": some.asked, "yes": some.found, "traced": len(some.traced), "mistaken": mistaken,
        }  # fmt: skip
        if some.pairs is None or some.pairs.n_groups < 2:
            raise UnavailableError(
                f"{some}: too few for a circuit that is proven on other images; ask for more scenes"
            )
        others = [sample for part in some.pairs for sample in part.counterfactual.samples or ()]
        parts.append(counterfactual_pairs(model, list(some.traced)[:most], others[:most]))
    return parts[0], parts[1]


def _overlaps(model: mechvrp.VLM, found: Found, seed: int) -> None:
    """How many nodes circuits share, beside random circuits of the composition of the second."""
    if "existence" not in found.circuits:
        return
    first = found.circuits["existence"]
    for name in ("existence, found again", "hallucinated"):
        if name not in found.circuits:
            continue
        mine = set(first.nodes)
        drawn = random_circuits(model, found.circuits[name].nodes, 199, seed=seed)
        shared = [len(mine & set(one)) / len(mine | set(one)) for one in drawn]
        value = first.compare(found.circuits[name]).nodes_jaccard
        p = (1 + sum(one >= value for one in shared)) / (1 + len(shared))
        found.note(f"shared nodes: existence and {name}", value, random=float(np.mean(shared)), p=p)


def _prove(
    model: mechvrp.VLM, found: Found, discovered: Discovery, name: str, pairs: Pairs, sizes: Sizes,
    seed: int,
) -> None:  # fmt: skip
    found.plots[f"circuit of {name} answers"] = discovered.circuit.plot()
    ladder = [size for size in (2, 4, 8, 16, 32) if size <= len(discovered.order)]
    with found.gap(f"proof of the circuit of {name} answers"):
        proof = prove_circuit(
            discovered.circuit, model, pairs, draws=sizes.draws, removal_draws=sizes.removal_draws,
            order=discovered, sizes=ladder, curve_draws=sizes.curve_draws, seed=seed,
            n_resamples=sizes.resamples,
        )  # fmt: skip
        _proven(model, found, name, proof, pairs)
        found.plots[f"faithfulness, {name} answers, held-out scenes"] = proof.plot()
        found.tables[f"proof: {name}"] = proof.to_frame()


def _proven(model: mechvrp.VLM, found: Found, name: str, proof: CircuitProof, pairs: Pairs) -> None:
    nodes = len(proof.circuit)
    found.note(f"nodes: {name}", nodes)
    for words, one in (("faithfulness", proof.faithfulness), ("without it", proof.completeness)):
        random = f"{words}, random circuits: {name}"
        found.note(f"{words}: {name}", one.circuit, random=one.random.value, p=one.p)
        found.note(random, one.random)
    found.note(f"lead to share out, logits: {name}", proof.total)
    found.shares[name] = _shares(model, proof.circuit, pairs)


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
    n, images = len(polls["rank"]), np.array([sample.image_id for sample in every])
    absent = np.array([sample.answer == "no" for sample in polls["ask"]])
    found.answers = pd.DataFrame({"image_id": images[n:], "absent": absent, "right": right[n:]})
    options: dict[str, Any] = {"seed": seed, "n_resamples": sizes.resamples}
    found.note("polls answered rightly", accuracy_interval(right[n:], images[n:], **options))
    found.note(
        "absent digits said to be there",
        accuracy_interval(~right[n:][absent], images[n:][absent], **options),
    )
    acts = mechvrp.cache(model, every, "resid_post", positions="last")
    sweep = probe_sweep(
        np.stack([acts[f"blocks.{i}.hook_resid_post"].numpy() for i in range(model.n_layers)]),
        right, images.tolist(), [sample.task for sample in every], range(n), range(n, len(every)), **options,
    )  # fmt: skip
    layer = sweep.chosen_layer
    found.tables["probe"] = sweep.to_frame()
    found.note("AUROC of a probe of being right", sweep.auroc)
    found.note("block that this probe reads", layer)
    sites = {
        "MLP neurons": f"blocks.{layer}.mlp.hook_post",
        "residual dimensions": f"blocks.{layer}.hook_resid_post",
    }
    for kind, site in sites.items():
        with found.gap(f"ablation of {kind}"):
            rankings = _rank(model, polls["rank"], site, right[:n], sizes, seed)
            agreement = compare_rankings(rankings)
            found.tables[f"agreement: {kind}"] = agreement.matrix("rbo").reset_index(names="method")
            units = len(rankings["probe"].scores)
            curve = ablation_curve(
                model, polls["ask"][: sizes.ablated], rankings["probe"],
                [max(1, round(share * units)) for share in sizes.steps],
                draws=sizes.unit_draws, sets=("matched",), **options,
            )  # fmt: skip
            found.curves[kind] = curve
            found.tables[f"curve: {kind}"] = curve.to_frame()
            if "random" in curve.bottleneck:
                p = curve.curve_p["all"]
                found.note(f"bottleneck index: {kind}", curve.bottleneck["random"], p=p)
            else:
                found.gaps[f"bottleneck index: {kind}"] = curve.bottleneck_gap


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
    flow = image_flow(model, samples, **options)
    # The probe needs more scenes than the other methods.
    gaps = dict.fromkeys(one.gap for one in flow.points if one.method == "probe" and one.gap)
    if gaps:
        found.gaps["image flow, by a probe"] = "; ".join(gaps)
    found.flow = flow
    found.tables["image flow"] = flow.to_frame()
    found.plots["image information at text positions"] = flow.plot()
    for what in ("text", "last"):
        with found.gap(f"depth at which {what} positions carry half"):
            at = flow.integration(what=what)
            if at.crossing is None or at.crossing_low is None or at.crossing_high is None:
                raise UnavailableError(
                    at.gap or f"{at.missing:.1%} of resamples have no such layer"
                )
            ends = {"low": at.crossing_low, "high": at.crossing_high}
            counts = {"n": at.n, "n_groups": at.n_groups}
            found.note(f"depth of half: {what}", at.crossing, **ends, **counts)


def _heads(
    model: mechvrp.VLM, found: Found, polls: dict[str, list[Sample]], sizes: Sizes, seed: int
) -> None:
    options: dict[str, Any] = {"seed": seed, "n_resamples": sizes.resamples}
    reading = read_heads(model, polls["rank"][: sizes.flow], **options)
    found.tables["heads"] = reading.to_frame()
    found.plots["heads"] = reading.plot()
    ranking = reading.ranking("carried")
    ks = [k for k in (1, 2, 4) if k <= (ranking.scores > 0).sum()]
    knocked = knock_out_heads(
        model, polls["ask"][: sizes.flow], ranking, ks, draws=sizes.draws, **options
    )
    found.tables["knockouts"] = knocked.to_frame()
    found.plots["heads that no longer see the image"] = knocked.plot()
    for point in knocked.points:
        random = None if point.control is None else point.control.value
        found.note(
            f"change of the lead, {point.k} head{'s' * (point.k > 1)} cut off, logits",
            point.change, random=random, p=point.p,
        )  # fmt: skip
