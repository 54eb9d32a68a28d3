"""Which two tokens an answer's margin is between: the answer's own, and its nearest rival's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvrp.errors import UnavailableError
from mechvrp.patching.measures import first_token, ways_to_begin

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM

__all__ = ["own_pair", "reads_as", "right_pair", "runner_up"]


def own_pair(model: VLM, logits: Float[Tensor, "example d_vocab"]) -> tuple[Tensor, Tensor]:
    """The model's own first token and its runner-up, [example] each.

    The runner-up is the likeliest token that reads otherwise: ``" Yes"`` is no rival of ``"yes"``.
    """
    token = logits.argmax(-1)
    foils = [
        runner_up(model, row, {reads_as(model, own)})
        for row, own in zip(logits, token.tolist(), strict=True)
    ]
    return token, torch.tensor(foils, device=token.device)


def right_pair(
    model: VLM, samples: Sequence[Sample], logits: Float[Tensor, "example d_vocab"]
) -> tuple[Tensor, Tensor]:
    """The first token of each right answer and its foil, [example] each; -1 for samples without answers.

    The token is that of ``target="right"`` in sweeps: of the ways to begin the answer that the model's
    own tokenizer has, the one the model finds likeliest. The foil is the likeliest token that reads
    otherwise than all of these ways, fixed by the same logits for all depths: the model's own
    answer where that is wrong, its runner-up where it is right.

    Raises:
        UnavailableError: no tokenizer, or no token that begins an answer.
    """
    if model.tokenizer is None:
        raise UnavailableError(
            f"{model.name} was loaded without a processor, so right answers have no tokens; give one to "
            "mechvrp.load(model, processor=...)"
        )
    tokens, foils = [], []
    for sample, row in zip(samples, logits, strict=True):
        if not sample.answer.strip():
            tokens.append(-1)
            foils.append(-1)
            continue
        tokens.append(first_token(model, sample, row))
        ways = {reads_as(model, way) for way in ways_to_begin(model, sample)}
        foils.append(runner_up(model, row, ways))
    return torch.tensor(tokens, device=logits.device), torch.tensor(foils, device=logits.device)


def reads_as(model: VLM, token: int) -> str | int:
    """What a token reads as, space and case left out; its id where it is no text of its own."""
    if model.tokenizer is None:
        return token
    text = model.tokenizer.decode([token]).strip().lower()
    return text if text and "\ufffd" not in text else token


def runner_up(model: VLM, logits: Tensor, taken: set[str | int]) -> int:
    """The likeliest token that reads as none of ``taken``."""
    width = min(16, len(logits))
    while True:
        for token in logits.topk(width).indices.tolist():
            if reads_as(model, token) not in taken:
                return int(token)
        if width == len(logits):
            raise UnavailableError(f"every token of {model.name} reads as one of {sorted(taken)}")
        width = min(8 * width, len(logits))
