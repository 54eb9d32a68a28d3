"""Which clean answers are one token long: where the first token, which curves score, is the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mechvrp.errors import InputError
from mechvrp.models.answering import GREEDY
from mechvrp.models.vlm import VLM
from mechvrp.tracing.sending import Remote, away

if TYPE_CHECKING:
    from mechvrp.models import Batch
    from mechvrp.patching.execution import Runner

__all__ = ["AnswerLengths", "SomeLongerError", "generates_the_likeliest"]

#: What a generation config may hold and still generate the likeliest token each time.
_HARMLESS = {
    *GREEDY,
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("max_length", "max_new_tokens", "use_cache", "return_dict_in_generate"),
    *("output_attentions", "output_hidden_states", "transformers_version", "_from_model_config"),
}


class SomeLongerError(Exception):
    """Not every clean answer of a batch is one token long."""


def generates_the_likeliest(model: VLM) -> bool:
    """Whether greedy generation with the checkpoint's config takes the tokens of largest logit."""
    return set(model.model.generation_config.to_diff_dict()) <= _HARMLESS


class AnswerLengths:
    """Learns which answers end behind their first token, from generation or from a clean run.

    Attributes:
        first: ``[example]``, the first token of each clean answer.
        one: ``[example]``, whether the answer ends behind it.

    Raises:
        InputError: the model has no end-of-answer token, or ends answers at strings.
    """

    first: np.ndarray
    one: np.ndarray

    def __init__(self, model: VLM) -> None:
        self._model = model
        self._ends = model.model.generation_config.eos_token_id
        if self._ends is None:
            raise InputError(
                f"{model.name} has no end-of-answer token, so the length of its answers is unknown: give "
                "answer_tokens="
            )
        if stops := model.model.generation_config.stop_strings:
            raise InputError(
                f"{model.name} ends answers at {stops!r} (stop_strings of its generation config), not at a "
                "token of its own, so whether one is a token long can't be told: give answer_tokens=, or "
                "set model.model.generation_config.stop_strings = None"
            )

    def generate(self, batch: Batch, remote: Remote = False) -> None:
        """From two generated tokens; ``remote`` as ``mechvrp.trace``."""
        ids = away(self._model, remote, VLM.generate_ids, batch, max_new_tokens=2)
        self._put(ids.cpu().numpy())

    def __call__(self, clean: Runner) -> None:
        """From a sweep's clean run, before any variant's: one more token, from its keys and values.

        Raises:
            SomeLongerError: some answer is not one token long.
        """
        first = clean.logits.argmax(-1)
        second = clean.logits_behind(first).argmax(-1)
        self._put(np.stack([first.cpu().numpy(), second.cpu().numpy()], axis=1))
        if not self.one.all():
            raise SomeLongerError

    def _put(self, ids: np.ndarray) -> None:
        ended = np.isin(ids, self._ends)
        self.first = ids[:, 0]
        # Generation of one token only means that all answers ended before their first word.
        self.one = ~ended[:, 0] & (ended[:, 1] if ids.shape[1] > 1 else False)
