"""What a digit scene holds: which digits, where, how they are drawn. No pixels here.

A scene is a 48x48 image with up to nine handwritten digits, all of different classes, in the cells
of a 3x3 layout. Digits *co-occur*: they stand on a ring, and a scene tends to hold neighbours on
it. So a model can learn to expect the four where it has seen the seven, and answer from expectation
when the picture is unclear: hallucination in miniature, as in POPE (Li et al. 2023), whose
adversarial polls ask for exactly those absent companions. Several neighbours on the ring also look
alike, as companions in photographs do (fork and knife).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mechvrp.data.digits import Part, digit_indices
from mechvrp.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "CELL",
    "CELL_NAMES",
    "CROWD",
    "EVALUATION_CROWD",
    "GRID",
    "IMAGE_SIZE",
    "Placed",
    "Scene",
    "cooccurrence",
    "draw_scene",
    "replace_digit",
]

GRID = 3  # cells a side
CELL = 16  # pixels a side of a cell
IMAGE_SIZE = GRID * CELL

CELL_NAMES = (
    ("top left", "top centre", "top right"),
    ("middle left", "centre", "middle right"),
    ("bottom left", "bottom centre", "bottom right"),
)

# How many digits a scene holds, and how often. Training asks about scenes of six at most, and a model trained
# on them has never had to count further: asked about seven or eight it answers "six", and is sure
# of it. Evaluation scenes go beyond on purpose. Errors on what training did not cover, with no
# doubt in the answer's probability, are the ones that reliability is about.
CROWD: dict[int, float] = {2: 0.15, 3: 0.25, 4: 0.25, 5: 0.20, 6: 0.15}
EVALUATION_CROWD: dict[int, float] = {
    2: 0.12,
    3: 0.20,
    4: 0.20,
    5: 0.18,
    6: 0.14,
    7: 0.10,
    8: 0.06,
}

# Neighbours on this ring co-occur. FIRST is how often a digit is drawn when no companion is.
_RING = (3, 8, 1, 7, 4, 9, 5, 6, 0, 2)
_COMPANION = 0.80  # chance that a further digit is a ring neighbour of one already there
_FIRST = (0.06, 0.14, 0.08, 0.16, 0.08, 0.09, 0.06, 0.15, 0.12, 0.06)
_MATES = {
    digit: (_RING[place - 1], _RING[(place + 1) % len(_RING)]) for place, digit in enumerate(_RING)
}


@dataclass(frozen=True)
class Placed:
    """One digit of a scene.

    Attributes:
        digit: its class, 0..9.
        image: index of its picture in scikit-learn's ``load_digits``.
        cell: row and column of its cell, 0..2 each.
        box: pixels it may ink, ``(left, top, right, bottom)``, right and bottom exclusive, inside
            its cell.
        angle: rotation in degrees.
        shear: horizontal shift per vertical pixel.
        stretch: width over height.
        strength: its ink relative to the scene's, 0..1.
    """

    digit: int
    image: int
    cell: tuple[int, int]
    box: tuple[int, int, int, int]
    angle: float
    shear: float
    stretch: float
    strength: float


@dataclass(frozen=True)
class Scene:
    """One picture, before it is drawn.

    Attributes:
        placed: its digits, in reading order of their cells.
        paper, ink: colours, red, green and blue in 0..1.
        contrast: how far ``ink`` is from ``paper``, 0..1 (already applied to ``ink``).
        noise: standard deviation of the pixel noise, 0..1.
        noise_seed: of the pixel noise and the shading.
    """

    placed: tuple[Placed, ...]
    paper: tuple[float, float, float]
    ink: tuple[float, float, float]
    contrast: float
    noise: float
    noise_seed: int

    @property
    def digits(self) -> tuple[int, ...]:
        """The classes present, in reading order."""
        return tuple(p.digit for p in self.placed)

    def at(self, digit: int) -> Placed:
        """The placed digit of that class (``DataError`` if the scene has none)."""
        for placed in self.placed:
            if placed.digit == digit:
                return placed
        raise DataError(f"the scene holds no {digit}: its digits are {self.digits}")


def _draw_digits(rng: np.random.Generator, crowd: int) -> list[int]:
    """``crowd`` different classes, companions together."""
    chosen: list[int] = []
    while len(chosen) < crowd:
        mates = sorted({m for d in chosen for m in _MATES[d]} - set(chosen))
        if mates and rng.random() < _COMPANION:
            chosen.append(mates[int(rng.integers(len(mates)))])
            continue
        absent = [d for d in range(10) if d not in chosen]
        weights = [_FIRST[d] for d in absent]
        total = sum(weights)
        chosen.append(int(rng.choice(absent, p=[w / total for w in weights])))
    return chosen


def _place(
    rng: np.random.Generator, digit: int, cell: tuple[int, int], part: Part, wild: float
) -> Placed:
    indices = digit_indices(part, digit)
    size = int(rng.integers(12, 16))
    left = cell[1] * CELL + int(rng.integers(0, CELL - size + 1))
    top = cell[0] * CELL + int(rng.integers(0, CELL - size + 1))
    return Placed(
        digit=digit,
        image=indices[int(rng.integers(len(indices)))],
        cell=cell,
        box=(left, top, left + size, top + size),
        angle=float(rng.uniform(-10, 10) * wild),
        shear=float(rng.uniform(-0.10, 0.10) * wild),
        stretch=float(1 + rng.uniform(-0.10, 0.10) * wild),
        strength=float(rng.uniform(0.5, 1.0)),
    )


def draw_scene(
    rng: np.random.Generator,
    *,
    part: Part = "train",
    crowd: int | Sequence[int] | None = None,
    wild: float = 1.0,
) -> Scene:
    """Draw one scene.

    Args:
        rng: all randomness comes from here.
        part: which digit images may be used.
        crowd: how many digits, or the numbers to choose among evenly; ``None`` is the
            part's own distribution, ``EVALUATION_CROWD`` for the evaluation, else ``CROWD``.
        wild: scale of rotation, shear and stretch; above 1 it is augmentation.

    Raises:
        DataError: a crowd outside 0..9.
    """
    if crowd is None:
        shares = EVALUATION_CROWD if part == "evaluation" else CROWD
        crowd = int(rng.choice(list(shares), p=list(shares.values())))
    elif not isinstance(crowd, int):
        crowd = int(crowd[int(rng.integers(len(crowd)))])
    if not 0 <= crowd <= GRID * GRID:
        raise DataError(f"a scene has {GRID * GRID} cells and was asked for {crowd} digits")
    digits = _draw_digits(rng, crowd)
    cells = sorted(int(c) for c in rng.choice(GRID * GRID, size=crowd, replace=False))
    digits = [digits[i] for i in rng.permutation(crowd)]
    placed = tuple(
        _place(rng, digit, divmod(cell, GRID), part, wild)
        for digit, cell in zip(digits, cells, strict=True)
    )
    contrast = float(rng.uniform(0.38, 1.0))
    paper = tuple(float(v) for v in rng.uniform(0.80, 1.0, size=3))
    dark = tuple(float(v) for v in rng.uniform(0.0, 0.35, size=3))
    return Scene(
        placed=placed,
        paper=paper,  # type: ignore[arg-type]
        ink=tuple(p + contrast * (d - p) for p, d in zip(paper, dark, strict=True)),  # type: ignore[arg-type]
        contrast=contrast,
        noise=float(rng.uniform(0.0, 0.14)),
        noise_seed=int(rng.integers(2**31)),
    )


def replace_digit(scene: Scene, old: int, new: int, image: int) -> Scene:
    """``scene`` with ``old`` replaced by ``new`` (picture ``image``), and all else as it was.

    Raises:
        DataError: ``old`` is not in the scene, or ``new`` already is.
    """
    target = scene.at(old)
    if new in scene.digits:
        raise DataError(f"the scene already holds a {new}: its digits are {scene.digits}")
    placed = tuple(replace(p, digit=new, image=image) if p is target else p for p in scene.placed)
    return replace(scene, placed=placed)


@lru_cache(maxsize=1)
def cooccurrence() -> Any:
    """How often two digits share a scene, ``[10, 10]``; the diagonal: how often one is there.

    Counted over 5,000 sets of digits of the training scenes' distribution (what a model can have
    learned to expect; no pixels), with a constant seed, so the ``popular`` and ``adversarial`` polls
    rank digits the same way whatever is loaded.
    """
    import numpy as np

    rng = np.random.default_rng(5_000)
    counts = np.zeros((10, 10))
    crowds = rng.choice(list(CROWD), p=list(CROWD.values()), size=5_000)
    for crowd in crowds:
        digits = _draw_digits(rng, int(crowd))
        counts[np.ix_(digits, digits)] += 1
    counts /= len(crowds)
    counts.setflags(write=False)
    return counts
