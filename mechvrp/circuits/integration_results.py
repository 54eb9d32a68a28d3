"""What ``image_flow`` returns: image information at text positions, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from mechvrp.circuits.patched_shares import IntegrationLayer, PatchedShares
from mechvrp.circuits.setting_checks import check_settings
from mechvrp.errors import InputError, UnavailableError
from mechvrp.statistics import Estimate

__all__ = ["FlowMethod", "FlowPoint", "ImageFlow"]

FlowMethod = Literal["knockout", "patching", "probe"]


@dataclass(frozen=True)
class FlowPoint:
    """One number of one method at one layer.

    Attributes:
        method: how it was found.
        what: the edge that was cut (``"image to last"``: which way information would have gone), the
            positions that were patched, or those that were probed.
        measure: what ``value`` is: a change of ``"logit_diff"`` (or of another measure of the clean answer) or
            of ``"accuracy"`` in percentage points; ``"share"`` of the answer's change; ``"AUROC"``,
            ``"AUROC within questions"``, or ``"lead over the question"``, a difference of AUROCs.
        layer: the block behind which states were patched or read, or the middle of the window that was
            cut; None: all layers were cut together.
        window: layers cut together; None where nothing is cut.
        value: with a 95 % interval that resamples images; None where there is none.
        control: the same of the control (``ImageFlow.controls`` says which); of shuffled labels the mean
            of the draws and their range.
        lead: value minus control, paired; None of shuffled labels.
        p: of a change of accuracy of 0, by exchanging before and after for whole images.
        q: the same, Benjamini-Hochberg over the layers of one edge and window.
        gap: why there is no value; empty where there is one.
        control_gap: why a value has no control although one was asked for: a draw of it failed.
    """

    method: FlowMethod
    what: str
    measure: str
    layer: int | None
    window: int | None = None
    value: Estimate | None = None
    control: Estimate | None = None
    lead: Estimate | None = None
    p: float | None = None
    q: float | None = None
    gap: str = ""
    control_gap: str = ""


@dataclass(frozen=True, eq=False)
class ImageFlow:
    """At which layers image information reaches the text positions, by up to three methods.

    Attributes:
        model: its name.
        fingerprint: of its weights.
        n_layers: of its decoder.
        attention: ``"causal"``, or ``"prefix"``: all of the prompt sees all of it, so image positions can
            fetch what was asked and carry it on.
        points: of every method, layer and measure.
        controls: by method, what stands beside it, in words.
        shares: the patched pairs, example by example; None where nothing was patched, or where the change is
            not told from 0 or of one image (the points' ``gap`` says which).
        settings: what was asked for, and chosen.
    """

    model: str
    fingerprint: str
    n_layers: int
    attention: str
    points: tuple[FlowPoint, ...]
    controls: Mapping[str, str]
    shares: PatchedShares | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def integration(
        self, *, what: str = "text", threshold: float = 0.5, n_resamples: int | None = None
    ) -> IntegrationLayer:
        """The first layer behind which patched positions carry more than ``threshold`` of the change.

        Args:
            what: ``"text"``, ``"question"`` or ``"last"``. The last position carries all of it behind the
                last layer whatever the model; so do all text positions.
            threshold: share of the answer's change, within 0 to 1.
            n_resamples: of images; by default as ``image_flow`` was asked for.

        Raises:
            InputError: such positions were not patched, or settings that cannot be used.
            UnavailableError: nothing was patched, or there is no change to have a share of.
            NumericalError: with these resamples that change is not told from 0.
        """
        if n_resamples is None:
            n_resamples = int(self.settings.get("n_resamples", 2000))
        n_resamples = check_settings(n_resamples=n_resamples)["n_resamples"]
        if self.shares is None:
            why = next((p.gap for p in self.points if p.method == "patching" and p.gap), "")
            raise UnavailableError(
                f"there is no integration layer of {self.model}: "
                + (why or "image_flow was asked to leave out 'patching'")
            )
        return self.shares.integration(
            what=what,
            threshold=threshold,
            n_layers=self.n_layers,
            seed=int(self.settings.get("seed", 0)),
            n_resamples=n_resamples,
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per point.

        Columns: model, method, what, measure, layer (missing: all layers), depth (share of the layers up to
        and with this one), window; value, control and lead, each with ``_low`` and ``_high``; control_kind,
        p, q, n, n_groups, level, gap, control_gap.
        """
        frame = pd.DataFrame([self._row(point) for point in self.points])
        return frame.astype({"layer": "Int64", "window": "Int64"})

    def curve(self, method: FlowMethod, what: str, measure: str | None = None) -> pd.DataFrame:
        """The rows of one curve, by layer; the first measure of the method unless one is named.

        Raises:
            InputError: there is no such curve, with those there are.
        """
        frame = self.to_frame()
        known = frame[(frame["method"] == method) & (frame["what"] == what)]
        if measure is None and len(known):
            measure = str(known["measure"].iloc[0])
        found = known[(known["measure"] == measure) & known["layer"].notna()]
        if found.empty:
            names = frame[["method", "what", "measure"]].drop_duplicates().itertuples(index=False)
            raise InputError(
                f"no curve of method {method!r}, what {what!r} and measure {measure!r}; there are "
                + "; ".join(f"{m}, {w}, {x}" for m, w, x in names)
            )
        return found.sort_values(["window", "layer"]).reset_index(drop=True)

    def plot(self) -> Any:
        """The methods' curves as a plotly figure (`mechvrp.plots.image_flow_layers`)."""
        from mechvrp.plots import image_flow_layers

        return image_flow_layers(self)

    def _row(self, point: FlowPoint) -> dict[str, Any]:
        depth = np.nan if point.layer is None else (point.layer + 1) / self.n_layers
        row: dict[str, Any] = {"model": self.model, "method": point.method, "what": point.what}
        row |= {"measure": point.measure, "layer": point.layer, "depth": depth}
        row["window"] = point.window
        for name in ("value", "control", "lead"):
            found: Estimate | None = getattr(point, name)
            row[name] = np.nan if found is None else found.value
            row[f"{name}_low"] = np.nan if found is None else found.low
            row[f"{name}_high"] = np.nan if found is None else found.high
        row["control_kind"] = self.controls.get(point.method, "") if point.control else ""
        row |= {"p": point.p, "q": point.q}
        value = point.value
        row["n"] = 0 if value is None else value.n
        row["n_groups"] = 0 if value is None else value.n_groups
        row["level"] = np.nan if value is None else value.level
        return row | {"gap": point.gap, "control_gap": point.control_gap}

    def __repr__(self) -> str:
        methods = ", ".join(dict.fromkeys(point.method for point in self.points))
        return f"ImageFlow({self.model!r}, {self.n_layers} layers: {methods})"
