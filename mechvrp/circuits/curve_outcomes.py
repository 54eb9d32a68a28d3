"""What an ablation curve is made from: outcomes of every example under every set of units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mechvrp.errors import InputError

__all__ = ["DRAWN", "MEASURES_OF_CURVES", "SETS", "CurveOutcomes", "check_labels"]

#: Sets of units that an ablation curve can take away.
SETS = {
    "top": "the k most important units",
    "bottom": "the k units of lowest score, which speak most against a right answer",
    "least": "the k least important units",
    "random": "k random units, of each site as many as the top has",
    "matched": "k random units of about the top's activation norm",
}
#: Those of them that are random.
DRAWN = ("random", "matched")
#: What is measured of an example under a set.
MEASURES_OF_CURVES = {
    "accuracy": "whether the answer is right",
    "logit": "logit of the clean run's own answer",
    "margin": "logit of the clean run's own answer minus the best other token's",
    "probe": "the probe's log-odds that the answer is right, at the last prompt position",
}


def check_labels(name: str, labels: np.ndarray) -> None:
    """Refuse names of tasks or splits that parts of a curve have themselves.

    Raises:
        InputError: a label "all", or one that begins with "split: ".
    """
    for label in map(str, np.unique(labels)):
        if label == "all" or label.startswith("split: "):
            raise InputError(
                f"{name} holds the name {label!r}, which curves use for "
                + ("all examples together" if label == "all" else "their splits")
                + f": give {name} other names"
            )


@dataclass(frozen=True, eq=False)
class CurveOutcomes:
    """Every example under every set; singles (top, bottom, least) have one draw.

    Attributes:
        ks: sizes of the sets, ascending.
        units: units that the ranking has.
        clean: by measure, ``[example]`` without ablation.
        values: by measure and set, ``[draw, k, example]``; accuracy is boolean, the others float32.
        images, tasks: ``[example]``, image ids (of an image made from another, that one's) and names of tasks.
        splits: ``[example]``, names of splits; None where none were given.
        chance: ``[example]``, the accuracy of chance on the example's task.
        norm_ratio: ``[draw, k]`` of the matched sets, their norm divided by the top's; None without them.
        shared: ``[k]``, share of a matched set's units that are the top's own, mean over draws.

    Raises:
        ShapeError: arrays that do not fit each other, or of another dtype.
        InputError: ``ks``, names or numbers that cannot be of a curve.
    """

    ks: tuple[int, ...]
    units: int
    clean: Mapping[str, np.ndarray]
    values: Mapping[str, Mapping[str, np.ndarray]]
    images: np.ndarray
    tasks: np.ndarray
    chance: np.ndarray
    splits: np.ndarray | None = None
    norm_ratio: np.ndarray | None = None
    shared: np.ndarray | None = None
    _parts: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        from mechvrp.circuits.curve_outcome_checks import check_outcomes

        check_outcomes(self)

    @property
    def above(self) -> np.ndarray:
        """Places in ``ks`` of those above 0."""
        return np.flatnonzero(np.array(self.ks) > 0)

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """``"all"``, each task and each split (``"split: name"``) of two images or more: its examples."""
        if not self._parts:
            found = {"all": np.arange(len(self.images))}
            named = [("", self.tasks)]
            if self.splits is not None:
                named.append(("split: ", self.splits))
            for words, labels in named:
                for name in map(str, np.unique(labels)):
                    inside = np.flatnonzero(labels == name)
                    if len(np.unique(self.images[inside])) > 1:
                        found[f"{words}{name}"] = inside
            self._parts.update(found)
        return self._parts

    def part(self, name: str) -> np.ndarray:
        """Examples of a part.

        Raises:
            InputError: no such part, or one of a single image.
        """
        if name not in self.parts:
            raise InputError(
                f"no part {name!r} of two images or more; there are {list(self.parts)}"
            )
        return self.parts[name]

    def control(self, name: str) -> np.ndarray:
        """Accuracy under a random set, ``[draw, k, example]``.

        Raises:
            InputError: the curve was run without it.
        """
        if name not in DRAWN or name not in self.values["accuracy"]:
            have = [known for known in DRAWN if known in self.values["accuracy"]]
            raise InputError(f"no control {name!r}; this curve has {', '.join(have)}")
        return self.values["accuracy"][name]
