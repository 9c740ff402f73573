"""Makes an array of fixed shape of a picture file, by Pillow.

Knows no data set: one file's bytes in, one array out.
Usage: ``decode(Path("cat.jpg").read_bytes(), (32, 32), 3)``.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from jaxlab.core.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # grey, colour, colour and opacity


def check_options(where: str, size: tuple[int, ...], channels: int) -> None:
    """Raise a ConfigError unless `size` is (height, width) and `channels` is 1, 3 or 4."""
    sides = size if isinstance(size, tuple | list) else ()  # a single number is none
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ConfigError(f"{where}: size={size!r}; expected (height, width) in pixels")
    if channels not in MODES:
        raise ConfigError(f"{where}: channels={channels!r}; expected 1 (grey), 3 (RGB) or 4 (RGBA)")


def decode(content: bytes, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    """Return the picture in `content` as uint8 [H, W, C].

    It is turned as its EXIF data say, resized (bilinear, antialiased) until it just covers `size`, and cropped at the
    centre; None leaves its size. Without a fourth channel, transparent parts are laid on white. 16-bit grey keeps its
    upper 8 bits.

    Raises:
      Exception: the content is no picture, or a broken one; of any type, since Pillow's plug-ins have their own.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        opened = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:  # its own message names a place in memory
        raise ValueError("it is empty" if not content else "its format is none that Pillow knows") from error
    with opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode.startswith("I;16"):
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        if picture.mode in ("I", "F"):
            raise ValueError(f"its mode {picture.mode} (32 bits a channel) has no fixed range; save it with 8 bits")
        picture = _converted(picture, channels)
        if size is not None:
            height, width = size
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
        return np.asarray(picture).reshape(picture.height, picture.width, channels)


def _converted(picture: Image.Image, channels: int) -> Image.Image:
    from PIL import Image

    if channels != 4 and picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == MODES[channels] else picture.convert(MODES[channels])
