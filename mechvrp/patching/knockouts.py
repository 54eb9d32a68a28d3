"""Attention knockout over layers: which flow of information an answer needs, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mechvrp.errors import InputError
from mechvrp.models.checks import check_batches, whole
from mechvrp.patching.attention_edges import knockout
from mechvrp.patching.causal import window_around
from mechvrp.patching.changes import batch_images, mean_changes
from mechvrp.patching.interventions import Edits, seeds
from mechvrp.patching.measures import one_measure
from mechvrp.patching.places import chosen_layers
from mechvrp.patching.sweeping import MEMORY, sweep

if TYPE_CHECKING:
    import xarray

    from mechvrp.models import VLM, Batch
    from mechvrp.models.tokens import Positions

__all__ = ["EDGES", "attention_knockout", "check_edge"]

#: Who no longer sees whom: query positions and key positions by name.
EDGES: Mapping[str, tuple[str, str]] = {
    "image to last": ("last", "image"),
    "image to question": ("question", "image"),
    "question to last": ("last", "question"),
}


def attention_knockout(
    model: VLM,
    batch: Batch,
    edges: Mapping[str, tuple[Positions, Positions]] | None = None,
    *,
    window: int = 1,
    layers: Sequence[int] | None = None,
    measure: Any = "probability",
    target: Any = "own",
    foil: Any = None,
    memory: int = MEMORY,
    n_resamples: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> xarray.Dataset:
    """Cut attention from some positions to others in a sliding window of layers.

    As Geva et al. 2023 (arXiv 2304.14767, section 5) trace facts in language models, and others since the
    flow from image to text.

    Args:
        model: from ``mechvrp.load``; its ``pattern`` is edited.
        batch: from ``model.encode``.
        edges: by name, query positions and the key positions they no longer see (as
            ``batch.tokens.resolve``); by default ``EDGES``: image to last, image to question, question to
            last. The name says which way information would have gone.
        window: how many layers are cut together, around the one that a cell names.
        layers: by default all.
        measure, target, foil, memory, progress: as ``sweep``.
        n_resamples, seed: of the bootstrap over images.

    Returns:
        ``value`` [edge, layer, example] and ``base`` [example], the measure with and without the cut;
        ``change`` [edge, layer], the mean difference, with ``change_low`` and ``change_high``.
        ``attrs["n_groups"]``: how many images the examples are of.

    Raises:
        InputError: no edge, or an unusable window or measure.
    """
    import xarray as xr

    check_batches(model, batch)
    whole("n_resamples", n_resamples, 1)
    seeds(seed=seed)
    edges = EDGES if edges is None else edges
    if not isinstance(edges, Mapping) or not all(
        isinstance(ends, tuple | list) and len(ends) == 2 for ends in edges.values()
    ):
        raise InputError(f"edges are pairs of query and key positions by name; got {edges!r:.60}")
    name, chosen_measure = one_measure(measure, "attention_knockout")
    if not edges:
        raise InputError("attention_knockout takes at least one edge; none was given")
    chosen = chosen_layers(model, layers)
    for title, (query, key) in edges.items():
        check_edge(model, batch, title, query, key)
    variants: list[Edits] = [
        knockout(list(window_around(layer, window, model.n_layers)), query=query, key=key)
        for query, key in edges.values()
        for layer in chosen
    ]
    found = sweep(
        model,
        batch,
        variants,
        {name: chosen_measure},
        target=target,
        foil=foil,
        memory=memory,
        progress=progress,
    )
    if failed := [str(e) for e in found["error"].values if e]:
        raise InputError(f"{len(failed)} of {len(variants)} knockouts cannot be made: {failed[0]}")
    value = found[name].values.reshape(len(edges), len(chosen), len(batch))
    base = found[f"base_{name}"].values
    change, low, high = mean_changes(value - base, batch, n_resamples=n_resamples, seed=seed)
    dims = ("edge", "layer")
    return xr.Dataset(
        {
            "value": ((*dims, "example"), value),
            "base": ("example", base),
            "change": (dims, change),
            "change_low": (dims, low),
            "change_high": (dims, high),
        },
        {"edge": list(edges), "layer": chosen, "example": found["example"].values},
        {
            **found.attrs,
            "measure": name,
            "window": window,
            "seed": seed,
            "n_groups": batch_images(batch),
        },
    )


def check_edge(model: VLM, batch: Batch, title: str, query: Positions, key: Positions) -> None:
    """Raise ``InputError`` if there is nothing to cut: a null result of no meaning."""
    if model.family.attention != "causal":
        return
    pairs = zip(batch.tokens.resolve(query), batch.tokens.resolve(key), strict=True)
    if not any(len(q) and len(k) and int(k.min()) <= int(q.max()) for q, k in pairs):
        raise InputError(
            f"edge {title!r}: under causal attention no position of {query!r} sees one of {key!r}; the "
            "first names who looks, the second who is looked at"
        )
