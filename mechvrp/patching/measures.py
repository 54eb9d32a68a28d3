"""Measures: numbers from the logits of the last prompt position."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvrp.data import Sample, is_correct
from mechvrp.errors import InputError, ShapeError, UnavailableError
from mechvrp.models.checks import listing

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch
    from mechvrp.tracing.tracer import Trace

__all__ = [
    "MEASURES",
    "Measure",
    "Measuring",
    "Reading",
    "Target",
    "as_measures",
    "first_token",
    "first_tokens",
    "fixed_target",
    "one_measure",
    "split_measures",
    "towards",
    "ways_to_begin",
]

#: Coordinates of a sweep's result, which no measure can be called.
_TAKEN = (
    "variant",
    "example",
    "vocab",
    "layer",
    "position",
    "description",
    "error",
    "target",
    "image_id",
)

#: A named measure, or a function of logits [variant, example, d_vocab] and clean logits
#: [example, d_vocab] that gives [variant, example].
Measure = str | Callable[[Tensor, Tensor], Tensor]

#: A function of the trace of one run that gives [example, ...].
Reading = Callable[["Trace"], Tensor]

#: Which token an answer's logit is of: the model's own clean answer, the right one, or given ids.
Target = Literal["own", "right"] | Int[Tensor, " example"] | Sequence[int]

MEASURES = {
    "logit": "logit of the target token",
    "probability": "probability of the target token",
    "logit_diff": "logit of the target token minus that of the foil, by default the best other token",
    "correct": "whether the greedy first token, read as an answer, is right by the benchmark's rule",
    "kl": "Kullback-Leibler divergence of the clean run's distribution from this one's, in nats",
    "logits": "all logits of the last prompt position",
    "attention": "attention of the last prompt position, mean over heads, by layer and position",
}


def first_tokens(model: VLM, batch: Batch, logits: Float[Tensor, "example d_vocab"]) -> Tensor:
    """The first token of each sample's right answer, [example].

    Of the ways to begin it (with and without a space, in lower case or capitalised) the one that the
    clean run finds likeliest.

    Raises:
        UnavailableError: the batch has no samples, a sample has no answer, or no way of beginning it is
            a word of its own.
    """
    if batch.samples is None or model.tokenizer is None:
        raise UnavailableError(
            "the right answers are unknown: encode samples with model.encode, or give target token ids"
        )
    found = [
        first_token(model, sample, row) for sample, row in zip(batch.samples, logits, strict=True)
    ]
    return torch.tensor(found, device=logits.device)


def first_token(model: VLM, sample: Sample, logits: Float[Tensor, " d_vocab"]) -> int:
    """``first_tokens`` of one sample: of ``ways_to_begin`` its answer, the likeliest."""
    return max(ways_to_begin(model, sample), key=lambda i: float(logits[i]))


def ways_to_begin(model: VLM, sample: Sample) -> set[int]:
    """Tokens that a sample's right answer can begin with, by the model's own tokenizer.

    Raises:
        UnavailableError: as ``first_tokens``.
    """
    if not sample.answer.strip():
        raise UnavailableError(f"{sample!r} has no answer; give target token ids")
    word = sample.answer.strip()
    ways = {f"{space}{text}" for space in ("", " ") for text in (word, word.capitalize())}
    ids = {
        encoded[0]
        for way in ways
        if (encoded := model.tokenizer(way, add_special_tokens=False)["input_ids"])
        and model.tokenizer.decode([encoded[0]]).strip()
    }
    if not ids:
        raise UnavailableError(
            f"no token begins the answer of {sample!r} in the tokenizer of {model.name}; give target "
            "token ids"
        )
    return ids


@dataclass
class Measuring:
    """Measures of one batch, ready to be taken of any variant's logits.

    Args:
        model, batch: what is swept.
        measures: names of ``MEASURES``, functions by name, or both.
        clean: [example, d_vocab].
        target: of ``logit``, ``probability`` and ``logit_diff``.
        foil: token ids [example]; ``None``: the best token other than the target, variant by variant.
        reading: of yes/no answers, for ``correct``.
    """

    model: VLM
    batch: Batch
    measures: Mapping[str, Measure]
    clean: Float[Tensor, "example d_vocab"]
    target: Any = "own"
    foil: Any = None
    reading: Literal["official", "strict"] = "strict"

    def __post_init__(self) -> None:
        self._texts: dict[int, str] = {}
        if isinstance(self.target, str) and self.target == "own":
            self.ids = self.clean.argmax(-1)
        elif isinstance(self.target, str) and self.target == "right":
            self.ids = first_tokens(self.model, self.batch, self.clean)
        else:
            self.ids = self._ids("target", self.target)
        self.foils = None if self.foil is None else self._ids("foil", self.foil)
        if self.foils is not None and bool((self.foils == self.ids).any()):
            raise InputError("a sample's foil is its target: their difference is always 0")
        if "correct" in self.measures.values() and self.batch.samples is None:
            raise UnavailableError("'correct' needs samples; encode them with model.encode")

    def _ids(self, name: str, given: Any) -> Tensor:
        try:
            ids = torch.as_tensor(given, device=self.clean.device)
        except (TypeError, ValueError, RuntimeError) as error:
            words = "'own', 'right' or " * (name == "target")
            raise InputError(
                f"{name} is {words}one token id a sample, [{len(self.batch)}]; got {given!r:.60}"
            ) from error
        if ids.shape != (len(self.batch),) or ids.dtype.is_floating_point:
            raise ShapeError(
                f"{name} must be one token id a sample, [{len(self.batch)}]; got {tuple(ids.shape)} of "
                f"{ids.dtype}"
            )
        if not bool(((ids >= 0) & (ids < self.clean.shape[-1])).all()):
            raise InputError(f"{name} ids must be within 0 to {self.clean.shape[-1] - 1}")
        return ids

    def __call__(self, logits: Float[Tensor, "variant example d_vocab"]) -> dict[str, Tensor]:
        """Each measure by name, [variant, example], on the CPU."""
        return {name: self.of(measure, logits).cpu() for name, measure in self.measures.items()}

    def of(self, measure: Measure, logits: Tensor) -> Tensor:
        """One measure, [variant, example], where the logits are and with their graph."""
        if callable(measure):
            value = measure(logits, self.clean)
            if not isinstance(value, Tensor) or value.shape != logits.shape[:2]:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ShapeError(
                    f"a measure gives [variant, example], {tuple(logits.shape[:2])}; got {shape}"
                )
            return value
        at = self.ids.expand(logits.shape[:2])[..., None]
        match measure:
            case "logit":
                return logits.gather(-1, at)[..., 0]
            case "probability":
                return logits.softmax(-1).gather(-1, at)[..., 0]
            case "logit_diff":
                if self.foils is not None:
                    other = logits.gather(-1, self.foils.expand(logits.shape[:2])[..., None])[
                        ..., 0
                    ]
                else:
                    other = logits.scatter(-1, at, float("-inf")).amax(-1)
                return logits.gather(-1, at)[..., 0] - other
            case "kl":
                clean, here = self.clean.log_softmax(-1), logits.log_softmax(-1)
                return (clean.exp() * (clean - here)).sum(-1)
            case "correct":
                return self._correct(logits.argmax(-1))
            case _:
                return logits

    def _correct(self, chosen: Tensor) -> Tensor:
        assert self.batch.samples is not None
        ids = chosen.tolist()
        for token in {t for row in ids for t in row} - set(self._texts):
            text = self.model.tokenizer.decode([token], skip_special_tokens=True)
            self._texts[token] = text.strip()
        right = [
            [
                is_correct(sample, self._texts[token], reading=self.reading)
                for sample, token in zip(self.batch.samples, row, strict=True)
            ]
            for row in ids
        ]
        return torch.tensor(right)


def as_measures(given: Any) -> dict[str, Measure]:
    """Names and measures of a sweep's ``measure`` argument.

    Raises:
        InputError: no such measure.
    """
    if isinstance(given, str) or callable(given):
        given = [given]
    items = (
        given.items()
        if isinstance(given, Mapping)
        else [
            (m if isinstance(m, str) else getattr(m, "__name__", "measure"), m)
            for m in listing("measure", given)
        ]
    )
    found: dict[str, Measure] = {}
    for name, measure in items:
        if not callable(measure) and not (isinstance(measure, str) and measure in MEASURES):
            known = "; ".join(f"{key}: {words}" for key, words in MEASURES.items())
            raise InputError(f"no measure {measure!r}. There are {known}; or give a function")
        if name in _TAKEN or str(name).startswith("base_"):
            raise InputError(
                f"{name!r} is a name that results use themselves; call the measure another"
            )
        if name in found:
            raise InputError(f"two measures are called {name!r}; give a mapping with their names")
        found[str(name)] = measure
    if not found:
        raise InputError("a sweep measures something; no measure was given")
    return found


def split_measures(
    measures: Mapping[str, Any],
) -> tuple[dict[str, Measure], dict[str, Reading]]:
    """Measures of logits, and functions of one argument: of the trace."""
    readings = {name: m for name, m in measures.items() if callable(m) and _arguments(name, m) == 1}
    return {name: m for name, m in measures.items() if name not in readings}, readings


def _arguments(name: str, function: Any) -> int:
    """1 for a function of the trace, 2 for one of logits and clean logits."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # builtins without a signature
        parameters = []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in parameters if p.kind in plain]
    needed = [p for p in positional if p.default is inspect.Parameter.empty]
    other = [
        p for p in parameters if p.kind not in plain and p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    clear = len(needed) == len(positional) and not any(
        p.default is inspect.Parameter.empty for p in other
    )
    if not clear or len(positional) not in (1, 2):
        raise InputError(
            f"the measure {name!r} must take one argument (the trace) or two (logits and clean logits), "
            f"without defaults; it takes {[str(p) for p in parameters]}. functools.partial or a lambda "
            "fixes others"
        )
    return len(positional)


def fixed_target(
    model: VLM, batch: Batch, logits: Float[Tensor, "example d_vocab"], target: Any
) -> Any:
    """The target tokens of a comparison of runs, decided once: by the clean run.

    Args:
        model, batch: the clean samples.
        logits: of their clean run.
        target: as ``sweep``.
    """
    if isinstance(target, str) and target == "own":
        return logits.argmax(-1).tolist()
    if isinstance(target, str) and target == "right":
        return first_tokens(model, batch, logits).tolist()
    return target


def towards(
    measure: Any, method: str, clean: Float[Tensor, "example d_vocab"], *, of_logits: bool = False
) -> dict[str, Any]:
    """The one measure of a method that compares runs, by name; ``kl`` is taken to the clean run.

    (In a sweep of the corrupted batch it would be the divergence from the corrupted run.)
    """
    name, chosen = one_measure(measure, method, of_logits=of_logits)
    if chosen != "kl" or callable(chosen):
        return {name: chosen}

    def kl(logits: Tensor, _: Tensor) -> Tensor:
        reference = clean.to(logits).log_softmax(-1)
        return (reference.exp() * (reference - logits.log_softmax(-1))).sum(-1)

    return {name: kl}


def one_measure(measure: Any, method: str, *, of_logits: bool = False) -> tuple[str, Any]:
    """The name and the measure of a method that takes one.

    Args:
        measure: as given to the method.
        method: its name, for the error.
        of_logits: refuse functions of the trace.

    Raises:
        InputError: several measures, or a function of the trace where it cannot be used.
    """
    measures = as_measures(measure)
    if len(measures) != 1:
        raise InputError(f"{method} takes one measure; got {measure!r}")
    ((name, found),) = measures.items()
    if not callable(found) and found in ("logits", "attention"):
        raise InputError(f"{method} measures one number an example; {found!r} gives many")
    if not split_measures(measures)[1]:
        return name, found
    if of_logits:
        raise InputError(
            f"{method} takes a measure of logits; {name!r} is a function of one argument, of a trace"
        )
    reading: Any = found

    def number(t: Trace) -> Tensor:
        value: Tensor = reading(t)
        if isinstance(value, Tensor) and value.ndim != 1:
            raise ShapeError(
                f"{method} measures one number an example; {name!r} gives {tuple(value.shape)}"
            )
        return value

    return name, number
