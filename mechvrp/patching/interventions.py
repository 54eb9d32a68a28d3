"""Interventions: a site and an edit, as small immutable objects.

The same object works in a trace (``t.apply``), in a sweep and in a study. All but ``knockout`` edit each
token by itself. The simplest are here: ``zero``, ``scale`` and ``steer``; ``replace`` is in
``replacing``, ``mean`` and ``resample`` are in ``references``, ``noise`` in ``gaussian``, ``knockout``
in ``attention_edges``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechvrp.errors import InputError, NumericalError, ShapeError, SiteError
from mechvrp.models.tokens import integers, on_image
from mechvrp.patching.selection import Selected, flat, select, unflat
from mechvrp.tracing.access import expected_shape
from mechvrp.tracing.sites import ALL_COMPONENTS, IMAGE_KEYS, Site

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = [
    "Edits",
    "Intervention",
    "Scale",
    "Steer",
    "Zero",
    "build",
    "check_value",
    "fits",
    "flatten",
    "indices",
    "real",
    "scale",
    "seeds",
    "steer",
    "zero",
]


@dataclass(frozen=True, eq=False)
class Intervention(ABC):
    """An edit of one site.

    Attributes:
        site: where.
        positions: as ``batch.tokens.resolve``; at ``projected``, ``"all"``, ``"image"`` and
            (row, col) patches; at ``pattern``, query positions; at ``vision_resid_post``, ``image_k`` and
            ``image_v``, ``"all"``.
        units: indices of the last axis (dimensions, neurons, dimensions of a head); ``None`` for all.
        heads: indices of the head axis, for ``q``, ``k``, ``v``, ``z``, ``image_k``, ``image_v``, ``pattern``.
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
        if site.component in IMAGE_KEYS and self.positions != "all":
            raise SiteError(
                f"{site} has keys of the image and no prompt positions: use positions='all', or change some "
                f"keys in a trace, t.{site.component}[{site.layer}][:, keys] = ..."
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
            if any(i < 0 for i in chosen or ()):
                raise SiteError(
                    f"{site}: {name}s are counted from 0; got {name} {min(chosen or ())}"
                )
        if site.component == "vision_resid_post" or site.component in IMAGE_KEYS:
            return
        resolved = batch.tokens.resolve(self.positions)
        if site.component == "embed" and all(
            bool(torch.isin(here, tokens.position).all())
            for here, tokens in zip(resolved, batch.tokens.images, strict=True)
        ):
            raise SiteError(
                f"{site} is overwritten by image features at positions {self.positions!r}: nothing would "
                "change. Edit 'projected', or 'resid_pre' of layer 0"
            )

    @abstractmethod
    def edit(
        self, old: Float[Tensor, "token ..."], chosen: Selected, model: VLM, batch: Batch
    ) -> Tensor:
        """New values of the chosen tokens; what ``units`` and ``heads`` leave out is put back."""

    def require(self, chosen: Selected, model: VLM, batch: Batch) -> None:  # noqa: B027 (most need nothing)
        """Raise if the edit of these tokens cannot be made, without making it."""

    def tokens(
        self, old: Float[Tensor, "token ..."], chosen: Selected, model: VLM, batch: Batch
    ) -> Float[Tensor, "token ..."]:
        """The chosen tokens after the edit."""
        new = self.edit(old, chosen, model, batch).to(old)
        return torch.where(self._inside(old), new, old)

    def __call__(self, value: Tensor, model: VLM, batch: Batch) -> Tensor:
        """The edited value of the whole site (out of place)."""
        site = self.site.check(model)
        chosen = select(site, self.positions, value, model, batch)
        tokens = flat(site, value)
        new = self.tokens(tokens[chosen.index], chosen, model, batch)
        return unflat(site, tokens.index_put((chosen.index,), new), value)

    def _inside(self, tokens: Tensor) -> Bool[Tensor, ...]:
        """What of each token is edited: a mask that broadcasts to ``[token, ...]``."""
        mask = torch.ones((1,) * tokens.ndim, dtype=torch.bool, device=tokens.device)
        if self.heads is not None:
            mask = mask & _axis(tokens, 1, self.heads)
        if self.units is not None:
            mask = mask & _axis(tokens, tokens.ndim - 1, self.units)
        return mask

    def describe(self) -> str:
        """One line: what is done, where."""
        where = [str(self.site), f"positions {_short(self.positions)}"]
        for name in ("heads", "units"):
            chosen = getattr(self, name)
            if chosen is not None:
                where.append(f"{name} {_short(list(chosen))}")
        return f"{self._what()} {', '.join(where)}"

    def _what(self) -> str:
        return type(self).__name__.lower()

    def __repr__(self) -> str:
        return f"<{self.describe()}>"


#: One intervention, or several in order.
Edits: TypeAlias = Intervention | Sequence["Edits"]


@dataclass(frozen=True, eq=False, repr=False)
class Zero(Intervention):
    """Set what it touches to zero."""

    def edit(self, old: Tensor, chosen: Selected, model: VLM, batch: Batch) -> Tensor:
        return torch.zeros_like(old)


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Intervention):
    """Multiply what it touches by ``factor``."""

    factor: float = 1.0

    def edit(self, old: Tensor, chosen: Selected, model: VLM, batch: Batch) -> Tensor:
        return old * self.factor

    def _what(self) -> str:
        return f"scale by {self.factor:g}"


@dataclass(frozen=True, eq=False, repr=False)
class Steer(Intervention):
    """Add ``alpha`` times ``direction``, which broadcasts to a token's value."""

    direction: Float[Tensor, ...] = None  # type: ignore[assignment]
    alpha: float = 1.0

    def check(self, model: VLM, batch: Batch) -> None:
        super().check(model, batch)
        site = self.site.check(model)
        dims = expected_shape(model, batch, site)
        rows = site.kind.dims[:2] in (("batch", "pos"), ("batch", "image_key"))
        token = dims[2:] if rows else dims[1:]
        if site.component == "pattern":
            raise SiteError(f"{site} holds weights that sum to 1: it cannot be steered")
        if None not in token and not fits(self.direction, token):
            raise ShapeError(
                f"the direction for {site} has shape {tuple(self.direction.shape)}; expected "
                f"{token}, a token's value there, or a shape that broadcasts to it"
            )

    def edit(self, old: Tensor, chosen: Selected, model: VLM, batch: Batch) -> Tensor:
        return old + self.alpha * self.direction.to(old)

    def _what(self) -> str:
        return f"steer by {self.alpha:g} along a direction of norm {float(self.direction.norm()):.3g} at"


def zero(
    site: str | Site,
    *,
    layer: int | Sequence[int] | None = None,
    positions: Positions = "all",
    units: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Edits:
    """Set a site to zero, at some positions, units or heads.

    Args:
        site: a hook name (``"blocks.2.mlp.hook_post"``), a ``Site``, or a component with ``layer``.
        layer: a layer, or several (a list, a range), which gives a tuple of interventions.
        positions, units, heads: as ``Intervention``; by default all.

    Raises:
        SiteError: no such site (range checks follow when it meets a model and a batch).
    """
    return build(Zero, site, layer, positions, units, heads)


def scale(
    site: str | Site,
    factor: float,
    *,
    layer: int | Sequence[int] | None = None,
    positions: Positions = "all",
    units: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Edits:
    """Multiply a site by ``factor``; arguments as ``zero``."""
    factor = real("a factor", factor)
    return build(Scale, site, layer, positions, units, heads, factor=factor)


def steer(
    site: str | Site,
    direction: Float[Tensor, ...],
    alpha: float = 1.0,
    *,
    layer: int | Sequence[int] | None = None,
    positions: Positions = "all",
    units: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Edits:
    """Add ``alpha`` times a direction to a site; other arguments as ``zero``.

    Args:
        site: as ``zero``.
        direction: [d_model] at a residual site, [d_mlp] at neurons, [head, d_head] or [d_head] at
            heads. Not normalised: a unit vector makes ``alpha`` a length.
        alpha: how much of it.
    """
    check_value("steer", direction)
    more = {"direction": direction, "alpha": real("alpha", alpha)}
    return build(Steer, site, layer, positions, units, heads, **more)


def real(name: str, given: Any) -> float:
    """A finite number.

    Raises:
        InputError: no number at all.
        NumericalError: NaN, infinite, or too large.
    """
    if isinstance(given, Tensor | np.ndarray | np.generic) and math.prod(given.shape) == 1:
        given = given.item()
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise InputError(f"{name} must be a number; got {given!r:.60} ({type(given).__name__})")
    try:
        found = float(given)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise NumericalError(f"{name} must be finite; got {given!r:.60}")
    return found


def seeds(**given: Any) -> dict[str, int]:
    """``seed`` and ``draw`` as whole numbers from 0 (raises ``InputError``)."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise InputError(f"{name} must be a whole number from 0; got {value!r:.60}")
    return {name: int(value) for name, value in given.items()}


def check_value(what: str, value: Any) -> None:
    """Raise unless ``value`` is a tensor of finite real numbers that can be put into a run."""
    if not isinstance(value, Tensor):
        raise ShapeError(f"{what} takes a tensor; got {type(value).__name__}")
    if value.layout != torch.strided or value.is_meta or value.is_complex():
        raise ShapeError(
            f"{what} takes a plain tensor of real numbers; got {value.dtype}, {value.layout}, on "
            f"{value.device}"
        )
    if not bool(torch.isfinite(value).all()):
        raise NumericalError(f"{what} takes finite numbers; the tensor holds NaN or infinity")


def build(
    make: Callable[..., Intervention],
    site: str | Site,
    layer: int | Sequence[int] | None,
    positions: Positions,
    units: int | Sequence[int] | None,
    heads: int | Sequence[int] | None,
    **more: Any,
) -> Edits:
    """One intervention, or a tuple of them where ``layer`` names several layers."""
    if isinstance(layer, Iterable):
        if not isinstance(site, str) or site not in ALL_COMPONENTS:
            raise SiteError(f"several layers need a component's name, e.g. 'neurons'; got {site!r}")
        layers = integers("layers", layer)
        if not layers or len(set(layers)) != len(layers):
            raise SiteError(f"layers must be different and at least one; got {list(layers)}")
        return tuple(build(make, site, one, positions, units, heads, **more) for one in layers)
    return make(
        Site.parse(site, layer),
        positions,
        indices("units", units),
        indices("heads", heads),
        **more,
    )


def indices(name: str, given: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """Indices of an axis, ``None`` for all of it."""
    if given is None:
        return None
    found = integers(name, given)
    if not found:
        raise SiteError(f"{name} is empty: nothing would be edited; leave it out to edit all")
    return found


def flatten(edits: Edits) -> tuple[Intervention, ...]:
    """Interventions out of nested tuples and lists, in order.

    Raises:
        InputError: something else is among them.
    """
    if isinstance(edits, (tuple, list)):
        return tuple(one for part in edits for one in flatten(part))
    if not hasattr(edits, "site") or not callable(edits):
        raise InputError(f"expected interventions such as mechvrp.zero(...); got {edits!r}")
    return (edits,)


def _axis(tokens: Tensor, axis: int, chosen: tuple[int, ...]) -> Bool[Tensor, ...]:
    if max(chosen) >= tokens.shape[axis]:
        raise SiteError(f"the axis has {tokens.shape[axis]} entries; got index {max(chosen)}")
    mask = torch.zeros(tokens.shape[axis], dtype=torch.bool, device=tokens.device)
    mask[list(chosen)] = True
    return mask.view(*(-1 if i == axis else 1 for i in range(tokens.ndim)))


def fits(value: Tensor, expected: Sequence[int | None]) -> bool:
    """Whether ``value`` broadcasts to exactly that shape."""
    try:
        return torch.broadcast_shapes(value.shape, expected) == torch.Size(expected)  # type: ignore[arg-type]
    except RuntimeError:
        return False


def _short(given: Any) -> str:
    text = f"{given!r}" if isinstance(given, str) else str(given)
    return text if len(text) <= 40 else f"{text[:24]}... ({len(given)} of them)"
