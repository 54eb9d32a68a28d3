"""``replace``: another run's values, the patch of activation patching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvrp.errors import ShapeError
from mechvrp.patching.interventions import Edits, Intervention, build, check_value, fits
from mechvrp.patching.selection import Selected
from mechvrp.tracing.access import expected_shape
from mechvrp.tracing.sites import IMAGE_KEYS, Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["Replace", "replace"]


@dataclass(frozen=True, eq=False, repr=False)
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
        if None not in expected and not fits(self.value, expected):
            raise ShapeError(
                f"the value for {site} has shape {tuple(self.value.shape)}; expected {expected} "
                f"({', '.join(site.kind.dims)}), or a shape that broadcasts to it"
            )

    def edit(self, old: Tensor, chosen: Selected, model: VLM, batch: Batch) -> Tensor:
        site, given = self.site.check(model), self.value.to(old)
        if given.ndim < len(site.kind.dims) and site.component != "vision_resid_post":
            given = given[(None,) * (len(site.kind.dims) - given.ndim)]
        if site.kind.dims[:2] == ("batch", "pos"):
            return _at(given, chosen.sample, chosen.position).expand(old.shape)
        if site.component == "pattern":
            return _at(given.transpose(1, 2), chosen.sample, chosen.position).expand(old.shape)
        if site.component == "projected":
            return given.expand(*_longest(given, chosen), *given.shape[1:])[chosen.index]
        if site.component in IMAGE_KEYS:
            keys = (int(chosen.sample.max()) + 1, int(chosen.place.max()) + 1)
            try:
                return given.expand(*keys, *old.shape[1:]).flatten(0, 1)
            except RuntimeError as error:
                expected = (*keys, *old.shape[1:])
                raise ShapeError(
                    f"the value for {site} has shape {tuple(self.value.shape)}; expected {expected} "
                    f"({', '.join(site.kind.dims)}), or a shape that broadcasts to it"
                ) from error
        whole = given.flatten(0, -2) if given.ndim > 1 else given.expand(old.shape)
        if len(whole) == 1:
            whole = whole.expand(old.shape)
        if len(whole) != len(old):
            raise ShapeError(
                f"the value for {site} has {len(whole)} tokens, the tower {len(old)}; give all of them "
                "or one that stands for all"
            )
        return whole


def replace(
    site: str | Site,
    value: Float[Tensor, ...],
    *,
    layer: int | Sequence[int] | None = None,
    positions: Positions = "all",
    units: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Edits:
    """Put another run's (or any) value in the place of a site's; arguments as ``zero``."""
    check_value("replace", value)
    return build(Replace, site, layer, positions, units, heads, value=value)


def _at(value: Tensor, sample: Tensor, position: Tensor) -> Tensor:
    """``value[sample, position]`` where either axis may be of length 1 and stands for all."""
    first = sample if value.shape[0] > 1 else torch.zeros_like(sample)
    second = position if value.shape[1] > 1 else torch.zeros_like(position)
    return value[first.to(value.device), second.to(value.device)]


def _longest(value: Tensor, chosen: Selected) -> tuple[int]:
    return (len(value) if len(value) > 1 else int(chosen.index.max()) + 1,)
