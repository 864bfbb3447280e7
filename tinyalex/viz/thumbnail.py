"""An array as a small picture inside a page of HTML, without any library."""

import base64
import struct
import zlib

import numpy as np


def thumbnail(values):
    """Return an array as an HTML image: dark is its smallest value, light its largest.

    The first of many pictures is shown, its first 8 maps side by side; a long row is broken into
    lines. What is NaN or infinite is red.

    >>> import numpy as np
    >>> from tinyalex.viz.thumbnail import thumbnail
    >>> thumbnail(np.arange(64.0).reshape(1, 1, 8, 8))[:30]
    '<img alt="" width="96" height='
    """
    tile = _tile(np.asarray(values, float))
    finite = np.isfinite(tile)
    low, high = (tile[finite].min(), tile[finite].max()) if finite.any() else (0, 0)
    shade = np.where(finite, tile, low) - low
    shade = np.rint(13 * shade / (high - low)) if high > low else np.full(tile.shape, 6.0)
    shade[np.isnan(tile)], shade[np.isinf(tile)] = 14, 15  # between maps; no number
    (height, width), zoom = tile.shape, max(1, min(12, 220 // tile.shape[1]))
    data = base64.b64encode(_png(shade.astype(np.uint8))).decode()
    return (f'<img alt="" width="{width * zoom}" height="{height * zoom}" '
            f'src="data:image/png;base64,{data}">')


def _tile(values):
    """Return a picture of an array, (rows, columns); infinite where it is no number, NaN between
    its maps."""
    values = np.where(np.isfinite(values), values, np.inf)
    while values.ndim > 3:
        values = values[0]
    if values.ndim == 3 and values[0].size > 1:
        values = values[:8]
        gap = np.full((len(values), values.shape[1], 1), np.nan)
        values = np.concatenate([values, gap], axis=2)             # (C, H, W + 1)
        return values.transpose(1, 0, 2).reshape(values.shape[1], -1)[:, :-1]
    if values.ndim != 2:
        row = values.reshape(-1)
        width = min(len(row), 32)
        return np.pad(row, (0, -len(row) % width), constant_values=np.nan).reshape(-1, width)
    return values


def _png(shades):
    """Return shades (H, W), 0 to 15, as a PNG file: 14 grays, then white, then red."""
    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    height, width = shades.shape
    shades = np.pad(shades, ((0, 0), (0, width % 2)))               # two pixels in a byte
    lines = np.pad(shades[:, ::2] << 4 | shades[:, 1::2], ((0, 0), (1, 0)))   # 0: not filtered
    colors = bytes(n * 255 // 13 for n in range(14) for _ in "rgb") + b"\xff\xff\xff\xd5\x5e\x00"
    return (b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0))
            + chunk(b"PLTE", colors) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
            + chunk(b"IEND", b""))
