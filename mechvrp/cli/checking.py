"""``mechvrp families``: which models can be used, and how far."""

from __future__ import annotations

from typing import Annotated

import typer

from mechvrp.cli.root import app

__all__ = ["families"]


@app.command()
def families(
    check: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_PATH",
            help="Load this model (embedded name, folder or hub id), find and verify its sites, and say "
            "what to do where something is missing.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to load it: auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="To load it in: auto, float32, bfloat16, ...")
    ] = "auto",
) -> None:
    """The families of models, and the classes that the test suite checks without one.

    Any other image-text-to-text model of transformers is looked at when it is loaded: its sites are
    found by structure and verified by runs, and what cannot be verified is refused with the reason.

    Examples:

    - `mechvrp families`

    - `mechvrp families --check tiny-llava`
    """
    if check is not None:
        import mechvrp
        from mechvrp.models import check_family

        typer.echo(check_family(mechvrp.load(check, device=device, dtype=dtype)))
        return
    _table()


def _table() -> None:
    from rich.console import Console
    from rich.table import Table

    from mechvrp.models import known_families
    from mechvrp.models.structure.classes import checked_classes

    console = Console()
    known = Table("config.model_type", "family", "prompt attention", title="Written by hand")
    for model_type, family in sorted(known_families().items()):
        known.add_row(model_type, family.name, family.attention)
    console.print(known)
    table = Table(
        "config.model_type", "attention", "grid", "lacks", "some blocks lack", "exact sweeps",
        title="Found by structure (tiny models of the test suite)",
    )  # fmt: skip
    for row in checked_classes():
        table.add_row(
            row.model_type, row.attention, row.grid, ", ".join(row.lacks) or "-",
            ", ".join(row.partly) or "-", row.sweeps,
        )  # fmt: skip
    console.print(table)
    console.print(
        "Any other model is looked at when it is loaded. [bold]mechvrp families --check NAME_OR_PATH[/bold] "
        "says what of it works."
    )
