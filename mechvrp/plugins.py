"""What other packages add through entry points: found at the first look-up, never at import.

A package names, in the group ``mechvrp.families``, ``mechvrp.datasets`` or ``mechvrp.signals``, a function
without arguments that registers what it brings (``mechvrp.models.register_family``,
``mechvrp.data.register_dataset``, ``mechvrp.reliability.register_signal``).
"""

from __future__ import annotations

import warnings
from importlib.metadata import entry_points

__all__ = ["load_plugins"]

_loaded: set[str] = set()


def load_plugins(group: str) -> None:
    """Run every registration of a group, once in a process.

    One that fails is named in a warning, and hides no other.
    """
    if group in _loaded:
        return
    _loaded.add(group)  # first, since a registration may look something up itself
    for entry in sorted(entry_points(group=group), key=lambda e: e.name):
        try:
            entry.load()()
        except Exception as error:  # whatever another package raises
            package = entry.dist.name if entry.dist is not None else "an unknown package"
            warnings.warn(
                f"the plugin {entry.name!r} of {package} ({group}, {entry.value}) was not loaded: "
                f"{type(error).__name__}: {error}",
                stacklevel=3,
            )
