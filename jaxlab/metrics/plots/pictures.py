"""Examples as pictures with what was said of them, and where a model attends.

Usage: ``grid(image_NHWC, captions, "highest loss")``. Shape letters: N examples, H, W and C of pictures, K heads,
T positions that attend and S that are attended to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

MOST = 16
_HEADS = 8


def grid(image_NHWC: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Return up to `MOST` pictures, each under its caption.

    Args:
      image_NHWC: bytes, or numbers, which are stretched to the range of the picture if they leave 0 to 1; of 1 or 3
        channels, otherwise the first is shown.
      captions: one a picture.
      title: of all.
    """
    shown = image_NHWC[:MOST]
    width = min(4, len(shown))
    height = -(-len(shown) // width)
    figure = Figure(figsize=(max(1.5 * width, 3.6), 1.75 * height + 0.4), layout="constrained")
    cells = figure.subplots(height, width, squeeze=False).reshape(-1)
    for axes in cells:
        axes.set_axis_off()
    for axes, image, caption in zip(cells, shown, captions, strict=False):
        axes.imshow(_displayed(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(caption, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _displayed(image_HWC: np.ndarray) -> np.ndarray:
    """Return numbers from 0 to 1, [H, W] or [H, W, 3]."""
    shown = image_HWC if image_HWC.shape[-1] == 3 else image_HWC[..., 0]
    if shown.dtype == np.uint8:
        return shown / 255.0
    shown = np.nan_to_num(shown.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = shown.min(), shown.max()
    if low >= 0 and high <= 1:
        return shown
    return (shown - low) / (high - low) if high > low else np.full(shown.shape, 0.5)


def attention(weight_KTS: np.ndarray, title: str) -> Figure:
    """Return one example's attention, a panel a head: which positions (down) attend to which (across)."""
    heads = weight_KTS[:_HEADS]
    width = min(4, len(heads))
    height = -(-len(heads) // width)
    figure = Figure(figsize=(2.4 * width + 0.9, 2.4 * height + 0.6), layout="constrained")
    cells = figure.subplots(height, width, squeeze=False, sharex=True, sharey=True)
    most = float(np.nanmax(heads)) or 1.0
    image = None
    for place, (axes, head) in enumerate(zip(cells.reshape(-1), heads, strict=False)):
        image = axes.imshow(head, cmap="Blues", vmin=0, vmax=most, aspect="auto", interpolation="nearest")
        axes.set_title(f"head {place + 1}", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in cells.reshape(-1)[len(heads) :]:
        axes.set_visible(False)
    figure.supxlabel("attended position", fontsize=9)
    figure.supylabel("attending position", fontsize=9)
    figure.suptitle(title, fontsize=10)
    if image is not None:
        figure.colorbar(image, ax=cells, label="weight", shrink=0.8)
    return figure
