"""``compare_image_flows``: several models' curves on one axis, and how their integration layers differ."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mechvrp.circuits.integration_results import FlowMethod, ImageFlow
from mechvrp.circuits.setting_checks import check_settings
from mechvrp.errors import InputError, NumericalError, UnavailableError

__all__ = ["FlowComparison", "compare_image_flows"]


@dataclass(frozen=True, eq=False)
class FlowComparison:
    """Several models beside each other.

    Attributes:
        flows: by name, in the order given.
        integration: one row per model, as `IntegrationLayer`: model, layer, depth, low, high (layers),
            depth_low, depth_high, crossing with ``_low`` and ``_high``, missing, n, n_groups, gap.
        differences: one row per pair of models: first, second, difference of crossings (first minus second,
            as shares of the layers: above 0 where the first's lies deeper), low, high, p (two-sided: twice the
            smaller share of resamples on one side of 0, with one more counted; missing where there is a gap),
            paired (whether they share images), n_groups, gap.
        threshold: of the integration layer.
    """

    flows: Mapping[str, ImageFlow]
    integration: pd.DataFrame
    differences: pd.DataFrame
    threshold: float

    def to_frame(self) -> pd.DataFrame:
        """All models' rows of ``ImageFlow.to_frame``, with the names of the comparison."""
        frames = [flow.to_frame().assign(model=name) for name, flow in self.flows.items()]
        return pd.concat(frames, ignore_index=True)

    def plot(
        self, method: FlowMethod = "patching", what: str = "text", measure: str | None = None
    ) -> Any:
        """One curve per model over depth (`mechvrp.plots.image_flows_by_model`)."""
        from mechvrp.plots import image_flows_by_model

        return image_flows_by_model(self, method=method, what=what, measure=measure)


def compare_image_flows(
    flows: Sequence[ImageFlow] | Mapping[str, ImageFlow],
    *,
    what: str = "text",
    threshold: float = 0.5,
    n_resamples: int = 2000,
    seed: int = 0,
) -> FlowComparison:
    """Integration layers of several models, and paired differences of the depth at which they cross.

    A difference is the first model's minus the second's, as in `compare_curves`.

    Depth is the share of a model's layers up to and with the layer, so models of different depth share an
    axis. Differences resample images; where both models were asked about the same images, both see the same
    resample.

    Args:
        flows: of `image_flow`, at least two; by name, or named by their models.
        what, threshold: as ``ImageFlow.integration``.
        n_resamples, seed: of the bootstrap.

    Raises:
        InputError: fewer than two flows, two of one name, or settings that cannot be used.
    """
    given = list(flows.values()) if isinstance(flows, Mapping) else flows
    if not isinstance(given, Sequence) or not all(isinstance(one, ImageFlow) for one in given):
        raise InputError(
            "expected two flows or more of mechvrp.circuits.image_flow, in a list or by name; got "
            f"{flows!r:.60}"
        )
    checked = check_settings(seed=seed, n_resamples=n_resamples)
    seed, n_resamples = checked["seed"], checked["n_resamples"]
    named = dict(flows) if isinstance(flows, Mapping) else {flow.model: flow for flow in flows}
    if len(named) != len(flows):
        raise InputError(
            "two flows are of models of one name: give them in a mapping, by other names"
        )
    if len(named) < 2:
        raise InputError(f"a comparison takes at least two flows; got {len(named)}")
    rows = []
    for name, flow in named.items():
        row: dict[str, Any] = {"model": name}
        try:
            found = flow.integration(what=what, threshold=threshold, n_resamples=n_resamples)
        except (UnavailableError, NumericalError) as error:
            rows.append(row | {"gap": str(error)})
            continue
        row |= {"layer": found.layer, "depth": found.depth, "low": found.low, "high": found.high}
        for end in ("low", "high"):
            at = getattr(found, end)
            row[f"depth_{end}"] = None if at is None else (at + 1) / flow.n_layers
        for part in ("crossing", "crossing_low", "crossing_high"):
            row[part] = getattr(found, part)
        row |= {"missing": found.missing, "n": found.n, "n_groups": found.n_groups}
        rows.append(row | {"gap": found.gap})
    columns = [
        *("model", "layer", "depth", "low", "high", "depth_low", "depth_high"),
        *("crossing", "crossing_low", "crossing_high", "missing"),
        *("n", "n_groups", "gap"),
    ]
    integration = pd.DataFrame(rows, columns=columns).astype(
        dict.fromkeys(("layer", "low", "high", "n", "n_groups"), "Int64")
    )
    differences = pd.DataFrame(
        [
            _difference(a, b, named, what, threshold, n_resamples, seed)
            for a, b in itertools.combinations(named, 2)
        ]
    )
    return FlowComparison(named, integration, differences, threshold)


def _difference(
    first: str,
    second: str,
    flows: Mapping[str, ImageFlow],
    what: str,
    threshold: float,
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    row: dict[str, Any] = {"first": first, "second": second, "difference": np.nan}
    row |= {"low": np.nan, "high": np.nan, "p": np.nan, "paired": False, "n_groups": 0, "gap": ""}
    one, other = (flows[name].shares for name in (first, second))
    if one is None or other is None:
        return row | {"gap": "one of the two has no shares of the answer's change"}
    sides = ((one, flows[first].n_layers), (other, flows[second].n_layers))
    images = sorted({*one.images.tolist(), *other.images.tolist()})
    # Pairs that change the answer differ between models, so an image can have some in one model only.
    common = set(one.images.tolist()) & set(other.images.tolist())
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=n_resamples)
    whole, drawn = [], []
    for part, n_layers in sides:
        codes = np.searchsorted(images, part.images)
        weights = counts[:, codes].astype(np.float64)
        # A resample of none of a model's pairs says nothing of it.
        empty = weights.sum(axis=1) == 0
        weights[empty] = 1.0
        _, depths = part.crossings(what, threshold, n_layers, weights)
        depths[empty] = np.nan
        _, own = part.crossings(what, threshold, n_layers, np.ones((1, len(codes))))
        whole.append(float(own[0]))
        drawn.append(depths)
    row |= {"paired": bool(common), "n_groups": len(images)}
    if not np.isfinite(whole).all():
        where = "in one of the two, or does before its first layer"
        return row | {"gap": f"the share does not reach {threshold:g} {where}"}
    row["difference"] = whole[0] - whole[1]
    change = drawn[0] - drawn[1]
    finite = np.isfinite(change)
    if not finite.mean() > 0.975:
        missing = (
            f"{100 * (1 - finite.mean()):.1f} % of the resamples lack a crossing in one of the two"
        )
        return row | {"gap": missing}
    low, high = np.quantile(change[finite], [0.025, 0.975])
    tail = min(int((change[finite] <= 0).sum()), int((change[finite] >= 0).sum()))
    p = min(1.0, 2 * (1 + tail) / (1 + int(finite.sum())))
    return row | {"low": float(low), "high": float(high), "p": p}
