"""Many sets of nodes run on pairs, and what share of a measure they keep."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvrp.circuits.node_edits import Ablated, node_edits, node_sites
from mechvrp.circuits.nodes import CircuitNode
from mechvrp.circuits.pairs import Pairs
from mechvrp.circuits.stand_ins import CircuitMode, StandIns
from mechvrp.errors import InputError, NumericalError
from mechvrp.patching.measures import one_measure
from mechvrp.patching.sweeping import MEMORY, sweep

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["CircuitRuns", "shares"]

_Nodes = Collection[CircuitNode]


class CircuitRuns:
    """Runs sets of nodes on the clean side of pairs, all else (or the nodes) ablated; exact, by sweeps.

    Args:
        model: from ``mechvrp.load``.
        pairs: of this model.
        mode: what stands in the place of what is ablated; ``"counterfactual"``: the pair's other side.
        reference: for ``"mean"``.
        measure: a name or function of logits, as ``mechvrp.sweep``.
        pooled: of means, as `Circuit.edits`.

    Raises:
        InputError: pairs of another model, an unusable measure, or mode and reference that do not fit.
    """

    def __init__(
        self,
        model: VLM,
        pairs: Pairs,
        *,
        mode: CircuitMode = "counterfactual",
        reference: Any = None,
        measure: Any = "logit_diff",
        pooled: bool = False,
        memory: int = MEMORY,
        progress: bool = False,
    ) -> None:
        check_pairs(model, pairs)
        self.name, chosen = one_measure(measure, "a circuit", of_logits=True)
        self.measure = {self.name: chosen}
        self.model, self.pairs, self.mode = model, pairs, mode
        self._options: dict[str, Any] = {"memory": memory, "progress": progress}
        if mode == "counterfactual":
            if reference is not None:
                raise InputError(
                    "the counterfactual side of the pairs is the reference; give none besides"
                )
            self._stand_ins = [
                StandIns(model, part.clean, mode, part.counterfactual) for part in pairs
            ]
        else:
            first = StandIns(model, pairs.parts[0].clean, mode, reference, pooled)
            self._stand_ins = [first.beside(part.clean) for part in pairs]
        self.need(())
        self._full: np.ndarray | None = None

    def need(self, nodes: _Nodes) -> None:
        """Have means at hand for sets of these nodes, so that a reference that lacks them is refused now.

        Raises:
            InputError: the reference does not hold what ablations beside these nodes put in.
        """
        if self.mode == "mean":  # one object for all parts
            self._stand_ins[0].need(node_sites(self.model, nodes))

    @property
    def full(self) -> np.ndarray:
        """The measure of the whole model, ``[example]``."""
        if self._full is None:
            self.run([])
        assert self._full is not None
        return self._full

    def run(
        self, sets: Sequence[_Nodes], ablate: Ablated | Sequence[Ablated] = "rest"
    ) -> np.ndarray:
        """The measure under each set of nodes, ``[set, example]``.

        Raises:
            NumericalError: NaN or infinite logits.
        """
        which = [ablate] * len(sets) if isinstance(ablate, str) else list(ablate)
        found, full = [], []
        for part, stand_ins in zip(self.pairs, self._stand_ins, strict=True):
            variants = [
                node_edits(stand_ins, nodes, how) for nodes, how in zip(sets, which, strict=True)
            ]
            ran = sweep(
                self.model,
                part.clean,
                variants or [()],
                self.measure,
                target=list(part.target),
                foil=list(part.foil),
                **self._options,
            )
            failed = [error for error in ran["error"].values.tolist() if error]
            if failed:
                raise NumericalError(f"{len(failed)} of {len(sets)} circuits failed: {failed[0]}")
            found.append(ran[self.name].values[: len(sets)].astype(np.float64))
            full.append(ran[f"base_{self.name}"].values.astype(np.float64))
        self._full = np.concatenate(full)
        return np.concatenate(found, axis=-1)

    def shares(self, sets: Sequence[_Nodes], ablate: Ablated = "rest") -> np.ndarray:
        """Faithfulness of each set, ``[set]``: `shares` of the means over pairs."""
        values = self.run([*sets, ()], ablate=[*[ablate] * len(sets), "rest"])
        total = self.full.mean() - values[-1].mean()
        if total == 0:
            raise InputError(
                f"{self.name} is the same with everything ablated ({self.mode}) as in the whole model: "
                "there is nothing for a circuit to explain in these pairs"
            )
        return np.asarray((values[:-1].mean(-1) - values[-1].mean()) / total)


def shares(
    values: np.ndarray, full: np.ndarray, empty: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The share of what all nodes do that some keep: (m - m(none)) / (m(all) - m(none)).

    Of weighted means over pairs, not a mean of shares: single pairs' differences may be near 0.

    Args:
        values: ``[example, set]``.
        full, empty: ``[example]``.
        weights: ``[resample, example]``.

    Returns:
        ``[resample, set]``.
    """
    total = weights @ (full - empty)
    return np.asarray((weights @ (values - empty[:, None])) / total[:, None])


def check_pairs(model: VLM, pairs: Any) -> None:
    """Raise ``InputError`` unless these are pairs of this model."""
    if not isinstance(pairs, Pairs):
        raise InputError(
            "a circuit is found and proven on pairs from mechvrp.circuits.counterfactual_pairs(model, "
            f"samples); got {type(pairs).__name__}"
        )
    if pairs.model != model.name:
        raise InputError(
            f"the pairs were encoded for {pairs.model}, and this is {model.name}: encode them with it"
        )
