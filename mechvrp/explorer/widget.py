"""``explore``: the explorer as a notebook widget (anywidget; tried in JupyterLab and Notebook 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from mechvrp.errors import UnavailableError
from mechvrp.explorer.panel import NAMES, Panel
from mechvrp.explorer.session import Explorer

if TYPE_CHECKING:
    from mechvrp.circuits import FittedProbe, Ranking
    from mechvrp.data import Sample
    from mechvrp.models import VLM
    from mechvrp.reliability import Monitor

__all__ = ["explore", "view_module"]

#: The view's files: helpers first, and last what puts the parts together.
_SCRIPTS = ("dom", "examples", "answers", "effects", "circuits", "view")


def explore(
    model: VLM,
    dataset: Sequence[Sample],
    *,
    monitor: Monitor | None = None,
    probe: FittedProbe | None = None,
    probe_site: str | None = None,
    reference: int = 64,
    reading: Literal["official", "strict"] = "strict",
    max_new_tokens: int = 16,
    rankings: Mapping[str, Ranking] | Sequence[Ranking] | None = None,
) -> Any:
    """Explore a model on a dataset in a notebook: examples, interventions, circuits, by clicking.

    Needs anywidget (``pip install "mechvrp[explorer]"``). Everything that is shown can be had as Python that
    reproduces it ("Copy code"), and ``.session`` is the same explorer without the widget
    (``mechvrp.explorer.Explorer``). Work is done in a thread of its own, so that it can be cancelled; other
    cells may run the model meanwhile, and take turns with it forward by forward (``model.turn``).

    The view is a standard anywidget module that fetches nothing. It is tested in Chromium under JupyterLab 4
    and Notebook 7. VS Code (with its Jupyter extension) and Colab run anywidgets too (there anywidget turns
    Colab's support for them on by itself); in these two it has not been run.

    Args:
        model: from ``mechvrp.load``.
        dataset: samples, such as ``mechvrp.data.load("scenes", limit=200)``.
        monitor, probe, probe_site, reference, reading, max_new_tokens, rankings: as
            ``mechvrp.explorer.Explorer``.

    Returns:
        The widget; as the last line of a cell it is shown.

    Raises:
        UnavailableError: anywidget is not installed.
        InputError: a model, dataset, monitor, probe or ranking that cannot be explored.

    Example:
        >>> mechvrp.explore(model, mechvrp.data.load("scenes", limit=200))         # doctest: +SKIP
    """
    made = _widget_class()
    session = Explorer(
        model,
        dataset,
        monitor=monitor,
        probe=probe,
        probe_site=probe_site,
        reference=reference,
        reading=reading,
        max_new_tokens=max_new_tokens,
        rankings=rankings,
    )
    widget = made(session)
    # Else the next cell of a notebook that is run as a whole would find the model busy.
    widget.panel.wait()
    return widget


def _read(name: str) -> str:
    return (files("mechvrp.explorer") / "static" / name).read_text(encoding="utf-8")


def view_module() -> str:
    """The view as one JavaScript module, which is what a notebook can load."""
    return "\n".join(_read(f"{name}.js") for name in _SCRIPTS)


@cache
def _widget_class() -> Any:
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise UnavailableError(
            "mechvrp.explore needs anywidget, which is not installed: pip install 'mechvrp[explorer]'. "
            "Without a notebook, mechvrp.explorer.Explorer does the same in plain Python"
        ) from error

    class ExplorerWidget(anywidget.AnyWidget):
        """The view; ``session`` is what it shows."""

        _esm = view_module()
        _css = _read("explorer.css")

        def __init__(self, session: Explorer) -> None:
            super().__init__()
            self.session = session
            self.panel = Panel(session, self._put)
            self.on_msg(lambda _, content, __: self.panel.handle(content))
            self.panel.start()

        def _put(self, name: str, value: Any) -> None:
            setattr(self, name, value)

        def close(self) -> None:
            self.panel.close()
            super().close()

        def __repr__(self) -> str:
            model, examples = self.session.model.name, len(self.session.examples)
            return f"ExplorerWidget({model!r}, {examples} examples)"

    return type(
        "ExplorerWidget",
        (ExplorerWidget,),
        {name: traitlets.Dict().tag(sync=True) for name in NAMES},
    )
