"""Running the recipe: phase after phase, resumable at every checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mechvrp.errors import DataError
from mechvrp.models.zoo.checkpoint import load_checkpoint, read_record, save_checkpoint
from mechvrp.models.zoo.language import LanguagePhase
from mechvrp.models.zoo.phase import Phase
from mechvrp.models.zoo.recipe import Recipe, ZooFamily
from mechvrp.models.zoo.sight import SightPhase

__all__ = ["Progress", "Trained", "train"]

Progress = Callable[[str, int, int, float, dict[str, Any]], None]
"""Called after every step: phase, steps done, steps in all, loss, the phase's state."""

PHASES: tuple[type[Any], ...] = (SightPhase, LanguagePhase)


@dataclass(frozen=True)
class Trained:
    """A finished (or stopped) run: the model, its processor, and how it came about."""

    model: Any
    processor: Any
    record: dict[str, Any]
    finished: bool


def _plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON gives it back (tuples as lists)."""

    def plain(value: Any) -> Any:
        return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value

    return {key: plain(value) for key, value in asdict(recipe).items()}


def train(
    family: ZooFamily,
    recipe: Recipe,
    work: Path,
    *,
    progress: Progress | None = None,
    stop_after: int | None = None,
) -> Trained:
    """Train one family, or continue where the checkpoint in ``work`` stopped.

    Args:
        family: what to train.
        recipe: how. A checkpoint of another recipe is refused, not mixed in.
        work: folder of the checkpoint.
        progress: called after every step.
        stop_after: stop (with a checkpoint) after this many steps of this call.

    Raises:
        DataError: the checkpoint in ``work`` is of another family or recipe.
    """
    phases: tuple[type[Any], ...] = getattr(family, "phases", PHASES)
    model, processor = family.build(recipe.seed)
    checkpoint = work / "checkpoint"
    record = read_record(checkpoint)
    fresh = {"family": family.name, "recipe": _plain(recipe), "phase": 0, "step": 0, "seconds": 0.0}
    if record is None:
        record = {**fresh, "states": [], "loss": []}
    elif any(record[key] != fresh[key] for key in ("family", "recipe")):
        raise DataError(
            f"{checkpoint} holds another run ({record['family']}, seed "
            f"{record['recipe']['seed']}): give another work folder, or start over with --fresh"
        )
    taken = 0
    while record["phase"] < len(phases):
        phase: Phase = phases[record["phase"]](recipe, family, model, processor)
        if record["step"] > 0 or record.get("weights"):
            modules = phase.modules if record["step"] > 0 else {"model": model}
            load_checkpoint(checkpoint, modules, phase.optimizer if record["step"] > 0 else None)
        if record["step"] > 0:
            phase.state = record["states"][record["phase"]]
        while record["step"] < phase.steps:
            if stop_after is not None and taken >= stop_after:
                _save(checkpoint, phase, record)
                return Trained(model, processor, record, finished=False)
            began = time.perf_counter()
            loss = phase.step(record["step"])
            record["step"] += 1
            taken += 1
            phase.after(record["step"])
            record["seconds"] += time.perf_counter() - began
            if record["step"] % 50 == 0:
                record["loss"].append([phase.name, record["step"], loss])
            if progress is not None:
                progress(phase.name, record["step"], phase.steps, loss, phase.state)
            if record["step"] % recipe.save_every == 0 and record["step"] < phase.steps:
                _save(checkpoint, phase, record)
        record["states"] = [*record["states"][: record["phase"]], phase.state]
        record.update(phase=record["phase"] + 1, step=0, weights=True)
        save_checkpoint(checkpoint, phase.modules, phase.optimizer, record)
    if taken == 0:
        load_checkpoint(checkpoint, {"model": model}, None)
    return Trained(model.eval(), processor, record, finished=True)


def _save(checkpoint: Path, phase: Phase, record: dict[str, Any]) -> None:
    record["states"] = [*record["states"][: record["phase"]], phase.state]
    record["weights"] = True
    save_checkpoint(checkpoint, phase.modules, phase.optimizer, record)
