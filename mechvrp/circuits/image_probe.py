"""Probes of what the image shows, at text positions: where the text knows something of the image."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.preprocessing import OneHotEncoder

from mechvrp.circuits.integration_results import FlowPoint
from mechvrp.circuits.logistic import (
    DEFAULT_C_GRID,
    cross_validate,
    fit_probe,
    grouped_folds,
    one_thread_if_small,
)
from mechvrp.circuits.probes import probe_sweep
from mechvrp.data.digits import DIGIT_WORDS
from mechvrp.data.splits import group_folds
from mechvrp.errors import InputError
from mechvrp.statistics import Estimate, auroc, auroc_lead
from mechvrp.tracing.caching import cache, in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = ["Content", "asked_digit_is_there", "content_labels", "holds_digit", "probe_points"]

#: Whether a sample's image has some property; None where that is unknown or not asked of this sample.
Content = Callable[["Sample"], bool | None]

#: Indices and booleans of the samples that have a label; or why they cannot be probed for it.
Labels = tuple[np.ndarray, np.ndarray] | str

#: Where is read, and how that is called in results.
_POSITIONS = {"last": "last position", "question": "question's mean"}
_MEASURES = ("AUROC", "AUROC within questions", "lead over the question")


def asked_digit_is_there(sample: Sample) -> bool | None:
    """Of an existence poll of the digit scenes, whether the digit asked for is in the picture.

    None of any other sample. The question alone says nothing of it, beyond how often that digit is there.
    """
    meta = sample.meta
    if sample.task != "existence" or not {"digit", "cells"} <= meta.keys():
        return None
    return bool(meta["digit"] in meta["cells"])


def holds_digit(word: str) -> Content:
    """Whether a digit scene holds a digit (``"three"``); None of samples whose question names it.

    Raises:
        InputError: not the English word of a digit.
    """
    if word not in DIGIT_WORDS:
        raise InputError(f"a digit is one of {', '.join(DIGIT_WORDS)}; got {word!r}")

    def holds(sample: Sample) -> bool | None:
        cells = sample.meta.get("cells")
        if cells is None or re.search(rf"\b{word}\b", sample.question.lower()):
            return None
        # An identification of this digit does not name it, and its answer is that it is there.
        return bool(word in cells)

    return holds


def content_labels(
    samples: Sequence[Sample],
    content: Content | Mapping[str, Content] | None,
    *,
    folds: int,
    gaps: bool = False,
) -> dict[str, Labels]:
    """Which samples have a label, and the label, by name of the property: indices and booleans.

    Args:
        samples: all of them.
        content: one property or several by name; None: `asked_digit_is_there`.
        folds: of the cross-validation on one half of the images.
        gaps: give, for a property that either class has too few images of, the reason in place of the labels.

    Raises:
        InputError: a label that is neither true nor false, or (unless ``gaps``) either class on too few
            images for a split in halves and so many folds.
    """
    if content is None:
        content = {"the digit asked for is there": asked_digit_is_there}
    if not isinstance(content, Mapping):
        content = {getattr(content, "__name__", "content").replace("_", " "): content}
    if not content:
        raise InputError("content is empty: give at least one property of the image to probe for")
    for name, label_of in content.items():
        if not callable(label_of):
            raise InputError(
                f"content {name!r} is a function of a sample that gives True, False or None; got "
                f"{label_of!r:.60}"
            )
    found: dict[str, Labels] = {}
    for name, label_of in content.items():
        given: list[Any] = [label_of(sample) for sample in samples]
        strange = [x for x in given if x is not None and not isinstance(x, bool | np.bool_)]
        if strange:
            raise InputError(
                f"content {name!r} gives {strange[0]!r}; expected True, False, or None where it is unknown"
            )
        known = np.flatnonzero([label is not None for label in given])
        labels = np.array([bool(given[i]) for i in known], dtype=bool)
        scarce = _too_few(str(name), samples, known, labels, folds)
        if scarce and not gaps:
            raise InputError(scarce)
        found[str(name)] = scarce or (known, labels)
    return found


def _too_few(
    name: str, samples: Sequence[Sample], known: np.ndarray, labels: np.ndarray, folds: int
) -> str:
    """Why a property cannot be probed; empty where either class has images enough."""
    for wanted in (True, False):
        images = len({samples[int(i)].source_id for i in known[labels == wanted]})
        if images < 2 * folds:
            return (
                f"content {name!r} is {wanted} of {images} images (and known of {len(known)} of "
                f"{len(samples)} samples); a probe with {folds} folds on one half of the images needs at "
                f"least {2 * folds} images of either class. Give more samples, fewer folds, another "
                "content=, or methods without 'probe'"
            )
    return ""


def probe_points(
    model: VLM,
    samples: Sequence[Sample],
    labels: Mapping[str, Labels],
    *,
    layers: Sequence[int],
    shuffles: int = 10,
    folds: int = 5,
    c_grid: Sequence[float] = DEFAULT_C_GRID,
    seed: int = 0,
    n_resamples: int = 2000,
    batch_size: int = 32,
    progress: bool = False,
) -> list[FlowPoint]:
    """AUROC of each property at each layer, at the last position and the mean of the question's.

    Images are divided in halves once; strength is chosen by cross-validation within the training half, and
    the held-out half is scored once. Beside it: the same with training labels permuted; the AUROC over pairs
    of samples with the same question; and the lead over a probe that knows which question was asked, and
    nothing else.

    Args:
        model: from ``mechvrp.load``.
        samples: what is asked.
        labels: from `content_labels`; a reason in their place is the ``gap`` of all of the property's points.
        layers: behind which the residual stream is read.
        shuffles: draws of permuted labels; each is fitted at the strength chosen for the real ones.
        folds, c_grid: of the cross-validation.
        seed, n_resamples: of split, folds and shuffles, and of resampling held-out images.
        batch_size, progress: of the runs.

    Raises:
        InputError: as `probe_sweep`.
    """
    points: list[FlowPoint] = []
    probed: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, given in labels.items():
        if isinstance(given, str):
            points += [
                FlowPoint("probe", f"{where}: {name}", measure, layer, gap=given)
                for where, measure, layer in itertools.product(
                    _POSITIONS.values(), _MEASURES, layers
                )
            ]
        else:
            probed[name] = given
    states = _states(model, samples, layers, batch_size, progress) if probed else {}
    for name, (known, truth) in probed.items():
        chosen = [samples[i] for i in known]
        train, heldout = group_folds(chosen, 2, seed=seed, stratify=truth.tolist())[0]
        groups = np.array([sample.source_id for sample in chosen])
        questions = np.array([sample.question for sample in chosen])
        alone = _question_alone(questions, truth, groups, train, heldout, folds, c_grid, seed)
        for where, words in _POSITIONS.items():
            what = f"{words}: {name}"
            for i, layer in enumerate(layers):
                features = states[where][i : i + 1, known]
                found = probe_sweep(
                    features,
                    truth,
                    groups,
                    questions,
                    train,
                    heldout,
                    layers=[layer],
                    seed=seed,
                    n_resamples=n_resamples,
                    folds=folds,
                    c_grid=c_grid,
                )
                control = _shuffled(
                    features[0], truth, train, heldout, found.layers[0].c, shuffles, seed
                )
                within = found.tasks[1]
                lead = auroc_lead(
                    found.scores,
                    alone,
                    truth[heldout],
                    groups[heldout],
                    seed=seed,
                    n_resamples=n_resamples,
                )
                points += [
                    FlowPoint("probe", what, "AUROC", layer, value=found.auroc, control=control),
                    FlowPoint(
                        "probe",
                        what,
                        "AUROC within questions",
                        layer,
                        value=within.auroc,
                        gap=within.gap,
                    ),
                    FlowPoint("probe", what, "lead over the question", layer, value=lead),
                ]
    return sorted(points, key=lambda point: _MEASURES.index(point.measure))


def _states(
    model: VLM, samples: Sequence[Sample], layers: Sequence[int], batch_size: int, progress: bool
) -> dict[str, np.ndarray]:
    """Residual streams, ``[layer, example, d_model]``: of the last position, and the question's mean."""
    sites: list[Any] = [f"blocks.{layer}.hook_resid_post" for layer in layers]
    parts: dict[str, list[torch.Tensor]] = {where: [] for where in _POSITIONS}
    for chunk in in_batches(samples, batch_size, progress, "reading states"):
        batch = model.encode(chunk)
        for where in _POSITIONS:
            acts = cache(model, batch, sites, positions=where, dtype=torch.float32)
            example = acts.rows(sites[0]).example
            counts = acts.rows(sites[0]).counts
            rows = []
            for site in sites:
                total = torch.zeros(len(chunk), model.d_model)
                total.index_add_(0, example, acts.flat(site))
                rows.append(total / counts[:, None])
            parts[where].append(torch.stack(rows))
    return {where: torch.cat(found, dim=1).numpy() for where, found in parts.items()}


def _question_alone(
    questions: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    heldout: np.ndarray,
    folds: int,
    c_grid: Sequence[float],
    seed: int,
) -> np.ndarray:
    """Held-out scores of a probe that knows which question was asked, and nothing else."""
    # A question that the training half lacks is all zeros, hence uninformative.
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = encoder.fit(questions[train, None]).transform(questions[:, None])
    parts = grouped_folds(truth[train], groups[train], folds, seed)
    with one_thread_if_small(columns):
        best = cross_validate(columns[train], truth[train], parts, c_grid)
        return fit_probe(columns[train], truth[train], best.c).scores(columns[heldout])


def _shuffled(
    features: np.ndarray,
    truth: np.ndarray,
    train: np.ndarray,
    heldout: np.ndarray,
    c: float,
    draws: int,
    seed: int,
) -> Estimate | None:
    """Mean and range of the AUROC of probes fitted on permuted labels."""
    if not draws:
        return None
    areas = np.empty(draws)
    with one_thread_if_small(features):
        for draw in range(draws):
            labels = np.random.default_rng([seed, 5, draw]).permutation(truth[train])
            probe = fit_probe(features[train], labels, c)
            areas[draw] = auroc(probe.scores(features[heldout]), truth[heldout])
    return Estimate(
        float(areas.mean()),
        float(areas.min()),
        float(areas.max()),
        len(heldout),
        draws,
        1.0,
        f"range of {draws} shuffles",
    )
