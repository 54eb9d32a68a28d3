"""``mean`` and ``resample``: values that come from other samples, cached beforehand.

The other samples are given as ``mechvrp.cache`` returned them, so that what is put in does not depend
on which samples happen to share a batch.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mechvrp.errors import InputError, SiteError
from mechvrp.patching.interventions import Edits, Intervention, build, seeds
from mechvrp.patching.selection import Selected
from mechvrp.tracing.activations import Activations

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions
    from mechvrp.tracing.sites import Site

__all__ = ["Mean", "Resample", "mean", "resample"]

#: A token's name: an image token's image, row, column and grid, any other by its distance from the end.
Name = tuple[int, ...]


def _names(place: Tensor, patch: Tensor) -> list[Name]:
    return [
        tuple(image) if image[1] >= 0 else (p,)
        for p, image in zip(place.tolist(), patch.tolist(), strict=True)
    ]


def _word(name: Name) -> str:
    if len(name) == 1:
        return f"position {name[0]}"
    image, row, col, rows, cols = name
    return f"image token (row {row}, column {col}) of a {rows} x {cols} grid (image {image})"


@dataclass(frozen=True, eq=False, repr=False)
class _Referring(Intervention):
    """What mean and resample share: values of other samples at the same site."""

    over: Activations = None  # type: ignore[assignment]

    def check(self, model: VLM, batch: Batch) -> None:
        super().check(model, batch)
        site = self.site.check(model)
        if site.component == "pattern":
            raise SiteError(
                f"{site}: attention over other samples' prompts has no meaning here, since their keys "
                "are other tokens; edit z or attn_out instead"
            )
        if site not in self.over.sites:
            raise SiteError(
                f"{site} is not among the cached sites of the reference: {', '.join(self.over)}"
            )
        if self.over.info["model"] != model.name:
            raise InputError(
                f"the reference was cached from {self.over.info['model']}, and this is {model.name}"
            )


@dataclass(frozen=True, eq=False, repr=False)
class Mean(_Referring):
    """The mean over a reference set, pooled over its positions or at the same one."""

    pooled: bool = True
    _means: dict[Any, Tensor] = field(default_factory=dict)

    def edit(self, old: Tensor, chosen: Selected, model: VLM, batch: Batch) -> Tensor:
        means = self._of(self.site.check(model))
        if self.pooled:
            return means[None].to(old).expand(old.shape)
        self.require(chosen, model, batch)
        names = _names(chosen.place, chosen.patch)
        return torch.stack([means[name] for name in names]).to(old)

    def require(self, chosen: Selected, model: VLM, batch: Batch) -> None:
        if self.pooled:
            return
        means = self._of(self.site.check(model))
        names = _names(chosen.place, chosen.patch)
        absent = next((name for name in names if name not in means), None)
        if absent is not None:
            raise SiteError(
                f"no sample of the reference has a {_word(absent)} at {self.site}; cache them with the "
                "same positions, or use pooled=True"
            )

    def _of(self, site: Site) -> dict[Any, Tensor]:
        if not self._means:
            values, rows = self.over.flat(site), self.over.rows(site)
            if self.pooled:
                axes = (
                    (0, 1) if site.component == "vision_resid_post" and values.ndim == 3 else (0,)
                )
                self._means[None] = values.double().mean(axes)
            else:
                found: dict[Name, list[int]] = defaultdict(list)
                for i, name in enumerate(_names(rows.position, rows.patch)):
                    found[name].append(i)
                self._means.update({n: values[i].double().mean(0) for n, i in found.items()})
        return self._means

    def _what(self) -> str:
        kind = "pooled over positions" if self.pooled else "at the same position"
        return f"mean of {self.over.n_examples} samples, {kind}, at"


@dataclass(frozen=True, eq=False, repr=False)
class Resample(_Referring):
    """Another sample's value at the same position; the donor is drawn by (seed, draw, sample)."""

    seed: int = 0
    draw: int = 0
    _places: dict[tuple[int, Name], int] = field(default_factory=dict)

    def donor(self, key: str) -> int:
        """Which sample of the reference stands in for the one of that key (``batch.keys``)."""
        known = self.over.sample_keys or ("",) * self.over.n_examples
        others = [i for i, other in enumerate(known) if other != key]
        if not others:
            raise InputError(f"the reference holds no other sample than {key!r} to draw from")
        digest = hashlib.sha256(f"resample {self.seed} {self.draw} {key}".encode()).digest()
        return others[int(np.random.default_rng(list(digest[:8])).integers(len(others)))]

    def edit(self, old: Tensor, chosen: Selected, model: VLM, batch: Batch) -> Tensor:
        site = self.site.check(model)
        return self.over.flat(site)[self._wanted(site, chosen, batch)].to(old)

    def require(self, chosen: Selected, model: VLM, batch: Batch) -> None:
        self._wanted(self.site.check(model), chosen, batch)

    def _wanted(self, site: Site, chosen: Selected, batch: Batch) -> list[int]:
        """The reference's row for each token."""
        if not self._places:
            rows = self.over.rows(site)
            names = _names(rows.position, rows.patch)
            pairs = zip(rows.example.tolist(), names, strict=True)
            self._places.update({pair: i for i, pair in enumerate(pairs)})
        donors = {i: self.donor(batch.keys[i]) for i in set(chosen.sample.tolist())}
        wanted = []
        names = _names(chosen.place, chosen.patch)
        for sample, name in zip(chosen.sample.tolist(), names, strict=True):
            donor = donors[sample]
            if (donor, name) not in self._places:
                raise SiteError(
                    f"sample {donor} of the reference, drawn for sample {sample}, has no "
                    f"{_word(name)} at {site}: prompts or image grids differ. Resample at positions that "
                    "all samples have (e.g. 'last', 'image'), from samples with the same image grid"
                )
            wanted.append(self._places[donor, name])
        return wanted

    def check(self, model: VLM, batch: Batch) -> None:
        super().check(model, batch)
        if self.site.component == "vision_resid_post":
            raise SiteError(f"{self.site}: the tower's states are not resampled; edit 'projected'")
        for key in batch.keys:
            self.donor(key)

    def _what(self) -> str:
        return (
            f"resample from {self.over.n_examples} samples (seed {self.seed}, draw {self.draw}) at"
        )


def mean(
    site: str | Site,
    over: Activations,
    *,
    pooled: bool = True,
    layer: int | Sequence[int] | None = None,
    positions: Positions = "all",
    units: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Edits:
    """Put the mean over a reference set in the place of a site's value; other arguments as ``zero``.

    Args:
        site: as ``zero``.
        over: ``mechvrp.cache(model, samples, site, positions=...)`` of the reference set.
        pooled: one mean over all its samples and positions; else the mean at the same position, an
            image token by its place on the grid, other tokens counted from the end of the prompt.

    Raises:
        SiteError: the reference lacks the site, or (when the edit is made) the position.
    """
    if not isinstance(pooled, bool):
        raise InputError(f"pooled is True or False; got {pooled!r:.60}")
    return build(Mean, site, layer, positions, units, heads, over=_cached(over), pooled=pooled)


def resample(
    site: str | Site,
    over: Activations,
    *,
    seed: int = 0,
    draw: int = 0,
    layer: int | Sequence[int] | None = None,
    positions: Positions = "all",
    units: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Edits:
    """Put another sample's value in the place of a site's; other arguments as ``zero``.

    Args:
        site: as ``zero``.
        over: ``mechvrp.cache(model, samples, site, positions=...)`` of the possible donors.
        seed, draw: the donor of each sample is drawn by (seed, draw, sample): the same one at all
            sites and in whatever batch or order things run. A sample of the reference is never its
            own donor (samples encoded elsewhere can't be told apart, and may be).

    Raises:
        SiteError: the reference lacks the site, or (when the edit is made) the donor the position.
        InputError: there is no donor to choose.
    """
    more = {"over": _cached(over), **seeds(seed=seed, draw=draw)}
    return build(Resample, site, layer, positions, units, heads, **more)


def _cached(over: Any) -> Activations:
    if not isinstance(over, Activations):
        empty = isinstance(over, Sized) and not len(over)
        raise InputError(
            f"the reference must be activations, got {'an empty ' * empty}{type(over).__name__}: give "
            "mechvrp.cache(model, samples, site, positions=...) of the samples whose values are put in"
        )
    return over
