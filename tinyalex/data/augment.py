"""From pictures to what the net sees: crop, mirror, color noise, minus the mean. Section 4.1.

Everything is told by a window: its top left corner (y, x) in the picture's own coordinates and
whether it is mirrored. A window may reach beyond a small picture; there the result is 0, as if
the picture had been padded with the mean. Here windows are chosen; ``crops`` cuts them out.
"""
import numpy as np

from .crops import CENTRAL, COLOR, COLUMNS, PLACE, Crops, Means, cut, pack
from .pictures import fit

READINGS = ("paper", "source")


class Augment:
    """Turn uint8 pictures into a batch for the net.

    Parameters
    ----------
    image_size : int
        Side S of the net's input, in pixels.
    mean : numpy.ndarray, shape=(H, W, 3) or (1, 1, 3)
        The training set's mean picture, or its mean color, 0 to 255. Pictures of another size
        than the mean picture's are given its mean color.
    scale : float
        What is left after the subtraction is divided by it.
    eigenvalues : numpy.ndarray, shape=(3,), optional
    eigenvectors : numpy.ndarray, shape=(3, 3), optional
        Of the covariance of the pixels' colors, 0 to 255; a column for each; for color noise.
    color_noise : float
        How much color noise; the paper's is 0.1, and 0 is none. May be set during a run: the 2012
        runs switched it off near their end.
    color_reading : {"paper", "source"}
        With a_i normal, of standard deviation `color_noise`, and p_i, l_i an eigenvector and its
        value, each picture is given ``sum_i p_i a_i l_i`` of pixels from 0 to 1 (the text), or
        ``sum_i p_i a_i sqrt(l_i)`` of pixels from 0 to 255, all then divided by 1.1 (the code).
    crop, flip : bool
        Whether training windows are placed, and mirrored, at random.
    central_mean : bool
        Where the mean is taken from: the window's own place and mirrored with it (False, the
        text), or the middle of the mean picture wherever the window is (True, the code).
    resize : int, optional
        Bring pictures to this size with :func:`fit` first, as :func:`open_dataset` does.

    Raises
    ------
    ValueError
        If an argument is out of its range or has another shape.

    Notes
    -----
    A picture no larger than the input, in height or width, is padded there by an eighth on both
    sides. Section 4.1 has 256 for 224; the code's windows, all 33 x 33 of them, are used.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex.data import Augment
    >>> augment = Augment(4, mean=np.full((1, 1, 3), 100))
    >>> augment.center([np.full((6, 6, 3), 130, np.uint8)])[0, :, 0, 0]
    array([30., 30., 30.], dtype=float32)
    """

    def __init__(self, image_size, mean, scale=1.0, eigenvalues=None, eigenvectors=None,
                 color_noise=0.0, color_reading="source", crop=True, flip=True,
                 central_mean=False, resize=None):
        mean = np.asarray(mean, np.float32)
        _expect(image_size >= 1, "image_size", image_size, "a positive number of pixels")
        _expect(mean.ndim == 3 and mean.shape[2] == 3, "mean", mean.shape, "shape (H, W, 3)")
        _expect(scale > 0, "scale", scale, "a positive number")
        _expect(color_noise >= 0, "color_noise", color_noise, "0 or more (the paper's is 0.1)")
        _expect(color_reading in READINGS, "color_reading", color_reading, " or ".join(READINGS))
        _expect(resize is None or resize >= 1, "resize", resize, "a positive number of pixels")
        self.image_size, self.mean, self.scale = int(image_size), mean, float(scale)
        self.eigenvalues, self.eigenvectors = eigenvalues, eigenvectors
        if color_noise:
            _expect(np.shape(eigenvalues) == (3,), "eigenvalues", eigenvalues, "three numbers")
            _expect(np.shape(eigenvectors) == (3, 3), "eigenvectors", eigenvectors, "(3, 3)")
        self.color_noise, self.color_reading = color_noise, color_reading
        self.crop, self.flip, self.central_mean = crop, flip, central_mean
        self.resize = resize
        self.means = Means(mean, self.image_size)

    def train(self, pictures, rng, rows=None, total=None, device=None):
        """Return random windows of the pictures, with color noise.

        All numbers for the whole global batch are drawn at once, so what happens to row r does
        not depend on how many machines share the batch, nor on which pictures were broken.

        Parameters
        ----------
        pictures : sequence of numpy.ndarray, uint8, shape=(H, W, 3)
            Of any sizes.
        rng : numpy.random.Generator
        rows : sequence of int, optional
            The pictures' places in the global batch; 0, 1, ... where None.
        total : int, optional
            The size of the global batch; as many as there are pictures where None.
        device : Device or str, optional
            Leave the windows to be cut later, on this device or another; it copies from where
            the bytes wait.

        Returns
        -------
        numpy.ndarray, float32, shape=(N, 3, S, S), or Crops of this shape for a `device`
            Arrays lie channels-last in memory.
        """
        total = len(pictures) if total is None else total
        rows = np.arange(len(pictures)) if rows is None else np.asarray(rows, np.int64)
        place, normal = rng.random((total, 3))[rows], rng.standard_normal((total, 3))[rows]
        pictures, windows = self._sized(pictures), []
        for picture, (down, right, side) in zip(pictures, place, strict=True):
            height, width = picture.shape[:2]
            if self.crop:
                y, x = _at(down, *self._range(height)), _at(right, *self._range(width))
            else:
                y, x = self._middle(height), self._middle(width)
            windows.append([(y, x, self.flip and side < 0.5)])
        noise, divisor = None, self.scale
        if self.color_noise:
            noise = self._noise(normal)                                 # (N, 3)
            divisor *= 1.1 if self.color_reading == "source" else 1
        return self._made(pictures, windows, noise, divisor, device)

    def center(self, pictures, device=None):
        """Return the central windows: float32 (N, 3, S, S), channels-last, or Crops."""
        pictures = self._sized(pictures)
        windows = [[(*map(self._middle, p.shape[:2]), False)] for p in pictures]
        return self._made(pictures, windows, None, self.scale, device)

    def ten(self, pictures, device=None):
        """Return ten windows of each picture: section 4.1's corners and center, and mirrored.

        Returns
        -------
        numpy.ndarray, float32, shape=(N, 10, 3, S, S), or Crops of this shape for a `device`
            Top left, top right, bottom left, bottom right, center; then the same mirrored.
        """
        pictures, windows = self._sized(pictures), []
        for picture in pictures:
            (top, bottom), (left, right) = (self._range(n) for n in picture.shape[:2])
            middle = self._middle(picture.shape[0]), self._middle(picture.shape[1])
            places = (top, left), (top, right), (bottom, left), (bottom, right), middle
            windows.append([(y, x, mirrored) for mirrored in (False, True) for y, x in places])
        return self._made(pictures, windows, None, self.scale, device, (len(pictures), 10))

    def _sized(self, pictures):
        return [fit(p, self.resize) for p in pictures] if self.resize else pictures

    def _range(self, length):
        """Return the first and the last place of a window along a side of the picture."""
        pad = 0
        if length <= self.image_size:       # an eighth, or what a tiny picture needs to fill it
            pad = max(length // 8, -(-(self.image_size - length) // 2))
        return -pad, length + pad - self.image_size

    def _middle(self, length):
        return (length - self.image_size) // 2

    def _noise(self, normal):
        values, vectors = np.asarray(self.eigenvalues), np.asarray(self.eigenvectors)
        strength = np.sqrt(values) if self.color_reading == "source" else values / 255**2 * 255
        return (normal * (self.color_noise * strength) @ vectors.T).astype(np.float32)  # (N, 3)

    def _kind(self, picture):
        """Return which mean a picture is freed of."""
        if picture.shape != self.mean.shape:
            return COLOR
        return CENTRAL if self.central_mean else PLACE

    def _made(self, pictures, windows, noise, divisor, device, axes=None):
        """Cut the windows, a list of them for each picture, or leave that to a device."""
        table, each, start = [], [], 0
        for picture, places in zip(pictures, windows, strict=True):
            fixed = start, *picture.shape[:2]
            table += [(*fixed, *place, self._kind(picture)) for place in places]
            each += [picture] * len(places)
            start += picture.size
        table = np.array(table, np.int64).reshape(-1, COLUMNS)
        if device is not None:
            return Crops(pack(pictures, device), table, self.means, noise, divisor, axes)
        images = cut(each, table, self.means, noise, divisor)
        return images.reshape(*(axes or (len(each),)), *images.shape[1:])


def _at(share, first, last):
    """Return the place, first to last, that a number from 0 to 1 chooses."""
    return first + int(share * (last - first + 1))


def _expect(holds, name, found, right):
    if not holds:
        raise ValueError(f"{name}: got {found!r}; expected {right}")
