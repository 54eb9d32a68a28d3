"""``CausalSpec``: everything a model's interventions depend on beside the held-out examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mechvrp.circuits import AblationMode, Ranking, default_ks, rank_by_probe_weight
from mechvrp.circuits.logistic import (
    DEFAULT_C_GRID,
    cross_validate,
    fit_probe,
    grouped_folds,
    one_thread_if_small,
)
from mechvrp.errors import InputError, MechVRPError
from mechvrp.reliability import layer_windows
from mechvrp.reliability.corrupting import Corrupted, Window
from mechvrp.tracing.caching import cache

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = ["FAMILIES", "Ablating", "CausalSpec", "Condition", "attention_windows", "causal_spec"]

FAMILIES = (
    "image patches",
    "residual neurons",
    "MLP neurons",
    "hidden states",
    "attention",
    "hidden states and attention",
)

#: Training examples behind the ranking of MLP neurons, at most: as many rows of d_mlp numbers are held.
MOST_TRAINING = 4000


@dataclass(frozen=True)
class Condition:
    """One row to be: what is done, where; ``CausalRow`` says what the fields mean."""

    family: str
    name: str
    control: str
    site: str
    edit: str
    amount: float
    first_layer: int | None = None
    last_layer: int | None = None
    units: int | None = None


@dataclass(frozen=True, eq=False)
class Ablating:
    """Units of one site to take away.

    Attributes:
        family: ``"residual neurons"`` or ``"MLP neurons"``.
        ranking: of them, by probe weight on training images.
        means: their means over training examples [unit].
        ks: how many, ascending, without 0.
    """

    family: str
    ranking: Ranking
    means: np.ndarray
    ks: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class CausalSpec:
    """What is done to one model, and everything that decides how.

    Made once (`causal_spec`). What it gives for an example depends on the example and on this alone, so
    that a resumed run has the same outcomes.

    Attributes:
        ablations: sites whose units are taken away.
        scales: standard deviation of each layer's last-position hidden states on training images [layer].
        hidden_windows, attention_windows: first and last block of each window.
        amount: noise on hidden states in those standard deviations, and on log-weights of attention.
        fraction: of an image's patches that are masked.
        draws, mask_draws, noise_draws: random sets of units, random masks, noise.
        seed: of all of them.
        reading, batch_size: as ``StudyConfig``.
        gaps: families that could not be set up, with the reason.
    """

    ablations: tuple[Ablating, ...]
    scales: np.ndarray
    hidden_windows: tuple[Window, ...]
    attention_windows: tuple[Window, ...]
    amount: float = 1.0
    fraction: float = 0.3
    draws: int = 20
    mask_draws: int = 5
    noise_draws: int = 3
    seed: int = 0
    reading: Literal["official", "strict"] = "strict"
    batch_size: int = 32
    gaps: tuple[str, ...] = ()

    def windows(self, of: Corrupted) -> tuple[Window, ...]:
        """Those that noise of a kind is put on."""
        return self.hidden_windows if of == "hidden states" else self.attention_windows

    @property
    def conditions(self) -> dict[str, tuple[Condition, ...]]:
        """By part of the run (its arrays are called so), its conditions in order."""
        found = {"patches": tuple(self._patches(kind) for kind in ("top", "bottom"))}
        for at in self.ablations:
            for mode in MODES:
                found[part_of(at.family, mode)] = tuple(_units(at, mode, k) for k in at.ks)
        for of in CORRUPTED:
            found[part_of(of)] = tuple(self._noise(of, window) for window in self.windows(of))
        return found

    def control_draws(self, part: str) -> int:
        """How many draws the control of a part has."""
        if part == "patches":
            return self.mask_draws
        return self.noise_draws if part in map(part_of, CORRUPTED) else self.draws

    def edited_draws(self, part: str) -> int:
        """How many draws the intervention of a part has."""
        return self.noise_draws if part in map(part_of, CORRUPTED) else 1

    def shared_draws(self, part: str) -> bool:
        """Whether all examples share a draw (sets of units), or each has its own (masks, noise)."""
        return part != "patches" and part not in map(part_of, CORRUPTED)

    def _patches(self, kind: str) -> Condition:
        share = f"{100 * self.fraction:g} %"
        return Condition(
            family="image patches",
            name=f"{kind} {share} masked",
            control=f"random {share} masked",
            site="blocks.0.hook_resid_pre",
            edit="mean",
            amount=self.fraction,
        )

    def _noise(self, of: Corrupted, window: Window) -> Condition:
        first, last = window
        where = f"layer {first}" if first == last else f"layers {first} to {last}"
        site = "attn.hook_pattern" if of == "attention" else "hook_resid_post"
        unit = " on log-weights" if of == "attention" else " SD"
        if of == "hidden states and attention":
            unit = " SD and on log-weights"
        return Condition(
            family=of,
            name=f"noise of {self.amount:g}{unit}, {where}",
            control="the same at another text position",
            site=f"blocks.{first}.{site}",
            edit="noise",
            amount=self.amount,
            first_layer=first,
            last_layer=last,
        )


MODES: tuple[AblationMode, ...] = ("zero", "mean")
CORRUPTED: tuple[Corrupted, ...] = ("hidden states", "attention", "hidden states and attention")


def part_of(family: str, mode: str = "") -> str:
    """The name of a family's arrays."""
    return "_".join(filter(None, [*family.lower().split(), mode]))


def _units(at: Ablating, mode: str, k: int) -> Condition:
    what = {"zero": "zeroed", "mean": "set to their mean"}[mode]
    return Condition(
        family=at.family,
        name=f"top {k} {what}",
        control=f"random {k} {what}",
        site=at.ranking.site,
        edit=mode,
        amount=float(k),
        first_layer=at.ranking.layer,
        last_layer=at.ranking.layer,
        units=len(at.ranking.order),
    )


def attention_windows(n_layers: int) -> tuple[Window, ...]:
    """Thirds of the depth, and all layers.

    >>> attention_windows(32)
    ((0, 10), (11, 21), (22, 31), (0, 31))
    """
    parts = [part for part in np.array_split(np.arange(n_layers), 3) if len(part)]
    found = [(int(part[0]), int(part[-1])) for part in parts]
    return tuple(dict.fromkeys([*found, (0, n_layers - 1)]))


def causal_spec(
    model: VLM,
    training: Iterable[Sample],
    hidden: np.ndarray,
    right: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    ranking: Ranking | None,
    ks: Sequence[int] | None = None,
    draws: int = 20,
    mask_draws: int = 5,
    noise_draws: int = 3,
    amount: float = 1.0,
    fraction: float = 0.3,
    folds: int = 5,
    seed: int = 0,
    reading: Literal["official", "strict"] = "strict",
    batch_size: int = 32,
) -> CausalSpec:
    """Everything that is fixed before any held-out example is seen.

    MLP neurons are ranked as the residual stream was: by the weights (on standardised activations) of a
    logistic probe for correctness, at the last prompt position of the training examples, its strength chosen
    by cross-validation by image. The layer is that of the residual probe: the block whose MLP writes there.

    Args:
        model: what is studied.
        training: the training examples, in the order of the arrays; run only for the MLP's neurons.
        hidden: their hidden states [layer, example, d_model], ``resid_post`` of the last prompt token.
        right, groups: of them, [example]: whether the answer is right, and the image.
        ranking: of the residual stream, from its probe; None where there is no probe.
        ks: numbers of units; by default ``default_ks`` of each site's width.
        draws, mask_draws, noise_draws, amount, fraction, seed, reading, batch_size: as ``CausalSpec``.
        folds: of the cross-validation.

    Raises:
        InputError: arrays that do not fit the model or each other.
    """
    hidden, right, groups = np.asarray(hidden), np.asarray(right, bool), np.asarray(groups)
    expected = (model.n_layers, len(right), model.d_model)
    if hidden.shape != expected or groups.shape != right.shape:
        raise InputError(
            f"hidden states of shape {hidden.shape} for {len(right)} labels and {len(groups)} images; "
            f"expected {expected}"
        )
    ablations, gaps = [], []
    layer = None if ranking is None else ranking.layer
    if ranking is None or layer is None:
        gaps += [f"{family}: no probe, so that nothing is ranked" for family in FAMILIES[1:3]]
    else:
        means = hidden[layer].mean(0, dtype=np.float64)
        ablations.append(Ablating(FAMILIES[1], ranking, means, _ladder(ks, model.d_model)))
        try:
            found, its_means = rank_mlp_neurons(
                model,
                training,
                right,
                groups,
                layer,
                folds=folds,
                seed=seed,
                batch_size=batch_size,
            )
            ablations.append(Ablating(FAMILIES[2], found, its_means, _ladder(ks, model.d_mlp)))
        except MechVRPError as error:
            gaps.append(f"{FAMILIES[2]}: {error}")
    flat = hidden.reshape(len(hidden), -1)
    return CausalSpec(
        ablations=tuple(ablations),
        scales=np.array([layer.std(dtype=np.float64, ddof=1) for layer in flat]),
        hidden_windows=layer_windows(model.n_layers),
        attention_windows=attention_windows(model.n_layers),
        amount=amount,
        fraction=fraction,
        draws=draws,
        mask_draws=mask_draws,
        noise_draws=noise_draws,
        seed=seed,
        reading=reading,
        batch_size=batch_size,
        gaps=tuple(gaps),
    )


def rank_mlp_neurons(
    model: VLM,
    training: Iterable[Sample],
    right: np.ndarray,
    groups: np.ndarray,
    layer: int,
    *,
    folds: int = 5,
    seed: int = 0,
    batch_size: int = 32,
) -> tuple[Ranking, np.ndarray]:
    """A ranking of a layer's MLP neurons by probe weight, and their means [unit]; see `causal_spec`.

    Of more than 4,000 training examples, 4,000 are taken evenly.

    Raises:
        InputError: one class only, too few images for the folds, or neurons that never change.
        NumericalError: activations are NaN or infinite.
    """
    kept = np.unique(
        np.linspace(0, len(right) - 1, min(len(right), MOST_TRAINING)).round().astype(int)
    )
    wanted = set(kept.tolist())
    samples = [sample for i, sample in enumerate(training) if i in wanted]
    if len(samples) != len(kept):
        raise InputError(f"{len(samples)} training examples were given for {len(kept)} labels")
    right, groups = right[kept], groups[kept]
    parts = grouped_folds(right, groups, folds, seed)
    site = f"blocks.{layer}.mlp.hook_post"
    values = cache(model, samples, site, positions="last", batch_size=batch_size)[site]
    neurons = values.double().cpu().numpy()
    if not np.ptp(neurons, axis=0).any():
        raise InputError(f"no neuron of {site} changes from one training example to another")
    with one_thread_if_small(neurons):
        c = cross_validate(neurons, right, parts, DEFAULT_C_GRID).c
        probe = fit_probe(neurons, right, c, groups)
    return rank_by_probe_weight(probe, site), neurons.mean(0)


def _ladder(ks: Sequence[int] | None, width: int) -> tuple[int, ...]:
    return tuple(k for k in (ks or default_ks(width)) if 0 < k <= width)
