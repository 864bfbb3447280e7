"""From a file to pixels, safely: JPEG and PNG of any kind become RGB uint8 arrays (H, W, 3).

A picture comes from a stranger. It may be cut short, far too large, something else under a
picture's name, or made to harm; so the size is checked before anything is decoded, no format but
the two is tried, and whatever goes wrong is one exception with one line: :class:`BrokenPicture`.
"""
import contextlib
import functools
import io
import os
import stat
import warnings

import numpy as np

MAX_PIXELS = 50_000_000         # of one picture, from its header: 150 MB decoded
MAX_BYTES = 100 * 2**20         # of one picture file
MAX_SCANS = 100                 # of a JPEG of MAX_PIXELS, about 5 s; of smaller ones, more
SUFFIXES = (".jpg", ".jpeg", ".png")


class BrokenPicture(ValueError):
    """A picture that cannot be read; the message names it and says why, in one line."""

    def __init__(self, name, reason):
        self.name, self.reason = str(name), " ".join(str(reason).split())[:200]
        # Names of files are bytes and may hold anything; a message is one line that can be printed.
        shown = self.name.encode("utf-8", "backslashreplace").decode()
        super().__init__(f"{' '.join(shown.splitlines())}: {self.reason}")


def read_picture(path, resize=None):
    """Read a JPEG or PNG file as RGB.

    The content decides the format, not the file's name: ImageNet has a PNG called ``.JPEG``.

    Parameters
    ----------
    path : str or os.PathLike
        A regular file (or a link to one) of at most 100 MB and 50 million pixels.
    resize : int, optional
        Bring the picture to `resize` x `resize` pixels with :func:`fit`; very large JPEGs are
        then decoded at a half, a quarter or an eighth of their size, which is much faster.

    Returns
    -------
    numpy.ndarray, uint8, shape=(H, W, 3)

    Raises
    ------
    BrokenPicture
        If the file is missing, not regular, empty, too large, cut short, damaged or no picture, or
        would keep the decoder busy for too long.

    Examples
    --------
    >>> from tinyalex.data import read_picture
    >>> read_picture("missing.jpg")
    Traceback (most recent call last):
    tinyalex.data.pictures.BrokenPicture: missing.jpg: No such file or directory
    """
    return decode_picture(_bytes(path), path, resize)


def picture_size(path):
    """Return (H, W) of a JPEG or PNG file from its header.

    Raises
    ------
    BrokenPicture
        As in :func:`read_picture`, but for damage behind the header.
    """
    with _opened(_bytes(path), path) as image:
        return image.height, image.width


def decode_picture(data, name="picture", resize=None):
    """Decode the bytes of a JPEG or PNG file; see :func:`read_picture`.

    Every mode ends as RGB: grey, palette, CMYK and 1-bit pictures are converted, 16-bit ones lose
    their low byte, and what is transparent is laid over white, as a page would show it. Neither
    the rotation in the EXIF data nor a color profile is applied: ImageNet's own copies were
    made, and all nets compared on it trained, without.

    Parameters
    ----------
    data : bytes
    name : str or os.PathLike
        What to call the picture in an error.
    resize : int, optional
        As in :func:`read_picture`.

    Returns
    -------
    numpy.ndarray, uint8, shape=(H, W, 3)

    Raises
    ------
    BrokenPicture
        As in :func:`read_picture`.

    Examples
    --------
    >>> from tinyalex.data import decode_picture
    >>> decode_picture(b"GIF89a...", "cat.gif")
    Traceback (most recent call last):
    tinyalex.data.pictures.BrokenPicture: cat.gif: is neither a JPEG nor a PNG
    """
    with _opened(data, name) as image:
        if resize:                       # twice the size wanted: the filter in fit does the rest
            image.draft(None, (2 * resize, 2 * resize))
        image = _rgb(image)
        return np.asarray(_fitted(image, resize) if resize else image)


def resize_shorter(picture, size):
    """Resize a picture so that its shorter side is `size`, keeping its proportions.

    The filter is the one of torchvision: bilinear, widened when the picture shrinks so that nothing
    aliases.

    Parameters
    ----------
    picture : numpy.ndarray, uint8, shape=(H, W, 3)
    size : int
        In pixels.

    Returns
    -------
    numpy.ndarray, uint8, shape=(size, W', 3) or (H', size, 3)

    Raises
    ------
    ValueError
        If `picture` is not such an array, `size` not positive, or the result over 50 M pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex.data import resize_shorter
    >>> resize_shorter(np.zeros((375, 500, 3), np.uint8), 256).shape
    (256, 341, 3)
    """
    height, width = _checked(picture, size)
    shorter = min(height, width)
    height, width = round(height * size / shorter), round(width * size / shorter)
    if height * width > MAX_PIXELS:
        raise ValueError(f"picture: {picture.shape[:2]} resized to a shorter side of {size} would "
                         f"be {height} x {width}; at most {MAX_PIXELS:,} pixels are allowed")
    if (height, width) == picture.shape[:2]:
        return picture
    Image = _pillow()
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def fit(picture, size):
    """Resize the shorter side to `size` and keep the central square: paper, section 2.

    Parameters
    ----------
    picture : numpy.ndarray, uint8, shape=(H, W, 3)
    size : int
        In pixels.

    Returns
    -------
    numpy.ndarray, uint8, shape=(size, size, 3)
        The array itself where it has this shape already.

    Raises
    ------
    ValueError
        If `picture` is not such an array or `size` not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex.data import fit
    >>> fit(np.zeros((375, 500, 3), np.uint8), 256).shape
    (256, 256, 3)
    """
    if _checked(picture, size) == (size, size):
        return picture
    return np.asarray(_fitted(_pillow().fromarray(np.ascontiguousarray(picture)), size))


def _fitted(image, size):
    if image.size == (size, size):
        return image
    # The square is cut first: a picture of 1 x 1,000,000 pixels must not be enlarged whole.
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    box = left, top, left + side, top + side
    return image.resize((size, size), _pillow().Resampling.BILINEAR, box=box)


def _checked(picture, size):
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"picture: got {picture.dtype} of shape {picture.shape}; "
                         "expected uint8 of shape (H, W, 3)")
    if size < 1:
        raise ValueError(f"size: got {size}; expected a positive number of pixels")
    return picture.shape[:2]


def _bytes(path):
    try:
        # A pipe under a picture's name would block open() for ever.
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            with open(path, "rb") as file:
                return file.read(min(found.st_size, MAX_BYTES) + 1)
    except (OSError, ValueError) as problem:            # ValueError: a zero byte in the name
        raise BrokenPicture(path, getattr(problem, "strerror", None) or problem) from None
    raise BrokenPicture(path, "is not a regular file")


@contextlib.contextmanager
def _opened(data, name):
    """Open a picture whose header is in order; what goes wrong then is a BrokenPicture as well."""
    if not data:
        raise BrokenPicture(name, "is empty (0 bytes)")
    if len(data) > MAX_BYTES:
        raise BrokenPicture(name, f"is over the limit of {MAX_BYTES // 2**20} MB for one file")
    Image = _pillow()
    limit = f"is over the limit of {MAX_PIXELS // 10**6} million pixels"
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise BrokenPicture(name, f"{limit}: {image.width} x {image.height}")
            # Ten bytes make one more scan of a JPEG, which goes over every pixel again. In a file
            # that has no room for too many they need not be counted.
            most = MAX_SCANS * MAX_PIXELS // pixels
            if image.format == "JPEG" and len(data) > 10 * most:
                scans = data.count(b"\xff\xda")
                if scans > most:
                    raise BrokenPicture(name, f"has too many scans for its size: {scans:,}")
            yield image
    except (BrokenPicture, MemoryError):                # too little memory is not the file's fault
        raise
    except Image.UnidentifiedImageError:
        known = data.startswith((b"\xff\xd8", b"\x89PNG"))
        reason = "is damaged: its header ends early" if known else "is neither a JPEG nor a PNG"
        raise BrokenPicture(name, reason) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise BrokenPicture(name, limit) from None
    # Damage comes out of Pillow as OSError, SyntaxError, struct.error, zlib.error, ValueError and
    # more: one bad file among a million must not end a run, whatever it raises.
    except Exception as problem:
        raise BrokenPicture(name, f"is damaged: {problem}") from None


def _rgb(image):
    Image = _pillow()
    image.load()
    if image.mode.startswith("I"):                      # 16-bit grey: Pillow would clip it at 255
        grey = np.asarray(image).clip(0, 65535).astype(np.uint16)
        if "transparency" in image.info:
            grey[grey == image.info["transparency"]] = 65535
        image = Image.fromarray((grey >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


@functools.cache
def _pillow():
    from PIL import Image
    # A header that claims 90 M pixels only warns in Pillow; and Pillow warns of damage in EXIF
    # data, which is not used here. Filters belong to the whole process, so they are set once and
    # never per call: catch_warnings is not safe among threads.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    return Image
