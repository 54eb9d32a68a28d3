"""``Monitor``: one answer, how reliable it is, and whether to give it, from the pass that answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.special import expit

from mechvrp.data import Sample
from mechvrp.errors import DataError, InputError, UnavailableError
from mechvrp.files import path_of
from mechvrp.reliability.generation import check_answering
from mechvrp.reliability.monitor_evaluation import Figure
from mechvrp.reliability.monitor_fitting import (
    LayerScore,
    Parts,
    RecalibrationKind,
    TargetName,
    fitted_parts,
)
from mechvrp.reliability.monitor_reading import read_answers
from mechvrp.reliability.monitor_run import FittedModel
from mechvrp.reliability.monitor_scores import Scorer
from mechvrp.reliability.observations import STRUCTURE_SIGNALS
from mechvrp.reliability.recalibration import Recalibration
from mechvrp.reliability.risk import RiskThreshold
from mechvrp.tracing import access
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from PIL.Image import Image

    from mechvrp.models import VLM

__all__ = ["Monitor", "MonitorAnswer"]


@dataclass(frozen=True)
class MonitorAnswer:
    """One answer and what the monitor says of it.

    Attributes:
        answer: greedy, as ``model.generate`` gives it.
        reliability: the chance that it is right, 0 to 1, calibrated on other images.
        abstain: do not give this answer: its reliability is below the monitor's threshold, or there is
            no threshold.
        signals: what was read, by name; ``"probe"`` is the probe's log-odds.
        score: before calibration, 0 to 1: the fitted probability of a right answer, or the
            self-consistency that is expected of a monitor with that target.
    """

    answer: str
    reliability: float
    abstain: bool
    signals: Mapping[str, float]
    score: float


@dataclass(frozen=True, eq=False, repr=False)
class Monitor:
    """Answers with a calibrated reliability, and abstains where too many answers would be wrong.

    Fitted on a study's run (`Monitor.fit`), for the very model of that run. ``print(monitor)`` says what it
    reads, what it promises and how it did on images that it was not fitted on.

    Attributes:
        model: the one that it is for.
        data, tasks: the dataset of the run, and the tasks in it.
        max_new_tokens: at which answers are cut, as in the run.
        target: ``"correct"`` or ``"self_consistency"``: what the score was fitted to.
        layer: whose residual stream the probe reads; ``None`` without a probe.
        scorer: from signals to a score.
        recalibration: from the score to the reliability.
        threshold: of the reliability, above which answers are given; with the whole test.
        parts: the images it was fitted, recalibrated and tested on.
        layers: the layers that were tried.
        evaluation: figures on held-out images.
        seed: of the parts, the folds, the question drawn from each image, and the intervals.
    """

    model: FittedModel
    data: str
    tasks: tuple[str, ...]
    max_new_tokens: int
    target: TargetName
    layer: int | None
    scorer: Scorer
    recalibration: Recalibration
    threshold: RiskThreshold
    parts: Parts
    layers: tuple[LayerScore, ...]
    evaluation: tuple[Figure, ...]
    seed: int

    # ---- fitting ----------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        run: Any,
        model: VLM | str | None = None,
        *,
        signals: Iterable[str] | None = None,
        layer: int | Literal["auto"] = "auto",
        risk: float = 0.05,
        delta: float = 0.05,
        target: TargetName = "correct",
        recalibration: RecalibrationKind = "platt",
        n_resamples: int = 2000,
        seed: int = 0,
    ) -> Monitor:
        """Fit a monitor on a study's run; no model is run.

        On the run's training images a probe is fitted on the residual stream of the last prompt token
        (layer and strength by cross-validation over images), and a logistic regression on the
        probe's scores (from folds that left their images out) and the other signals. A third of the
        held-out images makes its score a probability. On the others, by one question of each, the
        threshold is chosen (`choose_threshold`). No image is in two of the three parts.

        Args:
            run: a run folder, its path, or what ``mechvrp.run_study`` returned.
            model: which of the run's models, by its name or loaded (then its weights are checked); needed
                where the run has several, and loaded where it does not record the fingerprint of its weights.
            signals: what is read; by default ``answer_probability``, ``logit_entropy``, ``own_margin`` and
                ``probe``, which cost next to nothing. ``p_tok`` and attention's structure may be asked
                for; the latter takes a trace.
            layer: of the probe, or ``"auto"``.
            risk: the share of wrong answers, among those given, that is promised.
            delta: chance that the promise is broken, over draws of calibration images.
            target: ``"correct"``, or ``"self_consistency"``: the score then predicts the agreement
                of K sampled answers and never sees which are right; only its calibration does.
            recalibration: ``"platt"`` makes no ties (a score that has it the wrong way is turned round)
                and has two numbers to learn, for which the held-out images of a study suffice;
                ``"isotonic"`` assumes no shape, makes ties, and needs about a thousand examples.
            n_resamples: bootstrap resamples behind the intervals in ``evaluation``.
            seed: of all draws.

        Raises:
            InputError: a signal that uses the right answer or takes further forwards, one that is the
                same everywhere, answers that are all right or all wrong where it is fitted or
                recalibrated, too few images to fit on, or another model than the run's. (Too few images
                for a guarantee are no error: the monitor then says so and abstains.)
            RunFolderError: the folder holds no finished run, or is damaged.
            NumericalError: NaN in a signal.
        """
        return cls(
            **fitted_parts(
                run,
                model,
                signals=signals,
                layer=layer,
                risk=risk,
                delta=delta,
                target=target,
                recalibration=recalibration,
                n_resamples=n_resamples,
                seed=seed,
            )
        )

    # ---- answering --------------------------------------------------------------------------

    def answer(
        self, model: VLM, image: Image, question: str, *, task: str | None = None
    ) -> MonitorAnswer:
        """Answer a question about an image, and say how reliable the answer is; one pass.

        Args:
            model: the one that the monitor was fitted on.
            image: a picture of PIL.
            question: the question alone.
            task: one of ``tasks``, by which a family may word its prompt; needed where the run has
                several and this model's prompt depends on it.

        Raises:
            InputError: another model, dtype or task; no picture of PIL, or no question.
            NumericalError: NaN or infinity in the model.
        """
        from PIL.Image import Image as Picture

        if not isinstance(image, Picture):
            raise InputError(
                f"image is a picture of PIL (PIL.Image.open(path) makes one); got {image!r:.80}"
            )
        if not isinstance(question, str):
            raise InputError(f"question is a text; got {question!r:.80}")
        self.model.check(model)
        picture = image if image.mode == "RGB" else image.convert("RGB")
        sample = Sample(picture, question, task=self._task(model, question, task))
        return self._answered(model, [sample])[0]

    def answers(
        self,
        model: VLM,
        samples: Iterable[Sample],
        *,
        batch_size: int = 32,
        progress: bool = False,
    ) -> list[MonitorAnswer]:
        """As ``answer``, of many samples; what is right is not looked at.

        Raises:
            InputError: another model or dtype, a sample of another task, or no sample.
        """
        self.model.check(model)
        if isinstance(samples, Sample):
            samples = (samples,)
        found: list[MonitorAnswer] = []
        for chunk in in_batches(samples, batch_size, progress, "answering"):
            for sample in chunk:
                if not isinstance(sample, Sample):
                    raise InputError(
                        f"answers takes mechvrp.data.Sample objects; got {type(sample).__name__}"
                    )
                self._known(sample.task)
            found += self._answered(model, chunk)
        return found

    def _answered(self, model: VLM, samples: list[Sample]) -> list[MonitorAnswer]:
        check_answering(model, self.max_new_tokens)
        if set(self.signals) & set(STRUCTURE_SIGNALS):
            access.check_available(model, Site("pattern", 0))
        batch = model.encode(samples)
        read = read_answers(model, batch, self.signals, self.layer, self.max_new_tokens)
        features = self.scorer.features(read.columns, read.hidden)
        scores = expit(self.scorer.log_odds(features))
        reliability = self.recalibration(scores)
        given = self.gives(reliability)
        return [
            MonitorAnswer(
                answer.text,
                float(reliability[i]),
                not given[i],
                MappingProxyType(dict(zip(self.signals, features[i].tolist(), strict=True))),
                float(scores[i]),
            )
            for i, answer in enumerate(read.answers)
        ]

    def gives(self, reliability: Any) -> np.ndarray:
        """``[n]``: are answers of this reliability given? None is without a threshold."""
        values = np.asarray(reliability, dtype=np.float64)
        if self.threshold.threshold is None:
            return np.zeros(len(values), dtype=bool)
        return self.threshold.gives(values)

    def _task(self, model: VLM, question: str, task: str | None) -> str:
        if task is not None:
            return self._known(task)
        if len(self.tasks) > 1:
            if model.processor is None:
                raise UnavailableError(f"{model.name} was loaded without a processor")
            own = getattr(model.model.config, "mechvrp_instruction", None)
            prompts = {
                model.family.prompt(model.processor, question, task=name, instruction=own)
                for name in self.tasks
            }
            if len(prompts) > 1:
                raise InputError(
                    f"{model.name} is asked in other words for each of {', '.join(self.tasks)}: say which "
                    "by task=..."
                )
        return self.tasks[0]

    def _known(self, task: str) -> str:
        if task not in self.tasks:
            raise InputError(
                f"this monitor was calibrated on {', '.join(self.tasks)} of {self.data}, and knows nothing of "
                f"answers to {task!r}: fit one on a run that has it"
            )
        return task

    # ---- what it is -------------------------------------------------------------------------

    @property
    def signals(self) -> tuple[str, ...]:
        """What is read of each answer."""
        return self.scorer.signals

    @property
    def guarantee(self) -> str:
        """What is promised of the answers given, or why nothing is."""
        found = self.threshold
        promise = f"at most {found.risk:.3g} of the answers given are wrong"
        if found.threshold is None:
            return (
                f"No guarantee: that {promise} could not be shown for any threshold "
                f"({found.reason}). The monitor abstains from every answer."
            )
        return (
            f"Answers of reliability {found.threshold:.3f} and above are given. Then {promise}, except with a "
            f"chance of {found.delta:g} over draws of the {found.n} calibration images, for a random "
            f"question about each of further images drawn as those of {self.data} were. On the calibration "
            f"images {found.answered} of {found.n} answers are given, {found.errors} of them wrong. Nothing "
            "is promised of other images."
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``weights.safetensors`` and ``monitor.json`` into a folder (made if need be)."""
        from mechvrp.reliability.monitor_files import write_monitor

        return write_monitor(self, path_of(folder, "a monitor's folder"))

    @classmethod
    def load(cls, folder: str | Path) -> Monitor:
        """Read what ``save`` wrote.

        Raises:
            DataError: a file is missing, damaged, of another version, or does not fit the other.
        """
        from mechvrp.reliability.monitor_files import read_monitor

        return read_monitor(path_of(folder, "a monitor's folder", DataError))

    def __repr__(self) -> str:
        found = self.threshold
        given = "abstains always" if found.threshold is None else f"gives {found.coverage:.0%}"
        probe = "" if self.layer is None else f", layer {self.layer}"
        return f"Monitor({self.model.name!r}, {', '.join(self.signals)}{probe}: {given})"

    def __str__(self) -> str:
        model, parts = self.model, self.parts
        words = "correctness" if self.target == "correct" else "self-consistency"
        where = (
            ""
            if self.layer is None
            else f"; the probe on the residual stream behind block {self.layer} of {model.n_layers}"
        )
        weights = zip(self.signals, self.scorer.head.coef.tolist(), strict=True)
        lines = [
            f"Monitor of {model.name} ({model.dtype}, weights {model.fingerprint[:12]}) on {self.data}: "
            f"{', '.join(self.tasks)}",
            f"  reads      {', '.join(self.signals)}{where}; no forward of its own",
            f"  fitted to  {words}, on {_counted(parts.fit)}; weights per standard deviation: "
            + ", ".join(f"{name} {weight:+.2f}" for name, weight in weights),
            f"  calibrated on {_counted(parts.recalibration)} ({self.recalibration.kind}), its threshold on "
            f"one question of each of {len(parts.risk.images)} others",
            f"  promises   {self.guarantee}",
            "  on held-out images:",
            *(f"    {figure}" for figure in self.evaluation),
        ]
        return "\n".join(lines)


def _counted(part: Any) -> str:
    return f"{part.examples} questions about {len(part.images)} images"
