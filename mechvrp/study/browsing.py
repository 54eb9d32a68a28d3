"""The data of a report's example browser: every example shown, with what its run keeps of it.

Columns rather than rows, numbers of four digits, attention maps in eight bits: about a kilobyte an example,
beside the pictures, which examples of one image share.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from markupsafe import Markup
from scipy.special import expit

from mechvrp.errors import MechVRPError, RunFolderError
from mechvrp.reliability import SIGNALS, known_signals
from mechvrp.store import Chunks, RunFolder
from mechvrp.study.page import safe_json
from mechvrp.study.pictures import MOST, browsed
from mechvrp.study.schema import EXAMPLE_COLUMNS, ModelSection

__all__ = ["Browser", "example_browser"]

_SHARED = ("image_id", "task", "split", "question", "answer")
_MEDIA = {"png": "image/png", "webp": "image/webp"}


@dataclass(frozen=True)
class Browser:
    """What ``examples.html`` needs.

    Attributes:
        data: JSON that is safe within a script element.
        models, tasks: by the numbers that ``data`` uses.
        shown, total: examples here and in the run.
        seed: of the images drawn, if not all are shown.
        gaps: what the run does not keep.
    """

    data: Markup
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    shown: int
    total: int
    seed: int
    gaps: tuple[str, ...]


def example_browser(
    run: RunFolder, sections: Sequence[ModelSection], seed: int, budget: int
) -> Browser | None:
    """The browser's data, at most ``budget`` bytes; ``None`` where no model was observed.

    Args:
        run: with a table of examples.
        sections: of its summary, in the order in which the models ran.
        seed: of the study: it draws the images, where not all examples are shown.
        budget: at most so many bytes.

    Raises:
        RunFolderError: models of one run that were asked different questions, or damage.
    """
    observed = [(i, s) for i, s in enumerate(sections) if s.accuracy]
    if not observed:
        return None
    every = run.read_examples(
        ["example", "image_id"], where=pc.field("model") == observed[0][1].model.name
    )
    most = MOST
    while True:
        places = browsed(every["image_id"].to_numpy(dtype=str), seed, most)
        chosen = every["example"].to_numpy()[places]
        browser = _browser(run, observed, chosen, len(every), seed)
        size = len(browser.data.encode("utf-8", "replace"))
        if size <= budget or len(chosen) == 1:
            return browser
        most = max(1, int(0.95 * len(chosen) * budget / size))


def _browser(
    run: RunFolder,
    observed: Sequence[tuple[int, ModelSection]],
    chosen: np.ndarray,
    total: int,
    seed: int,
) -> Browser:
    known = known_signals()
    columns = set(run.example_columns())
    signals = [name for name in (*SIGNALS, *run.config.get("signals", ())) if name in columns]
    table = run.read_examples(
        [name for name in dict.fromkeys([*EXAMPLE_COLUMNS, *signals]) if name in columns],
        where=pc.field("example").isin(chosen),
    )
    gaps: list[str] = []
    models, shared = [], pd.DataFrame()
    for index, section in observed:
        name = section.model.name
        if not table["example"][table["model"] == name].is_unique:
            raise RunFolderError(
                f"{run.path / 'examples.parquet'} is damaged: {name} has an example twice"
            )
        own = table[table["model"] == name].set_index("example").reindex(chosen)
        if own["question"].isna().any():
            raise RunFolderError(f"examples.parquet lacks examples of {name} that others have")
        if len(shared) and not own[list(_SHARED)].equals(shared[list(_SHARED)]):
            raise RunFolderError(f"examples.parquet: {name} was asked other questions than others")
        shared = own if shared.empty else shared
        models.append(_model(run, index, section, own, signals, gaps))
    tasks = tuple(dict.fromkeys(shared["task"].astype(str)))
    pictures, picture = _pictures(run, shared["gallery"])
    without = picture.count(-1)
    if without:
        gaps.insert(
            0,
            f"pictures of {without} of {len(chosen)} examples: this run was made by an earlier version, which "
            "kept a few. Remove report.html and run the study's command again: only the report is made anew",
        )
    data = {
        "example": chosen.tolist(),
        **{name: shared[name].astype(str).tolist() for name in ("image_id", "question", "answer")},
        "task": [tasks.index(task) for task in shared["task"].astype(str)],
        "heldout": (shared["split"] == "heldout").astype(int).tolist(),
        "picture": picture,
        "pictures": pictures,
        "tasks": tasks,
        "signals": [
            # A registered signal's package need not be installed where its report is read.
            {
                "name": name,
                "what": known[name].description if name in known else "a registered signal",
                "label": any(
                    row.uses_label
                    for _, section in observed
                    for row in (section.signals.rows if section.signals else ())
                    if row.name == name
                ),
            }
            for name in signals
        ],
        "models": models,
    }
    text = safe_json(json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False))
    names = tuple(section.model.name for _, section in observed)
    return Browser(text, names, tasks, len(chosen), total, seed, tuple(gaps))


def _model(
    run: RunFolder,
    index: int,
    section: ModelSection,
    own: pd.DataFrame,
    signals: Sequence[str],
    gaps: list[str],
) -> dict[str, Any]:
    """A model's answers and what was seen of them; what is not kept is added to the gaps."""
    scores = own["probe_score"].to_numpy(dtype=float, na_value=np.nan)
    return {
        "name": section.model.name,
        "crops": section.model.crops,
        "prediction": own["prediction"].astype(str).tolist(),
        "correct": own["correct"].astype(int).tolist(),
        "probability": _numbers(own["answer_probability"]),
        "probe": _numbers(expit(scores)),
        "signals": [_numbers(own[name]) for name in signals],
        **_observed(run, index, section.model.name, own.index.to_numpy(), gaps),
    }


def _observed(
    run: RunFolder, index: int, name: str, chosen: np.ndarray, gaps: list[str]
) -> dict[str, Any]:
    """Maps, sampled answers and margins by depth, from the pieces of the observations."""
    parts = run.written_chunks("observe")
    pieces = next((p for n, p in parts.items() if n.startswith(f"{index}-")), None)
    if pieces is not None and not pieces.complete:
        raise RunFolderError(
            f"{pieces.folder} lacks {len(pieces.missing())} of its {len(pieces)} pieces. Run the study's "
            "command again: it goes on, and makes what is missing"
        )
    columns, arrays = pieces.names() if pieces is not None else (set(), set())
    found: dict[str, Any] = {"maps": None, "votes": None, "own": None, "truth": None}
    if pieces is not None and {"map", "map_rows", "votes"} <= columns:
        with _told(pieces):
            found |= _from_tables(pieces, chosen)
    else:
        gaps.append(f"attention maps and sampled answers of {name}")
    for kind in ("own", "truth"):
        wanted = [f"{kind}_{part}" for part in ("token", "entry", "post")]
        if pieces is not None and arrays.issuperset(wanted):
            with _told(pieces):
                found[kind] = _margins(pieces, wanted, chosen)
    if found["own"] is None or found["truth"] is None:
        gaps.append(f"margins by layer of {name}")
    return found


@contextmanager
def _told(pieces: Chunks) -> Iterator[None]:
    """Values of other shapes and kinds than a study writes are damage."""
    try:
        yield
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        if isinstance(error, MechVRPError):
            raise
        raise RunFolderError(
            f"{pieces.folder} is damaged: its maps, votes or margins are not as a study writes them "
            f"({type(error).__name__}: {error}). Remove it and run the study again"
        ) from error


def _from_tables(pieces: Chunks, chosen: np.ndarray) -> dict[str, Any]:
    maps: list[Any] = []
    votes: list[Any] = []
    indices = pieces.holding(chosen)
    tables = pieces.tables(["map", "map_rows", "votes"], indices)
    for index, table in zip(indices, tables, strict=True):
        for i in pieces.within(index, chosen).tolist():
            row = table.iloc[i]
            weights = np.asarray(row["map"], dtype=np.float64)
            rows, peak = int(row["map_rows"]), float(weights.max())
            if weights.ndim != 1 or not (0 <= weights.min() <= peak < np.inf and peak > 0):
                raise ValueError(f"a map holds {row['map']!r:.60}")
            if rows < 1 or len(weights) % rows:
                raise ValueError(f"a map of {len(weights)} tokens has {rows} rows")
            levels = np.round(255 * weights / peak).astype(np.uint8)
            cells = base64.b64encode(levels.tobytes()).decode("ascii")
            maps.append([rows, _four(peak), cells])
            votes.append([[text, n] for text, n in Counter(map(str, row["votes"])).most_common()])
    return {"maps": maps, "votes": votes}


def _margins(pieces: Chunks, names: Sequence[str], chosen: np.ndarray) -> list[Any]:
    """Margins before block 0 and behind every block; null where there is no such pair of tokens."""
    token, entry, post = names
    found: list[Any] = []
    indices = pieces.holding(chosen)
    for index, part in zip(indices, pieces.arrays(names, indices), strict=True):
        for i in pieces.within(index, chosen).tolist():
            values = [float(part[entry][i]), *part[post][:, i].tolist()]
            found.append([_four(v) for v in values] if part[token][i] >= 0 else None)
    return found


def _pictures(run: RunFolder, names: pd.Series) -> tuple[list[str], list[int]]:
    """Pictures as data URLs, each once, and the number of each example's; -1 where there is none."""
    places: dict[str, int] = {}
    urls: list[str] = []
    found: list[int] = []
    for name in names:
        if pd.isna(name):
            found.append(-1)
            continue
        if name not in places:
            places[name] = len(urls)
            content = base64.b64encode(run.read_gallery_image(str(name))).decode("ascii")
            urls.append(f"data:{_MEDIA[str(name).rsplit('.', 1)[1]]};base64,{content}")
        found.append(places[name])
    return urls, found


def _numbers(values: Any) -> list[float | int | None]:
    array = pd.Series(values).to_numpy(dtype=float, na_value=np.nan)
    return [_four(v) if np.isfinite(v) else None for v in array.tolist()]


def _four(value: float) -> float | int:
    """Four significant digits: ``0.8124``, and ``3`` rather than ``3.0``."""
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() else short
