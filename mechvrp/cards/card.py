"""The card's text, from a checkpoint's training record and its evaluation alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from mechvrp.data.digits import digit_indices
from mechvrp.data.scene_layout import CROWD, EVALUATION_CROWD

__all__ = ["FAMILY_NAMES", "card_text"]

_ARCHITECTURES = {
    "tiny-llava": (
        "LlavaForConditionalGeneration",
        "CLIP tower, trained against the decoder's word embeddings before the decoder answers anything and "
        "then frozen; two-layer MLP projector; Llama decoder with a causal mask",
    ),
    "tiny-paligemma": (
        "PaliGemmaForConditionalGeneration",
        "SigLIP tower, trained and frozen in the same way as tiny-llava's; linear projector; Gemma decoder "
        "whose prompt is a prefix that looks at itself in both directions",
    ),
    "tiny-qwen2-vl": (
        "Qwen2VLForConditionalGeneration",
        "vision tower at the image's own resolution, 2x2 patch merger, decoder with three-part rotary "
        "positions (M-RoPE)",
    ),
}

FAMILY_NAMES = tuple(_ARCHITECTURES)

# What a family's recipe does otherwise than the card's general text says.
_PARTICULARS = {
    "tiny-llava": "",
    "tiny-paligemma": (
        "In the first 80 % of this phase the image sees itself and no question, so that one image serves "
        "all its questions; in the last 20 % every question (three an image) stands alone with its image, "
        "under the mask the model is used with. Measurements always use that mask."
    ),
    "tiny-qwen2-vl": (
        "Its tower knows no absolute places, so image tokens are matched with words behind the decoder's "
        "first layer, which learns in the first phase too: by direction, and a question's words are to "
        "keep the directions of their embeddings there. The first phase's loss stays, with weight "
        "{sight_share}, in the second, where the tower learns on at {tower_rate} times the rate. Each head "
        "of the tower starts by looking mostly towards one neighbour of a patch. Every step draws an image "
        "size, 48x48 in half of them."
    ),
}


def card_text(training: dict[str, Any], found: dict[str, Any]) -> str:
    """The model card, in Markdown with the front matter that the Hugging Face hub reads.

    Args:
        training: ``training.json``.
        found: ``evaluation.json``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=_percent, interval=_interval, three=_three, minutes=_minutes)
    name, recipe = training["family"], training["recipe"]
    class_name, words = _ARCHITECTURES[name]
    return environment.get_template("card.md.jinja").render(
        name=name,
        class_name=class_name,
        architecture=words,
        particulars=_PARTICULARS[name].format(**recipe),
        training=training,
        recipe=recipe,
        stages=_stages(training),
        found=found,
        probe=found["probe"],
        shipped=recipe["seed"] == 0,
        usual=max(CROWD),
        most=max(EVALUATION_CROWD),
        pictures=sum(len(digit_indices("evaluation", digit)) for digit in range(10)),
    )


def _stages(training: dict[str, Any]) -> list[str]:
    """When each stage of the curriculum ended, and why."""
    state, gate = training["states"][1], training["recipe"]["gate"]
    measured = {step: tasks for step, _, tasks in state["tasks"]}
    ended = []
    for step in state["advanced"]:
        tasks = measured[step]
        mean = (tasks["existence"] + tasks["identification"]) / 2
        why = "passed" if mean >= gate else "after its time"
        ended.append(f"step {step}, {why} with a mean of {mean:.2f}")
    return ended


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
