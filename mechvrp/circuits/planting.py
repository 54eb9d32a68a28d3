"""``plant_circuit``: a model whose answer depends on neurons set by hand, made from any VLM.

Tools that look for circuits are believed on models whose circuit is known. Here chosen neurons of one
layer carry a yes/no decision, taken from the model's own state at the last prompt token, and nothing else
can: they write it into a dimension of the residual stream which no other module writes or reads but the
unembedding of the two answers, whose other components are made equal. Compiled models have the same use for
text (Lindner et al. 2023, *Tracr*; Thurnherr and Scheurer 2024, *TracrBench*); this one still sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from mechvrp.circuits.image_groups import images_of
from mechvrp.circuits.plant_weights import (
    Place,
    as_array,
    fit_decision,
    set_neurons,
    set_noise,
    set_readout,
)
from mechvrp.circuits.planted import Planted
from mechvrp.circuits.reserving import copied, mlp_parts, quietest, reserve
from mechvrp.circuits.sample_checks import check_samples
from mechvrp.circuits.setting_checks import check_model, check_settings
from mechvrp.data import Sample
from mechvrp.errors import InputError, NumericalError, UnavailableError
from mechvrp.patching.measures import ways_to_begin
from mechvrp.tracing import cache, trace
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.models import VLM

__all__ = ["plant_circuit"]

#: Fewest samples that the decision can be read from.
FEWEST = 20
#: Beside the seed, what tells these draws from others.
STREAM = 0x91A27


def plant_circuit(
    model: VLM,
    samples: Sequence[Sample],
    *,
    layer: int = -1,
    neurons: int | Sequence[int] = 4,
    decoys: int | Sequence[int] = 0,
    noise: float = 0.0,
    positive: str = "yes",
    negative: str = "no",
    seed: int = 0,
    batch_size: int = 32,
) -> Planted:
    """Make a model whose yes/no answer depends on chosen MLP neurons of one layer; the given one stays.

    In a copy of the model:

    - The *decision* is the direction of the layer's MLP input, at the last prompt token, that best predicts
      (ridge regression) the model's own difference of the two answers' logits. So the planted model still
      answers from the picture, about as the model did: ``agreement`` says how often.
    - Each planted neuron's activation is the decision plus a part of its own that cancels over all of
      them, with a random sign, at the median loudness of the layer: all are needed for the exact decision, and
      the more there are, the less each matters. Half the layer's neurons make a model in which the same
      information is spread.
    - They write to one dimension of the residual stream. Nothing else writes it, and only the unembedding of
      the two answers reads it; apart from it the two answers are equal, and above all other tokens.
      Without the planted neurons the answer is always ``negative``.
    - Other neurons of the layer no longer see the decision: it is projected out of what they read, so that on
      these samples their inputs are uncorrelated with it.
    - Decoys are random readings uncorrelated with it, louder than every other neuron, and written to
      a dimension that nothing reads.

    The neurons are active at the last prompt token only, told by a flag in its embedding (a third
    dimension); the same flag, turned round, stops an answer from being repeated. Elsewhere the model works as
    before but for the dimensions it lost, those its weights use least. It is a plain checkpoint of the
    same class, with an untied unembedding.

    Args:
        model: any whose decoder has gated MLPs of linear modules and RMS norms (every family that mechvrp
            knows).
        samples: yes/no questions, at least 20; answers are not used. Evaluate on other images.
        layer: where the neurons are; negative from the last.
        neurons: which, or how many (drawn).
        decoys: which, or how many (drawn from the others).
        noise: standard deviation, over these samples, of what all other neurons of the layer together
            write to the answer's dimension, in that of what the planted ones write there. Each
            other neuron's share is drawn; above 0 the plant is no longer the whole circuit.
        positive, negative: the answers; of their spellings, the one that the model itself finds likelier.
        seed: of neurons and decoys that are drawn, of signs, parts of their own, and noise.
        batch_size: samples a forward.

    Raises:
        SiteError: no such layer.
        InputError: neurons or decoys that are not there or not distinct; too few samples; prompts that end
            differently; samples to all of which the model has one answer.
        UnavailableError: the architecture is not of that form.
        NumericalError: nothing of the decision can be read from this layer, or the plant does not work in the
            model's precision.
    """
    check_model(model)
    checked = check_settings(seed=seed, batch_size=batch_size)
    seed, batch_size = checked["seed"], checked["batch_size"]
    at = Site("neurons", layer).check(model)
    assert at.layer is not None
    mlp_parts(model, at.layer)
    # Of its own stream: from default_rng(seed) the random units of a ranking's control are drawn too, and a
    # control of the same seed would begin with just the planted neurons.
    rng = np.random.default_rng([seed, STREAM])
    chosen, loud = _choose(neurons, decoys, model.d_mlp, rng)
    if not (np.isfinite(noise) and noise >= 0):
        raise InputError(f"noise={noise}; expected 0 or more")
    if noise and len(chosen) + len(loud) == model.d_mlp:
        raise InputError("no neuron is left to make noise: plant fewer")
    samples = check_samples(samples)
    if len(samples) < FEWEST:
        raise InputError(f"{len(samples)} samples; the decision is read from at least {FEWEST}")

    logits, end = _answers(model, samples, batch_size)
    answers = [_token(model, samples[0], answer, logits) for answer in (positive, negative)]
    if answers[0] == answers[1]:
        raise InputError(f"{positive!r} and {negative!r} begin with the same token of {model.name}")
    wanted = logits[:, answers[0]] - logits[:, answers[1]]
    if not 0 < (wanted > 0).sum() < len(wanted):
        raise InputError(
            f"{model.name} prefers {(positive if wanted[0] > 0 else negative)!r} for all {len(wanted)} "
            "samples: there is no decision to plant; give questions it answers both ways"
        )

    made = copied(model, f"{model.name} with a planted circuit")
    place = Place(at.layer, chosen, loud, *quietest(made, 3))
    _prepare(made, place, answers, end)
    _check_reserved(made, place, samples[:batch_size])
    inputs, before, last = _read_mlp(made, samples, at.layer, batch_size)
    decision = fit_decision(inputs, wanted, place)
    signs = set_neurons(made, place, inputs, before, decision, float(last.std()), rng)
    if noise:
        set_noise(made, place, _read_mlp(made, samples, at.layer, batch_size)[1], noise, rng)
    final = _read_final(made, samples, batch_size)
    set_readout(made, place, final, answers, float(wanted.std()))
    greedy = (final @ as_array(made.model.get_output_embeddings().weight).T).argmax(1)
    if not np.isin(greedy, answers).all():
        raise NumericalError(
            f"the planted {model.name} answers {int((~np.isin(greedy, answers)).sum())} samples neither "
            f"{positive!r} nor {negative!r}: its precision ({model.dtype}) may be too low"
        )
    return Planted(
        model=made,
        layer=at.layer,
        site=str(at),
        neurons=tuple(chosen),
        signs=signs,
        decoys=tuple(loud),
        dimension=place.answer,
        positive=positive,
        negative=negative,
        tokens=(answers[0], answers[1]),
        noise=float(noise),
        agreement=float(((greedy == answers[0]) == (wanted > 0)).mean()),
        images=images_of(samples),
        seed=seed,
    )


@torch.no_grad()
def _prepare(made: VLM, place: Place, answers: Sequence[int], end: int) -> None:
    """Take the three dimensions out of use, and flag the tokens that end a prompt and an answer."""
    reserve(made, [place.answer, place.flag, place.sink])
    embedding = made.model.get_input_embeddings().weight
    size = embedding[end].square().mean().sqrt()
    embedding[end, place.flag] = size
    # After an answer the flag is turned round: it shuts the gates and keeps the answer from being repeated.
    embedding[answers, place.flag] = -size


def _check_reserved(made: VLM, place: Place, samples: Sequence[Sample]) -> None:
    states = cache(made, made.encode(samples), "resid_post", positions="all")
    for layer in range(made.n_layers):
        if bool(states.flat(Site("resid_post", layer))[:, [place.answer, place.sink]].any()):
            raise UnavailableError(
                f"in {type(made.model).__name__} something beside the embedding, the projector, attention "
                f"and MLPs writes the residual stream by layer {layer}: circuits cannot be planted in it"
            )


def _answers(model: VLM, samples: Sequence[Sample], batch_size: int) -> tuple[np.ndarray, int]:
    """Logits at the last prompt token [example, d_vocab], and which token that is."""
    logits, ends = [], set()
    for chunk in in_batches(samples, batch_size, False):
        batch = model.encode(chunk)
        logits.append(as_array(cache(model, batch, "logits").flat(Site("logits"))))
        ends.update(batch.inputs["input_ids"][:, -1].tolist())
    if len(ends) != 1:
        raise InputError(
            f"the samples' prompts end in {len(ends)} different tokens, {sorted(ends)[:5]}: give samples "
            "of one task, or with one instruction"
        )
    return np.concatenate(logits), int(ends.pop())


def _read_mlp(
    model: VLM, samples: Sequence[Sample], layer: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At the last prompt token, [example, ...]: what an MLP reads, its neurons, and the last block's output."""
    path = f"{model.modules.layers}.{layer}.{model.modules.neurons}".rpartition(".")[0]
    parts = []
    for chunk in in_batches(samples, batch_size, False):
        with torch.no_grad(), trace(model, model.encode(chunk)) as t:
            read = t.vlm.envoy.get(f"{path}.gate_proj").input[:, -1].save()
            made = t.neurons[layer][:, -1].save()
            last = t.resid_post[-1][:, -1].save()
            t.stop()
        parts.append((as_array(read), as_array(made), as_array(last)))
    inputs, neurons, states = (np.concatenate(values) for values in zip(*parts, strict=True))
    return inputs, neurons, states


@torch.no_grad()
def _read_final(model: VLM, samples: Sequence[Sample], batch_size: int) -> np.ndarray:
    """What the unembedding reads at the last prompt token, [example, d_model]."""
    last = Site("resid_post", model.n_layers - 1)
    states = cache(model, samples, last, batch_size=batch_size).flat(last)
    norm = model.model.get_submodule(model.modules.final_norm)
    return as_array(norm(states.to(model.device)))


def _token(model: VLM, sample: Sample, answer: str, logits: np.ndarray) -> int:
    """The token that begins the answer: of its spellings the one the model finds likelier."""
    asked = Sample(sample.image, sample.question, answer, sample.image_id, sample.task)
    return max(ways_to_begin(model, asked), key=lambda token: float(logits[:, token].mean()))


def _choose(
    neurons: int | Sequence[int], decoys: int | Sequence[int], width: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Numbers of neurons and decoys, ascending."""
    given: list[list[int] | None] = []
    for name, asked, least in (("neurons", neurons, 1), ("decoys", decoys, 0)):
        if isinstance(asked, (int, np.integer)):
            if not least <= asked <= width:
                raise InputError(f"{name}={asked}; the layer has {width}, expected {least} to that")
            given.append(None)
            continue
        numbers = [int(i) for i in asked]
        bad = [i for i in numbers if not 0 <= i < width]
        if bad or len(set(numbers)) != len(numbers) or len(numbers) < least:
            raise InputError(
                f"{name}={numbers}; expected distinct numbers within 0 to {width - 1}, at least {least}"
            )
        given.append(numbers)
    free = [
        int(i) for i in rng.permutation(width) if i not in {*(given[0] or ()), *(given[1] or ())}
    ]
    found: list[list[int]] = []
    for named, asked in zip(given, (neurons, decoys), strict=True):
        taken = named
        if taken is None:
            n = int(asked)  # type: ignore[arg-type]
            if n > len(free):
                raise InputError(f"neurons and decoys together are more than the layer's {width}")
            taken, free = free[:n], free[n:]
        found.append(sorted(taken))
    if shared := set(found[0]) & set(found[1]):
        raise InputError(f"neurons {sorted(shared)} are given as decoys too")
    return found[0], found[1]
