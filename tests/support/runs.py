"""A run folder without a study: made-up examples, written through the store as a study writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mechvrp.store import RunFolder

#: Of the made-up model.
LAYERS, WIDTH = 3, 12
#: Where whether an answer is right can be read.
TELLING = 1


def made_up(
    path: Path,
    *,
    images: int = 120,
    questions: int = 3,
    seed: int = 0,
    model: dict[str, Any] | None = None,
    names: tuple[str, ...] = ("made-up",),
    size: int = 64,
    **columns: Any,
) -> RunFolder:
    """A finished run in which the second layer's states tell right answers from wrong ones.

    Args:
        path: of the folder.
        images, questions: how many images, and questions about each.
        seed: of the numbers.
        model: fields of the summary's description of the model that are to be others.
        names: of the models; each has the same examples.
        size: examples a piece.
        columns: of the table of examples, in place of the made-up ones; functions of the table.
    """
    info = {"n_layers": LAYERS, "d_model": WIDTH, "family": "llava", "dtype": "float32"} | (
        model or {}
    )
    rng = np.random.default_rng(seed)
    n = images * questions
    right = rng.random(n) < 0.7
    hidden = rng.normal(size=(info["n_layers"], n, info["d_model"])).astype(np.float32)
    hidden[TELLING, :, :3] += 1.2 * (right[:, None] - 0.5)
    agreement = np.clip(0.6 + 0.12 * hidden[TELLING, :, 4], 0, 1)
    image = np.repeat(np.arange(images), questions)
    table = pd.DataFrame(
        {
            "example": np.arange(n),
            "image_id": [f"image {i}" for i in image],
            "task": np.where(np.arange(n) % 2 == 0, "existence", "counting"),
            "split": np.where(image % 2 == 0, "train", "heldout"),
            "correct": right,
            "p_tok": np.log(rng.uniform(0.5, 1, n)),
            "answer_probability": rng.uniform(0.5, 1, n),
            "logit_entropy": rng.uniform(0, 1, n),
            "own_margin": 0.5 * right + rng.normal(size=n),
            "gini": rng.uniform(0, 1, n),
            "self_consistency": pd.Series(np.round(agreement, 1), dtype="Float64"),
            "expected_self_consistency": pd.Series(
                np.where(np.arange(n) % 3 == 0, agreement, np.nan), dtype="Float64"
            ).where(np.arange(n) % 3 == 0),
        }
    )
    for name, make in columns.items():
        table[name] = make(table)
    run = RunFolder.create(path, {"models": list(names), "data": "made-up", "max_new_tokens": 4})
    for index, name in enumerate(names):
        pieces = run.chunks("observe", f"{index}-{name}", n, size)
        for piece in range(len(pieces)):
            rows = pieces.rows(piece)
            pieces.write(
                piece,
                table.iloc[rows.start : rows.stop][["example", "correct"]],
                {"hidden": hidden[:, rows.start : rows.stop]},
                {"hidden": ("layer", "example", "d_model")},
            )
    run.write_examples(pd.concat([table.assign(model=name) for name in names]))
    sections = [
        {"model": {"name": name, "fingerprint": f"{index:032d}", **info}}
        for index, name in enumerate(names)
    ]
    run.write_summary({"sections": sections})
    return run
