"""Measures tiny models of all classes and stores what was found: ``python -m tests.support.family_table``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mechvrp.models.structure.classes import CheckedClass, checked_classes, row_of, write_classes
from tests.support.anyvlm_classes import CASES

__all__ = ["PAGE", "measured", "page", "sweeps_of"]


def sweeps_of(model: Any, batch: Any) -> str:
    """The ways of running a sweep that are exact on a model."""
    from mechvrp.patching.planning import can_split
    from mechvrp.patching.trials import trial

    found = trial(model)
    if found.resume:
        return "full"
    if can_split(model, batch) or found.split:
        return "resume, full"
    return "branches, suffix, resume, full"


def measured(name: str) -> CheckedClass:
    """The row of a case."""
    import mechvrp

    case = CASES[name]
    model = mechvrp.load(case.model(), probe=case.inputs())
    return row_of(model, sweeps_of(model, model.batch(**case.inputs([2, 1]))))


def page(rows: Iterable[CheckedClass]) -> str:
    """The table of the documentation."""
    lines = [
        "# See which models work",
        "",
        "LLaVA-1.5, PaliGemma 1 and 2, Qwen2-VL and Qwen2.5-VL have families written by hand: all",
        "sites, official prompts, every way of running a sweep that their attention allows. Any other",
        "image-text-to-text model of transformers is looked at when it is loaded: its sites are found by",
        "structure and verified by runs, and what cannot be verified is refused with the reason.",
        "`mechvrp families --check NAME_OR_PATH` does it for one model and says what to do where",
        "something is missing.",
        "",
        "Below: what was found of tiny untrained models, one for each class, by the test suite, which",
        "compares every claimed site with plain hooks and every sweep with whole forwards. No real",
        "checkpoint of these classes was run. This page is written by",
        "`python -m tests.support.family_table`. A `llava` whose tower is Pixtral's and whose decoder is",
        "Mistral's is listed as `llava-pixtral-mistral`: the family written by hand is for towers of CLIP",
        "and SigLIP and decoders of Llama, Mistral, Qwen2, Qwen3 and Gemma.",
        "",
        "What differs from block to block is refused where it differs: blocks with linear attention or Mamba",
        "have no heads (Qwen3.5, hybrids), and neither have those whose heads are larger than most blocks'",
        "(Gemma 4). A model whose positions are not the counted ones is left to count them itself; one that",
        "sees its padding takes prompts of one length only. `check_family` says so.",
        "",
        "Where the image is not in the sequence and blocks of cross attention look at it (Mllama), image",
        "sites are keys: `t.image_k[layer]` and `t.image_v[layer]`, [batch, image key, head, d_head], are read",
        "and edited in traces, whole or by keys and heads. Caches and sweeps, which go by positions of the",
        "prompt, refuse them.",
        "",
        "What a study (`mechvrp study`) needs of a model:",
        "",
        "| part of a study | sites and facts it needs | without them |",
        "|---|---|---|",
        "| observe | a processor; one image an example, all of whose tokens have places on its grid; "
        "`resid_pre` of block 0; `resid_post` and `pattern` of every block; `logits` | the model is not "
        "observed, and the study says why; if none is, `mechvrp study` ends with status 1 |",
        "| margins between attention and MLP | `resid_mid` | a gap |",
        "| margins by depth | a final norm of whose output the unembedding makes the logits | a gap; the "
        "margin of the answer itself comes from the logits |",
        "| correlate | nothing more | |",
        "| the probe's dimensions ablated, hidden states corrupted | `resid_post` | |",
        "| MLP neurons ablated | `neurons` of the probe's block | a gap |",
        "| image patches masked | pixels that are cut by the image tokens' places | a gap |",
        "| attention corrupted, comparators | `pattern` of every block | a gap |",
        "",
        "What was found of the classes:",
        "",
        "| class | `model_type` | attention | places of image tokens | sites it lacks | in some blocks | "
        "exact sweeps |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.kind} | {row.model_type} | {row.attention} | {row.grid} | {', '.join(row.lacks) or '-'} | "
        f"{', '.join(row.partly) or '-'} | {row.sweeps} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "models.md"

if __name__ == "__main__":
    write_classes([measured(name) for name in CASES])
    PAGE.write_text(page(checked_classes()))
