"""The readers as functions of bytes: whatever these are, nothing but a ``MechVRPError`` may come of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mechvrp import data
from mechvrp.circuits import AblationCurve, Circuit, Ranking
from mechvrp.data.images import decode_image
from mechvrp.errors import MechVRPError
from mechvrp.reliability import Monitor, load_recalibration
from mechvrp.store import Chunks, RunFolder
from mechvrp.study.report import write_report
from mechvrp.study.settings import read_settings

__all__ = ["TARGETS", "run"]

#: Between the files of a benchmark that has several.
BETWEEN = b"\x1e"

#: Name, its files, and options. Which of them is read is said by the first byte.
BENCHMARKS: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("folder", ("metadata.jsonl",), {}),
    ("folder", ("metadata.csv",), {}),
    ("folder", ("metadata.parquet",), {}),
    ("pope", ("coco_pope_random.json",), {"split": "random"}),
    ("counting", ("counting.json",), {}),
    ("counting", ("countbenchqa.jsonl",), {"source": "countbenchqa"}),
    ("spatial", ("spatial.json",), {}),
    ("spatial", ("test.jsonl",), {"source": "vsr", "split": "test"}),
    ("aokvqa", ("aokvqa_v1p0_val.json",), {"split": "val"}),
    ("aokvqa", ("aokvqa_v1p0_val.json",), {"split": "val", "task": "direct-answer"}),
    ("gqa", ("testdev_balanced_questions.json",), {}),
    ("llava-bench", ("questions.jsonl", "context.jsonl", "answers_gpt4.jsonl"), {}),
    ("scienceqa", ("problems.json", "pid_splits.json"), {"split": "test"}),
    (
        "vqav2",
        ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
        {"split": "val2014"},
    ),
    (
        "okvqa",
        ("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"),
        {"split": "val2014"},
    ),
)
IMAGES = (
    "a.png", "a.jpg", "1.jpg", "000000000001.jpg", "COCO_val2014_000000000001.jpg", "test/4/image.png",
)  # fmt: skip


@cache
def place() -> Path:
    """A folder for this process, with the images that the corpus names."""
    folder = Path(tempfile.mkdtemp(prefix="mechvrp-fuzz-"))
    for name in IMAGES:
        file = folder / "data" / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(file)
    return folder


@cache
def a_run() -> RunFolder:
    return RunFolder.create(place() / "run", {"seed": 1})


def _put(name: str, content: bytes) -> Path:
    path = place() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def records(content: bytes) -> None:
    """Every reader of records, under both ways with bad ones."""
    name, files, options = BENCHMARKS[content[0] % len(BENCHMARKS)]
    root = place() / "data"
    parts = content[1:].split(BETWEEN, len(files) - 1) if len(files) > 1 else [content[1:]]
    written = [_put(f"data/{file}", part) for file, part in zip(files, parts, strict=False)]
    try:
        for on_error in ("raise", "skip"):
            try:
                found = data.load(
                    name, root=root, images_root=root / "images", on_error=on_error, **options
                )
                found.check(images=False)
                for sample in found:
                    if sample.task != "open-ended" and data.answer_problem(sample) is None:
                        data.score(sample, "yes, 3 (B)")
            except MechVRPError:
                pass
    finally:
        for file in written:
            file.unlink()


def image(content: bytes) -> None:
    decode_image(content, max_pixels=250_000)


def ranking(content: bytes) -> None:
    Ranking.load(_put("ranking.json", content)).top(1)


def circuit(content: bytes) -> None:
    repr(Circuit.load(_put("circuit.json", content)))


def curve(content: bytes) -> None:
    repr(AblationCurve.load(_put("curve.json", content)))


def monitor(content: bytes) -> None:
    record, _, weights = content.partition(BETWEEN)
    _put("monitor/monitor.json", record)
    _put("monitor/weights.safetensors", weights)
    repr(Monitor.load(place() / "monitor"))


def recalibration(content: bytes) -> None:
    load_recalibration(_put("recalibration.json", content))(np.array([0.0, 0.3, 1.0]))


def header(content: bytes) -> None:
    """The file that makes a folder a run."""
    _put("other/config.json", content)
    repr(RunFolder.open(place() / "other"))


def summary(content: bytes) -> None:
    """A run's figures, as far as its report."""
    a_run()
    _put("run/summary.json", content)
    write_report(a_run())


def pieces(content: bytes) -> None:
    """A run's arrays: the sizes of its pieces, and one piece, read as a whole and by its examples."""
    sizes, _, arrays = content.partition(BETWEEN)
    _put("pieces/pieces.json", sizes)
    _put("pieces/000000.safetensors", arrays)
    found = Chunks.open(place() / "pieces")
    with suppress(MechVRPError):
        list(found.examples("h", np.arange(min(found.total, found.size, 3))))
    found.array("h")


def settings(content: bytes) -> None:
    read_settings(_put("settings.yaml", content))


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        records, image, ranking, circuit, curve, monitor, recalibration, header, summary, pieces, settings,
    )
}  # fmt: skip


def run(name: str, content: bytes) -> None:
    """One input through one reader; every exception but a ``MechVRPError`` gets through."""
    if not content:
        return
    with suppress(MechVRPError):
        TARGETS[name](content)
