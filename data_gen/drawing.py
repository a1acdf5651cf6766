"""Draws J-shaped tetrominoes: exact area coverage of every pixel times a pure hue."""

import numpy as np

# Corners of the J in blocks from the centre of its 2x3 box, y down: three blocks on the right, one at the lower left.
CORNERS = np.array([(0.0, -1.5), (1.0, -1.5), (1.0, 1.5), (-1.0, 1.5), (-1.0, 0.5), (0.0, 0.5)])
RADIUS = float(np.hypot(1.0, 1.5))  # of the farthest corner, in blocks
_CHUNK = 128  # images drawn at once: the arrays of one edge then fit in the second-level cache


def draw(rotation: np.ndarray, hue: np.ndarray, scale: np.ndarray, centre_x: np.ndarray, centre_y: np.ndarray,
         image_size: int = 32) -> np.ndarray:
    """Draws one J per row on black.

    Args:
        rotation: [n] degrees; a positive angle turns the shape counter-clockwise as seen.
        hue: [n] in [0, 1].
        scale: [n] side of one block in pixels.
        centre_x: [n] horizontal position of the box's centre; pixel i covers [i, i + 1].
        centre_y: [n] vertical position, downwards.
        image_size: height and width in pixels.

    Returns:
        uint8 [n, image_size, image_size, 3]: area coverage times the hue (HSV with S = 1 and V = coverage).
    """
    images = np.zeros((len(rotation), image_size, image_size, 3), np.uint8)
    colour = 255 * pure_hue(hue)
    for start in range(0, len(rotation), _CHUNK):
        part = slice(start, start + _CHUNK)
        corners = place(rotation[part], scale[part], centre_x[part], centre_y[part])
        _draw_chunk(images[part], corners, colour[part], float(scale[part].max()))
    return images


def place(rotation: np.ndarray, scale: np.ndarray, centre_x: np.ndarray, centre_y: np.ndarray) -> np.ndarray:
    """Corners [n, 6, 2] of the turned, scaled and shifted J, in pixels."""
    angle = np.radians(np.asarray(rotation, np.float64))[:, None]
    offset_x, offset_y = CORNERS.T
    turned = np.stack([np.cos(angle) * offset_x + np.sin(angle) * offset_y,
                       -np.sin(angle) * offset_x + np.cos(angle) * offset_y], axis=-1)
    return turned * np.asarray(scale)[:, None, None] + np.stack([centre_x, centre_y], axis=-1)[:, None, :]


def pure_hue(hue: np.ndarray) -> np.ndarray:
    """RGB [n, 3] in [0, 1] of fully saturated, fully bright hues in [0, 1]."""
    sixths = 6 * np.asarray(hue, np.float64)[:, None] - np.array([3.0, 2.0, 4.0])
    return np.clip(np.abs(sixths) * np.array([1, -1, -1]) + np.array([-1, 2, 2]), 0, 1)


def coverage(corners: np.ndarray, left: np.ndarray, top: np.ndarray, width: int) -> np.ndarray:
    """Exact share of each pixel that a polygon covers, in a window of `width` x `width` pixels.

    The area left of the line x = X inside one pixel row is the sum over edges of the signed height times the mean of
    max(X - x, 0) along the edge, which has a closed form; pixels are differences of it along X.

    Args:
        corners: [n, number of corners, 2] in pixels, clockwise as seen (y down).
        left: [n] first pixel column of the window.
        top: [n] first pixel row.
        width: pixels in a row and in a column of the window.

    Returns:
        float64 [n, width, width], indexed by row and column.
    """
    start, end = corners, np.roll(corners, -1, axis=1)
    lines = left[:, None] + np.arange(width + 1.0)
    rows = top[:, None] + np.arange(float(width))
    area = np.zeros((len(corners), width, width + 1))
    for edge in range(corners.shape[1]):
        (x_start, y_start), (x_end, y_end) = start[:, edge].T[..., None], end[:, edge].T[..., None]
        y_low, y_high = np.clip(y_start, rows, rows + 1), np.clip(y_end, rows, rows + 1)
        height = np.where(np.abs(y_end - y_start) < 1e-9, 1e-9, y_end - y_start)
        x_low = x_start + (x_end - x_start) * np.clip((y_low - y_start) / height, 0, 1)
        x_high = x_start + (x_end - x_start) * np.clip((y_high - y_start) / height, 0, 1)
        area += _area_left_of(lines, x_low, x_high, y_low - y_high)
    return np.clip(np.diff(area, axis=2), 0, 1)


def _area_left_of(lines: np.ndarray, x_low: np.ndarray, x_high: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Signed height times the mean of max(X - x, 0), x running from x_low to x_high: [n, rows, lines]."""
    upright = np.abs(x_high - x_low) < 1e-5  # the closed form is 0 / 0 there: lean the edge by 1e-5 pixels
    middle = (x_low + x_high) / 2
    x_low, x_high = np.where(upright, middle + 5e-6, x_low), np.where(upright, middle - 5e-6, x_high)
    ahead_low = np.maximum(lines[:, None, :] - x_low[:, :, None], 0)
    ahead_high = np.maximum(lines[:, None, :] - x_high[:, :, None], 0)
    ahead_low *= ahead_low
    ahead_high *= ahead_high
    ahead_high -= ahead_low
    ahead_high *= (height / (2 * (x_low - x_high)))[:, :, None]
    return ahead_high


def _draw_chunk(images: np.ndarray, corners: np.ndarray, colour: np.ndarray, largest_scale: float) -> None:
    size = images.shape[1]
    width = min(size, int(np.ceil(2 * RADIUS * largest_scale)) + 1)
    left, top = np.clip(np.floor(corners.min(axis=1)), 0, size - width).astype(int).T
    share = coverage(corners, left, top, width)
    window = np.rint(share[..., None] * colour[:, None, None, :]).astype(np.uint8)
    picture, row, column = np.ogrid[:len(images), :width, :width]
    images[picture, top[:, None, None] + row, left[:, None, None] + column] = window
