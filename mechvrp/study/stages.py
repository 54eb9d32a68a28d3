"""One model's part of a study: answers, hidden states, probes, ablations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import Progress

from mechvrp.circuits import (
    AblationOutcomes,
    ProbeSweep,
    Ranking,
    ablate_ranking,
    analyse_ablation,
    compare_with_baselines,
    default_ks,
    probe_sweep,
    rank_by_probe_weight,
)
from mechvrp.data import Dataset
from mechvrp.errors import InputError, MechVRPError, UnavailableError
from mechvrp.models import VLM
from mechvrp.store import Chunks, RunFolder
from mechvrp.study.config import StudyConfig
from mechvrp.study.correlating import signal_section
from mechvrp.study.observing import FEATURE, observe_missing, piece_size
from mechvrp.study.schema import (
    AblationSection,
    DataInfo,
    ModelInfo,
    ModelSection,
    ProbeSection,
    SignalSection,
)
from mechvrp.study.sections import ablation_section, accuracy_rows, probe_section

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
        seen, hidden = self._observe(run, index)
        right = seen["correct"].to_numpy(dtype=bool)
        groups, tasks = (seen[name].to_numpy(dtype=str) for name in ("image_id", "task"))
        sides = np.full(len(seen), "train", dtype=object)
        sides[self.heldout] = "heldout"

        signals = self._signals(seen, right, groups)
        sweep, probe = self._probe(hidden, seen, right, groups, tasks)
        ablation = None
        if sweep is not None:
            ablation = self._ablation(run, index, sweep, seen, right, groups, tasks)
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
            signals=signals,
        )
        table = self._table(seen, sides, sweep)
        self._gallery(run, index, table)
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

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        with Progress(disable=not self.progress, transient=True, console=self.say) as bar:
            task = bar.add_task(name, total=total)
            yield lambda n: bar.advance(task, n)

    def _pieces(self, run: RunFolder, stage: str, index: int, total: int) -> Chunks:
        size = piece_size(self.config.batch_size)
        pieces = run.chunks(stage, f"{index}-{self.model.name}", total, size)
        if not pieces.complete and len(pieces.missing()) < len(pieces):
            done = len(pieces) - len(pieces.missing())
            self.say.print(f"  {stage}: {done} of {len(pieces)} pieces are there from before")
        return pieces

    def _observe(self, run: RunFolder, index: int) -> tuple[pd.DataFrame, np.ndarray]:
        """The table of what was observed, and residual streams [layer, example, d_model]."""
        pieces = self._pieces(run, "observe", index, len(self.dataset))
        with self._stage("observations"), self._bar("observing", len(self.dataset)) as advance:
            observe_missing(self.model, self.dataset, self.config, pieces, advance)
        table = pieces.table()
        hidden = np.concatenate([part["hidden"] for part in pieces.arrays(["hidden"])], axis=1)
        right = table["correct"]
        self._done(
            "observations",
            f"{right.sum()} of {len(right)} right, {right.mean():.1%}; attention, margins, "
            f"{self.config.samples} sampled answers, residual stream of {len(hidden)} layers",
        )
        return table, hidden

    def _probe(
        self,
        hidden: np.ndarray,
        seen: pd.DataFrame,
        right: np.ndarray,
        groups: np.ndarray,
        tasks: np.ndarray,
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
                    seen["prediction"].tolist(),
                    seen["answer_probability"].to_numpy(),
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

    def _signals(self, seen: pd.DataFrame, right: np.ndarray, groups: np.ndarray) -> SignalSection:
        with self._stage("signals"):
            found = signal_section(
                seen,
                self.train,
                self.heldout,
                folds=self._folds(right, groups),
                seed=self.config.seed,
                n_resamples=self.config.n_resamples,
            )
        for gap in found.gaps:
            self.notes.append(gap)
        names = len({row.name for row in found.rows})
        words = f"{names} signals against correctness"
        if found.fusion is not None:
            words += f", fused held-out AUROC {found.fusion.auroc:.3f}"
        self._done("signals", words)
        return found

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
        run: RunFolder,
        index: int,
        sweep: ProbeSweep,
        seen: pd.DataFrame,
        right: np.ndarray,
        groups: np.ndarray,
        tasks: np.ndarray,
    ) -> AblationSection | None:
        config = self.config
        # The first token is the answer only where the clean answer is one token long.
        single = (seen["answer_tokens"] == 1).to_numpy()[self.heldout]
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
                if not len(held):
                    raise UnavailableError(
                        "the ablation curve scores the first generated token, and no held-out answer is "
                        "one token long; it needs a task with one-token answers (polls, words of the "
                        "model's vocabulary)"
                    )
                outcomes = self._ablated(
                    self._pieces(run, "ablate", index, len(held)),
                    held,
                    rank_by_probe_weight(sweep.probe, site),
                    ks,
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

    def _ablated(
        self, pieces: Chunks, held: np.ndarray, ranking: Ranking, ks: Sequence[int]
    ) -> AblationOutcomes:
        """Outcomes of all held-out examples, piece by piece."""
        config = self.config
        missing = set(pieces.missing())
        with self._bar("ablating", len(held)) as advance:
            for piece in range(len(pieces)):
                rows = held[pieces.rows(piece)]
                if piece in missing:
                    found = ablate_ranking(
                        self.model,
                        [self.dataset[int(i)] for i in rows],
                        ranking,
                        ks,
                        draws=config.draws,
                        seed=config.seed,
                        reading=config.yes_no,
                        batch_size=config.batch_size,
                    )
                    pieces.write(
                        piece,
                        pd.DataFrame({"example": rows, "clean": found.clean}),
                        {"top": found.top, "random": found.random},
                        {"top": ("k", "example"), "random": ("draw", "k", "example")},
                    )
                advance(len(rows))
        parts = list(pieces.arrays())
        return AblationOutcomes(
            tuple(ks),
            pieces.table(["clean"])["clean"].to_numpy(dtype=bool),
            np.concatenate([part["top"] for part in parts], axis=-1),
            np.concatenate([part["random"] for part in parts], axis=-1),
        )

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
        self, seen: pd.DataFrame, sides: np.ndarray, sweep: ProbeSweep | None
    ) -> pd.DataFrame:
        scores = pd.Series(pd.NA, index=range(len(seen)), dtype="Float64")
        if sweep is not None:
            scores[sweep.heldout] = sweep.scores
        bulky = [
            "votes",
            "map",
            "map_rows",
            *(c for c in map(str, seen.columns) if c.startswith(FEATURE)),
        ]
        return seen.drop(columns=bulky).assign(
            model=self.model.name,
            split=sides,
            probe_score=scores,
            gallery=pd.Series([None] * len(seen), dtype="string"),
        )

    def _gallery(self, run: RunFolder, index: int, table: pd.DataFrame) -> None:
        """Pictures of held-out examples, right and wrong: other images first, tasks in turn."""
        held = table[table["split"] == "heldout"].sample(frac=1, random_state=self.config.seed)
        for value in (False, True):
            part = held[held["correct"] == value]
            part = part.assign(again=part.groupby("image_id").cumcount()).sort_values("again")
            part = part.assign(turn=part.groupby(["again", "task"]).cumcount())
            for i in part.sort_values(["again", "turn", "example"]).index[:GALLERY]:
                name = f"{index}-{i:06d}.png"
                run.write_gallery_image(name, self.dataset[int(i)].image)
                table.loc[i, "gallery"] = name
