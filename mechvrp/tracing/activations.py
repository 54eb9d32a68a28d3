"""``Activations``: cached values of sites, labelled by example and position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvrp.errors import ShapeError, SiteError
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    import xarray
    from transformer_lens import ActivationCache

    from mechvrp.models import VLM

__all__ = ["Activations", "Rows"]


@dataclass(frozen=True)
class Rows:
    """Which example and position each cached row belongs to.

    Attributes:
        example: index of the sample among those given to ``cache``, [row].
        position: counted from the end of its prompt (-1 is the last prompt token), [row], so that it
            does not depend on padding.
        row, col: the image token's place on its grid, -1 elsewhere, [row].
        patch: its image, row and column and its grid's rows and columns, -1 elsewhere, [row, 5].
        counts: rows of each example, [example].
    """

    example: Int[Tensor, " row"]
    position: Int[Tensor, " row"]
    row: Int[Tensor, " row"]
    col: Int[Tensor, " row"]
    patch: Int[Tensor, "row 5"]
    counts: Int[Tensor, " example"]

    @property
    def rectangular(self) -> bool:
        """Whether every example has the same number of rows."""
        return bool((self.counts == self.counts[0]).all())


class Activations(Mapping[str, Tensor]):
    """Cached activations, by hook name. Made by ``mechvrp.cache``.

    ``acts["blocks.3.hook_resid_post"]`` is [example, position, ...] in the order of the samples (for
    ``positions="last"`` without the position axis: [example, ...]); where examples have different
    numbers of positions it raises, and ``acts.flat(name)`` with ``acts.rows`` gives all rows.
    """

    def __init__(
        self,
        values: dict[Site, Tensor],
        rows: dict[str, Rows],
        positions: Any,
        info: Mapping[str, str],
        sample_keys: tuple[str, ...] | None = None,
    ) -> None:
        self._values = values
        self.info = dict(info)
        #: What tells the samples apart (``Batch.keys``); ``None`` where they were encoded elsewhere.
        self.sample_keys = sample_keys
        self._rows = rows
        self.positions = positions

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(self._values)

    def __iter__(self) -> Any:
        return (str(site) for site in self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def n_examples(self) -> int:
        return len(next(iter(self._rows.values())).counts)

    @property
    def nbytes(self) -> int:
        """Memory held by the values."""
        return sum(v.nbytes for v in self._values.values())

    def _find(self, name: str | Site) -> Site:
        site = Site.parse(name)
        if site.layer is not None and site.layer < 0:
            layers = [s.layer for s in self._values if s.component == site.component]
            raise SiteError(f"{site}: cached layers count from 0; this cache has {layers}")
        if site not in self._values:
            raise SiteError(f"{site} was not cached; cached: {', '.join(self)}")
        return site

    def rows(self, name: str | Site) -> Rows:
        """Which example and position each row of ``flat(name)`` is."""
        return self._rows[_kind(self._find(name))]

    def flat(self, name: str | Site) -> Float[Tensor, "row ..."]:
        """All cached rows of a site, examples in order."""
        return self._values[self._find(name)]

    def __getitem__(self, name: str | Site) -> Float[Tensor, "example ..."]:
        site = self._find(name)
        value, rows = self._values[site], self.rows(site)
        if not rows.rectangular:
            raise ShapeError(
                f"examples have different numbers of positions at {site} "
                f"({int(rows.counts.min())} to {int(rows.counts.max())}), so they form no "
                "rectangle; use flat(name) with rows(name), or to_xarray()"
            )
        if self.positions == "last":
            return value
        return value.unflatten(0, (len(rows.counts), int(rows.counts[0])))

    def stack(self, component: str) -> Float[Tensor, "layer example ..."]:
        """All cached layers of a component, e.g. ``"resid_post"``, in order."""
        found = [site for site in self._values if site.component == component]
        if not found:
            raise SiteError(f"no layer of {component!r} was cached; cached: {', '.join(self)}")
        return torch.stack([self[site] for site in found])

    def to_xarray(self) -> xarray.Dataset:
        """One variable per site, [example, position, ...], NaN where an example has no such row.

        Positions carry coordinates ``token_position`` (from the end of the prompt, 0 where absent),
        ``token_row`` and ``token_col`` (-1 off the image). Of ``pattern``, keys that are padding in
        every query's prompt are zero, as the model has them.
        """
        from mechvrp.tracing.convert import to_xarray

        return to_xarray(self)

    def to_transformer_lens(self, model: VLM) -> ActivationCache:
        """A TransformerLens ``ActivationCache`` with its hook names.

        Its ``model`` is a stand-in with the sizes and the weights that ``accumulated_resid``,
        ``decompose_resid``, ``apply_ln_to_stack`` and ``logit_attrs`` need. Examples shorter than the
        longest are padded with zeros on the left. ``hook_embed`` is the token embedding, as in
        TransformerLens's own bridge; where ``embed`` and ``resid_pre`` of block 0 are both cached,
        ``hook_pos_embed`` holds what image features put in its place, so that decompositions sum.
        ``logit_attrs`` are of the logits before a soft cap (PaliGemma 2).
        """
        from mechvrp.tracing.convert import to_transformer_lens

        return to_transformer_lens(self, model)

    def __repr__(self) -> str:
        return (
            f"Activations({self.n_examples} examples, positions={self.positions!r}, "
            f"{len(self)} sites, {self.nbytes / 2**20:.1f} MiB)"
        )


def _kind(site: Site) -> str:
    """Sites of one kind share their rows: prompt positions, image tokens, or patches of the tower."""
    return {"projected": "projected", "vision_resid_post": "vision"}.get(site.component, "prompt")
