"""A probe's score under ablations: worked out where the probe's own units go, read from the run elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mechvrp.circuits.image_groups import images_of
from mechvrp.circuits.logistic import FittedProbe
from mechvrp.circuits.ranking import Ranking
from mechvrp.circuits.units import kind_of, units_at
from mechvrp.errors import InputError, ShapeError, SiteError
from mechvrp.tracing.caching import cache
from mechvrp.tracing.sending import Remote
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["ProbeReading", "probe_reading"]


@dataclass(frozen=True, eq=False)
class ProbeReading:
    """A probe of the last prompt position, and how its score is had under ablations.

    Attributes:
        probe: the probe.
        site: hook name of what it reads.
        own: whether that is the site whose units are ablated: then the score is worked out from the clean
            activations, exactly; else every set is a whole forward (``sweep``'s measures of the trace).
    """

    probe: FittedProbe
    site: str
    own: bool

    def measure(self) -> Callable[[Any], Tensor]:
        """The score [example] as a sweep's measure of the trace."""
        coef = torch.from_numpy(np.asarray(self.probe.raw_coef, dtype=np.float64))
        shift = float(self.probe.intercept - self.probe.mean @ self.probe.raw_coef)
        site = self.site

        def probe_score(t: Any) -> Tensor:
            state = t[site][:, -1].double()
            return (state @ coef.to(state.device) + shift).float()

        return probe_score

    def worked_out(
        self,
        model: VLM,
        batch: Batch,
        sets: Sequence[np.ndarray],
        values: Mapping[str, Tensor] | None,
        positions: Positions,
        remote: Remote = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores [set, example] with units of the probe's own site taken away, and clean [example].

        Args:
            sets: numbers of the units.
            values: what stands in their place, by site (`StandIn.values`).
            positions: where they are ablated: an example whose last position is not among them keeps its score.
            remote: as ``mechvrp.trace``.
        """
        clean = (
            cache(model, batch, self.site, positions="last", remote=remote)[self.site]
            .double()
            .cpu()
            .numpy()
        )
        stands = np.zeros_like(clean)
        if values is not None:
            given = values[self.site].double().cpu().numpy()
            stands = np.broadcast_to(given[:, -1] if given.ndim == 3 else given, clean.shape)
        last = batch.tokens.length - 1
        edited = [bool((here == last).any()) for here in batch.tokens.resolve(positions)]
        # What each unit's going adds to the score, [example, unit].
        adds = (stands - clean) * self.probe.raw_coef * np.array(edited)[:, None]
        before = self.probe.scores(clean)
        after = np.stack([before + adds[:, units].sum(axis=1) for units in sets])
        return after.astype(np.float32), before.astype(np.float32)


def probe_reading(
    model: VLM,
    ranking: Ranking,
    probe: FittedProbe,
    site: str | None,
    images: Iterable[str] | None,
    samples: Sequence[Sample],
    *,
    force: bool = False,
) -> ProbeReading:
    """How a probe can be read under a ranking's ablations.

    Args:
        model: which is ablated.
        ranking: whose units are.
        probe: fitted at the last prompt position.
        site: where; None: the ranking's own.
        images: ids of the images it was fitted on, beside those that it knows of itself.
        samples: of the evaluation.
        force: read it even on images it was fitted on, and where those are unknown.

    Raises:
        SiteError: a site that is no residual stream and no MLP's neurons, or lies before the ablated ones,
            where nothing can change.
        ShapeError: the probe is of another width.
        InputError: the probe was fitted on images of the evaluation, or nobody says on which.
    """
    if not isinstance(probe, FittedProbe):
        raise InputError(
            f"probe is a mechvrp.circuits.FittedProbe; got {probe!r:.60} ({type(probe).__name__})"
        )
    at = Site.parse(ranking.site if site is None else site).check(model)
    if at.kind.where != "block" or kind_of(at) not in ("residual dimension", "MLP neuron"):
        raise SiteError(
            f"a probe's score is read from the residual stream or an MLP's neurons; its site is {at}: give "
            "probe_site="
        )
    first = min((Site.parse(one).check(model) for one in ranking.sites), key=lambda s: s.order)
    if at.order < first.order:
        raise SiteError(
            f"the probe reads {at}, which is computed before {first}: ablating there cannot change its score"
        )
    if units_at(model, at) != len(probe.coef):
        raise ShapeError(
            f"the probe is of {len(probe.coef)} dimensions, and {at} has {units_at(model, at)}"
        )
    known = probe.known_images("probe_images", images, force=force)
    shared = known & images_of(samples)
    if shared and not force:
        raise InputError(
            f"the probe was fitted on {len(shared)} of these images ({', '.join(sorted(shared)[:3])}): its "
            "scores there are not those of unseen images. Evaluate on others, or give force=True"
        )
    own = len(ranking.sites) == 1 and str(at) == str(first)
    return ProbeReading(probe, str(at), own)
