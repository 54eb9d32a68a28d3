"""The application that the commands join."""

from __future__ import annotations

from typing import Annotated

import typer

from mechvrp._version import __version__

__all__ = ["app"]

app = typer.Typer(
    name="mechvrp",
    help="Mechanistic interpretability of vision-language models: where can their reliability be read?",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mechvrp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
