"""Images that must be refused, each where it is decoded and where it is loaded."""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

import mechvrp
from mechvrp.data import Sample
from mechvrp.data.images import decode_image
from tests.bad_input.rows import ROW, Bad, Place, bad, encoded, lines

__all__ = ["ROWS"]

PNG = encoded(size=(40, 40))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", more: bytes = b"") -> bytes:
    """A PNG file that says it is so large, whatever it holds."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + more
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def decoded(content: bytes, **options: Any) -> Any:
    return lambda place: decode_image(content, **options)


def named(name: str) -> Any:
    """A record that names this image."""

    def load(place: Place) -> Any:
        place.put("data/a.png", PNG)
        place.put("secret.png", PNG)
        place.put("data/metadata.jsonl", lines({**ROW, "image": name}))
        return mechvrp.data.load("folder", root=place.tmp / "data")

    return load


def linked(target: str, name: str = "link.png") -> Any:
    def load(place: Place) -> Any:
        place.put("secret.png", PNG)
        place.put("data/metadata.jsonl", lines({**ROW, "image": name}))
        (place.tmp / "data" / name.split("/")[0]).symlink_to(target)
        return mechvrp.data.load("folder", root=place.tmp / "data")

    return load


def pipe(place: Place) -> Any:
    place.put("data/metadata.jsonl", lines({**ROW, "image": "pipe"}))
    os.mkfifo(place.tmp / "data" / "pipe")
    return mechvrp.data.load("folder", root=place.tmp / "data")


def gone(place: Place) -> Any:
    file = place.put("data/a.png", PNG)
    place.put("data/metadata.jsonl", lines(ROW))
    (sample,) = mechvrp.data.load("folder", root=place.tmp / "data")
    file.unlink()
    return sample.image


def checked_at_loading(place: Place) -> Any:
    place.put("data/a.png", PNG[:60])
    place.put("data/metadata.jsonl", lines(ROW))
    return mechvrp.data.load("folder", root=place.tmp / "data", verify_images=True)


def from_the_hub(path: str) -> Any:
    """An image that a downloaded table names by an absolute path."""

    def fetch(place: Place) -> Any:
        from mechvrp.data.hub import _Cell

        place.put("secret.png", PNG)
        return _Cell(
            [{"image": path.format(tmp=place.tmp)}], 0, None, (str(place.tmp / "cache"),)
        )()

    return fetch


def sample(image: Any, **fields: Any) -> Any:
    return lambda place: Sample(image, **{"question": "Is it dark?", **fields}).image


def closed(place: Place) -> Sample:
    with Image.open(place.put("a.png", PNG)) as opened:
        return Sample(opened, "Is it dark?")


BMP = encoded(kind="BMP")
TEXT_BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 80_000_000, 9))
GOOD = Image.new("RGB", (4, 4))

ROWS: list[Bad] = [
    # the bytes
    bad("an empty file", decoded(b""), "cannot be decoded"),
    bad("text for an image", decoded(b"not an image"), "expected an undamaged file of one of JPEG, PNG"),
    bad("a PNG cut off", decoded(PNG[:-30]), "cannot be decoded"),
    bad("a PNG of which the head is left", decoded(PNG[:20]), "cannot be decoded"),
    bad("a JPEG cut off", decoded(encoded(size=(64, 64), kind="JPEG")[:300]), "cannot be decoded"),
    bad("a GIF cut off", decoded(encoded("P", (64, 64), "GIF")[:40]), "cannot be decoded"),
    bad("a WebP cut off", decoded(encoded(kind="WEBP")[:30]), "cannot be decoded"),
    bad("a TIFF cut off", decoded(encoded(kind="TIFF")[:30]), "cannot be decoded"),
    bad("a PNG with a changed byte", decoded(PNG[:50] + bytes([PNG[50] ^ 255]) + PNG[51:]), "cannot be decoded"),
    bad("an image bomb of 50,000 x 50,000", decoded(png(50_000, 50_000)), "too many pixels"),
    bad("a bomb beyond what fits a number", decoded(png(2**31 - 1, 2**31 - 1)), "too many pixels"),
    bad("an image of 150 million pixels", decoded(png(15_000, 10_000), max_pixels=10**8), "more than the 100,000,000 allowed"),
    bad("one pixel too many", decoded(encoded(size=(11, 10)), max_pixels=109), "is 11 x 10 pixels, more than the 109 allowed"),
    bad("a text of 80 MB packed into a PNG", decoded(png(1, 1, b"\0" * 4, TEXT_BOMB)), "cannot be decoded"),
    bad("a BMP of a negative width", decoded(BMP[:18] + struct.pack("<i", -5) + BMP[22:]), "too many pixels"),
    bad("a PNG of no width", decoded(png(0, 10)), "cannot be decoded"),
    bad("an SVG file", decoded(b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>'), "cannot be decoded"),
    bad("a HEIC file", decoded(b"\0\0\0\x18ftypheic\0\0\0\0heic" + b"\0" * 40), "cannot be decoded"),
    bad("a PostScript program", decoded(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nquit\n"), "cannot be decoded"),
    bad("a PDF file", decoded(b"%PDF-1.7\n"), "cannot be decoded"),
    bad("a pickle", decoded(b"\x80\x04K\x01."), "cannot be decoded"),
    bad("grey of 32 bits", decoded(encoded("I", kind="TIFF")), "pixels of 32 bits (mode I)"),
    bad("grey in floats", decoded(encoded("F", kind="TIFF")), "pixels of 32 bits (mode F)"),
    # its name
    *(
        bad(f"an image called {name!r:.30}", named(name), says)
        for name, says in (
            ("../secret.png", "leaves the folder"), ("b/../../secret.png", "leaves the folder"),
            ("/etc/hostname", "leaves the folder"), ("..\\secret.png", "leaves the folder"),
            ("C:\\a.png", "leaves the folder"), ("\\\\server\\a.png", "leaves the folder"),
            ("~/a.png", "is missing"), ("file:///etc/hostname", "is missing"), ("http://host/a.png", "is missing"),
            ("a.png\0", "expected the name of an image file"), ("  ", "expected the name of an image file"),
            (".", "is missing"), ("a" * 5000, "cannot be looked up"), ("\ud800.png", "is missing"), ("A.PNG", "is missing"),
        )
    ),
    bad("a link out of the root", linked("../secret.png"), "is a link that leaves the folder"),
    bad("a folder that is a link out of the root", linked("..", "d/secret.png"), "is a link that leaves the folder"),
    bad("a link to itself", linked("link.png"), "is missing"),
    bad("a pipe for an image", pipe, "is missing"),
    bad("an image that went away", gone, "metadata.jsonl line 1: image"),
    bad("a damaged image, looked at when loading", checked_at_loading, "metadata.jsonl line 1: image"),
    bad("an image of a hub's table elsewhere", from_the_hub("{tmp}/secret.png"), "is not in the library's cache"),
    bad("one that climbs out of the cache", from_the_hub("{tmp}/cache/../secret.png"), "is not in the library's cache"),
    # samples made by hand
    bad("a path for a sample's image", sample("a.png"), "a PIL.Image or a function that opens one; got 'a.png'"),
    bad("an array for a sample's image", sample(np.zeros((4, 4, 3))), "a PIL.Image or a function that opens one"),
    bad("a function that opens nothing", sample(lambda: None), "expected a PIL.Image, got None"),
    bad("a function that opens an array", sample(lambda: np.zeros((4, 4, 3))), "expected a PIL.Image, got array"),
    bad("an image without pixels", sample(Image.new("RGB", (0, 5))), "has no pixels"),
    bad("a mode that has no way to RGB", sample(Image.new("La", (4, 4))), "(mode La) cannot be decoded as RGB"),
    bad("an open file that is cut off", lambda p: Sample(Image.open(io.BytesIO(PNG[:-30])), "Is it dark?").image, "cannot be decoded as RGB"),
    bad("an image that was closed", lambda p: closed(p).image, "cannot be decoded as RGB"),
    bad("floats in memory", sample(Image.new("F", (5, 5))), "pixels of 32 bits (mode F)"),
    bad("a number for a question", sample(GOOD, question=3), "a sample's question is text; got 3"),
    bad("None for an answer", sample(GOOD, answer=None), "a sample's answer is text; got None"),
    bad("a number for an image id", sample(GOOD, image_id=3), "a sample's image_id is text; got 3"),
    bad("a list for a task", sample(GOOD, task=["vqa"]), "a sample's task is text"),
    bad("a number for meta", sample(GOOD, meta=3), "a sample's meta holds values by name; got 3"),
]  # fmt: skip
