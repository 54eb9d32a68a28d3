"""Right or wrong by the first generated token: how every intervention's answers are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from mechvrp.data.scoring import is_correct
from mechvrp.errors import UnavailableError
from mechvrp.patching.sweeping import MEMORY, sweep
from mechvrp.tracing.sending import Remote

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch
    from mechvrp.patching.execution import Runner

__all__ = ["FAILED", "AnswerReader", "Scored", "sweep_answers"]

#: What stands for an answer that could not be had, beside 1 (right) and 0 (wrong).
FAILED = -1


@dataclass(frozen=True)
class Scored:
    """Answers of one sweep.

    Attributes:
        clean: booleans [example], right without any edit.
        answers: [variant, example], 1 right, 0 wrong, -1 where the variant failed.
        errors: [variant], why it failed, "" where it didn't.
        attention: [variant, example, layer, position], where it was asked for, else None.
        clean_attention: [example, layer, position], likewise.
        more: other measures by name, each [variant, example] and clean [example].
        tokens: [example], the clean run's greedy first tokens.
    """

    clean: np.ndarray
    answers: np.ndarray
    errors: tuple[str, ...]
    attention: np.ndarray | None = None
    clean_attention: np.ndarray | None = None
    more: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    tokens: np.ndarray | None = None


class AnswerReader:
    """Whether the greedy first token, read as an answer, is right by the benchmark's own rule.

    Only where the clean answer is one token long is that token the answer.

    Args:
        model: whose tokenizer reads.
        reading: how yes/no answers are read (``mechvrp.data.score``). Under the official reading of POPE
            whatever is not a no counts as a yes, so a broken answer can be right.
    """

    def __init__(self, model: VLM, reading: Literal["official", "strict"] = "strict") -> None:
        if model.tokenizer is None:
            raise UnavailableError(f"{model.name} has no tokenizer, so its answers can't be read")
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


def sweep_answers(
    model: VLM,
    batch: Batch,
    variants: Sequence[Any],
    read: AnswerReader,
    *,
    attention: bool = False,
    more: Mapping[str, Any] | None = None,
    memory: int = MEMORY,
    on_clean: Callable[[Runner], None] | None = None,
    remote: Remote = False,
) -> Scored:
    """Right or wrong under each variant, and what a failed one's error was.

    Args:
        model, batch, variants, memory, on_clean, remote: as ``mechvrp.sweep``; the batch is of samples.
        read: scores the first tokens.
        attention: also give the last position's attention (``sweep``'s measure of that name).
        more: other measures of ``sweep``, by name.

    Raises:
        InputError: all variants failed.
    """
    import warnings

    assert batch.samples is not None
    measures: Mapping[str, Any] = {"first_token": _first_token}
    if attention:
        measures = {**measures, "attention": "attention"}
    measures = {**measures, **(more or {})}
    with warnings.catch_warnings():
        # Failed variants are in the result, by name; whoever asked decides what they mean.
        warnings.filterwarnings(
            "ignore", message=r".*variants have no values", category=UserWarning
        )
        found = sweep(
            model,
            batch,
            variants,
            measures,
            memory=memory,
            progress=False,
            on_clean=on_clean,
            remote=remote,
        )
    errors = tuple(str(error) for error in found["error"].values)
    good = np.array([not error for error in errors])
    answers = np.full((len(errors), len(batch)), FAILED, dtype=np.int8)
    answers[good] = read(batch.samples, found["first_token"].values[good])
    tokens = found["base_first_token"].values
    return Scored(
        clean=read(batch.samples, tokens[None])[0],
        answers=answers,
        errors=errors,
        attention=found["attention"].values if attention else None,
        clean_attention=found["base_attention"].values if attention else None,
        more={name: (found[name].values, found[f"base_{name}"].values) for name in more or {}},
        tokens=tokens.astype(np.int64),
    )


def _first_token(logits: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The greedy token [variant, example]; whole numbers of up to 24 bits are exact in float32."""
    return logits.argmax(-1).float()
