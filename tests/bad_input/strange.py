"""Inputs that are good but strange, and what must come of each."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

import mechvrp
from mechvrp import data
from mechvrp.data import Sample
from mechvrp.data.images import decode_image
from tests.bad_input.rows import ROW, Place, encoded, lines

__all__ = ["ROWS"]

RED, BLUE = (255, 0, 0), (0, 0, 255)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corners() -> Image.Image:
    """3 wide, 2 high, its corners told apart."""
    image = Image.new("RGB", (3, 2))
    for place, colour in (
        ((0, 0), RED),
        ((2, 0), BLUE),
        ((0, 1), (0, 255, 0)),
        ((2, 1), (255, 255, 0)),
    ):
        image.putpixel(place, colour)
    return image


#: How an upright image is put back from what each orientation stores (Pillow's own names).
TURNS = {
    1: None, 2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270",
}  # fmt: skip


def oriented(orientation: int) -> Callable[[Place], None]:
    """A picture stored as a camera held in this orientation stores it comes out upright."""

    def check(place: Place) -> None:
        upright, turn = corners(), TURNS[orientation]
        stored = upright if turn is None else upright.transpose(getattr(Image.Transpose, turn))
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = saved(stored, exif=exif)
        opened = Sample(Image.open(io.BytesIO(content)), "Is it dark?")  # the same whichever way
        for found in (decode_image(content), opened.image, opened.image):
            assert found.size == opened.look() == (3, 2)
            assert np.array_equal(found, upright)

    return check


def unknown_orientation(place: Place) -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    assert np.array_equal(decode_image(saved(corners(), exif=exif)), corners())


def sixteen_bits(place: Place) -> None:
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    stored = Image.fromarray(values)
    for image in (decode_image(saved(stored)), Sample(stored, "q?").image):
        assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 128, 255]  # never clipped to white


def mode(
    name: str, colour: Any, expected: tuple[int, int, int], kind: str = "PNG"
) -> Callable[[Place], None]:
    """An image of one colour in another mode, from a file and from memory."""

    def check(place: Place) -> None:
        image = Image.new(name, (5, 4), colour)
        for found in (decode_image(saved(image, kind)), Sample(image, "q?").image):
            assert (found.mode, found.size) == ("RGB", (5, 4))
            assert np.abs(np.array(found.getpixel((2, 2))) - expected).max() <= 2

    return check


def animated(kind: str) -> Callable[[Place], None]:
    """The first frame is the image."""

    def check(place: Place) -> None:
        first, more = Image.new("RGB", (6, 6), RED), [Image.new("RGB", (6, 6), BLUE)] * 3
        options = {"lossless": True} if kind == "WEBP" else {}
        found = decode_image(saved(first, kind, save_all=True, append_images=more, **options))
        assert found.getpixel((3, 3)) == RED

    return check


def of_size(width: int, height: int) -> Callable[[Place], None]:
    """Encoded, and answered, like any other."""

    def check(place: Place) -> None:
        batch = place.model.encode(
            Sample(Image.new("RGB", (width, height), RED), "Is there a two?")
        )
        assert batch.tokens.images[0].shapes == ((12, 12),)
        assert place.model.generate(batch, max_new_tokens=2)[0]

    return check


def asked(question: str) -> Callable[[Place], None]:
    """The question's tokens are found, and spell it."""

    def check(place: Place) -> None:
        batch = place.model.encode(Sample(Image.new("RGB", (48, 48)), question))
        words = batch.tokens.strings(0)
        spelled = "".join(words[int(i)] for i in batch.tokens.question[0])
        assert question.strip() in spelled

    return check


def folder(
    content: bytes | str, expected: list[tuple[str, str]], name: str = "metadata.jsonl"
) -> Callable[[Place], None]:
    """A table reads as these questions and answers."""

    def check(place: Place) -> None:
        place.put("data/a.png", encoded())
        place.put(f"data/{name}", content)
        found = data.load("folder", root=place.tmp / "data")
        assert [(sample.question, sample.answer) for sample in found] == expected

    return check


def one_of_a_thousand(place: Place) -> None:
    place.put("data/a.png", encoded())
    rows = [{**ROW, "question": f"question {i}?"} for i in range(1000)]
    rows[617] = {**ROW, "answer": None}
    place.put("data/metadata.jsonl", lines(*rows))
    found = data.load("folder", root=place.tmp / "data", on_error="skip")
    assert len(found) == 999
    (left_out,) = found.skipped
    assert left_out.record == "metadata.jsonl line 618"


def unicode_name(place: Place) -> None:
    name = "ürün ☃/图.png"
    place.put(f"data/{name}", encoded())
    place.put("data/metadata.jsonl", lines({**ROW, "image": name}))
    (sample,) = data.load("folder", root=place.tmp / "data")
    assert (sample.image_id, sample.image.size) == (name, (8, 6))


def link_inside(place: Place) -> None:
    place.put("data/real/a.png", encoded())
    place.put("data/metadata.jsonl", lines({**ROW, "image": "link.png"}))
    (place.tmp / "data" / "link.png").symlink_to("real/a.png")
    (sample,) = data.load("folder", root=place.tmp / "data")
    assert sample.image.size == (8, 6)


def counted(text: str, number: int | None) -> Callable[[Place], None]:
    def check(place: Place) -> None:
        assert data.read_count(text) == number

    return check


def escaped(place: Place) -> None:
    """What records say is text in a report, never markup."""
    from tests.support.studies import run

    hostile = "</script><img src=x onerror=alert(1)><b>"
    folder = run(place.tmp / "run", hostile.replace("/", "_"), prefix=hostile)
    from mechvrp.store import RunFolder
    from mechvrp.study.report import write_report

    page = write_report(RunFolder.open(folder)).read_text(encoding="utf-8")
    assert "onerror=alert" in page  # it is there to be read
    assert "<img src=x" not in page


def same_edit_twice(place: Place) -> None:
    """Units given twice are those units."""
    once, twice = (
        mechvrp.sweep(
            place.model, place.batch, [mechvrp.zero("neurons", layer=1, units=u)], progress=False
        )
        for u in ([3], [3, 3])
    )
    assert np.array_equal(once["logit_diff"], twice["logit_diff"])


CSV = "image,question,answer\n"

#: Name, and a function that checks.
ROWS: list[tuple[str, Callable[[Place], None]]] = [
    *((f"EXIF orientation {n}", oriented(n)) for n in TURNS),
    ("an EXIF orientation that there is not", unknown_orientation),
    ("grey of 16 bits", sixteen_bits),
    ("CMYK", mode("CMYK", (0, 255, 255, 0), RED, "TIFF")),
    ("CMYK in a JPEG", mode("CMYK", (0, 255, 255, 0), (254, 0, 0), "JPEG")),
    ("alpha: what it hides is shown", mode("RGBA", (255, 0, 0, 0), RED)),
    ("grey with alpha", mode("LA", (200, 0), (200, 200, 200))),
    ("grey", mode("L", 200, (200, 200, 200))),
    ("one bit", mode("1", 1, (255, 255, 255))),
    ("a palette", mode("P", 0, (0, 0, 0))),
    ("YCbCr", mode("YCbCr", (76, 85, 255), (254, 0, 0), "JPEG")),
    ("an animated GIF", animated("GIF")),
    ("an animated PNG", animated("PNG")),
    ("an animated WebP", animated("WEBP")),
    ("a TIFF of several pages", animated("TIFF")),
    ("1 x 1", of_size(1, 1)),
    ("1 x 3,000", of_size(1, 3000)),
    ("3,000 x 1", of_size(3000, 1)),
    ("Devanagari", asked("क्या तस्वीर में दो है?")),
    ("Chinese", asked("图里有二吗？")),
    ("Arabic, right to left", asked("هل يوجد اثنان في الصورة؟")),
    ("Thai", asked("มีเลขสองไหม")),
    ("pictures of faces joined", asked("👩‍👩‍👧‍👦 🙂?")),
    ("letters with marks of their own", asked("e\u0301a\u0308?")),
    ("a turn of the writing's direction", asked("Is it \u202edark\u202c?")),
    ("a NUL within", asked("Is it\0dark?")),
    ("a template's braces", asked("{{ 7*7 }} {question} %s?")),
    ("one sign", asked("?")),
    ("one word of 200 letters", asked("a" * 200 + "?")),
    ("a byte-order mark and CRLF", folder(b"\xef\xbb\xbf" + lines(ROW, ROW).replace("\n", "\r\n").encode(), [("Is it dark?", "yes")] * 2)),
    ("an array in a file of lines' name", folder("[" + lines(ROW).strip() + "]", [("Is it dark?", "yes")])),
    ("blank lines", folder("\n\n" + lines(ROW) + "\n \n", [("Is it dark?", "yes")])),
    ("a line separator within a text", folder(lines({**ROW, "question": "a\u2028b"}), [("a\u2028b", "yes")])),
    ("numbers for answers", folder(lines({**ROW, "answer": 3}, {**ROW, "answer": 2.5}), [("Is it dark?", "3"), ("Is it dark?", "2.5")])),
    ("zeros in front in CSV", folder(CSV + "a.png,q,007\n", [("q", "007")], "metadata.csv")),
    ("None and NaN in CSV", folder(CSV + "a.png,None,NaN\n", [("None", "NaN")], "metadata.csv")),
    ("a line break within a CSV cell", folder(CSV + 'a.png,"a\nb",c\n', [("a\nb", "c")], "metadata.csv")),
    ("markup in a record", folder(lines({**ROW, "question": "<script>1</script>"}), [("<script>1</script>", "yes")])),
    ("a formula in CSV", folder(CSV + "a.png,q,=1+1\n", [("q", "=1+1")], "metadata.csv")),
    ("one bad record in a thousand, skipped", one_of_a_thousand),
    ("names in other scripts", unicode_name),
    ("a link within the root", link_inside),
    ("a count in other digits", counted("٣ كلاب", 3)),
    ("a count of 6,000 digits", counted("9" * 6000, None)),
    ("a count that is a sign", counted("②", None)),
    ("hostile names in a report", escaped),
    ("units given twice", same_edit_twice),
]  # fmt: skip
