"""``noise``: Gaussian noise whose draws belong to samples and sites, not to runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mechvrp.errors import InputError, NumericalError, SiteError
from mechvrp.patching.interventions import Edits, Intervention, build, real, seeds
from mechvrp.patching.selection import Selected
from mechvrp.tracing.activations import Activations
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["Noise", "noise"]


@dataclass(frozen=True, eq=False, repr=False)
class Noise(Intervention):
    """Add Gaussian noise; at ``pattern``, to the logarithm of the weights, which then sum to 1 again.

    Attributes:
        amount: standard deviation of the noise, in units of ``std`` where there is one.
        over: activations that say what one unit is, the standard deviation of the site's values in
            them; ``None``: units are the model's own.
        seed, draw: draws are keyed by (seed, draw, site, sample), so that neither the batch nor the
            order of execution changes them.
    """

    amount: float = 1.0
    over: Activations | None = None
    seed: int = 0
    draw: int = 0

    def check(self, model: VLM, batch: Batch) -> None:
        super().check(model, batch)
        site = self.site.check(model)
        if self.over is not None and site.component == "pattern":
            raise SiteError(
                f"{site} takes noise on the logarithm of its weights, whose unit is 1: leave 'over' out"
            )
        if self.over is not None and site not in self.over.sites:
            raise SiteError(
                f"{site} is not among the cached sites of the reference: {', '.join(self.over)}"
            )

    def sigma(self, model: VLM) -> float:
        """The standard deviation of the noise in the model's own units."""
        if self.over is None:
            return self.amount
        return self.amount * float(self.over.flat(self.site.check(model)).double().std())

    def edit(self, old: Tensor, chosen: Selected, model: VLM, batch: Batch) -> Tensor:
        site, sigma = self.site.check(model), self.sigma(model)
        drawn, keys = torch.zeros(old.shape, dtype=torch.float32), batch.keys
        for sample in chosen.sample.unique().tolist():
            mine = (chosen.sample == sample).nonzero().flatten()
            shape = list(old.shape[1:])
            if site.component == "pattern":
                # Padding is not part of the draw: the same keys get the same noise in any batch.
                shape[-1] = int(chosen.length[mine[0]])
            # Drawn in order from the prompt's end (in the tower: from the image's beginning), so that
            # a token's noise does not depend on which others are edited. numpy draws one value after
            # another; torch's draws change with the size of the whole.
            place = chosen.place[mine]
            nth = -1 - place if int(place.min()) < 0 else place
            stream = np.random.default_rng(self._key(site, keys[sample]))
            values = stream.standard_normal((int(nth.max()) + 1, *shape), dtype=np.float32)
            drawn[mine, ..., drawn.shape[-1] - shape[-1] :] = torch.from_numpy(values)[nth]
        shift = (sigma * drawn).to(old.device)
        if site.component != "pattern":
            return old + shift.to(old)
        # In float32: the logarithm of a weight in bfloat16 would itself be noise.
        return (old.float().log() + shift).softmax(-1)

    def _key(self, site: Site, sample: str) -> int:
        key = hashlib.sha256(f"noise {self.seed} {self.draw} {site} {sample}".encode()).digest()
        return int.from_bytes(key[:8], "big")

    def _what(self) -> str:
        unit = "" if self.over is None else " standard deviations"
        return f"noise of {self.amount:g}{unit} (seed {self.seed}, draw {self.draw}) at"


def noise(
    site: str | Site,
    amount: float,
    *,
    over: Activations | None = None,
    seed: int = 0,
    draw: int = 0,
    layer: int | Sequence[int] | None = None,
    positions: Positions = "all",
    units: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Edits:
    """Add Gaussian noise to a site; other arguments as ``zero``.

    At ``pattern`` the noise is added to the logarithm of the weights and the rows are normalised again:
    weights stay weights, and what was masked stays masked.

    Args:
        site: as ``zero``.
        amount: standard deviation, in the model's own units, or in those of ``over``.
        over: ``mechvrp.cache(...)`` of some samples at this site: ``amount`` counts standard
            deviations of its values there.
        seed, draw: the draw of a sample at a site is a function of (seed, draw, site, sample). Edits
            that should share their noise share these, others have their own.

    Raises:
        NumericalError: the amount is negative, NaN or infinite.
    """
    amount = real("an amount of noise", amount)
    if amount < 0:
        raise NumericalError(f"an amount of noise must be finite and at least 0; got {amount}")
    if over is not None and not isinstance(over, Activations):
        raise InputError(f"over must be activations from mechvrp.cache; got {type(over).__name__}")
    more = {"amount": amount, "over": over, **seeds(seed=seed, draw=draw)}
    return build(Noise, site, layer, positions, units, heads, **more)
