"""Figure of the logit lens: an answer's margin by depth, and what attention and MLPs add to it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mechvrp.errors import InputError, ShapeError, UnavailableError
from mechvrp.plots.theme import COLOURS, TEMPLATE, count, reference, ribbon
from mechvrp.reliability import Margins, Observations
from mechvrp.statistics import group_means
from mechvrp.statistics.checks import binary

__all__ = ["logit_lens"]

_WORDS = {
    "own": "own token minus runner-up",
    "truth": "right token minus its foil",
}
#: name, colour, dash, symbol and pattern of each set of examples
_SETS = {
    "all": ("all", "blue", "solid", "circle", ""),
    "right": ("right", "blue", "solid", "circle", ""),
    "wrong": ("wrong", "orange", "dash", "diamond", "/"),
}


def logit_lens(
    margins: Margins | Observations,
    *,
    correct: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    example: int | None = None,
    of: Literal["own", "truth"] = "own",
) -> go.Figure:
    """Margins by depth through the final norm, above what attention and MLP of every block add to them.

    Args:
        margins: from ``logit_margins``, or an ``Observations``.
        correct: ``[example]``, 0 or 1, to draw right and wrong answers apart.
        groups: ``[example]`` image of each example; by default the samples' own of ``Observations``, and each
            example an image of its own of ``Margins``.
        example: only this one; then there is no interval.
        of: which margins of ``Observations``.

    Returns:
        Above, the mean margin before block 0, between attention and MLP of each block and behind it, with a
        95 % band that resamples images; the last is the model's own logit difference. Below, the mean of what
        attention and MLP add, which sums to the growth of the margin. Examples without a margin are left
        out, and n says so.

    Raises:
        InputError: another result, no example has a margin, ``correct`` or ``groups`` beside one example, or
            no such example.
        ShapeError: ``correct`` or ``groups`` of another length.
        UnavailableError: the model has no margins at some depths.
    """
    words = "token minus foil"
    if isinstance(margins, Observations):
        if of not in _WORDS:
            raise InputError(f"of is 'own' or 'truth'; got {of!r}")
        words = _WORDS[of]
        if groups is None and example is None:
            groups = [sample.source_id for sample in margins.samples]
        margins = margins.own if of == "own" else margins.truth
    if not isinstance(margins, Margins):
        raise InputError(
            f"expected Margins (from logit_margins) or Observations; got {type(margins).__name__}"
        )
    n = len(margins.entry)
    labels = np.arange(n).astype(str) if groups is None else np.asarray(groups).astype(str)
    if labels.shape != (n,):
        raise ShapeError(f"groups of shape {labels.shape}; expected one for each of {n} examples")
    known = np.isfinite(margins.final)
    sets = _sets(known, correct, example, groups)
    if not any(rows.any() for rows in sets.values()):
        raise InputError("no example has a margin (is the right answer unknown?)")

    depth = _depths(margins)
    if not np.isfinite(depth[:, known]).all():
        raise UnavailableError(
            "margins are not known at every depth of this model (see gaps of its observations), so there is no "
            "course through it to draw"
        )
    parts = np.stack([margins.attention, margins.mlp])
    layers = margins.post.shape[0]
    x = np.arange(2 * layers + 1) / 2
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    figure.update_layout(template=TEMPLATE, height=640, barmode="group", bargap=0.3)
    captions, bounded = [], False
    shown = [key for key, rows in sets.items() if rows.any()]
    for key in shown:
        rows = sets[key]
        name, colour, dash, symbol, pattern = _SETS[key]
        images = len(set(labels[rows]))
        if example is not None:
            name = f"example {example}"
        captions.append(
            name if example is not None else f"{name}: {count(int(rows.sum()), images)}"
        )
        line, line_low, line_high = _means(depth[:, rows].T, labels[rows])
        added, added_low, added_high = _means(np.moveaxis(parts[..., rows], -1, 0), labels[rows])
        if images > 1:
            bounded = True
            ribbon(
                figure, x, line_low, line_high, colour=COLOURS[colour],
                name=f"{name}, 95 % interval", row=1, col=1,
            )  # fmt: skip
            figure.data[-1].showlegend = False
        figure.add_scatter(
            x=x,
            y=line,
            mode="lines+markers",
            name=name,
            line={"color": COLOURS[colour], "width": 2, "dash": dash},
            marker={"symbol": symbol, "size": 7},
            customdata=[
                [where, low, high]
                for where, low, high in zip(_places(layers), line_low, line_high, strict=True)
            ],
            hovertemplate="%{customdata[0]}: margin %{y:.3f}"
            + (" [%{customdata[1]:.3f}, %{customdata[2]:.3f}]" if images > 1 else "")
            + "<extra></extra>",
            row=1,
            col=1,
        )
        for part, (what, shade) in enumerate((("attention", "green"), ("MLP", "purple"))):
            whose = what if key == "all" else f"{what}, {name}"
            figure.add_bar(
                # Attention works in front of the middle of a block, the MLP behind it.
                x=np.arange(layers) + (0.25 if part == 0 else 0.75),
                y=added[part],
                width=0.36 / len(shown),
                offset=0.36 / len(shown) * (shown.index(key) - len(shown) / 2),
                name=what,
                legendgroup=what,
                showlegend=key == shown[0],
                marker={
                    "color": COLOURS[shade],
                    "pattern": {
                        "shape": pattern,
                        "fillmode": "overlay",
                        "fgcolor": "rgba(255,255,255,0.8)",
                    },
                },
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": (added_high - added)[part].tolist(),
                    "arrayminus": (added - added_low)[part].tolist(),
                    "thickness": 1.5,
                    "width": 3,
                    "color": "#767676",
                }
                if images > 1
                else None,
                customdata=np.stack(
                    [np.arange(layers), added_low[part], added_high[part]], axis=-1
                ),
                hovertemplate=f"{whose} of block %{{customdata[0]:.0f}}: %{{y:+.3f}}"
                + (" [%{customdata[1]:.3f}, %{customdata[2]:.3f}]" if images > 1 else "")
                + "<extra></extra>",
                row=2,
                col=1,
            )
    for row in (1, 2):
        reference(figure, y=0, row=row, col=1)
    caption = "<br>".join(captions) + ("<br>bands and bars: 95 % interval" if bounded else "")
    if len(shown) == 2:
        caption += "<br>hatched: wrong"
    figure.update_yaxes(title_text="margin, logits", row=1, col=1)
    figure.update_yaxes(title_text="added to it, logits", row=2, col=1)
    step = -(-layers // 16)
    figure.update_xaxes(
        tickvals=list(range(0, layers + 1, step)), range=[-0.1, layers + 0.1], zeroline=False
    )
    figure.update_xaxes(
        title_text=f"blocks read so far<br>margin: {words}<br>{caption}", row=2, col=1
    )
    return figure


def _sets(
    known: np.ndarray, correct: ArrayLike | None, example: int | None, groups: ArrayLike | None
) -> dict[str, np.ndarray]:
    """Which examples each line is of."""
    n = len(known)
    if example is not None:
        if correct is not None or groups is not None:
            raise InputError("one example has no interval: leave out 'correct' and 'groups'")
        if not 0 <= example < n:
            raise InputError(f"no example {example}; there are {n}, from 0")
        return {"all": known & (np.arange(n) == example)}
    if correct is None:
        return {"all": known}
    right = binary(correct, "correct")
    if len(right) != n:
        raise ShapeError(f"correct of length {len(right)}; expected one for each of {n} examples")
    return {"right": known & right, "wrong": known & ~right}


def _depths(margins: Margins) -> np.ndarray:
    """Margins in order of computation: the entry, then mid and post of each block, [depth, example]."""
    pairs = np.stack([margins.mid, margins.post], axis=1)
    return np.concatenate([margins.entry[None], pairs.reshape(-1, pairs.shape[-1])])


def _places(layers: int) -> list[str]:
    found = ["before block 0"]
    for layer in range(layers):
        found += [f"block {layer}, behind attention", f"behind block {layer}"]
    return found


def _means(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(set(labels)) < 2:
        none = np.full(values.shape[1:], np.nan)
        return values.mean(0), none, none
    found = group_means(values, labels)
    return found.mean, found.low, found.high
