"""Drawing a scene: numpy only, so the same scene gives the same pixels everywhere.

Other sizes than the scene's own are Pillow's work, and theirs may differ between its versions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from mechvrp.data.digits import digit_image
from mechvrp.data.scene_layout import IMAGE_SIZE, Placed, Scene
from mechvrp.data.scene_sizes import OWN_SIZE, resized

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

__all__ = ["render", "render_pixels"]


def _glyph(placed: Placed) -> np.ndarray:
    """Ink of one digit in its box, 0..1, ``[size, size]``: its picture, turned and scaled."""
    import numpy as np

    size = placed.box[2] - placed.box[0]
    source = np.zeros((10, 10), dtype=np.float32)  # a blank border, so that sampling fades out
    source[1:9, 1:9] = digit_image(placed.image)
    axis = ((np.arange(size) + 0.5) / size - 0.5) * 9.0
    y, x = axis[:, None], axis[None, :]
    x = (x + placed.shear * y) / placed.stretch
    angle = np.deg2rad(placed.angle)
    u = np.cos(angle) * x + np.sin(angle) * y + 4.5
    v = -np.sin(angle) * x + np.cos(angle) * y + 4.5
    inside = (u >= 0) & (u <= 9) & (v >= 0) & (v <= 9)
    u, v = np.clip(u, 0, 8.999), np.clip(v, 0, 8.999)
    u0, v0 = u.astype(np.intp), v.astype(np.intp)
    du, dv = u - u0, v - v0
    ink = (
        source[v0, u0] * (1 - du) * (1 - dv)
        + source[v0, u0 + 1] * du * (1 - dv)
        + source[v0 + 1, u0] * (1 - du) * dv
        + source[v0 + 1, u0 + 1] * du * dv
    )
    return np.clip(1.25 * ink * inside, 0.0, 1.0)  # a little gain: interpolation thins strokes


def render_pixels(scene: Scene) -> np.ndarray:
    """The scene as ``uint8`` red, green and blue, ``[48, 48, 3]``.

    Shading and noise depend on the scene's noise seed alone, never on its digits: two scenes that
    differ in one digit differ in that digit's box and nowhere else.
    """
    return _drawn(scene).copy()


# A sample draws its picture whenever it is asked for it, which is several times an analysis: 7 KB each.
@lru_cache(maxsize=1024)
def _drawn(scene: Scene) -> np.ndarray:
    """`render_pixels`, drawn once."""
    import numpy as np

    rng = np.random.default_rng(scene.noise_seed)
    paper = np.asarray(scene.paper, dtype=np.float32)
    image = np.broadcast_to(paper, (IMAGE_SIZE, IMAGE_SIZE, 3)).copy()
    for placed in scene.placed:
        left, top, right, bottom = placed.box
        ink = (placed.strength * _glyph(placed))[..., None]
        image[top:bottom, left:right] += ink * (np.asarray(scene.ink) - paper)
    ramp = np.linspace(-1, 1, IMAGE_SIZE, dtype=np.float32)
    tilt = rng.uniform(-0.04, 0.04, size=2)
    image += (tilt[0] * ramp[:, None] + tilt[1] * ramp[None, :])[..., None]
    grey = rng.standard_normal((IMAGE_SIZE, IMAGE_SIZE, 1), dtype=np.float32)
    colour = rng.standard_normal((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32)
    image += scene.noise * (0.85 * grey + 0.5 * colour)
    return (np.clip(image, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def render(scene: Scene, size: tuple[int, int] = OWN_SIZE) -> Image:
    """The scene as an RGB ``PIL.Image`` of that height and width: drawn at 48x48, then resized."""
    from PIL import Image

    return Image.fromarray(resized(render_pixels(scene), size))
