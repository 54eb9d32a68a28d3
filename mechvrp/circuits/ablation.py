"""Run the ablations behind an ablation curve: take away top-ranked and random units, score the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from mechvrp.circuits.first_token import AnswerReader, sweep_answers
from mechvrp.circuits.ranking import Ranking
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.patching.interventions import zero
from mechvrp.patching.replacing import replace
from mechvrp.tracing.activations import Activations
from mechvrp.tracing.caching import in_batches
from mechvrp.tracing.sites import Site

if TYPE_CHECKING:
    from mechvrp.data import Sample
    from mechvrp.models import VLM
    from mechvrp.patching.interventions import Edits

__all__ = ["AblationMode", "AblationOutcomes", "ablate_ranking", "ablation_variants"]

#: What stands in the place of a unit: nothing, or its mean over other examples.
AblationMode = Literal["zero", "mean"]

_SITES = ("resid_post", "neurons")


@dataclass(frozen=True)
class AblationOutcomes:
    """Whether each answer was right, under each ablation.

    Attributes:
        ks: how many units were taken away.
        clean: [example], without ablation.
        top: [k, example], the top k of the ranking taken away.
        random: [draw, k, example], k random units taken away.
    """

    ks: tuple[int, ...]
    clean: np.ndarray
    top: np.ndarray
    random: np.ndarray


def ablate_ranking(
    model: VLM,
    samples: Sequence[Sample],
    ranking: Ranking,
    ks: Sequence[int],
    *,
    mode: AblationMode = "zero",
    over: Activations | np.ndarray | None = None,
    draws: int = 20,
    seed: int = 0,
    reading: Literal["official", "strict"] = "strict",
    batch_size: int = 64,
    progress: bool = False,
) -> AblationOutcomes:
    """Take away units of a site at the last prompt position, and score the greedy answer.

    The answer is read from the first generated token, so every clean answer must be one token long
    (``mechvrp.reliability.greedy_answers`` gives each answer's tokens). All ablations of a batch are one
    sweep: what they share is computed once.

    Args:
        model: from ``mechvrp.load``.
        samples: the held-out examples.
        ranking: units of the residual stream (``blocks.L.hook_resid_post``) or of an MLP's neurons
            (``blocks.L.mlp.hook_post``).
        ks: numbers of units, ascending from 0.
        mode: ``"zero"``, or ``"mean"``: the units take their mean over other (training) examples.
        over: for ``"mean"``: ``mechvrp.cache(model, training, ranking.site, positions="last")``, or the same
            values as an array [example, unit].
        draws: random sets of each size; draw i is nested over k, as the top units are.
        seed: of the draws.
        reading: how yes/no answers are read (``mechvrp.data.score``). Under the official reading
            of POPE whatever is not a no counts as a yes, so a broken answer can be right.

    Raises:
        InputError: the ranking is of another kind of site, or ``ks``, ``draws``, ``mode`` or ``over`` do
            not fit it.
        ShapeError: the ranking or ``over`` is of another width than the site.
        NumericalError: an ablation gave no answer: NaN or infinite logits.
    """
    edits = ablation_variants(model, ranking, ks, mode=mode, over=over, draws=draws, seed=seed)
    read = AnswerReader(model, reading)
    clean: list[np.ndarray] = []
    outcomes: list[np.ndarray] = []
    for chunk in in_batches(samples, batch_size, progress, "ablating"):
        found = sweep_answers(model, model.encode(chunk), edits, read)
        if failed := [error for error in found.errors if error]:
            raise NumericalError(f"{len(failed)} of {len(edits)} ablations failed: {failed[0]}")
        clean.append(found.clean)
        outcomes.append(found.answers == 1)
    if not outcomes:
        raise InputError("no samples to ablate units on")
    joined = np.concatenate(outcomes, axis=-1).reshape(draws + 1, len(ks), -1)
    return AblationOutcomes(tuple(ks), np.concatenate(clean), joined[0], joined[1:])


def ablation_variants(
    model: VLM,
    ranking: Ranking,
    ks: Sequence[int],
    *,
    mode: AblationMode = "zero",
    over: Activations | np.ndarray | None = None,
    draws: int = 20,
    seed: int = 0,
) -> list[Edits]:
    """The edits that ``ablate_ranking`` sweeps: the top k for each k, then of each draw k random units.

    Arguments and errors as there.
    """
    site = Site.parse(ranking.site).check(model)
    if site.component not in _SITES or site.layer is None:
        raise InputError(
            f"ablate_ranking takes a ranking of resid_post units or of MLP neurons; got one of {site}"
        )
    width = model.d_model if site.component == "resid_post" else model.d_mlp
    ranking.check(model)
    if list(ks) != sorted(set(ks)) or not ks or not 0 <= ks[0] <= ks[-1] <= width:
        raise InputError(f"ks must ascend within 0 to {width}; got {list(ks)}")
    stand_in = _stand_in(site, width, mode, over)
    random = {k: ranking.random(k, draws, seed) for k in ks}
    chosen = [ranking.top(k) for k in ks]
    chosen += [random[k][draw] for draw in range(draws) for k in ks]
    return [_edit(site, units, stand_in) for units in chosen]


def _stand_in(
    site: Site, width: int, mode: str, over: Activations | np.ndarray | None
) -> torch.Tensor | None:
    """The value [unit] that stands in the place of a unit; None: zero."""
    if mode not in ("zero", "mean"):
        raise InputError(f"mode is 'zero' or 'mean'; got {mode!r}")
    if (over is None) != (mode == "zero"):
        raise InputError(
            "mode='mean' needs over=, activations of other examples to take the mean over, and "
            f"mode='zero' none; got mode={mode!r} and {'no ' * (over is None)}over"
        )
    if over is None:
        return None
    if isinstance(over, Activations):
        if over.positions != "last":
            raise InputError(
                f"the mean is of last prompt positions; over was cached at {over.positions!r}"
            )
        values = over.flat(site).double()
    else:
        values = torch.from_numpy(np.ascontiguousarray(over)).double()
    if values.ndim != 2 or values.shape[1] != width or not len(values):
        raise ShapeError(
            f"over has shape {tuple(values.shape)}; {site} has {width} units: give [example, {width}]"
        )
    if not bool(torch.isfinite(values).all()):
        raise NumericalError(
            f"over holds {int((~torch.isfinite(values)).sum())} values that are NaN or infinite"
        )
    return values.mean(0).float()


def _edit(site: Site, units: np.ndarray, stand_in: torch.Tensor | None) -> Edits:
    if not len(units):
        return ()
    if stand_in is None:
        return zero(site, positions="last", units=units.tolist())
    return replace(site, stand_in, positions="last", units=units.tolist())
