"""One model's part of a study, stage by stage; each ends with a file, and is not repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.console import Console

from mechvrp.data import Dataset
from mechvrp.errors import NumericalError, RunFolderError, UnavailableError
from mechvrp.models import VLM, fingerprint
from mechvrp.models.regions import crops_images
from mechvrp.store import Chunks, RunFolder
from mechvrp.study.checking import check_weights
from mechvrp.study.config import StudyConfig
from mechvrp.study.correlate_stage import correlate
from mechvrp.study.engines import Engine
from mechvrp.study.intervene_stage import intervene
from mechvrp.study.observing import observe_missing, piece_size
from mechvrp.study.reading_pieces import example_tables
from mechvrp.study.schema import DataInfo, ModelInfo, ModelSection
from mechvrp.study.stage_results import Correlated, Intervened, Observed, keep, kept
from mechvrp.study.telling import Teller

__all__ = ["ModelStudy"]

LABEL_RULE = (
    "the greedy answer scored by the benchmark's rule (mechvrp.data.is_correct): polls by the {} "
    "reading, other tasks by exact match of the normalised answer"
)


@dataclass
class ModelStudy:
    """The study of one model.

    Attributes:
        name, index: of the model; its place among the study's models.
        engine: where the model computes; asked when a stage needs it.
        run: where results are kept.
        dataset, config: what is studied, and how.
        train, heldout: indices of the examples of either side.
        say: where to report to.
        progress: show bars.
    """

    name: str
    index: int
    engine: Engine
    run: RunFolder
    dataset: Dataset
    train: np.ndarray
    heldout: np.ndarray
    config: StudyConfig
    say: Console
    progress: bool

    @property
    def part(self) -> str:
        """What the model's files are called."""
        return f"{self.index}-{self.name}"

    def observe(self) -> Observed:
        """Answers, signals and hidden states of every example."""
        found = kept(self.run, self.part, Observed)
        if found is not None and (found.failure or self._observations.complete):
            return found
        teller, failure = self._teller(), ""
        check_weights(self.run, self.part, self.engine)
        model: ModelInfo = self.engine.ask(_model_info)
        pieces = self._pieces("observe", len(self.dataset))
        try:
            with teller.timed("observations"), teller.bar("observing", len(self.dataset)) as step:
                gaps = observe_missing(self.engine, self.dataset, self.config, pieces, step)
        except (NumericalError, UnavailableError) as error:
            failure = str(error)
            teller.gap("no observations", error)
        else:
            teller.notes += dict.fromkeys(gaps)
            right = pieces.table(["correct"])["correct"]
            teller.done(
                "observations",
                f"{right.sum()} of {len(right)} right, {right.mean():.1%}; attention, margins, "
                f"{self.config.samples} sampled answers, residual stream of {model.n_layers} layers",
            )
        found = Observed(model, teller.timings, tuple(teller.notes), failure)
        self._keep(found)
        return found

    def correlate(self) -> Correlated | None:
        """Signals and probes against correctness; ``None`` for a model that could not be observed."""
        if self._observed("correlate").failure:
            return None
        found = kept(self.run, self.part, Correlated)
        if found is None:
            found = correlate(
                self._observations, self.train, self.heldout, self.config, self._teller()
            )
            self._keep(found)
        return found

    def intervene(self) -> Intervened | None:
        """Ablations; ``None`` for a model that could not be observed."""
        observed = self._observed("intervene")
        if observed.failure:
            return None
        found = kept(self.run, self.part, Intervened)
        if found is None:
            correlated = kept(self.run, self.part, Correlated)
            if correlated is None:
                raise RunFolderError(
                    f"{self.run.path} holds no probe of {self.name} to rank units by; run the stage "
                    "correlate before intervene"
                )
            check_weights(self.run, self.part, self.engine)
            found = intervene(
                self.engine,
                observed.model.d_model,
                self.dataset,
                self._observations,
                correlated,
                self.train,
                self.heldout,
                self._pieces,
                self.config,
                self._teller(),
            )
            self._keep(found)
        return found

    def _keep(self, result: Observed | Correlated | Intervened) -> None:
        # First: a report of fewer stages must not outlive them, wherever a run is killed.
        self.run.discard("report.html", "summary.json")
        keep(self.run, self.part, result)

    def section(self) -> ModelSection:
        """The model's part of the summary, from what its stages left."""
        observed = self._observed("report")
        correlated = kept(self.run, self.part, Correlated)
        intervened = kept(self.run, self.part, Intervened)
        if correlated is None and not observed.failure:
            raise RunFolderError(
                f"{self.run.path} holds no results of {self.name}; run the stage correlate before report"
            )
        notes, timings = list(observed.notes), dict(observed.timings_s)
        if observed.failure:
            notes.append(f"nothing else of this model could be run: {observed.failure}")
        elif intervened is None:
            notes.append("no interventions: the stage intervene has not been run")
        for stage in (correlated, intervened):
            if stage is not None:
                notes += stage.notes
                timings |= stage.timings_s
        return ModelSection(
            model=observed.model,
            data=self._data_info(),
            label_rule=LABEL_RULE.format(self.config.yes_no),
            accuracy=correlated.accuracy if correlated else (),
            probe=correlated.probe if correlated else None,
            ablation=intervened.ablation if intervened else None,
            timings_s=timings,
            notes=tuple(notes),
            signals=correlated.signals if correlated else None,
            readouts=correlated.readouts if correlated else None,
            causal=intervened.causal if intervened else None,
        )

    def examples(self, pictures: Mapping[int, str]) -> Iterator[pd.DataFrame]:
        """The table of examples, a piece at a time, with sides, scores and pictures' names (by example)."""
        correlated = kept(self.run, self.part, Correlated)
        if correlated is None:
            return
        n = len(self.dataset)
        sides = np.full(n, "train", dtype=object)
        sides[self.heldout] = "heldout"
        scores = np.full(n, np.nan)
        scores[list(correlated.scored)] = correlated.scores
        for table in example_tables(self._observations):
            rows = table["example"].to_numpy()
            yield table.assign(
                model=self.name,
                split=sides[rows],
                probe_score=pd.Series(scores[rows]).astype("Float64"),
                gallery=pd.Series([pictures.get(int(i)) for i in rows], dtype="string"),
            )

    @property
    def _observations(self) -> Chunks:
        return self._chunks("observe", len(self.dataset))

    def _observed(self, stage: str) -> Observed:
        found = kept(self.run, self.part, Observed)
        if found is None or not (found.failure or self._observations.complete):
            raise RunFolderError(
                f"{self.run.path} holds no complete observations of {self.name}; run the stage "
                f"observe before {stage}"
            )
        return found

    def _chunks(self, stage: str, total: int) -> Chunks:
        return self.run.chunks(stage, self.part, total, piece_size(self.config.batch_size))

    def _pieces(self, stage: str, total: int) -> Chunks:
        """As ``_chunks``, and says what is there from before."""
        pieces = self._chunks(stage, total)
        missing = len(pieces.missing())
        if 0 < missing < len(pieces):
            done = len(pieces) - missing
            self.say.print(f"  {stage}: {done} of {len(pieces)} pieces are there from before")
        return pieces

    def _teller(self) -> Teller:
        return Teller(self.say, self.progress)

    def _data_info(self) -> DataInfo:
        dataset, config = self.dataset, self.config
        groups = np.array(dataset.image_ids)
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
            tasks=tuple(sorted({s.task for s in dataset})),
            n_skipped=len(dataset.skipped),
        )


def _model_info(model: VLM) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        family=model.family.name,
        n_layers=model.n_layers,
        d_model=model.d_model,
        n_parameters=sum(p.numel() for p in model.model.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
        device=model.device.type,
        fingerprint=fingerprint(model),
        crops=crops_images(model),
    )
