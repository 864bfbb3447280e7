"""What a data set is: numbered pictures with labels, in memory, in files, or a part of another."""
import threading

import numpy as np

from .pictures import fit, picture_size, read_picture


class DataError(ValueError):
    """A data set that cannot be used; the message says in one line what was found and expected."""


class Dataset:
    """Numbered, labelled pictures: the base of all data sets.

    A subclass sets `classes` and `labels` and writes ``_read(i)``, :meth:`size` and :meth:`name`.
    Any number of threads may read pictures at the same time.

    Attributes
    ----------
    classes : tuple of str
        Readable names, by label.
    folders : tuple of str
        The names as the layout has them (wnids, folder names), by label; sorted.
    labels : numpy.ndarray, int64, shape=(n,)
    resize : int or None
        Pictures are brought to `resize` x `resize` (:func:`fit`) when they are read.
    note : str
        What was decided on the user's behalf, to be shown; empty where nothing was.
    keep_bytes : int
        How many bytes of decoded pictures may be kept in memory, where they come from files.
    statistics : Statistics or None
        Of all training pictures at the size in force, where the data set knows them: a store does.
    """
    note, keep_bytes, statistics = "", 0, None

    def __init__(self, classes, labels, folders=None, resize=None):
        self.classes = tuple(classes)
        self.folders = tuple(folders or classes)
        self.labels = np.asarray(labels, np.int64)
        self.resize = resize

    def __len__(self):
        return len(self.labels)

    def picture(self, i):
        """Return picture `i`, uint8 (H, W, 3), RGB; not to be written to.

        Raises
        ------
        BrokenPicture
            If it cannot be read.
        """
        picture = self._read(i)
        return fit(picture, self.resize) if self.resize else picture

    def _read(self, i):
        raise NotImplementedError(f"{type(self).__name__} has no _read")

    def size(self, i):
        """Return (H, W) of picture `i` as it is stored, without decoding it.

        Raises
        ------
        BrokenPicture
            If it cannot be read.
        """
        return self._read(i).shape[:2]

    def name(self, i):
        """Return what to call picture `i` in a message: its file, or its place."""
        return f"picture {i}"

    def __repr__(self):
        return f"{type(self).__name__}({len(self):,} pictures, {len(self.classes)} classes)"


class ArrayDataset(Dataset):
    """Pictures held in one array.

    Parameters
    ----------
    pictures : numpy.ndarray, uint8, shape=(n, H, W, 3)
    labels : sequence of int, length n
    classes : sequence of str
    resize : int, optional
    name : str
        What the set is called in messages.

    Raises
    ------
    DataError
        If the shapes, the type or the labels do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyalex.data import ArrayDataset
    >>> ArrayDataset(np.zeros((2, 8, 8, 3), np.uint8), [0, 1], ["day", "night"])
    ArrayDataset(2 pictures, 2 classes)
    """

    def __init__(self, pictures, labels, classes, resize=None, name="array"):
        super().__init__(classes, labels, resize=resize)
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise DataError(f"pictures: got {pictures.dtype} of shape {pictures.shape}; "
                            "expected uint8 of shape (n, H, W, 3)")
        if self.labels.shape != pictures.shape[:1]:
            raise DataError(f"labels: got shape {self.labels.shape} for {len(pictures)} pictures; "
                            "expected one label for each")
        check_labels(self.labels, len(self.classes))
        self.pictures, self._name = pictures, name

    def _read(self, i):
        return self.pictures[i]

    def name(self, i):
        return f"{self._name}[{i}]"


class FileDataset(Dataset):
    """Pictures in files, read when asked for; a small set is kept in memory once read.

    Parameters
    ----------
    root : str
    files : sequence of str
        Paths relative to `root`.
    labels : sequence of int
    classes, folders : sequence of str
    resize : int, optional
    keep_bytes : int
        Decoded pictures are kept, as uint8, until they fill so many bytes; 0 keeps none.

    Examples
    --------
    >>> from tinyalex.data import FileDataset
    >>> FileDataset("pets", ["cat/1.jpg", "dog/1.jpg"], [0, 1], ["cat", "dog"]).name(1)
    'pets/dog/1.jpg'
    """

    def __init__(self, root, files, labels, classes, folders=None, resize=None, keep_bytes=0):
        super().__init__(classes, labels, folders, resize)
        self.root, self.files = root, tuple(files)
        self.keep_bytes = keep_bytes
        self._kept, self._used, self._lock = {}, 0, threading.Lock()

    def picture(self, i):               # resized while it is decoded: see read_picture
        picture = self._kept.get(i)
        if picture is None:
            picture = read_picture(self.name(i), self.resize)
            self._keep(i, picture)
        return picture

    def size(self, i):
        return picture_size(self.name(i))

    def name(self, i):
        return f"{self.root}/{self.files[i]}"

    def _keep(self, i, picture):
        with self._lock:
            if i not in self._kept and self._used + picture.nbytes <= self.keep_bytes:
                self._kept[i] = picture
                self._used += picture.nbytes


class Subset(Dataset):
    """Some pictures of another data set, in the order given; the classes stay.

    Parameters
    ----------
    dataset : Dataset
    rows : sequence of int

    Examples
    --------
    >>> from tinyalex.data import Shapes, Subset
    >>> Subset(Shapes("train"), range(1000))
    Subset(1,000 pictures, 16 classes)
    """

    def __init__(self, dataset, rows):
        self.dataset, self.rows = dataset, np.asarray(rows, np.int64)
        super().__init__(dataset.classes, dataset.labels[self.rows], dataset.folders,
                         dataset.resize)
        self.note = dataset.note

    def picture(self, i):
        return self.dataset.picture(int(self.rows[i]))

    def size(self, i):
        return self.dataset.size(int(self.rows[i]))

    def name(self, i):
        return self.dataset.name(int(self.rows[i]))


def check_labels(labels, classes):
    """Raise DataError unless all labels lie in 0 to classes - 1."""
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise DataError(f"labels: picture {int(wrong.argmax())} has label {labels[wrong][0]}; "
                        f"expected 0 to {classes - 1}")
