"""The command line: every command calls one public function.

Only typer and rich are imported at the top: help answers before torch would have loaded.
"""

from __future__ import annotations

from typing import Any

import typer

# In the order in which help lists them.
from mechvrp.cli import studying as studying  # isort: skip
from mechvrp.cli import listing as listing  # isort: skip
from mechvrp.cli import checking as checking  # isort: skip
from mechvrp.cli import comparing as comparing  # isort: skip
from mechvrp.cli.root import app as app

__all__ = ["app", "main"]


def main() -> Any:
    """Entry point: mechvrp's own errors, and the file system's, are a message and exit status 1."""
    from mechvrp.errors import MechVRPError

    try:
        return app()
    except (MechVRPError, OSError) as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(1) from None
