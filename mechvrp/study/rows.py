"""Rows of a summary's causal and readout parts: flat, so that a comparison of runs can pool them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CausalRow", "CausalSection", "ReadoutLayer", "ReadoutRow", "ReadoutSection"]


@dataclass(frozen=True)
class CausalRow:
    """One intervention on held-out examples: what it does to accuracy, beside its random control.

    Changes are in percentage points of accuracy, paired with the same examples without the intervention.

    Attributes:
        family: ``"image patches"``, ``"residual neurons"``, ``"MLP neurons"``, ``"hidden states"``,
            ``"attention"`` or ``"hidden states and attention"``; p-values are adjusted within it.
        name: the intervention in a few words, unique within its family: ``"top 30 % masked"``,
            ``"top 5 zeroed"``, ``"noise of 1 SD, layers 2 to 3"``.
        control: its random control in words: ``"random 30 % masked"``.
        site: hook name, or the first of a window's.
        edit: ``"mean"``, ``"zero"`` or ``"noise"``.
        amount: of it: share of the patches, number of units, noise in standard deviations.
        first_layer, last_layer: blocks that are edited, inclusive; null where none are (patches).
        units: units of the site, null where units are not what is edited.
        n, n_groups: examples and images; ``draws`` of the control (and of noise).
        accuracy, change: yes/no answers are read strictly here, whatever the study's reading: under POPE's
            official one a broken answer counts as a yes. The change has a 95 % interval over images (and
            draws, where there are several) and a p, from flipping signs by image; q is Benjamini and
            Hochberg's within the family.
        control_change: the control's change, with its interval over images and draws.
        excess: change minus control's change, with its interval and p.
        entropy_before, entropy_change: mean spatial entropy of the attention map over log S (0 to 1),
            and its paired change, where the intervention leaves a map to look at; else null.
        curve_p: rank p, one-sided, of the whole curve: the mean over all k of the top's change among the
            random draws' means; one for each family and edit; null where units are not what is edited.
    """

    family: str
    name: str
    control: str
    site: str
    edit: str
    amount: float
    first_layer: int | None
    last_layer: int | None
    units: int | None
    n: int
    n_groups: int
    draws: int
    accuracy: float
    change: float
    change_low: float
    change_high: float
    p: float | None
    q: float | None
    control_change: float
    control_low: float
    control_high: float
    excess: float
    excess_low: float
    excess_high: float
    excess_p: float | None
    excess_q: float | None
    entropy_before: float | None = None
    entropy_change: float | None = None
    entropy_low: float | None = None
    entropy_high: float | None = None
    curve_p: float | None = None


@dataclass(frozen=True)
class CausalSection:
    """All interventions of the study; what could not be run is in ``gaps``, with the reason."""

    rows: tuple[CausalRow, ...]
    n_resamples: int
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadoutLayer:
    """A readout fitted at one layer.

    Attributes:
        layer: its number.
        chosen: whether it is the layer of the readout's row.
        detail: what was chosen at this layer on the training images, in words.
        cv_auroc: mean over folds of the training images; what the layer is chosen by.
        auroc, low, high: over all held-out examples, with a 95 % interval over images; null where there
            is none.
    """

    layer: int
    chosen: bool
    detail: str
    cv_auroc: float
    auroc: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ReadoutRow:
    """One way to read correctness, on held-out images, beside the linear probe of one layer.

    Attributes:
        name: ``"linear probe"``, ``"sparse probe"``, ``"MLP probe"``, ``"last five layers"``,
            ``"distance to centroids"``, ``"11 attention features"``.
        layer: chosen on training images; null where there is none or there are several.
        detail: what was chosen on the training images, in words: ``"C = 0.1, 12 of 96 weights"``.
        auroc, low, high: over all held-out examples; ``within``...: over pairs of the same task.
        lead, lead_low, lead_high: AUROC minus the linear probe's, paired; null for itself.
        balanced_accuracy...: mean of the accuracies on right and on wrong answers at the threshold fitted
            on training images; 0.5 is chance.
        gap: why there is no number.
        by_layer: each layer it was fitted at, in their order; empty where no layer is chosen.
    """

    name: str
    layer: int | None
    detail: str
    n: int
    n_groups: int
    auroc: float | None
    low: float | None
    high: float | None
    within: float | None
    within_low: float | None
    within_high: float | None
    lead: float | None
    lead_low: float | None
    lead_high: float | None
    balanced_accuracy: float | None
    balanced_low: float | None
    balanced_high: float | None
    gap: str = ""
    by_layer: tuple[ReadoutLayer, ...] = ()


@dataclass(frozen=True)
class ReadoutSection:
    """Every readout of hidden states and attention features."""

    rows: tuple[ReadoutRow, ...]
    n_resamples: int
    gaps: tuple[str, ...] = ()
