"""The weights of a planted circuit, set in a copy of the model (`mechvrp.circuits.plant_circuit`).

All readings are rows over what the layer's MLP reads, ``[d_model]``, in double precision; ``inputs`` are what
it reads at the last prompt token of each sample, ``[example, d_model]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor

from mechvrp.circuits.reserving import mlp_parts
from mechvrp.errors import NumericalError

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["Place", "as_array", "fit_decision", "set_neurons", "set_noise", "set_readout"]

#: What the gates of planted neurons are driven to at the last prompt token: there a gate is linear.
GATE = 4.0
#: Standard deviation of what each planted neuron says of its own, in that of the decision.
OWN = 0.5
#: How many times louder decoys are than the loudest other neuron.
LOUD = 3.0
#: By how many logits the two answers are lifted above all other tokens.
MARGIN = 10.0
#: Lead of the negative answer where nothing is said, in standard deviations of the difference of logits.
LEAN = 0.01
#: Fewest principal components of the inputs that readings are drawn from.
COMPONENTS = 16
#: Strengths of the ridge regression, for inputs of unit mean square.
STRENGTHS = 10.0 ** np.arange(-2, 5)


@dataclass(frozen=True)
class Place:
    """Where a circuit is planted.

    Attributes:
        layer: of the neurons.
        neurons, decoys: their numbers.
        answer: dimension of the residual stream that carries the decision.
        flag: dimension that says where the prompt ends.
        sink: dimension that decoys write.
    """

    layer: int
    neurons: list[int]
    decoys: list[int]
    answer: int
    flag: int
    sink: int

    def rest(self, width: int) -> np.ndarray:
        """The layer's other neurons."""
        return np.setdiff1d(np.arange(width), [*self.neurons, *self.decoys])


def fit_decision(inputs: np.ndarray, wanted: np.ndarray, place: Place) -> np.ndarray:
    """The reading that best predicts ``wanted`` [example], at unit variance; the flag carries its constant."""
    features = inputs.copy()
    features[:, [place.answer, place.flag, place.sink]] = 0
    size = np.sqrt((features**2).mean())
    fitted = RidgeCV(STRENGTHS * len(wanted)).fit(features / size, wanted)
    found = fitted.coef_ / size
    found[place.flag] = fitted.intercept_ / inputs[:, place.flag].mean()
    spread = (inputs @ found).std()
    if not spread > 1e-6 * np.abs(wanted).max():
        raise NumericalError(f"nothing of the decision can be read from layer {place.layer}")
    return np.asarray(found / spread)


@torch.no_grad()
def set_neurons(
    model: VLM,
    place: Place,
    inputs: np.ndarray,
    before: np.ndarray,
    decision: np.ndarray,
    size: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Set the weights of planted neurons, decoys and the rest of the layer; the signs of the planted.

    Args:
        model: the copy, changed in place.
        place, inputs, decision: as above.
        before: ``[example, d_mlp]``, the neurons as they were.
        size: standard deviation of what is written to the answer's dimension, and to the sink.
        rng: draws signs and readings.
    """
    gate, up, down, act = mlp_parts(model, place.layer)
    flag = float(inputs[:, place.flag].mean())
    through = float(act(torch.tensor(GATE, dtype=torch.float64)))
    loudness = np.sqrt((before**2).mean(0))
    rest, taken = place.rest(model.d_mlp), [*place.neurons, *place.decoys]

    said = inputs @ decision
    heard = _covariance(inputs, said) / said.var()
    for module in (gate, up):
        kept = as_array(module.weight[rest])
        module.weight[rest] = _like(module.weight, kept - np.outer(kept @ heard, decision))
        module.weight[taken] = 0
        if module.bias is not None:
            module.bias[taken] = 0
    gate.weight[taken, place.flag] = GATE / flag
    down.weight[:, taken] = 0

    # What their up projections read, times their gates: these follow the flag, which a norm has scaled.
    opened = act(torch.from_numpy(GATE / flag * inputs[:, place.flag])).numpy() / through
    seen = inputs * opened[:, None]
    own = _blind(seen, decision, place, len(place.neurons), rng)
    own -= own.mean(0)
    if len(own) > 1:
        own *= OWN / (seen @ own.T).std(0).mean()
    readings = decision + own
    signs = rng.choice([-1, 1], size=len(readings))
    volume = float(np.median(loudness)) / (through * _loudness(seen @ readings.T))
    up.weight[place.neurons] = _like(up.weight, (signs * volume)[:, None] * readings)
    # The volume is undone, so that the parts of their own cancel.
    share = signs * size / (volume * through * len(signs))
    down.weight[place.answer, place.neurons] = _like(down.weight, share)

    if place.decoys:
        # Of a mean as large as its spread: loud in every example.
        readings = _blind(seen, decision, place, len(place.decoys), rng, mean=1.0)
        loudest = max(float(loudness[rest].max()) if len(rest) else 0.0, float(np.median(loudness)))
        volume = LOUD * loudest / (through * _loudness(seen @ readings.T))
        up.weight[place.decoys] = _like(up.weight, volume[:, None] * readings)
        share = rng.choice([-1, 1], size=len(volume)) * size / (volume * through * len(volume))
        down.weight[place.sink, place.decoys] = _like(down.weight, share)
    return np.asarray(signs)


@torch.no_grad()
def set_noise(
    model: VLM, place: Place, neurons: np.ndarray, noise: float, rng: np.random.Generator
) -> None:
    """Let the layer's other neurons write the answer's dimension too.

    Args:
        model, place: as above.
        neurons: ``[example, d_mlp]``, as they are now.
        noise: standard deviation of what they write together, in that of what the planted ones write.
        rng: draws each one's share.
    """
    _, _, down, _ = mlp_parts(model, place.layer)
    rest = place.rest(model.d_mlp)
    planted = neurons[:, place.neurons] @ as_array(down.weight[place.answer, place.neurons])
    heard = neurons[:, rest]
    mean = heard.mean(0)
    drawn = rng.normal(size=len(rest))
    drawn -= mean * (drawn @ mean) / (mean @ mean)  # no constant push towards one answer
    share = drawn * noise * planted.std() / (heard @ drawn).std()
    down.weight[place.answer, rest] = _like(down.weight, share)


@torch.no_grad()
def set_readout(
    model: VLM, place: Place, final: np.ndarray, answers: Sequence[int], spread: float
) -> None:
    """Let the two answers read the decision, and lift them above all other tokens.

    Args:
        model, place: as above.
        final: ``[example, d_model]``, what the unembedding reads at the last prompt token.
        answers: token ids of the positive and of the negative answer.
        spread: standard deviation that the difference of their logits is to have.
    """
    head = model.model.get_output_embeddings()
    weight = as_array(head.weight)
    weight[list(answers)] = weight[list(answers)].mean(0)
    flags, said = final[:, place.flag], final[:, place.answer]
    if not (np.abs(flags).min() > 0 and np.ptp(np.sign(flags)) == 0 and said.std() > 0):
        raise NumericalError(
            f"what was planted at layer {place.layer} does not arrive at the unembedding of {model.name}"
        )
    logits = final @ weight.T
    missing = np.delete(logits, list(answers), axis=1).max(1) - logits[:, answers[0]] + MARGIN
    needed = missing / flags
    weight[list(answers), place.flag] = needed.max() if flags[0] > 0 else needed.min()
    weight[answers[1], place.flag] += LEAN * spread / flags.mean()
    # A norm's gain may be negative: what is written up then arrives down.
    gain = np.sign(_gain(model, place.answer))
    slope = gain * spread / (2 * said.std())
    weight[answers[0], place.answer], weight[answers[1], place.answer] = slope, -slope
    head.weight.copy_(_like(head.weight, weight))


def _gain(model: VLM, dimension: int) -> float:
    """What the final norm makes of a 1 in a dimension."""
    norm = model.model.get_submodule(model.modules.final_norm)
    one = torch.zeros(model.d_model, dtype=model.dtype, device=model.device)
    one[dimension] = 1
    return float(norm(one)[dimension])


def _blind(
    inputs: np.ndarray,
    decision: np.ndarray,
    place: Place,
    n: int,
    rng: np.random.Generator,
    *,
    mean: float = 0.0,
) -> np.ndarray:
    """Random readings [n, d_model], uncorrelated with the decision, of a mean, and about variance 1.

    Of each other too, where there are no more than the main components of the inputs.
    """
    said = inputs @ decision
    heard = _covariance(inputs, said) / said.var()
    left = inputs - inputs.mean(0) - np.outer(said - said.mean(), heard)
    left[:, [place.answer, place.flag, place.sink]] = 0
    values, vectors = np.linalg.eigh(left.T @ left / len(left))
    # The main components alone: what varies least in these samples may vary otherwise in others.
    main = np.flatnonzero(values > 1e-3 * values.max())[::-1][: max(n, COMPONENTS)]
    drawn = rng.normal(size=(n, len(main)))
    if n <= len(main):
        drawn = np.linalg.qr(drawn.T)[0].T
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    found = (drawn / np.sqrt(values[main])) @ vectors[:, main].T
    # The flag gives the mean; a norm has scaled it, so that it may say something of the decision too.
    flag = np.eye(len(decision))[place.flag]
    shift = np.stack([flag, decision])
    made, missing = inputs @ shift.T, inputs @ found.T
    effects = np.stack([made.mean(0), _covariance(made, said)])
    wanted = np.stack([missing.mean(0) - mean, _covariance(missing, said)])
    return np.asarray(found - np.linalg.solve(effects, wanted).T @ shift)


def _covariance(values: np.ndarray, with_: np.ndarray) -> np.ndarray:
    """Covariances [d] of values [example, d] with [example]."""
    return np.asarray((values - values.mean(0)).T @ (with_ - with_.mean()) / len(with_))


def _loudness(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((values**2).mean(0)))


def as_array(values: Tensor) -> np.ndarray:
    """A double-precision copy."""
    return values.detach().double().cpu().numpy().copy()


def _like(weight: Tensor, values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(weight)
