"""``Place``: what of the model an explorer looks at: a site, positions, and some of its units or heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechvrp.circuits import GROUPS, CircuitNode
from mechvrp.errors import InputError, SiteError
from mechvrp.models.tokens import integers
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM
    from mechvrp.models.tokens import Positions

__all__ = ["EXPLORED", "Place"]

#: Components that the explorer offers, in the order in which the model computes them, in words.
EXPLORED: dict[str, str] = {
    "projected": "image features",
    "resid_pre": "residual stream before the block",
    "z": "attention heads",
    "attn_out": "attention's output",
    "resid_mid": "residual stream between attention and MLP",
    "neurons": "MLP neurons",
    "mlp_out": "MLP's output",
    "resid_post": "residual stream behind the block",
}


@dataclass(frozen=True)
class Place:
    """A site, positions, and some units or heads of it.

    Attributes:
        component: one of ``EXPLORED``.
        layer: counted from 0; None for ``projected``.
        positions: as ``batch.tokens.resolve``: ``"last"``, ``"image"``, ``"question"``, ``"text"``,
            ``"all"``, a number counted from the end of the prompt, or a list of (row, col) patches.
        units: dimensions or neurons; None: all.
        heads: of ``z``; None: all.
    """

    component: str
    layer: int | None = None
    positions: Positions = "last"
    units: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.component not in EXPLORED:
            raise SiteError(
                f"the explorer offers {', '.join(EXPLORED)}; got {self.component!r}. mechvrp.trace reads "
                "and edits every site"
            )
        for name in ("units", "heads"):
            given = getattr(self, name)
            if given is not None:
                numbers = tuple(sorted(set(integers(name, given))))
                if not numbers:
                    raise SiteError(f"no {name} were given; None stands for all of them")
                object.__setattr__(self, name, numbers)
        if self.heads is not None and self.component != "z":
            raise SiteError(f"{self.component} has no heads; z has")
        positions = self.positions
        if isinstance(positions, int) and positions >= 0:
            raise SiteError(
                f"position {positions} is counted from the start; count from the end (-1 is the last "
                "prompt token), so that it means the same in every batch"
            )
        if not isinstance(positions, (str, int)):
            object.__setattr__(self, "positions", _patches(positions))

    @property
    def site(self) -> Site:
        return Site(self.component, self.layer)

    @property
    def selected(self) -> dict[str, Any]:
        """The keyword arguments of an intervention that choose positions, units and heads."""
        found: dict[str, Any] = {"positions": self.positions}
        for name in ("units", "heads"):
            if getattr(self, name) is not None:
                found[name] = list(getattr(self, name))
        return found

    def arguments(self) -> str:
        """``selected`` as it is written in a call."""
        return ", ".join(f"{name}={literal(value)}" for name, value in self.selected.items())

    def nodes(self) -> tuple[CircuitNode, ...]:
        """The nodes of a circuit that stand here: heads, neurons, dimensions, or a whole MLP.

        Raises:
            SiteError: a circuit has no nodes of this component or at these positions.
        """
        if not isinstance(self.positions, str) or self.positions not in (*GROUPS, "all"):
            raise SiteError(
                f"a circuit's nodes stand at {', '.join(GROUPS)} or all positions, which every example "
                f"has; the chosen positions are {literal(self.positions)}"
            )
        at = self.positions
        layer = self.layer or 0
        chosen = self.heads if self.component == "z" else self.units
        if self.component == "mlp_out" and self.units is None:
            return (CircuitNode("mlp_out", layer, None, at),)
        if self.component not in ("z", "neurons", "resid_post"):
            raise SiteError(
                f"a circuit has no nodes of {self.component}"
                + (" dimensions" if self.component == "mlp_out" else "")
                + "; it has heads (z), neurons, whole MLPs (mlp_out) and residual dimensions (resid_post)"
            )
        if self.component == "z" and self.units is not None:
            raise SiteError("a circuit's nodes are whole heads; choose no units of them")
        if chosen is None:
            what = "heads" if self.component == "z" else "units"
            raise SiteError(f"choose the {what} of {self.site} that are to be nodes")
        return tuple(CircuitNode(self.component, layer, index, at) for index in chosen)

    def check(self, model: VLM, batch: Any) -> None:
        """Raise ``SiteError`` unless model and batch have it."""
        from mechvrp.patching import Zero

        self.site.check(model)
        Zero(self.site, self.positions, self.units, self.heads).check(model, batch)

    def __str__(self) -> str:
        found = [str(self.site), f"at {literal(self.positions)}"]
        for name in ("heads", "units"):
            chosen = getattr(self, name)
            if chosen is not None:
                some = ", ".join(map(str, chosen[:6])) + (", ..." if len(chosen) > 6 else "")
                found.append(f"{name} {some}")
        return ", ".join(found)


def literal(value: Any) -> str:
    """A value as it is written in Python, with double quotes."""
    if isinstance(value, str):
        from json import dumps

        return dumps(value, ensure_ascii=False)
    return repr(value)


def _patches(given: Any) -> list[tuple[int, int]]:
    try:
        found = sorted({(int(row), int(col)) for row, col in given})
    except (TypeError, ValueError):
        found = []
    if not found:
        raise InputError(
            "positions are a name, a number counted from the end of the prompt, or a list of (row, col) "
            f"patches; got {given!r:.80}"
        )
    return found
