"""A run folder with all that a report's example browser shows: generated answers, maps, margins, pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mechvrp.data import Dataset, Sample
from mechvrp.store import RunFolder
from mechvrp.study.pictures import write_pictures
from mechvrp.study.schema import Summary
from tests.support.studies import examples, section

__all__ = ["browsable_run"]


def browsable_run(
    path: Path,
    *names: str,
    n: int = 60,
    size: tuple[int, int] = (24, 24),
    grid: tuple[int, int] = (4, 3),
    layers: int = 4,
    per_image: int = 3,
    text: str = "",
    observed: bool = True,
    crops: bool | None = False,
    parts: bool = True,
) -> RunFolder:
    """A finished run of generated numbers.

    Args:
        path: of the folder.
        names: of the models.
        n, per_image: questions, and how many are about one image.
        size: width and height of the images, which are noise.
        grid, layers: of the attention maps, whose sharpest patch is that of the example's number.
        text: put behind every text that comes from data.
        observed: keep maps, sampled answers and margins.
        crops: as the model's description says it.
        parts: with probe, ablation and the like.
    """
    run = RunFolder.create(path, {"name": f"generated{text}"})
    rng = np.random.default_rng(0)
    tables = []
    for seed, name in enumerate(names):
        table = examples(f"{name}{text}", n=n, seed=seed, tasks=2)
        table["image_id"] = [f"scene-{i // per_image}.png{text}" for i in range(n)]
        held = np.arange(n) // per_image % 2 == 1
        table["split"] = np.where(held, "heldout", "train")
        table["probe_score"] = pd.Series(np.where(held, rng.normal(size=n), np.nan)).astype(
            "Float64"
        )
        for column in ("task", "question", "answer", "prediction"):
            table[column] = table[column] + text
        tables.append(table)

    def image() -> Image.Image:
        # Noise; large ones have detail as photographs do, at every scale but the finest.
        small = (min(size[0], 48), min(size[1], 36))
        noise = rng.integers(0, 256, (small[1], small[0], 3), dtype=np.uint8)
        return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)

    first = tables[0]
    samples = [
        Sample(image, q, image_id=i)
        for q, i in zip(first["question"], first["image_id"], strict=True)
    ]
    names_of = write_pictures(run, Dataset("generated", samples), 0)
    sections = []
    for index, table in enumerate(tables):
        table["gallery"] = pd.Series([names_of.get(i) for i in range(n)], dtype="string")
        name = str(table["model"].iloc[0])
        if observed:
            _observe(run, f"{index}-{name}", table, grid, layers, text)
        own = section(table, parts=parts, n_layers=layers)
        model = own.model.__class__(**{**own.model.__dict__, "crops": crops})
        sections.append(own.__class__(**{**own.__dict__, "model": model}))
    run.write_examples(pd.concat(tables, ignore_index=True))
    title = f"Generated study{text}"
    run.write_summary(
        Summary(title, "2000-01-01T00:00:00+00:00", {"study": 0}, tuple(sections)).to_json()
    )
    return run


def _observe(
    run: RunFolder, part: str, table: pd.DataFrame, grid: tuple[int, int], layers: int, text: str
) -> None:
    n, cells = len(table), grid[0] * grid[1]
    rng = np.random.default_rng(1)
    maps = rng.random((n, cells))
    maps[np.arange(n), np.arange(n) % cells] = 2.0
    maps /= maps.sum(axis=1, keepdims=True)
    arrays = {}
    for kind in ("own", "truth"):
        known = np.arange(n) % 5 != 4 if kind == "truth" else np.ones(n, bool)
        arrays[f"{kind}_token"] = np.where(known, 7, -1)
        arrays[f"{kind}_entry"] = np.arange(n, dtype=np.float32)
        arrays[f"{kind}_post"] = rng.normal(size=(layers, n)).astype(np.float32)
    pieces = run.chunks("observe", part, n, 32)
    for index in range(len(pieces)):
        rows = pieces.rows(index)
        inside = slice(rows.start, rows.stop)
        pieces.write(
            index,
            pd.DataFrame(
                {
                    "example": list(rows),
                    "map": [m.astype(np.float32) for m in maps[inside]],
                    "map_rows": grid[0],
                    "votes": [[f"yes{text}", f"no{text}", f"yes{text}"] for _ in rows],
                }
            ),
            {name: array[..., inside] for name, array in arrays.items()},
        )
