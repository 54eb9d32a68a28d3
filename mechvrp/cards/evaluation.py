"""``evaluate_checkpoint``: everything a card says about a checkpoint, measured through mechvrp."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

import mechvrp
from mechvrp.cards.card import FAMILY_NAMES, card_text
from mechvrp.cards.probing import as_row, probe
from mechvrp.cards.requirements import requirements
from mechvrp.data import Dataset, Sample, is_correct
from mechvrp.data import load as load_data
from mechvrp.errors import DataError, InputError
from mechvrp.files import path_of
from mechvrp.models import VLM, load
from mechvrp.models.zoo import folder, names
from mechvrp.reliability import (
    attention_maps,
    cluster_count,
    greedy_answers,
    mean_map,
    measure_calibration,
    spatial_entropy,
)
from mechvrp.statistics import Estimate, accuracy_interval, group_bootstrap

__all__ = [
    "checkpoint_folder",
    "evaluate_checkpoint",
    "prepare",
    "read_evaluation",
    "weights_digest",
    "write_card",
]

POLLS = ("random", "popular", "adversarial")
# The first token and the end of an answer; the longest answer of the scenes is one word.
_NEW_TOKENS = 4
_FIELDS = ("family", "recipe", "seconds", "states", "parameters", "threads", "notes", "versions")
_VERSIONS = ("torch", "transformers", "numpy", "scikit-learn")


def checkpoint_folder(name: str) -> Path:
    """The folder of an embedded checkpoint, or of one that the zoo's recipe wrote elsewhere.

    Raises:
        DataError: it holds no ``training.json``: only checkpoints of the zoo have a card.
    """
    path = folder(name) if name in names() else path_of(name, "a checkpoint's folder", DataError)
    if not (path / "training.json").is_file():
        raise DataError(
            f"{name!r} is neither an embedded checkpoint ({', '.join(names())}) nor a folder with a "
            "training.json, as python -m mechvrp.models.zoo.train writes it. To study another "
            "model, use mechvrp study"
        )
    record = json.loads((path / "training.json").read_text())
    absent = [key for key in _FIELDS if key not in record]
    if absent or record["family"] not in FAMILY_NAMES:
        raise DataError(
            f"{path / 'training.json'} lacks {', '.join(absent) or 'a known family'}: it was written by "
            "another version of the recipe; train again, or write the folder anew with the same command"
        )
    return path


def prepare(
    name: str, beside: Sequence[str] = (), out: str | Path | None = None
) -> list[dict[str, Any]]:
    """Check everything a card needs but its measurements, before they take their time.

    Returns:
        A short row for each folder beside: its seed and main figures.

    Raises:
        DataError: not a checkpoint of the zoo; a folder beside was not evaluated, or its weights
            changed since, or it is of another family, recipe or evaluation, or the same seed.
        OSError: the card's folder can't be written.
    """
    path = checkpoint_folder(name)
    training = json.loads((path / "training.json").read_text())
    target = path if out is None else path_of(out, "a card's folder")
    target.mkdir(parents=True, exist_ok=True)
    if not os.access(target, os.W_OK):
        raise PermissionError(f"{target} can't be written; choose another folder with --out")
    seeds = {training["recipe"]["seed"]}
    rows = []
    for other in beside:
        record, figures = read_evaluation(other)
        if figures["weights_sha256"] != weights_digest(checkpoint_folder(other)):
            raise DataError(
                f"{other} was evaluated with other weights than it holds: evaluate it anew"
            )
        if record["family"] != training["family"]:
            raise DataError(f"{other} holds a {record['family']}, not a {training['family']}")
        if {**record["recipe"], "seed": 0} != {**training["recipe"], "seed": 0}:
            raise DataError(f"{other} was trained by another recipe than {name}")
        if record["recipe"]["seed"] in seeds:
            raise DataError(
                f"{other} has the same training seed as another: {record['recipe']['seed']}"
            )
        seeds.add(record["recipe"]["seed"])
        row = {"seed": record["recipe"]["seed"], "accuracy": figures["accuracy"]}
        row |= {key: figures[key] for key in ("polls", "dataset", "n_images")}
        row["scenes"] = figures["seed"]
        comparison = figures["probe"].get("comparison")
        row["probe"] = comparison[0] if comparison else None
        rows.append(row)
    return rows


def evaluate_checkpoint(
    name: str, *, n_images: int = 500, seed: int = 1_000, progress: bool = True
) -> dict[str, Any]:
    """Measure a checkpoint of the zoo on scenes of unseen digits.

    Accuracy by task and poll, by image size where the model keeps sizes, calibration of the answer's
    probability, the linear probe of correctness beside its baselines, and how attention on the image
    spreads. All intervals resample images.

    Args:
        name: an embedded checkpoint, or the folder of one that was trained elsewhere.
        n_images: scenes of each split; half of them train the probe.
        seed: of the scenes, the division into halves and the resampling.
        progress: show what is going on.

    Raises:
        DataError: not a checkpoint of the zoo.
        InputError: fewer than 20 images.
    """
    if n_images < 20:
        raise InputError(f"a card needs at least 20 images; got {n_images}")
    path = checkpoint_folder(name)
    say = Console(quiet=not progress, highlight=False)
    model = load(str(path), device="cpu", dtype="float32")
    native = model.model.config.model_type.startswith("qwen")
    dataset = "scenes-sizes" if native else "scenes"
    say.print(f"[bold]{path.name}[/bold]: {n_images} scenes of {dataset!r}, seed {seed}")

    mixed = load_data(dataset, split="mixed", n_images=n_images, seed=seed)
    table, hidden = _answered(model, mixed, progress)
    found: dict[str, Any] = {
        "dataset": dataset,
        "n_images": n_images,
        "seed": seed,
        "weights_sha256": weights_digest(path),
        "accuracy": _accuracies(table, seed),
        "calibration": _calibrations(table, seed),
    }
    _tell(say, found["accuracy"])
    polls = {}
    for poll in POLLS:
        samples = load_data(dataset, split=poll, n_images=n_images, seed=seed)
        polls[poll] = _answered(model, samples, progress, states=False)[0]
    found["polls"] = {
        poll: {
            **as_row(accuracy_interval(t["right"], t["image"], seed=seed)),
            "said_yes": float((t["answer"] == "yes").mean()),
            "accuracy_of_no": float(t["right"][t["truth"] == "no"].mean()),
        }
        for poll, t in polls.items()
    }
    _tell(say, found["polls"])
    found["random_minus_adversarial"] = as_row(_gap(polls["random"], polls["adversarial"], seed))
    if native:
        found["sizes"] = {
            size: as_row(accuracy_interval(rows["right"], rows["image"], seed=seed))
            for size, rows in table.groupby("size")
        }
    found["probe"] = probe(table, hidden, mixed, seed)
    found["attention"] = _attention(model, mixed, progress)
    found["requirements"] = requirements(found)
    found["versions"] = {"mechvrp": mechvrp.__version__, "python": platform.python_version()}
    found["versions"] |= {package: version(package) for package in _VERSIONS}
    return found


def write_card(
    name: str,
    found: dict[str, Any],
    *,
    beside: Sequence[str] = (),
    out: str | Path | None = None,
) -> Path:
    """Write ``evaluation.json`` and the card, ``README.md``; returns the card's path.

    Args:
        name: as in `evaluate_checkpoint`.
        found: what that returned.
        beside: folders of the same family trained with other seeds and already evaluated; the card
            shows them in a table.
        out: where to write, by default the checkpoint's own folder.

    Raises:
        DataError, OSError: as `prepare`; or a folder beside was evaluated on other scenes.
    """
    path = checkpoint_folder(name)
    rows = prepare(name, beside, out)
    for row in rows:
        if (row["dataset"], row["n_images"], row["scenes"]) != (
            found["dataset"],
            found["n_images"],
            found["seed"],
        ):
            raise DataError(
                f"training seed {row['seed']} was evaluated on {row['n_images']} scenes of "
                f"{row['dataset']!r} with seed {row['scenes']}; this one on {found['n_images']} of "
                f"{found['dataset']!r} with seed {found['seed']}"
            )
    figures = {**found, "beside": rows}
    training = json.loads((path / "training.json").read_text())
    target = path if out is None else path_of(out, "a card's folder")
    (target / "evaluation.json").write_text(json.dumps(figures, indent=1) + "\n")
    (target / "README.md").write_text(card_text(training, figures))
    return target / "README.md"


def weights_digest(path: Path) -> str:
    """SHA-256 of a checkpoint's weights: which ones an evaluation is of."""
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def read_evaluation(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint's ``training.json`` and ``evaluation.json``.

    Raises:
        DataError: it was not evaluated yet.
    """
    path = checkpoint_folder(name)
    if not (path / "evaluation.json").is_file():
        raise DataError(f"{name} is not evaluated: run mechvrp models --evaluate {name} first")
    record, figures = (
        json.loads((path / file).read_text()) for file in ("training.json", "evaluation.json")
    )
    return record, figures


def _answered(
    model: VLM, dataset: Dataset, progress: bool, *, states: bool = True
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """A row per question, and residual streams [layer, example, d_model] if wanted."""
    samples: list[Sample] = list(dataset)
    answers = greedy_answers(
        model, samples, batch_size=64, max_new_tokens=_NEW_TOKENS, progress=progress
    )
    table = pd.DataFrame(
        {
            "image": [s.image_id for s in samples],
            "size": ["x".join(map(str, s.meta["size"])) for s in samples],
            "crowd": [s.meta["crowd"] for s in samples],
            "task": [s.task for s in samples],
            "truth": [s.answer for s in samples],
            "answer": [a.text for a in answers],
            "probability": [a.probability for a in answers],
            "right": [is_correct(s, a.text) for s, a in zip(samples, answers, strict=True)],
        }
    )
    if not states:
        return table, None
    acts = mechvrp.cache(
        model, samples, "resid_post", positions="last", batch_size=64, progress=progress
    )
    return table, acts.stack("resid_post").float().numpy()


def _accuracies(table: pd.DataFrame, seed: int) -> dict[str, Any]:
    parts = {"all": table} | dict(list(table.groupby("task", sort=False)))
    return {
        str(task): as_row(accuracy_interval(rows["right"], rows["image"], seed=seed))
        for task, rows in parts.items()
    }


def _calibrations(table: pd.DataFrame, seed: int) -> dict[str, Any]:
    parts = {"all": table} | dict(list(table.groupby("task", sort=False)))
    rows: dict[str, Any] = {}
    for task, part in parts.items():
        found = measure_calibration(part["probability"], part["right"], part["image"], seed=seed)
        rows[str(task)] = {
            name: as_row(getattr(found, name)) for name in ("ece_width", "ece_mass", "brier", "gap")
        }
        for name in ("ece_width_if_calibrated", "ece_mass_if_calibrated"):
            rows[str(task)][name] = getattr(found, name)
        if task == "all":
            bins = found.table[["low", "high", "confidence", "accuracy", "n"]]
            rows["all"]["table"] = bins.to_dict(orient="records")
    return rows


def _gap(first: pd.DataFrame, second: pd.DataFrame, seed: int) -> Estimate:
    """Accuracy on the first minus that on the second, in points, resampling images in both alike."""
    both = pd.concat([first, second], ignore_index=True)
    side = np.repeat([1.0, 0.0], [len(first), len(second)])
    right = both["right"].to_numpy(dtype=float)

    def difference(right: Any, side: Any, *, weights: Any) -> Any:
        parts = [(weights @ (right * s)) / (weights @ s) for s in (side, 1 - side)]
        return 100 * (parts[0] - parts[1])

    return group_bootstrap(difference, right, side, groups=both["image"], seed=seed, weighted=True)


def _attention(model: VLM, dataset: Dataset, progress: bool) -> dict[str, Any]:
    """How attention from the last prompt token spreads over the image: C_k and H_s / log S."""
    maps = [mean_map(m) for m in attention_maps(model, list(dataset), progress=progress)]
    clusters = pd.Series([cluster_count(m) for m in maps]).value_counts().sort_index()
    entropy = np.array([spatial_entropy(m) / np.log(m.size) for m in maps])
    tokens = [m.size for m in maps]
    return {
        "clusters": {str(k): int(n) for k, n in clusters.items()},
        "entropy_mean": float(entropy.mean()),
        "entropy_low": float(np.percentile(entropy, 2.5)),
        "entropy_high": float(np.percentile(entropy, 97.5)),
        "tokens_least": min(tokens),
        "tokens_most": max(tokens),
    }


def _tell(say: Console, rows: dict[str, Any]) -> None:
    say.print(
        "  " + ", ".join(f"{name} {100 * row['value']:.1f} %" for name, row in rows.items()),
        soft_wrap=True,
    )
