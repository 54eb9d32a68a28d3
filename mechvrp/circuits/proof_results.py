"""What the proof of a circuit returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from mechvrp.circuits.nodes import CircuitNode
from mechvrp.statistics import Estimate, benjamini_hochberg

if TYPE_CHECKING:
    from mechvrp.circuits.circuit import Circuit

__all__ = ["AgainstRandom", "CircuitProof", "NodeRemoval"]


@dataclass(frozen=True)
class AgainstRandom:
    """A share of the circuit beside that of random circuits.

    Attributes:
        size: nodes of either.
        circuit: the circuit's share; the interval resamples images.
        random: mean share of the random circuits, likewise.
        random_range: smallest and largest random circuit's share.
        lead: the circuit's share minus the random circuits' mean, paired over images.
        p: rank of the circuit among the random ones, itself counted:
            ``(1 + #{random at least as good}) / (draws + 1)``. Good is near to 1 (of completeness, near
            to 0), from either side.
    """

    size: int
    circuit: Estimate
    random: Estimate
    random_range: tuple[float, float]
    lead: Estimate
    p: float


@dataclass(frozen=True)
class NodeRemoval:
    """What taking one node out of the circuit does.

    Attributes:
        node: taken out.
        drop: the circuit's faithfulness minus that without the node; the interval resamples images.
        random: mean of the same of single nodes of random circuits: only of nodes that could stand in its
            place, of its component and, unless these were free, its positions (neurons and dimensions: of its
            layer too). The interval resamples images; the random circuits are given.
        random_range: smallest and largest of these.
        lead: ``drop`` minus ``random``, paired over images.
        p: rank of the drop among them, one-sided, itself counted.
        among: how many those are; p is at least ``1 / (1 + among)``.
    """

    node: CircuitNode
    drop: Estimate
    random: Estimate
    random_range: tuple[float, float]
    lead: Estimate
    p: float
    among: int


@dataclass(frozen=True, eq=False)
class CircuitProof:
    """How much of the model's behaviour on some pairs a circuit explains. Made by `prove_circuit`.

    Shares are of the measure's mean difference between the whole model and the model with all heads and
    MLPs ablated.

    Attributes:
        circuit: what was proven.
        total: that difference, in units of the measure.
        faithfulness: the share that the circuit alone keeps. 1 is the model itself; above 1, the
            circuit leaves out what works against it.
        completeness: the share that the model keeps without the circuit; 0 where the circuit is all
            there is.
        minimality: each node's removal, largest drop first; empty of a circuit of one node.
        curve: faithfulness of the first nodes of an order, by size; empty where no order was given.
        completeness_curve: likewise the share that the model keeps without these nodes.
        model, measure, mode, match: of the model's name, the measure, the ablation and the random circuits.
        draws: random circuits behind ``faithfulness`` and ``completeness``.
        curve_draws: random circuits of each size of ``curve`` and ``completeness_curve``.
        removals: single-node removals of random circuits, all told (``NodeRemoval.among``: behind one p).
        possible: how many random circuits there are; at most so many where a circuit has heads or MLPs
            both at all positions and at groups of them.
        seen: images of these that the circuit or the order of the curve was found on; the proof is
            in-sample as far as these go.
        n, n_groups: pairs and images.
        seed, n_resamples: of the draws and of the intervals.
    """

    circuit: Circuit
    total: Estimate
    faithfulness: AgainstRandom
    completeness: AgainstRandom
    minimality: tuple[NodeRemoval, ...]
    curve: tuple[AgainstRandom, ...]
    model: str
    measure: str
    mode: str
    match: str
    draws: int
    curve_draws: int
    removals: int
    possible: int
    seen: int
    n: int
    n_groups: int
    seed: int
    n_resamples: int
    completeness_curve: tuple[AgainstRandom, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row per figure.

        Columns: figure (``faithfulness``, ``completeness``, ``minimality``, ``curve`` (of faithfulness),
        ``completeness curve``), size, node ("" but for ``minimality``), value, low, high, p, q (p adjusted by
        Benjamini and Hochberg over the nodes, and over the sizes of each curve; NaN for the two single
        figures), among (random circuits, or removals, behind p), seen (images of these pairs that the circuit
        or the order was found on: above 0, all figures are too good); and of random circuits, or of nodes
        removed from them, random, random_low, random_high, random_min, random_max, lead, lead_low,
        lead_high.
        """
        rows = [
            _row("faithfulness", self.faithfulness.size, self.faithfulness, self.draws),
            _row("completeness", self.completeness.size, self.completeness, self.draws),
            *(
                _row("minimality", len(self.circuit), one, one.among, str(one.node))
                for one in self.minimality
            ),
            *(_row("curve", one.size, one, self.curve_draws) for one in self.curve),
            *(
                _row("completeness curve", one.size, one, self.curve_draws)
                for one in self.completeness_curve
            ),
        ]
        frame = pd.DataFrame(rows).rename(columns={"value_low": "low", "value_high": "high"})
        frame.insert(list(frame).index("p") + 1, "q", float("nan"))
        frame.insert(list(frame).index("among") + 1, "seen", self.seen)
        for figure in ("minimality", "curve", "completeness curve"):
            here = frame["figure"] == figure
            if here.any():
                frame.loc[here, "q"] = benjamini_hochberg(frame.loc[here, "p"].to_numpy())
        return frame

    def plot(self) -> Any:
        """Its curves and removals as a plotly figure (`mechvrp.plots.faithfulness_curve`)."""
        from mechvrp.plots import faithfulness_curve

        return faithfulness_curve(self)

    def __repr__(self) -> str:
        def told(one: AgainstRandom) -> str:
            value = one.circuit
            above = " (above 1: what is left out works against the answer)" * (value.value > 1.005)
            return (
                f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]{above}, random {one.random.value:.2f}, "
                f"p = {one.p:.3g}"
            )

        few = f" of {self.possible} there are" if self.possible <= 2 * self.draws else ""
        seen = (
            f"; {self.seen} of {self.n_groups} images are those it was found on"
            if self.seen
            else ""
        )
        return (
            f"CircuitProof({len(self.circuit)} nodes in {self.model}, {self.n} pairs of {self.n_groups} "
            f"images, {self.measure}, {self.mode} ablation: faithfulness {told(self.faithfulness)}; "
            f"kept without the circuit {told(self.completeness)}; {self.draws} random circuits"
            f"{few}{seen})"
        )


def _ends(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _row(
    figure: str, size: int, found: AgainstRandom | NodeRemoval, among: int, node: str = ""
) -> dict[str, Any]:
    return {
        "figure": figure,
        "size": size,
        "node": node,
        **_ends("value", found.drop if isinstance(found, NodeRemoval) else found.circuit),
        "p": found.p,
        "among": among,
        **_ends("random", found.random),
        "random_min": found.random_range[0],
        "random_max": found.random_range[1],
        **_ends("lead", found.lead),
    }
