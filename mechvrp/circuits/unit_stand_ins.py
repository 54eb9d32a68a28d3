"""What stands in the place of an ablated unit: nothing, its mean, or another sample's value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from mechvrp.circuits.ranking import Ranking
from mechvrp.circuits.units import UNIT_KINDS
from mechvrp.data import Sample
from mechvrp.errors import InputError, NumericalError
from mechvrp.patching.interventions import flatten
from mechvrp.patching.references import resample
from mechvrp.tracing.access import expected_shape
from mechvrp.tracing.activations import Activations
from mechvrp.tracing.caching import cache
from mechvrp.tracing.sending import Remote
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["CurveMode", "StandIn", "stand_in"]

#: What stands in the place of a unit: 0, its mean over reference samples, or another sample's value.
CurveMode = Literal["zero", "mean", "resample"]


class StandIn:
    """Values for a ranking's sites, batch by batch. Made by `stand_in`.

    Attributes:
        mode: what they are.
        positions: where units are ablated.
        over: reference activations; None for ``"zero"``.
    """

    def __init__(
        self,
        ranking: Ranking,
        mode: CurveMode,
        positions: Positions,
        over: Activations | None,
        seed: int,
    ) -> None:
        self.mode, self.positions, self.over = mode, positions, over
        self._sites = [Site.parse(site) for site in ranking.sites]
        self._means: dict[str, torch.Tensor] = {}
        self._edits: dict[str, Any] = {}
        if mode == "mean":
            assert over is not None
            for site in self._sites:
                self._means[str(site)] = over.flat(site).double().mean(0).float()
        elif mode == "resample":
            assert over is not None
            for site in self._sites:
                (edit,) = flatten(resample(site, over, seed=seed, positions=positions))
                self._edits[str(site)] = edit

    def values(self, model: VLM, batch: Batch) -> Mapping[str, torch.Tensor] | None:
        """By site, what broadcasts to its value in this batch; None: zero.

        Raises:
            SiteError: a donor has no such position (prompts or image grids differ).
            InputError: a sample has no donor but itself.
        """
        if self.mode == "zero":
            return None
        if self.mode == "mean":
            return self._means
        found = {}
        for site in self._sites:
            edit = self._edits[str(site)]
            edit.check(model, batch)
            shape: Any = expected_shape(model, batch, site)
            # All units of the donors' tokens, once for all sets; elsewhere nothing is edited.
            found[str(site)] = edit(torch.zeros(shape, device=model.device), model, batch)
        return found


def stand_in(
    model: VLM,
    ranking: Ranking,
    mode: CurveMode,
    over: Activations | Sequence[Sample] | None,
    positions: Positions | None,
    *,
    seed: int = 0,
    batch_size: int = 32,
    remote: Remote = False,
) -> StandIn:
    """What is put in the place of a ranking's units, with everything checked.

    Args:
        model: whose units they are.
        ranking: of the units.
        mode: ``"zero"``; ``"mean"``: each unit's mean over the reference, pooled over its positions; or
            ``"resample"``: the unit's value in another sample, the same donor for every set
            (`mechvrp.resample` says how it is drawn).
        over: the reference: samples, or ``mechvrp.cache(model, samples, list(ranking.sites),
            positions=...)`` of them; for ``"zero"`` none.
        positions: where units are ablated; None: the last prompt token, for image features all image tokens.
        seed: of the donors.
        batch_size, remote: where samples are given.

    Raises:
        InputError: mode and reference do not fit, or the reference is of another model or other positions.
        SiteError: the reference lacks a site.
        NumericalError: it holds NaN or infinity.
    """
    if mode not in ("zero", "mean", "resample"):
        raise InputError(f"mode is 'zero', 'mean' or 'resample'; got {mode!r}")
    at: Positions = UNIT_KINDS[ranking.kind].positions if positions is None else positions
    if (over is None) != (mode == "zero"):
        raise InputError(
            f"mode={mode!r} "
            + (
                "takes no over: nothing stands in the place of a unit"
                if mode == "zero"
                else "needs over=, other samples (or mechvrp.cache of them) whose values are put in"
            )
        )
    if over is None:
        return StandIn(ranking, mode, at, None, seed)
    if not isinstance(over, Activations):
        samples = [over] if isinstance(over, Sample) else list(over)
        if not samples:
            raise InputError(
                f"mode={mode!r} takes values from over, and it is empty: give samples, or activations from "
                "mechvrp.cache"
            )
        if not all(isinstance(sample, Sample) for sample in samples):
            raise InputError("over must be samples, or activations from mechvrp.cache")
        over = cache(
            model,
            samples,
            list(ranking.sites),
            positions=at,
            batch_size=batch_size,
            remote=remote,
        )
    if over.info["model"] != model.name:
        raise InputError(f"over was cached from {over.info['model']}, and this is {model.name}")
    if over.positions != at:
        raise InputError(
            f"units are ablated at positions {at!r}, and over was cached at {over.positions!r}: cache it "
            "at the same ones"
        )
    for site in ranking.sites:
        bad = int((~torch.isfinite(over.flat(site))).sum())
        if bad:
            raise NumericalError(f"over holds {bad} values at {site} that are NaN or infinite")
    return StandIn(ranking, mode, at, over, seed)
