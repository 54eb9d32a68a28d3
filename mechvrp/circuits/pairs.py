"""Clean and counterfactual samples in aligned pairs, whose answers differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from mechvrp.circuits.image_groups import connected, images_of
from mechvrp.circuits.sample_checks import ONE_QUESTION, check_questions, check_samples
from mechvrp.circuits.setting_checks import check_model, check_settings
from mechvrp.data import Sample
from mechvrp.data.scene_counterfactual import counterfactual_pair
from mechvrp.errors import InputError
from mechvrp.models import VLM, Batch, fingerprint
from mechvrp.patching.alignment import check_aligned
from mechvrp.patching.grids import values_of
from mechvrp.patching.measures import first_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["PairBatch", "Pairs", "counterfactual_pairs"]

_Answer = Literal["own", "right"]


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Some pairs, encoded.

    Attributes:
        clean, counterfactual: aligned batches.
        target: token id of each pair's answer on the clean side.
        foil: token id of its answer on the counterfactual side.
    """

    clean: Batch
    counterfactual: Batch
    target: tuple[int, ...]
    foil: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.clean)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Aligned pairs for finding and proving a circuit. Made by `counterfactual_pairs`.

    Attributes:
        parts: encoded, in batches.
        groups: of each pair; intervals resample these. Pairs that share an image, on whichever side, or that
            are linked by others that do, are one group, named by the clean image of its first pair (of one
            made from another, that one).
        model: name of the model that encoded and answered them.
        left_out: why pairs were left out, one text each.
        fingerprint: of that model's weights; "" if unknown, and then its name alone is compared.
    """

    parts: tuple[PairBatch, ...]
    groups: tuple[str, ...]
    model: str
    left_out: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        for part in self.parts:
            check_aligned(part.clean, part.counterfactual)
            if len({len(part), len(part.target), len(part.foil)}) > 1:
                raise InputError("a part of pairs has a target and a foil for each of its pairs")
        if len(self.groups) != len(self) or not len(self):
            raise InputError(
                f"{len(self.groups)} image ids for {len(self)} pairs; expected one each, and at least one"
            )

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __iter__(self) -> Iterator[PairBatch]:
        return iter(self.parts)

    @property
    def n_groups(self) -> int:
        return len(set(self.groups))

    @property
    def images(self) -> tuple[frozenset[str], ...]:
        """Ids of each pair's images: its group, both sides, and what these were made from.

        A circuit found on any of them was found on this pair. Sides that were encoded without samples
        have no ids of their own.
        """
        sides = ([_samples(b) for b in (part.clean, part.counterfactual)] for part in self.parts)
        both = [pair for clean, other in sides for pair in zip(clean, other, strict=True)]
        return tuple(
            images_of(pair) | {group} for pair, group in zip(both, self.groups, strict=True)
        )

    def seen(self, images: Iterable[str]) -> int:
        """How many groups hold one of these images, or what was made from one or it from that."""
        known = frozenset(images)
        return len({g for g, own in zip(self.groups, self.images, strict=True) if own & known})

    def __repr__(self) -> str:
        left = f", {len(self.left_out)} left out" if self.left_out else ""
        return f"Pairs({len(self)} pairs of {self.n_groups} images{left})"


def counterfactual_pairs(
    model: VLM,
    clean: Sequence[Sample] | Batch,
    counterfactual: Sequence[Sample] | Batch | None = None,
    *,
    target: _Answer = "own",
    foil: _Answer = "own",
    same: Literal["raise", "skip"] = "raise",
    same_question: bool = True,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 16,
) -> Pairs:
    """Encode pairs, and say which answers they are told apart by.

    The measure ``logit_diff`` of a circuit is the target's logit minus the foil's.

    Args:
        model: from ``mechvrp.load``.
        clean: samples, or one encoded batch.
        counterfactual: the same number, in the same order and form: the same image layout and prompt
            lengths. By default the same scene with one digit replaced
            (``mechvrp.data.scene_counterfactual.counterfactual_pair``), which there is for the existence
            and identification samples of the digit scenes.
        target: ``"own"``: the model's greedy answer to the clean sample; ``"right"``: its right one.
        foil: the same of the counterfactual sample.
        same: what to do with pairs whose target is their foil, which no measure tells apart:
            ``"raise"``, or ``"skip"`` (they are named in ``left_out``; not of pairs given as batches).
        same_question: refuse pairs whose sides ask different questions, which position by position
            compare other words and not other pictures; False allows them, of equal length.
        groups: of each pair, those of one group being no independent evidence (`Pairs`); by default found
            out from both sides' image ids. Batches encoded without samples have none. What is given is
            believed: pairs that each take the next one's picture as their other side are all linked, and
            can be resampled only by groups of your own. That a circuit was found on an image is known by both
            sides' ids all the same.
        seed: of the counterfactuals made here.
        batch_size: pairs a batch.

    Raises:
        InputError: pairs that do not align, that ask different questions, or none that can be told apart; a
            batch without samples and no ``groups``.
        DataError: a sample that has no counterfactual of its own.
        UnavailableError: ``"right"`` for a sample without an answer.
    """
    for name, value in (("target", target), ("foil", foil)):
        if value not in ("own", "right"):
            raise InputError(f"{name} is 'own' or 'right'; got {value!r}")
    if same not in ("raise", "skip"):
        raise InputError(f"same is 'raise' or 'skip'; got {same!r}")
    check_model(model)
    checked = check_settings(seed=seed, batch_size=batch_size)
    seed, batch_size = checked["seed"], checked["batch_size"]
    chunks = _chunks(model, clean, counterfactual, seed, batch_size, same_question)
    names = _names([first for first, _ in chunks], groups)
    parts: list[PairBatch] = []
    kept: list[str] = []
    left_out: list[str] = []
    for number, (first, second) in enumerate(chunks):
        check_aligned(first, second)
        targets = _answers(model, first, target)
        foils = _answers(model, second, foil)
        alike = [i for i, (t, f) in enumerate(zip(targets, foils, strict=True)) if t == f]
        for i in alike:
            name = names[number * batch_size + i]
            word = model.tokenizer.decode([targets[i]]) if model.tokenizer else str(targets[i])
            left_out.append(
                f"pair {number * batch_size + i} ({name}): {word!r} is the answer to both"
            )
        if alike and same == "raise":
            raise InputError(
                f"{left_out[0]}, so the measure does not tell its sides apart; give other counterfactuals, "
                "target='right' and foil='right', or leave such pairs out with same='skip'"
            )
        if alike and isinstance(clean, Batch):
            raise InputError(
                f"{left_out[0]}, and pairs given as batches are not taken apart: encode them without it"
            )
        keep = [i for i in range(len(first)) if i not in alike]
        if not keep:
            continue
        if alike:
            first, second = (_only(model, batch, keep) for batch in (first, second))
        parts.append(
            PairBatch(first, second, tuple(targets[i] for i in keep), tuple(foils[i] for i in keep))
        )
        kept += [names[number * batch_size + i] for i in keep]
    if not parts:
        raise InputError(
            f"none of {len(left_out)} pairs has answers that differ: {left_out[0]}; give other pairs"
        )
    made = Pairs(tuple(parts), tuple(kept), model.name, tuple(left_out), fingerprint(model))
    return made if groups is not None else replace(made, groups=connected(kept, made.images))


def _names(batches: Sequence[Batch], groups: Sequence[str] | None) -> list[str]:
    """Each pair's group as given, or else the source of its clean image."""
    n = sum(map(len, batches))
    if groups is not None:
        if isinstance(groups, str) or not all(isinstance(group, str) for group in groups):
            raise InputError(f"groups are image ids, one text for each pair; got {groups!r:.60}")
        if len(groups) != n:
            raise InputError(f"{len(groups)} groups for {n} pairs; expected an image id each")
        return list(groups)
    found = []
    for batch in batches:
        if batch.samples is None:
            raise InputError(
                "a batch encoded without samples does not say which pairs share an image, by which a "
                "circuit is proven on images it was not found on: give groups=, an image id for each pair"
            )
        found += [sample.source_id for sample in batch.samples]
    return found


def _samples(batch: Batch) -> Sequence[Sample | None]:
    return [None] * len(batch) if batch.samples is None else batch.samples


def _chunks(
    model: VLM, clean: Any, counterfactual: Any, seed: int, batch_size: int, same_question: bool
) -> list[tuple[Batch, Batch]]:
    if isinstance(clean, Batch) or isinstance(counterfactual, Batch):
        if not (isinstance(clean, Batch) and isinstance(counterfactual, Batch)):
            raise InputError("give both sides of the pairs as batches, or both as samples")
        if same_question:
            _check_prompts(clean, counterfactual)
        return [(clean, counterfactual)]
    clean = check_samples(clean)
    others = (
        [counterfactual_pair(sample, seed) for sample in clean]
        if counterfactual is None
        else check_samples(counterfactual)
    )
    if len(others) != len(clean):
        raise InputError(f"{len(clean)} clean samples and {len(others)} counterfactuals: no pairs")
    if same_question:
        check_questions(zip(clean, others, strict=True))
    return [
        (model.encode(clean[i : i + batch_size]), model.encode(others[i : i + batch_size]))
        for i in range(0, len(clean), batch_size)
    ]


def _check_prompts(clean: Batch, counterfactual: Batch) -> None:
    """``check_questions`` of batches; where they don't know their samples, of the tokens of their prompts."""
    check_aligned(clean, counterfactual)
    if clean.samples is not None and counterfactual.samples is not None:
        return check_questions(zip(clean.samples, counterfactual.samples, strict=True))
    mine, other = (batch.inputs["input_ids"] for batch in (clean, counterfactual))
    if (differ := (mine != other).any(-1).nonzero()).numel():
        raise InputError(
            f"pair {int(differ[0])} has other words in the prompts of its two sides: {ONE_QUESTION}"
        )


def _answers(model: VLM, batch: Batch, which: _Answer) -> list[int]:
    _, logits = values_of(model, batch, [])
    found: torch.Tensor = (
        logits.argmax(-1) if which == "own" else first_tokens(model, batch, logits)
    )
    return [int(token) for token in found]


def _only(model: VLM, batch: Batch, rows: list[int]) -> Batch:
    assert batch.samples is not None
    # Encoded anew, not cut: inputs list the images of a batch in forms of each family's own.
    return model.encode([batch.samples[i] for i in rows])
