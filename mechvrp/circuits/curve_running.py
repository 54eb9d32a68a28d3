"""Run the sets of an ablation curve: batch by batch, each set of units once, all through the sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvrp.circuits.answer_lengths import AnswerLengths, SomeLongerError, generates_the_likeliest
from mechvrp.circuits.first_token import AnswerReader, Scored, sweep_answers
from mechvrp.circuits.probe_scores import ProbeReading
from mechvrp.circuits.ranking import Ranking
from mechvrp.circuits.unit_stand_ins import StandIn
from mechvrp.errors import NumericalError, UnavailableError
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sending import Remote

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch

__all__ = ["Ran", "run_sets"]


@dataclass(frozen=True, eq=False)
class Ran:
    """Outcomes of the examples that could be scored.

    Attributes:
        kept: ``[example]``, their places among the samples.
        clean: by measure, ``[example]``.
        values: by measure and set of units, ``[draw, k, example]``.
        long: samples left out since their clean answer is not one token long.
        differ: samples left out since generation began with another token than this forward.
        variants: different sets of units that were run.
    """

    kept: np.ndarray
    clean: dict[str, np.ndarray]
    values: dict[str, dict[str, np.ndarray]]
    long: int
    differ: int
    variants: int


def run_sets(
    model: VLM,
    samples: Sequence[Sample],
    ranking: Ranking,
    sets: Mapping[str, Sequence[Sequence[np.ndarray]]],
    standing: StandIn,
    *,
    probe: ProbeReading | None = None,
    answer_tokens: Sequence[int] | None = None,
    reading: Any = "strict",
    batch_size: int = 128,
    progress: bool = False,
    remote: Remote = False,
) -> Ran:
    """Accuracy, the answer's logit and margin and the probe's score of every sample under every set.

    A set that comes several times (of all units, of none) is run once.

    Args:
        model, samples, ranking: what is ablated.
        sets: by name, rows of the ranking ``[draw][k]``.
        standing: what stands in the place of units, and where.
        probe: read along, if given.
        answer_tokens: tokens of each clean answer; None: a second token is generated to see.
        reading: of yes/no answers.
        batch_size, progress, remote: of the run.

    Raises:
        UnavailableError: no clean answer is one token long.
        NumericalError: a set gave no answer: NaN or infinite logits.
        InputError: the edits cannot be made (the message is the engine's), or no token ends answers.
    """
    if model.tokenizer is None:
        raise UnavailableError(f"{model.name} has no tokenizer, so its answers can't be read")
    read = AnswerReader(model, reading)
    number: dict[frozenset[int], int] = {}
    places = {
        name: np.array(
            [
                [number.setdefault(frozenset(map(int, rows)), len(number)) for rows in draw]
                for draw in draws
            ]
        )
        for name, draws in sets.items()
    }
    rows = [np.array(sorted(chosen), dtype=np.int64) for chosen in number]
    units = [ranking.units[chosen] for chosen in rows]
    more: dict[str, Any] = {"logit": "logit", "margin": "logit_diff"}
    if probe is not None and not probe.own:
        more["probe"] = probe.measure()
    lengths = AnswerLengths(model) if answer_tokens is None else None
    # The sweep's clean run goes on to a second token, unless generation takes others than the likeliest, or
    # values must not be asked for of samples that are left out: they may have no donor.
    shared = not remote and standing.mode != "resample" and generates_the_likeliest(model)

    def sweep_of(batch: Batch, lengths: AnswerLengths | None = None) -> tuple[Any, Scored]:
        values = standing.values(model, batch)
        edits = [ranking.edits(chosen, values, positions=standing.positions) for chosen in rows]
        return values, sweep_answers(
            model, batch, edits, read, more=more, on_clean=lengths, remote=remote
        )

    kept: list[int] = []
    clean: dict[str, list[np.ndarray]] = {}
    found: dict[str, list[np.ndarray]] = {}
    long = differ = done = 0
    for chunk in in_batches(samples, batch_size, progress, "ablating"):
        here = np.arange(done, done + len(chunk))
        done += len(chunk)
        batch = scored = None
        if lengths is None:
            assert answer_tokens is not None
            one = np.array([answer_tokens[int(i)] == 1 for i in here])
        else:
            batch = model.encode(chunk)
            batch.tokens.resolve(standing.positions)  # out of range: an error before the model runs
            try:
                if shared:
                    values, scored = sweep_of(batch, lengths)
                else:
                    lengths.generate(batch, remote)
            except SomeLongerError:
                pass  # the others are swept without them
            one = lengths.one
        long += int((~one).sum())
        if not one.any():
            continue
        # Images are opened and encoded once, unless some are left out: then the padding can be another.
        if batch is None or not one.all():
            batch = model.encode([sample for sample, good in zip(chunk, one, strict=True) if good])
            batch.tokens.resolve(standing.positions)
        if scored is None:
            values, scored = sweep_of(batch)
        if failed := [error for error in scored.errors if error]:
            raise NumericalError(f"{len(failed)} of {len(rows)} sets failed: {failed[0]}")
        assert scored.tokens is not None
        # Rounding: a prompt in another batch can have another best token where two are all but equal.
        same = np.ones(len(batch), bool) if lengths is None else scored.tokens == lengths.first[one]
        differ += int((~same).sum())
        kept += here[one][same].tolist()
        measured = {"accuracy": (scored.answers == 1, scored.clean), **scored.more}
        if probe is not None and probe.own:
            measured["probe"] = probe.worked_out(
                model, batch, units, values, standing.positions, remote
            )
        for name, (after, before) in measured.items():
            clean.setdefault(name, []).append(before[same])
            found.setdefault(name, []).append(after[:, same])
    if not kept:
        raise UnavailableError(
            f"none of {done} clean answers is one token long, and a curve scores the first token: use "
            "questions with one-token answers (polls, words of the model's vocabulary)"
            if done
            else "no samples to ablate units on"
        )
    return Ran(
        kept=np.array(kept),
        clean={name: np.concatenate(parts) for name, parts in clean.items()},
        values={
            name: {which: np.concatenate(parts, axis=1)[at] for which, at in places.items()}
            for name, parts in found.items()
        },
        long=long,
        differ=differ,
        variants=len(rows),
    )
