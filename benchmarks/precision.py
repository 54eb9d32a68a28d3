"""Every figure of a study in float32, bfloat16 and float16: what half the bits change.

``python -m benchmarks.precision`` runs, of each embedded model and in each dtype, a study (preset ``vrp``:
signals, comparators, probes and other readouts, ablations, causal rows), a grid of activation patching, an
ablation curve of neurons, the proof of a circuit and the flow of image information, and writes how far each
figure lies from float32's to PRECISION.md and precision.json. The same samples, split, seeds and units in all
dtypes: the curve's ranking and the circuit are float32's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer

import mechvrp
from mechvrp.circuits import (
    Circuit,
    Ranking,
    counterfactual_pairs,
    discover_circuit,
    image_flow,
    prove_circuit,
)
from mechvrp.errors import MechVRPError
from mechvrp.patching import activation_patching
from mechvrp.study import compare_runs, run_study

HERE = Path(__file__).parent
DTYPES = ("float32", "bfloat16", "float16")
#: Kinds of figures, and what a difference in them is counted in.
KINDS = {
    "share": "share of examples",
    "R": "correlation",
    "AUROC": "AUROC",
    "AUROC difference": "AUROC",
    "pp": "percentage points",
    "layer": "layers",
    "k": "units",
    "error": "calibration error",
    "difference": "calibration error",
    "entropy difference": "nats",
    "patch effect": "share of the way from corrupted to clean",
    "logit margin": "logits",
    "circuit share": "share of the difference between clean and corrupted",
    "flow share": "share of the difference between clean and corrupted",
}
#: Measures of the flow of image information, as these kinds.
FLOW = {"accuracy": "pp", "logit_diff": "logit margin", "share": "flow share"}


@dataclass(frozen=True)
class Found:
    """One figure of one model in one dtype; ``gap``: why it has no value."""

    model: str
    dtype: str
    measure: str
    kind: str
    value: float | None
    low: float | None = None
    high: float | None = None
    gap: str = ""


def _study(name: str, dtype: str, n: int, folder: Path) -> Iterator[Found]:
    out = folder / f"{name}-{dtype}"
    run_study(
        name, "scenes", out=out, preset="vrp", n=n, dtype=dtype, progress=False,
        split="adversarial",
    )  # fmt: skip
    for figures in compare_runs([out]).figures_by_table.values():
        for f in figures:
            yield Found(name, dtype, f.measure, f.kind, f.value, f.low, f.high, f.gap)


def _patched(model: mechvrp.VLM, name: str, dtype: str, pairs: int) -> Iterator[Found]:
    samples = list(mechvrp.data.load("scenes", split="train", task="existence", limit=pairs))
    others = [mechvrp.data.counterfactual_pair(sample) for sample in samples]
    clean, corrupted = model.encode(samples), model.encode(others)
    for site in ("resid_post", "attn_out", "mlp_out"):
        found = activation_patching(
            model, clean, corrupted, site, positions=["question", "last"], progress=False
        )
        effect = found["effect"].mean("example")
        for layer in effect["layer"].values.tolist():
            for position in effect["position"].values.tolist():
                value = float(effect.sel(layer=layer, position=position))
                words = f"patch effect, {site}, layer {layer}, {position}"
                yield Found(name, dtype, words, "patch effect", value)


def _curve(
    model: mechvrp.VLM, name: str, dtype: str, n: int, scores: np.ndarray, site: str
) -> Iterator[Found]:
    samples = mechvrp.data.load("scenes", split="adversarial", seed=1, limit=n)
    curve = mechvrp.ablation_curve(
        model, samples, Ranking((site,), scores), [0, 5, 20, 48], draws=20, n_resamples=200
    )
    for point in curve.points:
        if point.k:
            change = point.change
            yield Found(
                name,
                dtype,
                f"top {point.k} neurons zeroed",
                "pp",
                change.value,
                change.low,
                change.high,
            )
            value = point.random_change.value
            yield Found(name, dtype, f"random {point.k} neurons zeroed", "pp", value)
    assert curve.outcomes is not None
    for which, margins in curve.outcomes.values["margin"].items():
        for k, values in zip(curve.outcomes.ks, margins.mean(axis=(0, 2)), strict=True):
            words = f"margin with {which} {k} neurons zeroed"
            yield Found(name, dtype, words, "logit margin", float(values))


def _proof(
    model: mechvrp.VLM, name: str, dtype: str, pairs: int, circuit: Circuit
) -> Iterator[Found]:
    samples = mechvrp.data.load("scenes", split="mixed", seed=3, task="existence", limit=pairs)
    proof = prove_circuit(
        circuit,
        model,
        counterfactual_pairs(model, list(samples), same="skip"),
        draws=19,
        removal_draws=1,
        n_resamples=200,
        same_weights=False,  # rounded ones
    )
    for words, one in (
        ("faithfulness", proof.faithfulness.circuit),
        ("faithfulness of random circuits", proof.faithfulness.random),
        ("completeness", proof.completeness.circuit),
        *((f"faithfulness lost without {part.node}", part.drop) for part in proof.minimality),
    ):
        yield Found(name, dtype, words, "circuit share", one.value, one.low, one.high)


def _flow(model: mechvrp.VLM, name: str, dtype: str, n: int) -> Iterator[Found]:
    samples = mechvrp.data.load("scenes", split="mixed", seed=4, task="existence", limit=n)
    for row in image_flow(model, list(samples), n_resamples=200).to_frame().to_dict("records"):
        parts = [row[key] for key in ("method", "what", "measure")]
        layer = "all layers" if pd.isna(row["layer"]) else f"layer {row['layer']}"
        value, low, high = (
            None if pd.isna(row[key]) else float(row[key])
            for key in ("value", "value_low", "value_high")
        )
        area = "AUROC difference" if parts[2].startswith("lead") else "AUROC"
        kind = FLOW.get(parts[2], area)
        yield Found(name, dtype, f"flow, {', '.join(parts)}, {layer}", kind, value, low, high)


def _found(name: str, pairs: int) -> Circuit:
    """The circuit of right answers of the float32 model, on other images than it is proven on."""
    model = mechvrp.load(name, dtype="float32")
    samples = mechvrp.data.load("scenes", split="train", seed=3, task="existence", limit=pairs)
    return discover_circuit(model, counterfactual_pairs(model, list(samples), same="skip")).circuit


def _ranked(name: str, n: int) -> tuple[np.ndarray, str]:
    """Neurons of the last block but one by how far their float32 activations tell yes from no."""
    model = mechvrp.load(name, dtype="float32")
    site = f"blocks.{model.n_layers - 2}.mlp.hook_post"
    samples = list(mechvrp.data.load("scenes", split="adversarial", seed=2, limit=n))
    value = mechvrp.cache(model, samples, site)[site].numpy()
    yes = np.array([sample.answer == "yes" for sample in samples])
    return value[yes].mean(0) - value[~yes].mean(0), site


def figures(name: str, n: int, pairs: int, folder: Path) -> list[Found]:
    """All figures of one model; one that cannot be had in a dtype says why."""
    found: list[Found] = []
    scores, site = _ranked(name, max(n // 2, 20))
    circuit = _found(name, max(pairs // 4, 4))
    for dtype in DTYPES:
        model = mechvrp.load(name, dtype=dtype)
        parts: dict[str, Any] = {
            "study": lambda d=dtype: _study(name, d, n, folder),
            "patching": lambda d=dtype, m=model: _patched(m, name, d, pairs),
            "curve": lambda d=dtype, m=model: _curve(m, name, d, n, scores, site),
            "proof": lambda d=dtype, m=model: _proof(m, name, d, pairs, circuit),
            "flow": lambda d=dtype, m=model: _flow(m, name, d, max(n // 4, 24)),
        }
        for part, run in parts.items():
            try:
                found += run()
            except MechVRPError as error:
                found.append(
                    Found(name, dtype, part, "", None, gap=f"{type(error).__name__}: {error}")
                )
            print(f"{name}, {dtype}, {part}: {len(found)} figures", flush=True)
    return found


def differences(found: list[Found]) -> list[tuple[str, str, str, int, float, float, str]]:
    """By model, dtype and kind: figures, mean and largest distance from float32, those outside."""
    exact = {(f.model, f.measure, f.kind): f for f in found if f.dtype == "float32"}
    rows = []
    for model in dict.fromkeys(f.model for f in found):
        for dtype in DTYPES[1:]:
            for kind in dict.fromkeys([*KINDS, *(f.kind for f in found if f.kind)]):
                gaps, outside, bounded = [], 0, 0
                for f in found:
                    whole = exact.get((f.model, f.measure, f.kind))
                    if (f.model, f.dtype, f.kind) != (model, dtype, kind) or whole is None:
                        continue
                    if f.value is None or whole.value is None:
                        continue
                    gaps.append(abs(f.value - whole.value))
                    if whole.low is not None and whole.high is not None:
                        bounded += 1
                        outside += not whole.low <= f.value <= whole.high
                if gaps:
                    words = f"{outside} of {bounded}"
                    rows.append(
                        (model, dtype, kind, len(gaps), float(np.mean(gaps)), max(gaps), words)
                    )
    return rows


def page(found: list[Found], n: int, pairs: int) -> str:
    names = dict.fromkeys(f.model for f in found)
    lines = [
        "# What half the bits change",
        "",
        f"`python -m benchmarks.precision --models {','.join(names)} --n {n} --pairs {pairs}`, torch "
        f"{torch.__version__}. Each figure of a study "
        "(preset `vrp`, adversarial scenes), of activation patching, of an ablation curve, of a circuit's "
        "proof and of the flow of image information, in bfloat16 and float16 against float32, on the same "
        "samples, splits and units. *Outside*: figures that lie outside float32's own 95 % interval, of those "
        "that have one.",
        "",
        "| model | dtype | figures of | number | mean distance | largest | outside |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, dtype, kind, number, mean, most, outside in differences(found):
        of, sizes = f"{kind} ({KINDS.get(kind, kind)})", f"{mean:.2g} | {most:.2g}"
        lines.append(f"| {model} | {dtype} | {of} | {number} | {sizes} | {outside} |")
    gaps = [f for f in found if f.gap and not f.kind]
    if gaps:
        lines += ["", "What could not be had:", ""]
        lines += [f"- {f.model}, {f.dtype}, {f.measure}: {f.gap}" for f in gaps]
    exact = {(f.model, f.measure, f.kind): f.value for f in found if f.dtype == DTYPES[0]}
    beside = []
    for f in found:
        whole = exact.get((f.model, f.measure, f.kind))
        if f.dtype != DTYPES[0] and f.value is not None and whole is not None:
            beside.append((abs(f.value - whole), f, whole))
    beside = [one for one in beside if one[1].kind in ("AUROC", "share", "R", "patch effect")]
    largest = sorted(beside, key=lambda one: -one[0])[:12]
    lines += ["", "The largest distances among AUROCs, correlations, shares and patch effects:", ""]
    lines += ["| model | dtype | figure | float32 | here |", "|---|---|---|---|---|"]
    for _, f, whole in largest:
        lines.append(f"| {f.model} | {f.dtype} | {f.measure} | {whole:.3f} | {f.value:.3f} |")
    return "\n".join(lines) + "\n"


def main(
    models: Annotated[str, typer.Option(help="Names, with commas between them.")] = "",
    n: Annotated[int, typer.Option(help="Examples of a study and of a curve.")] = 600,
    pairs: Annotated[int, typer.Option(help="Pairs of the activation patching.")] = 32,
    out: Annotated[Path, typer.Option(help="Folder of the two files.")] = HERE,
) -> None:
    """Run everything and write PRECISION.md and precision.json."""
    names = models.split(",") if models else [one.name for one in mechvrp.models.embedded_models()]
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            found += figures(name, n, pairs, Path(folder))
            _write(found, n, pairs, out)
    print(page(found, n, pairs))


def _write(found: list[Found], n: int, pairs: int, out: Path) -> None:
    kept = [json.dumps(asdict(f)) for f in found if f.value is not None or not f.kind]
    out.joinpath("precision.json").write_text("[\n" + ",\n".join(kept) + "\n]\n")
    out.joinpath("PRECISION.md").write_text(page(found, n, pairs))


if __name__ == "__main__":
    typer.run(main)
