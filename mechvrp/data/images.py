"""Images on disk and in tables: found without leaving their root, decoded only when used."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from mechvrp.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "MAX_PIXELS",
    "ImageFolder",
    "ImageSource",
    "Look",
    "as_rgb",
    "decode_image",
    "look_at_image",
    "look_at_images",
]

MAX_PIXELS = 178_956_970
"""Pixels beyond which Pillow itself calls a file a decompression bomb (2 x 89,478,485)."""

Look = str | tuple[int, int]
"""What looking at an image found: its width and height, or why there is none."""

# Pillow would otherwise try every plugin it has; the EPS one runs an external program on the file.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")

# Threads that look at images, and images that wait for them: each may hold one of MAX_PIXELS.
_THREADS, _WAITING = 8, 1024

_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its turns by a quarter

# Preview scale: a JPEG decoded at an eighth still has every byte of its data read.
_PREVIEW = 8


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Opens one image anew at each call; keeps no pixels between calls.

    Args:
        record: the record that uses the image, named by errors.
        file: path of the image file; empty when ``data`` is given.
        data: the encoded bytes of the image, for tables that hold them.
        max_pixels: width x height beyond which the image is refused before it is decoded.
        fetch: gives the path or the bytes when the image is used, for tables too large to hold.
    """

    record: str
    file: str = ""
    data: bytes | None = field(default=None, repr=False)
    max_pixels: int = MAX_PIXELS
    fetch: Callable[[], str | bytes] | None = field(default=None, repr=False)

    def __call__(self) -> Image:
        """The image, upright and RGB; ``DataError`` naming the record if it cannot be had."""
        try:
            return decode_image(self._stored(), self.max_pixels)
        except DataError as error:
            raise DataError(f"{self.record}: {error}") from error

    @property
    def key(self) -> Hashable:
        """The same for two sources of one image, so that a check decodes it once."""
        if self.data is not None:  # by content: freed bytes may leave their place to others
            return hashlib.blake2b(self.data, digest_size=16).digest()
        return self.file or self.fetch

    def look(self) -> Look:
        """The image's size, or why it cannot be used; decodes all of it, at a reduced scale."""
        try:
            return _decoded(self._stored(), self.max_pixels, preview=True)[1]
        except DataError as error:
            return str(error)

    def _stored(self) -> str | bytes:
        if self.fetch is not None:
            return self.fetch()
        return self.file if self.data is None else self.data


class ImageFolder:
    """Finds the image files that records name, and refuses any that lie outside the root.

    Args:
        root: folder that every image must be in.
        folders: sub-folders of ``root`` to look in, in this order; ``""`` is the root itself.
    """

    def __init__(self, root: str | os.PathLike[str], folders: Sequence[str] = ("",)) -> None:
        self.root = Path(root)
        self._real_root = Path(os.path.realpath(self.root))
        self._folders = tuple(folders)
        self._found: dict[str, str] = {}

    def find(self, name: object) -> str:
        """The real path of the image ``name``.

        Raises:
            DataError: ``name`` is not a file name, leaves the root (absolute, ``..``, or a link
                that points out of it), or no such file exists. The caller adds the record.
        """
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise DataError(f"expected the name of an image file, got {name!r}")
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def relative(self, file: str) -> str:
        """``file``, as :meth:`find` gave it, relative to the root with forward slashes."""
        return Path(file).relative_to(self._real_root).as_posix()

    def _find(self, name: str) -> str:
        posix, windows = PurePosixPath(name), PureWindowsPath(name)
        if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
            raise DataError(
                f"image {name!r} leaves the folder {str(self.root)!r}; "
                "image names must be relative to it and hold no '..'"
            )
        for folder in self._folders:
            candidate = self.root / folder / name
            try:
                if not candidate.is_file():
                    continue
            except OSError as error:  # a name longer than the file system takes, say
                raise DataError(
                    f"image {name!r:.80} cannot be looked up: {error.strerror}"
                ) from error
            real = os.path.realpath(candidate)
            if not Path(real).is_relative_to(self._real_root):
                raise DataError(
                    f"image {name!r} is a link that leaves the folder {str(self.root)!r}; "
                    "copy the images into it, or pass images_root= with the folder they are in"
                )
            return real
        looked = ", ".join(repr(str(self.root / folder)) for folder in self._folders)
        raise DataError(
            f"image file {name!r} is missing (looked in {looked}); put it there, pass "
            "images_root=, or load with on_error='skip' to leave such records out"
        )


def decode_image(source: str | bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode an image file or its bytes: EXIF orientation applied, first frame, RGB.

    A grey image of 16 bits is scaled to 8 (Pillow's own conversion would clip it to white).

    Args:
        source: a path, or the encoded bytes.
        max_pixels: width x height beyond which nothing is decoded.

    Raises:
        DataError: missing, too many pixels, not an image of a supported format, or damaged.
    """
    return _decoded(source, max_pixels)[0]


def _decoded(
    source: str | bytes, max_pixels: int, *, preview: bool = False
) -> tuple[Image, tuple[int, int]]:
    """As `decode_image`, and the image's width and height; as a preview a JPEG is an eighth as large."""
    from PIL import Image as PILImage

    label = repr(source) if isinstance(source, str) else f"of {len(source)} bytes"
    PILImage.init()
    formats = [name for name in _FORMATS if name in PILImage.OPEN]
    try:
        with PILImage.open(
            source if isinstance(source, str) else io.BytesIO(source), formats=formats
        ) as im:
            width, height = im.size
            if width * height > max_pixels:
                raise DataError(
                    f"image {label} is {width} x {height} pixels, more than the "
                    f"{max_pixels:,} allowed; scale it down, or pass a larger max_pixels="
                )
            if preview:
                im.draft("RGB", (max(1, width // _PREVIEW), max(1, height // _PREVIEW)))
            reduced = im.size != (width, height)
            turned = im.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
            image = as_rgb(im, label)
            if image is im:  # which is closed
                image = im.copy()
            if reduced:
                return image, (height, width) if turned else (width, height)
            return image, image.size
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(
            f"image {label} is missing; it was there when the data were loaded"
        ) from error
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning) as error:
        raise DataError(f"image {label} has too many pixels for Pillow: {error}") from error
    # Pillow's decoders raise nearly anything on damaged input (OSError, SyntaxError, struct.error,
    # zlib.error, ...); all of it means the same here.
    except Exception as error:
        raise DataError(
            f"image {label} cannot be decoded ({type(error).__name__}: {error}); "
            f"expected an undamaged file of one of {', '.join(formats)}"
        ) from error


def as_rgb(image: Any, label: str = "") -> Image:
    """An opened image as RGB, upright by its EXIF orientation.

    What transparency hides is shown, as in the official code of benchmarks.
    A grey image of 16 bits is scaled to 8 (Pillow's own conversion would clip it to white).

    Args:
        image: a ``PIL.Image``.
        label: names it in errors.

    Raises:
        DataError: it is something else, has no pixels or such as cannot be RGB (of 32 bits, without a fixed
            range), or is not decoded yet and damaged.
    """
    from PIL import Image as PILImage
    from PIL import ImageFile, ImageOps

    if not isinstance(image, PILImage.Image):
        raise DataError(f"expected a PIL.Image, got {image!r:.60} ({type(image).__name__})")
    if not image.width * image.height:
        raise DataError(f"image {label or repr(image)} has no pixels")
    if image.mode in ("I", "F"):
        raise DataError(
            f"image {label or repr(image)} has pixels of 32 bits (mode {image.mode}) without a "
            "fixed range; convert it to 8 bits"
        )
    mode = image.mode
    try:
        # As it comes from a file: what was made of it may have been turned already, and still says so.
        opened = isinstance(image, ImageFile.ImageFile)
        if opened and image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if mode.startswith("I;16"):
            image = image.convert("I").point(lambda value: value / 256).convert("L")
        image.load()  # as `convert` does: of an image that is open, not all need be there
        return image if image.mode == "RGB" else image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything
        raise DataError(
            f"image {label or repr(image)} (mode {mode}) cannot be decoded as RGB ({type(error).__name__}: "
            f"{error}); expected an undamaged one of a mode such as RGB, RGBA, L or P"
        ) from error


def look_at_images(
    images: Iterable[Image | Callable[[], Image]], seen: dict[Hashable, Look]
) -> None:
    """Fill ``seen`` as `look_at_image` does, for the images among these that records name or hold.

    On several threads: Pillow's decoders let go of the interpreter's lock, and files that are far away come
    side by side. What a user's function opens is left to `look_at_image`.
    """
    from PIL import Image as PILImage

    PILImage.init()  # once, before threads ask for it
    new = {
        image.key: image
        for image in images
        if isinstance(image, ImageSource) and image.key not in seen
    }
    keys = list(new)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(keys), _WAITING):
            some = keys[start : start + _WAITING]
            seen.update(zip(some, pool.map(lambda key: new[key].look(), some), strict=True))


def look_at_image(source: Image | Callable[[], Image], seen: dict[Hashable, Look]) -> Look:
    """The size of the image that ``source`` gives, or why it gives none.

    Args:
        source: what a sample holds: an image, or a function that opens one.
        seen: results so far by :attr:`ImageSource.key`, added to, so that the six questions about
            one image cost one decoding.
    """
    if isinstance(source, ImageSource):
        if source.key not in seen:
            seen[source.key] = source.look()
        return seen[source.key]
    try:
        return as_rgb(source() if callable(source) else source).size
    except DataError as error:
        return str(error)
