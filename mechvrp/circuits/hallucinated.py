"""Hallucinated answers in aligned pairs: the scene as it is, and with the digit replaced that was mistaken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mechvrp.circuits.pairs import Pairs, counterfactual_pairs
from mechvrp.circuits.sample_checks import check_samples
from mechvrp.circuits.setting_checks import check_model, check_settings, whole
from mechvrp.data import Sample
from mechvrp.data.digits import DIGIT_WORDS
from mechvrp.data.scene_counterfactual import one_digit_replaced
from mechvrp.errors import InputError
from mechvrp.patching.grids import values_of
from mechvrp.patching.measures import first_token
from mechvrp.tracing.caching import in_batches

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["Hallucinated", "hallucinated_pairs"]


@dataclass(frozen=True, eq=False)
class Hallucinated:
    """What `hallucinated_pairs` found.

    Attributes:
        pairs: clean: a digit that is not there, and the answer yes; counterfactual: the same question about
            the same scene with one digit replaced, and the answer no. None where no hallucination has one.
        traced: the clean samples of ``pairs``, in order.
        mistaken: the digit that was replaced in each, by its word.
        untraced: hallucinations that outlast every single replacement tried.
        asked: polls for digits that are not there.
    """

    pairs: Pairs | None
    traced: tuple[Sample, ...]
    mistaken: tuple[str, ...]
    untraced: tuple[Sample, ...]
    asked: int

    @property
    def found(self) -> int:
        """How many polls for digits that are not there were answered with yes."""
        return len(self.traced) + len(self.untraced)

    def __repr__(self) -> str:
        images = 0 if self.pairs is None else self.pairs.n_groups
        return (
            f"Hallucinated({self.found} of {self.asked} polls for absent digits answered yes; "
            f"{len(self.traced)} traced to one digit, of {images} images)"
        )


def hallucinated_pairs(
    model: VLM,
    samples: Sequence[Sample],
    *,
    tries: int = 3,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = False,
) -> Hallucinated:
    """Find "yes" to digits that are not there, and pair each with the scene in which it becomes "no".

    The pair of a right answer (`counterfactual_pairs`) changes what is true. A hallucinated yes needs another:
    its right answer is no already, and putting the digit in would leave yes the answer. So a digit that *is*
    there is replaced by another, not the one asked for; the right answer stays no, and the pair is kept
    where the model's own becomes no. Of a scene's digits the one is taken whose replacement, on average over
    the tries, lowers the lead of yes most; of its replacements the one that makes it lowest. What the two
    sides differ in is then what the model took for the digit asked for, and a circuit of these pairs is that
    of the mistake, not of a general leaning to yes, which both sides have.

    The answers are the models' own first tokens, and the replacement is chosen by them: pairs are of
    hallucinations that one replacement undoes, not of all (``untraced`` are the others).

    Args:
        model: from ``mechvrp.load``.
        samples: of the digit scenes; existence polls whose right answer is no are looked at.
        tries: replacements of each digit of a scene, at most: other absent digits, in random order.
        seed: of the replacements.
        batch_size: pairs a batch.
        progress: show bars.

    Raises:
        InputError: no poll for a digit that is not there, ``tries`` below 1, or settings that cannot be used.
        DataError: a sample that is no digit scene.
    """
    check_model(model)
    tries = whole("tries", tries, 1)
    checked = check_settings(seed=seed, batch_size=batch_size)
    seed, batch_size = checked["seed"], checked["batch_size"]
    given = check_samples(samples)
    polls = [s for s in given if s.task == "existence" and s.answer == "no"]
    if not polls:
        raise InputError(
            f"none of {len(given)} samples is an existence poll whose right answer is no"
        )
    _, said = _answers(model, polls, batch_size, progress, "asking")
    wrong = [poll for poll, word in zip(polls, said, strict=True) if word == "yes"]
    tried: list[tuple[int, str, Sample]] = []
    for i, poll in enumerate(wrong):
        tried += [(i, old, other) for old, other in _replacements(poll, tries, seed)]
    after, said = _answers(
        model, [one[2] for one in tried], batch_size, progress, "replacing digits"
    )
    traced: list[Sample] = []
    others: list[Sample] = []
    mistaken: list[str] = []
    untraced: list[Sample] = []
    for i, poll in enumerate(wrong):
        rows = [row for row, one in enumerate(tried) if one[0] == i]
        means = {
            old: np.mean([after[row] for row in rows if tried[row][1] == old])
            for old in dict.fromkeys(tried[row][1] for row in rows)
        }
        old = min(means, key=lambda word: means[word], default=None)
        undone = [row for row in rows if tried[row][1] == old and said[row] == "no"]
        if old is None or not undone:
            untraced.append(poll)
            continue
        best = min(undone, key=lambda row: after[row])
        traced.append(poll)
        mistaken.append(old)
        others.append(tried[best][2])
    pairs = (
        counterfactual_pairs(model, traced, others, same="raise", batch_size=batch_size)
        if traced
        else None
    )
    return Hallucinated(pairs, tuple(traced), tuple(mistaken), tuple(untraced), len(polls))


def _replacements(poll: Sample, tries: int, seed: int) -> list[tuple[str, Sample]]:
    """Each digit that is there, by its word, with scenes in which another absent one stands in its place."""
    there = list(poll.meta["cells"])
    absent = [word for word in DIGIT_WORDS if word not in there and word != poll.meta["digit"]]
    rng = np.random.default_rng([poll.meta["seed"], poll.meta["index"], seed, 6])
    found = []
    for old in there:
        chosen = rng.permutation(len(absent))[:tries]
        found += [(old, one_digit_replaced(poll, old, absent[i], seed)) for i in chosen]
    return found


def _answers(
    model: VLM, samples: Sequence[Sample], batch_size: int, progress: bool, words: str
) -> tuple[np.ndarray, list[str]]:
    """``[example]``, logit of yes minus that of no; and the answer, ``"yes"``, ``"no"`` or ``""``."""
    leads: list[float] = []
    said: list[str] = []
    for chunk in in_batches(samples, batch_size, progress, words):
        _, logits = values_of(model, model.encode(chunk), [])
        for sample, row in zip(chunk, logits, strict=True):
            yes, no = (
                first_token(model, Sample(sample.image, sample.question, word), row)
                for word in ("yes", "no")
            )
            leads.append(float(row[yes] - row[no]))
            said.append({yes: "yes", no: "no"}.get(int(row.argmax()), ""))
    return np.array(leads), said
