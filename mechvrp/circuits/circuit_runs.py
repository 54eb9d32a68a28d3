"""Many sets of nodes run on pairs, and what share of a measure they keep."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvrp.circuits.node_edits import Ablated, node_edits, node_sites
from mechvrp.circuits.nodes import CircuitNode
from mechvrp.circuits.pairs import Pairs
from mechvrp.circuits.setting_checks import check_weights
from mechvrp.circuits.stand_ins import CircuitMode, StandIns
from mechvrp.errors import InputError, NumericalError
from mechvrp.patching.measures import one_measure
from mechvrp.patching.sweeping import MEMORY, sweep
from mechvrp.statistics import Estimate, group_bootstrap_all

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
        InputError: pairs of another model or of one image, an unusable measure, or mode and reference
            that do not fit.
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
        if pairs.n_groups < 2:
            raise InputError(
                "circuits are judged by resampling images, and these pairs are of one (or of several that "
                "are linked: the sides of a pair, pairs that share an image): give pairs of at least two images"
            )
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
        self._known: dict[tuple[Ablated, frozenset[CircuitNode]], np.ndarray] = {}
        self._total: Estimate | None = None

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

        A set is run once: what comes again, in this call or a later one, has the very same values.

        Raises:
            NumericalError: NaN or infinite logits.
        """
        which = [ablate] * len(sets) if isinstance(ablate, str) else list(ablate)
        keys = [(how, frozenset(nodes)) for how, nodes in zip(which, sets, strict=True)]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new or self._full is None:
            values = self._run([nodes for _, nodes in new], [how for how, _ in new])
            self._known.update(zip(new, values, strict=True))
        return (
            np.stack([self._known[key] for key in keys]) if keys else np.empty((0, len(self.pairs)))
        )

    def _run(self, sets: Sequence[_Nodes], which: Sequence[Ablated]) -> np.ndarray:
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
        if self._full is None:
            self._full = np.concatenate(full)
        return np.concatenate(found, axis=-1)

    @property
    def empty(self) -> np.ndarray:
        """The measure with all heads and MLPs ablated, ``[example]``."""
        return self.run([()])[0]

    def total(self, *, n_resamples: int = 2000, seed: int = 0) -> Estimate:
        """What there is to share out: the mean of ``full - empty``, with an interval over images.

        Raises:
            InputError: it is not told from 0, or negative.
        """

        def mean(values: np.ndarray, *, weights: np.ndarray) -> dict[str, np.ndarray]:
            return {"total": weights @ values / weights.sum(-1)}

        found = group_bootstrap_all(
            mean, self.full - self.empty, groups=list(self.pairs.groups), n_resamples=n_resamples,
            seed=seed,
        )["total"]  # fmt: skip
        if found.high < 0:
            raise InputError(
                f"ablating everything ({self.mode}) raises {self.name}, by {-found.value:.3g} on average: "
                "what a circuit explains is what the model does for the answer. Are targets and foils "
                "swapped?"
            )
        if found.low <= 0:
            raise InputError(
                f"ablating everything ({self.mode}) changes {self.name} by {found}: not told from 0, so "
                "there is no share of it. Give more pairs, or pairs whose answers differ more"
            )
        return found

    def shares(self, sets: Sequence[_Nodes], ablate: Ablated = "rest") -> np.ndarray:
        """Faithfulness of each set, ``[set]``: `shares` of the means over pairs.

        Raises:
            InputError: as `total`.
        """
        values = self.run(sets, ablate)
        if self._total is None:
            self._total = self.total()
        return np.asarray((values.mean(-1) - self.empty.mean()) / self._total.value)


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
    check_weights(
        model,
        pairs.fingerprint,
        f"the pairs were encoded and answered by {pairs.model}",
        "encode them with this model",
    )
