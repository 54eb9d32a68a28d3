"""What an intervention does to one example's answer: the probabilities of its first token, before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechvrp.errors import NumericalError

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["Outcome", "Word", "outcome_of", "word_of"]

Kind = Literal["clean", "ablated", "patched"]


@dataclass(frozen=True)
class Word:
    """A token that the answer can begin with.

    Attributes:
        token: its id.
        text: as the tokenizer spells it.
        before: its probability in the clean run, 0 to 1.
        after: in the run with the intervention; None where there is none.
        right: whether the benchmark's answer begins with it.
    """

    token: int
    text: str
    before: float
    after: float | None
    right: bool


@dataclass(frozen=True)
class Outcome:
    """One example, clean or under an intervention.

    Attributes:
        kind: ``"clean"``, ``"ablated"`` or ``"patched"``.
        example: number in the dataset.
        what: what was done, in words; empty of the clean run.
        words: the likeliest first tokens of either run, and the right one; most probable before first.
        margin_before, margin_after: logit of the clean run's first token minus the best other's (in the
            run itself); after is below 0 where another token has taken its place.
        answer_before, answer_after: the whole greedy answers; what is generated behind an edited prompt is
            not edited itself. None where there is none.
        no_answers: why whole answers cannot be had; empty where they can.
        reliability_before, reliability_after: a probe's probability that the answer is right, read in
            the run; None without a probe.
        code: Python that gives the same numbers; ``model`` and ``dataset`` are those of the explorer.
    """

    kind: Kind
    example: int
    what: str
    words: tuple[Word, ...]
    margin_before: float
    margin_after: float | None
    answer_before: str | None
    answer_after: str | None
    no_answers: str
    reliability_before: float | None
    reliability_after: float | None
    code: str

    @property
    def first(self) -> Word:
        """The clean run's first token."""
        return max(self.words, key=lambda word: word.before)

    @property
    def first_after(self) -> Word:
        """The first token under the intervention (of a clean outcome, the clean run's)."""
        if self.kind == "clean":
            return self.first
        return max(self.words, key=lambda word: word.after or 0.0)

    @property
    def changed(self) -> bool:
        """Whether the answer begins with another token."""
        return self.first.token != self.first_after.token


def outcome_of(
    model: VLM,
    kind: Kind,
    example: int,
    before: Float[Tensor, " d_vocab"],
    after: Float[Tensor, " d_vocab"] | None,
    right: int | None,
    *,
    shown: int = 5,
    **more: Any,
) -> Outcome:
    """Numbers of one example from its logits, float32.

    Args:
        model: whose tokenizer spells.
        kind, example: as in ``Outcome``.
        before, after: logits of the last prompt position.
        right: the token that the benchmark's answer begins with.
        shown: how many of the likeliest tokens of each run.
        more: other attributes.

    Raises:
        NumericalError: NaN or infinity in the logits.
    """
    for logits in (before, after):
        if logits is not None and not bool(torch.isfinite(logits).all()):
            raise NumericalError(
                f"{more.get('what') or 'the clean run'} gives NaN or infinite logits for example {example}"
            )
    first = before.softmax(-1)
    second = None if after is None else after.softmax(-1)
    tokens = {int(t) for p in (first, second) if p is not None for t in p.topk(shown).indices}
    if right is not None:
        tokens.add(right)
    ordered = sorted(tokens, key=lambda t: (-float(first[t]), t))
    own = int(before.argmax())
    return Outcome(
        kind=kind,
        example=example,
        words=tuple(
            Word(
                t,
                word_of(model, t),
                float(first[t]),
                None if second is None else float(second[t]),
                t == right,
            )
            for t in ordered
        ),
        margin_before=_margin(before, own),
        margin_after=None if after is None else _margin(after, own),
        **more,
    )


def word_of(model: VLM, token: int) -> str:
    """How a token is shown; spaces in front are kept, line ends and unprintable ones are escaped."""
    text = str(model.tokenizer.decode([token])) if model.tokenizer is not None else ""
    if not text.strip():
        return repr(text) if text else f"token {token}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _margin(logits: Tensor, token: int) -> float:
    others = logits.clone()
    others[token] = float("-inf")
    return float(logits[token] - others.max())
