"""The card's text, from a checkpoint's training record and its evaluation alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

__all__ = ["card_text"]

_ARCHITECTURES = {
    "tiny-llava": (
        "LlavaForConditionalGeneration",
        "CLIP tower, pretrained separately and frozen; two-layer MLP projector; Llama decoder with a "
        "causal mask",
    ),
    "tiny-paligemma": (
        "PaliGemmaForConditionalGeneration",
        "SigLIP tower, linear projector, Gemma decoder whose prompt is a prefix that looks at itself "
        "in both directions",
    ),
    "tiny-qwen2-vl": (
        "Qwen2VLForConditionalGeneration",
        "vision tower at the image's own resolution, 2x2 patch merger, decoder with three-part rotary "
        "positions (M-RoPE)",
    ),
}


def card_text(
    training: dict[str, Any], found: dict[str, Any], beside: Sequence[dict[str, Any]] = ()
) -> str:
    """The model card, in Markdown with the front matter that the Hugging Face hub reads.

    Args:
        training: ``training.json``.
        found: what ``evaluate_checkpoint`` returned.
        beside: other seeds of the same recipe, each with ``training`` and ``evaluation``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=_percent, interval=_interval, three=_three, minutes=_minutes)
    name = training["family"]
    class_name, words = _ARCHITECTURES[name]
    return environment.get_template("card.md.jinja").render(
        name=name,
        class_name=class_name,
        architecture=words,
        training=training,
        recipe=training["recipe"],
        found=found,
        probe=found["probe"],
        seeds=[{"training": training, "evaluation": found}, *beside] if beside else [],
    )


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def _interval(row: dict[str, Any], digits: int = 1, scale: float = 100, sign: str = "-") -> str:
    """``88.5 [86.9, 90.1]``, in percent unless said otherwise."""
    form = f"{{:{'+' if sign == '+' else ''}.{digits}f}}"
    value, low, high = (form.format(scale * row[key]) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _three(value: float | None, sign: str = "-") -> str:
    return "none" if value is None else f"{value:{'+' if sign == '+' else ''}.3f}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes"
