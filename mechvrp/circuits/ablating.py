"""``ablation_curve``: what becomes of the answers as more and more of a ranking's units are taken away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from mechvrp.circuits.chance import chance_levels
from mechvrp.circuits.curve_inputs import (
    Labels,
    check_evaluated,
    check_positions,
    checked_ks,
    chosen_sets,
    labelled,
)
from mechvrp.circuits.curve_making import curve_of
from mechvrp.circuits.curve_outcomes import CurveOutcomes
from mechvrp.circuits.curve_results import AblationCurve
from mechvrp.circuits.curve_running import run_sets
from mechvrp.circuits.logistic import FittedProbe
from mechvrp.circuits.matching import MatchedSets, matched_sets, unit_norms
from mechvrp.circuits.probe_scores import probe_reading
from mechvrp.circuits.ranking import Ranking
from mechvrp.circuits.sample_checks import check_samples
from mechvrp.circuits.setting_checks import check_model, check_reading, check_settings, whole
from mechvrp.circuits.unit_stand_ins import CurveMode, StandIn, stand_in
from mechvrp.data import Sample
from mechvrp.errors import InputError
from mechvrp.models import fingerprint
from mechvrp.models.tokens import integers
from mechvrp.tracing.activations import Activations
from mechvrp.tracing.caching import cache
from mechvrp.tracing.sending import Remote

if TYPE_CHECKING:
    from mechvrp.models import VLM
    from mechvrp.models.tokens import Positions

__all__ = ["ablation_curve"]

#: Sets beside the top and random ones.
_MORE = ("bottom", "least", "matched")
#: Samples that norms are taken from where no reference is given.
_NORMS_OF = 128


def ablation_curve(
    model: VLM,
    dataset: Sequence[Sample],
    ranking: Ranking,
    ks: Sequence[int] | None = None,
    *,
    mode: CurveMode = "zero",
    over: Activations | Sequence[Sample] | None = None,
    draws: int = 20,
    sets: Iterable[str] = _MORE,
    positions: Positions | None = None,
    tasks: Labels | None = None,
    split: Labels | None = None,
    probe: FittedProbe | None = None,
    probe_site: str | None = None,
    probe_images: Iterable[str] | None = None,
    chance: float | Mapping[str, float] | None = None,
    answer_tokens: Sequence[int] | None = None,
    reading: Literal["official", "strict"] = "strict",
    seed: int = 0,
    n_resamples: int = 2000,
    batch_size: int = 128,
    force: bool = False,
    progress: bool = False,
    remote: Remote = False,
) -> AblationCurve:
    """Take away the top k units of a ranking: accuracy, the answer's logit and margin, and a probe's score.

    Logit and margin are of the clean run's own answer: its logit, and that minus the best other token's. What
    moves all logits alike moves the first, but not the second and no answer.

    Beside the top k: k random units of the same layers (``ranking.random``); k random units of about the
    same activation norm (`matched_sets`); the k least important; and the k of lowest score. The answer is
    read from the first generated token, so examples whose clean answer is not one token long are left out
    and counted. All sets of a batch are one sweep: what they share is computed once.

    A set's p is its rank among the random draws, never below 1 / (draws + 1), and q is p adjusted over k. With
    fewer than 199 draws no p is given (a note says so): it could not get below 0.005, nor q, adjusted, below
    0.05 where a single one of ten k stands out.

    Args:
        model: from ``mechvrp.load``.
        dataset: the examples, on other images than the ranking was made from.
        ranking: any kind of units, of one site or several.
        ks: numbers of units, ascending within 0 and the ranking's; by default 0, 1, 2, 5, 10, ... half of them.
        mode: what stands in the place of a unit: ``"zero"``; its ``"mean"`` over a reference, pooled over
            positions; or, with ``"resample"``, its value in another sample, the same donor for all sets.
        over: the reference: samples, or ``mechvrp.cache(model, samples, list(ranking.sites),
            positions=...)``; for ``"zero"`` none.
        draws: random sets of each size, of either kind; draw i is nested over k, as the top is. 199 or more
            for a p.
        sets: which sets to run beside the top and random ones: of ``"bottom"``, ``"least"``, ``"matched"``.
        positions: where units are taken away, as ``mechvrp.zero``; by default the last prompt token, of image
            features all image tokens.
        tasks: a name for each example that results are also given by; by default the sample's task.
        split: likewise; by default none.
        probe: whose log-odds at the last prompt position are measured along. At the ranking's own site they
            are worked out; at a later one every set is a whole forward, which takes many times as long.
        probe_site: hook name of what it reads; by default the ranking's.
        probe_images: ids of the images it was fitted on, beside those that the probe knows of itself
            (`FittedProbe.images`); where it knows none they must be given, and are ``()`` of a probe that was
            not fitted on images.
        chance: accuracy of chance for the bottleneck index, of all tasks or by the samples' task; by default
            the commonest right answer's share, of yes/no questions at least 0.5 (`chance_levels`).
        answer_tokens: tokens of each clean answer, where they are known; else a second token is generated.
        reading: how yes/no answers are read (``mechvrp.data.score``). Under the official reading of POPE
            whatever is not a no counts as a yes, so a broken answer can be right.
        seed: of draws, donors and resampling.
        n_resamples: bootstrap resamples, at least 20.
        batch_size: examples a sweep.
        force: evaluate even on images that the ranking or the probe was made from, and with a probe of
            which nobody knows what it was fitted on.
        progress: show a bar.
        remote: where the model runs: here, or as ``mechvrp.trace``; of each batch a sweep is one job, and the
            length of its answers another, unless ``answer_tokens`` is given.

    Raises:
        InputError: a ranking of other weights or of the evaluation's images, a probe fitted on these or on
            unknown ones, samples without answers or image ids, ``ks``, ``draws``, ``sets``, ``mode``,
            ``over``, ``positions``, ``reading``, numbers, labels (``"all"`` and ``"split: ..."`` are taken) or
            ``chance`` that do not fit; all before the model runs.
        ShapeError, SiteError: a ranking or probe of another width, or of a layer the model does not have.
        UnavailableError: no clean answer is one token long.
        NumericalError: an ablation gave NaN or infinite logits.

    Example:
        >>> curve = mechvrp.ablation_curve(model, heldout, ranking, draws=199)    # doctest: +SKIP
        >>> curve.bottleneck["random"], curve.smallest_k()                         # doctest: +SKIP
    """
    check_model(model)
    samples = check_samples(dataset)
    if not isinstance(ranking, Ranking):
        raise InputError(
            f"ranking must be a mechvrp.circuits.Ranking (mechvrp.rank_units makes one); got {ranking!r:.60}"
        )
    chosen = chosen_sets(sets)
    draws = whole("draws", draws, 1)
    checked = check_settings(seed=seed, n_resamples=n_resamples, batch_size=batch_size)
    seed, n_resamples, batch_size = checked.values()
    check_reading(reading)
    check_positions(positions, samples)
    check_evaluated(samples)
    ranking.check(model, samples, force=force)
    sizes = checked_ks(ranking, ks)
    levels = chance_levels(samples, chance)
    by_task = labelled("tasks", tasks, samples)
    by_split = None if split is None else labelled("split", split, samples)
    if answer_tokens is not None:
        answer_tokens = integers("answer_tokens", answer_tokens)
        if len(answer_tokens) != len(samples):
            raise InputError(
                f"answer_tokens has {len(answer_tokens)} counts for {len(samples)} samples"
            )
    if over is not None and not isinstance(over, Activations):
        over = check_samples(over)
    read = None
    if probe is not None:
        read = probe_reading(model, ranking, probe, probe_site, probe_images, samples, force=force)
    elif probe_site is not None or probe_images is not None:
        name = "probe_images" if probe_site is None else "probe_site"
        raise InputError(f"{name} was given without a probe")
    standing = stand_in(
        model, ranking, mode, over, positions, seed=seed, batch_size=batch_size, remote=remote
    )
    matched = None
    if "matched" in chosen:
        norms = _norms(model, ranking, standing, samples, batch_size, remote)
        matched = matched_sets(ranking, norms, sizes, draws, seed)
    ran = run_sets(
        model,
        samples,
        ranking,
        _sets(ranking, sizes, draws, seed, chosen, matched),
        standing,
        probe=read,
        answer_tokens=answer_tokens,
        reading=reading,
        batch_size=batch_size,
        progress=progress,
        remote=remote,
    )
    kept = ran.kept
    outcomes = CurveOutcomes(
        ks=sizes,
        units=len(ranking.scores),
        clean=ran.clean,
        values=ran.values,
        images=np.array([samples[i].source_id for i in kept]),
        tasks=by_task[kept],
        chance=levels[kept] if chance is not None else chance_levels([samples[i] for i in kept]),
        splits=None if by_split is None else by_split[kept],
        norm_ratio=None if matched is None else matched.ratio,
        shared=None if matched is None else matched.shared,
    )
    settings = {
        "model": model.name,
        "fingerprint": fingerprint(model),
        "dataset": getattr(dataset, "name", ""),
        "sites": list(ranking.sites),
        "kind": ranking.kind,
        "ranking": ranking.method,
        "mode": mode,
        "positions": standing.positions
        if isinstance(standing.positions, str)
        else repr(standing.positions),
        "reading": reading,
        "draws": draws,
        "probe": "" if read is None else read.site,
        "sets_run": ran.variants,
        "forced": force,
    }
    notes = []
    if ran.long:
        notes.append(
            f"left out, whose clean answer is not one token long: {ran.long} of {len(samples)} examples"
        )
    if ran.differ:
        notes.append(
            "left out, whose answer in one forward differs from the generated one: "
            f"{ran.differ} of {len(samples)} examples"
        )
    return curve_of(
        outcomes,
        site=", ".join(ranking.sites),
        settings=settings,
        notes=notes,
        seed=seed,
        n_resamples=n_resamples,
    )


def _sets(
    ranking: Ranking,
    ks: Sequence[int],
    draws: int,
    seed: int,
    chosen: Sequence[str],
    matched: MatchedSets | None,
) -> dict[str, list[list[np.ndarray]]]:
    """Rows of the ranking by set, ``[draw][k]``."""
    random = {k: ranking.random(k, draws, seed) for k in ks}
    found = {
        "top": [[ranking.top(k) for k in ks]],
        "random": [[random[k][draw] for k in ks] for draw in range(draws)],
    }
    if "bottom" in chosen:
        found["bottom"] = [[ranking.bottom(k) for k in ks]]
    if "least" in chosen:
        found["least"] = [[ranking.least(k) for k in ks]]
    if matched is not None:
        found["matched"] = [[row[:k] for k in ks] for row in matched.rows]
    return found


def _norms(
    model: VLM,
    ranking: Ranking,
    standing: StandIn,
    samples: Sequence[Sample],
    batch_size: int,
    remote: Remote,
) -> np.ndarray:
    """Norms over the reference, or over some of the evaluation's samples, taken evenly."""
    over = standing.over
    if over is None:
        every = np.linspace(0, len(samples) - 1, min(len(samples), _NORMS_OF)).round().astype(int)
        over = cache(
            model,
            [samples[i] for i in every],
            list(ranking.sites),
            positions=standing.positions,
            batch_size=batch_size,
            remote=remote,
        )
    return unit_norms(over, ranking)
