"""The last block's attention for the last position alone: one query, over the keys of all.

Behind that attention only the last position's logits are wanted, so of the others it needs keys and values
and no more. What the others' queries would have attended to is filled with the last one's; nobody reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechvrp.tracing import access
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Step

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["LastAttended", "LastQuery"]


@dataclass(frozen=True, eq=False)
class LastQuery(Step):
    """Only the last position is projected onto a query, at a site ``q``."""

    site: Site

    def step(self, model: VLM) -> None:
        project = access.module_of(model, self.site)
        given = project.input
        project.input = given[:, -1:]
        project.output = project.output.expand(-1, given.shape[1], -1)


@dataclass(frozen=True, eq=False)
class LastAttended(Step):
    """Only the last query attends, at a site ``pattern``; masks are of SDPA or eager attention."""

    site: Site

    def step(self, model: VLM) -> None:
        operation = access.attention_of(model, self.site)
        (module, query, key, value, mask, *more), options = operation.inputs
        last = None if mask is None else mask[..., -1:, :]
        operation.inputs = ((module, query[:, :, -1:], key, value, last, *more), options)
        mixed, weights = operation.output  # [row, query, head, d_head]
        operation.output = (mixed.expand(-1, query.shape[2], -1, -1), weights)
