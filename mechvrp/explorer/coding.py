"""The Python that reproduces what an explorer shows; ``model`` and ``dataset`` are what it was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechvrp.explorer.places import literal

if TYPE_CHECKING:
    from mechvrp.explorer.drafting import Draft

__all__ = ["curve", "outcome"]


def outcome(
    index: int, setup: str, made: str, probe_site: str | None, max_new_tokens: int | None
) -> str:
    """Of one example, clean (``made`` is empty) or edited.

    Args:
        index: of the example.
        setup, made: Python lines that prepare the intervention, and the call that makes it.
        probe_site: hook name of what a probe reads; None without one.
        max_new_tokens: of the whole answers; None where they cannot be had.
    """

    def run(name: str, edit: str) -> list[str]:
        lines = ["with mechvrp.trace(model, batch) as t:"]
        if edit:
            # Made beforehand: it may run the model itself, which cannot be done inside a trace.
            lines.insert(0, f"edit = {edit}")
            lines.append("    t.apply(edit)")
        if probe_site is not None:
            lines.append(
                f"    {name}_state = t[{literal(probe_site)}][0, -1].save()  # what the probe reads"
            )
        lines.append(f"    {name} = t.logits[0, -1].save()")
        return lines

    lines = ["import mechvrp"]
    if setup:
        lines += ["", setup] if setup.startswith("from ") else [setup]
    lines += ["", f"batch = model.encode(dataset[{index}])", *run("before", "")]
    names = ["before"]
    if made:
        lines += [*run("after", made)]
        names.append("after")
    lines += [
        f"{name} = {name}.float().softmax(-1)  # probability of each first token" for name in names
    ]
    lines += [
        "for token in before.topk(5).indices.tolist():",
        "    print(repr(model.tokenizer.decode([token])), "
        + ", ".join(f"float({name}[token])" for name in names)
        + ")",
    ]
    if max_new_tokens is not None:
        lines += ["", "from mechvrp.explorer import edited_answers", ""]
        for name, edit in zip(names, ["", ", edit"], strict=False):
            lines.append(
                f"answer_{name} = edited_answers(model, batch{edit}, max_new_tokens={max_new_tokens})[0]"
            )
        lines.append(f"print({', '.join(f'answer_{name}' for name in names)})")
    if probe_site is not None:
        lines.append("# reliability: probe.probabilities(state.float().cpu().numpy()[None])")
    return "\n".join(lines)


def curve(
    draft: Draft,
    indices: Sequence[int],
    draws: int,
    seed: int,
    batch_size: int,
    reading: str,
    reference: int | None,
) -> str:
    """Of a circuit's ablation curve; ``reference`` is the number of examples that means are over."""
    first, last = indices[0], indices[-1]
    whole = tuple(indices) == tuple(range(first, last + 1))
    means = "" if reference is None else f'mode="mean", reference=dataset[:{reference}], '
    chosen = f"range({first}, {last + 1})" if whole else repr(list(indices))
    return "\n".join(
        [
            draft.code(),
            "",
            "from mechvrp.explorer import circuit_curves",
            "",
            f"samples = [dataset[i] for i in {chosen}]",
            "*_, curve = circuit_curves(",
            f"    model, samples, nodes, {means}draws={draws}, seed={seed}, batch_size={batch_size}, "
            f"reading={literal(reading)}",
            ")",
            "print(curve.to_frame())",
        ]
    )
