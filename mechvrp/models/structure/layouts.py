"""How the image tokens of a model lie on their images: rules, and which of them fits a probe.

A rule gives the grid of every image from the encoded inputs alone, and says where in the pixels a grid's
cell is, so that a probe can see whether the token that stands for it answers.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mechvrp.errors import DataError, UnavailableError
from mechvrp.models.families.base import Grid

__all__ = ["Layout", "NoGrid", "candidates", "pixels_key"]

Inputs = dict[str, Tensor]


def pixels_key(inputs: Inputs) -> str:
    """Which of the inputs holds the images: ``pixel_values``, or else the largest that is not whole."""
    if "pixel_values" in inputs:
        return "pixel_values"
    found = {k: v.numel() for k, v in inputs.items() if v.is_floating_point() and v.ndim >= 3}
    return max(found, key=lambda k: found[k]) if found else ""


class Layout(ABC):
    """One rule; ``how`` says it in words, ``label`` in one or two."""

    how: str = ""
    label: str = ""

    @abstractmethod
    def grids(self, model: Any, inputs: Inputs, counts: Sequence[int]) -> list[Grid]:
        """The grid of every image, in the order of the inputs; ``counts``: image tokens a sample."""

    def rows(self, model: Any, inputs: Inputs, counts: Sequence[int]) -> list[int]:
        """Entries of the tower's first axis that each of ``grids`` takes."""
        return [1] * len(self.grids(model, inputs, counts))

    @abstractmethod
    def cell(self, model: Any, inputs: Inputs, image: int, row: int, col: int) -> Tensor:
        """A view of the pixels of a grid's cell; writing into it writes into the inputs."""

    def patch_pixels(self, inputs: Inputs, pixels: Tensor, image: int, grid: Grid) -> Tensor:
        """As ``Family.patch_pixels``."""
        raise UnavailableError(f"images whose tokens lie so ({self.how}) cannot be masked by patch")


def tiles_of(pixels: Tensor) -> list[Tensor]:
    """Views of all tiles [channel, y, x] in the order of the model; those of zeros only are padding."""
    if pixels.ndim == 4:
        return list(pixels)
    found = [tile for image in pixels for tile in image]
    return [tile for tile in found if bool(tile[:, :1].any()) or bool(tile.any())]


@dataclass(frozen=True)
class NoGrid(Layout):
    """Tokens without a place: as many a sample as its prompt has."""

    label = "none"

    how = "image tokens without a place on a grid"

    def grids(self, model: Any, inputs: Inputs, counts: Sequence[int]) -> list[Grid]:
        return [Grid(0, 0, extra=n) for n in counts if n]

    def cell(self, model: Any, inputs: Inputs, image: int, row: int, col: int) -> Tensor:
        raise UnavailableError(self.how)


@dataclass(frozen=True)
class Tiles(Layout):
    """Every image, or tile of one, gives the same grid."""

    label = "by image or tile"

    height: int
    width: int
    extra: int = 0

    @property
    def how(self) -> str:  # type: ignore[override]
        return f"{self.height} x {self.width} tokens an image or tile"

    def grids(self, model: Any, inputs: Inputs, counts: Sequence[int]) -> list[Grid]:
        grid = Grid(self.height, self.width, self.extra)
        for sample, n in enumerate(counts):
            if n % grid.tokens:
                raise DataError(
                    f"sample {sample} has {n} image tokens, no multiple of the {grid.tokens} of an image "
                    "or tile"
                )
        return [grid] * (sum(counts) // grid.tokens)

    def cell(self, model: Any, inputs: Inputs, image: int, row: int, col: int) -> Tensor:
        tile = tiles_of(inputs[pixels_key(inputs)])[image]
        grid = Grid(self.height, self.width)
        return self.patch_pixels(inputs, tile[None], 0, grid)[row, col]

    def patch_pixels(self, inputs: Inputs, pixels: Tensor, image: int, grid: Grid) -> Tensor:
        tile = tiles_of(pixels)[image]
        channels, height, width = tile.shape
        y, x = height // grid.rows, width // grid.cols
        cut = tile[:, : y * grid.rows, : x * grid.cols]
        return cut.view(channels, grid.rows, y, grid.cols, x).permute(1, 3, 0, 2, 4)


@dataclass(frozen=True)
class Merged(Layout):
    """Native resolution: ``image_grid_thw`` patches, so many of them merged into a token."""

    label = "image_grid_thw"

    merge: int

    @property
    def how(self) -> str:  # type: ignore[override]
        return f"image_grid_thw, {self.merge} x {self.merge} patches a token"

    def grids(self, model: Any, inputs: Inputs, counts: Sequence[int]) -> list[Grid]:
        found = []
        for index, (frames, height, width) in enumerate(inputs["image_grid_thw"].tolist()):
            if frames != 1:
                raise DataError(f"image {index} has {frames} frames; mechvrp takes still images")
            found.append(Grid(height // self.merge, width // self.merge))
        return found

    def rows(self, model: Any, inputs: Inputs, counts: Sequence[int]) -> list[int]:
        return inputs["image_grid_thw"].prod(-1).tolist()

    def cell(self, model: Any, inputs: Inputs, image: int, row: int, col: int) -> Tensor:
        grid = self.grids(model, inputs, ())[image]
        return self._tokens(inputs, inputs[pixels_key(inputs)], image, grid)[row, col]

    def _tokens(self, inputs: Inputs, pixels: Tensor, image: int, grid: Grid) -> Tensor:
        """[row, col, patch, value]: patches come token by token."""
        sizes = self.rows(None, inputs, ())
        own = pixels[sum(sizes[:image]) : sum(sizes[: image + 1])]
        return own.view(grid.rows, grid.cols, self.merge**2, -1)

    def patch_pixels(self, inputs: Inputs, pixels: Tensor, image: int, grid: Grid) -> Tensor:
        own = self._tokens(inputs, pixels, image, grid)
        return own.unflatten(-1, (3, -1)).permute(0, 1, 3, 2, 4)


@dataclass(frozen=True)
class Sized(Layout):
    """Images of any size, padded to one: ``image_sizes`` in pixels, so many of them a token."""

    label = "image_sizes"

    side: int

    @property
    def how(self) -> str:  # type: ignore[override]
        return f"image_sizes, {self.side} x {self.side} pixels a token"

    def grids(self, model: Any, inputs: Inputs, counts: Sequence[int]) -> list[Grid]:
        return [Grid(h // self.side, w // self.side) for h, w in inputs["image_sizes"].tolist()]

    def cell(self, model: Any, inputs: Inputs, image: int, row: int, col: int) -> Tensor:
        grid = self.grids(model, inputs, ())[image]
        return self.patch_pixels(inputs, inputs[pixels_key(inputs)], image, grid)[row, col]

    def patch_pixels(self, inputs: Inputs, pixels: Tensor, image: int, grid: Grid) -> Tensor:
        s = self.side
        cut = pixels[image][:, : s * grid.rows, : s * grid.cols]
        return cut.unflatten(2, (grid.cols, s)).unflatten(1, (grid.rows, s)).permute(1, 3, 0, 2, 4)


@dataclass(frozen=True)
class Anyres(Layout):
    """LLaVA-NeXT: the whole image as one tile; then its tiles side by side, unpadded, rows with an end."""

    label = "anyres"

    side: int

    how = "the whole image, then its tiles in rows with a token at each end (anyres)"

    def _coordinates(self, model: Any, inputs: Inputs) -> list[Tensor]:
        """Of each image's tiles side by side, [2, row, col]: the row and column before unpadding."""
        code = _layout_code(model)
        found = []
        for size, (high, wide) in zip(
            inputs["image_sizes"].tolist(), _tile_grids(model, inputs), strict=True
        ):
            at = torch.meshgrid(
                torch.arange(high * self.side), torch.arange(wide * self.side), indexing="ij"
            )
            found.append(code.unpad_image(torch.stack(at), size))
        return found

    def grids(self, model: Any, inputs: Inputs, counts: Sequence[int]) -> list[Grid]:
        found = []
        for at in self._coordinates(model, inputs):
            found += [Grid(self.side, self.side), Grid(at.shape[1], at.shape[2], ends=1)]
        return found

    def rows(self, model: Any, inputs: Inputs, counts: Sequence[int]) -> list[int]:
        return [n for high, wide in _tile_grids(model, inputs) for n in (1, high * wide)]

    def cell(self, model: Any, inputs: Inputs, image: int, row: int, col: int) -> Tensor:
        tiles = inputs[pixels_key(inputs)][image // 2]
        whole = Tiles(self.side, self.side)
        if image % 2 == 0:
            return whole.cell(model, {"pixel_values": tiles[:1]}, 0, row, col)
        at = self._coordinates(model, inputs)[image // 2]
        y, x = at[:, row, col].tolist()
        _, wide = _tile_grids(model, inputs)[image // 2]
        tile = 1 + (y // self.side) * wide + x // self.side
        one = {"pixel_values": tiles[tile : tile + 1]}
        return whole.cell(model, one, 0, y % self.side, x % self.side)


@dataclass(frozen=True)
class Shapes(Layout):
    """Flattened patches of images of any size: ``spatial_shapes``, so many of them a token."""

    label = "spatial_shapes"

    merge: int

    @property
    def how(self) -> str:  # type: ignore[override]
        return f"spatial_shapes, {self.merge} x {self.merge} patches a token"

    def grids(self, model: Any, inputs: Inputs, counts: Sequence[int]) -> list[Grid]:
        return [
            Grid(-(-h // self.merge), -(-w // self.merge))
            for h, w in inputs["spatial_shapes"].tolist()
        ]

    def cell(self, model: Any, inputs: Inputs, image: int, row: int, col: int) -> Tensor:
        high, wide = inputs["spatial_shapes"][image].tolist()
        own = inputs[pixels_key(inputs)][image][: high * wide].unflatten(0, (high, wide))
        m = self.merge
        return own[row * m : (row + 1) * m, col * m : (col + 1) * m]


def _layout_code(model: Any) -> Any:
    """The module of transformers whose functions lay out tiles."""
    for part in model.modules():
        code = sys.modules[type(part).__module__]
        if hasattr(code, "unpad_image") and hasattr(code, "get_anyres_image_grid_shape"):
            return code
    raise UnavailableError(f"{type(model).__name__} has no functions that lay out tiles")


def _tile_grids(model: Any, inputs: Inputs) -> list[tuple[int, int]]:
    """Rows and columns of each image's tiles, the one of the whole image left out."""
    code, config = _layout_code(model), model.config
    return [
        code.get_anyres_image_grid_shape(
            size, config.image_grid_pinpoints, config.vision_config.image_size
        )
        for size in inputs["image_sizes"].tolist()
    ]


def candidates(model: Any, inputs: Inputs, counts: Sequence[int]) -> list[Layout]:
    """Rules whose numbers of tokens fit a probe, the more particular ones in front."""
    pixels, total = inputs.get(pixels_key(inputs)), sum(counts)
    if pixels is None or not total:
        return []
    tried: list[Layout] = []
    if (thw := inputs.get("image_grid_thw")) is not None:
        merge = math.isqrt(int(thw.prod(-1).sum()) // total)
        tried += [Merged(max(merge, 1))]
    if (sizes := inputs.get("image_sizes")) is not None:
        if getattr(model.config, "image_grid_pinpoints", None):
            vision = model.config.vision_config
            tried += [Anyres(vision.image_size // vision.patch_size)]
        elif sizes.shape[-1] == 2:
            side = math.isqrt(int(sizes.prod(-1).sum()) // total)
            tried += [Sized(max(side, 1))]
    if "spatial_shapes" in inputs:
        tried += [Shapes(merge) for merge in (1, 2, 4)]
    if pixels.ndim in (4, 5):
        tiles = tiles_of(pixels)
        each, left = divmod(total, max(len(tiles), 1))
        ratio = pixels.shape[-2] / pixels.shape[-1]
        for extra in (0, 1) if not left else ():
            rows = round(math.sqrt(max(each - extra, 0) * ratio))
            if rows and rows * ((each - extra) // rows) == each - extra:
                tried += [Tiles(rows, (each - extra) // rows, extra)]
    return [rule for rule in tried if _fits(rule, model, inputs, counts)]


def _fits(rule: Layout, model: Any, inputs: Inputs, counts: Sequence[int]) -> bool:
    try:
        grids = rule.grids(model, inputs, counts)
    except (DataError, UnavailableError):
        return False
    left = iter(grids)
    for n in counts:
        have = 0
        while have < n:
            have += getattr(next(left, None), "tokens", n + 1)
        if have != n:
            return False
    return next(left, None) is None
