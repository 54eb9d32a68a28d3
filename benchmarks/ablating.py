"""Ablation curves against one bare nnsight trace a set of units."""

from __future__ import annotations

from typing import Any

import torch

import mechvrp
from benchmarks import models, peers
from benchmarks.sweeping import least_token_layers, millions, timed
from benchmarks.table import Row
from mechvrp.circuits import Ranking
from mechvrp.data import Sample

__all__ = ["rows"]

_KS = (1, 2, 4, 8, 16, 32, 64, 128)
_DRAWS = 10
_TIMED = 3  # sets that the loop is timed on


def rows(
    shape: models.Shape, *, examples: int = 4, scenes: int = 256, many: int = 1000
) -> list[Row]:
    """A model of some size and the embedded one, at the last and at all positions; the latter on 1,000."""
    model = models.answering(shape)
    samples = [
        Sample(s.image, s.question, "w7", s.image_id) for s in models.samples(shape, examples, 1)
    ]
    title = f"{shape.name}-shaped, {millions(model.model)} M weights, {examples} examples"
    # Random weights answer until they are stopped: their first token is scored all the same.
    options: dict[str, Any] = {"answer_tokens": [1] * examples, "chance": 0.0}
    ks = tuple(k for k in _KS if k <= model.d_mlp)
    found = [
        _row(model, samples, "last", title, ks, options),
        _row(
            model,
            samples,
            "all",
            title,
            ks[-2:],
            # Norms and intervals cost what they cost with many sets: here there are few.
            {**options, "draws": 2, "sets": ("least",), "n_resamples": 200},
        ),
    ]
    tiny = mechvrp.load("tiny-llava")
    polls = list(mechvrp.data.load("scenes", limit=scenes))
    found.append(_row(tiny, polls, "last", f"tiny-llava, {scenes} examples", _KS, {}))
    few = polls[: min(32, scenes)]
    less = {"draws": 2, "sets": ("least",), "n_resamples": 200}
    found.append(_row(tiny, few, "all", f"tiny-llava, {len(few)} examples", _KS, less))
    return [*found, _whole(tiny, many)]


def _whole(model: mechvrp.VLM, examples: int) -> Row:
    """A curve as it is asked for, with every set of units and all of its analysis."""
    samples = list(mechvrp.data.load("scenes", limit=examples))
    ranking = _ranking(model)
    seconds, made = timed(
        lambda: mechvrp.ablation_curve(model, samples, ranking, _KS, draws=_DRAWS, batch_size=128)
    )
    return Row(
        f"ablation curve, {len(_KS)} values of k, {_DRAWS} random draws, {examples:,} examples",
        seconds,
        "s",
        most=45,
        detail=f"tiny-llava, neurons of layer {model.n_layers // 2} at the last position, all sets "
        f"({made.settings['sets_run']} different ones), answers' lengths, intervals and tests included",
    )


def _ranking(model: mechvrp.VLM) -> Ranking:
    """Neurons of a middle layer in a random order."""
    generator = torch.Generator().manual_seed(7)
    scores = torch.randn(model.d_mlp, generator=generator).numpy()
    return Ranking((f"blocks.{model.n_layers // 2}.mlp.hook_post",), scores)


def _row(
    model: mechvrp.VLM,
    samples: list[Sample],
    positions: str,
    title: str,
    ks: tuple[int, ...],
    options: dict[str, Any],
) -> Row:
    """A curve of neurons of a middle layer, compared with the loop on some of its sets and timed."""
    layer, last = model.n_layers // 2, positions == "last"
    ranking = _ranking(model)
    options = {"draws": _DRAWS, **options}
    size = min(len(samples), 128)
    chunks = [samples[i : i + size] for i in range(0, len(samples), size)]
    loop = peers.nnsight_loop(model)
    where = slice(-1, None) if last else slice(None)
    few = [(layer, ranking.top(k).tolist(), where) for k in ks[-_TIMED:]]
    batch = model.encode(chunks[0])

    def curve(given: list[Sample], **more: Any) -> Any:
        return mechvrp.ablation_curve(
            model, given, ranking, ks, positions=positions, batch_size=size, **{**options, **more}
        )

    loop(batch, few[:1])
    warm: dict[str, Any] = {"draws": 1, "sets": (), "n_resamples": 50}
    curve(chunks[0], **warm)
    # The loop before and after: a machine's pace changes over minutes.
    before, theirs = timed(lambda: loop(batch, few))
    seconds, made = timed(lambda: curve(samples))
    after, _ = timed(lambda: loop(batch, few))
    (clean,) = loop(batch, [(layer, [], where)])
    ours = made.outcomes.values["margin"]["top"][0, -len(few) :]
    if not made.notes or "left out" not in made.notes[0]:  # else its examples are not the batch's
        worst = (_margins(theirs, clean) - torch.from_numpy(ours[:, : len(batch)])).abs().max()
        largest = theirs.float().abs().max()
        assert worst < 1e-4 * largest, (
            f"the loop differs by {worst / largest:.2g} of the largest logit"
        )
    sets = made.settings["sets_run"]
    each = (before + after) / 2 / len(few) * len(samples) / len(batch)
    edits = [
        mechvrp.zero("neurons", layer=layer, units=units, positions=positions)
        for _, units, _ in few[:1]
    ]
    whole = float(model.n_layers * batch.tokens.length * len(batch))
    # The clean run is shared by all sets; each has its own part behind it.
    further = least_token_layers(model, batch, edits) - whole
    allowed = sets * whole / (whole + sets * further)
    return Row(
        f"ablation curve, neurons at {'the last position' if last else 'all positions'}, "
        f"{'tiny-llava' if title.startswith('tiny') else 'many weights'}, against the nnsight loop",
        each * sets / seconds,
        "x",
        20 if last else 0.9 * allowed,
        detail=f"{title}, layer {layer} of {model.n_layers}, {len(ks)} values of k, {options['draws']} draws, "
        f"{sets} sets; {seconds:.3g} s, analysis included, against {each * sets:.4g} s ({len(few)} of them "
        f"run{'' if len(batch) == len(samples) else f' on {len(batch)}'})"
        + ("" if last else f"; exactness allows {allowed:.3g}x"),
    )


def _margins(logits: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Logit of the clean answer minus the best other's, [set, example]."""
    own = clean.argmax(-1).expand(logits.shape[:2])[..., None]
    others = logits.float().scatter(-1, own, -torch.inf).amax(-1)
    return logits.float().gather(-1, own)[..., 0] - others
