"""Generated images, and a POPE root made of the official files and such images."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

POPE_FILES = Path(__file__).parent / "files" / "pope"


def encode(size=(8, 6), colour=(200, 30, 30), kind="JPEG", **save) -> bytes:
    """A small image as the bytes of a file."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind, **save)
    return buffer.getvalue()


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def make_pope(tmp_path: Path) -> Callable[..., Path]:
    """Makes a root of the two whole official files, with an image file for each name in them."""

    def make(files: str = "", images: str = "val2014", rows: int | None = None) -> Path:
        root = tmp_path / "pope"
        (root / files).mkdir(parents=True, exist_ok=True)
        (root / images).mkdir(parents=True, exist_ok=True)
        data = encode()
        for split in ("random", "adversarial"):
            name = f"coco_pope_{split}.json"
            if rows is None:
                shutil.copyfile(POPE_FILES / name, root / files / name)
            else:
                lines = (POPE_FILES / name).read_bytes().splitlines(keepends=True)
                (root / files / name).write_bytes(b"".join(lines[:rows]))
            for row in json_lines(root / files / name):
                (root / images / row["image"]).write_bytes(data)
        return root

    return make
