"""Interventions: a site and an edit, as small immutable objects.

The same object works in a trace (``t.apply``), and in everything built on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechvrp.errors import ShapeError, SiteError
from mechvrp.models.tokens import integers, on_image
from mechvrp.tracing.access import expected_shape
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["Intervention", "Replace", "Zero", "replace", "zero"]


@dataclass(frozen=True, eq=False)
class Intervention:
    """An edit of one site.

    Attributes:
        site: where.
        positions: as ``batch.tokens.resolve``; at ``projected``, ``"all"``, ``"image"`` and
            (row, col) patches; at ``pattern``, query positions; at ``vision_resid_post``, ``"all"``.
        units: indices of the last axis (dimensions, neurons, dimensions of a head); ``None`` for all.
        heads: indices of the head axis, for ``q``, ``k``, ``v``, ``z`` and ``pattern``.
    """

    site: Site
    positions: Positions = "all"
    units: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None

    def check(self, model: VLM, batch: Batch) -> None:
        """Raise ``SiteError`` unless layer, positions, units and heads exist in model and batch."""
        site = self.site.check(model)
        dims = dict(zip(site.kind.dims, expected_shape(model, batch, site), strict=True))
        if site.component == "vision_resid_post" and self.positions != "all":
            raise SiteError(
                f"{site} has no prompt positions; use positions='all', or edit patches at 'projected'"
            )
        if (
            site.component == "projected"
            and self.positions != "all"
            and not on_image(self.positions)
        ):
            raise SiteError(
                f"{site} holds image tokens only: positions must be 'all', 'image' or (row, col) "
                f"patches; got {self.positions!r}"
            )
        if self.units is not None and site.component == "pattern":
            raise SiteError(f"{site} takes heads and (query) positions, not units")
        if self.heads is not None and not site.kind.by_head:
            raise SiteError(f"{site} has no heads; its axes are {', '.join(site.kind.dims)}")
        for name, chosen, size in (
            ("unit", self.units, dims[site.kind.dims[-1]]),
            ("head", self.heads, dims.get("head")),
        ):
            for i in chosen or ():
                if size is not None and not 0 <= i < size:
                    raise SiteError(f"{site} has {size} {name}s, 0 to {size - 1}; got {name} {i}")
        self._rows(site, batch)

    def _rows(self, site: Site, batch: Batch) -> Bool[Tensor, ...] | None:
        """A mask over the site's positions, ``None`` where all of it is meant."""
        if site.component == "vision_resid_post":
            return None
        if site.component == "projected":
            if isinstance(self.positions, str):
                return None
            mask = torch.zeros(sum(len(t) for t in batch.tokens.images), dtype=torch.bool)
            for tokens, chosen in zip(
                batch.tokens.images, batch.tokens.resolve(self.positions), strict=True
            ):
                mask[tokens.feature[torch.isin(tokens.position, chosen)]] = True
            return mask
        return batch.tokens.mask(self.positions)

    def where(self, value: Tensor, batch: Batch) -> Bool[Tensor, ...]:
        """What the edit touches: a mask that broadcasts to the site's value."""
        kind = self.site.kind
        mask = torch.ones((1,) * value.ndim, dtype=torch.bool, device=value.device)
        if (rows := self._rows(self.site, batch)) is not None:
            rows = rows.to(value.device)
            if kind.name == "projected":
                mask = mask & rows[:, None]
            elif kind.name == "pattern":
                mask = mask & rows[:, None, :, None]
            else:
                mask = mask & rows.view(*rows.shape, *(1,) * (value.ndim - 2))
        if self.heads is not None:
            mask = mask & _axis(value, kind.dims.index("head"), self.heads)
        if self.units is not None:
            mask = mask & _axis(value, value.ndim - 1, self.units)
        return mask


@dataclass(frozen=True, eq=False)
class Zero(Intervention):
    """Set what it touches to zero."""

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        return value.masked_fill(self.where(value, batch), 0)


@dataclass(frozen=True, eq=False)
class Replace(Intervention):
    """Put other values in the place of what it touches: the patch of activation patching.

    Attributes:
        value: the site's whole value, or anything that broadcasts to it; where it is not touched it
            has no effect.
    """

    value: Float[Tensor, ...] = None  # type: ignore[assignment]

    def check(self, model: VLM, batch: Batch) -> None:
        super().check(model, batch)
        site = self.site.check(model)
        expected = expected_shape(model, batch, site)
        if None in expected:
            return
        try:
            fits = torch.broadcast_shapes(self.value.shape, expected) == torch.Size(expected)  # type: ignore[arg-type]
        except RuntimeError:
            fits = False
        if not fits:
            raise ShapeError(
                f"the value for {site} has shape {tuple(self.value.shape)}; expected {expected} "
                f"({', '.join(site.kind.dims)}), or a shape that broadcasts to it"
            )

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        return torch.where(self.where(value, batch), self.value.to(value), value)


def zero(
    site: str | Site,
    *,
    layer: int | None = None,
    positions: Positions = "all",
    units: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Zero:
    """Set a site to zero, at some positions, units or heads.

    Args:
        site: a hook name (``"blocks.2.mlp.hook_post"``), a ``Site``, or a component with ``layer``.
        positions, units, heads: as ``Intervention``; by default all.

    Raises:
        SiteError: no such site (range checks follow when it meets a model and a batch).
    """
    return Zero(
        Site.parse(site, layer), positions, _indices("units", units), _indices("heads", heads)
    )


def replace(
    site: str | Site,
    value: Float[Tensor, ...],
    *,
    layer: int | None = None,
    positions: Positions = "all",
    units: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Replace:
    """Put another run's (or any) value in the place of a site's; arguments as ``zero``."""
    if not isinstance(value, Tensor):
        raise ShapeError(f"replace takes a tensor; got {type(value).__name__}")
    return Replace(
        Site.parse(site, layer),
        positions,
        _indices("units", units),
        _indices("heads", heads),
        value,
    )


def _indices(name: str, given: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    found = integers(name, given)
    if not found:
        raise SiteError(f"{name} is empty: nothing would be edited; leave it out to edit all")
    return found


def _axis(value: Tensor, axis: int, chosen: tuple[int, ...]) -> Bool[Tensor, ...]:
    mask = torch.zeros(value.shape[axis], dtype=torch.bool, device=value.device)
    mask[list(chosen)] = True
    return mask.view(*(-1 if i == axis else 1 for i in range(value.ndim)))
