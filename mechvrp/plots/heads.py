"""Figures of heads that move image information, and of what cutting them does."""

from __future__ import annotations

import plotly.graph_objects as go

from mechvrp.circuits import HeadKnockout, HeadReading
from mechvrp.plots.theme import COLOURS, base_figure, interval_bars, label, look, plain_count

__all__ = ["head_knockout_curve", "head_scores"]

_SIGNS = {"for": " that speak for the answer,", "against": " that speak against it,", "any": ""}


def head_scores(reading: HeadReading) -> go.Figure:
    """Every head's attention mass against its direct logit attribution, a colour per layer.

    Args:
        reading: of `read_heads`; the mass is on its ``over``. The upper right moves information that speaks
            for the answer, the lower right against it.
    """
    frame = reading.to_frame()
    mass = f"{reading.over}_attention"
    answer = {"own": "own answer minus runner-up", "right": "right answer minus rival"}[reading.of]
    figure = base_figure(
        f"attention of the last position to the {reading.over}<br>{plain_count(frame)}",
        f"direct logit attribution<br>({answer})",
        height=460,
    )
    figure.add_hline(y=0, line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5})
    for i, (layer, rows) in enumerate(frame.sort_values("layer").groupby("layer")):
        colour, symbol = look(i)
        figure.add_scatter(
            x=rows[mass],
            y=rows["attribution"],
            error_y=interval_bars(rows, "attribution", "attribution_low", "attribution_high"),
            error_x=interval_bars(rows, mass, f"{mass}_low", f"{mass}_high"),
            mode="markers+text",
            text=[
                f"{layer}.{head}" if rank < 4 else ""
                for head, rank in zip(rows["head"], rows["rank"], strict=True)
            ],
            textposition="top right",
            name=f"layer {layer}",
            marker={"color": COLOURS[colour], "symbol": symbol, "size": 9},
            customdata=rows[["head", "product", "product_low", "product_high"]].to_numpy().tolist(),
            hovertemplate=f"layer {layer}, head %{{customdata[0]:.0f}}: product %{{customdata[1]:.3f}} "
            "[%{customdata[2]:.3f}, %{customdata[3]:.3f}]<extra></extra>",
        )
    return figure


def head_knockout_curve(found: HeadKnockout) -> go.Figure:
    """Change of the logit difference when the top k heads no longer see the image, beside random heads."""
    frame = found.to_frame()
    figure = base_figure(
        "heads that no longer see the image from the last position, k",
        f"change of the logit difference<br>{plain_count(frame)}",
        height=440,
    )
    figure.add_hline(y=0, line={"color": COLOURS["grey"], "dash": "dot", "width": 1.5})
    ks = [str(k) for k in frame["k"]]
    ranks = [
        f"no rank: {gap}" if gap else f"rank p = {p:.3g} ({found.tail})"
        for p, gap in zip(frame["p"], frame["gap"], strict=True)
    ]
    for name, words, colour, dash in (
        ("change", f"top k{_SIGNS[found.sign]} by {label(found.method)}", "blue", None),
        ("control", "as many random heads of the same layers, mean", "orange", "dash"),
    ):
        if frame[name].isna().all():  # no other set to compare with, at any k
            continue
        figure.add_scatter(
            x=ks,
            y=frame[name],
            error_y=interval_bars(frame, name, f"{name}_low", f"{name}_high"),
            mode="lines+markers",
            name=words,
            line={"color": COLOURS[colour], "width": 2, "dash": dash},
            marker={"size": 9},
            customdata=frame[["heads", f"{name}_low", f"{name}_high"]]
            .assign(p=ranks)
            .to_numpy()
            .tolist(),
            hovertemplate="k = %{x}: %{y:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}]"
            "<br>top heads %{customdata[0]}, %{customdata[3]}<extra></extra>",
        )
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=ks)
    return figure
