"""Trace one hallucinated answer of tiny-llava from the picture to the word, and write a page about it.

python docs/hallucination.py            # writes runs/hallucination.html (about a minute on two cores)

The answer is the most confident "yes" to an adversarial poll for a digit that is not there. Every step is
one call of mechvrp. It is one answer: nothing here is a statement about other answers, let alone models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import plotly.graph_objects as go
import typer

import mechvrp
from mechvrp.data import Sample
from mechvrp.data.scene_layout import CELL_NAMES
from mechvrp.patching import (
    attention_knockout,
    attribution_patching,
    causal_trace,
    mask_image_patches,
    masked_pixels,
    patch_effects,
)
from mechvrp.plots import effects_over_image, knockouts_by_layer, verified_patches
from mechvrp.reliability import greedy_answers

QUIET: dict[str, Any] = {"progress": False}
DRAWS = 199  # random controls: the least p is 1 in 200


def hallucinated(model: mechvrp.VLM, n_images: int) -> tuple[Sample, float]:
    """The most confident yes to a digit that is not there, and its probability."""
    polls = mechvrp.data.load("scenes", split="adversarial", n_images=n_images)
    said = zip(polls, greedy_answers(model, list(polls)), strict=True)
    wrong = [(s, a.probability) for s, a in said if a.text == "yes" and s.answer == "no"]
    if not wrong:
        raise SystemExit(f"no hallucination among {len(polls)} polls; ask for more --images")
    return max(wrong, key=lambda pair: pair[1])


def ask(model: mechvrp.VLM, sample: Sample, question: str) -> str:
    """The model's answer to another question about the same picture."""
    other = Sample(sample.image, question, "?", sample.image_id, sample.task)
    (answer,) = greedy_answers(model, [other])
    return f"{answer.text} ({100 * answer.probability:.0f} %)"


def cells_of(box: tuple[int, int, int, int], size: tuple[int, int], grid: tuple[int, int]) -> Any:
    """Which image tokens' centres lie in a box, [row, col]."""
    left, top, right, bottom = box
    y = (np.arange(grid[0]) + 0.5) * size[0] / grid[0]
    x = (np.arange(grid[1]) + 0.5) * size[1] / grid[1]
    return np.outer((y > top) & (y < bottom), (x > left) & (x < right))


def main(
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("runs/hallucination.html"),
    images: Annotated[int, typer.Option(help="Scenes to look for a hallucination in.")] = 60,
    seed: Annotated[int, typer.Option(help="Of noise and random controls.")] = 0,
) -> None:
    """Trace one hallucinated answer of tiny-llava, and write a page about it."""
    model = mechvrp.load("tiny-llava")
    page: list[str | go.Figure] = []

    def tell(text: str) -> None:
        print(text)
        page.append(text)

    sample, probability = hallucinated(model, images)
    digit = sample.meta["digit"]
    tell(
        f"Image {sample.image_id}: “{sample.question}” Answer: yes ({100 * probability:.1f} %). Right: no."
    )

    # What does it take for that digit?
    tell(f"“Where is the {digit}?” {ask(model, sample, f'Where is the {digit}?')}")
    for word, (row, col) in sample.meta["cells"].items():
        name = CELL_NAMES[row][col]
        tell(
            f"{name}, where the {word} is: it says {ask(model, sample, f'What digit is at the {name}?')}"
        )

    # Where in the picture does the answer come from? Noise on all image features takes it away; which
    # single patch, restored in which layer, brings it back?
    batch = model.encode([sample])
    traced = causal_trace(model, batch, measure="logit_diff", seed=seed, **QUIET)
    effects = patch_effects(traced)
    grid = (effects.sizes["row"], effects.sizes["col"])
    per_digit = {
        word: float(effects[0].values[cells_of(box, sample.meta["size"], grid)].sum())
        for word, box in sample.meta["boxes"].items()
    }
    culprit = max(per_digit, key=lambda word: per_digit[word])
    tell(
        f"Causal trace: yes leads by {float(traced['clean'][0]):.2f} logits, under noise by "
        f"{float(traced['corrupted'][0]):.2f}. Restoring single patches behind block 0 brings back most on "
        f"the {culprit} (summed over its patches {per_digit[culprit]:.1f} logits; the next digit "
        f"{sorted(per_digit.values())[-2]:.1f})."
    )
    page.append(effects_over_image(effects, sample.image, title="logits brought back"))
    last = traced["indirect"].sel(position="last").values
    tell(
        "Restoring the last token instead brings back "
        + ", ".join(f"{value:.1f} (block {i})" for i, value in enumerate(last))
        + ": behind the block where that jumps, the picture has been read."
    )

    # How does it get there?
    flows = attention_knockout(model, batch, measure="logit_diff", **QUIET)
    page.append(knockouts_by_layer(flows))
    worst = flows["change"].where(flows["change"] == flows["change"].min(), drop=True)
    tell(
        f"Attention: the cut that costs most is {worst['edge'].values[0]} in block "
        f"{int(worst['layer'].values[0])} ({float(flows['change'].min()):.1f} logits)."
    )

    # Is it enough to take that digit away?
    score = cells_of(sample.meta["boxes"][culprit], sample.meta["size"], grid).astype(float)
    masked = mask_image_patches(
        model, batch, [score], fraction=float(score.mean()), at="pixels", draws=DRAWS,
        measure="logit_diff", seed=seed, **QUIET,
    )  # fmt: skip
    change = masked["value"].values[:, 0] - masked["base"].values[0]
    as_low = int((change[2:] <= change[0]).sum())
    tell(
        f"Blanking the {culprit} ({int(masked['masked'][0, 0])} patches of pixels) changes the lead of yes by "
        f"{change[0]:.1f} logits, to {float(masked['value'][0, 0]):.1f}; as many random patches by "
        f"{change[2:].mean():.1f} on average (p = {(1 + as_low) / (1 + DRAWS):.3f}, {DRAWS} draws)."
    )

    # Which neurons say so at the last token? Their values with that digit blanked are put into the run.
    blank = masked_pixels(model, batch, [score > 0])
    found = attribution_patching(
        model, batch, blank, "neurons", over="unit", direction="noise", steps=8
    )
    table = found.verify(top=30, **QUIET)
    page.append(verified_patches(table))
    first = table.iloc[0]
    tell(
        f"Neurons at the last token: of {model.n_layers * model.d_mlp} the 30 with the largest estimates "
        f"were patched exactly (rank correlation {table.attrs['spearman']:.2f}); the first, neuron "
        f"{first['place']} of block {first['layer']}, takes {first['exact']:.2f} logits."
    )
    rng = np.random.default_rng(seed)
    layer = int(table.groupby("layer")["exact"].sum().idxmin())
    own = [int(u) for u in table[(table["layer"] == layer) & (table["exact"] < 0)]["place"]]
    ablate = {"top": own} | {
        i: rng.choice(model.d_mlp, len(own), replace=False).tolist() for i in range(DRAWS)
    }
    zeroed = mechvrp.sweep(
        model, batch,
        {
            name: mechvrp.zero("neurons", layer=layer, units=units, positions="last")
            for name, units in ablate.items()
        },
        "logit_diff", **QUIET,
    )  # fmt: skip
    leads = zeroed["logit_diff"].values[:, 0]
    as_low = int((leads[1:] <= leads[0]).sum())
    tell(
        f"Zeroing the {len(own)} of them that are in block {layer} leaves yes a lead of {leads[0]:.1f} of "
        f"{float(zeroed['base_logit_diff'][0]):.1f} logits; {len(own)} random ones leave "
        f"{leads[1:].mean():.1f} on average (p = {(1 + as_low) / (1 + DRAWS):.3f}, {DRAWS} draws)."
    )
    write(out, page)
    print(f"written to {out}")


def write(out: Path, page: list[str | go.Figure]) -> None:
    """One page that needs no network."""
    parts = ["<!doctype html><meta charset='utf-8'><title>A hallucinated answer, traced</title>"]
    parts += [
        "<style>body{font:16px system-ui;max-width:72em;margin:2em auto;padding:0 1em}</style>"
    ]
    parts += ["<h1>A hallucinated answer of tiny-llava, traced</h1>"]
    script: bool = True
    for part in page:
        if isinstance(part, str):
            parts.append(f"<p>{part}</p>")
        else:
            parts.append(part.to_html(full_html=False, include_plotlyjs=script))
            script = False
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
