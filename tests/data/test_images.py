"""Decoding: upright, RGB, bounded, and never a program run on the file."""

import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mechvrp.data import Sample
from mechvrp.data.images import ImageFolder, ImageSource, decode_image
from mechvrp.errors import DataError

from .conftest import encode


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    # Red at the left, blue at the right, as the sensor saw it.
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, :8, 0], pixels[:, 8:, 2] = 255, 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(saved(Image.fromarray(pixels), exif=exif))
    # Where the first row and the first column of the file are to be seen (EXIF 2.32, tag 274).
    red = {
        1: "left",
        2: "right",
        3: "right",
        4: "left",
        5: "top",
        6: "top",
        7: "bottom",
        8: "bottom",
    }
    across = orientation < 5
    assert image.size == ((16, 8) if across else (8, 16))
    at = {"left": (2, 4), "right": (13, 4), "top": (4, 2), "bottom": (4, 13)}[red[orientation]]
    assert image.getpixel(at) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    image = decode_image(saved(Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode), kind))
    assert (image.mode, image.getpixel((1, 1))) == ("RGB", (255, 255, 255))


def test_sixteen_bits_are_scaled_not_clipped():
    data = saved(Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16)))
    assert decode_image(data).getpixel((0, 0)) == (128, 128, 128)


def test_pixels_without_a_range_are_refused():
    with pytest.raises(DataError, match="convert it to 8 bits"):
        decode_image(saved(Image.new("F", (4, 4)), "TIFF"))


def test_the_limit_is_inclusive_and_comes_before_decoding():
    assert decode_image(encode((10, 10)), 100).size == (10, 10)
    header_only = encode((3000, 3000))[:700]
    with pytest.raises(DataError, match="3000 x 3000 pixels"):
        decode_image(header_only, 10**6)


def test_formats_that_run_programs_are_refused(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(DataError, match="expected an undamaged file of one of JPEG, PNG"):
        decode_image(str(path))


def test_a_source_travels_to_another_process():
    source = pickle.loads(pickle.dumps(ImageSource("row 1", data=encode())))
    assert source().size == (8, 6)


@given(cut=st.integers(0, 600), kind=st.sampled_from(["JPEG", "PNG"]))
def test_a_check_finds_what_opening_finds(cut, kind):
    """The quick check reads a JPEG at an eighth; it must not pass what cannot be opened."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    source = ImageSource("row 1", data=data[: max(0, len(data) - cut)])
    try:
        source()
    except DataError:
        assert isinstance(source.look(), str)
    else:
        assert source.look() == source().size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_is_that_of_the_image_upright(orientation, kind):
    found = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 24)).save(found, kind, exif=exif)
    source = ImageSource("row 1", data=found.getvalue())
    assert source.look() == source().size == ((24, 40) if orientation > 4 else (40, 24))


def test_an_image_that_was_turned_by_hand_is_not_turned_again():
    """Pillow's own functions keep what the file said of its orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    written = io.BytesIO()
    Image.new("RGB", (40, 24)).save(written, "JPEG", exif=exif)
    opened = Image.open(io.BytesIO(written.getvalue()))
    assert Sample(opened, "q").image.size == (24, 40)
    assert Sample(opened, "q").look() == (24, 40)
    turned = Image.open(io.BytesIO(written.getvalue())).rotate(-90, expand=True)
    assert turned.getexif().get(0x0112) == 6
    assert Sample(turned, "q").image.size == (24, 40)
    assert Sample(turned, "q").look() == (24, 40)


def test_names_are_looked_up_in_order_and_once(tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").write_bytes(encode())
    images = ImageFolder(tmp_path, ("missing", "second", "first"))
    assert images.relative(images.find("a.jpg")) == "second/a.jpg"
    for name in (None, 3, "", " ", "a\0.jpg"):
        with pytest.raises(DataError, match="name of an image file"):
            images.find(name)
    for name in ("/etc/passwd", "..", "a/../../b", "C:\\x.jpg", "\\\\host\\x.jpg", "..\\x.jpg"):
        with pytest.raises(DataError, match="leaves the folder"):
            images.find(name)


def test_a_root_that_is_itself_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(encode())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    images = ImageFolder(tmp_path / "link")
    assert images.relative(images.find("a.jpg")) == "a.jpg"
