"""``Planted``: a model whose answer is known to depend on chosen neurons, and which these are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mechvrp.circuits.ranking import Ranking
from mechvrp.errors import InputError, ShapeError

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["Planted"]


@dataclass(frozen=True, eq=False)
class Planted:
    """A model with a planted circuit, and the truth about it. Made by `plant_circuit`.

    Attributes:
        model: answers ``positive`` or ``negative`` to whatever is asked, by what ``neurons`` say.
        layer: of the neurons.
        site: their hook name, ``"blocks.<layer>.mlp.hook_post"``.
        neurons: those that carry the decision, ascending: rows of a `Ranking` of ``site``.
        signs: ``[neuron]``, +1 where an activation above 0 speaks for ``positive``, -1 against it.
        decoys: loud neurons that carry nothing, ascending.
        dimension: of the residual stream, in which the decision travels from the neurons to the answer.
        positive, negative: the answers.
        tokens: ids of the tokens that give them.
        noise: how much the layer's other neurons write there, beside the planted ones (1: as much).
        agreement: share of the images' samples that it was made with on which it answers as the model it
            was made from.
        images: ids of those images.
        seed: of all that is drawn.
    """

    model: VLM
    layer: int
    site: str
    neurons: tuple[int, ...]
    signs: np.ndarray
    decoys: tuple[int, ...]
    dimension: int
    positive: str
    negative: str
    tokens: tuple[int, int]
    noise: float
    agreement: float
    images: frozenset[str]
    seed: int

    @property
    def direction(self) -> np.ndarray:
        """``[d_model]``, the unit vector along ``dimension``."""
        found = np.zeros(self.model.d_model)
        found[self.dimension] = 1.0
        return found

    @property
    def others(self) -> tuple[int, ...]:
        """The layer's neurons that are neither planted nor decoys."""
        taken = {*self.neurons, *self.decoys}
        return tuple(i for i in range(self.model.d_mlp) if i not in taken)

    def precision_at(self, ranking: Ranking, k: int | None = None) -> float:
        """Share of a ranking's top ``k`` that is planted; by default ``k`` is how many are.

        A ranking of several sites is taken as it is: units of other layers are not planted.

        Raises:
            InputError: a ranking of other units than this site's, or ``k`` of 0.
            ShapeError: of another number of units.
        """
        if self.site not in ranking.sites:
            raise InputError(
                f"the neurons are planted at {self.site}; the ranking is of {', '.join(ranking.sites)}"
            )
        if ranking.width != self.model.d_mlp:
            raise ShapeError(
                f"the ranking has {ranking.width} units a site, {self.site} {self.model.d_mlp}"
            )
        k = len(self.neurons) if k is None else k
        if k < 1:
            raise InputError(f"k={k}; the precision of no units is not defined: give 1 or more")
        start = ranking.sites.index(self.site) * ranking.width
        return float(np.isin(ranking.top(k), start + np.array(self.neurons)).mean())

    def __repr__(self) -> str:
        decoys = f", {len(self.decoys)} decoys" if self.decoys else ""
        noise = f", noise {self.noise:g}" if self.noise else ""
        return f"Planted({len(self.neurons)} neurons of {self.site} in {self.model.name!r}{decoys}{noise})"
