"""The command that trains the embedded checkpoints.

python -m mechvrp.models.zoo.train tiny-llava --seed 0 --out my-tiny-llava
"""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from mechvrp.errors import MechVRPError
from mechvrp.models.zoo.evaluate import measure, report
from mechvrp.models.zoo.recipe import Recipe, ZooFamily
from mechvrp.models.zoo.tiny_llava import TinyLlava
from mechvrp.models.zoo.tiny_paligemma import TinyPaliGemma
from mechvrp.models.zoo.tiny_qwen2_vl import TinyQwen2VL
from mechvrp.models.zoo.trainer import Trained, train

__all__ = ["FAMILIES", "write_folder"]

FAMILIES: dict[str, type[ZooFamily]] = {
    TinyLlava.name: TinyLlava,
    TinyPaliGemma.name: TinyPaliGemma,
    TinyQwen2VL.name: TinyQwen2VL,
}

_SCENES = 3_000
_VERSIONS = ("torch", "transformers", "tokenizers", "numpy", "scikit-learn")


def write_folder(
    trained: Trained, out: Path, figures: dict[str, Any], threads: int, notes: list[str]
) -> None:
    """Write the Hugging Face folder, with ``training.json``: how it was made, what was measured.

    A card that lies there is of other weights, and is removed.
    """
    out.mkdir(parents=True, exist_ok=True)
    for stale in ("README.md", "evaluation.json"):
        (out / stale).unlink(missing_ok=True)
    trained.model.save_pretrained(out)
    trained.processor.save_pretrained(out)
    record = {key: trained.record[key] for key in ("family", "recipe", "seconds", "states", "loss")}
    record |= {
        "finished": trained.finished,
        "threads": threads,
        "notes": notes,
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "data": "mechvrp.data digit scenes; scikit-learn load_digits, training part",
        "measured": figures,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in _VERSIONS}},
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def _status(name: str, state: dict[str, Any], loss: float) -> str:
    if name == "sight":
        measured = state.get("accuracy", [])
        return f"loss {loss:.3f}" + (f", digits named {measured[-1][1]:.2f}" if measured else "")
    tasks = state["tasks"][-1][2] if state["tasks"] else {}
    parts = [f"{task} {share:.2f}" for task, share in tasks.items()]
    return ", ".join([f"loss {loss:.3f}", f"stage {state['stage'] + 1}", *parts])


def _main(
    name: Annotated[str, typer.Argument(help=f"Which family: {', '.join(FAMILIES)}.")],
    seed: Annotated[int, typer.Option(min=0, help="Of weights and data.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; by default work/out/NAME-seedSEED.")
    ] = None,
    work: Annotated[
        Path,
        typer.Option(help="Folder of checkpoints; a run that was stopped continues from there."),
    ] = Path("work/zoo"),
    sight_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the vision phase; by default the family's.")
    ] = None,
    language_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of the language phase; by default the family's."),
    ] = None,
    stop_after: Annotated[
        int | None, typer.Option(help="Stop after this many steps, with a checkpoint.")
    ] = None,
    n_images: Annotated[int, typer.Option(min=5, help="Scenes of the closing measurement.")] = 500,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    note: Annotated[
        list[str] | None, typer.Option(help="A remark for the model card; may be repeated.")
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Throw an earlier checkpoint away.")] = False,
) -> None:
    """Train an embedded vision-language model on the digit scenes: about an hour on two CPU cores.

    Vision tower and projector first learn to name the digit under every image token. Then the language
    model learns to answer, with questions about one or two digits at first and about six at most.

    Writes an ordinary Hugging Face folder with training.json, the record of the run and its measured
    accuracy. Interrupt it at will: the same command continues from its last checkpoint.

    Example: python -m mechvrp.models.zoo.train tiny-llava --seed 1 --out my-tiny-llava
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    if name not in FAMILIES:
        raise typer.BadParameter(f"no family {name!r}: there are {', '.join(FAMILIES)}")
    target = out or Path("work/out") / f"{name}-seed{seed}"
    target.mkdir(parents=True, exist_ok=True)  # now, not after an hour of training
    torch.set_num_threads(threads)
    family = FAMILIES[name]()
    recipe: Recipe = replace(getattr(family, "recipe", Recipe()), seed=seed)
    if sight_steps is not None:
        recipe = replace(recipe, sight_steps=sight_steps)
    if language_steps is not None:
        recipe = replace(recipe, language_steps=language_steps)
    place = work / f"{name}-seed{seed}"
    if fresh:
        shutil.rmtree(place, ignore_errors=True)
    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns) as bars:
        tasks: dict[str, Any] = {}

        def show(phase: str, step: int, steps: int, loss: float, state: dict[str, Any]) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=steps, status="")
            bars.update(tasks[phase], completed=step, status=_status(phase, state, loss))
            if not bars.console.is_terminal and step % 100 == 0:  # a log file shows no moving bar
                bars.console.print(f"{phase} {step}/{steps} {_status(phase, state, loss)}")

        trained = train(family, recipe, place, progress=show, stop_after=stop_after)
    if not trained.finished:
        typer.echo(f"stopped; the same command continues from {place}")
        return
    # Other scenes than a card's: what is tuned on this measurement is not tuned on the card's.
    figures = measure(trained.model, trained.processor, n_images=n_images, seed=_SCENES)
    if hasattr(family, "further"):
        few = max(1, n_images // 5)
        figures |= family.further(trained.model, trained.processor, n_images=few, seed=_SCENES)
    write_folder(trained, target, figures, threads, note or [])
    typer.echo(report(figures))
    typer.echo(f"written to {target}")


if __name__ == "__main__":
    try:
        typer.run(_main)
    except MechVRPError as error:
        raise SystemExit(f"error: {error}") from None
