"""What a store can be made from, and how one source is told from another."""
import contextlib
import hashlib
import json
import os

from .archives import ArchiveDataset, find_archives, open_archives
from .dataset import ArrayDataset, DataError, FileDataset
from .layouts import open_dataset
from .pictures import BrokenPicture
from .shapes import Shapes
from .store import StoreDataset


def open_source(paths, size=256, workers=2, watch=None):
    """Open what a store shall be made from.

    Parameters
    ----------
    paths : sequence of str
        ImageNet's three archives, or the folder that holds them; or one folder as
        :func:`open_dataset` takes it.
    size : int
        The pictures are brought to this size while they are decoded.
    workers : int
    watch : callable, optional
        As for :func:`open_archives`.

    Returns
    -------
    train, val : Dataset

    Raises
    ------
    DataError
        As for :func:`open_archives` and :func:`open_dataset`.
    """
    archives = find_archives(paths)
    if archives:
        train, val = open_archives(archives, workers, watch)
        train.resize = val.resize = size
        return train, val
    return open_dataset(paths[0], size, resize=size, keep_bytes=0)


def fingerprint(*datasets):
    """Return a hash that tells one source from another, without reading its pictures' files.

    Examples
    --------
    >>> from tinyalex.data import Shapes
    >>> fingerprint(Shapes(count=16)) == fingerprint(Shapes(count=17))
    False
    """
    digest = hashlib.sha256()
    for dataset in datasets:
        digest.update(json.dumps([dataset.classes, dataset.folders]).encode())
        digest.update(dataset.labels.tobytes())
        if isinstance(dataset, (ArchiveDataset, StoreDataset)):
            digest.update(dataset.fingerprint.encode())
        elif isinstance(dataset, (ArrayDataset, Shapes)):
            digest.update(dataset.pictures.tobytes())
        elif isinstance(dataset, FileDataset):
            for i, file in enumerate(dataset.files):
                with contextlib.suppress(OSError):       # it will be left out
                    about = os.stat(dataset.name(i))
                    digest.update(f"{file!a} {about.st_size} {about.st_mtime_ns}\n".encode())
        else:
            for i in range(len(dataset)):
                digest.update(f"{dataset.name(i)!a}\n".encode())
    return digest.hexdigest()


def left_out_line(dataset, i, problem):
    """Return a line for a broken picture, which says no more of its place than its name.

    Raises
    ------
    DataError
        If it must not be left out: nothing is missing in ImageNet, and a folder that is gone holds
        no broken pictures.
    """
    name = dataset.name(i)
    if isinstance(dataset, FileDataset):
        if not os.path.isdir(os.path.dirname(name)):     # a disk that went away is no bad picture
            raise DataError(f"source: {os.path.dirname(name)} is no longer there")
        name = dataset.files[i]
    elif isinstance(dataset, ArchiveDataset) and dataset.official:
        raise DataError(f"{problem}; ImageNet has no such picture: the archive is damaged "
                        "(--verify compares all of it)")
    return str(BrokenPicture(name, problem.reason))
