"""One model's part of a study: answers, hidden states, probes, ablations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from rich.console import Console

from mechvrp.circuits import (
    ProbeSweep,
    ablate_ranking,
    analyse_ablation,
    compare_with_baselines,
    default_ks,
    probe_sweep,
    rank_by_probe_weight,
)
from mechvrp.data import Dataset, Sample, is_correct
from mechvrp.errors import InputError, MechVRPError, UnavailableError
from mechvrp.models import VLM
from mechvrp.reliability import Answer, greedy_answers
from mechvrp.store import RunFolder
from mechvrp.study.config import StudyConfig
from mechvrp.study.schema import AblationSection, DataInfo, ModelInfo, ModelSection, ProbeSection
from mechvrp.study.sections import ablation_section, accuracy_rows, probe_section
from mechvrp.tracing import cache

__all__ = ["ModelStudy"]

#: Folds of the cross-validation within the training images.
FOLDS = 5
#: Pictures of each kind (right, wrong) in the gallery.
GALLERY = 12

LABEL_RULE = (
    "the greedy answer scored by the benchmark's rule (mechvrp.data.is_correct): polls by the {} "
    "reading, other tasks by exact match of the normalised answer"
)


@dataclass
class ModelStudy:
    """The study of one model.

    Attributes:
        model, dataset, config: what is studied, on what, and how.
        train, heldout: indices of the examples of either side.
        say: where to report to.
        progress: show bars.
        timings: seconds of each stage.
        notes: what was left out, and why.
    """

    model: VLM
    dataset: Dataset
    train: np.ndarray
    heldout: np.ndarray
    config: StudyConfig
    say: Console
    progress: bool
    timings: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def run(self, run: RunFolder, index: int) -> tuple[ModelSection, pd.DataFrame, np.ndarray]:
        """The section, the table of examples, and residual streams [layer, example, d_model].

        Pictures for the gallery go to ``run``, named after ``index``, the model's place.
        """
        samples = list(self.dataset)
        answers, right = self._answers(samples)
        hidden = self._hidden(samples)
        groups = np.array([s.image_id for s in samples])
        tasks = np.array([s.task for s in samples])
        sides = np.full(len(samples), "train", dtype=object)
        sides[self.heldout] = "heldout"

        sweep, probe = self._probe(hidden, right, groups, tasks, answers)
        ablation = None
        if sweep is not None:
            ablation = self._ablation(sweep, samples, right, groups, tasks, answers)
        section = ModelSection(
            model=self._model_info(),
            data=self._data_info(groups, tasks),
            label_rule=LABEL_RULE.format(self.config.yes_no),
            accuracy=accuracy_rows(
                right,
                tasks,
                groups,
                sides,
                seed=self.config.seed,
                n_resamples=self.config.n_resamples,
            ),
            probe=probe,
            ablation=ablation,
            timings_s=self.timings,
            notes=tuple(self.notes),
        )
        table = self._table(samples, answers, right, sides, sweep)
        self._gallery(run, index, table, samples)
        return section, table, hidden

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[name] = round(time.perf_counter() - start, 3)

    def _done(self, name: str, words: str) -> None:
        self.say.print(f"  {name}: {words} ({self.timings[name]:.1f} s)", soft_wrap=True)

    def _gap(self, what: str, error: MechVRPError) -> None:
        self.notes.append(f"{what}: {error}")
        self.say.print(f"  [yellow]{what}[/yellow]: {error}", soft_wrap=True)

    def _answers(self, samples: Sequence[Sample]) -> tuple[list[Answer], np.ndarray]:
        with self._stage("answers"):
            answers = greedy_answers(
                self.model,
                samples,
                batch_size=self.config.batch_size,
                max_new_tokens=self.config.max_new_tokens,
                progress=self.progress,
            )
        reading = self.config.yes_no
        right = np.array(
            [is_correct(s, a.text, reading=reading) for s, a in zip(samples, answers, strict=True)]
        )
        self._done("answers", f"{right.sum()} of {len(right)} right, {right.mean():.1%}")
        return answers, right

    def _hidden(self, samples: Sequence[Sample]) -> np.ndarray:
        with self._stage("hidden states"):
            acts = cache(
                self.model,
                samples,
                "resid_post",
                positions="last",
                batch_size=self.config.batch_size,
                progress=self.progress,
            )
        self._done("hidden states", f"residual stream of {len(acts)} layers, last prompt token")
        return acts.stack("resid_post").float().numpy()

    def _probe(
        self,
        hidden: np.ndarray,
        right: np.ndarray,
        groups: np.ndarray,
        tasks: np.ndarray,
        answers: Sequence[Answer],
    ) -> tuple[ProbeSweep | None, ProbeSection | None]:
        config = self.config
        try:
            folds = self._folds(right, groups)
            with self._stage("probes"):
                sweep = probe_sweep(
                    hidden,
                    right,
                    groups,
                    tasks,
                    self.train,
                    self.heldout,
                    seed=config.seed,
                    n_resamples=config.n_resamples,
                    folds=folds,
                )
                beside = compare_with_baselines(
                    sweep,
                    hidden,
                    right,
                    groups,
                    tasks,
                    [a.text for a in answers],
                    np.array([a.probability for a in answers]),
                    draws=config.draws,
                    folds=folds,
                )
        except InputError as error:
            self._gap("no probe", error)
            return None, None
        layer = sweep.chosen_layer
        self._done("probes", f"layer {layer}, held-out AUROC {sweep.auroc}")
        section = probe_section(
            beside,
            site=f"blocks.{layer}.hook_resid_post",
            site_words=f"residual stream behind block {layer}, last prompt token",
        )
        return sweep, section

    def _folds(self, right: np.ndarray, groups: np.ndarray) -> int:
        """Five folds, or as many as there are training images with answers of the rarer kind."""
        train = self.train
        images = [len(set(groups[train][right[train] == value])) for value in (False, True)]
        folds = min(FOLDS, *images)
        if 2 <= folds < FOLDS:
            self.notes.append(
                f"{folds} folds of cross-validation instead of {FOLDS}: the training images hold "
                f"wrong answers on {images[0]} and right ones on {images[1]}"
            )
        return max(folds, 2)

    def _ablation(
        self,
        sweep: ProbeSweep,
        samples: Sequence[Sample],
        right: np.ndarray,
        groups: np.ndarray,
        tasks: np.ndarray,
        answers: Sequence[Answer],
    ) -> AblationSection | None:
        config = self.config
        # The first token is the answer only where the clean answer is one token long.
        single = np.array([len(answers[i].tokens) == 1 for i in self.heldout])
        held = self.heldout[single]
        if not single.all() and single.any():
            self.notes.append(
                f"ablation curve: {(~single).sum()} of {len(single)} held-out examples are left out, "
                "whose clean answer is not one token long"
            )
        site = f"blocks.{sweep.chosen_layer}.hook_resid_post"
        ks = config.ks or default_ks(self.model.d_model)
        try:
            with self._stage("ablations"):
                outcomes = ablate_ranking(
                    self.model,
                    [samples[i] for i in held],
                    rank_by_probe_weight(sweep.probe, site),
                    ks,
                    draws=config.draws,
                    seed=config.seed,
                    answers=[answers[i].tokens for i in held],
                    reading=config.yes_no,
                    batch_size=config.batch_size,
                    progress=self.progress,
                )
                if not np.array_equal(outcomes.clean, right[held]):
                    differ = int((outcomes.clean != right[held]).sum())
                    raise UnavailableError(
                        f"{differ} answers read from one forward differ from the generated ones"
                    )
                curve = analyse_ablation(
                    outcomes.clean,
                    outcomes.top,
                    outcomes.random,
                    groups[held],
                    ks,
                    tasks[held],
                    units=self.model.d_model,
                    site=site,
                    seed=config.seed,
                    n_resamples=config.n_resamples,
                )
        except (InputError, UnavailableError) as error:
            self._gap("no ablation curve", error)
            return None
        worst = min((p for p in curve.points if p.k), key=lambda p: p.excess.value)
        self._done(
            "ablations",
            f"top {worst.k} of {self.model.d_model} dimensions {worst.change.value:+.1f} pp, "
            f"{config.draws} x random {worst.k} {worst.random_change.value:+.1f} pp",
        )
        return ablation_section(curve, edit="set to zero at the last prompt position")

    def _model_info(self) -> ModelInfo:
        model = self.model
        return ModelInfo(
            name=model.name,
            family=model.family.name,
            n_layers=model.n_layers,
            d_model=model.d_model,
            n_parameters=sum(p.numel() for p in model.model.parameters()),
            dtype=str(model.dtype).removeprefix("torch."),
            device=model.device.type,
        )

    def _data_info(self, groups: np.ndarray, tasks: np.ndarray) -> DataInfo:
        dataset, config = self.dataset, self.config
        return DataInfo(
            name=dataset.name,
            split=config.split or str(dataset.info.get("split") or "default"),
            seed=config.seed,
            n=len(dataset),
            n_images=len(np.unique(groups)),
            n_train=len(self.train),
            n_train_images=len(np.unique(groups[self.train])),
            n_heldout=len(self.heldout),
            n_heldout_images=len(np.unique(groups[self.heldout])),
            tasks=tuple(str(t) for t in np.unique(tasks)),
            n_skipped=len(dataset.skipped),
        )

    def _table(
        self,
        samples: Sequence[Sample],
        answers: Sequence[Answer],
        right: np.ndarray,
        sides: np.ndarray,
        sweep: ProbeSweep | None,
    ) -> pd.DataFrame:
        scores = pd.Series(pd.NA, index=range(len(samples)), dtype="Float64")
        if sweep is not None:
            scores[sweep.heldout] = sweep.scores
        return pd.DataFrame(
            {
                "model": self.model.name,
                "example": np.arange(len(samples)),
                "image_id": [s.image_id for s in samples],
                "task": [s.task for s in samples],
                "split": sides,
                "question": [s.question for s in samples],
                "answer": [s.answer for s in samples],
                "prediction": [a.text for a in answers],
                "correct": right,
                "answer_probability": [a.probability for a in answers],
                "probe_score": scores,
                "gallery": pd.Series([None] * len(samples), dtype="string"),
            }
        )

    def _gallery(
        self, run: RunFolder, index: int, table: pd.DataFrame, samples: Sequence[Sample]
    ) -> None:
        """Pictures of held-out examples, right and wrong: other images first, tasks in turn."""
        held = table[table["split"] == "heldout"].sample(frac=1, random_state=self.config.seed)
        for value in (False, True):
            part = held[held["correct"] == value]
            part = part.assign(again=part.groupby("image_id").cumcount()).sort_values("again")
            part = part.assign(turn=part.groupby(["again", "task"]).cumcount())
            for i in part.sort_values(["again", "turn", "example"]).index[:GALLERY]:
                name = f"{index}-{i:06d}.png"
                run.write_gallery_image(name, samples[i].image)
                table.loc[i, "gallery"] = name
