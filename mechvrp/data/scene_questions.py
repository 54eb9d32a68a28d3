"""Questions about a scene, and their right answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mechvrp.data.digits import DIGIT_WORDS
from mechvrp.data.scene_layout import CELL_NAMES, Scene, cooccurrence
from mechvrp.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "POLLS",
    "RELATIONS",
    "TASKS",
    "Question",
    "caption",
    "counting",
    "existence",
    "identification",
    "location",
    "mixed",
    "polls",
    "spatial",
]

TASKS = ("existence", "identification", "counting", "spatial")
POLLS = ("random", "popular", "adversarial")

RELATIONS = ("left of", "right of", "above", "below")


@dataclass(frozen=True)
class Question:
    """A question about one scene.

    Attributes:
        text: the bare question.
        answer: its right answer, one lower-case word.
        task: one of ``TASKS``, or an auxiliary one, ``caption`` or ``location``.
        about: what the question asks for (``digit``, ``cell``, ``relation``, ...), for
            ``Sample.meta``.
    """

    text: str
    answer: str
    task: str
    about: dict[str, Any] = field(default_factory=dict)


def _article(word: str) -> str:
    return f"an {word}" if word == "eight" else f"a {word}"


def existence(scene: Scene, digit: int) -> Question:
    """POPE's poll: is a digit of this class in the image?"""
    word = DIGIT_WORDS[digit]
    answer = "yes" if digit in scene.digits else "no"
    return Question(
        f"Is there {_article(word)} in the image?", answer, "existence", {"digit": word}
    )


def identification(scene: Scene, cell: tuple[int, int]) -> Question:
    """Which digit is in ``cell``? (``DataError`` if the cell is empty.)"""
    for placed in scene.placed:
        if placed.cell == cell:
            word, name = DIGIT_WORDS[placed.digit], CELL_NAMES[cell[0]][cell[1]]
            about = {"digit": word, "cell": cell, "cell_name": name}
            return Question(f"What digit is at the {name}?", word, "identification", about)
    raise DataError(
        f"cell {cell} is empty: the occupied cells are {[p.cell for p in scene.placed]}"
    )


def location(scene: Scene, digit: int) -> Question:
    """Where is a digit that is there? (An auxiliary task of the training recipe.)"""
    placed, word = scene.at(digit), DIGIT_WORDS[digit]
    name = CELL_NAMES[placed.cell[0]][placed.cell[1]]
    return Question(f"Where is the {word}?", name, "location", {"digit": word})


def counting(scene: Scene) -> Question:
    """How many digits are there?"""
    count = DIGIT_WORDS[len(scene.placed)]
    return Question(
        "How many digits are in the image?", count, "counting", {"count": len(scene.placed)}
    )


def spatial(scene: Scene, first: int, second: int, relation: str) -> Question:
    """Does ``first`` stand in ``relation`` to ``second``?

    Raises:
        DataError: an unknown relation, an absent digit, or two digits in the same row (for above
            and below) or column (for left of and right of), of which neither answer would be clear.
    """
    if relation not in RELATIONS:
        raise DataError(f"no relation {relation!r}: the relations are {', '.join(RELATIONS)}")
    axis = 1 if relation in ("left of", "right of") else 0
    here, there = scene.at(first).cell[axis], scene.at(second).cell[axis]
    if here == there:
        raise DataError(
            f"{first} and {second} share a {'column' if axis else 'row'}: {relation!r} is unclear"
        )
    holds = here < there if relation in ("left of", "above") else here > there
    words = DIGIT_WORDS[first], DIGIT_WORDS[second]
    return Question(
        f"Is the {words[0]} {relation} the {words[1]}?",
        "yes" if holds else "no",
        "spatial",
        {"digit": words[0], "other": words[1], "relation": relation},
    )


def caption(scene: Scene) -> Question:
    """Every digit and where it is, in reading order (an auxiliary task of the training recipe)."""
    parts = [f"{CELL_NAMES[p.cell[0]][p.cell[1]]} {DIGIT_WORDS[p.digit]}" for p in scene.placed]
    return Question("Describe the image.", ", ".join(parts) or "nothing", "caption")


def _absent(scene: Scene, poll: str, rng: np.random.Generator) -> list[int]:
    """The absent digits in the order in which ``poll`` asks for them."""
    order = [int(d) for d in rng.permutation([d for d in range(10) if d not in scene.digits])]
    if poll == "random":
        return order
    shares = cooccurrence()
    if poll == "popular":
        return sorted(order, key=lambda d: -shares[d, d])
    # P(absent digit | present digit), summed over the present ones
    return sorted(order, key=lambda d: -sum(shares[d, p] / shares[p, p] for p in scene.digits))


def polls(scene: Scene, poll: str, rng: np.random.Generator, *, most: int = 3) -> list[Question]:
    """Balanced existence polls as in POPE (Li et al. 2023): as many present digits as absent ones.

    Args:
        scene: the scene.
        poll: how absent digits are chosen: ``"random"``, ``"popular"`` (the most frequent ones) or
            ``"adversarial"`` (those that most often co-occur with the ones present).
        rng: equal generators give the same yes questions whatever ``poll`` is.
        most: at most this many of either answer; scenes of fewer digits give fewer.
    """
    if poll not in POLLS:
        raise DataError(f"no poll {poll!r}: the polls are {', '.join(POLLS)}")
    each = min(most, len(scene.placed), 10 - len(scene.placed))
    present = [int(d) for d in rng.permutation(scene.digits)][:each]
    absent = _absent(scene, poll, rng)[:each]
    pairs = zip(present, absent, strict=True)
    return [existence(scene, digit) for pair in pairs for digit in pair]


def _spatial(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """One spatial question, yes or no with equal chance (none if there are fewer digits)."""
    clear = [
        (a.digit, b.digit, relation, axis)
        for axis, relation in ((1, "left of"), (0, "above"))
        for a in scene.placed
        for b in scene.placed
        if a.cell[axis] < b.cell[axis]
    ]
    if not clear:
        return []
    first, second, relation, axis = clear[int(rng.integers(len(clear)))]
    opposite = "right of" if axis else "below"
    # four wordings of one fact: two true, two false
    wordings = (
        (first, second, relation),
        (second, first, opposite),
        (second, first, relation),
        (first, second, opposite),
    )
    return [spatial(scene, *wordings[int(rng.integers(4))])]


def mixed(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """The mix: one yes and one no poll (random), two identifications, one count, one relation."""
    questions = polls(scene, "random", rng, most=1)
    cells = [scene.placed[int(i)].cell for i in rng.permutation(len(scene.placed))[:2]]
    questions += [identification(scene, cell) for cell in cells]
    questions.append(counting(scene))
    return questions + _spatial(scene, rng)
