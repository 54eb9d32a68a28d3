"""The study's signals: one number an answer each, what it is, what it costs, what it may be used for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mechvrp.errors import InputError

__all__ = ["SIGNALS", "Signal", "find_signals", "predictors"]

SignalKind = Literal["structure", "generation", "hidden", "comparator"]

_STUDY = "arXiv 2605.08200"


@dataclass(frozen=True, slots=True)
class Signal:
    """What is known of a signal before any data.

    Attributes:
        name: of its column in a table of signals.
        kind: ``"structure"`` (of attention), ``"generation"`` (of the answer's probabilities),
            ``"hidden"`` (of hidden states), ``"comparator"`` (of another method, for comparison).
        higher_means_right: the direction in which the study expects right answers; None where none is
            expected. It is an expectation: nothing is turned round by it.
        uses_label: it is computed from the right answer of the very example, so it describes and
            never predicts. A probe fitted on other images' labels does not.
        cost_forwards: passes over the whole prompt beyond the one that answers; a backward pass
            counts as two. As defined: sharing the prompt's cache between samples costs less.
        description: in a sentence.
        source: paper, or "this package".
        unit: of its numbers, for an axis; empty where they have none.
    """

    name: str
    kind: SignalKind
    higher_means_right: bool | None
    uses_label: bool
    cost_forwards: float
    description: str
    source: str
    unit: str = ""


def _table(*signals: Signal) -> Mapping[str, Signal]:
    return MappingProxyType({signal.name: signal for signal in signals})


SIGNALS: Mapping[str, Signal] = _table(
    Signal(
        name="spatial_entropy",
        kind="structure",
        higher_means_right=False,
        uses_label=False,
        cost_forwards=0,
        description="Entropy H_s of the mean attention map over image tokens, in nats.",
        source=_STUDY,
        unit="nats",
    ),
    Signal(
        name="spatial_entropy_normalised",
        kind="structure",
        higher_means_right=False,
        uses_label=False,
        cost_forwards=0,
        description="H_s / log S, which compares grids of different numbers S of image tokens.",
        source=_STUDY,
        unit="share of log S",
    ),
    Signal(
        name="cluster_count",
        kind="structure",
        higher_means_right=False,
        uses_label=False,
        cost_forwards=0,
        description="C_k: DBSCAN clusters among the map's cells at or above its 90th percentile.",
        source=_STUDY,
        unit="clusters",
    ),
    Signal(
        name="image_mass",
        kind="structure",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="Share of the predicting position's attention that is on image tokens.",
        source=_STUDY,
        unit="share of attention",
    ),
    Signal(
        name="top_k_mass",
        kind="structure",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="Share of the map that its k highest cells hold.",
        source="this package",
        unit="share of the map",
    ),
    Signal(
        name="gini",
        kind="structure",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="Gini index of the map: 0 of a uniform one, near 1 of a single cell.",
        source="Hurley and Rickard 2009",
        unit="index, 0 to 1",
    ),
    Signal(
        name="peak_sharpness",
        kind="structure",
        higher_means_right=None,
        uses_label=False,
        cost_forwards=0,
        description="1 - H_inf / log S of the map's min-entropy: 0 of a uniform map, 1 of a single cell.",
        source="this package",
        unit="index, 0 to 1",
    ),
    Signal(
        name="region_mass",
        kind="structure",
        higher_means_right=None,
        # Where the object is comes from the benchmark, and exists only where there is one.
        uses_label=True,
        cost_forwards=0,
        description="Share of the map on what the question asks for, where the benchmark knows where it is.",
        source=_STUDY,
        unit="share of the map",
    ),
    Signal(
        name="centre_distance",
        kind="structure",
        higher_means_right=None,
        uses_label=False,
        cost_forwards=0,
        description="Distance of the map's centre of mass from the image's centre.",
        source="this package",
        unit="share of the way to a corner",
    ),
    Signal(
        name="head_agreement",
        kind="structure",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="How alike the heads' own maps are.",
        source="this package",
        unit="index, 0 to 1",
    ),
    Signal(
        name="entropy_evolution",
        kind="structure",
        higher_means_right=None,
        uses_label=False,
        cost_forwards=0,
        description="Change of H_s from one layer to the next.",
        source=_STUDY,
        unit="nats",
    ),
    Signal(
        name="p_tok",
        kind="generation",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="Mean log-probability of the answer's tokens, end token excluded.",
        source=_STUDY,
        unit="log-probability, nats",
    ),
    Signal(
        name="answer_probability",
        kind="generation",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="Probability of the answer's tokens after the prompt.",
        source=_STUDY,
        unit="probability",
    ),
    Signal(
        name="logit_entropy",
        kind="generation",
        higher_means_right=False,
        uses_label=False,
        cost_forwards=0,
        description="Entropy of the next-token distribution at the predicting position, in nats.",
        source=_STUDY,
        unit="nats",
    ),
    Signal(
        name="self_consistency",
        kind="generation",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=10,
        description="S_SC: share of the majority among K = 10 sampled answers.",
        source=f"{_STUDY}, after Wang et al. 2023",
        unit="share of samples",
    ),
    Signal(
        name="expected_self_consistency",
        kind="generation",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="What S_SC is on average, from the answer's distribution instead of samples.",
        source="this package",
        unit="share of samples",
    ),
    Signal(
        name="own_margin",
        kind="hidden",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="Logit lens: the model's own answer's first token minus its runner-up.",
        source=_STUDY,
        unit="logits",
    ),
    Signal(
        name="truth_margin",
        kind="hidden",
        higher_means_right=True,
        uses_label=True,
        cost_forwards=0,
        description="Logit lens: the right answer's first token minus a foil fixed per example.",
        source=_STUDY,
        unit="logits",
    ),
    Signal(
        name="probe",
        kind="hidden",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="Linear probe (L2) on the last prompt token's residual stream, best layer.",
        source=_STUDY,
        unit="log-odds",
    ),
    Signal(
        name="sparse_probe",
        kind="hidden",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="Linear probe with an L1 penalty, best layer.",
        source=_STUDY,
        unit="log-odds",
    ),
    Signal(
        name="mlp_probe",
        kind="hidden",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="Probe with one hidden layer of 256 units, best layer.",
        source=_STUDY,
        unit="log-odds",
    ),
    Signal(
        name="last_five_probe",
        kind="hidden",
        higher_means_right=True,
        uses_label=False,
        cost_forwards=0,
        description="Linear probe on the last five layers together.",
        source=_STUDY,
        unit="log-odds",
    ),
    Signal(
        name="centroid_distance",
        kind="hidden",
        higher_means_right=None,
        uses_label=False,
        cost_forwards=0,
        description="Distance of the last prompt token's state from training images' centroids.",
        source="this package",
        unit="standard deviations",
    ),
    Signal(
        name="grad_cam_entropy",
        kind="comparator",
        higher_means_right=None,
        uses_label=False,
        cost_forwards=3,
        description="Entropy over image tokens, over log S, of Grad-CAM of the answer's logit.",
        source="Selvaraju et al. 2017",
        unit="share of log S",
    ),
    Signal(
        name="grad_cam_region_mass",
        kind="comparator",
        higher_means_right=None,
        uses_label=True,
        cost_forwards=3,
        description="Share on what the question asks for, where known, of Grad-CAM of the answer's logit.",
        source="Selvaraju et al. 2017",
        unit="share of the map",
    ),
    Signal(
        name="gradient_input_entropy",
        kind="comparator",
        higher_means_right=None,
        uses_label=False,
        cost_forwards=3,
        description="Entropy over image tokens, over log S, of the size of gradient times input of the logit.",
        source="Shrikumar et al. 2016",
        unit="share of log S",
    ),
    Signal(
        name="gradient_input_region_mass",
        kind="comparator",
        higher_means_right=None,
        uses_label=True,
        cost_forwards=3,
        description="Share on what the question asks for, where known, of the size of gradient times input.",
        source="Shrikumar et al. 2016",
        unit="share of the map",
    ),
    Signal(
        name="rollout_entropy",
        kind="comparator",
        higher_means_right=False,
        uses_label=False,
        cost_forwards=1,
        description="Entropy over image tokens, over log S, of attention rollout over all layers.",
        source="Abnar and Zuidema 2020",
        unit="share of log S",
    ),
    Signal(
        name="rollout_region_mass",
        kind="comparator",
        higher_means_right=None,
        uses_label=True,
        cost_forwards=1,
        description="Share on what the question asks for, where known, of attention rollout over all layers.",
        source="Abnar and Zuidema 2020",
        unit="share of the map",
    ),
)


def find_signals(names: Iterable[str], extra: Iterable[Signal] = ()) -> list[Signal]:
    """The signals of these names, among ``SIGNALS`` and ``extra``, in the order given.

    Raises:
        InputError: a name is unknown or comes twice, or ``extra`` gives a name that is taken.
    """
    known = dict(SIGNALS)
    for signal in extra:
        if not isinstance(signal, Signal):
            raise InputError(f"extra takes Signal(...) objects; got {signal!r:.60}")
        if signal.name in known:
            raise InputError(
                f"a signal named {signal.name!r} exists already; give yours another name"
            )
        known[signal.name] = signal
    found: list[Signal] = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"unknown signal {name!r}{hint} (known: {', '.join(known)}); describe one of your own "
                "by extra=[Signal(...)]"
            )
        if known[name] in found:
            raise InputError(f"signal {name!r} is named twice")
        found.append(known[name])
    return found


def predictors(names: Iterable[str], extra: Iterable[Signal] = ()) -> list[Signal]:
    """As `find_signals`, but only signals that may predict correctness.

    Raises:
        InputError: as `find_signals`, or a signal is computed from the right answer.
    """
    found = find_signals(names, extra)
    telling = [signal.name for signal in found if signal.uses_label]
    if telling:
        raise InputError(
            f"{', '.join(map(repr, telling))} uses the right answer, so it describes and cannot "
            "predict whether an answer is right: leave it out (own_margin is the margin without the "
            "label)"
        )
    return found
