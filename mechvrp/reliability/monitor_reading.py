"""What the monitor reads while a model answers: one pass over the prompt, and nothing beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mechvrp.errors import InputError, NumericalError, UnavailableError
from mechvrp.patching.answer_pairs import own_pair
from mechvrp.reliability.answers import Answer
from mechvrp.reliability.continuing import prefill
from mechvrp.reliability.generation import signals_of
from mechvrp.reliability.grids import on_grid
from mechvrp.reliability.margins import final_margins, lens_logits
from mechvrp.reliability.observations import STRUCTURE_SIGNALS
from mechvrp.reliability.observing import _structure
from mechvrp.reliability.sampling import Sampling
from mechvrp.reliability.signals import predictors
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.models import VLM, Batch

__all__ = ["DEFAULT_SIGNALS", "Reading", "check_signals", "read_answers"]

#: Read off the answer's own logits and one hidden state: they cost next to nothing.
DEFAULT_SIGNALS = ("answer_probability", "logit_entropy", "own_margin", "probe")
_CHEAP = ("p_tok", *DEFAULT_SIGNALS)


def check_signals(names: Iterable[str]) -> tuple[str, ...]:
    """The names, if the monitor can read all of these signals.

    Raises:
        InputError: none is given, one is unknown, uses the right answer, takes further forwards, or is
            none of those that are read here.
    """
    if isinstance(names, str):
        raise InputError(f"signals is a list of names; got the text {names!r}: use [{names!r}]")
    found = predictors(names)
    if not found:
        raise InputError(f"signals is empty; give some of {', '.join(DEFAULT_SIGNALS)}")
    for signal in found:
        if signal.cost_forwards:
            raise InputError(
                f"{signal.name!r} takes {signal.cost_forwards:g} further forwards over the prompt, and the "
                "monitor makes none: leave it out"
                + (
                    ", or use target='self_consistency' to predict it from one pass"
                    if signal.name == "self_consistency"
                    else ""
                )
            )
        if signal.name not in (*_CHEAP, *STRUCTURE_SIGNALS):
            raise InputError(
                f"the monitor does not read {signal.name!r}; it reads {', '.join(_CHEAP)}, and, for "
                f"some more time, attention's {', '.join(STRUCTURE_SIGNALS)}"
            )
    return tuple(signal.name for signal in found)


@dataclass(frozen=True)
class Reading:
    """What one pass showed of some examples.

    Attributes:
        answers: greedy, as ``greedy_answers`` gives them.
        columns: ``[example]`` of each signal that was asked for, the probe's score left out.
        hidden: ``[example, d_model]``, residual stream of the last prompt position behind the layer
            that was asked for, float32; ``None`` if none was.
    """

    answers: tuple[Answer, ...]
    columns: dict[str, np.ndarray]
    hidden: np.ndarray | None


def read_answers(
    model: VLM, batch: Batch, names: Sequence[str], layer: int | None, max_new_tokens: int
) -> Reading:
    """Answer a batch and read signals on the way, by the very code that ``observe`` uses.

    Args:
        model, batch: as from ``model.encode``.
        names: of the signals, from `check_signals`.
        layer: whose residual stream is wanted.
        max_new_tokens: at which answers are cut.

    Raises:
        NumericalError: NaN or infinity in what was read.
        UnavailableError: structure signals of a model that forms no attention weights.
    """
    last = model.n_layers - 1
    wanted = {layer} if layer is not None else set()
    if "own_margin" in names:
        wanted.add(last)
    structural = [name for name in names if name in STRUCTURE_SIGNALS]
    if structural:
        logits, cache, states, maps = _traced(model, batch, wanted)
    else:
        logits, cache, states = _hooked(model, batch, wanted)
        maps = []
    for number, state in states.items():
        if not bool(torch.isfinite(state).all()):
            raise NumericalError(
                f"the residual stream behind block {number} of {model.name} holds NaN or infinity"
            )
    # Before decoding goes on, which uses up the cache and needs nothing of this.
    columns = {}
    if "own_margin" in names:
        pair = own_pair(model, logits)
        if model.family.unavailable("final_norm"):  # as `observe`
            columns["own_margin"] = final_margins(logits, 1, *pair).final
        else:
            found = lens_logits(model, states[last], torch.stack(pair, dim=-1)).double().numpy()
            columns["own_margin"] = found[:, 0] - found[:, 1]
    if structural:
        rows = np.array([_structure(image) for image in maps])
        columns |= {name: rows[:, STRUCTURE_SIGNALS.index(name)] for name in structural}
    seen = signals_of(
        model,
        batch,
        logits,
        cache,
        sampling=Sampling(k=0),
        max_new_tokens=max_new_tokens,
    )
    columns |= {
        "p_tok": np.array([s.token_confidence for s in seen]),
        "answer_probability": np.array([s.answer.probability for s in seen]),
        "logit_entropy": np.array([s.logit_entropy for s in seen]),
    }
    return Reading(
        tuple(s.answer for s in seen),
        {name: columns[name] for name in names if name != "probe"},
        None if layer is None else states[layer].numpy(),
    )


def _hooked(model: VLM, batch: Batch, layers: set[int]) -> tuple[Tensor, Any, dict[int, Tensor]]:
    """A plain prefill: logits, cache, and residual streams of the last position behind some blocks.

    By PyTorch's own hooks, which only look, and are gone afterwards: a trace costs something at each of
    the model's modules.
    """
    kept: dict[int, Tensor] = {}
    thread = threading.get_ident()

    def keep(layer: int) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            if threading.get_ident() == thread:  # another thread's answer is not this one's
                value = output[0] if isinstance(output, tuple) else output
                kept[layer] = value[:, -1].detach().clone()

        return hook

    blocks = model.model.get_submodule(model.modules.layers)
    handles = [blocks[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        logits, cache = prefill(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    if set(kept) != layers:
        raise UnavailableError(
            f"blocks {sorted(layers - set(kept))} of {model.name} did not run as modules, so their "
            "outputs could not be read"
        )
    return logits, cache, {k: v.to("cpu", torch.float32) for k, v in kept.items()}


def _traced(
    model: VLM, batch: Batch, layers: set[int]
) -> tuple[Tensor, Any, dict[int, Tensor], list[np.ndarray]]:
    """The same in a trace that also makes the last position's attention, [layer, head, row, col] each."""
    kept: dict[int, Tensor] = {}
    found: list[Tensor] = []
    with Trace(model, batch, options={"logits_to_keep": 1, "use_cache": True}) as t:
        for layer in range(model.n_layers):
            found.append(t.attention_rows(layer).detach().float().cpu())
            if layer in layers:
                kept[layer] = (
                    t.resid_post[layer][:, -1].detach().to("cpu", torch.float32, copy=True)
                )
        logits = t.logits.save()
        cache = model.envoy.output.past_key_values.save()
    rows = torch.stack(found)
    if not bool(torch.isfinite(rows).all()):
        raise NumericalError(f"attention of {model.name} holds NaN or infinite values")
    maps = [
        on_grid(tokens, rows.numpy()[:, i][..., tokens.position.numpy()])
        for i, tokens in enumerate(batch.tokens.images)
    ]
    return logits[:, -1].float(), cache, kept, maps
