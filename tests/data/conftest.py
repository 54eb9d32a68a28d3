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


def put_images(root: Path, *names: str) -> None:
    """Writes a small image under each name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode())


def put_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def put_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def dos(path: Path) -> None:
    """Gives a file CRLF line ends and a byte-order mark."""
    text = path.read_text(encoding="utf-8").replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())


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
