"""What stands in the place of what is ablated: nothing, a mean, or the counterfactual run's values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mechvrp.circuits.token_groups import token_groups
from mechvrp.data import Sample
from mechvrp.errors import InputError
from mechvrp.models import Batch
from mechvrp.patching.alignment import check_aligned
from mechvrp.patching.grids import values_of
from mechvrp.patching.interventions import Intervention, Zero
from mechvrp.patching.references import Mean
from mechvrp.patching.replacing import Replace
from mechvrp.patching.selection import Selected
from mechvrp.tracing.activations import Activations
from mechvrp.tracing.caching import cache
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import is_running

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["CircuitMode", "Sparing", "StandIns"]

#: What an ablated node becomes.
CircuitMode = Literal["zero", "mean", "counterfactual"]


@dataclass(frozen=True, eq=False, repr=False)
class Sparing(Intervention):
    """Another intervention, made everywhere but at some heads or units of some groups of tokens.

    Attributes:
        inner: what is done to the rest.
        spared: boolean ``[group]`` (whole tokens), or ``[group, head]`` or ``[group, unit]``; groups in
            the order of ``GROUPS``.
    """

    inner: Intervention = None  # type: ignore[assignment]
    spared: Tensor = None  # type: ignore[assignment]

    def check(self, model: VLM, batch: Batch) -> None:
        super().check(model, batch)
        self.inner.check(model, batch)
        token_groups(batch)

    def require(self, chosen: Selected, model: VLM, batch: Batch) -> None:
        touched = self._touched(chosen, batch)
        if bool(touched.any()):
            self.inner.require(chosen.where(touched), model, batch)

    def edit(self, old: Tensor, chosen: Selected, model: VLM, batch: Batch) -> Tensor:
        touched = self._touched(chosen, batch)
        if not bool(touched.any()):
            return old
        some, here = chosen.where(touched), touched.to(old.device)
        part = old[here]
        new = self.inner.edit(part, some, model, batch).to(part)
        if self.spared.ndim == 2:
            keep = self.spared[token_groups(batch)[some.sample, some.position]].to(old.device)
            keep = keep.reshape(*keep.shape, *(1,) * (part.ndim - 2))
            new = torch.where(keep, part, new)
        found = old.clone()
        found[here] = new
        return found

    def _touched(self, chosen: Selected, batch: Batch) -> Tensor:
        """Boolean ``[token]``: what is not spared as a whole."""
        whole = self.spared if self.spared.ndim == 1 else self.spared.all(-1)
        return ~whole[token_groups(batch)[chosen.sample, chosen.position]]

    def _what(self) -> str:
        kept = int(self.spared.sum())
        return f"all but {kept} of {self.spared.numel()} parts: {self.inner._what()}"


@dataclass(frozen=True, eq=False, repr=False)
class _PooledMean(Intervention):
    """The reference's mean over image tokens, over last tokens or over other text, as a token is.

    Attributes:
        means: ``[3, ...]``, in that order.
    """

    means: Tensor = None  # type: ignore[assignment]

    def edit(self, old: Tensor, chosen: Selected, model: VLM, batch: Batch) -> Tensor:
        return self.means.to(old)[_class(chosen.place, chosen.patch).to(old.device)]

    def _what(self) -> str:
        return "mean of image tokens, last tokens or other text, at"


def _class(place: Tensor, patch: Tensor) -> Tensor:
    """0 for image tokens, 1 for the last token, 2 for other text."""
    found = torch.where(patch[:, 0] >= 0, 0, 2)
    found[place == -1] = 1
    return found


@dataclass(eq=False)
class StandIns:
    """The values that a mode of ablation puts in, for one batch; made as they are needed.

    Args:
        model: from ``mechvrp.load``.
        batch: what is ablated.
        mode: ``"zero"``; ``"mean"``, over a reference set; or ``"counterfactual"``, the values of an
            aligned batch's own run.
        reference: for ``"mean"``, samples, or ``mechvrp.cache(model, samples, ["z", "mlp_out"],
            positions="all")``; for ``"counterfactual"``, the aligned batch; for ``"zero"`` None.
        pooled: of means: False: at the same position (an image token by its place on the grid, other
            tokens counted from the end of the prompt); True: one mean of image tokens, one of last
            tokens and one of all other text, for references whose prompts differ in length.

    Raises:
        InputError: a mode or reference that do not go together, or a batch that is not aligned.
    """

    model: VLM
    batch: Batch
    mode: CircuitMode = "counterfactual"
    reference: Any = None
    pooled: bool = False
    _made: dict[Site, Intervention] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in ("zero", "mean", "counterfactual"):
            raise InputError(f"mode is 'zero', 'mean' or 'counterfactual'; got {self.mode!r}")
        if self.mode == "zero" and self.reference is not None:
            raise InputError("mode='zero' takes no reference: zeros stand in for what is ablated")
        if self.mode == "counterfactual":
            if not isinstance(self.reference, Batch):
                raise InputError(
                    "mode='counterfactual' takes the aligned counterfactual batch as reference; got "
                    f"{type(self.reference).__name__}"
                )
            check_aligned(self.batch, self.reference)
        if self.mode == "mean":
            check_reference(self.reference)

    def need(self, sites: Iterable[Site]) -> None:
        """Have what ablates these sites at hand (one forward for all that are missing)."""
        missing = sorted(set(sites) - set(self._made), key=lambda site: site.order)
        if not missing:
            return
        if is_running(self.model) and not (
            self.mode == "zero" or isinstance(self.reference, Activations)
        ):
            raise InputError(
                f"mode={self.mode!r} takes values from a run of {self.model.name}, of which a trace is "
                "running: make the edits before the trace's block, and apply them in it"
            )
        if self.mode == "zero":
            self._made |= {site: Zero(site) for site in missing}
        elif self.mode == "counterfactual":
            values, _ = values_of(self.model, self.reference, missing)
            self._made |= {site: Replace(site, value=values[site]) for site in missing}
        else:
            self._made |= {site: self._mean(site, over) for site, over in self._over(missing)}

    def at(self, site: Site) -> Intervention:
        """The intervention that ablates a whole site."""
        self.need([site])
        return self._made[site]

    def beside(self, batch: Batch, reference: Any = None) -> StandIns:
        """The same for another batch; what does not depend on the batch is shared."""
        if self.mode == "counterfactual":
            return StandIns(self.model, batch, self.mode, reference, self.pooled)
        return StandIns(self.model, batch, self.mode, self.reference, self.pooled, self._made)

    def _over(self, sites: list[Site]) -> list[tuple[Site, Activations]]:
        over = self.reference
        if not isinstance(over, Activations):
            over = cache(self.model, over, list(sites), positions="all")
        lacking = [str(site) for site in sites if site not in over.sites]
        if lacking:
            raise InputError(
                f"the reference holds no {', '.join(lacking[:3])}"
                f"{', ...' if len(lacking) > 3 else ''}: cache these too, or give samples"
            )
        return [(site, over) for site in sites]

    def _mean(self, site: Site, over: Activations) -> Intervention:
        if self.pooled:
            return _PooledMean(site, means=_pooled(over, site))
        return Mean(site, over=over, pooled=False)


def check_reference(reference: Any) -> None:
    """Raise ``InputError`` unless means can be taken over it."""
    if isinstance(reference, Activations):
        if reference.positions != "all":
            raise InputError(
                f"the reference was cached at positions {reference.positions!r}; a circuit's means are of "
                "all positions: cache it with positions='all'"
            )
        return
    if isinstance(reference, Sequence) and not len(reference):
        raise InputError(
            "mode='mean' takes means over a reference, and this one is empty: give samples, or activations "
            "from mechvrp.cache(..., positions='all')"
        )
    if not (
        isinstance(reference, Sequence) and all(isinstance(sample, Sample) for sample in reference)
    ):
        raise InputError(
            "mode='mean' takes a reference to take means over: samples, or activations from "
            f"mechvrp.cache(..., positions='all'); got {type(reference).__name__}"
        )


def _pooled(over: Activations, site: Site) -> Tensor:
    values, rows = over.flat(site).double(), over.rows(site)
    kinds = _class(rows.position, rows.patch)
    words = ("image tokens", "last tokens", "other text")
    absent = [word for i, word in enumerate(words) if not bool((kinds == i).any())]
    if absent:
        raise InputError(f"the reference has no {' and no '.join(absent)} to take a mean over")
    return torch.stack([values[kinds == i].mean(0) for i in range(len(words))])
