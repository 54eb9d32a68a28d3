"""Run the ablations behind an ablation curve: zero top-ranked and random units, score the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from mechvrp.circuits.ranking import Ranking
from mechvrp.data.scoring import is_correct
from mechvrp.errors import InputError, NumericalError, UnavailableError
from mechvrp.patching.interventions import zero
from mechvrp.patching.sweeping import sweep
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = ["AblationOutcomes", "ablate_ranking"]


@dataclass(frozen=True)
class AblationOutcomes:
    """Whether each answer was right, under each ablation.

    Attributes:
        ks: how many units were zeroed.
        clean: [example], without ablation.
        top: [k, example], the top k of the ranking zeroed.
        random: [draw, k, example], k random units zeroed.
    """

    ks: tuple[int, ...]
    clean: np.ndarray
    top: np.ndarray
    random: np.ndarray


def ablate_ranking(
    model: VLM,
    samples: Sequence[Sample],
    ranking: Ranking,
    ks: Sequence[int],
    *,
    draws: int = 20,
    seed: int = 0,
    answers: Sequence[Sequence[int]] | None = None,
    reading: Literal["official", "strict"] = "strict",
    batch_size: int = 64,
    progress: bool = False,
) -> AblationOutcomes:
    """Zero units of a residual-stream site at the last prompt position, and score the greedy answer.

    The answer is read from the first generated token, so every clean answer must be one token long.
    All ablations of a batch are one sweep: what they share is computed once.

    Args:
        model: from ``mechvrp.load``.
        samples: the held-out examples.
        ranking: units of a ``blocks.L.hook_resid_post`` site.
        ks: numbers of units, ascending from 0.
        draws: random sets of each size; draw i is nested over k, as the top units are.
        seed: of the draws.
        answers: token ids of each sample's clean greedy answer, without the end token, where they
            are known; checked to be one token each.
        reading: how yes/no answers are read (``mechvrp.data.score``). Under the official reading
            of POPE whatever is not a no counts as a yes, so a broken answer can be right.

    Raises:
        InputError: the ranking is of another kind of site, or ``ks`` or ``draws`` do not fit it.
        UnavailableError: an answer is longer than one token.
    """
    site = Site.parse(ranking.site).check(model)
    if site.component != "resid_post" or site.layer is None:
        raise InputError(f"ablate_ranking takes a ranking of resid_post units; got one of {site}")
    if list(ks) != sorted(set(ks)) or not ks or not 0 <= ks[0] <= ks[-1] <= model.d_model:
        raise InputError(f"ks must ascend within 0 to {model.d_model}; got {list(ks)}")
    if answers is not None and (long := sum(len(a) != 1 for a in answers)):
        raise UnavailableError(
            f"the ablation curve scores the first generated token, but {long} of {len(answers)} "
            "clean answers are not one token long; it needs a task with one-token answers (polls, "
            "words of the model's vocabulary)"
        )
    random = {k: ranking.random(k, draws, seed) for k in ks}
    chosen = [ranking.top(k) for k in ks]
    chosen += [random[k][draw] for draw in range(draws) for k in ks]
    edits = [
        [zero(site, positions="last", units=units.tolist())] if len(units) else []
        for units in chosen
    ]
    read = _FirstToken(model, reading)
    clean: list[np.ndarray] = []
    outcomes: list[np.ndarray] = []
    for chunk in in_batches(samples, batch_size, progress, "ablating"):
        found = sweep(model, model.encode(chunk), edits, _first_token, progress=False)
        if failed := [error for error in found["error"].values if error]:
            raise NumericalError(f"{len(failed)} of {len(edits)} ablations failed: {failed[0]}")
        clean.append(read(chunk, found["base__first_token"].values[None])[0])
        outcomes.append(read(chunk, found["_first_token"].values))
    joined = np.concatenate(outcomes, axis=-1).reshape(draws + 1, len(ks), -1)
    return AblationOutcomes(tuple(ks), np.concatenate(clean), joined[0], joined[1:])


def _first_token(logits: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The greedy token [variant, example]; whole numbers of up to 24 bits are exact in float32."""
    return logits.argmax(-1).float()


class _FirstToken:
    """Whether the greedy first token, read as an answer, is right by the benchmark's own rule."""

    def __init__(self, model: VLM, reading: Literal["official", "strict"]) -> None:
        self._reading = reading
        self._tokenizer = model.tokenizer
        self._texts: dict[int, str] = {}

    def __call__(self, samples: Sequence[Sample], tokens: np.ndarray) -> np.ndarray:
        """[variant, example] booleans of such token ids."""
        known: dict[tuple[int, int], bool] = {}
        found = np.empty(tokens.shape, dtype=bool)
        for (variant, i), token in np.ndenumerate(tokens.astype(np.int64)):
            key = (i, int(token))
            if key not in known:
                known[key] = is_correct(samples[i], self._text(int(token)), reading=self._reading)
            found[variant, i] = known[key]
        return found

    def _text(self, token: int) -> str:
        if token not in self._texts:
            text = self._tokenizer.decode([token], skip_special_tokens=True)
            self._texts[token] = text.strip()
        return self._texts[token]
