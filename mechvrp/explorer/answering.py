"""Greedy answers of prompts that are edited: not only their first token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from mechvrp.reliability.generation import check_answering, signals_of
from mechvrp.reliability.sampling import Sampling
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.patching.interventions import Edits

__all__ = ["decode_on", "edited_answers"]


def edited_answers(
    model: VLM, batch: Batch, edits: Edits = (), *, max_new_tokens: int = 16
) -> list[str]:
    """Answer each sample greedily from an edited prompt; with no edits, as ``model.generate``.

    The prompts are run once with the edits. What is generated sees the keys and values that they left, and
    is not edited itself: ``positions="all"`` are all positions of the prompt.

    Args:
        model: from ``mechvrp.load``.
        batch: from ``model.encode``.
        edits: interventions.
        max_new_tokens: at which answers are cut.

    Returns:
        The answers alone, stripped.

    Raises:
        SiteError, ShapeError: an edit does not fit.
        NumericalError: the logits are NaN.
        InputError: ``max_new_tokens`` below 1.
        UnavailableError: the checkpoint's generation config changes tokens' scores, or the model has no
            processor.
    """
    check_answering(model, max_new_tokens)
    with Trace(model, batch, options={"logits_to_keep": 1, "use_cache": True}) as t:
        t.apply(edits)
        logits = t.logits[:, -1].save()
        cache = model.envoy.output.past_key_values.save()
    return decode_on(model, batch, logits, cache, max_new_tokens)


def decode_on(
    model: VLM,
    batch: Batch,
    logits: Float[Tensor, "example d_vocab"],
    cache: Any,
    max_new_tokens: int,
) -> list[str]:
    """The greedy answers that go on from a run over the prompts.

    Args:
        model, batch: of the run.
        logits: of the last positions.
        cache: its keys and values; used up.
        max_new_tokens: at which answers are cut.

    Raises:
        NumericalError: the logits are NaN.
    """
    found = signals_of(
        model, batch, logits.float(), cache, sampling=Sampling(k=0), max_new_tokens=max_new_tokens
    )
    return [one.answer.text for one in found]
