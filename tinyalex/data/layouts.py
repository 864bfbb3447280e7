"""From a folder to two data sets: finds out how it is laid out, and says plainly what is wrong.

Understood are one folder for each class under train/ and val/ (or test/), as ImageNet is commonly
kept; the official layout of Tiny ImageNet; CIFAR-10's binary version; and the embedded shapes.
"""
import os

import numpy as np

from .. import random
from .archives import MD5
from .cifar10 import find_cifar10, locate, open_cifar10
from .dataset import DataError, FileDataset
from .pictures import SUFFIXES, BrokenPicture
from .shapes import Shapes
from .store import is_store, open_store
from .tinyimagenet import find_tinyimagenet
from .trees import class_folders, names_of, picture_files, read_annotations, read_wnids

KEEP_BYTES = 3 * 2**29          # 1.5 GiB: holds all 110,000 pictures of Tiny ImageNet
PROBES = 64                     # headers looked at to know the usual size of the pictures


def open_dataset(where, image_size, resize=None, seed=0, keep_bytes=KEEP_BYTES):
    """Open a data set for training and one for validation.

    Parameters
    ----------
    where : str or os.PathLike
        ``"shapes"``; ``"cifar10"`` or ``"tinyimagenet"``, fetched if it is in none of the usual
        places (see :func:`find_cifar10` and :func:`find_tinyimagenet`); or a folder: with train/
        and val/ or test/, each with one folder for each class; with train/ alone or with the class
        folders themselves, of which a tenth is then held out; Tiny ImageNet; CIFAR-10's binary
        files. The archive of the latter can be given too, and a store that :func:`prepare` has
        written. A folder called shapes is ``"./shapes"``.
    image_size : int
        The net's input, in pixels.
    resize : int, optional
        Bring all pictures to the central square of this size (:func:`fit`); the paper's 256 for
        its 224. Where None, pictures are taken as they are, unless their usual size is less than
        3/4 or more than 4/3 of the input: then it is 8/7 of the input, the paper's proportion.
    seed : int
        Draws what is held out, and the shapes.
    keep_bytes : int
        A folder that takes up to so many bytes decoded (default 1.5 GiB) is kept in memory as it is
        read; a larger one is decoded in each epoch anew, and a store always is.

    Returns
    -------
    train, val : Dataset
        With equal classes in equal order, sorted by the name of the folder. `train.note` tells
        what was decided here, `train.resize` the size in force.

    Raises
    ------
    DataError
        If there is nothing of the kind, or something about it is wrong.

    Examples
    --------
    >>> from tinyalex.data import open_dataset
    >>> train, val = open_dataset("shapes", 67)
    >>> train, val
    (Shapes(8,000 pictures, 16 classes), Shapes(2,000 pictures, 16 classes))
    """
    for name, value in (("image_size", image_size), ("resize", resize)):
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
            raise DataError(f"{name}: got {value!r}; expected a positive number of pixels")
    where = os.fsdecode(where)
    if where == "shapes":
        train, val = Shapes("train", seed=seed), Shapes("val", seed=seed)
    elif where == "cifar10":
        train, val = open_cifar10(find_cifar10(download=True))
    elif where == "tinyimagenet":
        train, val = _open_folder(find_tinyimagenet(download=True), seed)
    elif os.path.isfile(where):
        train, val = _open_file(where)
    elif is_store(where):
        train, val = open_store(where)
    else:
        train, val = _open_folder(where.rstrip("/") or where, seed)
    _settle(train, val, image_size, resize, keep_bytes)
    return train, val


def _open_file(where):
    if os.path.basename(where) in MD5:               # of which one is read for an hour
        _send_to_prepare(where)
    if where.lower().endswith(SUFFIXES):
        raise DataError(f"where={where!r}: is one picture; give the folder that holds the classes")
    return open_cifar10(where)


def _open_folder(where, seed):
    if not os.path.isdir(where):
        raise DataError(f"where={where!r}: no such folder; give a folder with train/ and val/, "
                        "'tinyimagenet', 'shapes' or 'cifar10'")
    if locate(where):
        return open_cifar10(locate(where))
    if os.path.isfile(os.path.join(where, "data_batch_1")):
        raise DataError(f"where={where!r}: is CIFAR-10's Python version, whose pickles are not "
                        "opened; get the binary version, cifar-10-binary.tar.gz")
    inner = os.path.join(where, "train")
    top = inner if os.path.isdir(inner) else where
    folders = class_folders(top)
    if top == where:
        _check_not_above(where, folders)
    if not folders:
        if any(os.path.isfile(os.path.join(where, name)) for name in MD5):
            _send_to_prepare(where)
        raise DataError(f"where={where!r}: no class folders in {top}; expected "
                        "train/<class>/*.jpg and val/<class>/*.jpg")
    if len(folders) < 2:
        raise DataError(f"where={where!r}: one class only ({folders[0]!r} in {top}); "
                        "expected a folder for each of at least two")
    _check_wnids(where, folders)
    files, labels = _listed(top, folders)
    empty = np.flatnonzero(np.bincount(labels, minlength=len(folders)) == 0)
    if len(empty):
        raise DataError(f"where={where!r}: class {folders[empty[0]]!r} has no pictures in {top}; "
                        f"only {', '.join(SUFFIXES)} are read")
    classes = names_of(where, folders)
    held_out = _held_out(where, folders) if top == inner else None
    if held_out is None:
        return _hold_out(where, top, files, labels, classes, folders, seed)
    root, val_files, val_labels = held_out
    train = FileDataset(top, files, labels, classes, folders)
    val = FileDataset(root, val_files, val_labels, classes, folders)
    absent = len(folders) - len(np.unique(val.labels))
    if absent:
        train.note = val.note = f"{absent} of {len(folders)} classes have no pictures in {root}"
    return train, val


def _send_to_prepare(where):
    raise DataError(f"where={where!r}: ImageNet's archives are read once only, by "
                    "examples/prepare_imagenet.py; give the store that it makes of them")


def _listed(top, folders):
    """Return the picture files of all classes, relative to `top`, and their labels."""
    files, labels, present = [], [], set(class_folders(top))
    for label, folder in enumerate(folders):
        found = picture_files(os.path.join(top, folder)) if folder in present else []
        files += [f"{folder}/{name}" for name in found]
        labels += [label] * len(found)
    return files, np.array(labels, np.int64)


def _held_out(where, folders):
    """Return (root, files, labels) of val/ or test/, or None where there is neither."""
    root = next((path for path in (os.path.join(where, name) for name in ("val", "test"))
                 if os.path.isdir(path)), None)
    if root is None:
        return None
    annotations = os.path.join(root, "val_annotations.txt")
    if os.path.isfile(annotations):
        return root, *read_annotations(annotations, folders)
    found = class_folders(root)
    if "images" in found and "images" not in folders:
        raise DataError(f"where={where!r}: {root}/images has no labels; expected "
                        f"{annotations}, a line for each picture, or one folder for each class")
    unknown = sorted(set(found) - set(folders))
    if unknown:
        raise DataError(f"where={where!r}: {root} has class {unknown[0]!r}, which train/ has not; "
                        "expected the same class folders in both")
    files, labels = _listed(root, folders)
    if not files:
        raise DataError(f"where={where!r}: no pictures in {root}; expected {root}/<class>/*.jpg")
    return root, files, labels


def _hold_out(where, top, files, labels, classes, folders, seed):
    """Split one tree: of each class a seeded tenth, and at least one picture, is held out."""
    held = np.zeros(len(files), bool)
    for label, folder in enumerate(folders):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise DataError(f"where={where!r}: class {folder!r} has 1 picture and there is no val/ "
                            "or test/; one to learn from and one to hold out are needed")
        order = random.generator("holdout", folder, seed=seed).permutation(rows)
        held[order[:max(1, round(len(rows) / 10))]] = True
    parts = [FileDataset(top, [files[i] for i in np.flatnonzero(part)], labels[part], classes,
                         folders) for part in (~held, held)]
    for part in parts:
        part.note = (f"no val/ or test/ beside {top}: {held.sum():,} of {len(held):,} pictures, "
                     f"a tenth of each class, are held out (seed {seed})")
    return parts


def _check_not_above(where, folders):
    """A folder of parts, or of data sets, must not pass for one of classes."""
    parts = [folder for folder in folders if folder.lower() in ("val", "valid", "test")]
    if parts:
        raise DataError(f"where={where!r}: has {parts[0]}/ but no train/; expected both, each with "
                        "one folder for each class")
    inner = [folder for folder in folders if os.path.isdir(os.path.join(where, folder, "train"))]
    if inner:
        raise DataError(f"where={where!r}: {inner[0]}/ in it has a train/ of its own; give "
                        f"{os.path.join(where, inner[0])!r}")


def _check_wnids(where, folders):
    """Tiny ImageNet lists its classes: a half-extracted set must not pass for a whole one."""
    listed = os.path.join(where, "wnids.txt")
    if os.path.isfile(listed):
        missing = sorted(set(read_wnids(listed)) - set(folders))
        if missing:
            raise DataError(f"where={where!r}: wnids.txt lists {missing[0]!r} ({len(missing)} in "
                            "all) but train/ has no such folder; is everything extracted?")


def _settle(train, val, image_size, resize, keep_bytes):
    """Decide on the size of the pictures, and whether they are kept in memory."""
    sizes = _sizes(train)                                       # (P, 2): height, width
    if resize is None:
        usual = int(np.median(sizes.min(1)))
        if 4 * usual < 3 * image_size or 3 * usual > 4 * image_size:
            resize = round(image_size * 8 / 7)
            note = (f"pictures of about {usual} pixels are brought to {resize} x {resize} for an "
                    f"input of {image_size}")
            train.note = val.note = "; ".join(part for part in (train.note, note) if part)
    each = 3 * resize**2 if resize else 3 * sizes.prod(1).mean()                # bytes
    for dataset in (train, val):
        dataset.resize = resize or dataset.resize            # a store says its own
        dataset.keep_bytes = keep_bytes if len(dataset) * each <= keep_bytes else 0


def _sizes(dataset):
    sizes = []
    for i in np.linspace(0, len(dataset) - 1, min(PROBES, len(dataset))).astype(int):
        try:
            sizes.append(dataset.size(i))
        except BrokenPicture as problem:
            broken = problem
    if not sizes:
        raise DataError(f"where: {broken}, and so with all pictures looked at; expected JPEG or "
                        "PNG files")
    return np.array(sizes)
