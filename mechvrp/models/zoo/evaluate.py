"""Measuring an embedded checkpoint as its users meet it: chat template and greedy generation.

python -m mechvrp.models.zoo.evaluate tiny-llava
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from mechvrp.data.sample import Sample
from mechvrp.data.scenes import load_scenes
from mechvrp.models.zoo.folders import folder, names

__all__ = ["answers", "measure", "report"]


@torch.no_grad()
def answers(
    model: Any, processor: Any, samples: Sequence[Sample], *, batch: int = 64, new_tokens: int = 4
) -> list[str]:
    """Greedy single-turn answers, stripped."""
    said: list[str] = []
    for start in range(0, len(samples), batch):
        rows = samples[start : start + batch]
        prompts = [
            processor.apply_chat_template(
                [
                    {
                        "role": "user",
                        "content": [{"type": "image"}, {"type": "text", "text": s.question}],
                    }
                ],
                add_generation_prompt=True,
            )
            for s in rows
        ]
        inputs = processor(
            text=prompts, images=[s.image for s in rows], padding=True, return_tensors="pt"
        )
        out = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
        new = out[:, inputs["input_ids"].shape[1] :]
        said += [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
    return said


def _score(hits: Sequence[bool]) -> dict[str, float]:
    return {"accuracy": round(sum(hits) / len(hits), 4), "n": len(hits)}


def measure(
    model: Any, processor: Any, *, n_images: int = 200, seed: int = 1_000, batch: int = 64
) -> dict[str, Any]:
    """Accuracy by task and split on unseen digits.

    Args:
        model, processor: what to measure.
        n_images: scenes; about six samples each in the mixed split and in each poll.
        seed: of the scenes.
        batch: samples a forward pass.

    Returns:
        ``mixed`` (all tasks), each task of it and each poll: ``accuracy``, ``n`` (samples); the
        polls also ``said_yes`` and ``no_accuracy`` (on the polls whose answer is no); and
        ``random_minus_adversarial``: the difference with its 95 % interval, from the
        differences by image (normal approximation).
    """
    figures: dict[str, Any] = {"n_images": n_images, "seed": seed}
    mixed = list(load_scenes(split="mixed", n_images=n_images, seed=seed))
    hits = _hits(model, processor, mixed, batch)
    figures["mixed"] = _score(hits)
    for task in dict.fromkeys(s.task for s in mixed):
        rows = [hit for hit, s in zip(hits, mixed, strict=True) if s.task == task]
        figures[task] = _score(rows)
    by_image: dict[str, dict[str, list[bool]]] = {}
    for poll in ("random", "popular", "adversarial"):
        samples = list(load_scenes(split=poll, n_images=n_images, seed=seed))
        hits = _hits(model, processor, samples, batch)
        rows = [hit for hit, s in zip(hits, samples, strict=True) if s.answer == "no"]
        yes = [hit == (s.answer == "yes") for hit, s in zip(hits, samples, strict=True)]
        figures[poll] = {
            **_score(hits),
            "no_accuracy": round(sum(rows) / len(rows), 4),
            "said_yes": round(sum(yes) / len(yes), 4),
        }
        for hit, sample in zip(hits, samples, strict=True):
            by_image.setdefault(sample.image_id, {}).setdefault(poll, []).append(hit)
    paired = [
        sum(polls["random"]) / len(polls["random"])
        - sum(polls["adversarial"]) / len(polls["adversarial"])
        for polls in by_image.values()
    ]
    mean = sum(paired) / len(paired)
    spread = math.sqrt(sum((d - mean) ** 2 for d in paired) / max(1, len(paired) - 1) / len(paired))
    figures["random_minus_adversarial"] = {
        "difference": round(mean, 4),
        "interval": [round(mean - 1.96 * spread, 4), round(mean + 1.96 * spread, 4)],
        "n_images": len(paired),
    }
    return figures


def _hits(model: Any, processor: Any, samples: Sequence[Sample], batch: int) -> list[bool]:
    said = answers(model, processor, samples, batch=batch)
    return [a == s.answer for a, s in zip(said, samples, strict=True)]


def report(figures: dict[str, Any]) -> str:
    """``measure``'s figures as lines of text."""
    lines = [f"{figures['n_images']} scenes of unseen digits, seed {figures['seed']}"]
    for name, row in figures.items():
        if isinstance(row, dict) and "accuracy" in row:
            extra = "".join(f"  {k} {row[k]:.3f}" for k in ("no_accuracy", "said_yes") if k in row)
            lines.append(f"{name:16} {row['accuracy']:.3f}  n {row['n']}{extra}")
    gap = figures["random_minus_adversarial"]
    low, high = gap["interval"]
    lines.append(f"random - adversarial {gap['difference']:+.3f} [{low:+.3f}, {high:+.3f}]")
    return "\n".join(lines)


def _main(
    name: Annotated[str, typer.Argument(help="Embedded checkpoint, or a path to one.")],
    n_images: Annotated[int, typer.Option(help="Scenes to ask about.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the scenes.")] = 1_000,
    batch: Annotated[int, typer.Option(help="Samples a forward pass.")] = 64,
) -> None:
    """Accuracy of an embedded checkpoint by task and split, on digits it was not trained on."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    if name not in names() and not Path(name).is_dir():
        raise typer.BadParameter(
            f"no folder {name!r}, and the embedded models are {', '.join(names())}"
        )
    path = folder(name) if name in names() else Path(name)
    model = AutoModelForImageTextToText.from_pretrained(path, use_safetensors=True).eval()
    processor = AutoProcessor.from_pretrained(path)
    typer.echo(report(measure(model, processor, n_images=n_images, seed=seed, batch=batch)))


if __name__ == "__main__":
    typer.run(_main)
