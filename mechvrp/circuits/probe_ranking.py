"""Rank the units of a site by the weight a probe gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from mechvrp.circuits.logistic import FittedProbe
from mechvrp.circuits.ranking import Ranking
from mechvrp.errors import SiteError
from mechvrp.models import fingerprint
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["rank_by_probe_weight"]


def rank_by_probe_weight(
    probe: FittedProbe,
    site: str,
    *,
    model: VLM | None = None,
    images: Iterable[str] | None = None,
) -> Ranking:
    """Rank a site's units by the absolute weight on the standardised unit; signs are kept.

    The weight on the *standardised* unit is log-odds per standard deviation, so a unit does not
    rank high for being quiet and low for being loud. With correlated units L2 spreads weight among
    them: the ranking says what this probe reads, not what is necessary.

    Args:
        probe: the probe fitted at ``site``.
        site: hook name of the site its features came from, ``"blocks.<layer>.hook_resid_post"``.
        model: whose activations they were: the ranking then refuses another model.
        images: ids of the images it was fitted on, beside those that it knows of itself: the ranking
            refuses to be evaluated on them. A probe that knows none (it was fitted without ``groups``)
            must come with them; ``()`` for one that was not fitted on images.

    Raises:
        InputError: images that are unknown, or not several texts.
        SiteError: ``site`` is not the hook name of a place in a block.
        NumericalError: the probe's weights are not finite.
    """
    at = Site.parse(site)
    if at.kind.where != "block":
        raise SiteError(
            f"{site} does not lie in a block; expected a site like 'blocks.2.hook_resid_post'"
        )
    known = probe.known_images("images", images)
    return Ranking(
        (str(at),),
        np.asarray(probe.coef, dtype=np.float64).copy(),
        method=f"probe weight (L2, C = {probe.c:g})",
        model="" if model is None else model.name,
        fingerprint="" if model is None else fingerprint(model),
        images=known,
        settings={"c": probe.c},
    )
