"""Generation signals: how sure an answer is, and whether it is given again. All from one prefill.

The greedy answer and the K sampled ones continue the same keys and values, and continuations that are
the same so far are computed once: where a model is sure, K samples cost little more than one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechvrp.data import normalise_answer
from mechvrp.errors import NumericalError, UnavailableError
from mechvrp.models.checks import check_model
from mechvrp.models.rotations import check_rotations
from mechvrp.reliability.answers import Answer, _end_tokens
from mechvrp.reliability.continuing import Continuations, check_plain_decoding, prefill
from mechvrp.reliability.majority import expected_majority_share, majority_share
from mechvrp.reliability.sampling import Nuclei, Sampling, nuclei_of
from mechvrp.statistics.checks import check_count

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch

__all__ = [
    "AnswerSignals",
    "Normalise",
    "logit_entropy",
    "observe_answers",
    "signals_of",
    "token_confidence",
]

#: Says what an answer to a sample's question comes to, so that answers can be compared.
Normalise = Callable[["Sample", str], str]

#: Nuclei of the first token up to this wide are looked at in full, for the expected self-consistency.
_WIDEST = 16


@dataclass(frozen=True)
class AnswerSignals:
    """One example's greedy answer and what was sampled beside it.

    Attributes:
        answer: greedy.
        logit_entropy: of the first answer token's distribution, in nats.
        samples: the sampled answers as text, stripped; those of ``k`` draws.
        votes: the same, normalised.
        self_consistency: the share of the majority among ``votes``; ``None`` without samples.
        expected_self_consistency: what it is on average over draws, exact; ``None`` where an answer that
            can be sampled is longer than one token, where more than 16 tokens can be, or without
            samples.
    """

    answer: Answer
    logit_entropy: float
    samples: tuple[str, ...]
    votes: tuple[str, ...]
    self_consistency: float | None
    expected_self_consistency: float | None

    @property
    def token_confidence(self) -> float:
        """P_tok: ``token_confidence`` of the greedy answer."""
        return token_confidence(self.answer)


def token_confidence(answer: Answer) -> float:
    """P_tok: mean log-probability of the answer's tokens, end token excluded, in nats (at most 0).

    Source: arXiv 2605.08200. Of an empty answer, the log-probability of its end token.
    """
    return answer.log_probability / max(len(answer.tokens), 1)


def logit_entropy(logits: Float[Tensor, "*batch d_vocab"]) -> Float[Tensor, "*batch"]:
    """Entropy of the softmax of the logits, -sum p log p over the vocabulary, in nats.

    Raises:
        NumericalError: a logit is NaN.
    """
    if bool(logits.isnan().any()):
        raise NumericalError("the logits hold NaN: they have no entropy")
    logs = logits.float().log_softmax(-1)
    # A token of probability 0 adds nothing; its logarithm is minus infinity.
    return -(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(-1)


def observe_answers(
    model: VLM,
    batch: Batch,
    k: int = 10,
    *,
    temperature: float = 0.7,
    top_p: float = 0.9,
    seed: int = 0,
    max_new_tokens: int = 16,
    normalise: Normalise | None = None,
) -> list[AnswerSignals]:
    """Greedy answers and ``k`` sampled ones of a batch, from one prefill.

    Greedy answers are those of ``greedy_answers``. The same sample gets the same draws in any batch.

    Args:
        model: from ``mechvrp.load``.
        batch: from ``model.encode``.
        k: sampled answers each; 0 for none.
        temperature, top_p, seed: as ``Sampling``.
        max_new_tokens: at which answers are cut.
        normalise: of sample and text; by default ``mechvrp.data.normalise_answer`` of the text.

    Raises:
        InputError: a setting out of its range.
        UnavailableError: the batch has no samples, or the checkpoint changes scores when it decodes.
        NumericalError: the model's logits hold NaN.
    """
    sampling = Sampling(k, temperature, top_p, seed)
    check_answering(model, max_new_tokens)
    logits, cache = prefill(model, batch)
    return signals_of(
        model,
        batch,
        logits,
        cache,
        sampling=sampling,
        max_new_tokens=max_new_tokens,
        normalise=normalise,
    )


def check_answering(model: VLM, max_new_tokens: int) -> None:
    """Refuse, before any compute, what ``signals_of`` cannot do."""
    check_model(model)
    check_count(max_new_tokens, "max_new_tokens")
    if model.tokenizer is None:
        raise UnavailableError(
            f"{model.name} was loaded without a processor, so its answers cannot be read; give one to "
            "mechvrp.load(model, processor=...)"
        )
    check_plain_decoding(model)


def signals_of(
    model: VLM,
    batch: Batch,
    logits: Float[Tensor, "example d_vocab"],
    cache: Any,
    *,
    sampling: Sampling,
    max_new_tokens: int,
    normalise: Normalise | None = None,
) -> list[AnswerSignals]:
    """``observe_answers`` of a prefill that was already made.

    Args:
        logits: of the last prompt positions.
        cache: the prefill's keys and values; used up.
        model, batch, sampling, max_new_tokens, normalise: as there.
    """
    if batch.samples is None:
        raise UnavailableError(
            "the batch holds no samples, by which draws and answers are told apart; encode samples with "
            "model.encode"
        )
    check_rotations(model.model, batch.inputs, max_new_tokens)
    entropies = logit_entropy(logits).tolist()
    tree = _Tree(model, batch, sampling, max_new_tokens)
    tree.grow(logits, cache)

    def vote(sample: Sample, text: str) -> str:
        return normalise_answer(text) if normalise is None else normalise(sample, text)

    found = []
    for i, sample in enumerate(batch.samples):
        greedy, *others = tree.paths[i]
        texts = tuple(tree.text(tuple(path)) for path in others)
        votes = tuple(vote(sample, text) for text in texts)
        expected = None
        if sampling.k and (distribution := tree.one_token_answers(i)) is not None:
            shares: dict[str, float] = {}
            for token, p in distribution:
                word = vote(sample, tree.text(() if token in tree.ends else (token,)))
                shares[word] = shares.get(word, 0.0) + p
            expected = expected_majority_share(list(shares.values()), sampling.k)
        answer = Answer(tree.text(tuple(greedy)), tuple(greedy), tree.scores[i])
        consistency = majority_share(votes) if votes else None
        found.append(AnswerSignals(answer, entropies[i], texts, votes, consistency, expected))
    return found


@dataclass
class _Tree:
    """The continuations of every prompt of a batch: path 0 is greedy, the others are sampled.

    Attributes:
        paths: the tokens of each path of each example, end token excluded.
        scores: log-probability of the greedy path's tokens; of an empty one, of its end token.
        ends: the model's end tokens.
    """

    model: VLM
    batch: Batch
    sampling: Sampling
    steps: int
    paths: list[list[list[int]]] = field(init=False)
    scores: list[float] = field(init=False)
    ends: set[int] = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.batch)
        self.ends = _end_tokens(self.model)
        self.paths = [[[] for _ in range(self.sampling.k + 1)] for _ in range(n)]
        self.scores = [0.0] * n
        self._texts: dict[tuple[int, ...], str] = {}
        # Of each example the nucleus of its first token, and whether all that follows is the end.
        self._first: list[list[tuple[int, float]] | None] = [None] * n
        self._ended: list[bool] = [self.steps == 1] * n

    def grow(self, logits: Tensor, cache: Any) -> None:
        """Decode until every path has ended or is as long as it may be."""
        uniforms = self.sampling.uniforms(self.batch, self.steps)
        rows = Continuations(self.model, self.batch, cache)
        # Where each path that has not ended stands: (example, path) at a row.
        at = {(i, p): i for i in range(len(self.batch)) for p in range(self.sampling.k + 1)}
        for step in range(self.steps):
            if bool(logits.isnan().any()):
                raise NumericalError(
                    f"{self.model.name} gave NaN logits for a batch of {len(self.batch)} samples"
                )
            nuclei = self._nuclei(logits)
            if step == 1 and nuclei is not None:
                self._look_ahead(rows.example, nuclei)
            moved = self._take(at, logits, nuclei, uniforms[:, step])
            if step == 0 and nuclei is not None:
                moved |= self._all_first(nuclei)
            if step + 1 == self.steps or not moved:
                return
            # One row for what several paths have in common.
            places = {node: row for row, node in enumerate(dict.fromkeys(moved.values()))}
            at = {path: places[node] for path, node in moved.items() if path[1] >= 0}
            parents, tokens = zip(*places, strict=True)
            logits = rows.feed(parents, tokens)

    def _nuclei(self, logits: Tensor) -> Nuclei | None:
        if not self.sampling.k:
            return None
        return nuclei_of(logits, self.sampling.temperature, self.sampling.top_p)

    def _take(
        self,
        at: dict[tuple[int, int], int],
        logits: Tensor,
        nuclei: Nuclei | None,
        uniforms: np.ndarray,
    ) -> dict[tuple[int, int], tuple[int, int]]:
        """One token more for each path; of those that go on, the row they stood at and the token."""
        best = logits.argmax(-1)
        scores = logits.log_softmax(-1).gather(-1, best[:, None])[:, 0].tolist()
        chosen = best.tolist()
        drawn: list[list[int]] = []
        if nuclei is not None:
            # Rows belong to one example each, whose draws are all tried there.
            owner = np.zeros(len(chosen), dtype=int)
            for (i, _), row in at.items():
                owner[row] = i
            drawn = nuclei.draw(torch.from_numpy(uniforms[owner])).tolist()
        moved = {}
        for (i, path), row in at.items():
            token = drawn[row][path - 1] if path else chosen[row]
            tokens = self.paths[i][path]
            if path == 0 and (token not in self.ends or not tokens):
                self.scores[i] += scores[row]
            if token in self.ends:
                continue
            tokens.append(token)
            moved[i, path] = row, token
        return moved

    def _all_first(self, nuclei: Nuclei) -> dict[tuple[int, int], tuple[int, int]]:
        """Every first token that can be drawn, as paths that are numbered below 0 and end there."""
        found = {}
        counts = nuclei.counts.tolist()
        for i, count in enumerate(counts):
            if count > _WIDEST:
                continue
            tokens = nuclei.tokens[i, :count].tolist()
            shares = nuclei.probabilities[i, :count].tolist()
            self._first[i] = list(zip(tokens, shares, strict=True))
            self._ended[i] = True  # until a token turns out to be followed by something else
            for rank, token in enumerate(tokens):
                if token not in self.ends:
                    found[i, -1 - rank] = i, token
        return found

    def _look_ahead(self, example: Sequence[int], nuclei: Nuclei) -> None:
        counts = nuclei.counts.tolist()
        for row, i in enumerate(example):
            if not set(nuclei.tokens[row, : counts[row]].tolist()) <= self.ends:
                self._ended[i] = False

    def one_token_answers(self, example: int) -> list[tuple[int, float]] | None:
        """The distribution of an example's first token, if no answer that can be drawn is longer."""
        return self._first[example] if self._ended[example] else None

    def text(self, path: tuple[int, ...]) -> str:
        """An answer as ``greedy_answers`` reads it."""
        if path not in self._texts:
            text = self.model.tokenizer.decode(list(path), skip_special_tokens=True)
            self._texts[path] = text.strip()
        return self._texts[path]
