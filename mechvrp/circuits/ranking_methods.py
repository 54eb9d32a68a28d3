"""``rank_units``: one call for every method of ranking."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvrp.circuits.first_token import AnswerReader, sweep_answers
from mechvrp.circuits.image_groups import images_of
from mechvrp.circuits.logistic import Fold, grouped_folds
from mechvrp.circuits.rank_methods import (
    AblationEffect,
    Attribution,
    MeanDifference,
    MLPProbeGradient,
    PairAttribution,
    ProbeWeight,
    RandomScores,
    RankingMethod,
    RankingTask,
    SparseProbeWeight,
)
from mechvrp.circuits.rank_methods.intervals import INTERVAL, fold_interval
from mechvrp.circuits.ranking import Ranking
from mechvrp.circuits.sample_checks import check_samples
from mechvrp.circuits.setting_checks import check_model, check_settings
from mechvrp.circuits.units import kind_of
from mechvrp.data.sample import Sample
from mechvrp.data.splits import group_folds
from mechvrp.errors import InputError, ShapeError
from mechvrp.models import fingerprint
from mechvrp.models.tokens import integers
from mechvrp.store.json_files import plain
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sites import Site, expand_sites

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["RANKING_METHODS", "rank_units", "right_answers"]

#: Methods by name.
RANKING_METHODS: dict[str, type[RankingMethod]] = {
    method.name: method
    for method in (
        ProbeWeight,
        SparseProbeWeight,
        MLPProbeGradient,
        MeanDifference,
        Attribution,
        PairAttribution,
        AblationEffect,
        RandomScores,
    )
}


def rank_units(
    model: VLM,
    samples: Sequence[Sample],
    sites: str | Site | Sequence[str | Site],
    method: str | RankingMethod = "probe",
    *,
    layers: int | Sequence[int] | None = None,
    labels: Sequence[bool] | np.ndarray | None = None,
    folds: int | None = 5,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = False,
    **options: Any,
) -> Ranking:
    """Order the units of a site, or of a component at several layers, by what a method makes of them.

    ====================== =================================================================== ========
    method                 a unit's score                                                      labels
    ====================== =================================================================== ========
    probe                  weight in an L2 logistic regression that tells right from wrong     yes
    sparse probe           weight in an L1 one; ties by when a unit enters its path            yes
    MLP probe              mean gradient of a probe with a hidden layer                        yes
    mean difference        Hedges' g between right and wrong answers, with p and q             yes
    attribution            gradient x activation of the answer's logit difference              no
    attribution of a pair  gradient x (clean - corrupted activation); needs ``corrupted=``     no
    ablation               exact effect of the unit's mean ablation on the logit difference    no
    random                 seeded normal scores                                                no
    ====================== =================================================================== ========

    Activations are those of the last prompt position; of image features, which lie in front of the
    prompt, the mean over the image's tokens (attributions: the sum over them, since a unit is edited at all
    of them). All sites are ranked together: one probe is fitted on all their units, so that its weights can be
    compared between layers.

    Give training examples: the ranking remembers their images and refuses to be evaluated on them.

    Args:
        model: from ``mechvrp.load``.
        samples: the examples the ranking is made from.
        sites: a hook name (``"blocks.2.mlp.hook_post"``), several of one component, or a component
            (``"neurons"``: all layers, or those of ``layers``). Residual dimensions, MLP neurons,
            heads (``z``) or image features (``projected``).
        method: a name of ``RANKING_METHODS``, or an instance of a `RankingMethod`.
        layers: with a component's name.
        labels: booleans ``[example]``, whether each answer is right; by default whether the model's greedy
            first token, read as an answer, is (meaningful where answers are one token long). Methods
            without labels don't look at it.
        folds: of the cross-validation, by which probes choose their strength and ``low`` and ``high``
            are made (``settings["interval"]`` says what they are). No image is on both sides. None:
            no intervals, for methods that choose nothing.
        seed: of the folds, and of what is random in a method.
        batch_size: examples a forward.
        progress: show a bar.
        options: of the method (the fields of its class).

    Returns:
        A `Ranking` with the method's own columns and settings; ``settings["per"]`` says what a probe's
        weights are counted in: standard deviations of each unit's activation, unless asked otherwise.

    Raises:
        SiteError: no such site, or one whose units cannot be ranked, or sites of several components.
        InputError: an unknown method or option, no samples, answers that are all right or all wrong,
            fewer images than folds, pairs that are not aligned.
        ShapeError: labels that are not one boolean an example.
        NumericalError: activations, gradients or scores that are NaN or infinite.
        UnavailableError: the right answer is unknown where it is needed, or no norm reads the site.
    """
    check_model(model)
    chosen = _method(method, options)
    where = _sites(model, sites, layers)
    given = tuple(check_samples(samples))
    checked = check_settings(seed=seed, batch_size=batch_size)
    seed, batch_size = checked["seed"], checked["batch_size"]
    truth = None if labels is None else _truth(labels, len(given))
    if folds is None and chosen.fitted:
        raise InputError(
            f"method={chosen.name!r} chooses by cross-validation: give folds, 2 or more"
        )
    task = RankingTask(
        model,
        given,
        where,
        np.array(chosen.groups(given)),
        n_folds=folds or 0,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
        truth=truth if chosen.labelled else None,
    )
    chosen.check(task)
    if chosen.labelled and truth is None:
        truth = right_answers(model, given, batch_size=batch_size, progress=progress)
        task = replace(task, truth=truth)
        chosen.check(task)  # of the labels, this time
    if chosen.reads:
        task = replace(task, folds=_folds(task, folds))
    found = chosen.score(task)
    if found.scores.shape != (task.rows,):
        raise ShapeError(
            f"{chosen.name} gave scores of shape {found.scores.shape}; expected one for each of "
            f"{task.rows} units"
        )
    low = high = None
    if found.by_fold is not None:
        low, high = fold_interval(found.scores, found.by_fold, task.n_folds)
    settings = {
        "method": chosen.name,
        **found.settings,
        "positions": task.positions,
        "examples": len(given),
        "right": None if task.truth is None else int(task.truth.sum()),
        "folds": None if low is None else folds,
        "folds_used": None if low is None else len(task.folds),
        "interval": None if low is None else INTERVAL,
        "seed": seed,
    }
    return Ranking(
        tuple(str(site) for site in where),
        found.scores,
        found.words,
        low,
        high,
        model.name,
        fingerprint(model),
        found.images | (images_of(given) if chosen.reads else frozenset()),
        plain(settings, "settings"),
        found.columns,
        found.ties,
    )


def right_answers(
    model: VLM, samples: Sequence[Sample], *, batch_size: int = 32, progress: bool = False
) -> np.ndarray:
    """Booleans ``[example]``: whether the greedy first token, read as an answer, is right."""
    read = AnswerReader(model)
    return np.concatenate(
        [
            sweep_answers(model, model.encode(chunk), [[]], read).clean
            for chunk in in_batches(samples, batch_size, progress, "answering")
        ]
    )


def _method(given: str | RankingMethod, options: dict[str, Any]) -> RankingMethod:
    if isinstance(given, RankingMethod):
        if options:
            raise InputError(
                f"{type(given).__name__} has its options already; got {', '.join(options)} besides"
            )
        return given
    if given not in RANKING_METHODS:
        close = difflib.get_close_matches(str(given), RANKING_METHODS, n=2, cutoff=0.4)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise InputError(
            f"no method {given!r} of ranking units.{hint} Known: {', '.join(RANKING_METHODS)}"
        )
    made = RANKING_METHODS[given]
    known = [one.name for one in fields(made)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise InputError(
                f"method={given!r} has no option {name!r}.{hint} Its options: "
                f"{', '.join(known) or 'none'}"
            )
    return made(**options)


def _sites(
    model: VLM,
    given: str | Site | Sequence[str | Site],
    layers: int | Sequence[int] | None,
) -> tuple[Site, ...]:
    """Sites of one component, in order of computation, whose units can be ranked."""
    if layers is not None:
        if not isinstance(given, str):
            raise InputError(f"layers go with one component's name, e.g. 'neurons'; got {given!r}")
        given = [Site.parse(given, layer) for layer in integers("layers", layers)]
    found = tuple(expand_sites(model, given))  # type: ignore[arg-type]
    for site in found:
        kind_of(site)
    if len({site.component for site in found}) > 1:
        raise InputError(
            f"a ranking is of one component at different layers; got {', '.join(map(str, found))}"
        )
    return found


def _truth(labels: Any, n: int) -> np.ndarray:
    truth = np.asarray(labels)
    if truth.dtype != np.bool_ or truth.shape != (n,):
        raise ShapeError(
            f"labels of shape {truth.shape} and dtype {truth.dtype}; expected booleans [{n}], whether "
            "each sample's answer is right"
        )
    return truth


def _folds(task: RankingTask, folds: int | None) -> tuple[Fold, ...]:
    """Folds that keep every group of images on one side; stratified where there are labels."""
    truth = task.truth
    if truth is not None and (truth.all() or not truth.any()):
        raise InputError(
            f"all {len(truth)} answers are {'right' if truth[0] else 'wrong'}: what tells right from "
            "wrong needs both; use more or other examples, or a method without labels (attribution, "
            "ablation)"
        )
    if folds is None:
        return ()
    if truth is not None:
        return grouped_folds(truth, task.groups, folds, task.seed)
    images = len(set(task.groups.tolist()))
    if isinstance(folds, int) and images < folds:
        fewer = f"at most {images} folds" if images > 1 else "no folds"
        raise InputError(
            f"expected at least {folds} distinct images, one for each of {folds} folds, got {images}: give "
            f"samples of more images, {fewer}, or folds=None (scores without intervals)"
        )
    return tuple(group_folds(task.samples, folds, seed=task.seed, groups=task.groups.tolist()))
