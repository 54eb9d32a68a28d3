"""An ablation curve of a circuit's nodes, growing with the examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from mechvrp.circuits import AblationCurve, AnswerReader, CircuitNode, analyse_ablation
from mechvrp.circuits.answer_lengths import AnswerLengths, SomeLongerError, generates_the_likeliest
from mechvrp.circuits.first_token import sweep_answers
from mechvrp.circuits.node_edits import node_edits
from mechvrp.circuits.nodes import parse_nodes
from mechvrp.circuits.random_circuits import pool_key, random_circuits
from mechvrp.circuits.setting_checks import check_reading, check_settings, whole
from mechvrp.circuits.stand_ins import StandIns, check_reference
from mechvrp.errors import InputError, NumericalError, UnavailableError
from mechvrp.tracing import Activations, Site
from mechvrp.tracing.caching import in_batches

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM, Batch

__all__ = ["circuit_curves", "curve_sites", "default_sizes", "random_orders"]


def default_sizes(n: int, most: int = 10) -> tuple[int, ...]:
    """Numbers of nodes to take away: 0 to ``n``, all of them up to ``most`` and then about that many.

    >>> default_sizes(4)
    (0, 1, 2, 3, 4)
    """
    if n < 1:
        raise InputError("a curve needs at least one node")
    return tuple(sorted({0, *(int(k) for k in np.geomspace(1, n, min(n, most)).round())}))


def random_orders(
    model: VLM, nodes: Sequence[CircuitNode], draws: int, seed: int
) -> list[list[CircuitNode]]:
    """Random nodes in the place of each node, ``[draw][node]``, so that sets are nested as the circuit's are.

    Each draw is a random circuit (``random_circuits``: as many nodes of each kind, at the same positions;
    neurons and dimensions of the same layer), put in a random order within what is drawn together.
    """
    found = []
    for draw, circuit in enumerate(random_circuits(model, nodes, draws, seed=seed)):
        pools: dict[Any, list[CircuitNode]] = defaultdict(list)
        for node in circuit:
            pools[pool_key(node, "kind and positions")].append(node)
        rng = np.random.default_rng([seed, draw, 1])
        taken = {key: [pool[i] for i in rng.permutation(len(pool))] for key, pool in pools.items()}
        found.append([taken[pool_key(node, "kind and positions")].pop() for node in nodes])
    return found


def curve_sites(
    model: VLM, nodes: Sequence[str | CircuitNode], draws: int, seed: int
) -> list[Site]:
    """The sites of a curve's nodes and of the random ones in their place, in order."""
    order = [CircuitNode.parse(node) for node in nodes]
    orders = [order, *random_orders(model, order, draws, seed)]
    return sorted({node.site for row in orders for node in row}, key=lambda site: site.order)


def circuit_curves(
    model: VLM,
    samples: Iterable[Sample],
    nodes: Sequence[str | CircuitNode],
    *,
    mode: Literal["zero", "mean"] = "zero",
    reference: Sequence[Sample] | Activations | None = None,
    ks: Sequence[int] | None = None,
    draws: int = 9,
    seed: int = 0,
    reading: Literal["official", "strict"] = "strict",
    batch_size: int = 16,
    n_resamples: int = 1000,
    step: Callable[[], None] | None = None,
    encode: Callable[[Sequence[Sample]], Batch] | None = None,
) -> Iterator[AblationCurve]:
    """Ablate the first k nodes of a circuit, beside k random ones; after each batch, the curve so far.

    Nodes may be of several kinds and layers (``mechvrp.ablation_curve`` takes away units of one kind, in
    the order of a ranking). Accuracy is of the first generated token; examples whose clean answer is not
    one token long are left out. The last curve is the result: intervals of the ones before it are of fewer
    examples, and looking until one of them pleases makes them mean less.

    Args:
        model: from ``mechvrp.load``.
        samples: examples with right answers and image ids.
        nodes: in the order in which they are taken away.
        mode: ``"zero"``, or ``"mean"``: nodes take the mean of the reference, of image tokens, of last tokens
            or of other text, whichever a token is.
        reference: for ``"mean"``: samples of other images, or ``mechvrp.cache(..., positions="all")`` of
            ``curve_sites``.
        ks: numbers of nodes, ascending from 0; by default ``default_sizes``.
        draws: random sets of each size (``random_orders``).
        seed: of the draws and the intervals.
        reading: of yes/no answers (``mechvrp.data.score``).
        batch_size: examples between two curves.
        n_resamples: bootstrap resamples.
        step: called before each pass; what it raises ends the work.
        encode: ``model.encode``, or the same with a memory.

    Yields:
        Curves over the examples so far, from two images on.

    Raises:
        InputError: no such node, sizes, draws or mode, or a reference that shares images with the samples.
        UnavailableError: fewer than two images have clean answers of one token.
        NumericalError: an ablation gave NaN or infinite logits.
    """
    whole("draws", draws, 1)
    check_settings(seed=seed, batch_size=batch_size, n_resamples=n_resamples)
    check_reading(reading)
    order = [CircuitNode.parse(node) for node in nodes]
    parse_nodes(order)  # refuses what overlaps
    for node in order:
        node.check(model)
    sizes = default_sizes(len(order)) if ks is None else tuple(int(k) for k in ks)
    if (
        list(sizes) != sorted(set(sizes))
        or not sizes
        or not 0 <= sizes[0] <= sizes[-1] <= len(order)
    ):
        raise InputError(f"ks must ascend within 0 to {len(order)}; got {list(sizes)}")
    samples = list(samples)
    stand_ins = _stand_ins(model, samples, mode, reference)
    check = step or (lambda: None)
    orders = [order, *random_orders(model, order, draws, seed)]
    number: dict[frozenset[CircuitNode], int] = {}
    places = np.array(
        [[number.setdefault(frozenset(row[:k]), len(number)) for k in sizes] for row in orders]
    )
    sets = [tuple(sorted(chosen)) for chosen in number]
    read = AnswerReader(model, reading)
    kept: list[Sample] = []
    clean: list[np.ndarray] = []
    outcomes: list[np.ndarray] = []

    def watched(logits: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        check()
        return logits.new_zeros(logits.shape[:2])

    for chunk in in_batches(samples, batch_size):
        check()
        batch = (encode or model.encode)(chunk)
        lengths = AnswerLengths(model)
        if generates_the_likeliest(model):
            try:
                scored = _scored(stand_ins(batch), sets, read, watched, lengths)
            except SomeLongerError:
                scored = None
        else:
            lengths.generate(batch)
            scored = _scored(stand_ins(batch), sets, read, watched) if lengths.one.all() else None
        if scored is None:
            chunk = [sample for sample, one in zip(chunk, lengths.one, strict=True) if one]
            if not chunk:
                continue
            scored = _scored(stand_ins(model.encode(chunk)), sets, read, watched)
        if failed := [error for error in scored.errors if error]:
            raise NumericalError(f"{len(failed)} of {len(sets)} ablations failed: {failed[0]}")
        kept += chunk
        clean.append(scored.clean)
        outcomes.append((scored.answers == 1)[places])
        images = [sample.source_id for sample in kept]
        if len(set(images)) > 1:
            joined = np.concatenate(outcomes, axis=-1)
            yield analyse_ablation(
                np.concatenate(clean),
                joined[0],
                joined[1:],
                images,
                sizes,
                [sample.task for sample in kept],
                units=len(order),
                site="circuit nodes",
                seed=seed,
                n_resamples=n_resamples,
            )
    if len({sample.source_id for sample in kept}) < 2:
        raise UnavailableError(
            f"only {len(kept)} examples, of fewer than two images, have clean answers of one token, which is "
            "what a curve scores; give more examples with one-token answers"
        )


def _stand_ins(
    model: VLM,
    samples: Sequence[Sample],
    mode: str,
    reference: Sequence[Sample] | Activations | None,
) -> Callable[[Batch], StandIns]:
    """What is put in, for each batch; means are made once."""
    if mode not in ("zero", "mean"):
        raise InputError(f"mode is 'zero' or 'mean'; got {mode!r}")
    if mode == "zero":
        if reference is not None:
            raise InputError("mode='zero' takes no reference: zeros stand in for what is ablated")
        return lambda batch: StandIns(model, batch, "zero")
    check_reference(reference)
    if not isinstance(reference, Activations):
        shared = {one.source_id for one in reference or ()} & {one.source_id for one in samples}
        if shared:
            raise InputError(
                f"the reference shares {len(shared)} images with the samples, {sorted(shared)[0]!r} for one; "
                "take means over other images"
            )
    first: list[StandIns] = []

    def made(batch: Batch) -> StandIns:
        if not first:
            first.append(StandIns(model, batch, "mean", reference, pooled=True))
        return first[0].beside(batch)

    return made


def _scored(
    stand_ins: StandIns,
    sets: Sequence[tuple[CircuitNode, ...]],
    read: AnswerReader,
    watched: Any,
    on_clean: Any = None,
) -> Any:
    stand_ins.need({node.site for nodes in sets for node in nodes})  # all in one run
    edits = [node_edits(stand_ins, nodes, "circuit") if nodes else () for nodes in sets]
    return sweep_answers(
        stand_ins.model, stand_ins.batch, edits, read, more={"watched": watched}, on_clean=on_clean
    )
