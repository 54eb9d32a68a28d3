"""Greedy answers, and the model's own probability of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mechvrp.models.checks import check_model
from mechvrp.tracing.caching import in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = ["Answer", "greedy_answers"]


@dataclass(frozen=True)
class Answer:
    """One greedy answer.

    Attributes:
        text: the answer alone, stripped.
        tokens: its token ids, end token excluded.
        log_probability: sum of the log-probabilities of ``tokens``, in nats; of an empty answer, that
            of the end token.
    """

    text: str
    tokens: tuple[int, ...]
    log_probability: float

    @property
    def probability(self) -> float:
        """The model's probability of these tokens after the prompt, 0 to 1."""
        return float(torch.tensor(self.log_probability).exp())


def greedy_answers(
    model: VLM,
    samples: Iterable[Sample],
    *,
    batch_size: int = 32,
    max_new_tokens: int = 16,
    progress: bool = False,
) -> list[Answer]:
    """Answer each sample greedily.

    Raises:
        NumericalError: the model's logits are NaN or infinite.
    """
    check_model(model)
    answers: list[Answer] = []
    for chunk in in_batches(samples, batch_size, progress, "answering"):
        batch = model.encode(chunk)
        # Logits of every step are kept by generate, so that tokens are scored as they were chosen.
        out = model.generate_output(
            batch, max_new_tokens=max_new_tokens, return_dict_in_generate=True, output_logits=True
        )
        ids = out.sequences[:, batch.tokens.length :]
        logits = torch.stack(out.logits, dim=1).float()
        chosen = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        ends = _end_tokens(model)
        for row, scores in zip(ids.tolist(), chosen.tolist(), strict=True):
            length = next((i for i, token in enumerate(row) if token in ends), len(row))
            total = float(sum(scores[: max(length, 1)]))
            text = model.tokenizer.decode(row[:length], skip_special_tokens=True)
            answers.append(Answer(text.strip(), tuple(row[:length]), total))
    return answers


def _end_tokens(model: VLM) -> set[int]:
    ids = model.model.generation_config.eos_token_id
    return set(ids) if isinstance(ids, (list, tuple)) else {ids}
