"""``mechvrp models`` and ``mechvrp data``: what can be loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from mechvrp.cli.root import app

__all__ = ["data", "models"]


@app.command()
def models(
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Measure an embedded checkpoint (or a folder written by the zoo's recipe) and "
            "write its model card.",
        ),
    ] = None,
    n_images: Annotated[
        int, typer.Option(min=20, help="Scenes of each split to measure on.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of the scenes and the resampling.")] = 1_000,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of the same family from another training seed, evaluated before; the card "
            "shows it in a table. May be given several times."
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Folder for the card; by default the checkpoint's own."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """What can be loaded: the embedded checkpoints, and the families of hub models.

    With --evaluate: the model card of a checkpoint, README.md, and its figures, evaluation.json.

    Examples:

    - `mechvrp models`

    - `mechvrp models --evaluate tiny-llava --out cards/tiny-llava`
    """
    if evaluate is None:
        if beside or out is not None:
            raise typer.BadParameter("--beside and --out belong to --evaluate NAME")
        _list_models()
        return
    from mechvrp.cards import evaluate_checkpoint, prepare, write_card

    prepare(evaluate, beside or (), out)
    found = evaluate_checkpoint(evaluate, n_images=n_images, seed=seed, progress=not quiet)
    card = write_card(evaluate, found, beside=beside or (), out=out)
    if not quiet:
        typer.echo(f"card: {card}")


def _list_models() -> None:
    import json

    from rich.console import Console
    from rich.table import Table

    from mechvrp.models import embedded_models, known_families

    console = Console()
    table = Table("name", "architecture", "size", "blocks", "width", title="Embedded checkpoints")
    for entry in embedded_models():
        config = json.loads((entry.path / "config.json").read_text())
        text = config.get("text_config", config)
        weights = sum(f.stat().st_size for f in entry.path.glob("*.safetensors"))
        table.add_row(
            entry.name,
            config["architectures"][0],
            f"{weights / 2**20:.1f} MiB",
            str(text.get("num_hidden_layers", "?")),
            str(text.get("hidden_size", "?")),
        )
    console.print(table)
    console.print(
        "Small real models, trained on handwritten digits, to learn and test with: they show how the "
        "tools work, not how large models do.\n"
    )
    known = Table("config.model_type", "family", "prompt attention", title="Families")
    for model_type, family in sorted(known_families().items()):
        known.add_row(model_type, family.name, family.attention)
    console.print(known)
    console.print(
        'Load any of them with [bold]mechvrp.load[/bold]("name, folder or hub id"), e.g. '
        "llava-hf/llava-1.5-7b-hf, google/paligemma-3b-mix-224, Qwen/Qwen2-VL-7B-Instruct."
    )


@app.command()
def data() -> None:
    """The datasets: their splits, tasks, and the files they need."""
    from rich.console import Console

    from mechvrp.data import available

    console = Console(highlight=False)
    for info in available():
        console.print(f"[bold]{info.name}[/bold]: {info.description}")
        for label, value in (
            ("splits", ", ".join(info.splits) or "as in the files"),
            ("tasks", ", ".join(info.tasks) or "as in the files"),
            ("root must hold", info.root or "nothing: it is generated"),
        ):
            console.print(f"  {label}: {value}", soft_wrap=False)
        console.print()
    console.print(
        'Load one with [bold]mechvrp.data.load[/bold]("scenes", split="adversarial", limit=100), or '
        "name it to [bold]mechvrp study --data[/bold]."
    )
