"""Windows of pictures: where they lie is told by numbers, and what they show is cut out later.

A picture is bytes, and a window of it four times as many: on the way to a GPU the bytes go, with
one row of numbers for each window, and a kernel there crops, mirrors, subtracts the mean, adds the
color noise and divides. :func:`cut` does the same in NumPy, to the same bits.

A row of the table is (offset, height, width, y, x, mirrored, kind): where the picture begins in
the bytes, its size, the window's top left corner in it, whether the window is mirrored, and which
mean it is freed of.
"""
import numpy as np

from ..device import Device
from ..kernels import launch
from ..tensor import Tensor

COLUMNS = 7
COLOR, CENTRAL, PLACE = range(3)      # kinds of mean: see Means


class Means:
    """The three means that a window may be freed of.

    COLOR is one color for all pixels. CENTRAL is the middle of the mean picture, wherever the
    window is. PLACE is the mean picture at each pixel's own place, mirrored with it.

    Parameters
    ----------
    picture : numpy.ndarray, float32, shape=(H, W, 3)
    size : int
        The side S of a window.

    Attributes
    ----------
    picture : numpy.ndarray, float32, shape=(H, W, 3)
    central : numpy.ndarray, float32, shape=(S, S, 3)
        Its mean color where the mean picture is smaller than a window.
    color : numpy.ndarray, float32, shape=(3,)

    Examples
    --------
    >>> import numpy as np
    >>> Means(np.full((6, 6, 3), 9, np.float32), 4).central.shape
    (4, 4, 3)
    """

    def __init__(self, picture, size):
        self.picture, self.color, self.size = picture, picture.mean((0, 1)), size
        # Whole windows of what is subtracted: arrays of equal shape go through NumPy's fast loop.
        self._mirrored = np.ascontiguousarray(picture[:, ::-1])
        self._plain = np.tile(self.color, (size, size, 1))
        self.central = self._plain.copy()
        y, x = ((n - size) // 2 for n in picture.shape[:2])
        inner = picture[max(y, 0):max(y, 0) + size, max(x, 0):max(x, 0) + size]
        self.central[max(-y, 0):, max(-x, 0):][:inner.shape[0], :inner.shape[1]] = inner
        self._copies = {}

    def under(self, kind, mirrored, here, there):
        """Return what to subtract from the part `here` of a picture, `there` in its window."""
        if kind == COLOR:
            return self._plain[there]
        if kind == CENTRAL:
            return self.central[there]          # as it is: the code subtracts after mirroring
        if mirrored:
            (rows, columns), width = here, self.picture.shape[1]
            return self._mirrored[rows, width - columns.stop:width - columns.start]
        return self.picture[here]

    def on(self, device):
        """Return picture, central and color as arrays of a device, which keeps them."""
        if device not in self._copies:
            self._copies[device] = [device.array(a) for a in (self.picture, self.central,
                                                              self.color)]
        return self._copies[device]


class Crops:
    """The pictures of a batch, which wait as bytes until a device wants them as numbers.

    ``net(crops)`` takes them as it takes an array, and each device of the net gets its own bytes.

    Parameters
    ----------
    bytes : numpy.ndarray, uint8, flat
        All pictures, one after the other, as :func:`pack` returns them.
    table : numpy.ndarray, int64, shape=(windows, 7)
        A row for each window; several windows may share a picture.
    means : Means
    noise : numpy.ndarray, float32, shape=(windows, 3), optional
        The color that is added to each window, also to its padding.
    divisor : float
        All is divided by it in the end.
    axes : tuple of int, optional
        ``(N, T)`` where each picture has T windows of its own; else an axis of all windows.

    Attributes
    ----------
    shape : tuple
        ``(N, 3, S, S)`` or ``(N, T, 3, S, S)``.
    ndim, dtype
        As an array of this shape, float32, has them.
    nbytes : int
        What crosses to each device: the bytes, the table and the noise.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex.data import Augment
    >>> pictures = [np.full((6, 6, 3), 130, np.uint8)]
    >>> crops = Augment(4, mean=np.full((1, 1, 3), 100)).center(pictures, device="cpu:0")
    >>> crops.shape, crops.bytes.nbytes, crops.on("cpu:0").data[0, 0, 0, 0].item()
    ((1, 3, 4, 4), 108, 30.0)
    """

    dtype = np.dtype(np.float32)
    ndim = property(lambda self: len(self.shape))
    nbytes = property(lambda self: sum(a.nbytes for a in (self.bytes, self.table, self.noise)
                                       if a is not None))

    def __init__(self, bytes, table, means, noise=None, divisor=1.0, axes=None):
        self.bytes, self.table, self.means = bytes, table, means
        self.noise, self.divisor = noise, divisor
        self.shape = (*(axes or (len(table),)), 3, means.size, means.size)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, part):
        """Return a slice along the first axis, with the bytes of its own pictures alone."""
        if not isinstance(part, slice):
            raise TypeError(f"Crops: got [{part!r}]; expected a slice, such as crops[:8]")
        rows = np.arange(len(self.table)).reshape(self.shape[:-3])[part]       # (n,) or (n, T)
        table, axes = self.table[rows.reshape(-1)], rows.shape
        first = table[:, 0].min(initial=len(self.bytes))
        last = (table[:, 0] + 3 * table[:, 1] * table[:, 2]).max(initial=first)
        table[:, 0] -= first
        noise = None if self.noise is None else self.noise[rows.reshape(-1)]
        return Crops(self.bytes[first:last], table, self.means, noise, self.divisor, axes)

    def __array__(self, *args, **kwargs):
        raise TypeError("Crops: these are bytes, not numbers yet; use crops.on(device).numpy()")

    def flat(self):
        """Return the same windows along one axis: ``(N * T, 3, S, S)``."""
        return Crops(self.bytes, self.table, self.means, self.noise, self.divisor)

    def on(self, device):
        """Return the windows as a Tensor of this shape, float32, on a device.

        Parameters
        ----------
        device : Device or str
            What crosses to it is booked under ``("cpu:0", "input")``.
        """
        device = Device(device)
        if device is not Device("cpu:0"):
            device.ledger.count("cpu:0", "input", self.nbytes)
        images = self._cut_on(device) if device.kind == "cuda" else self._cut()
        return Tensor(images.reshape(self.shape), device)

    def _cut(self):
        places = ((start, height, width) for start, height, width, *_ in self.table.tolist())
        pictures = [self.bytes[start:start + 3 * height * width].reshape(height, width, 3)
                    for start, height, width in places]
        return cut(pictures, self.table, self.means, self.noise, self.divisor)

    def _cut_on(self, device):
        size = self.means.size
        with device.scope(), device.staged(self.bytes) as pixels:
            images = device.empty((len(self.table), 3, size, size), self.dtype)
            noise = None if self.noise is None else device.array(self.noise)
            launch(device, "input.crop", images.size, pixels, device.array(self.table),
                   *self.means.on(device), noise, images, size, self.means.picture.shape[1],
                   float(self.divisor))
        return images


def pack(pictures, device):
    """Return pictures as flat bytes, one after the other, from where a device copies fastest.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray, uint8, shape=(H, W, 3)
        Of any sizes.
    device : Device or str

    Returns
    -------
    numpy.ndarray, uint8, flat

    Examples
    --------
    >>> import numpy as np
    >>> pack([np.zeros((2, 2, 3), np.uint8), np.ones((1, 1, 3), np.uint8)], "cpu:0").tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]
    """
    data, start = Device(device).pinned((sum(p.size for p in pictures),), np.uint8), 0
    for picture in pictures:
        np.copyto(data[start:start + picture.size].reshape(picture.shape), picture)
        start += picture.size
    return data


def cut(pictures, table, means, noise=None, divisor=1.0):
    """Cut the windows out of pictures, in NumPy.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray, uint8, shape=(H, W, 3)
        The picture of each row of the table.
    table, means, noise, divisor
        As :class:`Crops` takes them; the offsets are not looked at.

    Returns
    -------
    numpy.ndarray, float32, shape=(N, 3, S, S)
        Channels-last in memory.

    Examples
    --------
    >>> import numpy as np
    >>> means = Means(np.full((1, 1, 3), 100, np.float32), 2)
    >>> window = np.array([[0, 2, 2, 0, 1, False, COLOR]])      # it hangs over on the right
    >>> cut([np.full((2, 2, 3), 130, np.uint8)], window, means)[0, 0].tolist()
    [[30.0, 0.0], [30.0, 0.0]]
    """
    size = means.size
    images = Device("cpu:0").empty((len(table), 3, size, size), np.float32)
    noise = None if noise is None else np.tile(noise, size)     # (N, S * 3): a line of each color
    # All that is done to a window is done while it lies in the cache.
    for n, (picture, row) in enumerate(zip(pictures, table.tolist(), strict=True)):
        image = images[n].transpose(1, 2, 0)                    # (S, S, 3), contiguous
        _, height, width, y, x, mirrored, kind = row
        top, bottom = max(-y, 0), min(height - y, size)         # of the picture, in the window
        left, right = max(-x, 0), min(width - x, size)
        here = slice(y + top, y + bottom), slice(x + left, x + right)
        there = slice(top, bottom), slice(left, right)
        if mirrored:
            there = there[0], slice(size - right, size - left)
        if bottom - top < size or right - left < size:
            image[...] = 0
        part = image[there]
        if mirrored:                        # a loop over 3 channels inside would be the slow one
            for channel in range(3):
                part[..., channel] = picture[here][:, ::-1, channel]
        else:
            part[...] = picture[here]
        part -= means.under(kind, mirrored, here, there)
        if noise is not None:
            lines = image.reshape(size, 3 * size)
            lines += noise[n]
        if divisor != 1:
            image /= np.float32(divisor)
    return images
