"""Sweeps against one forward a variant: nnsight's loop, plain hooks, TransformerLens.

A peer's time is the mean over some of the variants, spread over the layers, times their number: whole
loops would take hours. Each of those is compared with the sweep's logits before anything is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import mechvrp
from benchmarks import models, peers
from benchmarks.table import Row
from mechvrp.patching import attribution_patching, replace
from mechvrp.patching.grids import values_of
from mechvrp.tracing import Site

__all__ = ["millions", "rows", "timed"]

_KS = (1, 2, 4, 8, 16, 32, 64, 128)
_SAMPLED = 3  # variants a peer is timed on
_QUIET: dict[str, Any] = {"progress": False}


def rows(shape: models.Shape, *, examples: int = 4) -> list[Row]:
    """All rows of one model; of Qwen2.5-VL, which is as Qwen2-VL, those that TransformerLens is beside."""
    fresh = models.built(shape)  # never wrapped, for plain hooks: before its first forward
    model = mechvrp.load(models.built(shape))
    warm, batch = (models.batch(model, shape, examples, seed) for seed in (1, 2))
    title = f"{shape.name}-shaped, {millions(fresh)} M weights, {shape.tokens} tokens"
    found = _neurons(model, fresh, warm, batch, "last", title)
    if shape.name == "qwen2.5-vl":
        return found
    found += _neurons(model, fresh, warm, batch, "all", title)
    one = [models.batch(model, shape, 1, seed) for seed in (3, 4, 5, 6)]
    return found + _grid(model, one, shape, title)


def millions(model: Any) -> int:
    return round(sum(p.numel() for p in model.parameters()) / 1e6)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def taking_turns(
    works: dict[str, Callable[[mechvrp.Batch], Any]], batch: mechvrp.Batch, repeats: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds and last results of some works."""
    times: dict[str, list[float]] = {name: [] for name in works}
    results = {}
    for _ in range(repeats):
        for name, work in works.items():
            seconds, results[name] = timed(lambda work=work: work(batch))
            times[name].append(seconds)
    return {name: statistics.median(each) for name, each in times.items()}, results


def _variants(model: mechvrp.VLM, ks: tuple[int, ...]) -> list[tuple[int, list[int]]]:
    generator = torch.Generator().manual_seed(7)
    order = torch.randperm(model.d_mlp, generator=generator).tolist()
    return [(layer, sorted(order[:k])) for layer in range(model.n_layers) for k in ks]


def _zeroed(variants: list[tuple[int, list[int]]], positions: str) -> list[mechvrp.Intervention]:
    return [
        mechvrp.zero("neurons", layer=layer, units=units, positions=positions)
        for layer, units in variants
    ]


def _neurons(
    model: mechvrp.VLM,
    fresh: Any,
    warm: mechvrp.Batch,
    batch: mechvrp.Batch,
    positions: str,
    title: str,
) -> list[Row]:
    """Zeroed neurons: all layers by values of k."""
    last = positions == "last"
    chosen = _variants(model, _KS if last else _KS[-1:])
    edits = _zeroed(chosen, positions)
    where = slice(-1, None) if last else slice(None)
    step = max(1, len(chosen) // _SAMPLED)
    some = list(range(step // 2, len(chosen), step))
    few = [(*chosen[i], where) for i in some]
    others = {
        "the nnsight loop": peers.nnsight_loop(model),
        "plain hooks": peers.hooks(fresh),
    }
    if fresh.config.model_type in ("llava", "qwen2_5_vl"):  # what TransformerLens has adapters for
        others["TransformerLens"] = peers.transformer_lens(fresh)
    made = mechvrp.plan(model, batch, edits)
    least_layers = least_token_layers(model, batch, edits)
    what = f"zeroing neurons at {'the last position' if last else 'all positions'}"
    detail = f"{title}, batch {len(batch)}, {len(edits)} variants"

    works: dict[str, Callable[[mechvrp.Batch], Any]] = {
        "sweep": lambda b: mechvrp.sweep(model, b, edits, "logits", **_QUIET),
        **{name: lambda b, run=run: run(b, few) for name, run in others.items()},
    }
    third = [
        i
        for i, (layer, _) in enumerate(chosen)
        if layer >= model.n_layers - max(1, model.n_layers // 3)
    ]
    if not last:
        late = [edits[i] for i in third]
        works["last third"] = lambda b: mechvrp.sweep(model, b, late, "logits", **_QUIET)
    elif made.why_not == "":
        works["one k"] = lambda b: mechvrp.sweep(model, b, edits[:: len(_KS)], "logits", **_QUIET)
    mechvrp.sweep(model, warm, edits[:: max(1, len(edits) // 4)], "logits", **_QUIET)
    for run in others.values():
        run(warm, few[:1])
    seconds, results = taking_turns(works, batch, 3)
    ours = torch.from_numpy(results["sweep"]["logits"].values)[some]
    found = []
    for name in others:
        theirs = results[name]
        worst = float((ours - theirs.float()).abs().max() / theirs.float().abs().max())
        assert worst < 1e-5, f"{name} differs by {worst:.2g} of the largest logit"
        each = seconds[name] / len(few)
        rows = [("sweep", what, len(edits), made.naive_token_layers / least_layers)]
        if not last and name == "the nnsight loop":
            late_least = least_token_layers(model, batch, late)
            naive = made.naive_token_layers / len(edits) * len(late)
            rows.append(
                ("last third", f"{what}, last third of the layers", len(late), naive / late_least)
            )
        for key, words, n, allowed in rows:
            least = None
            if name == "the nnsight loop":
                least = 0.9 * allowed
                if last:
                    least = 0.7 * n if made.why_not == "" else None
            found.append(
                Row(
                    f"{words}, against {name}",
                    each * n / seconds[key],
                    "x",
                    least,
                    detail=f"{title}, batch {len(batch)}, {n} variants; {seconds[key]:.3g} s against "
                    f"{each * n:.4g} s ({len(few)} of them run); exactness allows {allowed:.3g}x",
                )
            )
    if "one k" in works:
        more = max(seconds["sweep"] - seconds["one k"], 1e-9)
        further = more / (len(edits) - model.n_layers)
        forward = seconds["plain hooks"] / len(few)
        found.append(
            Row(
                f"{what}: a further variant against a forward",
                forward / further,
                "x",
                300,
                detail=f"{detail} against {model.n_layers}; {1e3 * further:.3g} ms against {forward:.3g} s",
            )
        )
    found.append(
        Row(
            f"{what}: token-layers against the least that exactness allows",
            made.token_layers / least_layers,
            "x",
            most=1.15,
            detail=f"{detail}; {made.token_layers:,.0f} against {least_layers:,.0f}",
        )
    )
    return found


def least_token_layers(model: mechvrp.VLM, batch: mechvrp.Batch, edits: list[Any]) -> float:
    """Token-layers that no exact run of these edits of neurons or of ``resid_post`` can do without.

    In a layer of edited neurons attention is as it was, and MLPs are run at edited positions only; behind
    it everything changes from the first edited position on (everywhere under prefix attention); in the last
    layer only the last position needs its query and MLP, others keys and values. Shares are of weights.
    """
    block = model.model.get_submodule(f"{model.modules.layers}.0")
    sizes = {name: p.numel() for name, p in block.named_parameters()}
    whole = sum(sizes.values())
    attention = sum(n for name, n in sizes.items() if name.startswith("self_attn")) / whole
    keys = sum(n for name, n in sizes.items() if ".k_proj." in name or ".v_proj." in name) / whole
    length, examples, depth = batch.tokens.length, len(batch), model.n_layers
    total = float(depth * length * examples)
    for edit in edits:
        edited = torch.cat(batch.tokens.resolve(edit.positions))
        first = int(edited.min()) if model.family.attention == "causal" else 0
        behind = length - first
        layer = edit.site.layer or 0
        at_layer = 0.0
        if edit.site.component == "neurons":
            at_layer = (1 - attention) * (len(edited) if layer < depth - 1 else examples)
        blocks = depth - 1 - layer
        rest = 0.0
        if blocks:
            rest = examples * ((blocks - 1) * behind + 1 + (behind - 1) * keys)
        total += at_layer + rest
    return total


def _grid(
    model: mechvrp.VLM, batches: list[mechvrp.Batch], shape: models.Shape, title: str
) -> list[Row]:
    """Restoring states of a clean run in a corrupted one: layers by image rows and text tokens."""
    warm_clean, warm_bad, clean, corrupted = batches
    places: list[Any] = [[(r, c) for c in range(shape.side)] for r in range(shape.side)]
    text = list(range(4)) + list(range(4 + shape.image_tokens, shape.tokens))
    places += [[i] for i in text if i > 0]
    causal = model.family.attention == "causal"

    def restored(source: mechvrp.Batch, layers: range) -> list[Any]:
        sites = [Site("resid_post", layer) for layer in layers]
        values, _ = values_of(model, source, sites)
        return [replace(site, values[site], positions=p) for site in sites for p in places]

    layers = range(model.n_layers)
    few_places = restored(warm_clean, range(model.n_layers - 1, model.n_layers))
    mechvrp.sweep(model, warm_bad, few_places, "logits", **_QUIET)

    answers = values_of(model, clean, [])[1].argmax(-1).tolist()
    asked: dict[str, Any] = {"measure": ["logits", "logit_diff"], "target": answers, **_QUIET}

    def grid() -> Any:
        return mechvrp.sweep(model, corrupted, restored(clean, layers), **asked)

    edits = restored(clean, layers)
    made = mechvrp.plan(model, corrupted, edits)
    least = least_token_layers(model, corrupted, edits)
    step = max(1, len(edits) // (3 * _SAMPLED))
    some = list(range(step // 2, len(edits), step))

    def loop() -> torch.Tensor:
        found = []
        for i in some:
            layer, place = divmod(i, len(places))
            at = torch.cat(corrupted.tokens.resolve(places[place]))
            value = edits[i].value
            with (
                torch.no_grad(),
                model.envoy.trace(**corrupted.inputs, use_cache=False, logits_to_keep=1),
            ):
                block = model.envoy.model.language_model.layers[layer]
                state = block.output.clone()
                state[:, at] = value[:, at]
                block.output = state
                logits = model.envoy.output.logits[:, -1].save()
            found.append(logits)
        return torch.stack(found)

    # The loop before and after: a machine's pace changes over minutes.
    before, theirs = timed(loop)
    seconds, result = timed(grid)
    after, _ = timed(loop)
    each = (before + after) / 2 / len(some)
    ours = torch.from_numpy(result["logits"].values)[some]
    worst = float((ours - theirs.float()).abs().max() / theirs.float().abs().max())
    assert worst < 1e-5, f"the loop differs by {worst:.2g} of the largest logit"
    naive = each * len(edits)
    what = "causal-trace grid (layers x image rows and text tokens)"
    detail = f"{title}, batch 1, {len(edits)} cells"
    found = [
        Row(
            f"{what}, against the nnsight loop",
            naive / seconds,
            "x",
            6 if causal else 2,
            detail=f"{detail}; {seconds:.3g} s against {naive:.4g} s ({len(some)} of them run); "
            f"exactness allows {made.naive_token_layers / least:.3g}x",
        ),
        Row(
            f"{what}: token-layers against the least that exactness allows",
            made.token_layers / least,
            "x",
            most=1.15,
            detail=f"{detail}; {made.token_layers:,.0f} against {least:,.0f}",
        ),
    ]
    options: dict[str, Any] = {"positions": places}
    attribution_patching(model, warm_clean, warm_bad, **options)
    fast, estimate = timed(lambda: attribution_patching(model, clean, corrupted, **options))
    fast = min(fast, timed(lambda: attribution_patching(model, clean, corrupted, **options))[0])
    exact = (result["logit_diff"] - result["base_logit_diff"]).mean("example").values
    from scipy.stats import spearmanr

    rank = spearmanr(estimate.estimates["resid_post"].mean("example").values.ravel(), exact)
    found.append(
        Row(
            "attribution patching of the same grid, against the nnsight loop of exact patches",
            naive / fast,
            "x",
            50,
            detail=f"{detail}; {fast:.3g} s; rank correlation with the exact grid "
            f"{rank.statistic:.2f} (random weights)",
        )
    )
    return found
