"""``observe``: every signal of every example, from one prefill a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mechvrp.errors import NumericalError, UnavailableError
from mechvrp.models.regions import queried_region
from mechvrp.patching.answer_pairs import own_pair, right_pair
from mechvrp.reliability.attention_shape import (
    centre_distance,
    gini,
    head_agreement,
    image_mass,
    peak_sharpness,
    region_mass,
    top_k_mass,
)
from mechvrp.reliability.generation import Normalise, check_answering, signals_of
from mechvrp.reliability.grids import on_grid
from mechvrp.reliability.margins import Margins, Residuals, final_margins, margins_between
from mechvrp.reliability.observations import STRUCTURE_SIGNALS, Observations, join_observations
from mechvrp.reliability.sampling import Sampling
from mechvrp.reliability.structure import (
    cluster_count,
    entropy_by_layer,
    mean_map,
    spatial_entropy,
)
from mechvrp.statistics.checks import check_count
from mechvrp.tracing import access
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sites import Site
from mechvrp.tracing.tracer import Trace

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch

__all__ = ["observe", "observe_batches"]


def observe(
    model: VLM,
    samples: Iterable[Sample],
    *,
    k: int = 10,
    temperature: float = 0.7,
    top_p: float = 0.9,
    seed: int = 0,
    max_new_tokens: int = 16,
    normalise: Normalise | None = None,
    batch_size: int = 32,
    keep_maps: bool = True,
    progress: bool = False,
) -> Observations:
    """Answers, hidden states, attention, margins and self-consistency of every example.

    One forward over the prompts of a batch gives all of it; only answers are decoded on, over its keys and
    values. What comes out is what ``greedy_answers``, ``cache``, ``attention_maps`` and ``logit_margins``
    give, each with a forward of its own. Margins at depths that a model does not have, or that the lens cannot
    read of it, are NaN, and ``gaps`` says why; without attention weights and image tokens on a grid there is
    no observation.

    Args:
        model: loaded with ``attn="sdpa"`` (the default) or ``"eager"``.
        samples: of one image each.
        k, temperature, top_p, seed: of the sampled answers, as ``Sampling``; ``k=0`` samples none.
        max_new_tokens: at which answers are cut.
        normalise: of sample and text, when sampled answers are compared; by default
            ``mechvrp.data.normalise_answer`` of the text.
        batch_size: samples a forward. Up to max(k + 1, 16) copies of its keys and values are held where a
            model is unsure of every answer.
        keep_maps: keep attention of every head (layers x heads x image tokens an example; of LLaVA-1.5
            2.4 MB). Without, only numbers made of it.
        progress: show a bar.

    Raises:
        InputError: a setting out of its range, or no samples.
        UnavailableError: an attention implementation without weights, several images in a sample, no
            processor, or a checkpoint that changes scores when it decodes.
        NumericalError: NaN or infinity in the model.
    """
    parts = observe_batches(
        model,
        samples,
        k=k,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        max_new_tokens=max_new_tokens,
        normalise=normalise,
        batch_size=batch_size,
        keep_maps=keep_maps,
        progress=progress,
    )
    return join_observations(list(parts))


def observe_batches(
    model: VLM,
    samples: Iterable[Sample],
    *,
    k: int = 10,
    temperature: float = 0.7,
    top_p: float = 0.9,
    seed: int = 0,
    max_new_tokens: int = 16,
    normalise: Normalise | None = None,
    batch_size: int = 32,
    keep_maps: bool = True,
    progress: bool = False,
) -> Iterator[Observations]:
    """``observe``, a batch at a time: what is held does not grow with the number of samples.

    Arguments are those of ``observe``, and checked at once.
    """
    sampling = Sampling(k, temperature, top_p, seed)
    check_answering(model, max_new_tokens)
    access.check_available(model, Site("pattern", 0))
    check_count(batch_size, "batch_size")
    # A generator runs nothing before its first item, so the checks are outside of it.
    chunks = in_batches(samples, batch_size, progress, "observing")
    options = {"sampling": sampling, "max_new_tokens": max_new_tokens, "normalise": normalise}
    return (_observed(model, chunk, keep_maps, options) for chunk in chunks)


def _observed(
    model: VLM, chunk: list[Sample], keep_maps: bool, options: dict[str, Any]
) -> Observations:
    batch = model.encode(chunk)
    logits, cache, states, rows = _prefill(model, batch)
    maps = tuple(
        on_grid(tokens, rows[:, i][..., tokens.position.numpy()])
        for i, tokens in enumerate(batch.tokens.images)
    )
    gaps = _gaps(model)

    def margins(pair: tuple[Tensor, Tensor]) -> Margins:
        if "post" in gaps:
            return final_margins(logits, model.n_layers, *pair)
        return margins_between(model, states, *pair)

    truth = right_pair(model, chunk, logits)
    own = own_pair(model, logits)
    return Observations(
        model=model.name,
        samples=tuple(chunk),
        signals=tuple(signals_of(model, batch, logits, cache, **options)),
        hidden=states.post.numpy(),
        structure=np.array([_structure(found) for found in maps]),
        entropy_by_layer=np.stack([entropy_by_layer(found) for found in maps], axis=1),
        region_mass=np.array(
            [_on_region(model, s, found) for s, found in zip(chunk, maps, strict=True)]
        ),
        own=margins(own),
        truth=margins(truth),
        maps=maps if keep_maps else None,
        gaps=gaps,
    )


def _gaps(model: VLM) -> dict[str, str]:
    """Parts of the margins that are not there at every depth, and why."""
    if why := model.family.unavailable("final_norm"):
        return dict.fromkeys(("entry", "mid", "post"), f"the logit lens does not hold: {why}")
    absent = _without_mid(model)
    if not absent:
        return {}
    which = "no block has" if len(absent) == model.n_layers else f"{len(absent)} blocks have no"
    return {"mid": f"{which} resid_mid: {next(iter(absent.values()))}"}


def _without_mid(model: VLM) -> dict[int, str]:
    """The blocks without a place between attention and MLP, and why."""
    found = {i: model.family.unavailable("resid_mid", i) for i in range(model.n_layers)}
    return {layer: why for layer, why in found.items() if why}


def _prefill(model: VLM, batch: Batch) -> tuple[Tensor, Any, Residuals, np.ndarray]:
    """One forward: logits, keys and values, residual streams, and attention of the last positions.

    Attention is [layer, example, head, key].
    """
    kept: dict[str, list[Tensor]] = {"rows": [], "mid": [], "post": []}
    absent = _without_mid(model)

    def last(value: Tensor) -> Tensor:
        return value[:, -1].detach().to("cpu", torch.float32, copy=True)

    with Trace(model, batch, options={"logits_to_keep": 1, "use_cache": True}) as t:
        kept["entry"] = [last(t.resid_pre[0])]
        for layer in range(model.n_layers):
            kept["rows"].append(t.attention_rows(layer).detach().float().cpu())
            if layer not in absent:
                kept["mid"].append(last(t.resid_mid[layer]))
            kept["post"].append(last(t.resid_post[layer]))
            if layer in absent:
                kept["mid"].append(torch.zeros_like(kept["post"][-1]))
        logits = t.logits.save()
        cache = model.envoy.output.past_key_values.save()
    mid, post = torch.stack(kept["mid"]), torch.stack(kept["post"])
    states = Residuals(kept["entry"][0], mid, post, tuple(absent))
    rows = torch.stack(kept["rows"])
    for name, value in (("resid_post", states.post), ("attention", rows)):
        if not bool(torch.isfinite(value).all()):
            raise NumericalError(f"{name} of {model.name} holds NaN or infinite values")
    return logits[:, -1].float(), cache, states, rows.numpy()


def _structure(maps: np.ndarray) -> list[float]:
    mean = mean_map(maps)
    if mean.size < 2:
        raise UnavailableError("an image of one token has no map to describe")
    entropy = spatial_entropy(mean)
    values = {
        "spatial_entropy": entropy,
        "spatial_entropy_normalised": entropy / math.log(mean.size),
        "cluster_count": float(cluster_count(mean)),
        "image_mass": image_mass(maps),
        "top_k_mass": top_k_mass(mean),
        "gini": gini(mean),
        "peak_sharpness": peak_sharpness(mean),
        "centre_distance": centre_distance(mean),
        "head_agreement": head_agreement(maps),
    }
    return [values[name] for name in STRUCTURE_SIGNALS]


def _on_region(model: VLM, sample: Sample, maps: np.ndarray) -> float:
    """Mass on what the question asks for; NaN where it is not known."""
    region = queried_region(model, sample, (maps.shape[2], maps.shape[3]))
    return math.nan if region is None else region_mass(mean_map(maps), region)
