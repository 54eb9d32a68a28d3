"""Clicks on a drawn circuit: a node's own edges stay, the others fade."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from mechvrp.circuits import Circuit
from mechvrp.errors import UnavailableError
from mechvrp.plots.circuits import circuit_graph

__all__ = ["CLICK_SCRIPT", "clickable_circuit"]

_FADED = 0.1

#: For ``circuit.plot().write_html(path, post_script=CLICK_SCRIPT)``: what `clickable_circuit` does, on a page.
CLICK_SCRIPT = """
(() => {
  const drawn = document.getElementById("{plot_id}");
  const lines = drawn.data.map((t, i) => i).filter((i) => drawn.data[i].meta?.kind === "edge");
  const fade = (names) => lines.length && Plotly.restyle(drawn, {
    opacity: lines.map((i) => !names || drawn.data[i].meta.ends.some((e) => names.includes(e)) ? 1 : FADED),
  }, lines);
  let shown = null;
  drawn.on("plotly_click", ({ points }) => {
    const kind = points[0].data.meta?.kind, given = points[0].customdata;
    const names = kind === "nodes" ? given.split("\\n") : null;
    shown = names && names.join() !== shown ? names.join() : null;
    fade(shown && names);
  });
  drawn.on("plotly_doubleclick", () => { shown = null; fade(null); });
})();
""".replace("FADED", str(_FADED))


def clickable_circuit(circuit: Circuit, **options: Any) -> Any:
    """A circuit for a notebook: a click on a node fades all edges but its own, another one brings them back.

    ```python
    widget = clickable_circuit(found.circuit)
    widget.selected  # names of the nodes that were clicked last; of neurons all those of the marker
    ```

    Args:
        circuit: to be drawn.
        options: of `circuit_graph`.

    Returns:
        A plotly ``FigureWidget`` with ``selected``. To answer clicks otherwise, add to each trace
        ``on_click(act)``: ``trace.customdata`` says what is where, as in `circuit_graph`.

    Raises:
        InputError: as `circuit_graph`.
        UnavailableError: anywidget, which plotly's widgets need, is missing.
    """
    drawn = circuit_graph(circuit, **options)
    try:
        import anywidget  # noqa: F401
    except ImportError as error:
        raise UnavailableError(
            "plotly's widgets need anywidget; install it with: pip install 'mechvrp[explorer]'"
        ) from error
    return _clickable(drawn)


def _clickable(drawn: go.Figure) -> Any:
    class ClickableCircuit(go.FigureWidget):  # type: ignore[misc]
        """A circuit that answers clicks."""

        selected: tuple[str, ...] = ()

    widget = ClickableCircuit(drawn)

    def act(trace: Any, points: Any, _state: Any) -> None:
        if not points.point_inds:  # plotly tells every trace of a click on any
            return
        names = tuple(str(trace.customdata[points.point_inds[0]]).split("\n"))
        chosen = () if names == widget.selected else names
        object.__setattr__(widget, "selected", chosen)
        with widget.batch_update():
            for line in widget.select_traces(lambda t: (t.meta or {}).get("kind") == "edge"):
                line.opacity = 1 if not chosen or set(chosen) & set(line.meta["ends"]) else _FADED

    for trace in widget.select_traces(lambda t: (t.meta or {}).get("kind") == "nodes"):
        trace.on_click(act)
    return widget
