"""Results behind the gallery, each made once when a figure first asks for it; small, on embedded models."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import mechvrp
from mechvrp.circuits import (
    AblationCurve,
    Discovery,
    Pairs,
    Ranking,
    ablation_curve,
    counterfactual_pairs,
    discover_circuit,
    image_flow,
    probe_sweep,
    rank_units,
    right_answers,
)
from mechvrp.circuits.integration_results import ImageFlow
from mechvrp.circuits.probe_results import ProbeSweep
from mechvrp.data import Sample, counterfactual_pair
from mechvrp.models import Batch
from mechvrp.reliability import Observations, observe
from mechvrp.study import RunComparison, StudyResult, compare_runs, run_study

NAMES = ("tiny-llava", "tiny-qwen2-vl")


class Results:
    """Of ``tiny-llava`` where there is no other name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def models(self) -> dict[str, mechvrp.VLM]:
        return {name: mechvrp.load(name) for name in NAMES}

    @property
    def model(self) -> mechvrp.VLM:
        return self.models["tiny-llava"]

    @cached_property
    def samples(self) -> list[Sample]:
        """Polls for digits that look like one that is there: many are answered wrongly."""
        return list(mechvrp.data.load("scenes", split="adversarial", n_images=60))

    @cached_property
    def observed(self) -> Observations:
        return observe(self.model, self.samples, k=0)

    @cached_property
    def correct(self) -> np.ndarray:
        return right_answers(self.model, self.samples)

    @cached_property
    def images(self) -> np.ndarray:
        return np.array([sample.image_id for sample in self.samples])

    @cached_property
    def probability(self) -> np.ndarray:
        return self.observed.to_frame()["answer_probability"].to_numpy(float)

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Training and held-out examples, of different images."""
        late = np.isin(self.images, sorted(set(self.images))[1::2])
        return np.flatnonzero(~late), np.flatnonzero(late)

    @cached_property
    def probing(self) -> tuple[Any, ...]:
        """Arguments of ``probe_sweep``."""
        tasks = [sample.task for sample in self.samples]
        return self.observed.hidden, self.correct, self.images, tasks, *self.halves

    @cached_property
    def sweep(self) -> ProbeSweep:
        return probe_sweep(*self.probing)

    @cached_property
    def site(self) -> str:
        return f"blocks.{self.sweep.chosen_layer}.hook_resid_post"

    @cached_property
    def training(self) -> list[Sample]:
        return [self.samples[i] for i in self.halves[0]]

    @cached_property
    def heldout(self) -> list[Sample]:
        return [self.samples[i] for i in self.halves[1]]

    @cached_property
    def right_in_training(self) -> np.ndarray:
        return self.correct[self.halves[0]]

    @cached_property
    def batch(self) -> Batch:
        """One poll each of six scenes."""
        first = {sample.image_id: sample for sample in reversed(self.samples)}
        return self.model.encode(list(first.values())[:6])

    def ranking(self, name: str = "tiny-llava", method: str = "probe") -> Ranking:
        labels = right_answers(self.models[name], self.training)
        return rank_units(self.models[name], self.training, self.site, method, labels=labels)

    def curve(self, name: str) -> AblationCurve:
        ranking = self.ranking(name)
        return ablation_curve(self.models[name], self.heldout, ranking, [0, 5, 10, 20, 48])

    @cached_property
    def pairs(self) -> tuple[Pairs, Pairs]:
        """Scenes with the digit asked for and without: to find a circuit on, and to prove it on."""
        one, other = (self._pairs(split) for split in ("train", "mixed"))
        return one, other

    def _pairs(self, split: str, most: int = 12) -> Pairs:
        every = list(mechvrp.data.load("scenes", split=split, task="existence", n_images=24))
        samples = list({sample.image_id: sample for sample in every}.values())
        others = [counterfactual_pair(sample) for sample in samples]
        both = right_answers(self.model, samples) & right_answers(self.model, others)
        chosen = np.flatnonzero(both)[:most]
        clean, changed = [samples[i] for i in chosen], [others[i] for i in chosen]
        return counterfactual_pairs(self.model, clean, changed, target="right", foil="right")

    @cached_property
    def discovered(self) -> Discovery:
        return discover_circuit(self.model, self.pairs[0])

    @cached_property
    def flows(self) -> dict[str, ImageFlow]:
        every = mechvrp.data.load("scenes", task="existence", n_images=24)
        samples = list({sample.image_id: sample for sample in every}.values())
        return {
            name: image_flow(model, samples, methods=("knockout", "patching"))
            for name, model in self.models.items()
        }

    @cached_property
    def study(self) -> StudyResult:
        return run_study(
            list(NAMES), "scenes", out=self.folder / "study", progress=False, n=240, samples=0,
            causal=True, readouts=True, readout_layers=2, ks=[0, 5, 10, 20, 48], mask_draws=2,
            noise_draws=1, n_resamples=500, intervene_examples=60,
        )  # fmt: skip

    @cached_property
    def compared(self) -> RunComparison:
        return compare_runs([self.study.run.path])
